//! The rules of holding rooms, without any I/O: what an order's command does, given its hold and the nights, and what
//! it is answered.
//!
//! Nothing here takes a room that isn't left, or is answered twice in two ways. A count that would become wrong is
//! never put right in passing: it is written as it comes out, and the database's checks refuse the transaction.

use std::collections::BTreeMap;

use events::planted::planted;
use events::saga::{BookingCommand, OrderId, OrderReply, RoomTypeId};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::nights::Nights;

/// What an order wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Whose the booking will be.
    pub user_id: Uuid,
    /// Which rooms.
    pub room_type_id: RoomTypeId,
    /// Which nights.
    pub nights: Nights,
    /// How many people.
    pub guests: i16,
    /// When the hold ends by itself.
    pub expires_at: OffsetDateTime,
}

/// Why nothing is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A night has no room left, or isn't offered at all.
    Unavailable,
    /// The command's dates or numbers can't be.
    Invalid,
    /// The order's hold was released before, or is over.
    Ended,
}

impl Refusal {
    /// The stable code that the order is told.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unavailable => "UNAVAILABLE",
            Self::Invalid => "INVALID_REQUEST",
            Self::Ended => "HOLD_ENDED",
        }
    }

    /// From its code.
    pub fn from_code(code: &str) -> Option<Self> {
        [Self::Unavailable, Self::Invalid, Self::Ended]
            .into_iter()
            .find(|refusal| refusal.code() == code)
    }
}

/// How a hold ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The order gave it up, or gave it up before it asked.
    Released,
    /// The order gave the booking up.
    Cancelled(Uuid),
    /// Its time was over.
    Expired,
    /// It never was.
    Refused(Refusal),
}

/// What became of an order's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// A room of each night is kept until the hold's end.
    Held(Terms),
    /// A room of each night is booked.
    Booked(Terms, Uuid),
    /// Nothing is reserved (any more). There is no way back.
    Ended(Option<Terms>, End),
}

impl Hold {
    /// What is reserved for it.
    pub fn active(&self) -> Option<Terms> {
        match self {
            Self::Held(terms) | Self::Booked(terms, _) => Some(*terms),
            Self::Ended(..) => None,
        }
    }

    /// The booking that was made of it, whatever became of that.
    pub fn booking(&self) -> Option<Uuid> {
        match self {
            Self::Booked(_, booking) | Self::Ended(_, End::Cancelled(booking)) => Some(*booking),
            Self::Held(_) | Self::Ended(..) => None,
        }
    }
}

/// A night of a room type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Night {
    /// What the host offers.
    pub offered: i32,
    /// What is held and booked.
    pub reserved: i32,
}

impl Night {
    /// What may be reserved: see the migration.
    pub fn allotment(self) -> i32 {
        self.offered.max(self.reserved)
    }

    /// Rooms left.
    pub fn left(self) -> i32 {
        self.allotment() - self.reserved
    }
}

/// A night's name.
pub type NightKey = (RoomTypeId, Date);

/// A command, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Hold a room of each night; an error where the message says nothing that could be held.
    Hold(OrderId, Result<Terms, Refusal>),
    /// Make a booking of the hold, with this id if there is none yet.
    Confirm(OrderId, Uuid),
    /// End it.
    Release(OrderId),
}

impl Command {
    /// Reads a message. `booking_id` is what a booking made by it will be called.
    pub fn read(message: &BookingCommand, booking_id: Uuid) -> Self {
        match message {
            BookingCommand::Confirm { order_id } => Self::Confirm(*order_id, booking_id),
            BookingCommand::Release { order_id } => Self::Release(*order_id),
            BookingCommand::Hold { order_id, .. } => {
                Self::Hold(*order_id, terms(message).ok_or(Refusal::Invalid))
            }
        }
    }

    /// What it wants to have held.
    pub fn terms(&self) -> Option<Terms> {
        match self {
            Self::Hold(_, terms) => terms.ok(),
            Self::Confirm(..) | Self::Release(_) => None,
        }
    }
}

fn terms(message: &BookingCommand) -> Option<Terms> {
    let BookingCommand::Hold {
        order_id: _,
        user_id,
        room_type_id,
        check_in,
        check_out,
        guests,
        expires_at_ms,
    } = message
    else {
        return None;
    };
    Some(Terms {
        user_id: *user_id,
        room_type_id: *room_type_id,
        nights: Nights::parse(check_in, check_out).ok()?,
        guests: i16::try_from(*guests).ok()?,
        expires_at: OffsetDateTime::from_unix_timestamp_nanos(
            i128::from(*expires_at_ms) * 1_000_000,
        )
        .ok()?,
    })
}

/// The holds and nights that some commands are about. What was loaded is kept beside what it became.
#[derive(Debug, Default)]
pub struct Desk {
    loaded: BTreeMap<OrderId, Hold>,
    holds: BTreeMap<OrderId, Hold>,
    nights: BTreeMap<NightKey, Night>,
    /// How many more (or fewer) rooms of a night are reserved than when it was loaded.
    moved: BTreeMap<NightKey, i32>,
}

/// A hold that is not as it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// Whose.
    pub order: OrderId,
    /// What it was; `None` if it is new.
    pub before: Option<Hold>,
    /// What it is.
    pub now: Hold,
}

