//! What things cost, on real servers, all on this machine. Every figure that matters is a ratio of two figures of the
//! same run, since machines differ and are shared.

pub(crate) mod booking;
pub(crate) mod claims;
mod driver;
mod holds;
mod kafka;
mod latencies;
mod lock;
mod process;
mod promotions;
mod saga;
mod servers;
mod shop;
mod stage;

use std::ops::AddAssign;

/// What the figures that were compared with a goal came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Goals {
    met: usize,
    missed: usize,
}

impl AddAssign for Goals {
    fn add_assign(&mut self, more: Self) {
        self.met += more.met;
        self.missed += more.missed;
    }
}

impl Goals {
    /// The last line of a run of these parts. One that compared nothing doesn't say that anything was met.
    fn conclusion(self, parts: &[&str]) -> String {
        let parts = parts.join(" and ");
        match (self.met + self.missed, self.missed) {
            (0, _) => format!("{parts}: measured, and compared with no goal"),
            (1, 0) => format!("{parts}: the one goal was met"),
            (all, 0) => format!("{parts}: all {all} goals were met"),
            (all, missed) => format!("{parts}: {missed} of {all} goals MISSED"),
        }
    }
}

/// Prints whether a goal was met, and counts it.
fn verdict(met: bool) -> Goals {
    println!("    {}", if met { "met" } else { "MISSED" });
    Goals {
        met: usize::from(met),
        missed: usize::from(!met),
    }
}

/// Prints what was run and what its goals came to; answers how many were missed.
fn conclude(parts: &[&str], goals: Goals) -> usize {
    println!("{}", goals.conclusion(parts));
    goals.missed
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_what_was_run_and_what_was_compared() {
        let goals = |met, missed| Goals { met, missed };
        for (parts, goals, line) in [
            (
                &["orders"][..],
                goals(0, 0),
                "orders: measured, and compared with no goal",
            ),
            (&["holds"], goals(1, 0), "holds: the one goal was met"),
            (
                &["holds", "orders"],
                goals(2, 0),
                "holds and orders: all 2 goals were met",
            ),
            (&["claims"], goals(5, 1), "claims: 1 of 6 goals MISSED"),
        ] {
            assert_eq!(goals.conclusion(parts), line);
        }
    }
}
