use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DynamicObject, ListParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::json;
use testkit::{KubeApi, eventually};

use super::PATIENCE;

fn crd() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": {"name": "greetings.testkit.quokka.travel"},
        "spec": {
            "group": "testkit.quokka.travel",
            "scope": "Namespaced",
            "names": {"plural": "greetings", "singular": "greeting", "kind": "Greeting"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "properties": {"text": {"type": "string", "maxLength": 5}}}},
            }}}],
        },
    }))
    .unwrap()
}

#[tokio::test]
async fn resource_types_are_made_on_request_and_validated() {
    let kube = KubeApi::shared().await;
    kube.apply_crds(&[crd()]).await.unwrap();
    kube.apply_crds(&[crd()]).await.unwrap();
    let namespace = kube.create_namespace().await.unwrap();
    let greeting = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "testkit.quokka.travel",
        "v1",
        "Greeting",
    ));
    let api: Api<DynamicObject> =
        Api::namespaced_with(kube.client().await.unwrap(), &namespace, &greeting);

    let hello =
        |text: &str| DynamicObject::new("hello", &greeting).data(json!({"spec": {"text": text}}));
    let refused = api
        .create(&PostParams::default(), &hello("too long"))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("Too long"), "{refused}");
    api.create(&PostParams::default(), &hello("hello"))
        .await
        .unwrap();
}

#[tokio::test]
async fn somebody_else_may_do_only_what_they_are_allowed() {
    let kube = KubeApi::shared().await;
    let nobody = kube
        .client_as("nobody", &["system:authenticated"])
        .await
        .unwrap();
    let refused = Api::<ConfigMap>::default_namespaced(nobody)
        .list(&ListParams::default())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("forbidden"), "{refused}");
}

#[tokio::test]
async fn the_kubeconfig_is_for_other_programs_too() {
    let kube = KubeApi::shared().await;
    let text = kube.kubeconfig_yaml().unwrap();
    let read: kube::config::Kubeconfig = serde_json::from_str(&text).unwrap();
    assert_eq!(read.clusters.len(), 1);
    assert!(text.contains("certificate-authority-data"));
    assert!(text.contains("token"), "{text}");
}

#[tokio::test]
async fn it_survives_a_kill_with_its_data() {
    let kube = KubeApi::start().await.unwrap();
    let namespace = kube.create_namespace().await.unwrap();
    kube.kill().await.unwrap();
    kube.resume().await.unwrap();
    let client = kube.client().await.unwrap();
    let found = eventually(PATIENCE, || async {
        Api::<Namespace>::all(client.clone()).get(&namespace).await
    })
    .await;
    assert_eq!(found.metadata.name, Some(namespace));
}
