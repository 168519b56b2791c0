//! How much of the ledger one principal may fill. A few bytes of messages can make a record of several hundred, so who
//! sends on and on would fill the disk, and then nobody's statement could be recorded any more. Who has used a minute's
//! bytes is read more slowly from there on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The bytes that a principal's sessions may put on record together.
#[derive(Debug)]
pub struct Allowance {
    /// Bytes a minute; as many may come at once.
    minute: u64,
    /// When all that was recorded is paid for, at this rate.
    paid_at: Mutex<Instant>,
}

impl Allowance {
    fn new(minute: u64) -> Self {
        Self { minute: minute.max(1), paid_at: Mutex::new(Instant::now()) }
    }

    /// So many bytes go on record. How long their session must pause, if it must.
    pub fn pay(&self, bytes: usize) -> Option<Duration> {
        self.pay_at(bytes, Instant::now())
    }

    fn pay_at(&self, bytes: usize, now: Instant) -> Option<Duration> {
        let price = Duration::from_micros((bytes as u64).saturating_mul(60_000_000) / self.minute);
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        *paid_at = now.max(*paid_at) + price;
        let debt = paid_at.saturating_duration_since(now);
        debt.checked_sub(Duration::from_secs(60)).filter(|pause| !pause.is_zero())
    }
}

/// Those of all principals.
#[derive(Debug, Default)]
pub struct Allowances(Mutex<HashMap<String, Arc<Allowance>>>);

impl Allowances {
    /// A principal's, at so many bytes a minute.
    pub fn of(&self, principal: &str, minute: u64) -> Arc<Allowance> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(principal).filter(|own| own.minute == minute.max(1)) {
            return Arc::clone(own);
        }
        let own = Arc::new(Allowance::new(minute));
        known.insert(principal.to_owned(), Arc::clone(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_bytes_are_free_and_the_rest_waits_its_time() {
        let allowance = Allowance::new(6_000);
        let now = Instant::now();
        assert_eq!(allowance.pay_at(6_000, now), None);
        assert_eq!(allowance.pay_at(100, now), Some(Duration::from_secs(1)));
        assert_eq!(allowance.pay_at(100, now + Duration::from_secs(1)), Some(Duration::from_secs(1)));
        // After a minute of rest it is whole again, and no more than that.
        let later = now + Duration::from_secs(600);
        assert_eq!(allowance.pay_at(6_000, later), None);
        assert_eq!(allowance.pay_at(1, later), Some(Duration::from_millis(10)));
        let all = Allowances::default();
        assert!(Arc::ptr_eq(&all.of("a", 5), &all.of("a", 5)));
        assert!(!Arc::ptr_eq(&all.of("a", 5), &all.of("b", 5)));
    }
}
