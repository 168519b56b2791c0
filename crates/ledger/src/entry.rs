//! An entry on its way into the log: what it says, and the sealing of its leaf.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand_core::{OsRng, RngCore};
use ringfence_verifier::record::{Counters, Kind, Leaf, commitment};
use ringfence_verifier::segment::SALT;
use serde::Serialize;

/// The longest value that stays in a record that is shortened, in bytes.
const SHORT: usize = 256;

/// An entry that has not been given a place in the log yet.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What happened.
    pub kind: Kind,
    /// Whose law protects the data.
    pub jurisdiction: String,
    /// How much.
    pub counters: Counters,
    /// Where it came from, if across the border.
    pub crossing: Option<Crossing>,
    /// The private record: a JSON object.
    pub record: Vec<u8>,
}

/// An access across the border, as far as it is public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The country that it came from.
    pub from: Arc<str>,
    /// Whether it was a covered person's.
    pub covered: bool,
}

impl Entry {
    /// An entry of `kind` whose private record is `record`.
    pub fn new(kind: Kind, jurisdiction: &str, record: &impl Serialize) -> Self {
        let record = json(record, 512);
        Self {
            kind,
            jurisdiction: jurisdiction.to_owned(),
            counters: Counters::default(),
            crossing: None,
            record,
        }
    }

    /// The same with counters.
    #[must_use]
    pub fn counting(mut self, counters: Counters) -> Self {
        self.counters = counters;
        self
    }

    /// The same for an access across the border, if it is one.
    #[must_use]
    pub fn crossing(mut self, crossing: Option<&Crossing>) -> Self {
        self.crossing = crossing.cloned();
        self
    }

    /// The entry in the place of this one, whose record is too large to be written: the same kind and
    /// counters, what is short in the record, and `too_large`, the record's size in bytes.
    pub(crate) fn shortened(&self) -> Self {
        let record: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&self.record).unwrap_or_default();
        let is_short = |value: &serde_json::Value| {
            !value.is_array() && !value.is_object() && value.as_str().is_none_or(|text| text.len() <= SHORT)
        };
        let mut short: serde_json::Map<_, _> = record
            .into_iter()
            .filter(|(name, value)| name.len() <= SHORT && is_short(value))
            .take(64)
            .collect();
        short.insert("too_large".to_owned(), self.record.len().into());
        Self { record: json(&short, 512), ..self.clone() }
    }

    /// Makes the leaf, with a salt that is used for nothing else.
    pub fn seal(&self, time: u64, salt: &[u8; SALT]) -> Vec<u8> {
        let leaf = Leaf {
            v: 1,
            kind: self.kind,
            time,
            jurisdiction: self.jurisdiction.clone(),
            counters: self.counters,
            from: self.crossing.as_ref().map(|c| c.from.to_string()),
            covered: self.crossing.as_ref().is_some_and(|c| c.covered),
            commitment: ringfence_verifier::record::hex_of(&commitment(salt, &self.record)),
        };
        json(&leaf, 256)
    }
}

/// Only maps with non-string keys or failing Serialize impls make this fail, and neither leaves nor records have them.
/// `usual` is room for most, in bytes.
fn json(data: &impl Serialize, usual: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(usual);
    serde_json::to_writer(&mut bytes, data).expect("it is plain data");
    bytes
}

/// Salts for `count` entries, drawn at once: a system call for each would cost more than the hash it goes into.
pub(crate) fn salts(count: usize) -> Vec<[u8; SALT]> {
    let mut salts = vec![[0; SALT]; count];
    OsRng.fill_bytes(salts.as_flattened_mut());
    salts
}

/// The system's clock in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
