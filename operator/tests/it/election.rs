//! One leads, and another takes over.

use std::{process::Command, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use quokka_crds::{Phase, TimeSale};
use quokka_operator::lease::{Election, LeaseTerms};
use serde_json::json;
use testkit::{KubeApi, eventually};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, World, is_in, is_ready, time_sale};

fn election(client: &Client, namespace: &str, holder: &str, duration: Duration) -> Election {
    let terms = LeaseTerms {
        namespace: namespace.to_owned(),
        name: "quokka-operator".to_owned(),
        holder: holder.to_owned(),
        duration,
    };
    Election::new(client.clone(), terms)
}

async fn holder(client: &Client, namespace: &str) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    leases
        .get_opt("quokka-operator")
        .await
        .unwrap()?
        .spec?
        .holder_identity
}

async fn wins(election: &mut Election) -> bool {
    election.win(&CancellationToken::new(), |_| {}).await
}

#[tokio::test]
async fn a_lease_that_is_given_back_is_taken_at_once() {
    let kube_api = KubeApi::shared().await;
    let (client, namespace) = (
        kube_api.client().await.unwrap(),
        kube_api.create_namespace().await.unwrap(),
    );
    // Far longer than the test may take: nothing here runs out.
    let long = Duration::from_secs(600);
    let mut first = election(&client, &namespace, "first", long);
    let mut second = election(&client, &namespace, "second", long);
    assert!(wins(&mut first).await);
    let stop = CancellationToken::new();
    let refused = |_: Result<(), &kube::Error>| stop.cancel();
    assert!(
        !second.win(&stop, refused).await,
        "it asked, was refused, and was told to stop"
    );
    first.give_back().await;
    assert_eq!(holder(&client, &namespace).await, None);
    assert!(wins(&mut second).await);
    first.give_back().await;
    assert_eq!(
        holder(&client, &namespace).await.as_deref(),
        Some("second"),
        "it was not the first's to give"
    );
}

#[tokio::test]
async fn a_lease_of_a_dead_holder_runs_out() {
    let kube_api = KubeApi::shared().await;
    let (client, namespace) = (
        kube_api.client().await.unwrap(),
        kube_api.create_namespace().await.unwrap(),
    );
    let short = Duration::from_secs(3);
    let mut first = election(&client, &namespace, "first", short);
    assert!(wins(&mut first).await);
    drop(first);
    let mut second = election(&client, &namespace, "second", short);
    assert!(timeout(PATIENCE, wins(&mut second)).await.unwrap());
}

#[tokio::test]
async fn a_holder_that_was_deposed_stops() {
    let kube_api = KubeApi::shared().await;
    let (client, namespace) = (
        kube_api.client().await.unwrap(),
        kube_api.create_namespace().await.unwrap(),
    );
    let mut first = election(&client, &namespace, "first", Duration::from_secs(3));
    assert!(wins(&mut first).await);
    let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
    let usurped = Patch::Merge(json!({ "spec": { "holderIdentity": "usurper" } }));
    leases
        .patch("quokka-operator", &PatchParams::default(), &usurped)
        .await
        .unwrap();
    timeout(PATIENCE, first.keep(|_| {})).await.unwrap();
    first.give_back().await;
    assert_eq!(
        holder(&client, &namespace).await.as_deref(),
        Some("usurper")
    );
}

#[tokio::test]
async fn a_holder_that_cannot_renew_stops_before_others_begin() {
    let kube_api = KubeApi::start().await.unwrap();
    let client = kube_api.client().await.unwrap();
    let duration = Duration::from_secs(6);
    let mut first = election(&client, "default", "first", duration);
    assert!(wins(&mut first).await);
    // It still takes connections, and doesn't answer: the worst there is.
    let frozen = Command::new("kill")
        .args(["-STOP", &kube_api.pid().unwrap().to_string()])
        .status()
        .unwrap();
    assert!(frozen.success());
    assert!(
        timeout(duration, first.keep(|_| {})).await.is_ok(),
        "it held on for longer than the lease lasts"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_replica_goes_on_where_the_leader_stopped() {
    let world = World::new().await;
    let first = world.operator();
    eventually(PATIENCE, async || {
        holder(&world.client, &world.namespace).await.is_some()
    })
    .await;
    let leader = holder(&world.client, &world.namespace).await;
    let second = world.operator();
    world
        .create::<TimeSale>(time_sale("relay", 2, 0, 3_600))
        .await;
    world.until::<TimeSale>("relay", is_ready).await;
    eventually(PATIENCE, async || second.hears_kubernetes()).await;
    assert_eq!(holder(&world.client, &world.namespace).await, leader);

    first.stop().await;
    world.sell("time-sales", "relay", 2).await;
    world
        .until::<TimeSale>("relay", is_in(Phase::SoldOut))
        .await;
    assert_ne!(holder(&world.client, &world.namespace).await, leader);
    second.stop().await;
    assert_eq!(holder(&world.client, &world.namespace).await, None);
}
