//! The saga as a list, each step beside its compensation.

use std::ops::{Index, IndexMut};

/// What another service is asked. Asking again has no further effect there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `booking`: hold the nights.
    HoldNights,
    /// `booking`: turn the hold into a booking.
    ConfirmBooking,
    /// `booking`: end hold or booking.
    ReleaseNights,
    /// `promotions`: keep the claims for the order.
    ReserveDiscount,
    /// `promotions`: the claims are used.
    RedeemDiscount,
    /// `promotions`: the claims are their guest's again.
    ReleaseDiscount,
    /// `payments`: give money back.
    Refund,
}

/// How a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// By asking for it.
    Ask(Command),
    /// By the guest, in time or not at all.
    Await,
}

/// How a step is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compensation {
    /// By asking for it.
    Ask(Command),
    /// By what undoes an earlier step.
    With(StepName),
}

/// A step of the saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: StepName,
    /// What it is.
    pub action: Action,
    /// What undoes it, also when it isn't known whether it was done.
    pub compensation: Compensation,
}

/// The saga. A step begins when all before it are done; when one is refused, those before it are undone, last first.
pub const STEPS: [Plan; 5] = [
    Plan {
        name: StepName::HoldNights,
        action: Action::Ask(Command::HoldNights),
        compensation: Compensation::Ask(Command::ReleaseNights),
    },
    Plan {
        name: StepName::ReserveDiscount,
        action: Action::Ask(Command::ReserveDiscount),
        compensation: Compensation::Ask(Command::ReleaseDiscount),
    },
    Plan {
        name: StepName::TakePayment,
        action: Action::Await,
        compensation: Compensation::Ask(Command::Refund),
    },
    Plan {
        name: StepName::ConfirmBooking,
        action: Action::Ask(Command::ConfirmBooking),
        compensation: Compensation::With(StepName::HoldNights),
    },
    Plan {
        name: StepName::RedeemDiscount,
        action: Action::Ask(Command::RedeemDiscount),
        compensation: Compensation::With(StepName::ReserveDiscount),
    },
];

/// The steps by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepName {
    /// Room nights are held.
    HoldNights,
    /// The claims are kept for the order.
    ReserveDiscount,
    /// The guest pays.
    TakePayment,
    /// The hold becomes a booking.
    ConfirmBooking,
    /// The claims are used.
    RedeemDiscount,
}

impl StepName {
    /// All of them, in the order of [`STEPS`].
    pub const ALL: [Self; 5] = [
        Self::HoldNights,
        Self::ReserveDiscount,
        Self::TakePayment,
        Self::ConfirmBooking,
        Self::RedeemDiscount,
    ];

    /// Its place in [`STEPS`].
    pub fn plan(self) -> &'static Plan {
        &STEPS[self as usize]
    }
}

/// How far a step is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Progress {
    /// Not begun.
    #[default]
    Todo,
    /// The order needs no such step.
    Skipped,
    /// Asked for, or a payment under way: what came of it isn't known.
    Asked,
    /// Done.
    Done,
    /// It can't be done, and nothing is left of it.
    Refused,
    /// Its compensation is asked for.
    Undoing,
    /// Its compensation was refused, and waits for a person.
    UndoRefused,
    /// Nothing is left of it.
    Undone,
}

impl Progress {
    const ALL: [Self; 8] = [
        Self::Todo,
        Self::Skipped,
        Self::Asked,
        Self::Done,
        Self::Refused,
        Self::Undoing,
        Self::UndoRefused,
        Self::Undone,
    ];

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Todo => "TODO",
            Self::Skipped => "SKIPPED",
            Self::Asked => "ASKED",
            Self::Done => "DONE",
            Self::Refused => "REFUSED",
            Self::Undoing => "UNDOING",
            Self::UndoRefused => "UNDO_REFUSED",
            Self::Undone => "UNDONE",
        }
    }

    /// From [`Progress::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|progress| progress.as_str() == text)
    }
}

/// How far each step is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps([Progress; 5]);

impl Steps {
    /// The first step that is neither done nor left out; `None` if there is none.
    pub fn first_unfinished(&self) -> Option<StepName> {
        StepName::ALL
            .into_iter()
            .find(|name| !matches!(self[*name], Progress::Done | Progress::Skipped))
    }
}

impl Index<StepName> for Steps {
    type Output = Progress;

    fn index(&self, name: StepName) -> &Progress {
        &self.0[name as usize]
    }
}

impl IndexMut<StepName> for Steps {
    fn index_mut(&mut self, name: StepName) -> &mut Progress {
        &mut self.0[name as usize]
    }
}
