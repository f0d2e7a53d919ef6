//! The rules of the custom resources, tried on a real API server: what it lets in, and with which words it refuses.

#![allow(clippy::unwrap_used)]

mod resources;

use kube::{
    Api, Client, CustomResourceExt as _,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use quokka_crds::{CouponCampaign, TimeSale};
use resources::{campaign, time_sale};
use serde_json::{Value, json};
use testkit::KubeApi;

/// What becomes of a resource that is changed in one place.
struct Case {
    /// A merge patch on a resource that is let in.
    change: Value,
    /// A part of the refusal; `None` where the change is let in.
    refusal: Option<&'static str>,
}

fn good(change: Value) -> Case {
    Case {
        change,
        refusal: None,
    }
}

fn bad(change: Value, refusal: &'static str) -> Case {
    Case {
        change,
        refusal: Some(refusal),
    }
}

/// A namespace on the API server that all tests share, with both kinds served.
async fn namespace() -> (Client, String) {
    let api = KubeApi::shared().await;
    api.apply_crds(&[TimeSale::crd(), CouponCampaign::crd()])
        .await
        .unwrap();
    (
        api.client().await.unwrap(),
        api.create_namespace().await.unwrap(),
    )
}

fn resources_of(client: &Client, namespace: &str, kind: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, kind)
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, change) => *into = change.clone(),
    }
}

/// Says what is wrong with the outcome of a case, if anything is.
fn judge(case: &Case, outcome: Result<DynamicObject, kube::Error>) -> Option<String> {
    let told = match outcome {
        Ok(_) => None,
        Err(kube::Error::Api(status)) if status.code == 422 => Some(status.message.clone()),
        Err(error) => return Some(format!("{}: {error}", case.change)),
    };
    match (case.refusal, told) {
        (None, None) => None,
        (Some(refusal), Some(told)) if told.contains(refusal) => None,
        (Some(refusal), None) => Some(format!("{} was let in, wanted: {refusal}", case.change)),
        (None, Some(told)) => Some(format!("{} was refused: {told}", case.change)),
        (Some(refusal), Some(told)) => Some(format!(
            "{}: wanted: {refusal}\n      told: {told}",
            case.change
        )),
    }
}

