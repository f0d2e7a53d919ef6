//! What happens when orders' commands arrive: those of a batch share a transaction.

use std::collections::BTreeSet;

use events::inbox::{Delivered, Handler};
use events::outbox::Messages;
use events::saga::BookingCommand;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::inventory::Command;
use crate::{metrics, store};

/// Most commands of one transaction: what it saves is commits, what it costs is how long room types stay locked.
const BATCH_MAX: usize = 100;

/// Handles the commands of orders.
#[derive(Debug, Clone, Copy, Default)]
pub struct Commands;

impl Handler for Commands {
    type Message = BookingCommand;

    async fn handle(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        message: BookingCommand,
    ) -> Result<(), sqlx::Error> {
        self.handle_all(tx, vec![message.into()]).await
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    async fn handle_all(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        messages: Vec<Delivered<BookingCommand>>,
    ) -> Result<(), sqlx::Error> {
        let commands: Vec<Command> = messages
            .iter()
            .map(|delivered| Command::read(&delivered.message, Uuid::now_v7()))
            .collect();
        let orders = messages
            .iter()
            .map(|delivered| delivered.message.order_id().0);
        let orders: BTreeSet<Uuid> = orders.collect();
        let orders: Vec<Uuid> = orders.into_iter().collect();
        let holds = store::lock_holds(tx, &orders).await?;
        let wanted = commands.iter().filter_map(Command::terms);
        let mut desk = store::load_desk(tx, holds, wanted).await?;
        let mut answers = Messages::new();
        let mut replies = Vec::with_capacity(commands.len());
        for (command, delivered) in commands.iter().zip(&messages) {
            let reply = desk.apply(command);
            delivered.within(|| answers.answer(&reply))?;
            replies.push(reply);
        }
        store::write_desk(tx, &desk, answers).await?;
        replies.iter().for_each(metrics::answered);
        Ok(())
    }
}
