//! `gateway smoke`: one guest's way through a platform that runs, for `helm test` and after a release. A new guest
//! signs up and signs in, takes a unit of a time sale, asks again, reads the claim, and gives the unit back.
//!
//! It uses nothing but the public API, and leaves an account behind that nobody can sign in to.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

/// Between two tries of a request that was told to come back.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the API is served, such as <http://quokka-gateway>.
    #[arg(long)]
    url: Url,
    /// The time sale to claim from; without it, the first one that has a unit to give.
    #[arg(long)]
    sale: Option<String>,
    /// How long all of it may take, in seconds.
    #[arg(long, default_value_t = 60)]
    timeout_seconds: u64,
}

/// What the API answered.
struct Answer {
    status: StatusCode,
    body: Value,
}

impl Answer {
    fn text(&self, field: &str) -> anyhow::Result<String> {
        let text = self.body[field].as_str();
        Ok(text
            .with_context(|| format!("no {field} in the answer: {}", self.body))?
            .to_owned())
    }

    fn expect(self, what: &str, statuses: &[StatusCode]) -> anyhow::Result<Self> {
        ensure!(
            statuses.contains(&self.status),
            "{what}: {} {}",
            self.status,
            self.body
        );
        println!("{what}: {}", self.status);
        Ok(self)
    }
}

struct Guest {
    client: Client,
    url: Url,
    token: Option<String>,
    deadline: Instant,
}

/// Goes the whole way, and says at each step what came.
pub(crate) async fn run(arguments: Arguments) -> ExitCode {
    match walk(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smoke: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn walk(
    Arguments {
        url,
        sale,
        timeout_seconds,
    }: Arguments,
) -> anyhow::Result<()> {
    let mut guest = Guest {
        client: Client::builder()
            .timeout(Duration::from_secs(20))
            .build()
            .context("make a client")?,
        url,
        token: None,
        deadline: Instant::now() + Duration::from_secs(timeout_seconds),
    };
    guest.sign_in().await?;
    let (sale, claim) = guest.claim(sale).await?;
    let claims = format!("/v1/time-sales/{sale}/claims");
    let again = guest
        .send(Method::POST, &claims, None)
        .await?
        .expect("claim again", &[StatusCode::OK])?;
    ensure!(
        again.text("claimId")? == claim,
        "a repeated claim got another unit: {}",
        again.body
    );
    let read = guest
        .send(Method::GET, &format!("/v1/claims/{claim}"), None)
        .await?;
    let status = read
        .expect("read the claim", &[StatusCode::OK])?
        .text("status")?;
    ensure!(status == "ACCEPTED", "the claim is {status}, not ACCEPTED");
    let given = guest
        .send(Method::DELETE, &format!("{claims}/{claim}"), None)
        .await?;
    given.expect("give it back", &[StatusCode::NO_CONTENT])?;
    Ok(())
}

impl Guest {
    async fn sign_in(&mut self) -> anyhow::Result<()> {
        let (email, password) = (
            format!("smoke-{}@example.com", Uuid::now_v7()),
            Uuid::new_v4().to_string(),
        );
        let account = json!({"email": email, "password": password, "name": "Smoke test"});
        self.send(Method::POST, "/v1/users", Some(&account))
            .await?
            .expect("sign up", &[StatusCode::CREATED])?;
        let account = json!({"email": email, "password": password});
        let session = self
            .send(Method::POST, "/v1/sessions", Some(&account))
            .await?;
        self.token = Some(
            session
                .expect("sign in", &[StatusCode::CREATED])?
                .text("accessToken")?,
        );
        Ok(())
    }

    /// Takes a unit: the sale's name and the claim's id.
    async fn claim(&self, sale: Option<String>) -> anyhow::Result<(String, String)> {
        let sales = match sale {
            Some(sale) => vec![sale],
            None => self.sales().await?,
        };
        let mut refusals = Vec::new();
        for sale in sales {
            let answer = self
                .send(Method::POST, &format!("/v1/time-sales/{sale}/claims"), None)
                .await?;
            // Sold out, not open, paused: another sale may have a unit.
            if answer.status == StatusCode::CONFLICT {
                refusals.push(format!("{sale}: {}", answer.text("code")?));
                continue;
            }
            let claim = answer
                .expect(
                    &format!("claim from {sale}"),
                    &[StatusCode::CREATED, StatusCode::OK],
                )?
                .text("claimId")?;
            return Ok((sale, claim));
        }
        bail!("no time sale has a unit to give (apply one of manifests/samples): {refusals:?}")
    }

    async fn sales(&self) -> anyhow::Result<Vec<String>> {
        let page = self
            .send(Method::GET, "/v1/time-sales?pageSize=100", None)
            .await?;
        let page = page.expect("list the time sales", &[StatusCode::OK])?;
        let items = page.body["items"]
            .as_array()
            .with_context(|| format!("no items in {}", page.body))?;
        Ok(items
            .iter()
            .filter_map(|sale| Some(sale["id"].as_str()?.to_owned()))
            .collect())
    }

    /// Sends a request until it is answered by more than "come back": each of them may be repeated without harm.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let what = format!("{method} {path}");
        let key = Uuid::now_v7().to_string();
        loop {
            let request = self.request(method.clone(), path, body)?;
            let request = if path == "/v1/users" {
                request.header("Idempotency-Key", &key)
            } else {
                request
            };
            let answer = tokio::time::timeout_at(self.deadline, answer(request)).await;
            match answer.with_context(|| format!("{what}: not within the time given"))? {
                Ok(answer) if answer.status != StatusCode::SERVICE_UNAVAILABLE => {
                    return Ok(answer);
                }
                Ok(answer) if Instant::now() + PAUSE > self.deadline => {
                    bail!("{what}: {} {}", answer.status, answer.body)
                }
                Err(error) if Instant::now() + PAUSE > self.deadline => {
                    return Err(error.context(what));
                }
                Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<RequestBuilder> {
        let url = self
            .url
            .join(path)
            .with_context(|| format!("{path} under {}", self.url))?;
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(match body {
            Some(body) => request.json(body),
            None => request,
        })
    }
}

async fn answer(request: RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.send().await?;
    let status = response.status();
    let bytes = response.bytes().await?;
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes)?
    };
    Ok(Answer { status, body })
}
