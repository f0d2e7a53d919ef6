//! The kind `TimeSale`.

use quokka_crds::{CouponCampaign, SaleStatus, TimeSale};
use sale_stock::books::{SaleDefinition, SaleKind, StayDates, Target};

use crate::sale::{self, Sale, SaleResource, SpecError};

impl SaleResource for TimeSale {
    const KIND: &'static str = "TimeSale";
    type Other = CouponCampaign;

    fn sale_status(&self) -> Option<&SaleStatus> {
        self.status.as_ref()
    }

    fn sale(&self) -> Result<Sale, SpecError> {
        let identity = sale::identity(self)?;
        let spec = &self.spec;
        sale::window(spec.starts, spec.ends)?;
        let definition = SaleDefinition {
            uid: identity.uid,
            topic: events::claims_topic(&identity.namespace, &identity.name),
            name: identity.name,
            kind: SaleKind::TimeSale,
            generation: identity.generation,
            display_name: spec.display_name.clone(),
            starts: spec.starts,
            ends: spec.ends,
            stock: sale::stock("spec.stock", spec.stock)?,
            per_user_limit: sale::per_user_limit(spec.per_user_limit)?,
            claim_ttl_ms: Some(sale::millis(spec.claim_ttl.get())),
            paused: spec.paused,
            partitions: sale::partitions(spec.expected_peak.as_ref()),
            target: Some(Target {
                room_type_ids: spec.target.room_type_ids.clone().unwrap_or_default(),
                stay_ids: spec.target.stay_ids.clone().unwrap_or_default(),
                regions: spec.target.regions.clone().unwrap_or_default(),
            }),
            stay_dates: spec.stay_dates.as_ref().map(|dates| StayDates {
                from: dates.from,
                to: dates.to,
            }),
            discount: sale::discount(spec.discount.percent, None, spec.discount.amount)?,
            coupon: None,
        };
        Ok(Sale {
            definition,
            warm_up: spec.warm_up.get(),
            created: identity.created,
        })
    }
}
