#![allow(clippy::unwrap_used)]

use jiff::civil::date;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const STAY: &str = "00000000-0000-7000-8000-000000000002";

fn quote(nights: &[(i64, Value)]) -> Quote {
    let nights: Vec<Value> = nights
        .iter()
        .zip(5..)
        .map(|((price, own), day)| {
            json!({"date": format!("2026-12-{day:02}"), "price": price, "ownDiscount": own})
        })
        .collect();
    serde_json::from_value(json!({
        "roomTypeId": "00000000-0000-7000-8000-000000000001", "stayId": STAY,
        "hostId": "00000000-0000-7000-8000-000000000003", "region": "jeju", "name": "Sea view", "capacity": 2,
        "cancellation": "MODERATE", "nights": nights,
    }))
    .unwrap()
}

fn dates(nights: i8) -> StayDates {
    StayDates::new(date(2026, 12, 5), date(2026, 12, 5 + nights)).unwrap()
}

fn claim(kind: &str, more: Value) -> ClaimedDiscount {
    let mut claim = json!({
        "claimId": "00000000-0000-7000-8000-000000000009", "kind": kind, "saleId": "jeju-weekend",
        "discount": {"percent": 40}, "expiresAt": "2026-12-01T03:10:00Z",
    });
    for (name, value) in more.as_object().unwrap() {
        claim[name] = value.clone();
    }
    serde_json::from_value(claim).unwrap()
}

#[test]
fn each_night_has_its_lowest_price_and_the_coupon_comes_off_their_sum() {
    let quote = quote(&[
        (100_001, json!(null)),
        (100_000, json!({"percent": 50})),
        (80_000, json!({"amount": 5_000})),
    ]);
    let sale = claim(
        "TIME_SALE",
        json!({"target": {"regions": ["jeju"]}, "stayDates": {"from": "2026-12-01", "to": "2026-12-06"}}),
    );
    let coupon = claim(
        "COUPON",
        json!({"discount": {"percent": 10, "maxAmount": 15_000}, "minOrderAmount": 50_000, "regions": ["jeju"]}),
    );
    let price = price(&quote, dates(3), Some(&sale), Some(&coupon)).unwrap();
    let nights: Vec<(i64, Used)> = price
        .nights
        .iter()
        .map(|night| (night.amount.get(), night.discount))
        .collect();
    // 40 % of 100,001 is 40,000.4: 40,000 come off. The third night is after the sale's dates.
    let expected = [
        (60_001, Used::TimeSale),
        (50_000, Used::Own),
        (75_000, Used::Own),
    ];
    assert_eq!(nights, expected);
    assert_eq!(price.original_amount.get(), 280_001);
    // 10 % of 185,001 would be 18,500.
    assert_eq!(price.amount.get(), 170_001);
    assert_eq!(
        serde_json::to_value(&price.discounts).unwrap(),
        json!([
            {"kind": "OWN", "amount": 55_000},
            {"kind": "TIME_SALE", "amount": 40_000, "timeSaleId": "jeju-weekend", "claimId": sale.claim_id},
            {"kind": "COUPON", "amount": 15_000, "campaignId": "jeju-weekend", "claimId": coupon.claim_id},
        ])
    );
}

#[test]
fn a_sale_covers_what_its_target_names() {
    let quote = quote(&[(100_000, json!(null))]);
    let tried = |more: Value| {
        let sale = claim("TIME_SALE", more);
        price(&quote, dates(1), Some(&sale), None).map(|price| price.amount.get())
    };
    for target in [
        json!({"stayIds": [STAY]}),
        json!({"regions": ["busan", "jeju"]}),
        json!(null),
    ] {
        assert_eq!(tried(json!({"target": target})), Ok(60_000), "{target}");
    }
    let no = Err(PricingError::SaleNotApplicable);
    assert_eq!(tried(json!({"target": {"regions": ["busan"]}})), no);
    assert_eq!(
        tried(json!({"stayDates": {"from": "2026-12-06", "to": "2026-12-09"}})),
        no
    );
}

#[test]
fn a_sale_that_lowers_nothing_takes_no_claim() {
    let quote = quote(&[(100_000, json!({"percent": 40}))]);
    let price = price(&quote, dates(1), Some(&claim("TIME_SALE", json!({}))), None).unwrap();
    assert_eq!((price.amount.get(), price.claim_ids()), (60_000, vec![]));
}

#[test]
fn a_coupon_has_its_terms() {
    let quote = quote(&[(50_000, json!(null))]);
    let tried = |more: Value| {
        price(&quote, dates(1), None, Some(&claim("COUPON", more))).map(|price| price.amount.get())
    };
    assert_eq!(tried(json!({"minOrderAmount": 50_000})), Ok(30_000));
    let least = Krw::new(50_001).unwrap();
    assert_eq!(
        tried(json!({"minOrderAmount": 50_001})),
        Err(PricingError::BelowMinimum(least))
    );
    assert_eq!(tried(json!({"regions": []})), Ok(30_000));
    assert_eq!(
        tried(json!({"regions": ["busan"]})),
        Err(PricingError::OtherRegion)
    );
    assert_eq!(
        tried(json!({"discount": {"amount": 60_000}})),
        Ok(0),
        "never below nothing"
    );
}

#[test]
fn a_quote_of_other_nights_is_no_quote() {
    let quote = quote(&[(50_000, json!(null))]);
    assert_eq!(
        price(&quote, dates(2), None, None),
        Err(PricingError::OtherNights)
    );
}

proptest! {
    #[test]
    fn what_is_paid_and_what_is_taken_off_are_the_whole_price(
        nights in prop::collection::vec((0i64..10_000_000, prop::option::of(1u8..=99)), 1..25),
        sale in prop::option::of(1u8..=99),
        coupon in prop::option::of(0i64..1_000_000),
    ) {
        let own = |own: Option<u8>| own.map_or(json!(null), |own| json!({"percent": own}));
        let nights: Vec<(i64, Value)> =
            nights.into_iter().map(|(price, percent)| (price, own(percent))).collect();
        let quote = quote(&nights);
        let sale = sale.map(|percent| claim("TIME_SALE", json!({"discount": {"percent": percent}})));
        let coupon = coupon.map(|amount| claim("COUPON", json!({"discount": {"amount": amount}})));
        let dates = dates(i8::try_from(nights.len()).unwrap());
        let price = price(&quote, dates, sale.as_ref(), coupon.as_ref()).unwrap();
        let off: i64 = price.discounts.iter().map(|lowered| match lowered {
            Lowered::Own { amount } | Lowered::TimeSale { amount, .. } | Lowered::Coupon { amount, .. } => amount.get(),
        }).sum();
        prop_assert_eq!(price.amount.get() + off, price.original_amount.get());
    }
}
