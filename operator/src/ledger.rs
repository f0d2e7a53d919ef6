//! The ledger's internal API.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use sale_stock::{
    SaleUid,
    books::{Books, RecoveryRequest, SaleDefinition},
};
use serde::Deserialize;
use url::Url;

use crate::silence::Silence;

/// How long one request may take: the ledger answers from its database, within milliseconds in quiet times.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Why a request came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// No answer, or one that says it can't now.
    #[error("{doing}: {why}")]
    Unreachable {
        /// What was asked.
        doing: &'static str,
        /// Why not.
        why: String,
    },
    /// It was understood and refused.
    #[error("{doing}: {code}: {detail}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// The problem's code.
        code: String,
        /// The problem's detail.
        detail: String,
    },
}

/// A client of the ledger. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Ledger {
    client: Client,
    base: Url,
    /// Of the books, which every look begins with; what is asked after them is always asked.
    silence: Silence<LedgerError>,
}

/// What is read of a problem answer.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

impl Ledger {
    /// The ledger at `base`, such as `http://quokka-promotions-ledger:8081`.
    ///
    /// # Errors
    ///
    /// The HTTP client can't be made.
    pub fn new(base: Url) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(Duration::from_secs(1))
            .build()?;
        Ok(Self {
            client,
            base,
            silence: Silence::default(),
        })
    }

    /// The books of a sale; `None` if the ledger doesn't know it. Not asked again at once after it was silent, about
    /// whichever sale.
    pub async fn books(&self, sale: SaleUid) -> Result<Option<Books>, LedgerError> {
        const DOING: &str = "read the books";
        if let Some(error) = self.silence.recent() {
            return Err(error);
        }
        let answer = send(DOING, self.client.get(self.url(sale, ""))).await;
        self.silence.heard(answer.as_ref().err().cloned());
        let answer = answer?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        read(DOING, accepted(DOING, answer).await?).await.map(Some)
    }

    /// Tells the ledger what is to hold.
    pub async fn declare(&self, definition: &SaleDefinition) -> Result<Books, LedgerError> {
        const DOING: &str = "declare the sale";
        let answer = send(
            DOING,
            self.client
                .put(self.url(definition.uid, ""))
                .json(definition),
        )
        .await?;
        read(DOING, accepted(DOING, answer).await?).await
    }

    /// Asks for a recovery of the stock.
    pub async fn recover(&self, sale: SaleUid, reason: String) -> Result<(), LedgerError> {
        const DOING: &str = "ask for a recovery";
        let request = self
            .client
            .post(self.url(sale, "/recoveries"))
            .json(&RecoveryRequest { reason });
        accepted(DOING, send(DOING, request).await?).await.map(drop)
    }

    /// Closes the gate for good; the books are drained some time after.
    pub async fn close(&self, sale: SaleUid) -> Result<(), LedgerError> {
        const DOING: &str = "close the sale";
        accepted(
            DOING,
            send(DOING, self.client.post(self.url(sale, "/close"))).await?,
        )
        .await
        .map(drop)
    }

    /// Frees the name of a sale that is drained. A sale that isn't known is removed already.
    pub async fn remove(&self, sale: SaleUid) -> Result<(), LedgerError> {
        const DOING: &str = "remove the sale";
        let answer = send(DOING, self.client.delete(self.url(sale, ""))).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(());
        }
        accepted(DOING, answer).await.map(drop)
    }

    fn url(&self, sale: SaleUid, rest: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/internal/v1/sales/{sale}{rest}"));
        url
    }
}

async fn send(
    doing: &'static str,
    request: reqwest::RequestBuilder,
) -> Result<Response, LedgerError> {
    let unreachable = |error: reqwest::Error| LedgerError::Unreachable {
        doing,
        why: error.without_url().to_string(),
    };
    let (client, request) = request.build_split();
    let mut request = request.map_err(unreachable)?;
    chassis::telemetry::inject_headers(request.headers_mut());
    client.execute(request).await.map_err(unreachable)
}

/// The answer if it says yes; otherwise whether the ledger won't or can't.
async fn accepted(doing: &'static str, answer: Response) -> Result<Response, LedgerError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let problem: Option<Problem> = answer.json().await.ok();
    let (code, detail) = problem
        .map(|problem| (problem.code, problem.detail))
        .unwrap_or_default();
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        let code = if code.is_empty() {
            status.to_string()
        } else {
            code
        };
        return Err(LedgerError::Refused {
            doing,
            code,
            detail,
        });
    }
    Err(LedgerError::Unreachable {
        doing,
        why: format!("{status} {code} {detail}").trim_end().to_owned(),
    })
}

async fn read(doing: &'static str, answer: Response) -> Result<Books, LedgerError> {
    answer
        .json()
        .await
        .map_err(|error| LedgerError::Unreachable {
            doing,
            why: error.without_url().to_string(),
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::{net::TcpListener, time::timeout};

    use super::*;
    use crate::testing::sale;

    #[tokio::test]
    async fn one_silence_of_the_ledger_is_heard_by_every_sale() {
        // The kernel accepts, and nobody answers.
        let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = deaf.local_addr().unwrap();
        let ledger = Ledger::new(format!("http://{address}").parse().unwrap()).unwrap();
        let others = ledger.clone();
        assert!(ledger.books(sale().uid()).await.is_err());
        for _ in 0..3 {
            let books = others.books(sale().uid()).await;
            assert!(matches!(books, Err(LedgerError::Unreachable { .. })));
        }
        let mut asked = 0;
        while timeout(Duration::ZERO, deaf.accept()).await.is_ok() {
            asked += 1;
        }
        assert_eq!(asked, 1);
    }
}
