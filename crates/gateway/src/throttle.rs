//! Slows what fails. Each attempt pays when it begins, and gets that back if it has not failed.
//! After each failure the next attempt waits longer, up to a bound.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most keys that are remembered. What does not fit is slowed as one.
const MOST: usize = 1 << 16;
/// After how many attempts what is over is forgotten.
const FORGET_AFTER: usize = 1024;

/// See the module's text. A failure costs `step`, and the first `free` of time costs nothing.
pub struct Throttle<K> {
    step: Duration,
    free: Duration,
    /// The longest wait.
    most: Duration,
    paid: Mutex<Paid<K>>,
}

struct Paid<K> {
    /// Until when a key's failures are paid for.
    until: HashMap<Option<K>, Instant>,
    asked: usize,
}

impl<K: Hash + Eq + Clone> Paid<K> {
    /// Where a key is kept: what does not fit shares one place.
    fn place_of(&self, key: &K) -> Option<K> {
        let own = Some(key.clone());
        if self.until.contains_key(&own) || self.until.len() < MOST { own } else { None }
    }
}

/// An attempt that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How long it has to wait.
    pub wait: Duration,
    /// What it has paid: attempts that come at once wait for each other.
    paid: Duration,
}

impl<K: Hash + Eq + Clone> Throttle<K> {
    /// `failures` of a key are free; each further one costs `step`, and nothing waits longer than
    /// `most`.
    pub fn new(step: Duration, failures: u32, most: Duration) -> Self {
        let paid = Paid { until: HashMap::new(), asked: 0 };
        Self { step, free: step * failures, most, paid: Mutex::new(paid) }
    }

    /// Begins an attempt.
    pub fn begin(&self, key: &K) -> Attempt {
        self.begin_at(key, Instant::now())
    }

    fn begin_at(&self, key: &K, now: Instant) -> Attempt {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        paid.asked += 1;
        if paid.asked.is_multiple_of(FORGET_AFTER) {
            paid.until.retain(|_, until| *until > now);
        }
        let free_until = now + self.free;
        let key = paid.place_of(key);
        let until = paid.until.entry(key).or_insert(now);
        let wait = until.saturating_duration_since(free_until).min(self.most);
        let before = now.max(*until);
        *until = (before + self.step).min(free_until + self.most).max(before);
        Attempt { wait, paid: *until - before }
    }

    /// Whether attempts of a key wait now.
    pub fn is_slow(&self, key: &K) -> bool {
        let paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Some(key.clone());
        let until = paid.until.get(&key).or_else(|| paid.until.get(&None));
        until.is_some_and(|until| *until > Instant::now() + self.free)
    }

    /// What a key has failed counts no longer.
    pub fn forgive(&self, key: &K) {
        self.paid.lock().unwrap_or_else(PoisonError::into_inner).until.remove(&Some(key.clone()));
    }

    /// An attempt has not failed, or was not made after all: it gets back what it has paid.
    pub fn not_failed(&self, key: &K, attempt: Attempt) {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let key = paid.place_of(key);
        if let Some(until) = paid.until.get_mut(&key) {
            *until = until.checked_sub(attempt.paid).unwrap_or(*until);
            if *until <= Instant::now() {
                paid.until.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_are_slowed_and_forgiven() {
        let throttle = Throttle::new(SECOND, 3, 10 * SECOND);
        let now = Instant::now();
        let wait = |at| throttle.begin_at(&"ann", at).wait;
        // Three are free, and one more has nothing before it. Then attempts come one by one, also
        // if they begin at once, and none waits longer than the bound.
        let waits: Vec<_> = (0..16).map(|_| wait(now).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]);
        assert_eq!(throttle.begin_at(&"bob", now).wait, Duration::ZERO, "another one waits for nothing");
        assert_eq!(wait(now + 13 * SECOND), Duration::ZERO, "it is over after a while");
    }

    #[test]
    fn what_fits_costs_nothing() {
        let throttle = Throttle::new(SECOND, 0, 10 * SECOND);
        let now = Instant::now();
        let begin = || throttle.begin_at(&"ann", now);
        for _ in 0..3 {
            let one = begin();
            assert_eq!(one.wait, Duration::ZERO);
            throttle.not_failed(&"ann", one);
        }
        begin();
        let second = begin();
        assert_eq!(second.wait, SECOND);
        throttle.not_failed(&"ann", second);
        assert_eq!(begin().wait, SECOND, "the first has failed");
        // At the bound nothing was paid, so nothing is given back.
        let many: Vec<_> = (0..40).map(|_| begin()).collect();
        let last = many[39];
        assert_eq!(last.wait, 10 * SECOND);
        throttle.not_failed(&"ann", last);
        assert_eq!(begin().wait, 10 * SECOND);
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let throttle = Throttle::new(SECOND, 0, 10 * SECOND);
        let now = Instant::now();
        for n in 0..MOST + 1000 {
            throttle.begin_at(&n, now);
        }
        assert!(throttle.paid.lock().is_ok_and(|paid| paid.until.len() <= MOST + 1));
        assert!(!throttle.begin_at(&(MOST + 5000), now).wait.is_zero(), "the rest is slowed as one");
    }
}
