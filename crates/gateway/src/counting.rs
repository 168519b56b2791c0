//! Workloads in the country: statements are counted by shape and minute, not logged one by one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfence_ledger::{Counters, Entry, Kind, Ledger};
use ringfence_statement::analysis::Analysis;
use ringfence_statement::shape::Shape;

use crate::flow::Counted;
use crate::records::{CountedRecord, ShapeCount, StandsForShape};

/// The most bytes of texts that a principal's counts of one minute hold. Further shapes are counted by
/// their id alone.
const MAX_TEXTS: usize = 4 << 20;
/// The most bytes of texts in one entry of the ledger; what is more goes into further entries.
const MAX_ENTRY: usize = 512 * 1024;
/// The most shapes in one entry.
const MAX_SHAPES: usize = 2000;

/// Whose statements are counted together.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    /// The principal.
    pub principal: String,
    /// The store.
    pub store: String,
    /// The store's jurisdiction.
    pub jurisdiction: String,
}

/// A shape, and the shape of what it stands for.
type Key = (u128, Option<u128>);

struct Tally {
    statements: u64,
    rows: u64,
    analysis: Arc<Analysis>,
    stands_for: Option<Arc<Analysis>>,
    /// The texts are over [`MAX_TEXTS`].
    without_text: bool,
}

#[derive(Default)]
struct Minute {
    by_shape: HashMap<Key, Tally>,
    texts: usize,
}

/// See the module's text.
#[derive(Default)]
pub struct Counting {
    minutes: Mutex<HashMap<Arc<Workload>, Minute>>,
}

fn key(counted: &Counted) -> Key {
    let number = |analysis: &Arc<Analysis>| analysis.shape.number;
    (number(&counted.analysis), counted.stands_for.as_ref().map(number))
}

impl Minute {
    fn tally(&mut self, counted: &Counted) -> &mut Tally {
        let texts = &mut self.texts;
        self.by_shape.entry(key(counted)).or_insert_with(|| {
            let length = |analysis: &Arc<Analysis>| analysis.shape.text.len();
            *texts += length(&counted.analysis) + counted.stands_for.as_ref().map_or(0, length);
            Tally {
                statements: 0,
                rows: 0,
                analysis: Arc::clone(&counted.analysis),
                stands_for: counted.stands_for.clone(),
                without_text: *texts > MAX_TEXTS,
            }
        })
    }
}

impl Counting {
    /// Counts a statement that begins. It counts before it runs, so the store's own log never knows of
    /// more than the ledger will.
    pub fn began(&self, workload: &Arc<Workload>, counted: &Counted) {
        let mut minutes = self.minutes();
        minute(&mut minutes, workload).tally(counted).statements += 1;
    }

    /// Adds the rows of a statement that ended.
    pub fn ended(&self, workload: &Arc<Workload>, counted: &Counted, rows: u64) {
        if rows > 0 {
            let mut minutes = self.minutes();
            minute(&mut minutes, workload).tally(counted).rows += rows;
        }
    }

    fn minutes(&self) -> MutexGuard<'_, HashMap<Arc<Workload>, Minute>> {
        self.minutes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was counted since the last time, and forgets it.
    pub fn flush(&self, ledger: &Ledger) {
        // The lock is held until the entries are in order: a count of the next minute comes after them.
        let mut minutes = self.minutes();
        for (workload, minute) in std::mem::take(&mut *minutes) {
            let mut part = Part::default();
            for tally in minute.by_shape.into_values() {
                if part.is_full() {
                    std::mem::take(&mut part).write(&workload, ledger);
                }
                part.add(&tally);
            }
            part.write(&workload, ledger);
        }
    }
}

fn minute<'a>(minutes: &'a mut HashMap<Arc<Workload>, Minute>, workload: &Arc<Workload>) -> &'a mut Minute {
    if !minutes.contains_key(workload) {
        minutes.insert(Arc::clone(workload), Minute::default());
    }
    minutes.get_mut(workload).expect("inserted above")
}

/// One entry's share of the counts.
#[derive(Default)]
struct Part {
    shapes: Vec<ShapeCount>,
    counters: Counters,
    texts: usize,
}

impl Part {
    fn is_full(&self) -> bool {
        self.texts >= MAX_ENTRY || self.shapes.len() >= MAX_SHAPES
    }

    fn add(&mut self, tally: &Tally) {
        let text = |shape: &Shape| if tally.without_text { String::new() } else { shape.text.to_string() };
        let stands_for = tally
            .stands_for
            .as_ref()
            .map(|inner| StandsForShape { fingerprint: inner.shape.id(), statement: text(&inner.shape) });
        let statement = text(&tally.analysis.shape);
        self.texts += statement.len() + stands_for.as_ref().map_or(0, |inner| inner.statement.len());
        self.counters.statements += tally.statements;
        self.counters.rows += tally.rows;
        self.shapes.push(ShapeCount {
            fingerprint: tally.analysis.shape.id(),
            statement,
            stands_for,
            statements: tally.statements,
            rows: tally.rows,
        });
    }

    fn write(self, workload: &Workload, ledger: &Ledger) {
        if self.shapes.is_empty() {
            return;
        }
        let Self { shapes, counters, .. } = self;
        let record = CountedRecord { principal: &workload.principal, store: &workload.store, shapes };
        ledger.record(Entry::new(Kind::Counted, &workload.jurisdiction, &record).counting(counters));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(text: &str) -> Counted {
        let analysis = Arc::new(Analysis::of(text, ringfence_statement::settings::Settings::default()));
        Counted { analysis, stands_for: None }
    }

    #[test]
    fn shapes_are_counted_apart_and_their_texts_are_bounded() {
        let counting = Counting::default();
        let workload = Arc::new(Workload {
            principal: "feed-service".to_owned(),
            store: "us".to_owned(),
            jurisdiction: "us".to_owned(),
        });
        for text in ["select 1", "select 2 /* c */", "select a from t"] {
            counting.began(&workload, &counted(text));
        }
        let execute =
            Counted { stands_for: Some(counted("select a from t").analysis), ..counted("execute x") };
        counting.began(&workload, &execute);
        counting.ended(&workload, &execute, 5);
        let minutes = counting.minutes();
        let minute = &minutes[&workload];
        let mut found: Vec<(u64, u64)> = minute.by_shape.values().map(|t| (t.statements, t.rows)).collect();
        found.sort_unstable();
        assert_eq!(found, [(1, 0), (1, 5), (2, 0)]);
        let mut minute = Minute::default();
        for n in 0..300 {
            let analysis = Arc::new(Analysis::function_call(&format!("{n}{}", "x".repeat(16_000))));
            minute.tally(&Counted { analysis, stands_for: None });
        }
        assert!(minute.by_shape.values().any(|t| t.without_text));
        let kept = minute.by_shape.values().filter(|t| !t.without_text).map(|t| t.analysis.shape.text.len());
        assert!(kept.sum::<usize>() <= MAX_TEXTS);
    }
}
