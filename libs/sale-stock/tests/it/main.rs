//! The stock protocol against a real Redis, one test for each of its rules.
#![allow(clippy::unwrap_used, missing_docs)]

mod away;
mod claims;
mod discounts;
mod gate;
mod random;
mod settling;

use sale_stock::{
    ClaimId, ClaimReply, ClaimRequest, Epoch, GateTerms, GateWrite, KeyHash, NewGate, OpenReply,
    Outcome, RedisSettings, SaleStock, SaleUid, Sequence, Stock, UnixMillis, UserId,
};
use testkit::Redis;
use uuid::Uuid;

async fn shared_stock() -> SaleStock {
    SaleStock::connect_lazy(&RedisSettings::new(Redis::shared().await.url())).unwrap()
}

fn new_sale() -> SaleUid {
    SaleUid(Uuid::new_v4())
}

fn new_user() -> UserId {
    UserId(Uuid::new_v4())
}

/// Open from 1970 to 2100.
fn terms(stock: u32, per_user_limit: u8) -> GateTerms {
    GateTerms {
        generation: 1,
        starts: UnixMillis(0),
        ends: UnixMillis(4_102_444_800_000),
        stock: Stock(stock),
        per_user_limit,
        paused: false,
    }
}

fn gate(epoch: u64, terms: GateTerms, read_at: UnixMillis) -> NewGate {
    NewGate {
        epoch: Epoch(epoch),
        terms,
        partitions: 3,
        sequence: Sequence(0),
        read_at,
    }
}

/// Opens a sale that was never open before.
async fn open(stock: &SaleStock, terms: GateTerms) -> SaleUid {
    let sale = new_sale();
    let rebuild = stock.begin_rebuild(sale, Epoch(1)).await.unwrap();
    let gate = gate(1, terms, stock.time().await.unwrap());
    assert_eq!(
        stock.write_gate(rebuild, &gate).await.unwrap(),
        GateWrite::Opened
    );
    sale
}

fn request(user: UserId) -> ClaimRequest {
    ClaimRequest {
        user,
        claim: ClaimId::generate(),
        key: KeyHash::NONE,
    }
}

async fn claim_all(stock: &SaleStock, sale: SaleUid, requests: &[ClaimRequest]) -> OpenReply {
    match stock.claim(sale, requests).await.unwrap() {
        ClaimReply::Open(reply) => reply,
        ClaimReply::Unopened(why) => panic!("{why:?}"),
    }
}

async fn claim_one(stock: &SaleStock, sale: SaleUid, request: ClaimRequest) -> Outcome {
    claim_all(stock, sale, &[request]).await.outcomes.remove(0)
}
