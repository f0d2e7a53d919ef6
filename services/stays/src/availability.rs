//! What booking says is left, taken over into the calendars.

use events::inbox::Handler;
use events::saga::AvailabilityChanged;
use sqlx::{Postgres, Transaction};

use crate::store::take_over;

/// Takes over each message once in effect: a night keeps the highest version that it has seen.
pub(crate) struct Availability;

impl Handler for Availability {
    type Message = AvailabilityChanged;

    async fn handle(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        message: AvailabilityChanged,
    ) -> Result<(), sqlx::Error> {
        take_over(tx, &message).await
    }
}
