//! The index: every statement of a log as a row of numbers, sorted by its end. It is built from the private records in one
//! pass and bounded memory, continues where it stopped, and is never the truth: what it answers is proven from the log.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use ringfence_meter::{Group, Reached};
use ringfence_statement::column_refs::UNKNOWN;
use ringfence_statement::settings::Settings;
use ringfence_statement::shape;
use ringfence_verifier::checkpoint::read_head;
use ringfence_verifier::record::{Kind, Leaf};
use ringfence_verifier::segment::Records;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::columns::{Column, write_whole};
use crate::texts::{Part, Remembered, Texts};

/// What an index of another program version is not.
const VERSION: u32 = 5;
/// Marks a row that goes on with a statement whose first part has ended, as a portal that is fetched in pieces.
pub(crate) const AGAIN: u32 = 1 << 31;
/// Statements of a session that are remembered after their end: a portal may go on.
const REMEMBERED: usize = 64;
/// Stands for "there is none".
pub(crate) const NONE: u64 = u64::MAX;
/// Shapes whose columns are remembered.
const SHAPES: usize = 100_000;

/// The columns of statements, with their widths in bytes: when it began and ended (milliseconds since 1970), whose session,
/// which set of columns, and its entries.
pub(crate) const STATEMENTS: [(&str, usize); 8] = [
    ("ended", 8),
    ("began", 8),
    ("session", 4),
    ("columns", 4),
    ("intent", 8),
    ("outcome", 8),
    ("rows", 8),
    ("bytes", 8),
];
/// The columns of sessions; words are numbers of [`State::words`].
pub(crate) const SESSIONS: [(&str, usize); 10] = [
    ("s-opened", 8),
    ("s-entry", 8),
    ("s-person", 4),
    ("s-location", 4),
    ("s-employer", 4),
    ("s-covered", 4),
    ("s-store", 4),
    ("s-jurisdiction", 4),
    ("s-face", 4),
    ("s-grants", 4),
];

/// The columns of people who were reached: a hash ([`ringfence_meter::SubjectKey::id`]), and the statement's intent. A hash of
/// [`NONE`] stands for people who could not be told apart.
pub(crate) const SUBJECTS: [(&str, usize); 2] = [("u-subject", 8), ("u-intent", 8)];

/// The columns of texts that are in another entry: the statement's intent, and that entry.
pub(crate) const TEXTS: [(&str, usize); 2] = [("t-intent", 8), ("t-entry", 8)];

/// The columns of rows charged to grants with a limit: the outcome's entry, the grant (a number of
/// [`State::words`]), and how many.
pub(crate) const CHARGES: [(&str, usize); 3] = [("c-outcome", 8), ("c-grant", 4), ("c-rows", 8)];

/// A statement that has not ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) began: u64,
    pub(crate) columns: u32,
    pub(crate) intent: u64,
}

/// A grant's request, as far as questions are about it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) purpose: String,
    /// The entry with the request.
    pub(crate) entry: u64,
    /// The entries with its approvals, and the one that put it in force.
    pub(crate) approvals: Vec<u64>,
    pub(crate) granted: Option<u64>,
}

/// Everything but the columns of numbers.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    pub(crate) origin: String,
    pub(crate) dir: PathBuf,
    /// Entries that are in the index.
    pub(crate) entries: u64,
    pub(crate) statements: u64,
    pub(crate) sessions: u64,
    /// How many times somebody was reached.
    pub(crate) subjects: u64,
    /// Statements whose text another entry has.
    pub(crate) texts: u64,
    /// Charges to grants.
    pub(crate) charges: u64,
    /// Entries whose records were erased: of those the index can say nothing.
    #[serde(default)]
    pub(crate) erased: u64,
    /// The time of the last entry.
    pub(crate) newest: u64,
    /// Words, each once.
    pub(crate) words: Vec<String>,
    /// Requests by their name.
    pub(crate) requests: BTreeMap<String, Asked>,
    /// When rules came into force, and their entries: what an answer is judged by.
    pub(crate) policies: Vec<(u64, u64)>,
    /// Sessions that are open, by name.
    open_sessions: HashMap<String, u32>,
    /// Statements that are under way: session, number, and the rest.
    pub(crate) open: Vec<(u32, u64, Open)>,
    /// The same of statements that have ended in sessions that go on.
    recent: Vec<(u32, u64, Open)>,
    /// Texts of open sessions: session, digest, set of columns, entry.
    told: Vec<(u32, String, u32, u64)>,
    /// The longest that a statement took, in milliseconds.
    pub(crate) longest: u64,
}

