//! What happens when orders' commands arrive: those of a batch share a transaction.

use std::collections::BTreeSet;

use events::inbox::Handler;
use events::saga::{BookingCommand, OrderId, OrderReply};
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
        let orders: Vec<Uuid> = commands
            .iter()
            .map(|command| command.order().0)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let holds = store::lock_holds(tx, &orders).await?;
        let mut desk =
            store::load_desk(tx, holds, commands.iter().filter_map(Command::terms)).await?;
        let replies: Vec<(OrderId, OrderReply)> = commands
            .iter()
            .map(|command| (command.order(), desk.apply(command)))
            .collect();
        store::write_desk(tx, &desk, &replies).await?;
        for (_, reply) in &replies {
            metrics::answered(reply);
        }
        Ok(())
    }
}
