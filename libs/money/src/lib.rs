//! Money: KRW amounts, discounts and the lowest-price rule.
//!
//! Everything is whole won, and nothing here is ever a float. The one rule of rounding: what a percentage takes off
//! is `price * percent / 100` rounded **down** to a whole won, so a guest never gets more than the percentage says and
//! the price is what remains. A stay is rounded night by night, not on its sum: each night's price is one that a guest
//! can check, and the sum of the nights is what is charged.

mod discount;
mod krw;
mod price;

pub use discount::{CouponDiscount, Discount, Percent, PercentError};
pub use krw::{Krw, KrwError};
pub use price::{NightPrice, StayPrice, Used, lowest};
