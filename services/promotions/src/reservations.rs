//! The rules of keeping claims for orders, without any I/O: what an order's command does, given what the order has asked
//! before and the claims, and what it is answered.
//!
//! A claim is kept for one order or used by one, never by two. Nothing here ends a claim or frees its unit: a reserved
//! claim doesn't expire, and one that is released is again what it was, so that the ledger's own expiry ends it if its
//! time is over, once.

use std::collections::{BTreeMap, BTreeSet};

use events::saga::{DiscountCommand, OrderId, OrderReply};
use sale_stock::books::SaleKind;
use sale_stock::{ClaimId, UserId};

/// Why nothing is kept, or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The guest has no such claim.
    NotFound,
    /// It was given back, or its time is over.
    Ended,
    /// Another order keeps it, or has used it.
    Taken,
    /// The order's reservation was released before.
    Released,
    /// The order keeps no claim that it could use.
    NotReserved,
    /// The command names no claim.
    Invalid,
}

impl Refusal {
    const ALL: [Self; 6] = [
        Self::NotFound,
        Self::Ended,
        Self::Taken,
        Self::Released,
        Self::NotReserved,
        Self::Invalid,
    ];

    /// The stable code that the order is told.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotFound => "CLAIM_NOT_FOUND",
            Self::Ended => "CLAIM_ENDED",
            Self::Taken => "CLAIM_TAKEN",
            Self::Released => "RESERVATION_RELEASED",
            Self::NotReserved => "NOT_RESERVED",
            Self::Invalid => "INVALID_REQUEST",
        }
    }

    /// From its code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }
}

/// What became of an order's wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reservation {
    /// The claims are kept for the order.
    Reserved(BTreeSet<ClaimId>),
    /// The order has used them.
    Redeemed(BTreeSet<ClaimId>),
    /// These are their guest's again; none, if the order gave up before it asked. There is no way back.
    Released(BTreeSet<ClaimId>),
    /// Nothing was kept. There is no way back.
    Refused(Refusal),
}

impl Reservation {
    /// The claims that it is or was about.
    pub fn claims(&self) -> impl Iterator<Item = ClaimId> + '_ {
        let claims = match self {
            Self::Reserved(claims) | Self::Redeemed(claims) | Self::Released(claims) => {
                Some(claims)
            }
            Self::Refused(_) => None,
        };
        claims.into_iter().flatten().copied()
    }
}

/// Where a claim stands, as far as orders go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its guest's, to be used.
    Free,
    /// Kept for an order.
    Reserved(OrderId),
    /// Used by an order.
    Used(OrderId),
    /// Given back or expired.
    Ended,
}

/// A claim of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Whose.
    pub user: UserId,
    /// Of what.
    pub kind: SaleKind,
    /// Where it stands.
    pub standing: Standing,
    /// Its time is over, whether or not it has ended already.
    pub over: bool,
}

impl Claim {
    fn refusal(&self, user: UserId) -> Option<Refusal> {
        if self.user != user {
            // Whether there is such a claim is nobody else's business.
            return Some(Refusal::NotFound);
        }
        match self.standing {
            Standing::Free if self.over => Some(Refusal::Ended),
            Standing::Free => None,
            Standing::Reserved(_) | Standing::Used(_) => Some(Refusal::Taken),
            Standing::Ended => Some(Refusal::Ended),
        }
    }
}

/// A claim that is not as it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Which.
    pub claim: ClaimId,
    /// As it was loaded.
    pub before: Claim,
    /// As it is.
    pub now: Claim,
}

/// The reservations and claims that some commands are about. What was loaded is kept beside what it became.
#[derive(Debug, Default)]
pub struct Desk {
    loaded: BTreeMap<OrderId, Reservation>,
    reservations: BTreeMap<OrderId, Reservation>,
    loaded_claims: BTreeMap<ClaimId, Claim>,
    claims: BTreeMap<ClaimId, Claim>,
}

impl Desk {
    /// With everything that the commands to come may touch: the reservations of their orders, and the claims of those
    /// and of what is asked for. A claim that isn't there is none.
    pub fn new(
        reservations: impl IntoIterator<Item = (OrderId, Reservation)>,
        claims: impl IntoIterator<Item = (ClaimId, Claim)>,
    ) -> Self {
        let loaded: BTreeMap<_, _> = reservations.into_iter().collect();
        let loaded_claims: BTreeMap<_, _> = claims.into_iter().collect();
        Self {
            reservations: loaded.clone(),
            loaded,
            claims: loaded_claims.clone(),
            loaded_claims,
        }
    }

