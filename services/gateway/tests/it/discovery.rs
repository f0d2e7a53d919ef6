//! Endpoints found by watching EndpointSlices of a real kube-apiserver, with no more rights than the chart gives.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use k8s_openapi::api::{
    discovery::v1::EndpointSlice,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use testkit::KubeApi;
use tokio::net::TcpListener;

use crate::support::{Gateway, Service, Setup, eventually, raw, request};

/// A namespace with an account that may watch EndpointSlices, and a gateway that uses it.
struct Platform {
    client: Client,
    namespace: String,
    kubeconfig: tempfile::NamedTempFile,
}

impl Platform {
    async fn new(api: &KubeApi) -> Self {
        let client = api.client().await.unwrap();
        let namespace = api.create_namespace().await.unwrap();
        let account = format!("system:serviceaccount:{namespace}:quokka-gateway");
        let mut kubeconfig: Value = serde_json::from_str(&api.kubeconfig_yaml().unwrap()).unwrap();
        kubeconfig["users"][0]["user"]["as"] = json!(account);
        let file = tempfile::NamedTempFile::new().unwrap();
        serde_json::to_writer(&file, &kubeconfig).unwrap();
        let platform = Self {
            client,
            namespace,
            kubeconfig: file,
        };
        platform
            .apply::<Role>(
                "quokka-gateway",
                json!({ "rules": [{
                    "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"],
                }]}),
            )
            .await;
        platform
            .apply::<RoleBinding>(
                "quokka-gateway",
                json!({
                    "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "quokka-gateway" },
                    "subjects": [{ "kind": "User", "name": account }],
                }),
            )
            .await;
        platform
    }

    async fn apply<K>(&self, name: &str, mut what: Value)
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        what["apiVersion"] = json!(K::api_version(&()));
        what["kind"] = json!(K::kind(&()));
        what["metadata"]["name"] = json!(name);
        let api = Api::<K>::namespaced(self.client.clone(), &self.namespace);
        api.patch(
            name,
            &PatchParams::apply("test").force(),
            &Patch::Apply(&what),
        )
        .await
        .unwrap();
    }

    async fn slice(&self, name: &str, service: &str, endpoints: &[Value]) {
        let port = endpoints
            .first()
            .map_or(json!(1), |endpoint| endpoint["port"].clone());
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|endpoint| json!({ "addresses": [own_address()], "conditions": endpoint["conditions"] }))
            .collect();
        let slice = json!({
            "metadata": { "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": port }, { "name": "ops", "port": 1 }],
            "endpoints": endpoints,
        });
        self.apply::<EndpointSlice>(name, slice).await;
    }

    async fn delete_slice(&self, name: &str) {
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &self.namespace);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    async fn setup(&self) -> Setup {
        Setup::new()
            .await
            .env("KUBECONFIG", self.kubeconfig.path())
            .env("QUOKKA_NAMESPACE", &self.namespace)
    }
}

/// An address of this machine that isn't loopback: Kubernetes takes no other for an endpoint.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: the kernel only says which of its addresses it would use.
    socket
        .connect("198.51.100.1:9")
        .expect("a network other than loopback is needed");
    socket.local_addr().unwrap().ip()
}

async fn service(name: &'static str) -> Service {
    Service::on(
        name,
        TcpListener::bind(SocketAddr::new(own_address(), 0))
            .await
            .unwrap(),
    )
    .await
}

fn endpoint(service: &Service, ready: bool, serving: bool, terminating: bool) -> Value {
    json!({
        "port": service.address.port(),
        "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
    })
}

/// Who answers, in a number of requests large enough to meet every endpoint; status codes for what isn't answered.
async fn answering(gateway: &Gateway) -> BTreeSet<String> {
    let mut servers = BTreeSet::new();
    for _ in 0..24 {
        let answer = raw(gateway, request("GET", "/v1/users/x", &[], b"")).await;
        let server = answer.json()["server"].as_str().map(str::to_owned);
        servers.insert(server.unwrap_or_else(|| answer.status.to_string()));
    }
    servers
}

async fn answers_by(gateway: &Gateway, servers: &[&str]) {
    let wanted: BTreeSet<_> = servers.iter().map(|server| (*server).to_owned()).collect();
    eventually(|| async {
        let got = answering(gateway).await;
        if got == wanted { Ok(()) } else { Err(got) }
    })
    .await;
}

#[tokio::test]
async fn endpoints_come_and_go_without_a_restart() {
    let platform = Platform::new(KubeApi::shared().await).await;
    let (gateway, _issuer) = platform.setup().await.start().await;
    let (one, other) = (service("one").await, service("other").await);
    answers_by(&gateway, &["503"]).await;

    platform
        .slice(
            "users-a",
            "quokka-users",
            &[endpoint(&one, true, true, false)],
        )
        .await;
    answers_by(&gateway, &["one"]).await;
    platform
        .slice(
            "users-b",
            "quokka-users",
            &[endpoint(&other, true, true, false)],
        )
        .await;
    answers_by(&gateway, &["one", "other"]).await;
    assert_eq!(
        gateway
            .metric(r#"quokka_gateway_endpoints{service="quokka-users"}"#)
            .await,
        2.0
    );

    // Not ready: nothing is sent there.
    platform
        .slice(
            "users-a",
            "quokka-users",
            &[endpoint(&one, false, false, false)],
        )
        .await;
    answers_by(&gateway, &["other"]).await;
    platform
        .slice(
            "users-a",
            "quokka-users",
            &[endpoint(&one, true, true, false)],
        )
        .await;
    answers_by(&gateway, &["one", "other"]).await;

    // On its way out: nothing new is sent there while there is another, and all is sent there while there is none.
    platform
        .slice(
            "users-a",
            "quokka-users",
            &[endpoint(&one, false, true, true)],
        )
        .await;
    answers_by(&gateway, &["other"]).await;
    platform.delete_slice("users-b").await;
    answers_by(&gateway, &["one"]).await;
    platform
        .slice(
            "users-a",
            "quokka-users",
            &[endpoint(&one, false, false, true)],
        )
        .await;
    answers_by(&gateway, &["503"]).await;

    // What belongs to somebody else is nobody's endpoint here.
    platform
        .slice(
            "stays",
            "quokka-stays",
            &[endpoint(&other, true, true, false)],
        )
        .await;
    platform
        .slice(
            "promotions",
            "quokka-promotions",
            &[endpoint(&other, true, true, false)],
        )
        .await;
    eventually(|| async {
        let answer = raw(&gateway, request("GET", "/v1/time-sales", &[], b"")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    answers_by(&gateway, &["503"]).await;
}

#[tokio::test]
async fn without_the_kubernetes_api_the_last_endpoints_stay() {
    let api = KubeApi::start().await.unwrap();
    let platform = Platform::new(&api).await;
    let (one, other) = (service("one").await, service("other").await);
    platform
        .slice(
            "users-a",
            "quokka-users",
            &[endpoint(&one, true, true, false)],
        )
        .await;

    api.kill().await.unwrap();
    let (late, _late_issuer) = platform.setup().await.start_unready().await;
    assert_eq!(
        late.readyz().await,
        Some(503),
        "it can't be ready before it has heard of any endpoint"
    );

    api.resume().await.unwrap();
    late.ready().await;
    answers_by(&late, &["one"]).await;

    api.kill().await.unwrap();
    answers_by(&late, &["one"]).await;
    assert_eq!(late.readyz().await, Some(200));

    api.resume().await.unwrap();
    platform
        .slice(
            "users-a",
            "quokka-users",
            &[endpoint(&other, true, true, false)],
        )
        .await;
    answers_by(&late, &["other"]).await;
}
