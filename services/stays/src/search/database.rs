//! Searches by PostgreSQL alone, on a pool of their own: what it takes is bounded, and apart from what hosts and
//! bookings need.

use std::sync::Arc;

use chassis::postgres::{PoolOptions, UrlError, connect_lazy};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{Hit, Query};
use crate::discounts::Sale;
use crate::store::{Store, StoreError};

/// PostgreSQL plans each search for what it asks: a plan for any region and any filter serves none of them well. And it
/// compiles none of them, which would take longer than to run it.
const PLANS: &str = "-c plan_cache_mode=force_custom_plan -c jit=off";

/// The stays in PostgreSQL, to be searched.
#[derive(Clone, Debug)]
pub struct Database {
    store: Store,
}

impl Database {
    /// Those in the database at `url`. Makes no connection before the first search.
    pub fn connect_lazy(url: &SecretString) -> Result<Self, UrlError> {
        let mut url = Url::parse(url.expose_secret()).map_err(|_| UrlError)?;
        url.query_pairs_mut().append_pair("options", PLANS);
        let url = SecretString::from(url.to_string());
        let pool = connect_lazy(&url, "stays-search", PoolOptions::default())?;
        Ok(Self {
            store: Store::new(pool),
        })
    }

    /// The stays that a query finds while these sales are on, in its order.
    pub async fn search(&self, query: &Query, sales: &[Arc<Sale>]) -> Result<Vec<Hit>, StoreError> {
        self.store.search(query, sales).await
    }
}
