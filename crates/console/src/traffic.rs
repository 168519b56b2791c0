//! What crosses the border, counted from the log's own public half: by jurisdiction, country and standing, hour by hour. Nothing is
//! counted that is not in the log, and nothing of the private half is read.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringfence_gateway::server::Shared;
use ringfence_verifier::checkpoint::read_head;
use ringfence_verifier::record::{Kind, Leaf};
use ringfence_verifier::tiles::{Shelf, path, split_bundle};

/// How often the log is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Entries of a bundle.
const WIDTH: u64 = 256;
/// How many entries of a place are remembered by name.
const RECENT: usize = 200;
/// How many days are kept, and how many hours.
const DAYS: u64 = 366;
const HOURS: u64 = 48;
/// The milliseconds of an hour.
const HOUR: u64 = 3_600_000;

/// From where to where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// Whose data.
    pub jurisdiction: String,
    /// The country that it was read from.
    pub from: String,
}

/// How much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Statements that were run.
    pub statements: u64,
    /// Of them by covered persons (28 CFR 202.211).
    pub covered: u64,
    /// Rows that were let through.
    pub rows: u64,
    /// Bytes of protocol with them.
    pub bytes: u64,
    /// What was refused.
    pub refused: u64,
}

impl Sums {
    fn add(&mut self, leaf: &Leaf) {
        match leaf.kind {
            Kind::Intent => {
                self.statements += 1;
                self.covered += u64::from(leaf.covered);
            }
            Kind::Outcome => {
                self.rows += leaf.counters.rows;
                self.bytes += leaf.counters.bytes;
            }
            Kind::Refused => self.refused += 1,
            _ => {}
        }
    }

    fn plus(mut self, other: Self) -> Self {
        self.statements += other.statements;
        self.covered += other.covered;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.refused += other.refused;
        self
    }
}

/// What went one way.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    days: BTreeMap<u64, Sums>,
    hours: BTreeMap<u64, Sums>,
    /// The newest entries, the newest last.
    pub recent: VecDeque<u64>,
}

impl Seen {
    fn add(&mut self, index: u64, leaf: &Leaf) {
        let hour = leaf.time / HOUR;
        self.days.entry(hour / 24).or_default().add(leaf);
        self.hours.entry(hour).or_default().add(leaf);
        while self.days.first_key_value().is_some_and(|(day, _)| day + DAYS < hour / 24) {
            self.days.pop_first();
        }
        while self.hours.first_key_value().is_some_and(|(at, _)| at + HOURS < hour) {
            self.hours.pop_first();
        }
        if matches!(leaf.kind, Kind::Intent | Kind::Refused) {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(index);
        }
    }

    /// The last `count` days up to now, the oldest first.
    pub fn days(&self, now_ms: u64, count: u64) -> Vec<Sums> {
        let today = now_ms / HOUR / 24;
        (0..count)
            .rev()
            .map(|ago| self.days.get(&(today.saturating_sub(ago))).copied().unwrap_or_default())
            .collect()
    }

    /// The last `count` hours up to now, the oldest first.
    pub fn hours(&self, now_ms: u64, count: u64) -> Vec<Sums> {
        let hour = now_ms / HOUR;
        (0..count)
            .rev()
            .map(|ago| self.hours.get(&(hour.saturating_sub(ago))).copied().unwrap_or_default())
            .collect()
    }

    /// All of the last `count` days.
    pub fn total(&self, now_ms: u64, count: u64) -> Sums {
        self.days(now_ms, count).into_iter().fold(Sums::default(), Sums::plus)
    }
}

#[derive(Default)]
struct State {
    ways: BTreeMap<Way, Seen>,
    read: u64,
    problem: Option<String>,
}

/// See the module's text.
#[derive(Default)]
pub struct Traffic(Mutex<State>);