    /// Does what an order asks, and answers it.
    pub fn apply(&mut self, command: &DiscountCommand) -> OrderReply {
        match command {
            DiscountCommand::Reserve {
                order_id,
                user_id,
                claim_ids,
            } => {
                let claims = claim_ids.iter().copied().map(ClaimId).collect();
                self.reserve(*order_id, UserId(*user_id), claims)
            }
            DiscountCommand::Redeem { order_id } => self.redeem(*order_id),
            DiscountCommand::Release { order_id } => self.release(*order_id),
        }
    }

    fn reserve(
        &mut self,
        order_id: OrderId,
        user: UserId,
        claims: BTreeSet<ClaimId>,
    ) -> OrderReply {
        let refusal = match self.reservations.get(&order_id) {
            Some(Reservation::Reserved(_) | Reservation::Redeemed(_)) => {
                return OrderReply::DiscountReserved { order_id };
            }
            Some(Reservation::Refused(refusal)) => *refusal,
            Some(Reservation::Released(_)) => Refusal::Released,
            None => match self.refusal(user, &claims) {
                None => {
                    self.move_all(&claims, Standing::Free, Standing::Reserved(order_id));
                    self.reservations
                        .insert(order_id, Reservation::Reserved(claims));
                    return OrderReply::DiscountReserved { order_id };
                }
                Some(refusal) => {
                    self.reservations
                        .insert(order_id, Reservation::Refused(refusal));
                    refusal
                }
            },
        };
        refused(order_id, refusal)
    }

    /// All claims or none: why any of them can't be kept.
    fn refusal(&self, user: UserId, claims: &BTreeSet<ClaimId>) -> Option<Refusal> {
        if claims.is_empty() {
            return Some(Refusal::Invalid);
        }
        claims.iter().find_map(|id| {
            let claim = self.claims.get(id);
            claim.map_or(Some(Refusal::NotFound), |claim| claim.refusal(user))
        })
    }

    fn redeem(&mut self, order_id: OrderId) -> OrderReply {
        match self.reservations.get(&order_id).cloned() {
            // However late: what is kept stays kept until its order lets go of it.
            Some(Reservation::Reserved(claims)) => {
                let (from, to) = (Standing::Reserved(order_id), Standing::Used(order_id));
                self.move_all(&claims, from, to);
                self.reservations
                    .insert(order_id, Reservation::Redeemed(claims));
            }
            Some(Reservation::Redeemed(_)) => {}
            Some(Reservation::Released(_) | Reservation::Refused(_)) | None => {
                return refused(order_id, Refusal::NotReserved);
            }
        }
        OrderReply::DiscountRedeemed { order_id }
    }

    /// Lets go of the claims, also of used ones: an order that was confirmed may be cancelled.
    fn release(&mut self, order_id: OrderId) -> OrderReply {
        let (claims, from) = match self.reservations.get(&order_id).cloned() {
            Some(Reservation::Reserved(claims)) => (claims, Standing::Reserved(order_id)),
            Some(Reservation::Redeemed(claims)) => (claims, Standing::Used(order_id)),
            // What it releases may yet come, late: it will find this and be refused.
            None => (BTreeSet::new(), Standing::Reserved(order_id)),
            Some(Reservation::Released(_) | Reservation::Refused(_)) => {
                return OrderReply::DiscountReleased { order_id };
            }
        };
        self.move_all(&claims, from, Standing::Free);
        self.reservations
            .insert(order_id, Reservation::Released(claims));
        OrderReply::DiscountReleased { order_id }
    }

    fn move_all(&mut self, claims: &BTreeSet<ClaimId>, from: Standing, to: Standing) {
        for id in claims {
            let claim = self.claims.get_mut(id);
            debug_assert!(
                claim.as_ref().is_some_and(|claim| claim.standing == from),
                "{id} is {claim:?} and not {from:?}"
            );
            // One that isn't the order's stays whose it is.
            if let Some(claim) = claim.filter(|claim| claim.standing == from) {
                claim.standing = to;
            }
        }
    }

    /// The reservations that are new or changed, by their orders.
    pub fn changed(&self) -> impl Iterator<Item = (OrderId, &Reservation)> {
        self.reservations
            .iter()
            .filter(|(order, now)| self.loaded.get(*order) != Some(*now))
            .map(|(order, now)| (*order, now))
    }

    /// Whether the order had no reservation when the desk was loaded.
    pub fn is_new(&self, order: OrderId) -> bool {
        !self.loaded.contains_key(&order)
    }

    /// The claims that are not as they were, by their ids.
    pub fn moved(&self) -> impl Iterator<Item = Moved> + '_ {
        self.claims.iter().filter_map(|(claim, now)| {
            let before = *self.loaded_claims.get(claim)?;
            (before != *now).then_some(Moved {
                claim: *claim,
                before,
                now: *now,
            })
        })
    }
}

fn refused(order_id: OrderId, refusal: Refusal) -> OrderReply {
    OrderReply::DiscountRefused {
        order_id,
        code: refusal.code().to_owned(),
    }
}

#[cfg(test)]
mod tests;
