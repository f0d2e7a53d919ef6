//! What orders ask by Kafka: to keep claims, to use them, to let go of them. Each command has its effect once (inbox),
//! and its answer is written with it (outbox).

use std::collections::BTreeSet;

use anyhow::Context as _;
use chassis::config::Process;
use chassis::serve::Shutdown;
use events::consumer::ConsumerSettings;
use events::inbox::{Delivered, Handler, Inbox};
use events::outbox::{Messages, Relay};
use events::producer::ProducerSettings;
use events::saga::{DiscountCommand, ORDER_REPLIES, PROMOTIONS_COMMANDS};
use events::topics;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::metrics;
use crate::reservations::Desk;
use crate::store;

/// Most commands of one transaction: what it saves is commits, what it costs is how long their claims stay locked for
/// whoever would end them.
const BATCH_MAX: usize = 50;

/// Whose offsets those of the commands are: those of one platform.
fn group(namespace: &str) -> String {
    format!("quokka-promotions-{namespace}")
}

/// Reads commands and sends answers until the process ends. Kafka and PostgreSQL may be away.
pub(super) fn serve(
    brokers: &str,
    partitions: u32,
    process: &Process,
    pool: &PgPool,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    metrics::begin_answers();
    let made = [PROMOTIONS_COMMANDS, ORDER_REPLIES].map(|topic| (topic, partitions));
    shutdown.job(
        "topics",
        topics::ensure_until(brokers.to_owned(), made.to_vec(), shutdown.token()),
    );
    let instance = &process.instance;
    let producer = ProducerSettings::new(brokers, instance);
    let relay = Relay::new(pool.clone(), &producer).context("set up the Kafka producer")?;
    shutdown.task("outbox", relay.run(shutdown.token()));
    let consumer = ConsumerSettings::new(brokers, group(&process.namespace), instance);
    let inbox = Inbox::new(pool.clone(), consumer, [PROMOTIONS_COMMANDS])?;
    shutdown.task("inbox", inbox.run(Commands, shutdown.token()));
    Ok(())
}

/// Handles the commands of orders: those of a batch share a transaction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Commands;

impl Handler for Commands {
    type Message = DiscountCommand;

    async fn handle(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        message: DiscountCommand,
    ) -> Result<(), sqlx::Error> {
        self.handle_all(tx, vec![message.into()]).await
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    async fn handle_all(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        messages: Vec<Delivered<DiscountCommand>>,
    ) -> Result<(), sqlx::Error> {
        let commands = || messages.iter().map(|delivered| &delivered.message);
        let orders: BTreeSet<Uuid> = commands().map(|message| message.order_id().0).collect();
        let orders: Vec<Uuid> = orders.into_iter().collect();
        let reservations = store::lock_reservations(tx, &orders).await?;
        let kept = reservations
            .iter()
            .flat_map(|(_, reservation)| reservation.claims())
            .map(|claim| claim.0);
        let claims: BTreeSet<Uuid> = kept.chain(commands().flat_map(wanted)).collect();
        let claims: Vec<Uuid> = claims.into_iter().collect();
        let claims = store::lock_claims(tx, &claims).await?;

        let mut desk = Desk::new(reservations, claims);
        let mut answers = Messages::new();
        let mut replies = Vec::with_capacity(messages.len());
        for delivered in &messages {
            let reply = desk.apply(&delivered.message);
            delivered.within(|| answers.answer(&reply))?;
            replies.push(reply);
        }
        store::write_desk(tx, &desk, answers).await?;
        replies.iter().for_each(metrics::answered);
        Ok(())
    }
}

/// The claims that the message names.
fn wanted(message: &DiscountCommand) -> impl Iterator<Item = Uuid> + '_ {
    let claims = match message {
        DiscountCommand::Reserve { claim_ids, .. } => claim_ids.as_slice(),
        DiscountCommand::Redeem { .. } | DiscountCommand::Release { .. } => &[],
    };
    claims.iter().copied()
}
