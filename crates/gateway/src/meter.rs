//! The meter while it runs: one tally for all sessions, made from the ledger at the start, and what is needed to know whom a
//! result is about.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfence_face::{Found, Login, Steward};
use ringfence_meter::subject::Id;
use ringfence_meter::tally::{Line, Meaning, Reader, Seen, table_name};
use ringfence_meter::{Exceeded, Group, SubjectKey, Tally, Who, replay};
use ringfence_policy::{Measure, Registry};
use ringfence_verifier::checkpoint::read_head;

/// The most people of tables that are remembered, in all.
const REMEMBERED: usize = 1 << 20;
/// The most rows of a table that are read to count the people in it: more than any threshold of the rule.
pub const LOOKED_AT: u64 = 200_000;

/// Another gateway's log.
#[derive(Clone, Debug)]
pub struct OtherLog {
    /// Its folder.
    pub dir: PathBuf,
    /// Its public keys.
    pub vkey: String,
}

/// A table as a face shows it, by a key.
type Place = (String, String, String, Option<String>);

/// People of tables, by what the store says that changes with them.
#[derive(Default)]
struct Remembered {
    of: HashMap<Place, (String, Arc<[Id]>)>,
    people: usize,
}

/// The people in all rows of a table.
#[derive(Clone, Debug)]
pub enum Everybody {
    /// These, each once.
    These(Arc<[Id]>),
    /// More than can be told apart, of what a face with this name shows: at least so many rows.
    Many(String, u64),
}

/// See the module's text.
pub struct Meter {
    tally: Mutex<Tally>,
    key: SubjectKey,
    everybody: Mutex<Remembered>,
    /// Other logs, and how far they have been read.
    others: Mutex<Vec<(OtherLog, u64)>>,
}

/// Something new was counted, or not.
#[derive(Debug, Default)]
pub struct Counted {
    /// It must be on record before it is shown.
    pub is_new: bool,
    /// Limits of which the person should hear.
    pub warnings: Vec<Exceeded>,
}

impl Meter {
    /// Reads what was reached before from the gateway's own log and others.
    pub fn open(
        registry: &Registry,
        secret: &[u8],
        own: &std::path::Path,
        others: &[OtherLog],
    ) -> Result<Self, ringfence_verifier::Error> {
        let now = ringfence_ledger::now_ms();
        let mut tally = Tally::bounded(&registry.thresholds, &registry.limits);
        let entries = replay::count(&mut tally, own, None, now, |at| {
            tracing::info!(entries = at.entries, "reading the ledger for the meter");
        })?;
        tracing::debug!(entries, "the meter is read");
        if tally.erased > 0 {
            tracing::warn!(
                entries = tally.erased,
                "records were erased that the meter would have counted: it counts less than was reached"
            );
        }
        let meter = Self {
            tally: Mutex::new(tally),
            key: SubjectKey::new(secret),
            everybody: Mutex::default(),
            others: Mutex::new(others.iter().map(|log| (log.clone(), 0)).collect()),
        };
        meter.follow()?;
        Ok(meter)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what other gateways have put on record since the last time.
    pub fn follow(&self) -> Result<(), ringfence_verifier::Error> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        for (log, read) in others.iter_mut() {
            let Some(head) = read_head(&log.dir, &log.vkey)? else { continue };
            if head.size > *read {
                // The tally is locked for each record, not while a disk is read.
                let now = ringfence_ledger::now_ms();
                *read = replay::read(
                    &log.dir,
                    *read,
                    Some(head.size),
                    now,
                    |found| self.tally().replay(found),
                    |_| {},
                )?;
            }
        }
        Ok(())
    }

    /// Whether other rules count by the same thresholds; then their limits are in force from here on.
    pub fn replace_limits(&self, registry: &Registry) -> bool {
        let mut tally = self.tally();
        let is_same = tally.thresholds() == registry.thresholds;
        if is_same {
            tally.replace_limits(&registry.limits);
        }
        is_same
    }

    /// Whom a session's reading is counted for.
    pub fn reader(&self, who: Who<'_>) -> Reader {
        self.tally().reader(who)
    }

