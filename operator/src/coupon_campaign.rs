//! The kind `CouponCampaign`.

use quokka_crds::{CouponCampaign, SaleStatus, TimeSale};
use sale_stock::books::{CouponTerms, SaleDefinition, SaleKind};

use crate::sale::{self, Sale, SaleResource, SpecError};

impl SaleResource for CouponCampaign {
    const KIND: &'static str = "CouponCampaign";
    type Other = TimeSale;

    fn sale_status(&self) -> Option<&SaleStatus> {
        self.status.as_ref().map(|status| &status.sale)
    }

    fn sale(&self) -> Result<Sale, SpecError> {
        let identity = sale::identity(self)?;
        let spec = &self.spec;
        sale::window(spec.starts, spec.ends)?;
        let definition = SaleDefinition {
            uid: identity.uid,
            topic: events::claims_topic(&identity.namespace, &identity.name),
            name: identity.name,
            kind: SaleKind::CouponCampaign,
            generation: identity.generation,
            display_name: spec.display_name.clone(),
            starts: spec.starts,
            ends: spec.ends,
            stock: sale::stock("spec.quantity", spec.quantity)?,
            per_user_limit: sale::per_user_limit(spec.per_user_limit)?,
            claim_ttl_ms: None,
            paused: spec.paused,
            partitions: sale::partitions(spec.expected_peak.as_ref()),
            target: None,
            stay_dates: None,
            discount: sale::discount(
                spec.discount.percent,
                spec.discount.max_amount,
                spec.discount.amount,
            )?,
            coupon: Some(CouponTerms {
                valid_for_ms: sale::millis(spec.coupon.valid_for.get()),
                min_order_amount: spec.coupon.min_order_amount,
                regions: spec.coupon.regions.clone(),
            }),
        };
        Ok(Sale {
            definition,
            warm_up: spec.warm_up.get(),
            created: identity.created,
        })
    }
}
