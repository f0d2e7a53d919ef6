//! Where a record goes.

use sale_stock::UserId;
use xxhash_rust::xxh3::xxh3_64;

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

/// The topic of a sale's log.
pub fn claims_topic(namespace: &str, name: &str) -> String {
    format!("quokka.claims.{namespace}.{name}")
}

/// The partition of a user's records: XXH3 (64 bits, seed 0) of the 16 bytes of his id in network order,
/// modulo the partitions that the gate's epoch was opened with. All records about a user's claims of one
/// epoch are thereby in one order.
///
/// # Panics
/// If there are no partitions.
pub fn partition_of(user: UserId, partitions: u32) -> Partition {
    assert!(partitions > 0, "a topic has at least one partition");
    let partition = xxh3_64(user.0.as_bytes()) % u64::from(partitions);
    // Kafka numbers partitions with positive 32-bit integers.
    Partition(i32::try_from(partition).unwrap_or(i32::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sale_has_a_topic_of_its_own() {
        assert_eq!(claims_topic("quokka", "jeju"), "quokka.claims.quokka.jeju");
    }

    /// From the reference implementation, xxHash 0.8.3: `XXH3_64bits` of the id's bytes, modulo 1, 3, 7 and 12. If
    /// one of these changes, claims and voids of one user part ways in every log there is.
    #[test]
    fn a_users_partition_never_changes() {
        let vectors = [
            ("00000000-0000-0000-0000-000000000000", [0, 2, 4, 8]),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", [0, 1, 0, 7]),
            ("0190b3a4-7c1e-7f00-8000-00000000002a", [0, 2, 1, 2]),
            ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", [0, 0, 2, 6]),
        ];
        for (user, expected) in vectors {
            let user: UserId = user.parse().unwrap();
            let partitions = [1, 3, 7, 12].map(|partitions| partition_of(user, partitions).0);
            assert_eq!(partitions, expected, "{user}");
        }
    }
}
