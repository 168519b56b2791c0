//! Transaction pooling: the shared names of prepared statements.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ringfence_statement::settings::Settings;

/// The most statements that have a shared name at one time.
const SHARED: usize = 50_000;

/// How a Parse message's text is read, and the dates in it; and the message's text and types.
type Definition = (Settings, Box<str>, Box<[u8]>);

/// Numbers for prepared statements: the same for the same text and parameter types, whoever prepares it, so that a
/// connection prepares it once. A number is never given to another statement.
#[derive(Default)]
pub struct SharedNames {
    known: Mutex<HashMap<Definition, u64>>,
    last: AtomicU64,
}

impl SharedNames {
    /// A number that nobody has.
    pub fn fresh(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The number of a Parse message's text and types, as `settings` read it, and `times` the dates in it.
    pub fn number(&self, definition: &[u8], settings: Settings, times: &str) -> u64 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (settings, times.into(), definition.into());
        if let Some(&number) = known.get(&key) {
            return number;
        }
        if known.len() >= SHARED {
            known.clear();
        }
        let number = self.fresh();
        known.insert(key, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_statement_has_one_number() {
        let names = SharedNames::default();
        let of = |text: &[u8]| names.number(text, Settings::default(), "");
        let one = of(b"SELECT 1\0\0\0");
        assert_ne!(one, of(b"SELECT 2\0\0\0"));
        assert_eq!(one, of(b"SELECT 1\0\0\0"));
        assert_ne!(one, names.number(b"SELECT 1\0\0\0", Settings::UNSURE, ""));
        assert_ne!(one, names.number(b"SELECT 1\0\0\0", Settings::default(), "ISO, DMY"));
    }
}
