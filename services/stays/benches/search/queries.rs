//! What guests look for: mostly a region, a weekend soon, two people, the cheapest first.

use std::fmt::Write as _;

use stays::calendar::Day;
use stays::stay::{Amenity, Region};

/// Small and repeatable: xorshift (Marsaglia, 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn percent(&mut self, of: usize) -> bool {
        self.below(100) < of
    }

    fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

/// Most guests go to these.
const POPULAR: [Region; 5] = [
    Region::Jeju,
    Region::Seoul,
    Region::Gangwon,
    Region::Busan,
    Region::Gyeonggi,
];

const WORDS: [&str; 8] = [
    "%ED%98%B8%ED%85%94",
    "ocean",
    "%EB%B0%94%EB%8B%A4",
    "pension",
    "%ED%95%9C%EC%98%A5",
    "pool+villa",
    "%ED%8E%9C%EC%85%98",
    "star",
];

/// So many paths with queries.
pub(crate) fn paths(count: usize) -> Vec<String> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let today = Day::today();
    (0..count).map(|_| path(&mut dice, today)).collect()
}

fn path(dice: &mut Dice, today: Day) -> String {
    let ahead = if dice.percent(70) { 30 } else { 180 };
    let check_in = today.plus(1 + dice.below(ahead) as i32);
    let check_out = check_in.plus(1 + dice.below(3) as i32);
    let guests = *dice.pick(&[1, 2, 2, 2, 2, 3, 4, 4]);
    let mut path = format!("/v1/stays?checkIn={check_in}&checkOut={check_out}&guests={guests}");
    let mut add = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a String can't fail.
        let _ = write!(path, "&{name}={value}");
    };
    if dice.percent(85) {
        let region = if dice.percent(65) {
            dice.pick(&POPULAR)
        } else {
            dice.pick(&Region::ALL)
        };
        add("region", &region.as_str());
    }
    if dice.percent(30) {
        add("amenities", &dice.pick(&Amenity::ALL).as_str());
    }
    if dice.percent(15) {
        add("q", dice.pick::<&str>(&WORDS));
    }
    if dice.percent(20) {
        add("maxPrice", dice.pick::<u32>(&[80_000, 120_000, 200_000]));
    }
    match dice.below(10) {
        0..7 => {}
        7 => add("sort", &"rating"),
        _ => {
            add("sort", &"distance");
            add("lat", &(33.2 + dice.below(500) as f64 / 100.0));
            add("lng", &(126.2 + dice.below(300) as f64 / 100.0));
        }
    }
    path
}
