//! The operator's own process: its settings, its signals, its end.

use std::{
    fs,
    process::{Command, Stdio},
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use testkit::{eventually, free_port, unique_name};
use tokio::process::Command as AsyncCommand;

use crate::world::{PATIENCE, World};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quokka-operator");

#[test]
fn a_process_that_cannot_work_names_every_mistake() {
    let output = Command::new(PROGRAM)
        .env_clear()
        .env("QUOKKA_KAFKA_REPLICATION_FACTOR", "many")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    for setting in [
        "QUOKKA_KAFKA_BROKERS",
        "QUOKKA_REDIS_URL",
        "QUOKKA_KAFKA_REPLICATION_FACTOR",
    ] {
        assert!(said.contains(setting), "{setting} is not named in: {said}");
    }
}

#[test]
fn help_names_every_setting() {
    let output = Command::new(PROGRAM).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let mut env = chassis::config::Env::from_pairs("operator", [("", "")]);
    assert!(quokka_operator::config::Config::read(&mut env).is_err());
    for setting in env.names() {
        assert!(help.contains(setting), "{setting} is not in the help");
    }
}

/// Nothing that it needs is there but the Kubernetes API: it says so and stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_ends_well_and_gives_its_lease_back() {
    let world = World::new().await;
    let kubeconfig = std::env::temp_dir().join(unique_name("kubeconfig"));
    let kube_api = testkit::KubeApi::shared().await;
    fs::write(&kubeconfig, kube_api.kubeconfig_yaml().unwrap()).unwrap();
    let ops = format!("127.0.0.1:{}", free_port());
    let nowhere = free_port();
    let mut process = AsyncCommand::new(PROGRAM)
        .env_clear()
        .env("KUBECONFIG", &kubeconfig)
        .env("POD_NAME", "operator-0")
        .env("QUOKKA_NAMESPACE", &world.namespace)
        .env("QUOKKA_OPS_ADDR", &ops)
        .env("QUOKKA_KAFKA_BROKERS", format!("127.0.0.1:{nowhere}"))
        .env("QUOKKA_REDIS_URL", format!("redis://127.0.0.1:{nowhere}"))
        .env("QUOKKA_LEDGER_URL", format!("http://127.0.0.1:{nowhere}"))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually(PATIENCE, async || {
        reqwest::get(format!("http://{ops}/readyz"))
            .await
            .is_ok_and(|answer| answer.status().is_success())
    })
    .await;
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), &world.namespace);
    let holder = async || {
        leases
            .get_opt("quokka-operator")
            .await
            .unwrap()?
            .spec?
            .holder_identity
    };
    eventually(PATIENCE, async || {
        holder().await.as_deref() == Some("operator-0")
    })
    .await;
    let metrics = reqwest::get(format!("http://{ops}/metrics"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for metric in [
        "quokka_operator_reconciliations_total",
        "quokka_operator_leader 1",
    ] {
        assert!(metrics.contains(metric), "{metric} is not in {metrics}");
    }

    let id = process.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(process.wait().await.unwrap().code(), Some(0));
    assert_eq!(holder().await, None);
    fs::remove_file(&kubeconfig).unwrap();
}
