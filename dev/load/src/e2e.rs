//! The platform's main job from the outside: sales declared, claimed, given back, sold out and removed; stays ordered,
//! paid and cancelled.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use hyper::Method;
use hyper::header::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::checker::{Conditions, Ending, check};
use crate::guests::{Guest, sign_up_and_in};
use crate::http::{Answer, Call, Connection};
use crate::orders;
use crate::platform::{Declaration, Declared, Kind, Platform};
use crate::sale_run::{self, Quiet, Run, Size, WINDOW};
use crate::storm::{self, Progress, Storm};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const REAL_GUESTS: usize = 10;

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Some guests sign up, and claim.
    Guests,
    /// Many guests want few units.
    Claims,
    /// Claims of a time sale end and are sold again.
    TimeSale,
    /// Orders, from search to a booking and back.
    Orders,
    /// Many orders at once.
    Market,
    /// What is refused.
    BadInput,
}

/// Runs these parts, or all; returns how many things did not hold.
pub(crate) async fn run(
    platform: &Platform,
    size: Size,
    orders: &orders::Plan,
    market: orders::market::Size,
    parts: &[Part],
) -> anyhow::Result<usize> {
    let all = Part::value_variants();
    let wanted = |part: &&Part| parts.is_empty() || parts.contains(part);
    let wanted: Vec<Part> = all.iter().filter(wanted).copied().collect();
    let mut failed = 0;
    for part in &wanted {
        print!("[{}/{}] ", *part as usize + 1, all.len());
        failed += match part {
            Part::Guests => {
                println!("{REAL_GUESTS} guests sign up, sign in and claim a coupon each");
                real_guests_claim(platform).await?;
                0
            }
            Part::Claims => {
                println!(
                    "{} calls by {} guests over {} connections on a stock of {}",
                    size.calls, size.guests, size.connections, size.stock
                );
                many_guests_claim(platform, size).await?
            }
            Part::TimeSale => {
                println!("a time sale's claims expire, are given back, and are sold again");
                time_sale_claims_come_back(platform).await?
            }
            Part::Orders => {
                println!(
                    "stays are ordered, paid, cancelled and left unpaid, and {} guests want the last rooms",
                    orders.order_guests
                );
                orders::run(platform, orders).await?
            }
            Part::Market => {
                println!(
                    "{} guests order at once: some pay, some cancel, some walk away, some are refused",
                    market.market_guests
                );
                orders::market::run(platform, orders.toss, market).await?
            }
            Part::BadInput => {
                println!("bad input is refused with its reason");
                let (guest, _) = sign_up_and_in(platform.api).await?;
                bad_input_is_refused(platform, &guest).await?;
                0
            }
        };
    }
    println!("{}", conclusion(&wanted, failed));
    Ok(failed)
}

/// The last line: what held, and of what it can be said.
fn conclusion(parts: &[Part], failed: usize) -> String {
    let held = if failed == 0 {
        "everything held"
    } else {
        "NOT everything held"
    };
    let all = Part::value_variants().len();
    if parts.len() == all {
        return held.to_owned();
    }
    let names = parts.iter().filter_map(Part::to_possible_value);
    let names: Vec<String> = names.map(|name| name.get_name().to_owned()).collect();
    format!(
        "{held} in {} of {all} parts: {}",
        parts.len(),
        names.join(", ")
    )
}

async fn many_guests_claim(platform: &Platform, size: Size) -> anyhow::Result<usize> {
    let run = Run {
        kind: Kind::CouponCampaign,
        size,
        calls_per_second: None,
        window: WINDOW,
        claim_ttl: "",
        give_back_every: None,
        ending: Ending::SoldOut,
    };
    let report = sale_run::run(platform, &run, &Quiet).await?;
    report.print();
    platform.remove(&report.sale).await?;
    let left = platform.redis_keys(&report.sale).await?;
    ensure!(
        left.is_empty(),
        "a removed sale left keys in Redis: {left:?}"
    );
    Ok(report.violations.len())
}

pub(crate) fn open_sale(kind: Kind, stock: usize, claim_ttl: &'static str) -> Declaration {
    let starts = sale_run::round_up_to_second(Timestamp::now() - SignedDuration::from_mins(1));
    let name = format!("e2e-{}", &Uuid::new_v4().simple().to_string()[..12]);
    Declaration {
        kind,
        name,
        stock,
        starts,
        ends: starts + SignedDuration::from_hours(2),
        claim_ttl,
        region: "jeju",
    }
}

async fn send(
    platform: &Platform,
    method: Method,
    path: &str,
    guest: Option<&Guest>,
    body: Option<Value>,
) -> anyhow::Result<Answer> {
    let call = Call {
        method,
        path: path.parse()?,
        authorization: guest.map(|guest| guest.authorization.clone()),
        body: body.map(|body| body.to_string().into()).unwrap_or_default(),
        key: None,
    };
    let answer = Connection::new(platform.api).send(&call, TIMEOUT).await;
    answer.map_err(|no| anyhow::anyhow!("{} {path}: no answer ({no:?})", call.method))
}

