//! The API of a Kubernetes: kube-apiserver and its etcd, without anything that would run a pod.

use std::{fs, net::Ipv4Addr, path::Path, process::Command, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::sync::OnceCell;

use crate::{
    Error,
    error::While as _,
    eventually, free_port,
    process::{self, Server, Spec},
    tools, unique_name,
};

/// How long a new resource type may take until it is served.
const ESTABLISHED_TIMEOUT: Duration = Duration::from_secs(30);

/// A Kubernetes API with RBAC and the admission that is on by default. No controller runs behind it: a namespace
/// that is deleted stays Terminating, and a Deployment makes no pods.
pub struct KubeApi {
    kubeconfig: Kubeconfig,
    api: Server,
    _etcd: Server,
}

impl KubeApi {
    /// Starts one of the caller's own: some seconds and some 300 MB.
    pub async fn start() -> Result<Self, Error> {
        let (etcd, etcd_url) = start_etcd().await?;
        let program = tools::find("kube-apiserver", &[])?;
        let folder = process::data_folder("kube-api-")?;
        let port = free_port();
        let credentials = Credentials::make(folder.path())?;
        let kubeconfig = kubeconfig(port, &credentials)?;

        let files = folder.path().to_owned();
        let spec = Spec {
            name: "kube-apiserver",
            command: Box::new(move || apiserver(&program, &files, port, &etcd_url)),
            user: None,
            death_signal: "KILL",
            ready_timeout: Duration::from_secs(120),
        };
        let api = Self {
            kubeconfig,
            api: Server::new(spec, folder),
            _etcd: etcd,
        };
        let client = api.client().await?;
        api.api.start(|| is_ready(client.clone())).await?;
        Ok(api)
    }

    /// The one that all tests of this binary share: use namespaces of your own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<KubeApi> = OnceCell::const_new();
        SHARED
            .get_or_init(async || {
                Self::start()
                    .await
                    .unwrap_or_else(|error| panic!("{error}"))
            })
            .await
    }

    /// How to get in, as somebody who may do everything.
    pub fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }

    /// The same as YAML, for programs such as kubectl and helm.
    pub fn kubeconfig_yaml(&self) -> Result<String, Error> {
        // JSON is YAML, and kube's own types need no other serializer.
        serde_json::to_string_pretty(&self.kubeconfig)
            .map_err(|error| Error::answer("write the kubeconfig", error))
    }

    /// A client who may do everything. Each test makes its own: a client belongs to the runtime it was made in.
    pub async fn client(&self) -> Result<Client, Error> {
        Client::try_from(self.config().await?)
            .map_err(|error| Error::answer("make a client", error))
    }

    /// A client who may do what `user` may, such as `system:serviceaccount:quokka:quokka-operator`.
    pub async fn client_as(&self, user: &str, groups: &[&str]) -> Result<Client, Error> {
        let mut config = self.config().await?;
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups =
            Some(groups.iter().map(|&group| group.to_owned()).collect());
        Client::try_from(config).map_err(|error| Error::answer("make a client", error))
    }

    /// Makes a namespace with a name of its own.
    pub async fn create_namespace(&self) -> Result<String, Error> {
        let name = unique_name("test");
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::<Namespace>::all(self.client().await?)
            .create(&PostParams::default(), &namespace)
            .await
            .map_err(|error| Error::answer(format!("create namespace {name}"), error))?;
        Ok(name)
    }

    /// Makes resource types, or changes them to what is given, and waits until they are served.
    pub async fn apply_crds(&self, crds: &[CustomResourceDefinition]) -> Result<(), Error> {
        let api = Api::<CustomResourceDefinition>::all(self.client().await?);
        for crd in crds {
            let name = crd.name_any();
            api.patch(
                &name,
                &PatchParams::apply("testkit").force(),
                &Patch::Apply(crd),
            )
            .await
            .map_err(|error| Error::answer(format!("apply {name}"), error))?;
            eventually(ESTABLISHED_TIMEOUT, || async {
                let conditions = api.get(&name).await.ok()?.status?.conditions?;
                conditions
                    .iter()
                    .any(|is| is.type_ == "Established" && is.status == "True")
                    .then_some(())
            })
            .await;
        }
        Ok(())
    }

    /// The id of its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.api.pid()
    }

    /// Kills it, as `kill -9` does; etcd stays.
    pub async fn kill(&self) -> Result<(), Error> {
        self.api.signal_and_wait(process::Signal::Kill).await
    }

    /// Starts it again on the same port with the same data.
    pub async fn resume(&self) -> Result<(), Error> {
        let client = self.client().await?;
        self.api.start(|| is_ready(client.clone())).await
    }

    async fn config(&self) -> Result<Config, Error> {
        Config::from_custom_kubeconfig(self.kubeconfig.clone(), &KubeConfigOptions::default())
            .await
            .map_err(|error| Error::answer("read the kubeconfig", error))
    }
}

