//! Sales, books and snapshots for unit tests.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use jiff::Timestamp;
use sale_stock::{
    Epoch, Gate, GateTerms, Sequence, Snapshot, Stock, UnixMillis,
    books::{
        AmountDiscount, Books, Discount, GateState, PartitionPosition, SaleDefinition, SaleKind,
        StockBooks, Target,
    },
};

use crate::sale::Sale;

pub(crate) const STOCK: u32 = 100;

pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// From 03:00 to 05:00, ready five minutes before.
pub(crate) fn sale() -> Sale {
    Sale {
        definition: SaleDefinition {
            uid: "84d58f0f-b9cb-476c-8c42-886d2dae9198".parse().unwrap(),
            name: "jeju".to_owned(),
            kind: SaleKind::TimeSale,
            generation: 1,
            display_name: "Jeju weekend".to_owned(),
            starts: time("2026-12-01T03:00:00Z"),
            ends: time("2026-12-01T05:00:00Z"),
            stock: Stock(STOCK),
            per_user_limit: 1,
            claim_ttl_ms: Some(600_000),
            paused: false,
            topic: "quokka.claims.quokka.jeju".to_owned(),
            partitions: 3,
            target: Some(Target {
                regions: vec!["jeju".to_owned()],
                ..Target::default()
            }),
            stay_dates: None,
            discount: Discount::Amount(AmountDiscount { amount: 30_000 }),
            coupon: None,
        },
        warm_up: Duration::from_secs(300),
        created: time("2026-11-01T00:00:00Z"),
    }
}

pub(crate) fn books(claimed: u32) -> Books {
    Books {
        uid: sale().uid(),
        generation: 1,
        epoch: Epoch(1),
        gate: GateState::Open,
        recovering: false,
        stock: StockBooks {
            total: Stock(STOCK),
            claimed: Stock(claimed),
        },
        unreleased: 0,
        unsettled: 0,
        lag: Some(0),
        positions: vec![PartitionPosition {
            partition: 0,
            next_offset: i64::from(claimed),
            epoch: Epoch(1),
        }],
        closed: false,
        drained: false,
    }
}

pub(crate) fn snapshot(claimed: u32) -> Snapshot {
    let definition = sale().definition;
    Snapshot {
        gate: Some(Gate {
            epoch: Epoch(1),
            open: true,
            own_run: true,
            terms: GateTerms {
                generation: 1,
                starts: definition.starts.into(),
                ends: definition.ends.into(),
                stock: Stock(STOCK),
                per_user_limit: 1,
                paused: false,
            },
            partitions: 3,
            sequence: Sequence(u64::from(claimed)),
        }),
        claimed,
        unsettled: 0,
        now: UnixMillis(0),
    }
}
