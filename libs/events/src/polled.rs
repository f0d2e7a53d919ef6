//! Kafka's producing client with a thread of its own that runs the acknowledgements. The library's `ThreadedProducer` is
//! the same, but it wakes every 100 ms for nothing, and panics when its thread can't be started.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, ProducerContext};

/// How long the thread waits for an acknowledgement before it looks whether it should end. The client spins through the
/// last millisecond of each wait, so that short waits cost CPU while nothing happens.
const POLL_WAIT: Duration = Duration::from_secs(1);

/// A client and its thread, which ends soon after this is dropped.
pub(crate) struct Polled<C: ProducerContext + 'static> {
    client: Arc<BaseProducer<C>>,
    ended: Arc<AtomicBool>,
}

impl<C: ProducerContext + 'static> Polled<C> {
    /// Starts connecting; `thread` is the thread's name.
    pub(crate) fn start(
        config: &ClientConfig,
        context: C,
        thread: &str,
    ) -> Result<Self, KafkaError> {
        let client: BaseProducer<C> = config.create_with_context(context)?;
        let client = Arc::new(client);
        let ended = Arc::new(AtomicBool::new(false));
        let (polled, told) = (Arc::clone(&client), Arc::clone(&ended));
        std::thread::Builder::new()
            .name(thread.to_owned())
            .spawn(move || {
                while !told.load(Ordering::Relaxed) {
                    polled.poll(POLL_WAIT);
                }
            })
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { client, ended })
    }
}

impl<C: ProducerContext + 'static> Deref for Polled<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.client
    }
}

impl<C: ProducerContext + 'static> Drop for Polled<C> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