impl Desk {
    /// With everything that the commands to come may touch: the holds of their orders, and the nights of those holds
    /// and of what is asked for. A night that isn't there isn't offered.
    pub fn new(
        holds: impl IntoIterator<Item = (OrderId, Hold)>,
        nights: impl IntoIterator<Item = (NightKey, Night)>,
    ) -> Self {
        let loaded: BTreeMap<_, _> = holds.into_iter().collect();
        Self {
            holds: loaded.clone(),
            loaded,
            nights: nights.into_iter().collect(),
            moved: BTreeMap::new(),
        }
    }

    /// Does what an order asks, and answers it.
    pub fn apply(&mut self, command: &Command) -> OrderReply {
        match *command {
            Command::Hold(order, terms) => self.hold(order, terms),
            Command::Confirm(order, booking) => self.confirm(order, booking),
            Command::Release(order) => self.release(order),
        }
    }

    fn hold(&mut self, order_id: OrderId, terms: Result<Terms, Refusal>) -> OrderReply {
        let refusal = match self.holds.get(&order_id).copied() {
            Some(Hold::Held(terms)) if planted("no-dedupe") => {
                self.reserve(&terms, 1);
                return OrderReply::Held { order_id };
            }
            Some(Hold::Held(_) | Hold::Booked(..)) => return OrderReply::Held { order_id },
            Some(Hold::Ended(_, End::Refused(refusal))) => refusal,
            Some(Hold::Ended(_, End::Released | End::Cancelled(_) | End::Expired)) => {
                Refusal::Ended
            }
            None => {
                let refusal = match terms {
                    Ok(terms) if self.all_left(&terms) => {
                        self.reserve(&terms, 1);
                        self.holds.insert(order_id, Hold::Held(terms));
                        return OrderReply::Held { order_id };
                    }
                    Ok(_) => Refusal::Unavailable,
                    Err(refusal) => refusal,
                };
                self.holds
                    .insert(order_id, Hold::Ended(terms.ok(), End::Refused(refusal)));
                refusal
            }
        };
        OrderReply::HoldRefused {
            order_id,
            code: refusal.code().to_owned(),
        }
    }

    fn confirm(&mut self, order_id: OrderId, new_booking: Uuid) -> OrderReply {
        let booking_id = match self.holds.get(&order_id) {
            // Its time may be over: as long as nobody has ended it, the rooms are kept and the guest gets them.
            Some(Hold::Held(terms)) => {
                let booked = Hold::Booked(*terms, new_booking);
                self.holds.insert(order_id, booked);
                new_booking
            }
            Some(Hold::Booked(_, booking)) => *booking,
            Some(Hold::Ended(..)) | None => return OrderReply::BookingRefused { order_id },
        };
        OrderReply::BookingConfirmed {
            order_id,
            booking_id,
        }
    }

    fn release(&mut self, order_id: OrderId) -> OrderReply {
        match self.holds.get(&order_id).copied() {
            Some(Hold::Held(terms)) => self.end(order_id, terms, End::Released),
            Some(Hold::Booked(terms, booking)) => {
                self.end(order_id, terms, End::Cancelled(booking))
            }
            Some(Hold::Ended(Some(terms), End::Released)) if planted("no-dedupe") => {
                self.reserve(&terms, -1);
            }
            Some(Hold::Ended(..)) => {}
            // Its hold may yet come, late: it will find this and be refused.
            None => {
                self.holds
                    .insert(order_id, Hold::Ended(None, End::Released));
            }
        }
        OrderReply::NightsReleased { order_id }
    }

    /// Ends a hold whose time is over; answers whether it was one.
    pub fn expire(&mut self, order: OrderId) -> bool {
        let Some(Hold::Held(terms)) = self.holds.get(&order).copied() else {
            return false;
        };
        self.end(order, terms, End::Expired);
        true
    }

    fn end(&mut self, order: OrderId, terms: Terms, end: End) {
        self.reserve(&terms, -1);
        self.holds.insert(order, Hold::Ended(Some(terms), end));
    }

    /// All nights or none: each of them has a room left.
    fn all_left(&self, terms: &Terms) -> bool {
        let left = |night| {
            self.nights
                .get(&(terms.room_type_id, night))
                .map_or(0, |night| night.left())
        };
        terms.nights.iter().all(|night| left(night) > 0)
    }

    fn reserve(&mut self, terms: &Terms, rooms: i32) {
        for date in terms.nights.iter() {
            let key = (terms.room_type_id, date);
            // A night that is held is there: nights are never removed.
            if let Some(night) = self.nights.get_mut(&key) {
                night.reserved += rooms;
            }
            *self.moved.entry(key).or_default() += rooms;
        }
    }

    /// The holds that are new or changed, by their orders.
    pub fn changed(&self) -> impl Iterator<Item = Changed> + '_ {
        self.holds.iter().filter_map(|(order, now)| {
            let before = self.loaded.get(order).copied();
            let changed = Changed {
                order: *order,
                before,
                now: *now,
            };
            (before != Some(*now)).then_some(changed)
        })
    }

    /// By how many rooms what is reserved of each night has changed, in the order of the nights.
    pub fn moved(&self) -> impl Iterator<Item = (NightKey, i32)> + '_ {
        self.moved
            .iter()
            .filter(|(_, rooms)| **rooms != 0)
            .map(|(key, rooms)| (*key, *rooms))
    }

    /// A night as it is now.
    pub fn night(&self, key: &NightKey) -> Option<Night> {
        self.nights.get(key).copied()
    }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
