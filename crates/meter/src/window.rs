//! Distinct people within the preceding twelve months. Exact up to a given number, in bounded memory beyond.
//!
//! How: of more people than the number, those seen last are kept. Whether more than so many were seen in a window is the
//! question whether the one who comes last of them was; so a threshold is decided exactly, whatever was forgotten.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::subject::Id;

/// Days since 1970, UTC.
pub type Day = u32;

/// The day of a time in milliseconds since 1970.
pub fn day(ms: u64) -> Day {
    Day::try_from(ms / 86_400_000).unwrap_or(Day::MAX)
}

/// How many days before today still count: twelve months are at most 366 days, and the day that they begin in counts as a whole.
pub const DAYS: Day = 366;

/// Hashes are random already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

/// People within the window, and bounds for those who could not be told apart.
#[derive(Default)]
pub struct Window {
    /// Exact up to so many.
    exact: usize,
    today: Day,
    seen: HashMap<Id, Day, BuildHasherDefault<AsItIs>>,
    /// The latest day of somebody who was forgotten.
    forgotten: Option<Day>,
    rows: BTreeMap<Day, u64>,
    /// Whole tables: when last, and how many people.
    all: BTreeMap<Box<str>, (Day, u64)>,
}

/// How many people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Who could be told apart.
    pub known: u64,
    /// Whether those are more than `known`.
    pub is_more: bool,
    /// How many there may be besides, who could not be told apart.
    pub unknown: u64,
}

impl Count {
    /// As many as there may be; where `is_more`, more than the number up to which the window is exact.
    pub fn at_most(self) -> u64 {
        self.known.saturating_add(self.unknown)
    }
}

impl Window {
    /// Exact up to `exact`: a decision about a threshold needs one more than it. 0 never forgets.
    pub fn new(exact: u64) -> Self {
        Self { exact: usize::try_from(exact).unwrap_or(0), ..Self::default() }
    }

    /// Lets go of what is older than the window. Days do not go back.
    pub fn advance(&mut self, today: Day) {
        if today <= self.today {
            return;
        }
        self.today = today;
        let first = today.saturating_sub(DAYS);
        self.seen.retain(|_, last| *last >= first);
        self.rows = self.rows.split_off(&first);
        self.all.retain(|_, (last, _)| *last >= first);
        self.forgotten = self.forgotten.filter(|last| *last >= first);
    }

    fn is_within(&self, day: Day) -> bool {
        day >= self.today.saturating_sub(DAYS)
    }

    /// Whether this person was seen on this day or later.
    pub fn has(&self, id: Id, day: Day) -> bool {
        self.seen.get(&id).is_some_and(|last| *last >= day)
    }

    /// Whether so many people of a whole table were counted on this day or later.
    pub fn has_all(&self, table: &str, people: u64, day: Day) -> bool {
        self.all.get(table).is_some_and(|(last, most)| *last >= day && *most >= people)
    }

    /// Whether this person is among those in the window.
    pub fn knows(&self, id: Id) -> bool {
        self.seen.contains_key(&id)
    }

    /// Somebody was seen.
    pub fn see(&mut self, id: Id, day: Day) {
        if !self.is_within(day) {
            return;
        }
        let last = self.seen.entry(id).or_insert(day);
        *last = (*last).max(day);
        // Half of them go at once, so that this costs little for each.
        if self.exact > 0 && self.seen.len() >= 2 * self.exact + 64 {
            self.forget();
        }
    }

    fn forget(&mut self) {
        let mut days: Vec<(Day, Id)> = self.seen.iter().map(|(id, day)| (*day, *id)).collect();
        let keep_from = days.len() - self.exact;
        days.select_nth_unstable(keep_from);
        let last = days[..keep_from].iter().map(|(day, _)| *day).max();
        self.forgotten = self.forgotten.max(last);
        for (_, id) in &days[..keep_from] {
            self.seen.remove(id);
        }
    }

    /// So many rows were seen of people who could not be told apart.
    pub fn see_rows(&mut self, rows: u64, day: Day) {
        if rows > 0 && self.is_within(day) {
            let sum = self.rows.entry(day).or_default();
            *sum = sum.saturating_add(rows);
        }
    }

    /// Something was seen that may be of all people of a table.
    pub fn see_all(&mut self, table: &str, people: u64, day: Day) {
        if people > 0 && self.is_within(day) {
            let (last, most) = self.all.entry(table.into()).or_default();
            (*last, *most) = ((*last).max(day), (*most).max(people));
        }
    }

    /// How many people within the window.
    pub fn count(&self) -> Count {
        let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::saturating_add);
        Count {
            known: self.seen.len() as u64,
            is_more: self.forgotten.is_some(),
            unknown: sum(&mut self.rows.values().copied())
                .saturating_add(sum(&mut self.all.values().map(|(_, people)| *people))),
        }
    }

    /// How many people of a whole table are counted already.
    pub fn all_of(&self, table: &str) -> u64 {
        self.all.get(table).map_or(0, |(_, people)| *people)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_was_forgotten_counts_until_the_window_has_passed() {
        let mut window = Window::new(10);
        window.advance(1000);
        for id in 0..200 {
            window.see(id, 1000);
        }
        assert!(window.count().is_more && window.count().known > 10, "{:?}", window.count());
        assert!(window.seen.len() < 2 * 10 + 64);
        window.advance(1000 + DAYS);
        assert!(window.count().known > 10);
        window.advance(1001 + DAYS);
        assert_eq!(window.count(), Count::default());
        window.see(1, 1000);
        assert_eq!(window.count(), Count::default(), "too long ago");
    }

    #[test]
    fn a_table_counts_once_and_rows_each_time() {
        let mut window = Window::new(10);
        window.advance(5);
        for _ in 0..3 {
            window.see_all("us/users", 100, 5);
            window.see_rows(7, 5);
        }
        assert_eq!(window.count().at_most(), 121);
        assert_eq!(window.all_of("us/users"), 100);
    }

    proptest! {
        #[test]
        fn a_threshold_is_decided_as_by_a_count_that_forgets_nothing(
            exact in 1_u64..20,
            steps in prop::collection::vec((0_u64..400, 0_u32..3, any::<bool>()), 1..1500),
        ) {
            let mut window = Window::new(exact);
            let mut all: HashMap<Id, Day> = HashMap::new();
            let mut today = 1000;
            for (id, days, leap) in steps {
                today += if leap && days == 2 { 120 } else { days / 2 };
                window.advance(today);
                window.see(id, today);
                all.insert(id, today);
                let truth = all.values().filter(|day| **day >= today - DAYS).count() as u64;
                let count = window.count();
                if count.is_more {
                    prop_assert!(count.known >= exact && truth >= count.known);
                } else {
                    prop_assert_eq!(count.known, truth);
                }
                prop_assert_eq!(count.known >= exact, truth >= exact);
            }
        }
    }
}
