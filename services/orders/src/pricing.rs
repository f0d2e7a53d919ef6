//! What an order costs: the quote's nights, the guest's time-sale claim and coupon, and the rules of `money`.
//!
//! A time sale's discount counts for a night that it covers, and only where it makes the night cheaper than the room
//! type's own discount does. A coupon comes off what the nights come to.

use jiff::civil::Date;
use money::{CouponDiscount, Discount, Krw, NightPrice, StayPrice, Used, lowest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::refunds::Policy;
use crate::stay::StayDates;

/// What `stays` offers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quote {
    /// Of which room type.
    pub room_type_id: Uuid,
    /// Of which stay.
    pub stay_id: Uuid,
    /// Whose it is.
    pub host_id: Uuid,
    /// Where.
    pub region: String,
    /// The stay's name.
    pub name: String,
    /// How a confirmed order is refunded.
    pub cancellation: Policy,
    /// Every night asked for, in order.
    pub nights: Vec<QuotedNight>,
}

/// A night of a quote.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotedNight {
    /// Which.
    pub date: Date,
    /// Without any discount.
    pub price: Krw,
    /// The room type's own discount.
    pub own_discount: Option<Discount>,
}

/// Of what a claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClaimKind {
    /// A time sale.
    TimeSale,
    /// A coupon campaign.
    Coupon,
}

/// What a time sale is for: anything that is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    /// Room types.
    pub room_type_ids: Vec<String>,
    /// Stays.
    pub stay_ids: Vec<String>,
    /// Regions.
    pub regions: Vec<String>,
}

/// The nights that a time sale covers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Covered {
    /// The first.
    pub from: Date,
    /// The last.
    pub to: Date,
}

/// What `promotions` says of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimedDiscount {
    /// Which claim.
    pub claim_id: Uuid,
    /// Of what it is.
    pub kind: ClaimKind,
    /// The sale's or campaign's name.
    pub sale_id: String,
    /// What it takes off.
    pub discount: CouponDiscount,
    /// What a time sale is for; left out: everything.
    pub target: Option<Target>,
    /// The nights that a time sale covers; left out: all.
    pub stay_dates: Option<Covered>,
    /// The least that a coupon's order comes to.
    pub min_order_amount: Option<Krw>,
    /// Where a coupon may be used; none: everywhere.
    pub regions: Option<Vec<String>>,
}

impl ClaimedDiscount {
    fn covers(&self, quote: &Quote, night: Date) -> bool {
        let targeted = self.target.as_ref().is_none_or(|target| {
            target
                .room_type_ids
                .contains(&quote.room_type_id.to_string())
                || target.stay_ids.contains(&quote.stay_id.to_string())
                || target.regions.contains(&quote.region)
        });
        let dated = self
            .stay_dates
            .is_none_or(|dates| (dates.from..=dates.to).contains(&night));
        targeted && dated
    }
}

/// Why a price can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PricingError {
    /// The quote isn't of the nights that were asked for.
    #[error("the quote has other nights than were asked for")]
    OtherNights,
    /// The sum is more than can be counted.
    #[error("the price is out of range")]
    TooMuch,
    /// The time sale is for none of the nights.
    #[error("the time sale covers none of the nights")]
    SaleNotApplicable,
    /// The nights come to too little for the coupon.
    #[error("the coupon needs an order of {0}")]
    BelowMinimum(Krw),
    /// The coupon isn't for this region.
    #[error("the coupon is not for this region")]
    OtherRegion,
}

/// A night and what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = OrderNight)]
#[serde(rename_all = "camelCase")]
pub struct PricedNight {
    /// Which.
    pub date: Date,
    /// To be paid, before a coupon.
    pub amount: Krw,
    /// Without any discount.
    pub original_amount: Krw,
    /// Which discount made the difference.
    pub discount: Used,
}