/// The parts of records that the index needs.
#[derive(Deserialize)]
struct SessionRecord {
    session: String,
    principal: String,
    location: String,
    employer: Option<String>,
    covered: Option<String>,
    store: String,
    face: String,
    grants: Vec<String>,
}

#[derive(Deserialize)]
struct IntentRecord {
    session: String,
    n: u64,
    #[serde(default)]
    principal: String,
    #[serde(default)]
    store: String,
    #[serde(flatten)]
    texts: Texts,
}

#[derive(Deserialize)]
struct OutcomeRecord {
    session: String,
    n: u64,
    #[serde(default)]
    charged: BTreeMap<String, u64>,
    #[serde(default)]
    reached: Vec<Group>,
}

#[derive(Deserialize)]
struct ClosedRecord {
    session: String,
}

#[derive(Deserialize)]
struct RequestRecord {
    request: String,
}

#[derive(Deserialize)]
struct AboutRequest {
    id: String,
}

/// How far an index is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Entries read.
    pub entries: u64,
    /// Entries under the checkpoint.
    pub of: u64,
}

/// An index that is being built.
pub(crate) struct Builder {
    dir: PathBuf,
    /// How many entries the index had when it was opened.
    began_at: u64,
    state: State,
    numbers: HashMap<String, u32>,
    shapes: HashMap<String, u32>,
    /// The sets of columns of texts, and their entries.
    told: Remembered<u32, (u32, u64)>,
    /// Statements that are under way, by session and number.
    open: BTreeMap<(u32, u64), Open>,
    /// Statements that have ended, of open sessions, the newest last.
    recent: HashMap<u32, VecDeque<(u64, Open)>>,
    statements: Vec<Column>,
    sessions: Vec<Column>,
    subjects: Vec<Column>,
    texts: Vec<Column>,
    charges: Vec<Column>,
}

