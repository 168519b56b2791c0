//! Workloads in the country: statements are counted by shape and minute, not logged one by one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ringfence_ledger::{Counters, Entry, Kind, Ledger};
use ringfence_statement::shape;

use crate::records::{CountedRecord, ShapeCount};

/// The most texts whose shape is remembered.
const MAX_TEXTS: usize = 20_000;
/// The longest text that is remembered, and the longest normalised text in a record, in bytes.
const MAX_TEXT: usize = 16 * 1024;

struct Shape {
    fingerprint: String,
    statement: String,
}

#[derive(Default)]
struct Tally {
    statements: u64,
    rows: u64,
}

#[derive(PartialEq, Eq, Hash)]
struct Who {
    principal: String,
    store: String,
    jurisdiction: String,
}

#[derive(Default)]
struct State {
    by_key: HashMap<Box<str>, u64>,
    by_fingerprint: HashMap<String, u64>,
    shapes: Vec<Shape>,
    tallies: HashMap<Who, HashMap<u64, Tally>>,
}

/// See the module's text.
#[derive(Default)]
pub struct Counting {
    state: Mutex<State>,
}

impl Counting {
    /// The shape of a text: parsed once, remembered after.
    pub fn shape(&self, text: &str) -> u64 {
        shape::with_key(text, |key| self.shape_of(text, key))
    }

    fn shape_of(&self, text: &str, key: &str) -> u64 {
        if let Some(&shape) = self.state.lock().unwrap_or_else(PoisonError::into_inner).by_key.get(key) {
            return shape;
        }
        let fingerprint = pg_query::fingerprint(
            text,
            pg_query::ParserOptions::default(),
            pg_query::FingerprintOptions::FULL_RELNAME,
        );
        let fingerprint = fingerprint.map_or_else(|_| "not understood".to_owned(), |f| f.hex);
        let mut statement = pg_query::normalize(text).unwrap_or_default();
        if statement.len() > MAX_TEXT {
            statement.clear();
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { by_key, by_fingerprint, shapes, .. } = &mut *state;
        let shape = *by_fingerprint.entry(fingerprint.clone()).or_insert_with(|| {
            shapes.push(Shape { fingerprint, statement });
            shapes.len() as u64 - 1
        });
        if by_key.len() >= MAX_TEXTS {
            by_key.clear();
        }
        if key.len() <= MAX_TEXT {
            by_key.insert(key.into(), shape);
        }
        shape
    }

    /// Adds statements that ended.
    pub fn add(&self, principal: &str, store: &str, jurisdiction: &str, shape: u64, rows: u64) {
        let who = Who { principal: principal.into(), store: store.into(), jurisdiction: jurisdiction.into() };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = state.tallies.entry(who).or_default().entry(shape).or_default();
        tally.statements += 1;
        tally.rows += rows;
    }

    /// Writes what was counted since the last time, and forgets it.
    pub fn flush(&self, ledger: &Ledger) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tallies = std::mem::take(&mut state.tallies);
        for (who, by_shape) in tallies {
            let mut counters = Counters::default();
            let mut shapes = Vec::with_capacity(by_shape.len());
            for (id, tally) in by_shape {
                counters.statements += tally.statements;
                counters.rows += tally.rows;
                let Some(shape) = usize::try_from(id).ok().and_then(|i| state.shapes.get(i)) else {
                    continue;
                };
                shapes.push(ShapeCount {
                    fingerprint: &shape.fingerprint,
                    statement: &shape.statement,
                    statements: tally.statements,
                    rows: tally.rows,
                });
            }
            let record = CountedRecord { principal: &who.principal, store: &who.store, shapes };
            ledger.record(Entry::new(Kind::Counted, &who.jurisdiction, &record).counting(counters));
        }
    }
}
