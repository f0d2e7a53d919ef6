//! Numbers that look random and are the same for the same seed, on every machine and in every version: SplitMix64
//! (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).

use uuid::Uuid;

/// A sequence of numbers.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence of one thing among those of a seed: no other thing's numbers move when it takes more or fewer.
    pub(super) fn of(seed: u64, thing: u64) -> Self {
        let mut random = Self(seed);
        Self(random.next() ^ thing.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `end - 1`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// From `first` to `last`, both included.
    pub(super) fn between(&mut self, first: i64, last: i64) -> i64 {
        let span = last.abs_diff(first) + 1;
        first.saturating_add_unsigned(self.below(span))
    }

    /// True so many times in a hundred.
    pub(super) fn percent(&mut self, of: u64) -> bool {
        self.below(100) < of
    }

    /// From 0 to just below 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len() as u64) as usize]
    }

    /// A version 4 UUID.
    pub(super) fn uuid(&mut self) -> Uuid {
        let bytes = (u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_never_change() {
        let mut random = Random(1_234_567);
        let first = [random.next(), random.next(), random.next()];
        // From the reference implementation.
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::of(1, 2);
        for _ in 0..1_000 {
            assert!((-3..=7).contains(&random.between(-3, 7)));
            assert!((0.0..1.0).contains(&random.unit()));
        }
        assert_eq!(random.uuid().get_version_num(), 4);
    }
}