fn state_path(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

/// Reads the state of an index; `None` if there is none, or one of another version.
pub(crate) fn read_state(dir: &Path) -> Option<State> {
    let state: State = serde_json::from_slice(&std::fs::read(state_path(dir)).ok()?).ok()?;
    (state.version == VERSION).then_some(state)
}

/// Brings the index in `dir` up to the checkpoint of the log in `log`. Begins anew where the index is not of this log.
pub fn update(
    dir: &Path,
    log: &Path,
    vkeys: &str,
    mut progress: impl FnMut(Progress),
) -> Result<Progress, Error> {
    match advance(dir, log, vkeys, &mut progress) {
        Err(Error::Erased) => {
            std::fs::remove_dir_all(dir).map_err(Error::io("cannot remove", dir))?;
            advance(dir, log, vkeys, &mut progress)
        }
        done => done,
    }
}

fn advance(
    dir: &Path,
    log: &Path,
    vkeys: &str,
    progress: &mut impl FnMut(Progress),
) -> Result<Progress, Error> {
    let head = read_head(log, vkeys)?.ok_or_else(|| Error::corrupt(log, "there is no checkpoint here"))?;
    let origin = ringfence_verifier::keys::origin(vkeys).unwrap_or_default();
    let mut builder = Builder::open(dir, log, origin, head.size)?;
    let mut at = Progress { entries: builder.state.entries, of: head.size };
    let mut records = Records::open_at(log, at.entries)?
        .ok_or_else(|| Error::corrupt(log, "there are no private records here"))?;
    let mut problems = Vec::new();
    while at.entries < head.size {
        let index = records.index();
        let Some(entry) = records.next(&mut problems) else {
            let problem =
                problems.pop().unwrap_or_else(|| format!("the records from entry {index} on are missing"));
            return Err(Error::corrupt(log, problem));
        };
        if index < at.entries {
            continue;
        }
        let leaf = entry.parse_leaf().map_err(|e| Error::corrupt(log, format!("entry {index}: {e}")))?;
        if entry.is_erased() {
            builder.state.erased += 1;
            builder.state.newest = leaf.time;
            at.entries += 1;
            continue;
        }
        builder.entry(index, &leaf, &entry.record).map_err(|e| match e {
            Broken::Io(e) => e,
            Broken::Erased => Error::Erased,
            Broken::Record => Error::corrupt(
                log,
                format!("entry {index}: its record lacks what this kind of entry must have"),
            ),
        })?;
        at.entries += 1;
        if at.entries.is_multiple_of(100_000) {
            progress(at);
        }
    }
    builder.finish(at.entries)?;
    progress(at);
    Ok(at)
}

enum Broken {
    Io(Error),
    Record,
    /// Records that the index was made of were erased since.
    Erased,
}

impl From<Error> for Broken {
    fn from(e: Error) -> Self {
        Self::Io(e)
    }
}

impl From<serde_json::Error> for Broken {
    fn from(_: serde_json::Error) -> Self {
        Self::Record
    }
}

impl Builder {
    fn open(dir: &Path, log: &Path, origin: &str, size: u64) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(Error::io("cannot create", dir))?;
        let known = read_state(dir).filter(|s| s.origin == origin && s.entries <= size);
        let mut state = known.unwrap_or_else(|| State {
            version: VERSION,
            origin: origin.to_owned(),
            ..State::default()
        });
        log.clone_into(&mut state.dir);
        let columns = |of: &[(&str, usize)], rows: u64| -> Result<Vec<Column>, Error> {
            of.iter().map(|(name, width)| Column::open(dir.join(name), *width, rows)).collect()
        };
        let statements = columns(&STATEMENTS, state.statements)?;
        let sessions = columns(&SESSIONS, state.sessions)?;
        let subjects = columns(&SUBJECTS, state.subjects)?;
        let texts = columns(&TEXTS, state.texts)?;
        let charges = columns(&CHARGES, state.charges)?;
        let mut told = Remembered::default();
        for (session, digest, set, entry) in state.told.drain(..) {
            told.insert(session, &digest, (set, entry));
        }
        let open = state.open.drain(..).map(|(session, n, open)| ((session, n), open)).collect();
        let mut recent: HashMap<u32, VecDeque<(u64, Open)>> = HashMap::new();
        for (session, n, open) in state.recent.drain(..) {
            recent.entry(session).or_default().push_back((n, open));
        }
        let numbers = (0..).zip(&state.words).map(|(n, word)| (word.clone(), n)).collect();
        let began_at = state.entries;
        Ok(Self {
            dir: dir.to_owned(),
            began_at,
            state,
            numbers,
            shapes: HashMap::new(),
            told,
            open,
            recent,
            statements,
            sessions,
            subjects,
            texts,
            charges,
        })
    }

    fn word(&mut self, word: &str) -> u32 {
        if let Some(&number) = self.numbers.get(word) {
            return number;
        }
        let number = u32::try_from(self.state.words.len()).unwrap_or(u32::MAX);
        self.state.words.push(word.to_owned());
        self.numbers.insert(word.to_owned(), number);
        number
    }

    fn entry(&mut self, index: u64, leaf: &Leaf, record: &[u8]) -> Result<(), Broken> {
        self.state.newest = leaf.time;
        match leaf.kind {
            Kind::SessionOpened => self.opened(index, leaf, serde_json::from_slice(record)?)?,
            Kind::Intent => {
                let intent: IntentRecord = serde_json::from_slice(record)?;
                let session = match self.state.open_sessions.get(&intent.session) {
                    Some(session) => *session,
                    None => self.unopened(index, leaf, &intent)?,
                };
                let columns = self.columns(session, index, &intent.texts)?;
                self.open.insert((session, intent.n), Open { began: leaf.time, columns, intent: index });
            }
            Kind::Outcome => {
                let outcome: OutcomeRecord = serde_json::from_slice(record)?;
                if let Some(&session) = self.state.open_sessions.get(&outcome.session) {
                    self.reached(session, outcome.n, &outcome.reached)?;
                    self.charged(index, &outcome.charged)?;
                    self.outcome(session, outcome.n, index, leaf)?;
                }
            }
            Kind::Reached => {
                let reached: Reached<'_> = serde_json::from_slice(record)?;
                if let Some(&session) = self.state.open_sessions.get(&*reached.session) {
                    self.reached(session, reached.n, &reached.reached)?;
                }
            }
            Kind::SessionClosed => {
                let closed: ClosedRecord = serde_json::from_slice(record)?;
                if let Some(session) = self.state.open_sessions.remove(&closed.session) {
                    self.recent.remove(&session);
                    self.told.forget(&session);
                    self.abandon(leaf, Some(session))?;
                }
            }
            // Whatever was under way when a gateway died has no end on record.
            Kind::GatewayStarted => {
                self.abandon(leaf, None)?;
                self.state.open_sessions.clear();
                self.recent.clear();
                self.told.clear();
            }
            Kind::Requested => {
                let record: RequestRecord = serde_json::from_slice(record)?;
                let request: serde_json::Value = serde_json::from_str(&record.request)?;
                let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
                let asked = Asked { purpose: text("purpose"), entry: index, ..Asked::default() };
                self.state.requests.entry(text("id")).or_insert(asked);
            }
            Kind::Approved => self.about(record, |asked| asked.approvals.push(index))?,
            Kind::Granted => self.about(record, |asked| asked.granted = Some(index))?,
            // What was read before may be gone now.
            Kind::Erased if self.began_at > 0 => return Err(Broken::Erased),
            Kind::PolicyChanged => self.state.policies.push((leaf.time, index)),
            _ => {}
        }
        Ok(())
    }

    /// A session whose opening is not on record, or was erased: its statements are told by what they say themselves.
    fn unopened(&mut self, index: u64, leaf: &Leaf, intent: &IntentRecord) -> Result<u32, Error> {
        let record = SessionRecord {
            session: intent.session.clone(),
            principal: intent.principal.clone(),
            location: leaf.from.clone().unwrap_or_else(|| "unknown".to_owned()),
            employer: None,
            covered: leaf.covered.then(|| "so its public leaf says".to_owned()),
            store: intent.store.clone(),
            face: String::new(),
            grants: Vec::new(),
        };
        self.opened(index, leaf, record)?;
        Ok(u32::try_from(self.state.sessions - 1).unwrap_or(u32::MAX))
    }

    /// A statement reached people.
    fn reached(&mut self, session: u32, n: u64, groups: &[Group]) -> Result<(), Error> {
        let open = self.open.get(&(session, n)).copied();
        let recent = || self.recent.get(&session)?.iter().find(|(number, _)| *number == n).map(|(_, o)| *o);
        let Some(open) = open.or_else(recent) else { return Ok(()) };
        for group in groups {
            let unknown = (group.rows > 0 || group.all > 0).then_some(NONE);
            for id in group.ids.iter().copied().chain(unknown) {
                for (column, value) in self.subjects.iter_mut().zip([id, open.intent]) {
                    column.push(value)?;
                }
                self.state.subjects += 1;
            }
        }
        Ok(())
    }

    fn outcome(&mut self, session: u32, n: u64, index: u64, leaf: &Leaf) -> Result<(), Error> {
        if let Some(open) = self.open.remove(&(session, n)) {
            let recent = self.recent.entry(session).or_default();
            if recent.len() >= REMEMBERED {
                recent.pop_front();
            }
            recent.push_back((n, open));
            return self.ended(session, open, Some(index), leaf);
        }
        let known =
            self.recent.get(&session).and_then(|r| r.iter().find(|(number, _)| *number == n)).copied();
        if let Some((_, open)) = known {
            return self.ended(session, Open { columns: open.columns | AGAIN, ..open }, Some(index), leaf);
        }
        Ok(())
    }

    fn about(&mut self, record: &[u8], change: impl FnOnce(&mut Asked)) -> Result<(), Broken> {
        let about: AboutRequest = serde_json::from_slice(record)?;
        if let Some(asked) = self.state.requests.get_mut(&about.id) {
            change(asked);
        }
        Ok(())
    }

    fn opened(&mut self, index: u64, leaf: &Leaf, record: SessionRecord) -> Result<(), Error> {
        let grants = record.grants.join(" ");
        let words = [
            record.principal.as_str(),
            &record.location,
            record.employer.as_deref().unwrap_or_default(),
            record.covered.as_deref().unwrap_or_default(),
            &record.store,
            &leaf.jurisdiction,
            &record.face,
            &grants,
        ]
        .map(|word| self.word(word));
        let number = u32::try_from(self.state.sessions).unwrap_or(u32::MAX);
        let values = [leaf.time, index].into_iter().chain(words.map(u64::from));
        for (column, value) in self.sessions.iter_mut().zip(values) {
            column.push(value)?;
        }
        self.state.sessions += 1;
        self.state.open_sessions.insert(record.session, number);
        Ok(())
    }

    /// The number of the set of columns that a statement reaches, by all its texts.
    fn columns(&mut self, session: u32, index: u64, texts: &Texts) -> Result<u32, Error> {
        let mut sets = Vec::new();
        for (part, digest) in texts.parts() {
            let set = match part {
                Part::Here(text, settings) => {
                    let set = self.columns_of(texts, text, settings);
                    if let Some(digest) = digest {
                        self.told.insert(session, digest, (set, index));
                    }
                    set
                }
                Part::There(digest) => match self.told.get(&session, digest) {
                    Some((set, entry)) => {
                        for (column, value) in self.texts.iter_mut().zip([index, entry]) {
                            column.push(value)?;
                        }
                        self.state.texts += 1;
                        set
                    }
                    // Its entry was erased, or is not in this log: it may have reached anything.
                    None => self.word(UNKNOWN),
                },
            };
            sets.push(set);
        }
        if texts.is_unknown() {
            sets.push(self.word(UNKNOWN));
        }
        sets.sort_unstable();
        sets.dedup();
        Ok(match sets.as_slice() {
            [one] => *one,
            sets => {
                let word = |set: &u32| self.state.words.get(*set as usize).map_or("", String::as_str);
                let all: BTreeSet<&str> = sets.iter().flat_map(|set| word(set).split_whitespace()).collect();
                let all = Vec::from_iter(all).join(" ");
                self.word(&all)
            }
        })
    }

    /// That of one text, remembered by the text.
    fn columns_of(&mut self, texts: &Texts, text: &str, settings: Settings) -> u32 {
        // Under settings of its own, or with names in it, a text is read each time.
        let is_plain = texts.is_plain();
        let known = || shape::with_key(text, |key| self.shapes.get(key).copied());
        if let Some(known) = is_plain.then(known).flatten() {
            return known;
        }
        let set: Vec<String> = texts.columns_of(text, settings).into_iter().collect();
        let number = self.word(&set.join(" "));
        if self.shapes.len() >= SHAPES {
            self.shapes.clear();
        }
        if is_plain {
            shape::with_key(text, |key| self.shapes.insert(key.to_owned(), number));
        }
        number
    }

    /// Rows were charged to grants.
    fn charged(&mut self, outcome: u64, charged: &BTreeMap<String, u64>) -> Result<(), Error> {
        for (grant, rows) in charged {
            let grant = u64::from(self.word(grant));
            for (column, value) in self.charges.iter_mut().zip([outcome, grant, *rows]) {
                column.push(value)?;
            }
            self.state.charges += 1;
        }
        Ok(())
    }

    fn ended(&mut self, session: u32, open: Open, outcome: Option<u64>, leaf: &Leaf) -> Result<(), Error> {
        let counters =
            if outcome.is_some() { leaf.counters } else { ringfence_verifier::Counters::default() };
        let values = [
            leaf.time,
            open.began,
            u64::from(session),
            u64::from(open.columns),
            open.intent,
            outcome.unwrap_or(NONE),
            counters.rows,
            counters.bytes,
        ];
        for (column, value) in self.statements.iter_mut().zip(values) {
            column.push(value)?;
        }
        self.state.statements += 1;
        self.state.longest = self.state.longest.max(leaf.time.saturating_sub(open.began));
        Ok(())
    }

    /// Statements that will not end any more: those of a session, or all.
    fn abandon(&mut self, leaf: &Leaf, of: Option<u32>) -> Result<(), Error> {
        let gone: Vec<((u32, u64), Open)> = match of {
            Some(session) => {
                self.open.range((session, 0)..=(session, u64::MAX)).map(|(k, v)| (*k, *v)).collect()
            }
            None => self.open.iter().map(|(k, v)| (*k, *v)).collect(),
        };
        for ((session, n), open) in gone {
            self.open.remove(&(session, n));
            self.ended(session, open, None, leaf)?;
        }
        Ok(())
    }

    fn finish(mut self, entries: u64) -> Result<(), Error> {
        let all = [
            &mut self.statements,
            &mut self.sessions,
            &mut self.subjects,
            &mut self.texts,
            &mut self.charges,
        ];
        for column in all.into_iter().flatten() {
            column.flush()?;
        }
        self.state.told =
            self.told.into_all().map(|(s, digest, (set, entry))| (s, digest, set, entry)).collect();
        self.state.entries = entries;
        self.state.open = self.open.into_iter().map(|((session, n), open)| (session, n, open)).collect();
        let recent =
            self.recent.into_iter().flat_map(|(s, all)| all.into_iter().map(move |(n, open)| (s, n, open)));
        self.state.recent = recent.collect();
        let bytes = serde_json::to_vec(&self.state).map_err(|e| Error::corrupt(&self.dir, e.to_string()))?;
        write_whole(&state_path(&self.dir), &bytes)
    }
}
