//! The runs of a sale under each fault; and the proof that the checker can fail.

use clap::ValueEnum;
use jiff::SignedDuration;

use crate::checker::{Ending, ViolationKind};
use crate::faults::{Disturbed, Fault};
use crate::platform::{Kind, Platform};
use crate::sale_run::{self, Report, Run, Size, WINDOW};

/// Slow enough that a fault comes while there is stock.
const CALLS_PER_SECOND: f64 = 300.0;

/// A window that ends while guests still ask.
const SHORT_WINDOW: SignedDuration = SignedDuration::from_secs(15);

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Plan {
    /// Only these faults; all by default.
    #[arg(long = "fault", value_enum)]
    faults: Vec<Fault>,
    /// The platform runs with a planted bug: every run must find this violation.
    #[arg(long, value_enum)]
    expect: Option<ViolationKind>,
}

/// Runs a coupon campaign under each fault, and sales that end, expire and are given back under some. Returns how many
/// runs were not as they must be.
pub(crate) async fn run(platform: &Platform, size: Size, plan: &Plan) -> anyhow::Result<usize> {
    let runs = runs(size, plan);
    let total = runs.len();
    let mut failed = 0;
    for (turn, (run, fault)) in runs.into_iter().enumerate() {
        println!(
            "[{}/{total}] {:?} under {fault:?}{}",
            turn + 1,
            run.kind,
            if run.ending == Ending::Open {
                ", with claims and the sale coming to their ends"
            } else {
                ""
            }
        );
        let disturbance = Disturbed {
            fault,
            after_claims: size.stock / 5,
            stock: run.size.stock,
        };
        let as_it_must_be = match sale_run::run(platform, &run, &disturbance).await {
            Ok(report) => {
                report.print();
                let good = judge(&report, plan.expect);
                if let Err(error) = platform.remove(&report.sale).await {
                    println!("  the sale could not be removed: {error:#}");
                    false
                } else {
                    good
                }
            }
            Err(error) => {
                println!("  the run itself failed: {error:#}");
                false
            }
        };
        println!(
            "  {}",
            if as_it_must_be {
                "as it must be"
            } else {
                "NOT as it must be"
            }
        );
        failed += usize::from(!as_it_must_be);
    }
    Ok(failed)
}

fn judge(report: &Report, expected: Option<ViolationKind>) -> bool {
    match expected {
        None => report.violations.is_empty(),
        Some(kind) => report
            .violations
            .iter()
            .any(|violation| violation.kind() == kind),
    }
}

fn runs(size: Size, plan: &Plan) -> Vec<(Run, Fault)> {
    let faults = if plan.faults.is_empty() {
        let all = Fault::value_variants().iter().copied();
        all.filter(|fault| *fault != Fault::Nothing).collect()
    } else {
        plan.faults.clone()
    };
    let sold_out = Run {
        kind: Kind::CouponCampaign,
        size,
        calls_per_second: Some(CALLS_PER_SECOND),
        window: WINDOW,
        claim_ttl: "2h",
        give_back_every: None,
        ending: Ending::SoldOut,
    };
    let mut runs: Vec<_> = faults
        .iter()
        .map(|fault| (sold_out.clone(), *fault))
        .collect();
    if plan.expect.is_some() {
        return runs;
    }
    let time_sale = Run {
        kind: Kind::TimeSale,
        ..sold_out.clone()
    };
    let coming_back = Run {
        // Longer than a return takes to be read, faults included: a return that is lost shows.
        claim_ttl: "40s",
        give_back_every: Some(5),
        ending: Ending::Open,
        ..time_sale.clone()
    };
    let ending = Run {
        size: Size {
            stock: size.guests,
            ..size
        },
        window: SHORT_WINDOW,
        ending: Ending::Open,
        ..sold_out
    };
    for (run, fault) in [
        (time_sale, Fault::RedisFlushed),
        (coming_back, Fault::ConsumerKilled),
        (ending, Fault::OperatorDead),
    ] {
        if faults.contains(&fault) {
            runs.push((run, fault));
        }
    }
    runs
}