async fn expect(
    platform: &Platform,
    status: u16,
    method: Method,
    path: &str,
    guest: Option<&Guest>,
    body: Option<Value>,
) -> anyhow::Result<Value> {
    let answer = send(platform, method.clone(), path, guest, body).await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(
        answer.status.as_u16() == status,
        "{method} {path}: {} instead of {status}: {text}",
        answer.status
    );
    if text.is_empty() {
        Ok(Value::Null)
    } else {
        serde_json::from_str(&text).with_context(|| format!("{method} {path}: {text}"))
    }
}

async fn real_guests_claim(platform: &Platform) -> anyhow::Result<()> {
    let sale = platform
        .declare(open_sale(Kind::CouponCampaign, REAL_GUESTS, ""))
        .await?;
    wait_until_open(platform, &sale).await?;
    let mut guests = Vec::new();
    for _ in 0..REAL_GUESTS {
        let (guest, _) = sign_up_and_in(platform.api).await?;
        let first = expect(
            platform,
            201,
            Method::POST,
            &sale.claims_path(),
            Some(&guest),
            None,
        )
        .await?;
        let again = expect(
            platform,
            200,
            Method::POST,
            &sale.claims_path(),
            Some(&guest),
            None,
        )
        .await?;
        ensure!(
            first["claimId"] == again["claimId"],
            "a repeated claim got another answer: {first} and {again}"
        );
        guests.push(guest);
    }
    let (late, _) = sign_up_and_in(platform.api).await?;
    let refused = expect(
        platform,
        409,
        Method::POST,
        &sale.claims_path(),
        Some(&late),
        None,
    )
    .await?;
    ensure!(
        refused["code"] == "SOLD_OUT",
        "a sold out campaign answered {refused}"
    );
    platform
        .until("every guest has the coupon", PATIENCE, async || {
            let coupons = expect(
                platform,
                200,
                Method::GET,
                "/v1/coupons",
                guests.last(),
                None,
            )
            .await?;
            Ok(coupons["items"]
                .as_array()
                .is_some_and(|items| items.len() == 1))
        })
        .await?;
    platform
        .until("kubectl shows SoldOut", PATIENCE, async || {
            let status = platform.status(&sale).await?;
            Ok(status.phase == "SoldOut" && status.consistent && status.remaining == 0)
        })
        .await?;
    let shrunk = platform
        .change(&sale, json!({"quantity": REAL_GUESTS - 1}))
        .await;
    ensure!(
        shrunk.is_err(),
        "a quantity below what is claimed was taken"
    );
    platform
        .change(&sale, json!({"quantity": REAL_GUESTS + 1}))
        .await?;
    platform
        .until("the added coupon can be claimed", PATIENCE, async || {
            let answer = send(
                platform,
                Method::POST,
                &sale.claims_path(),
                Some(&late),
                None,
            )
            .await?;
            Ok(answer.status.as_u16() == 201)
        })
        .await?;
    platform.remove(&sale).await?;
    let coupons = expect(
        platform,
        200,
        Method::GET,
        "/v1/coupons",
        guests.last(),
        None,
    )
    .await?;
    ensure!(
        coupons["items"]
            .as_array()
            .is_some_and(|items| items.len() == 1),
        "a coupon vanished with its campaign: {coupons}"
    );
    println!(
        "  {REAL_GUESTS} coupons, SoldOut, one more by growing the quantity; the coupons outlive the campaign"
    );
    Ok(())
}

pub(crate) async fn wait_until_open(platform: &Platform, sale: &Declared) -> anyhow::Result<()> {
    let path = format!("{}/{}", sale.declaration.kind.path(), sale.declaration.name);
    platform
        .until("the API knows the sale", PATIENCE, async || {
            Ok(send(platform, Method::GET, &path, None, None)
                .await?
                .status
                .is_success()
                && platform.status(sale).await?.phase == "Active")
        })
        .await
}

