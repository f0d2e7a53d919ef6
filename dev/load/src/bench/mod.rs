//! What things cost, on real servers, all on this machine. Every figure that matters is a ratio of two figures of the
//! same run, since machines differ and are shared.

pub(crate) mod booking;
pub(crate) mod claims;
mod driver;
mod holds;
mod kafka;
mod lock;
mod process;
mod promotions;
mod saga;
mod servers;
mod shop;
mod stage;

/// Prints whether a goal was met; answers how many were missed.
fn verdict(met: bool) -> usize {
    println!("    {}", if met { "met" } else { "MISSED" });
    usize::from(!met)
}

/// Prints what all goals came to.
fn conclude(missed: usize) {
    if missed == 0 {
        println!("every goal was met");
    } else {
        println!("{missed} goals were MISSED");
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
