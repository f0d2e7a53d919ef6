//! What a time sale takes off, told to those who show prices: in Redis from the moment the sale is known until it ends,
//! so that prices change at its start and its end without the operator. Written again with every look, since Redis may
//! lose it.

use quokka_crds::{Phase, SaleStatus};
use sale_stock::{
    StockError,
    books::SaleKind,
    discounts::{Discounts, SaleDiscount},
};

use crate::{observed::LedgerState, sale::Sale};

/// What is to be told of a sale.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// This is taken off.
    Put(SaleDiscount),
    /// Nothing is, now.
    Remove,
    /// What was told before still holds, or there never was anything.
    Nothing,
}

impl Telling {
    /// Of a sale whose status has become `status`. While nobody can claim a unit there is no discount: a price that
    /// nobody gets is not shown. Nor is one of terms that the ledger hasn't taken: until then guests meet those before.
    /// A sale that isn't in place yet has none, and a campaign never does.
    pub(crate) fn of(sale: &Sale, status: &SaleStatus, ledger: &LedgerState) -> Self {
        let definition = &sale.definition;
        let Some(target) = &definition.target else {
            return Self::Nothing;
        };
        if definition.kind != SaleKind::TimeSale || status.topic.is_none() {
            return Self::Nothing;
        }
        match status.phase {
            Some(Phase::Scheduled | Phase::Warming | Phase::Active | Phase::Recovering) => {}
            _ => return Self::Remove,
        }
        if matches!(
            ledger,
            LedgerState::NotTold(_) | LedgerState::Refused { .. }
        ) {
            return Self::Nothing;
        }
        Self::Put(SaleDiscount {
            sale_id: definition.name.clone(),
            discount: definition.discount.clone(),
            target: target.clone(),
            stay_dates: definition.stay_dates.clone(),
            starts_at: definition.starts,
            ends_at: definition.ends,
        })
    }

    /// Tells it of the sale called `name`.
    ///
    /// # Errors
    ///
    /// Redis doesn't answer; the next look tries again.
    pub(crate) async fn tell(&self, discounts: &Discounts, name: &str) -> Result<(), StockError> {
        match self {
            Self::Put(discount) => discounts.put(discount).await,
            Self::Remove => discounts.remove(name).await,
            Self::Nothing => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{books, sale};

    fn status(phase: Phase) -> SaleStatus {
        SaleStatus {
            phase: Some(phase),
            topic: Some(sale().definition.topic),
            ..SaleStatus::default()
        }
    }

    #[test]
    fn a_discount_is_told_while_a_unit_can_be_had_or_will_be() {
        let taken = LedgerState::Applied(books(7));
        let of = |phase| Telling::of(&sale(), &status(phase), &taken);
        for phase in [
            Phase::Scheduled,
            Phase::Warming,
            Phase::Active,
            Phase::Recovering,
        ] {
            assert!(matches!(of(phase), Telling::Put(_)), "{phase:?}");
        }
        for phase in [Phase::SoldOut, Phase::Paused, Phase::Ended] {
            assert_eq!(of(phase), Telling::Remove, "{phase:?}");
        }
        let nowhere = SaleStatus {
            topic: None,
            ..status(Phase::Active)
        };
        assert_eq!(Telling::of(&sale(), &nowhere, &taken), Telling::Nothing);
        let mut campaign = sale();
        campaign.definition.kind = SaleKind::CouponCampaign;
        assert_eq!(
            Telling::of(&campaign, &status(Phase::Active), &taken),
            Telling::Nothing
        );
    }

    #[test]
    fn terms_that_the_ledger_has_not_taken_are_not_told() {
        let refused = LedgerState::Refused {
            books: Some(books(7)),
            reason: crate::reasons::DEFINITION_REFUSED,
            message: "TERMS_FIXED".to_owned(),
        };
        let not_told = LedgerState::NotTold(Some(books(7)));
        for ledger in [refused, not_told] {
            let of = |phase| Telling::of(&sale(), &status(phase), &ledger);
            assert_eq!(of(Phase::Active), Telling::Nothing, "{ledger:?}");
            assert_eq!(of(Phase::SoldOut), Telling::Remove, "{ledger:?}");
        }
        let silent = LedgerState::Unreachable("gone".to_owned());
        let told = Telling::of(&sale(), &status(Phase::Active), &silent);
        assert!(matches!(told, Telling::Put(_)), "Redis may have lost it");
    }
}
