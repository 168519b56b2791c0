//! What pages ask for again and again: asked once in a second, and anew as soon as something was written here or seen to have changed
//! elsewhere. For looking only; whatever is decided asks the database.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer is given again.
const FRESH: Duration = Duration::from_secs(1);
/// How many answers are kept.
const MOST: usize = 1024;

/// Answers by question.
pub(crate) struct Recent<V> {
    number: AtomicU64,
    kept: Mutex<HashMap<String, Kept<V>>>,
}

struct Kept<V> {
    number: u64,
    at: Instant,
    value: Arc<V>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { number: AtomicU64::new(0), kept: Mutex::default() }
    }
}

impl<V> Recent<V> {
    /// Something has changed: what was answered before is not given again.
    pub(crate) fn touch(&self) {
        self.number.fetch_add(1, Ordering::AcqRel);
    }

    /// The state of things, to be read before the database is asked.
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<String, Kept<V>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, question: &str) -> Option<Arc<V>> {
        let kept = self.kept();
        let found = kept.get(question)?;
        let is_fresh = found.number == self.number() && found.at.elapsed() < FRESH;
        is_fresh.then(|| Arc::clone(&found.value))
    }

    /// Keeps what the database said, asked when things stood at `number`.
    pub(crate) fn put(&self, question: String, number: u64, value: V) -> Arc<V> {
        let value = Arc::new(value);
        let mut kept = self.kept();
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(question, Kept { number, at: Instant::now(), value: Arc::clone(&value) });
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_before_a_change_is_not_given_after_it() {
        let recent = Recent::default();
        let before = recent.number();
        recent.put("a".to_owned(), before, 1);
        assert_eq!(recent.get("a").as_deref(), Some(&1));
        assert!(recent.get("b").is_none());
        recent.touch();
        assert!(recent.get("a").is_none());
        recent.put("a".to_owned(), before, 1);
        assert!(recent.get("a").is_none(), "it was asked before the change");
        recent.put("a".to_owned(), recent.number(), 2);
        assert_eq!(recent.get("a").as_deref(), Some(&2));
    }
}
