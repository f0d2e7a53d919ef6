//! A database with booking's tables, what is sent to it, and what must be true of it.

use std::collections::HashMap;
use std::time::Duration;

use booking::app;
use booking::calendar::Calendar;
use booking::commands::Commands;
use booking::nights::date_text;
use events::inbox::{Delivered, Handler};
use events::saga::{
    AVAILABILITY, AvailabilityChanged, BookingCommand, CalendarChanged, CalendarNight, Envelope,
    ORDER_REPLIES, OrderId, OrderReply, RoomTypeId,
};
use serde::de::DeserializeOwned;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use time::{Date, Month};
use uuid::Uuid;

/// Plenty: a wait ends as soon as what it waits for is there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Connections at the same time: as many transactions race.
const CONNECTIONS: u32 = 24;

pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) pool: PgPool,
}

/// The n-th day of the test's December.
pub(crate) fn day(n: u8) -> String {
    date_text(
        Date::from_calendar_date(2026, Month::December, 1).unwrap()
            + time::Duration::days(i64::from(n)),
    )
}

pub(crate) fn room_type() -> RoomTypeId {
    RoomTypeId(Uuid::new_v4())
}

pub(crate) fn order() -> OrderId {
    OrderId(Uuid::now_v7())
}

/// A hold that lasts longer than any test.
pub(crate) fn hold(
    order_id: OrderId,
    room_type_id: RoomTypeId,
    from: u8,
    nights: u8,
) -> BookingCommand {
    hold_until(
        order_id,
        room_type_id,
        from,
        nights,
        i64::from(i32::MAX) * 1_000,
    )
}

pub(crate) fn hold_until(
    order_id: OrderId,
    room_type_id: RoomTypeId,
    from: u8,
    nights: u8,
    expires_at_ms: i64,
) -> BookingCommand {
    BookingCommand::Hold {
        order_id,
        user_id: user_of(order_id),
        room_type_id,
        check_in: day(from),
        check_out: day(from + nights),
        guests: 2,
        expires_at_ms,
    }
}

/// Each order is a user's of its own.
pub(crate) fn user_of(order: OrderId) -> Uuid {
    Uuid::from_u128(!order.0.as_u128())
}

pub(crate) fn calendar(
    room_type_id: RoomTypeId,
    version: i64,
    nights: u8,
    allotment: u32,
) -> CalendarChanged {
    CalendarChanged {
        room_type_id,
        stay_id: stay_of(room_type_id),
        version,
        nights: (0..nights)
            .map(|night| CalendarNight {
                date: day(night),
                allotment,
            })
            .collect(),
    }
}

pub(crate) fn stay_of(room_type: RoomTypeId) -> Uuid {
    Uuid::from_u128(!room_type.0.as_u128())
}

impl World {
    pub(crate) async fn start() -> Self {
        let database = testkit::Postgres::shared()
            .await
            .create_database()
            .await
            .unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect(&database.url)
            .await
            .unwrap();
        app::schema().apply(&pool).await.unwrap();
        Self {
            url: database.url,
            pool,
        }
    }

    /// A new room type with so many rooms in each of the first nights.
    pub(crate) async fn offered(&self, nights: u8, allotment: u32) -> RoomTypeId {
        let room_type = room_type();
        self.calendar(calendar(room_type, 1, nights, allotment))
            .await;
        room_type
    }

    pub(crate) async fn calendar(&self, message: CalendarChanged) {
        let mut tx = self.pool.begin().await.unwrap();
        Calendar.handle(&mut tx, message).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Handles a batch in one transaction; an error is that of the transaction.
    pub(crate) async fn try_send(&self, messages: Vec<BookingCommand>) -> Result<(), sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let messages = messages.into_iter().map(Delivered::from).collect();
        Commands.handle_all(&mut tx, messages).await?;
        tx.commit().await
    }

    /// Handles a batch; answers the last reply to each order.
    pub(crate) async fn send(&self, messages: Vec<BookingCommand>) -> HashMap<OrderId, OrderReply> {
        self.try_send(messages).await.unwrap();
        let mut last = HashMap::new();
        for reply in self.replies().await {
            last.insert(reply.order_id(), reply);
        }
        last
    }

    /// Handles one command; answers it.
    pub(crate) async fn ask(&self, message: BookingCommand) -> OrderReply {
        let order = message.order_id();
        self.send(vec![message]).await.remove(&order).unwrap()
    }

    /// Everything that orders will be told, in order.
    pub(crate) async fn replies(&self) -> Vec<OrderReply> {
        self.outbox(ORDER_REPLIES).await
    }

    pub(crate) async fn availability(&self) -> Vec<AvailabilityChanged> {
        self.outbox(AVAILABILITY).await
    }

    async fn outbox<T: DeserializeOwned>(&self, topic: &str) -> Vec<T> {
        let payloads: Vec<String> =
            sqlx::query_scalar("SELECT payload FROM outbox WHERE topic = $1 ORDER BY seq")
                .bind(topic)
                .fetch_all(&self.pool)
                .await
                .unwrap();
        let read = |payload: String| serde_json::from_str::<Envelope<T>>(&payload).unwrap().body;
        payloads.into_iter().map(read).collect()
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// The sum over all nights.
    pub(crate) async fn reserved(&self) -> i64 {
        self.count("SELECT coalesce(sum(reserved), 0)::bigint FROM room_nights")
            .await
    }

    /// The invariants of the room nights, looked at in the tables alone.
    pub(crate) async fn check(&self) {
        let wrong = self
            .count(
                "SELECT count(*) FROM room_nights n WHERE NOT (0 <= reserved AND reserved <= allotment)
                OR reserved <> (SELECT count(*) FROM holds h WHERE h.state IN ('HELD', 'BOOKED')
                    AND h.room_type_id = n.room_type_id AND n.night >= h.check_in AND n.night < h.check_out)",
            )
            .await;
        assert_eq!(wrong, 0, "nights whose count is not that of what is active");
        let torn = self
            .count(
                "SELECT count(*) FROM holds h WHERE state IN ('HELD', 'BOOKED') AND check_out - check_in <>
                (SELECT count(*) FROM room_nights n WHERE n.room_type_id = h.room_type_id
                    AND n.night >= h.check_in AND n.night < h.check_out)",
            )
            .await;
        assert_eq!(torn, 0, "holds without all their nights");
        let unlike = self
            .count(
                "SELECT count(*) FROM holds h FULL JOIN bookings b USING (order_id)
                WHERE (h.state = 'BOOKED') IS DISTINCT FROM (b.status IS NOT DISTINCT FROM 'CONFIRMED')",
            )
            .await;
        assert_eq!(unlike, 0, "bookings that are not their holds'");
    }
}
