//! Who a user is, where, and since when: functions of the user's number.

use super::copy_text::{CopyText, DAY, new_year};
use super::places::City;
use super::rng::{Purpose, Rng};
use super::words::{COUNTRIES, Country, MAIL_HOSTS, Names};
use super::{Clips, phrases};

/// The last second of the demo's world: 2026-06-30 23:59:59 UTC.
pub(super) const END: i64 = (new_year(2026) + 181) * DAY - 1;

/// The platform opened on the first of January 2017.
const OPENING: i64 = new_year(2017) * DAY;

/// 13 years, the least age to join, with as many leap days as they may hold.
const LEAST_AGE: i64 = (13 * 365 + 4) * DAY;

/// A user's name and home.
#[derive(Clone, Copy, Debug)]
pub(super) struct Person {
    pub(super) country: &'static Country,
    pub(super) city: City,
    given: &'static str,
    family: &'static str,
    family_first: bool,
}

/// A user's dates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// In days since 1970-01-01.
    pub(super) birth: i64,
    /// In seconds since 1970-01-01.
    pub(super) joined: i64,
}

impl Clips {
    /// The stream of random numbers for one purpose of one user.
    pub(super) fn rng(&self, purpose: Purpose, user: u32, item: u32) -> Rng {
        Rng::at(self.seed, purpose, user, item)
    }

    /// The users who live in `country`, or all.
    pub(super) fn users_of(&self, country: Option<&str>) -> impl Iterator<Item = u32> {
        (1..=self.users).filter(move |&user| country.is_none_or(|code| self.country(user).code == code))
    }

    pub(super) fn country(&self, user: u32) -> &'static Country {
        self.rng(Purpose::Country, user, 0).weighted(&COUNTRIES, |country| country.permille)
    }

    pub(super) fn person(&self, user: u32) -> Person {
        let country = self.country(user);
        let mut rng = self.rng(Purpose::Person, user, 0);
        let names = names(country, &mut rng);
        Person {
            country,
            city: rng.pick(country.cities),
            given: rng.pick(names.given),
            family: rng.pick(names.family),
            family_first: names.family_first,
        }
    }

    pub(super) fn life(&self, user: u32) -> Life {
        let mut rng = self.rng(Purpose::Life, user, 0);
        let age = (0..3).map(|_| rng.below(2013 - 1950)).fold(u32::MAX, u32::min);
        let birth = new_year(2012 - i64::from(age)) + i64::from(rng.below(365));
        let first = OPENING.max(birth * DAY + LEAST_AGE);
        let joined = within(&mut rng, first, END).max(within(&mut rng, first, END));
        Life { birth, joined }
    }

    /// The contact number `slot` of `user`: another user, most often of the same region.
    pub(super) fn contact(&self, user: u32, slot: u32) -> u32 {
        let mut rng = self.rng(Purpose::Contact, user, slot);
        let home = rng.chance(85).then(|| self.country(user).region);
        let mut other = self.somebody_else(user, &mut rng);
        for _ in 0..8 {
            if home.is_none_or(|region| self.country(other).region == region) {
                break;
            }
            other = self.somebody_else(user, &mut rng);
        }
        other
    }

    /// Any user but `user`; there must be two.
    pub(super) fn somebody_else(&self, user: u32, rng: &mut Rng) -> u32 {
        let other = 1 + rng.below(self.users - 1);
        other + u32::from(other >= user)
    }
}

impl Person {
    pub(super) fn push_full_name(&self, out: &mut CopyText) {
        let (first, second) =
            if self.family_first { (self.family, self.given) } else { (self.given, self.family) };
        out.text(first);
        out.char(' ');
        out.text(second);
    }

    /// An address that is the user's alone, since it ends in a number that is.
    pub(super) fn push_email(&self, user: u32, rng: &mut Rng, out: &mut CopyText) {
        match rng.below(10) {
            0..4 => {
                out.folded(self.given);
                out.char('.');
                out.folded(self.family);
            }
            4..6 => {
                out.folded(self.given);
                out.folded(self.family);
            }
            6..8 => {
                out.folded(self.family);
                out.char('.');
                out.folded(self.given);
            }
            8 => {
                out.folded(self.given);
                out.char('_');
                out.folded(self.family);
            }
            _ => out.folded(self.given),
        }
        push_serial(user, 1_000, 7_919, out);
        out.char('@');
        out.text(rng.pick(MAIL_HOSTS));
    }

    /// A handle that is the user's alone. There are three shapes, told apart by their separator,
    /// and within each no two users get the same words and number.
    pub(super) fn push_handle(&self, user: u32, rng: &mut Rng, out: &mut CopyText) {
        match rng.below(10) {
            0..4 => {
                let words = phrases::ADJECTIVES.len() * phrases::NOUNS.len();
                let (word, round) = deal(user, words, 7_919);
                out.text(phrases::ADJECTIVES[word / phrases::NOUNS.len()]);
                out.char('_');
                out.text(phrases::NOUNS[word % phrases::NOUNS.len()]);
                push_round(word, round, out);
            }
            4..8 => {
                let (word, round) = deal(user, phrases::NOUNS.len(), 47);
                out.folded(self.given);
                out.char('.');
                out.text(phrases::NOUNS[word]);
                push_round(word, round, out);
            }
            _ => {
                out.folded(self.given);
                out.folded(self.family);
                push_serial(user, 10_000, 64_271, out);
            }
        }
    }

    pub(super) fn push_display_name(&self, rng: &mut Rng, out: &mut CopyText) {
        match rng.below(10) {
            0..4 => out.text(self.given),
            4..6 => self.push_full_name(out),
            6..8 => {
                out.text(self.given);
                out.char(' ');
                self.family.chars().take(1).for_each(|initial| out.char(initial));
                out.char('.');
            }
            _ => {
                out.capitalised(rng.pick(phrases::ADJECTIVES));
                out.char(' ');
                out.capitalised(rng.pick(phrases::NOUNS));
            }
        }
    }
}

/// One of the groups of names of `country`.
pub(super) fn names(country: &'static Country, rng: &mut Rng) -> &'static Names {
    rng.weighted(country.names, |names| names.percent)
}

/// A telephone number of `city`.
pub(super) fn push_phone(city: City, rng: &mut Rng, out: &mut CopyText) {
    for char in city.phone.chars() {
        match char {
            '#' => out.number(u64::from(rng.below(10))),
            _ => out.char(char),
        }
    }
}

/// A second from `from` to `to`, both included.
pub(super) fn within(rng: &mut Rng, from: i64, to: i64) -> i64 {
    let seconds = u32::try_from(to - from).unwrap_or(0);
    from + i64::from(rng.between(0, seconds))
}

/// Deals `user` one of `hands` and the round in which it was dealt, so that no two users share
/// both. The `factor` has no divisor in common with `hands`, and keeps neighbours apart.
fn deal(user: u32, hands: usize, factor: usize) -> (usize, usize) {
    let user = user as usize;
    (user % hands * factor % hands, user / hands)
}

/// Nothing in the first round, then a number that differs with each.
fn push_round(hand: usize, round: usize, out: &mut CopyText) {
    if round > 0 {
        out.number((hand % 89 + round) as u64);
    }
}

/// A number that no other user gets for the same `least` and `factor`: as many digits as `least`
/// has, and before them the round if it is not the first.
fn push_serial(user: u32, least: usize, factor: usize, out: &mut CopyText) {
    let (hand, round) = deal(user, 9 * least, factor);
    if round > 0 {
        out.number(round as u64);
    }
    out.number((least + hand) as u64);
}
