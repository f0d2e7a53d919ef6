//! The connection to Redis. It finds its server again when it is lost, and is given up when its server is no primary any
//! more: a demoted one keeps its connections, and would be asked for ever.

use std::sync::Arc;

use arc_swap::ArcSwap;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{RedisError, RedisResult, ServerErrorKind};

use crate::{RedisSettings, StockError};

pub(crate) struct Link {
    client: redis::Client,
    config: ConnectionManagerConfig,
    connection: ArcSwap<ConnectionManager>,
}

impl Link {
    /// To the server at the address; connects with the first call. Must be called on a tokio runtime.
    pub(crate) fn new(settings: &RedisSettings) -> Result<Self, StockError> {
        let client = redis::Client::open(settings.url.as_str()).map_err(StockError::Settings)?;
        let config = ConnectionManagerConfig::new()
            // One attempt for each call that finds no connection: errors come at once, not after a backoff.
            .set_number_of_retries(0)
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.response_timeout));
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())
            .map_err(StockError::Settings)?;
        Ok(Self {
            client,
            config,
            connection: ArcSwap::from_pointee(connection),
        })
    }

    /// The connection as it is now.
    pub(crate) fn connection(&self) -> Arc<ConnectionManager> {
        self.connection.load_full()
    }

    /// Makes a call, and gives the connection up if the server refused it as a replica.
    pub(crate) async fn call<T>(
        &self,
        call: impl AsyncFnOnce(ConnectionManager) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let connection = self.connection();
        let result = call(ConnectionManager::clone(&connection)).await;
        if result.as_ref().is_err_and(is_read_only) {
            self.replace(&connection);
        }
        result
    }

    /// The connection is looked up anew with the next call, unless another caller has seen to it.
    pub(crate) fn replace(&self, demoted: &Arc<ConnectionManager>) {
        match ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone()) {
            Ok(connection) => {
                let connection = Arc::new(connection);
                let found = self.connection.compare_and_swap(demoted, connection);
                if Arc::ptr_eq(&found, demoted) {
                    tracing::warn!("the Redis server is a replica: connecting again");
                }
            }
            Err(error) => tracing::error!(%error, "connect to Redis again"),
        }
    }
}

/// Whether a command, or one of a pipeline or transaction, was refused because the server takes no writes.
fn is_read_only(error: &RedisError) -> bool {
    error.clone().into_server_errors().is_some_and(|errors| {
        errors
            .iter()
            .any(|(_, error)| error.kind() == Some(ServerErrorKind::ReadOnly))
    })
}
