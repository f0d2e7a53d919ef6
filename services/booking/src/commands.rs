//! What happens when orders' commands arrive: those of a batch share a transaction.

use std::collections::BTreeSet;

use events::inbox::Handler;
use events::saga::{BookingCommand, OrderReply};
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
        self.handle_all(tx, vec![message]).await
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    async fn handle_all(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        messages: Vec<BookingCommand>,
    ) -> Result<(), sqlx::Error> {
        let commands: Vec<Command> = messages
            .iter()
            .map(|message| Command::read(message, Uuid::now_v7()))
            .collect();
        let orders = messages.iter().map(|message| message.order_id().0);
        let orders: BTreeSet<Uuid> = orders.collect();
        let orders: Vec<Uuid> = orders.into_iter().collect();
        let holds = store::lock_holds(tx, &orders).await?;
        let wanted = commands.iter().filter_map(Command::terms);
        let mut desk = store::load_desk(tx, holds, wanted).await?;
        let replies = commands.iter().map(|command| desk.apply(command));
        let replies: Vec<OrderReply> = replies.collect();
        store::write_desk(tx, &desk, &replies).await?;
        replies.iter().for_each(metrics::answered);
        Ok(())
    }
}
