//! Where servers keep their data: in memory, which is what tests want, or on the disk, which is what measurements want.

use std::sync::atomic::{AtomicBool, Ordering};

static DURABLE: AtomicBool = AtomicBool::new(false);

/// From now on servers keep their data on the disk, and PostgreSQL waits for it, as in production. To be called before
/// the first server starts.
pub fn keep_data_on_disk() {
    DURABLE.store(true, Ordering::Relaxed);
}

/// Whether data lies on the disk.
pub(crate) fn is_durable() -> bool {
    DURABLE.load(Ordering::Relaxed)
}