/// Makes a resource for each case, by a dry run, and complains of all that went otherwise.
async fn try_to_create(kind: &ApiResource, base: fn(&str) -> Value, cases: Vec<Case>) {
    let (client, namespace) = namespace().await;
    let api = resources_of(&client, &namespace, kind);
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let mut wrong = Vec::new();
    for case in &cases {
        let mut resource = base("jeju");
        merge(&mut resource, &case.change);
        let resource: DynamicObject = serde_json::from_value(resource).unwrap();
        wrong.extend(judge(case, api.create(&dry_run, &resource).await));
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// Changes a resource with the given status as each case says, by a dry run.
async fn try_to_change(
    kind: &ApiResource,
    base: fn(&str) -> Value,
    status: Value,
    cases: Vec<Case>,
) {
    let (client, namespace) = namespace().await;
    let api = resources_of(&client, &namespace, kind);
    let resource: DynamicObject = serde_json::from_value(base("jeju")).unwrap();
    api.create(&PostParams::default(), &resource).await.unwrap();
    if !status.is_null() {
        let status = Patch::Merge(json!({ "status": status }));
        api.patch_status("jeju", &PatchParams::default(), &status)
            .await
            .unwrap();
    }
    let dry_run = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(judge(
            case,
            api.patch("jeju", &dry_run, &Patch::Merge(&case.change))
                .await,
        ));
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn spec(change: Value) -> Value {
    json!({ "spec": change })
}

/// What both kinds have, where `stock` is the field with the number of units.
fn shared_cases(stock: &str) -> Vec<Case> {
    let longest = "a".repeat(63);
    let too_long = "a".repeat(64);
    vec![
        good(json!({})),
        good(json!({ "metadata": { "name": longest } })),
        bad(
            json!({ "metadata": { "name": too_long } }),
            "a sale's name has at most 63 characters",
        ),
        bad(
            spec(json!({ "displayName": null })),
            "spec.displayName: Required value",
        ),
        bad(
            spec(json!({ "displayName": "" })),
            "spec.displayName in body should be at least 1 chars long",
        ),
        bad(
            spec(json!({ "displayName": "가".repeat(201) })),
            "spec.displayName: Too long",
        ),
        good(spec(json!({ "displayName": "가".repeat(200) }))),
        bad(
            spec(json!({ "starts": null })),
            "spec.starts: Required value",
        ),
        bad(spec(json!({ "ends": null })), "spec.ends: Required value"),
        bad(
            spec(json!({ "ends": "2026-12-01T03:00:00Z" })),
            "spec.ends: Invalid value: \"object\": ends must be after starts",
        ),
        bad(
            spec(json!({ "ends": "2026-12-01T04:00:00+09:00" })),
            "ends must be after starts",
        ),
        good(spec(json!({ "ends": "2026-12-01T03:00:00.001Z" }))),
        good(spec(json!({ "ends": "2026-12-01T14:00:00+09:00" }))),
        good(spec(json!({ "ends": "2026-12-02T14:30:00+23:59" }))),
        good(spec(json!({ "ends": "2026-12-01T14:30:00-00:00" }))),
        bad(
            spec(json!({ "ends": "2026-12-01T14:00:00+09:60" })),
            "spec.ends",
        ),
        bad(
            spec(json!({ "ends": "2026-12-01T14:00:00-24:00" })),
            "spec.ends",
        ),
        bad(
            spec(json!({ "ends": "2026-12-02T14:00:00+24:00" })),
            "spec.ends",
        ),
        bad(spec(json!({ "starts": "tomorrow" })), "spec.starts"),
        bad(spec(json!({ "starts": "2026-12-01" })), "spec.starts"),
        bad(
            spec(json!({ "starts": "2026-12-01T03:00:00" })),
            "spec.starts",
        ),
        bad(
            spec(json!({ "starts": "2026-13-01T03:00:00Z" })),
            "spec.starts",
        ),
        bad(spec(json!({ stock: null })), "Required value"),
        bad(spec(json!({ stock: 0 })), "must be from 1 to 10000000"),
        bad(spec(json!({ stock: -1 })), "must be from 1 to 10000000"),
        bad(
            spec(json!({ stock: 10_000_001 })),
            "must be from 1 to 10000000",
        ),
        bad(spec(json!({ stock: "many" })), "must be of type integer"),
        bad(spec(json!({ stock: 1.5 })), "must be of type integer"),
        good(spec(json!({ stock: 1 }))),
        good(spec(json!({ stock: 10_000_000 }))),
        bad(
            spec(json!({ "perUserLimit": 0 })),
            "perUserLimit must be from 1 to 10",
        ),
        bad(
            spec(json!({ "perUserLimit": 11 })),
            "perUserLimit must be from 1 to 10",
        ),
        good(spec(json!({ "perUserLimit": 10 }))),
        bad(
            spec(json!({ "expectedPeak": {} })),
            "spec.expectedPeak.claimsPerSecond: Required value",
        ),
        bad(
            spec(json!({ "expectedPeak": { "claimsPerSecond": 0 } })),
            "claimsPerSecond must be from 1 to 1000000",
        ),
        bad(
            spec(json!({ "expectedPeak": { "claimsPerSecond": 1_000_001 } })),
            "claimsPerSecond must be from 1 to 1000000",
        ),
        good(spec(
            json!({ "expectedPeak": { "claimsPerSecond": 3_000 } }),
        )),
        bad(
            spec(json!({ "warmUp": "25h" })),
            "warmUp must be from 0s to 24h",
        ),
        bad(spec(json!({ "warmUp": "-5m" })), "spec.warmUp"),
        bad(spec(json!({ "warmUp": "5" })), "spec.warmUp"),
        bad(spec(json!({ "warmUp": "1m1h" })), "spec.warmUp"),
        bad(spec(json!({ "warmUp": 300 })), "must be of type string"),
        good(spec(json!({ "warmUp": "0s" }))),
        good(spec(json!({ "warmUp": "1h30m" }))),
        bad(spec(json!({ "paused": "yes" })), "must be of type boolean"),
        bad(
            spec(json!({ "discount": null })),
            "spec.discount: Required value",
        ),
        bad(
            spec(json!({ "discount": { "percent": null } })),
            "a discount is exactly one of percent and amount",
        ),
        bad(
            spec(json!({ "discount": { "amount": 5_000 } })),
            "a discount is exactly one of percent and amount",
        ),
        bad(
            spec(json!({ "discount": { "percent": 0 } })),
            "percent must be from 1 to 99",
        ),
        bad(
            spec(json!({ "discount": { "percent": 100 } })),
            "percent must be from 1 to 99",
        ),
        good(spec(json!({ "discount": { "percent": 1 } }))),
        good(spec(json!({ "discount": { "percent": 99 } }))),
        bad(
            spec(json!({ "discount": { "percent": null, "amount": 0 } })),
            "amount must be from 1 to 100000000 won",
        ),
        bad(
            spec(json!({ "discount": { "percent": null, "amount": 100_000_001 } })),
            "amount must be from 1 to 100000000 won",
        ),
    ]
}

#[tokio::test]
async fn a_time_sale_that_cannot_work_is_refused_with_its_reason() {
    let mut cases = shared_cases("stock");
    let crowd: Vec<String> = (0..101).map(|n| format!("stay-{n}")).collect();
    cases.extend([
        good(spec(
            json!({ "discount": { "percent": null, "amount": 30_000 } }),
        )),
        bad(
            spec(json!({ "target": null })),
            "spec.target: Required value",
        ),
        bad(
            spec(json!({ "target": { "regions": null } })),
            "a target names at least one of roomTypeIds, stayIds and regions",
        ),
        bad(
            spec(json!({ "target": { "regions": [] } })),
            "spec.target.regions in body should have at least 1 items",
        ),
        bad(
            spec(json!({ "target": { "regions": ["Jeju Island"] } })),
            "spec.target.regions[0]",
        ),
        bad(
            spec(json!({ "target": { "regions": ["jeju", "jeju"] } })),
            "Duplicate value",
        ),
        bad(
            spec(json!({ "target": { "stayIds": crowd } })),
            "must have at most 100 items",
        ),
        bad(
            spec(json!({ "target": { "roomTypeIds": [""] } })),
            "spec.target.roomTypeIds[0]",
        ),
        good(spec(
            json!({ "target": { "regions": null, "stayIds": ["01J8"] } }),
        )),
        good(spec(
            json!({ "target": { "regions": null, "roomTypeIds": ["01J8", "a-b"] } }),
        )),
        bad(
            spec(json!({ "stayDates": { "from": "2026-12-20", "to": "2026-12-05" } })),
            "stayDates.from must not be after stayDates.to",
        ),
        bad(
            spec(json!({ "stayDates": { "to": null } })),
            "spec.stayDates.to: Required value",
        ),
        bad(
            spec(json!({ "stayDates": { "to": "2026-02-30" } })),
            "spec.stayDates.to",
        ),
        bad(
            spec(json!({ "stayDates": { "to": "2026-12-05T00:00:00Z" } })),
            "spec.stayDates.to",
        ),
        good(spec(
            json!({ "stayDates": { "from": "2026-12-05", "to": "2026-12-05" } }),
        )),
        good(spec(json!({ "stayDates": null }))),
        bad(
            spec(json!({ "claimTtl": "0s" })),
            "claimTtl must be from 1s to 24h",
        ),
        bad(
            spec(json!({ "claimTtl": "24h1s" })),
            "claimTtl must be from 1s to 24h",
        ),
        bad(spec(json!({ "claimTtl": "ten minutes" })), "spec.claimTtl"),
        good(spec(json!({ "claimTtl": "1s" }))),
        good(spec(json!({ "claimTtl": "24h" }))),
    ]);
    try_to_create(&TimeSale::api_resource(), time_sale, cases).await;
}

#[tokio::test]
async fn a_campaign_that_cannot_work_is_refused_with_its_reason() {
    let mut cases = shared_cases("quantity");
    let slack = |before: &str| json!({ "slack": { "secretRef": { "name": "slack", "key": "url" } }, "before": before });
    cases.extend([
        good(spec(
            json!({ "discount": { "percent": null, "maxAmount": null, "amount": 5_000 } }),
        )),
        bad(
            spec(json!({ "discount": { "percent": null, "amount": 5_000 } })),
            "maxAmount bounds a percent and means nothing for an amount",
        ),
        bad(
            spec(json!({ "discount": { "maxAmount": 0 } })),
            "maxAmount must be from 1 to 100000000 won",
        ),
        bad(
            spec(json!({ "coupon": null })),
            "spec.coupon: Required value",
        ),
        bad(
            spec(json!({ "coupon": { "validFor": null } })),
            "spec.coupon.validFor: Required value",
        ),
        bad(
            spec(json!({ "coupon": { "validFor": "59s" } })),
            "validFor must be from 1m to 17520h",
        ),
        bad(
            spec(json!({ "coupon": { "validFor": "17521h" } })),
            "validFor must be from 1m to 17520h",
        ),
        bad(
            spec(json!({ "coupon": { "validFor": "30d" } })),
            "spec.coupon.validFor",
        ),
        good(spec(json!({ "coupon": { "validFor": "17520h" } }))),
        bad(
            spec(json!({ "coupon": { "minOrderAmount": -1 } })),
            "minOrderAmount must be from 0 to 100000000 won",
        ),
        good(spec(json!({ "coupon": { "minOrderAmount": 0 } }))),
        good(spec(json!({ "coupon": { "regions": [] } }))),
        bad(
            spec(json!({ "coupon": { "regions": ["Jeju"] } })),
            "spec.coupon.regions[0]",
        ),
        good(spec(json!({ "announcement": slack("10m") }))),
        bad(
            spec(json!({ "announcement": slack("169h") })),
            "before must be from 0s to 168h",
        ),
        bad(
            spec(json!({ "announcement": {} })),
            "spec.announcement.slack: Required value",
        ),
        bad(
            spec(json!({ "announcement": { "slack": { "secretRef": { "name": "slack" } } } })),
            "spec.announcement.slack.secretRef.key: Required value",
        ),
    ]);
    try_to_create(&CouponCampaign::api_resource(), campaign, cases).await;
}

/// Changes that nothing forbids before the start.
fn time_sale_changes() -> Vec<(&'static str, Value)> {
    vec![
        ("starts", json!({ "starts": "2026-12-01T02:00:00Z" })),
        ("discount", json!({ "discount": { "percent": 41 } })),
        (
            "discount",
            json!({ "discount": { "percent": null, "amount": 1_000 } }),
        ),
        ("target", json!({ "target": { "regions": ["seoul"] } })),
        ("target", json!({ "target": { "stayIds": ["01J8"] } })),
        ("stayDates", json!({ "stayDates": { "to": "2026-12-21" } })),
        ("stayDates", json!({ "stayDates": null })),
        ("perUserLimit", json!({ "perUserLimit": 2 })),
        ("claimTtl", json!({ "claimTtl": "20m" })),
    ]
}

fn campaign_changes() -> Vec<(&'static str, Value)> {
    vec![
        ("starts", json!({ "starts": "2026-12-01T02:00:00Z" })),
        ("discount", json!({ "discount": { "percent": 41 } })),
        ("discount", json!({ "discount": { "maxAmount": null } })),
        ("coupon", json!({ "coupon": { "validFor": "721h" } })),
        ("coupon", json!({ "coupon": { "regions": ["jeju"] } })),
        ("perUserLimit", json!({ "perUserLimit": 2 })),
    ]
}

const FIXED: [(&str, &str); 7] = [
    (
        "starts",
        "spec.starts: Forbidden: starts is fixed once the sale has started",
    ),
    (
        "discount",
        "spec.discount: Forbidden: discount is fixed once the sale has started",
    ),
    (
        "target",
        "spec.target: Forbidden: target is fixed once the sale has started",
    ),
    (
        "stayDates",
        "spec.stayDates: Forbidden: stayDates is fixed once the sale has started",
    ),
    (
        "perUserLimit",
        "spec.perUserLimit: Forbidden: perUserLimit is fixed once the sale has started",
    ),
    (
        "claimTtl",
        "spec.claimTtl: Forbidden: claimTtl is fixed once the sale has started",
    ),
    (
        "coupon",
        "spec.coupon: Forbidden: coupon is fixed once the sale has started",
    ),
];

fn refused(changes: Vec<(&'static str, Value)>) -> Vec<Case> {
    let refusal = |field| FIXED.iter().find(|(fixed, _)| *fixed == field).unwrap().1;
    changes
        .into_iter()
        .map(|(field, change)| bad(spec(change), refusal(field)))
        .collect()
}

fn let_in(changes: Vec<(&'static str, Value)>) -> Vec<Case> {
    changes
        .into_iter()
        .map(|(_, change)| good(spec(change)))
        .collect()
}

/// 5000 units of which 10 are claimed, by a sale that has started or hasn't.
fn measured(started: bool) -> Value {
    let mut status = json!({
        "phase": if started { "Active" } else { "Warming" },
        "stock": { "total": 5_000, "claimed": 10, "remaining": 4_990 },
    });
    if started {
        status["startedAt"] = json!("2026-12-01T03:00:00Z");
    }
    status
}

#[tokio::test]
async fn before_the_start_everything_can_change() {
    for status in [Value::Null, measured(false)] {
        let mut cases = let_in(time_sale_changes());
        cases.push(good(spec(json!({ "stock": 10 }))));
        try_to_change(&TimeSale::api_resource(), time_sale, status.clone(), cases).await;
        try_to_change(
            &CouponCampaign::api_resource(),
            campaign,
            status,
            let_in(campaign_changes()),
        )
        .await;
    }
}

#[tokio::test]
async fn once_started_a_sales_terms_are_fixed() {
    let mut cases = refused(time_sale_changes());
    cases.extend([
        good(spec(json!({ "ends": "2026-12-01T06:00:00Z" }))),
        good(spec(json!({ "paused": true }))),
        good(spec(json!({ "displayName": "Jeju, longer" }))),
        good(spec(
            json!({ "expectedPeak": { "claimsPerSecond": 9_000 } }),
        )),
        good(spec(json!({ "stock": 6_000 }))),
        good(spec(json!({ "stock": 10 }))),
        bad(
            spec(json!({ "stock": 9 })),
            "spec.stock: Forbidden: stock can't shrink below what is claimed",
        ),
    ]);
    try_to_change(&TimeSale::api_resource(), time_sale, measured(true), cases).await;

    let mut cases = refused(campaign_changes());
    cases.extend([
        good(spec(json!({ "quantity": 6_000 }))),
        good(spec(json!({ "quantity": 10 }))),
        bad(
            spec(json!({ "quantity": 9 })),
            "spec.quantity: Forbidden: quantity can't shrink below what is claimed",
        ),
    ]);
    try_to_change(
        &CouponCampaign::api_resource(),
        campaign,
        measured(true),
        cases,
    )
    .await;
}

#[tokio::test]
async fn a_status_can_always_be_written() {
    let (client, namespace) = namespace().await;
    let api = resources_of(&client, &namespace, &TimeSale::api_resource());
    let resource: DynamicObject = serde_json::from_value(time_sale("jeju")).unwrap();
    api.create(&PostParams::default(), &resource).await.unwrap();
    // More claimed than there are: it must be possible to say so, and to say something else after it.
    for claimed in [5_001, 5_002, 3] {
        let mut status = measured(true);
        status["stock"] =
            json!({ "total": 5_000, "claimed": claimed, "remaining": 5_000 - claimed });
        api.patch_status(
            "jeju",
            &PatchParams::default(),
            &Patch::Merge(json!({ "status": status })),
        )
        .await
        .unwrap();
    }
    let stranger = Patch::Merge(json!({ "status": { "phase": "Exploded" } }));
    let refused = api
        .patch_status("jeju", &PatchParams::default(), &stranger)
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("Unsupported value: \"Exploded\""),
        "{refused}"
    );
}

#[tokio::test]
async fn what_is_left_out_has_its_default() {
    let (client, namespace) = namespace().await;
    let api: Api<TimeSale> = Api::namespaced(client.clone(), &namespace);
    let bare: TimeSale = serde_json::from_value(time_sale("jeju")).unwrap();
    let made = api.create(&PostParams::default(), &bare).await.unwrap();
    assert_eq!((made.spec.per_user_limit, made.spec.paused), (1, false));
    assert_eq!(
        (
            made.spec.claim_ttl.to_string(),
            made.spec.warm_up.to_string()
        ),
        ("10m".to_owned(), "5m".to_owned())
    );

    let raw = resources_of(&client, &namespace, &TimeSale::api_resource());
    raw.create(
        &PostParams::default(),
        &serde_json::from_value(time_sale("raw")).unwrap(),
    )
    .await
    .unwrap();
    let spec = raw.get("raw").await.unwrap().data["spec"].clone();
    let defaults = json!({ "perUserLimit": 1, "claimTtl": "10m", "warmUp": "5m", "paused": false });
    for (field, value) in defaults.as_object().unwrap() {
        assert_eq!(&spec[field], value, "{field}");
    }
}

#[tokio::test]
async fn kubectl_shows_a_sale_at_a_glance() {
    let (client, namespace) = namespace().await;
    for (plural, base, units) in [
        ("timesales", time_sale as fn(&str) -> Value, "Stock"),
        ("couponcampaigns", campaign, "Quantity"),
    ] {
        let kind = if plural == "timesales" {
            TimeSale::api_resource()
        } else {
            CouponCampaign::api_resource()
        };
        let api = resources_of(&client, &namespace, &kind);
        api.create(
            &PostParams::default(),
            &serde_json::from_value(base("jeju")).unwrap(),
        )
        .await
        .unwrap();
        api.patch_status(
            "jeju",
            &PatchParams::default(),
            &Patch::Merge(json!({ "status": measured(true) })),
        )
        .await
        .unwrap();
        let request = http::Request::get(format!(
            "/apis/quokka.travel/v1alpha1/namespaces/{namespace}/{plural}"
        ))
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
        let table: Value = client.request(request).await.unwrap();
        let columns: Vec<_> = table["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|column| column["priority"] == 0)
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            columns,
            [
                "Name",
                "Phase",
                "Starts",
                "Ends",
                units,
                "Claimed",
                "Remaining",
                "Age"
            ]
        );
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(
            cells[..4],
            [
                "jeju",
                "Active",
                "2026-12-01T03:00:00Z",
                "2026-12-01T05:00:00Z"
            ]
            .map(Value::from)
        );
        assert_eq!(cells[4..7], [5_000, 10, 4_990].map(Value::from));
    }
    let names: Value = client
        .request(
            http::Request::get("/apis/quokka.travel/v1alpha1")
                .body(Vec::new())
                .unwrap(),
        )
        .await
        .unwrap();
    for (kind, short) in [("TimeSale", "tsale"), ("CouponCampaign", "ccamp")] {
        let resource = names["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|is| is["kind"] == kind)
            .unwrap();
        assert_eq!(resource["shortNames"], json!([short]));
        assert_eq!(resource["categories"], json!(["quokka"]));
    }
}
