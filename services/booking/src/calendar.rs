//! What happens when a host has changed a calendar.
//!
//! A host may offer fewer rooms than are reserved already. Nobody who holds or has booked a room loses it: the night
//! keeps what is reserved, nothing more of it is given until the offer is above that, and it is reported.

use std::collections::BTreeMap;

use events::inbox::Handler;
use events::saga::CalendarChanged;
use sqlx::{Postgres, Transaction};

use crate::metrics;
use crate::nights::parse_date;
use crate::store::{self, CalendarPart};

/// Handles changes of calendars.
#[derive(Debug, Clone, Copy, Default)]
pub struct Calendar;

impl Handler for Calendar {
    type Message = CalendarChanged;

    async fn handle(
        &self,
        tx: &mut Transaction<'static, Postgres>,
        message: CalendarChanged,
    ) -> Result<(), sqlx::Error> {
        let part = read(&message);
        let over = store::write_calendar(tx, &part).await?;
        if !over.is_empty() {
            metrics::OVERCOMMITTED.inc_by(u64::try_from(over.len()).unwrap_or(u64::MAX));
            tracing::warn!(
                room_type_id = %part.room_type_id.0,
                nights = over.len(),
                first = %over[0],
                "a host offers fewer rooms than are reserved; what is reserved stays"
            );
        }
        Ok(())
    }
}

/// Nights that can't be are left out, and said: `stays` sends none.
fn read(message: &CalendarChanged) -> CalendarPart {
    let mut nights = BTreeMap::new();
    for night in &message.nights {
        let (date, offered) = (parse_date(&night.date), i32::try_from(night.allotment));
        if let (Some(date), Ok(offered)) = (date, offered) {
            nights.insert(date, offered);
        } else {
            tracing::warn!(
                room_type_id = %message.room_type_id.0,
                version = message.version,
                "a night of a calendar that can't be is left out"
            );
        }
    }
    CalendarPart {
        room_type_id: message.room_type_id,
        stay_id: message.stay_id,
        version: message.version,
        nights,
    }
}
