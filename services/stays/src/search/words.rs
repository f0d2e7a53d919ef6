//! Which stays have the words that are looked for: every distinct word with the stays that have it.

use std::collections::HashMap;

/// A set of small numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// Numbers that are looked at at once.
    pub(super) const WORD: usize = u64::BITS as usize;

    /// None of the numbers below `size`.
    pub(super) fn empty(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    pub(super) fn insert(&mut self, number: u32) {
        self.0[number as usize / 64] |= 1 << (number % 64);
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.0[number as usize / 64] & (1 << (number % 64)) != 0
    }

    /// Which of the numbers from `first` on, a multiple of [`Bits::WORD`], are in it, from the lowest bit on.
    pub(super) fn word(&self, first: usize) -> u64 {
        self.0[first / Self::WORD]
    }

    /// Each of the numbers, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        (0_u32..).zip(&self.0).flat_map(|(at, word)| {
            let rest = |word: &u64| Some(word & (word - 1)).filter(|rest| *rest != 0);
            std::iter::successors(Some(*word).filter(|word| *word != 0), rest)
                .map(move |word| at * u64::BITS + word.trailing_zeros())
        })
    }

    pub(super) fn add_those_in(&mut self, other: &Self) {
        for (mine, others) in self.0.iter_mut().zip(&other.0) {
            *mine |= others;
        }
    }

    fn keep_those_in(&mut self, other: &Self) {
        for (mine, others) in self.0.iter_mut().zip(&other.0) {
            *mine &= others;
        }
    }
}

/// The words of many texts, each text known by a number.
#[derive(Debug, Default)]
pub(super) struct Words {
    ids: HashMap<Box<str>, usize>,
    /// Each word with the numbers of the texts that have it.
    postings: Vec<(Box<str>, Vec<u32>)>,
}

impl Words {
    /// Adds a text, whose words are apart by spaces.
    pub(super) fn add(&mut self, number: u32, text: &str) {
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let id = *self.ids.entry(word.into()).or_insert_with(|| {
                self.postings.push((word.into(), Vec::new()));
                self.postings.len() - 1
            });
            let numbers = &mut self.postings[id].1;
            if numbers.last() != Some(&number) {
                numbers.push(number);
            }
        }
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let postings = self.postings.iter().map(|(word, numbers)| {
            2 * (size_of::<Box<str>>() + word.len()) + numbers.capacity() * size_of::<u32>()
        });
        postings.sum()
    }

    /// The numbers below `size` of texts of which each of `wanted` is part of a word.
    pub(super) fn find(&self, wanted: &[String], size: usize) -> Bits {
        let mut found: Option<Bits> = None;
        for part in wanted {
            let mut with = Bits::empty(size);
            for (word, numbers) in &self.postings {
                if word.contains(part.as_str()) {
                    numbers.iter().for_each(|number| with.insert(*number));
                }
            }
            match &mut found {
                None => found = Some(with),
                Some(found) => found.keep_those_in(&with),
            }
        }
        found.unwrap_or_else(|| Bits::empty(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_into_it_in_order() {
        let numbers = [0, 63, 64, 130, 191];
        let mut bits = Bits::empty(192);
        numbers.iter().for_each(|number| bits.insert(*number));
        let mut others = Bits::empty(192);
        others.insert(5);
        assert_eq!(bits.iter().collect::<Vec<_>>(), numbers);
        assert_eq!(bits.word(64), 1);
        bits.add_those_in(&others);
        assert_eq!(bits.iter().count(), numbers.len() + 1);
        assert!(bits.contains(5) && !bits.contains(6));
    }

    #[test]
    fn texts_are_found_by_parts_of_their_words() {
        let mut words = Words::default();
        let texts = ["애월 바다 펜션 aewol", "바다 바다호텔", "aewol 100%_hotel"];
        for (number, text) in (0..).zip(texts) {
            words.add(number, text);
        }
        let find = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|&word| word.into()).collect();
            let found = words.find(&wanted, texts.len());
            (0..3)
                .filter(|number| found.contains(*number))
                .collect::<Vec<u32>>()
        };
        assert_eq!(find(&["바다"]), [0, 1]);
        assert_eq!(find(&["호텔"]), [1]);
        assert_eq!(find(&["ewo", "바다"]), [0]);
        assert_eq!(find(&["0%_"]), [2]);
        assert!(find(&["없음"]).is_empty());
        assert!(find(&["aewol", "없음"]).is_empty());
    }
}
