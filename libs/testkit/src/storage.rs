//! How servers are set up: small and quick to start, which is what tests want, or as in production, which is what
//! measurements want.

use std::sync::atomic::{AtomicBool, Ordering};

static DURABLE: AtomicBool = AtomicBool::new(false);
static UNDER_LOAD: AtomicBool = AtomicBool::new(false);

/// From now on servers keep their data on the disk, and PostgreSQL waits for it, as in production. To be called before
/// the first server starts.
pub fn keep_data_on_disk() {
    DURABLE.store(true, Ordering::Relaxed);
}

/// From now on servers start slower and run faster, as in production. To be called before the first server starts.
pub fn set_up_for_load() {
    UNDER_LOAD.store(true, Ordering::Relaxed);
}

/// Whether data lies on the disk.
pub(crate) fn is_durable() -> bool {
    DURABLE.load(Ordering::Relaxed)
}

/// Whether servers are there to be measured.
pub(crate) fn is_for_load() -> bool {
    UNDER_LOAD.load(Ordering::Relaxed)
}
