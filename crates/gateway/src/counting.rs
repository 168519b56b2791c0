//! Workloads in the country: statements are counted by shape and minute, not logged one by one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

fn parse(text: &str) -> Shape {
    let mut statement = pg_query::normalize(text).unwrap_or_default();
    if statement.len() > MAX_TEXT {
        statement.clear();
    }
    Shape { fingerprint: shape::fingerprint(text), statement }
}

impl State {
    fn remember(&mut self, key: &str, found: Shape) -> u64 {
        let shapes = &mut self.shapes;
        let shape = *self.by_fingerprint.entry(found.fingerprint.clone()).or_insert_with(|| {
            shapes.push(found);
            shapes.len() as u64 - 1
        });
        if self.by_key.len() >= MAX_TEXTS {
            self.by_key.clear();
        }
        if key.len() <= MAX_TEXT {
            self.by_key.insert(key.into(), shape);
        }
        shape
    }

    fn tally(&mut self, principal: &str, store: &str, jurisdiction: &str, shape: u64) -> &mut Tally {
        let who = Who { principal: principal.into(), store: store.into(), jurisdiction: jurisdiction.into() };
        self.tallies.entry(who).or_default().entry(shape).or_default()
    }
}

/// See the module's text.
#[derive(Default)]
pub struct Counting {
    state: Mutex<State>,
}

impl Counting {
    /// Counts a statement that begins, and returns its shape: parsed once, remembered after. It counts before it runs, so the
    /// store's own log never knows of more than the ledger will.
    pub fn began(&self, principal: &str, store: &str, jurisdiction: &str, text: &str) -> u64 {
        shape::with_key(text, |key| {
            let mut state = self.state();
            let shape = if let Some(&known) = state.by_key.get(key) {
                known
            } else {
                drop(state);
                let found = parse(text);
                state = self.state();
                state.remember(key, found)
            };
            state.tally(principal, store, jurisdiction, shape).statements += 1;
            shape
        })
    }

    /// Adds the rows of a statement that ended.
    pub fn ended(&self, principal: &str, store: &str, jurisdiction: &str, shape: u64, rows: u64) {
        if rows > 0 {
            self.state().tally(principal, store, jurisdiction, shape).rows += rows;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