impl Traffic {
    /// Follows the gateway's own log on a thread of its own, until the gateway is gone.
    pub fn follow(gateway: &Arc<Shared>) -> std::io::Result<Arc<Self>> {
        let traffic = Arc::new(Self::default());
        let (dir, vkey) = (gateway.ledger.dir().to_owned(), gateway.ledger.vkey().to_owned());
        let (gateway, them) = (Arc::downgrade(gateway), Arc::clone(&traffic));
        std::thread::Builder::new().name("console-traffic".to_owned()).spawn(move || {
            while gateway.strong_count() > 0 {
                let problem = them.read(&dir, &vkey).err();
                them.state().problem = problem;
                std::thread::sleep(LOOK);
            }
        })?;
        Ok(traffic)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the newest checkpoint has more. The pages are locked out for a bundle at a time, not while a disk is read.
    fn read(&self, dir: &Path, vkey: &str) -> Result<(), String> {
        let Some(head) = read_head(dir, vkey).map_err(|e| e.to_string())? else { return Ok(()) };
        loop {
            let read = self.state().read;
            if read >= head.size {
                return Ok(());
            }
            let leaves = bundle(dir, read / WIDTH, head.size)?;
            let mut state = self.state();
            let skip = usize::try_from(read % WIDTH).unwrap_or(0);
            for leaf in leaves.iter().skip(skip) {
                let index = state.read;
                state.read += 1;
                if let Some(from) = &leaf.from {
                    let way = Way { jurisdiction: leaf.jurisdiction.clone(), from: from.clone() };
                    state.ways.entry(way).or_default().add(index, leaf);
                }
            }
            if state.read == read {
                return Err("a bundle of the log is shorter than its checkpoint says".to_owned());
            }
        }
    }

    /// All ways that something went.
    pub fn ways(&self) -> Vec<(Way, Seen)> {
        self.state().ways.iter().map(|(way, seen)| (way.clone(), seen.clone())).collect()
    }

    /// What went one way.
    pub fn way(&self, way: &Way) -> Option<Seen> {
        self.state().ways.get(way).cloned()
    }

    /// How many entries are counted, and why no more, if something is wrong.
    pub fn progress(&self) -> (u64, Option<String>) {
        let state = self.state();
        (state.read, state.problem.clone())
    }
}

/// The leaves of one bundle, as far as a log of `size` entries has it.
pub(crate) fn bundle(dir: &Path, n: u64, size: u64) -> Result<Vec<Leaf>, String> {
    let width = usize::try_from((size - n * WIDTH).min(WIDTH)).unwrap_or(1);
    let read = |width| std::fs::read(dir.join(PathBuf::from(path(Shelf::Entries, n, width))));
    // A partial bundle goes when the full one is there.
    let bytes = read(width).or_else(|_| read(256)).map_err(|e| format!("a bundle of the log: {e}"))?;
    let entries = split_bundle(&bytes).ok_or("a bundle of the log is not whole")?;
    entries
        .into_iter()
        .take(width)
        .map(|leaf| serde_json::from_slice(leaf).map_err(|e| e.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(kind: Kind, time: u64, covered: bool) -> Leaf {
        let counters = ringfence_verifier::record::Counters { rows: 5, bytes: 70, ..Default::default() };
        Leaf {
            v: 1,
            kind,
            time,
            jurisdiction: "us".to_owned(),
            counters,
            from: Some("SG".to_owned()),
            covered,
            commitment: String::new(),
        }
    }

    #[test]
    fn days_and_hours_are_told_apart_and_what_is_old_goes() {
        let mut seen = Seen::default();
        let day = 24 * HOUR;
        seen.add(0, &leaf(Kind::Intent, 10 * day, true));
        seen.add(1, &leaf(Kind::Outcome, 10 * day + HOUR, false));
        seen.add(2, &leaf(Kind::Refused, 11 * day, false));
        let now = 11 * day + 5;
        let two = seen.days(now, 2);
        assert_eq!((two[0].statements, two[0].covered, two[0].rows, two[0].bytes), (1, 1, 5, 70));
        assert_eq!((two[1].statements, two[1].refused), (0, 1));
        assert_eq!(seen.hours(now, 24).iter().map(|s| s.rows).sum::<u64>(), 5);
        assert_eq!(seen.total(now, 1).rows, 0);
        assert_eq!(seen.recent, [0, 2]);
        seen.add(3, &leaf(Kind::Intent, (11 + DAYS) * day, false));
        assert_eq!(seen.days.len(), 2, "the day before the year is gone");
        assert_eq!(seen.hours.len(), 1);
        for n in 0..500 {
            seen.add(n, &leaf(Kind::Intent, (11 + DAYS) * day, false));
        }
        assert_eq!((seen.recent.len(), seen.recent.back()), (RECENT, Some(&499)));
    }
}
