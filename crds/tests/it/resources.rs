//! Resources that are let in, with everything set that has no default.

use serde_json::{Value, json};

pub(crate) fn time_sale(name: &str) -> Value {
    json!({
        "apiVersion": "quokka.travel/v1alpha1",
        "kind": "TimeSale",
        "metadata": { "name": name },
        "spec": {
            "displayName": "Jeju weekend",
            "starts": "2026-12-01T03:00:00Z",
            "ends": "2026-12-01T05:00:00Z",
            "target": { "regions": ["jeju"] },
            "stayDates": { "from": "2026-12-05", "to": "2026-12-20" },
            "discount": { "percent": 40 },
            "stock": 5000,
        },
    })
}

pub(crate) fn campaign(name: &str) -> Value {
    json!({
        "apiVersion": "quokka.travel/v1alpha1",
        "kind": "CouponCampaign",
        "metadata": { "name": name },
        "spec": {
            "displayName": "First trip",
            "starts": "2026-12-01T03:00:00Z",
            "ends": "2026-12-01T05:00:00Z",
            "quantity": 5000,
            "discount": { "percent": 10, "maxAmount": 20000 },
            "coupon": { "validFor": "720h", "minOrderAmount": 50000 },
        },
    })
}