    /// What counts of a group.
    pub fn meaning(&self, group: &Group) -> Meaning {
        self.tally().meaning(group)
    }

    /// In which units a category is counted.
    pub fn units(&self, category: &str) -> std::collections::BTreeSet<ringfence_policy::Unit> {
        self.tally().units(category)
    }

    /// For the keys in a column.
    pub fn key(&self, kind: &str, is_token: bool) -> SubjectKey {
        self.key.of_column(kind, is_token)
    }

    /// Counts what is about to be shown, unless a limit forbids it. `asked` is when the session's newest grant was asked for.
    pub fn count(
        &self,
        reader: &Reader,
        meaning: &Meaning,
        seen: Seen<'_>,
        asked: Option<u64>,
    ) -> Result<Counted, Exceeded> {
        let now = ringfence_ledger::now_ms();
        let mut tally = self.tally();
        tally.advance(now);
        if tally.is_known(reader, meaning, seen) {
            return Ok(Counted::default());
        }
        let mut counted = Counted { is_new: true, warnings: Vec::new() };
        for exceeded in tally.exceeded(reader, meaning, seen, now) {
            match exceeded.then {
                Measure::Refuse => return Err(exceeded),
                Measure::Approve if asked.is_none_or(|asked| asked < exceeded.since) => return Err(exceeded),
                Measure::Approve => {}
                Measure::Warn => counted.warnings.push(exceeded),
            }
        }
        tally.see(reader, meaning, seen, now);
        Ok(counted)
    }

    /// The meter as it is.
    pub fn lines(&self) -> Vec<Line> {
        self.tally().lines(ringfence_ledger::now_ms())
    }

    /// Whom a table is about, as a face shows it now. `keys` makes hashes of keys, `rows` of rows without one.
    pub async fn everybody(
        &self,
        steward: &Steward,
        (store, login): (&str, &Login),
        (schema, table): (&str, &str),
        key: Option<&str>,
        (keys, rows): (&SubjectKey, &SubjectKey),
    ) -> Result<Everybody, ringfence_face::Error> {
        let place = (table_name(store, table), login.face.clone(), schema.to_owned(), key.map(str::to_owned));
        let known = self.remembered().of.get(&place).cloned();
        let state = known.as_ref().map(|(state, _)| &**state);
        let found = steward.people(login, (schema, table), key, LOOKED_AT, state).await?;
        let ids: Arc<[Id]> = match (found.who, known) {
            (Found::AsBefore, Some((_, ids))) => return Ok(Everybody::These(ids)),
            (Found::AsBefore, None) => Arc::from([]), // nothing was known that it could be equal to
            (Found::Many(rows), _) => {
                return Ok(Everybody::Many(format!("{}/{}", place.0, login.face), rows));
            }
            (Found::These { keys: of_keys, rows: of_rows }, _) => {
                let hashes = of_keys.iter().map(|k| keys.id(k.as_bytes()));
                hashes.chain(of_rows.iter().map(|r| rows.id(r.as_bytes()))).collect()
            }
        };
        let mut remembered = self.remembered();
        if remembered.people + ids.len() > REMEMBERED {
            *remembered = Remembered::default();
        }
        remembered.people += ids.len();
        if let Some((_, before)) = remembered.of.insert(place, (found.state, Arc::clone(&ids))) {
            remembered.people -= before.len();
        }
        Ok(Everybody::These(ids))
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.everybody.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of many people who must be on record before something of them is shown.
    pub fn new_of(&self, reader: &Reader, meaning: &Meaning, ids: &[Id]) -> Vec<Id> {
        let mut new: Vec<Id> = Vec::new();
        // Others count meanwhile.
        for some in ids.chunks(4096) {
            let mut tally = self.tally();
            tally.advance(ringfence_ledger::now_ms());
            new.extend(some.iter().filter(|id| !tally.is_known(reader, meaning, Seen::One(**id))));
        }
        new.sort_unstable();
        new.dedup();
        new
    }
}