/// Something that lowered the price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = OrderDiscount)]
#[serde(
    tag = "kind",
    rename_all = "SCREAMING_SNAKE_CASE",
    rename_all_fields = "camelCase"
)]
pub enum Lowered {
    /// The room type's own discount.
    Own {
        /// By how much.
        amount: Krw,
    },
    /// A time sale.
    TimeSale {
        /// By how much.
        amount: Krw,
        /// Which sale.
        time_sale_id: String,
        /// By which claim.
        claim_id: Uuid,
    },
    /// A coupon.
    Coupon {
        /// By how much.
        amount: Krw,
        /// Of which campaign.
        campaign_id: String,
        /// Which coupon.
        claim_id: Uuid,
    },
}

impl Lowered {
    /// The claim that it takes, if any.
    pub fn claim_id(&self) -> Option<Uuid> {
        match self {
            Self::Own { .. } => None,
            Self::TimeSale { claim_id, .. } | Self::Coupon { claim_id, .. } => Some(*claim_id),
        }
    }
}

/// What an order costs, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// To be paid.
    pub amount: Krw,
    /// Without any discount.
    pub original_amount: Krw,
    /// What lowered it. A claim that doesn't is not among them, and not taken.
    pub discounts: Vec<Lowered>,
    /// Every night.
    pub nights: Vec<PricedNight>,
}

impl Price {
    /// The claims that the order uses.
    pub fn claim_ids(&self) -> Vec<Uuid> {
        self.discounts
            .iter()
            .filter_map(Lowered::claim_id)
            .collect()
    }
}

/// The price of a quote's nights with what the guest has claimed.
pub fn price(
    quote: &Quote,
    dates: StayDates,
    sale: Option<&ClaimedDiscount>,
    coupon: Option<&ClaimedDiscount>,
) -> Result<Price, PricingError> {
    if !quote
        .nights
        .iter()
        .map(|night| night.date)
        .eq(dates.nights())
    {
        return Err(PricingError::OtherNights);
    }
    let covered = |night: Date| sale.filter(|sale| sale.covers(quote, night));
    if sale.is_some() && dates.nights().all(|night| covered(night).is_none()) {
        return Err(PricingError::SaleNotApplicable);
    }
    let costs: Vec<NightPrice> = quote
        .nights
        .iter()
        .map(|night| {
            let sale = covered(night.date).map(|sale| sale.discount.discount);
            lowest(night.price, night.own_discount, sale)
        })
        .collect();
    let stay = StayPrice::of(&costs).ok_or(PricingError::TooMuch)?;
    let off_by_coupon = coupon.map_or(Ok(Krw::ZERO), |coupon| off(coupon, quote, stay.amount))?;

    let mut discounts = Vec::new();
    if !stay.own_off.is_zero() {
        discounts.push(Lowered::Own {
            amount: stay.own_off,
        });
    }
    if let Some(sale) = sale.filter(|_| !stay.time_sale_off.is_zero()) {
        discounts.push(Lowered::TimeSale {
            amount: stay.time_sale_off,
            time_sale_id: sale.sale_id.clone(),
            claim_id: sale.claim_id,
        });
    }
    if let Some(coupon) = coupon.filter(|_| !off_by_coupon.is_zero()) {
        discounts.push(Lowered::Coupon {
            amount: off_by_coupon,
            campaign_id: coupon.sale_id.clone(),
            claim_id: coupon.claim_id,
        });
    }
    Ok(Price {
        amount: stay.amount.saturating_sub(off_by_coupon),
        original_amount: stay.original,
        discounts,
        nights: quote
            .nights
            .iter()
            .zip(&costs)
            .map(|(night, cost)| PricedNight {
                date: night.date,
                amount: cost.amount,
                original_amount: cost.original,
                discount: cost.used,
            })
            .collect(),
    })
}

fn off(coupon: &ClaimedDiscount, quote: &Quote, amount: Krw) -> Result<Krw, PricingError> {
    if let Some(least) = coupon.min_order_amount.filter(|least| amount < *least) {
        return Err(PricingError::BelowMinimum(least));
    }
    let regions = coupon.regions.as_deref().unwrap_or_default();
    if !regions.is_empty() && !regions.contains(&quote.region) {
        return Err(PricingError::OtherRegion);
    }
    Ok(coupon.discount.off(amount))
}

#[cfg(test)]
mod tests;
