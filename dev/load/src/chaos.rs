//! The run of a sale under each fault; and the proof that the checker can fail.

use clap::ValueEnum;

use crate::faults::{Disturbed, Fault};
use crate::platform::{Kind, Platform};
use crate::sale_run::{self, Size};

/// Slow enough that a fault comes while there is stock.
const CALLS_PER_SECOND: f64 = 1_000.0;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Plan {
    /// Only these faults; all by default.
    #[arg(long = "fault", value_enum)]
    faults: Vec<Fault>,
    /// The platform runs with a planted bug: the runs must find violations.
    #[arg(long)]
    expect_violations: bool,
}

/// Runs a coupon campaign under each fault, and a time sale under a flush. Returns how many runs were not as they must be.
pub(crate) async fn run(platform: &Platform, size: Size, plan: &Plan) -> anyhow::Result<usize> {
    let faults = if plan.faults.is_empty() {
        Fault::value_variants().to_vec()
    } else {
        plan.faults.clone()
    };
    let mut runs: Vec<_> = faults
        .iter()
        .map(|fault| (Kind::CouponCampaign, *fault))
        .collect();
    if faults.contains(&Fault::RedisFlushed) && !plan.expect_violations {
        runs.push((Kind::TimeSale, Fault::RedisFlushed));
    }
    let total = runs.len();
    let mut failed = 0;
    for (turn, (kind, fault)) in runs.into_iter().enumerate() {
        println!("[{}/{total}] {kind:?} under {fault:?}", turn + 1);
        let disturbance = Disturbed {
            fault,
            after_claims: size.stock * 2 / 5,
        };
        let report =
            sale_run::run(platform, kind, size, Some(CALLS_PER_SECOND), &disturbance).await?;
        report.print();
        println!(
            "  served again {:.1} s after the last answer before the fault at the latest",
            report.longest_silence().as_secs_f64()
        );
        let as_it_must_be = report.violations.is_empty() != plan.expect_violations;
        println!(
            "  {}",
            if as_it_must_be {
                "as it must be"
            } else {
                "NOT as it must be"
            }
        );
        failed += usize::from(!as_it_must_be);
        platform.remove(&report.sale).await?;
    }
    Ok(failed)
}
