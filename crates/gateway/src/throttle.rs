//! Slows what has failed. Who fails again and again waits longer each time, up to a bound; what has
//! never failed waits for nothing.

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
    /// What it has paid already: where something has failed, attempts that come at once wait for
    /// each other.
    paid: Option<Duration>,
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
        let Some(until) = paid.until.get_mut(&key) else {
            return Attempt { wait: Duration::ZERO, paid: None };
        };
        let wait = until.saturating_duration_since(free_until).min(self.most);
        if *until <= now {
            return Attempt { wait, paid: None };
        }
        let before = *until;
        *until = (*until + self.step).min(free_until + self.most).max(before);
        Attempt { wait, paid: Some(*until - before) }
    }

    /// An attempt has failed.
    pub fn failed(&self, key: &K, attempt: Attempt) {
        if attempt.paid.is_none() {
            self.pay(key, Instant::now());
        }
    }

    fn pay(&self, key: &K, now: Instant) {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let key = paid.place_of(key);
        let most = now + self.free + self.most;
        let until = paid.until.entry(key).or_insert(now);
        *until = ((*until).max(now) + self.step).min(most);
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

    /// An attempt has not failed, or was not made after all.
    pub fn not_failed(&self, key: &K, attempt: Attempt) {
        let Some(paid_before) = attempt.paid else { return };
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = paid.until.get_mut(&Some(key.clone())) {
            *until = until.checked_sub(paid_before).unwrap_or(*until);
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
        assert_eq!(wait(now), Duration::ZERO, "nothing has failed");
        for _ in 0..3 {
            throttle.pay(&"ann", now);
        }
        // Three failures are free. Then attempts come one by one, and none waits longer than the
        // bound.
        let waits: Vec<_> = (0..13).map(|_| wait(now).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]);
        assert_eq!(throttle.begin_at(&"bob", now).wait, Duration::ZERO, "another one waits for nothing");
        assert_eq!(wait(now + 13 * SECOND), Duration::ZERO, "it is over after a while");
    }

    #[test]
    fn what_fits_costs_nothing() {
        let throttle = Throttle::new(SECOND, 0, 10 * SECOND);
        let now = Instant::now();
        let free = throttle.begin_at(&"ann", now);
        throttle.not_failed(&"ann", free);
        assert_eq!(throttle.begin_at(&"ann", now).wait, Duration::ZERO);
        throttle.pay(&"ann", now);
        let first = throttle.begin_at(&"ann", now);
        assert_eq!(first.wait, SECOND);
        throttle.not_failed(&"ann", first);
        assert_eq!(throttle.begin_at(&"ann", now).wait, SECOND);
        // At the bound nothing was paid, so nothing is given back.
        let many: Vec<_> = (0..40).map(|_| throttle.begin_at(&"ann", now)).collect();
        let last = many[39];
        assert_eq!(last.wait, 10 * SECOND);
        throttle.not_failed(&"ann", last);
        assert_eq!(throttle.begin_at(&"ann", now).wait, 10 * SECOND);
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let throttle = Throttle::new(SECOND, 0, 10 * SECOND);
        let now = Instant::now();
        for n in 0..MOST + 1000 {
            throttle.pay(&n, now);
        }
        assert!(throttle.paid.lock().is_ok_and(|paid| paid.until.len() <= MOST + 1));
        assert!(!throttle.begin_at(&(MOST + 5000), now).wait.is_zero(), "the rest is slowed as one");
    }
}