async fn time_sale_claims_come_back(platform: &Platform) -> anyhow::Result<usize> {
    const STOCK: usize = 20;
    let sale = platform
        .declare(open_sale(Kind::TimeSale, STOCK, "10s"))
        .await?;
    wait_until_open(platform, &sale).await?;
    let guests = Arc::new(platform.token_signer().await?.guests(3 * STOCK)?);
    let storm = Storm {
        address: platform.api,
        path: sale.claims_path().parse()?,
        connections: 10,
        calls_per_second: None,
        give_back_every: None,
    };
    let mut calls = storm::run(&storm, &guests, (0..STOCK).collect(), &Progress::default()).await;

    let given_back = &calls[0];
    let crate::history::Outcome::Claimed(claim) = given_back.outcome else {
        anyhow::bail!("no claim: {given_back:?}")
    };
    let holder = guests
        .iter()
        .find(|guest| guest.user == given_back.user)
        .context("the claim's guest")?;
    let claim_path = format!("{}/{claim}", sale.claims_path());
    expect(
        platform,
        404,
        Method::DELETE,
        &claim_path,
        Some(&guests[STOCK]),
        None,
    )
    .await?;
    expect(
        platform,
        204,
        Method::DELETE,
        &claim_path,
        Some(holder),
        None,
    )
    .await?;
    // Whoever asks from now on may get it; they ask until the contract's second, and the clocks' grain, have passed.
    let asked = storm::run(
        &Storm {
            calls_per_second: Some(10.0),
            connections: 1,
            ..storm.clone()
        },
        &guests,
        vec![STOCK; 20],
        &Progress::default(),
    )
    .await;
    ensure!(
        asked
            .iter()
            .any(|call| matches!(call.outcome, crate::history::Outcome::Claimed(_))),
        "a unit given back was not for sale again"
    );
    calls.extend(asked);
    let gone = expect(
        platform,
        200,
        Method::GET,
        &format!("/v1/claims/{claim}"),
        Some(holder),
        None,
    )
    .await?;
    ensure!(
        gone["status"] == "RETURNED",
        "a claim that was given back reads {gone}"
    );

    platform
        .until("all claims have expired", PATIENCE, async || {
            Ok(platform
                .ledger(&sale)
                .await?
                .iter()
                .all(|row| row.ended_at.is_some()))
        })
        .await?;
    platform
        .until("all units are for sale again", PATIENCE, async || {
            Ok(platform.status(&sale).await?.remaining == STOCK)
        })
        .await?;
    calls.extend(
        storm::run(
            &storm,
            &guests,
            (2 * STOCK..3 * STOCK).collect(),
            &Progress::default(),
        )
        .await,
    );
    let at_rest = platform.at_rest(&sale, PATIENCE).await?;
    let violations = check(
        &sale.facts(),
        &calls,
        &at_rest,
        Ending::Open,
        Conditions::Quiet,
    );
    for violation in &violations {
        println!("  VIOLATION    {violation}");
    }
    println!(
        "  {} claims on {STOCK} units: 1 given back, {STOCK} expired, {STOCK} sold again",
        at_rest.ledger.len()
    );
    platform.remove(&sale).await?;
    Ok(violations.len())
}

/// Expected status, then the request: method, path, guest, body.
type Case<'a> = (u16, Method, &'a str, Option<&'a Guest>, Option<Value>);

async fn bad_input_is_refused(platform: &Platform, guest: &Guest) -> anyhow::Result<()> {
    let forged = Guest {
        user: guest.user,
        authorization: HeaderValue::from_static("Bearer e30.e30.c2lnbmF0dXJl"),
    };
    let huge = json!({"email": "x".repeat(100 << 10), "password": "long enough", "name": "x"});
    let claims = "/v1/coupon-campaigns/no-such-campaign/claims";
    let cases: [Case<'_>; 9] = [
        (404, Method::POST, claims, Some(guest), None),
        (401, Method::POST, claims, None, None),
        (401, Method::POST, claims, Some(&forged), None),
        (404, Method::GET, "/v1/time-sales/no-such-sale", None, None),
        (404, Method::GET, "/v1/no-such-thing", None, None),
        (
            405,
            Method::PATCH,
            "/v1/coupon-campaigns",
            Some(guest),
            None,
        ),
        (
            400,
            Method::POST,
            "/v1/users",
            None,
            Some(
                json!({"email": "a@example.com", "password": "long enough", "name": "A", "admin": true}),
            ),
        ),
        (
            400,
            Method::POST,
            "/v1/users",
            None,
            Some(json!({"email": "nobody"})),
        ),
        (413, Method::POST, "/v1/users", None, Some(huge)),
    ];
    let count = cases.len();
    for (status, method, path, who, body) in cases {
        let problem = expect(platform, status, method.clone(), path, who, body).await?;
        let complete = ["type", "title", "detail", "code", "traceId"]
            .iter()
            .all(|field| problem[*field].is_string());
        ensure!(
            complete && problem["status"] == status,
            "{method} {path}: not a whole problem answer: {problem}"
        );
    }
    println!("  {count} kinds of bad input, each a problem answer with its code");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_which_parts_were_run() {
        let all = Part::value_variants();
        assert_eq!(conclusion(all, 0), "everything held");
        assert_eq!(conclusion(all, 2), "NOT everything held");
        assert_eq!(
            conclusion(&[Part::TimeSale, Part::Orders], 0),
            "everything held in 2 of 6 parts: time-sale, orders"
        );
    }
}
