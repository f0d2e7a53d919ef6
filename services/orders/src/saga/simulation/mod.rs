//! A million orders under everything that can go wrong, by seeds.
//!
//! Each seed is a small world: some orders that compete for the rooms of a few nights and for a few claims, with model
//! services that keep nights, discounts and money. Messages are lost and sent again, repeated, replayed and reordered
//! across topics; whoever receives one dies before or after it commits; the gateway refuses, doesn't answer, or answers
//! when the order is long over; guests cancel and time passes at any moment. At the end everything drains, and what
//! must be true of orders, nights, discounts and money is checked.
//!
//! `QUOKKA_SAGA_ORDERS` says how many orders, `QUOKKA_SAGA_SEED` replays one world and prints what happened in it.

mod channel;
mod checks;
mod planted;
mod seen;
mod services;
mod world;

use std::sync::atomic::{AtomicBool, Ordering};

use planted::Planted;
use world::{ORDERS_PER_WORLD, World};

/// How many orders the suite tries.
const ORDERS: u64 = 1_000_000;

/// Worlds in which a planted bug must show.
const WORLDS_TO_FIND_A_BUG: u64 = 5_000;

/// A small generator of its own: a seed means the same world with every version of every library.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// SplitMix64 by Sebastiano Vigna.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `below - 1`.
    fn below(&mut self, below: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(below)) >> 64) as u64
    }

    /// True so many times in a hundred.
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What went wrong in a world, with everything that happened in it.
fn replay(seed: u64, planted: Option<Planted>) -> (Result<(), String>, String) {
    let mut world = World::new(seed, planted, true);
    let result = world.run();
    (result, world.story())
}

/// Runs the worlds of a range on all processors; the first seed that fails.
fn first_failure(worlds: u64, planted: Option<Planted>) -> Option<u64> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let found = AtomicBool::new(false);
    let run = |thread: u64| {
        let mut world = World::new(0, planted, false);
        (thread..worlds)
            .step_by(threads as usize)
            .take_while(|_| !found.load(Ordering::Relaxed))
            .find(|seed| {
                world.reset(*seed);
                let failed = world.run().is_err();
                if failed {
                    found.store(true, Ordering::Relaxed);
                }
                failed
            })
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().expect("a world never panics"))
            .min()
    })
}

#[test]
fn a_million_orders_end_well_whatever_happens() {
    if let Some(seed) = setting("QUOKKA_SAGA_SEED") {
        let (result, story) = replay(seed, None);
        println!("{story}");
        result.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        return;
    }
    let orders = setting("QUOKKA_SAGA_ORDERS").unwrap_or(ORDERS);
    if let Some(seed) = first_failure(orders.div_ceil(ORDERS_PER_WORLD as u64), None) {
        let (result, story) = replay(seed, None);
        panic!("{story}\nseed {seed}: {result:?}\nreplay it with QUOKKA_SAGA_SEED={seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..20 {
        assert_eq!(replay(seed, None), replay(seed, None), "seed {seed}");
        let mut used = World::new(seed + 1, None, true);
        used.run().expect("seeds pass");
        used.reset(seed);
        used.run().expect("seeds pass");
        assert_eq!(
            used.story(),
            replay(seed, None).1,
            "seed {seed} in a used world"
        );
    }
}

#[test]
fn every_planted_bug_is_found() {
    let missed: Vec<Planted> = Planted::ALL
        .into_iter()
        .filter(|planted| first_failure(WORLDS_TO_FIND_A_BUG, Some(*planted)).is_none())
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn the_worlds_see_every_end_and_every_race() {
    let mut seen = seen::Seen::default();
    for seed in 0..600 {
        let mut world = World::new(seed, None, false);
        world.run().expect("seeds pass");
        seen.add(&world.seen);
    }
    let counts = seen.counts();
    assert!(counts.iter().all(|(_, count)| *count > 20), "{counts:?}");
}