/// Ready means that what every test does works: the default namespace is made last, by the server itself.
async fn is_ready(client: Client) -> bool {
    Api::<Namespace>::all(client).get("default").await.is_ok()
}

async fn start_etcd() -> Result<(Server, String), Error> {
    let program = tools::find("etcd", &[])?;
    let folder = process::data_folder("etcd-")?;
    let data = folder.path().to_owned();
    let (client, peer) = (
        format!("http://127.0.0.1:{}", free_port()),
        format!("http://127.0.0.1:{}", free_port()),
    );
    let url = client.clone();
    let address = url.trim_start_matches("http://").to_owned();
    let spec = Spec {
        name: "etcd",
        command: Box::new(move || {
            let mut command = Command::new(&program);
            command
                .arg("--data-dir")
                .arg(&data)
                .arg("--unsafe-no-fsync");
            command.args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ]);
            command.args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ]);
            command.args(["--initial-cluster", &format!("default={peer}")]);
            command
        }),
        user: None,
        death_signal: "KILL",
        ready_timeout: Duration::from_secs(60),
    };
    let etcd = Server::new(spec, folder);
    etcd.start(|| async { tokio::net::TcpStream::connect(&address).await.is_ok() })
        .await?;
    Ok((etcd, url))
}

fn apiserver(program: &Path, files: &Path, port: u16, etcd_url: &str) -> Command {
    let file = |name: &str| files.join(name).display().to_string();
    let mut command = Command::new(program);
    command
        .arg(format!("--etcd-servers={etcd_url}"))
        .arg(format!("--secure-port={port}"))
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
        .arg(format!("--tls-cert-file={}", file("server.crt")))
        .arg(format!("--tls-private-key-file={}", file("server.key")))
        .arg(format!("--token-auth-file={}", file("tokens.csv")))
        .arg(format!(
            "--service-account-key-file={}",
            file("service-account.pub")
        ))
        .arg(format!(
            "--service-account-signing-key-file={}",
            file("service-account.key")
        ))
        .args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
        ])
        .args([
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            "--profiling=false",
        ])
        // Endpoints of the API itself are of no use here, and their lease would outlive a kill.
        .arg("--endpoint-reconciler-type=none");
    command
}

/// What the server shows and takes, made for this one run.
struct Credentials {
    certificate_pem: String,
    token: String,
}

impl Credentials {
    fn make(folder: &Path) -> Result<Self, Error> {
        let failed = |error: rcgen::Error| Error::answer("make certificates", error);
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"]
            .map(str::to_owned)
            .to_vec();
        let server = rcgen::generate_simple_self_signed(names).map_err(failed)?;
        let service_accounts = rcgen::KeyPair::generate().map_err(failed)?;
        let token = uuid::Uuid::new_v4().simple().to_string();
        let certificate_pem = server.cert.pem();
        for (name, text) in [
            ("server.crt", certificate_pem.clone()),
            ("server.key", server.signing_key.serialize_pem()),
            ("service-account.key", service_accounts.serialize_pem()),
            ("service-account.pub", service_accounts.public_key_pem()),
            (
                "tokens.csv",
                format!("{token},testkit,testkit,system:masters\n"),
            ),
        ] {
            let path = folder.join(name);
            fs::write(&path, text).while_doing(|| format!("write {}", path.display()))?;
        }
        Ok(Self {
            certificate_pem,
            token,
        })
    }
}

fn kubeconfig(port: u16, credentials: &Credentials) -> Result<Kubeconfig, Error> {
    let certificate = BASE64_STANDARD.encode(&credentials.certificate_pem);
    serde_json::from_value(serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "testkit",
        "contexts": [{"name": "testkit", "context": {"cluster": "testkit", "user": "testkit"}}],
        "clusters": [{"name": "testkit", "cluster": {
            "server": format!("https://{}:{port}", Ipv4Addr::LOCALHOST),
            "certificate-authority-data": certificate,
        }}],
        "users": [{"name": "testkit", "user": {"token": credentials.token}}],
    }))
    .map_err(|error| Error::answer("make the kubeconfig", error))
}
