//! The side door: PostgreSQL's own log beside the ledger, for the trusted host. A connection or a statement that did not come
//! through the gateway, or that a gateway ran without recording it, is named.
//!
//! Both are read side by side in the order of time, with a window between them, so gigabytes need little memory. A statement
//! needs an intent of its own: the same role, the same text, within the window. Those of counted workloads need to be counted:
//! at no time may the store have run more of a shape than the ledger has counted soon after.

pub mod follow;
mod own;
mod server_log;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};

use ringfence_statement::shape;
use ringfence_verifier::checkpoint::read_head;
use ringfence_verifier::record::{Kind, Leaf};
use ringfence_verifier::segment::Records;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use self::server_log::{Line, ServerLog, Via, What};
use crate::Error;
use crate::texts::Texts;

/// How far apart the store's clock and a gateway's may put a statement, in milliseconds: it may have queued for a connection.
const WINDOW: u64 = 120_000;
/// How long after a statement of a workload its count is in the ledger, in milliseconds: they are written each minute.
const COUNTED_WITHIN: u64 = 90_000;
/// The longest text that a ledger's record holds whole, in bytes.
const RECORDED: usize = 256 * 1024;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The store, as the ledger calls it.
    pub store: String,
    /// The store's database.
    pub database: String,
    /// The role with which gateways keep faces.
    pub steward: String,
    /// Roles that may connect past the gateway, as for replication or backups.
    pub allowed: Vec<String>,
    /// Nothing before this is compared, in milliseconds since 1970.
    pub since: u64,
}

/// Something that did not come through the gateway, or that was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// What it is.
    pub what: Problem,
    /// The store's role.
    pub role: String,
    /// The database.
    pub database: String,
    /// From where.
    pub address: String,
    /// PostgreSQL's name for the session.
    pub session: String,
    /// SHA-256 of the statement's text, in hex. The text itself may be anybody's data: it is in the server's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_digest: Option<String>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// A connection by a role that no gateway uses.
    Connection,
    /// A statement that no ledger has.
    Statement,
    /// A workload's statement that no gateway has counted.
    NotCounted,
    /// The steward's role read or changed user data.
    Steward,
    /// A function call past the grammar.
    FastPath,
    /// A record in words that are not understood: what it hides, nobody can tell.
    NotUnderstood,
}

impl Problem {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Connection => "a connection that did not come through the gateway",
            Self::Statement => "a statement that no gateway has recorded",
            Self::NotCounted => "a workload's statement that no gateway has counted",
            Self::Steward => "the steward's role reached user data",
            Self::FastPath => "a function call that no gateway has recorded",
            Self::NotUnderstood => "a record that is not understood (is lc_messages 'C'?)",
        }
    }
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Sessions of the store.
    pub sessions: u64,
    /// Statements that the ledger has.
    pub recorded: u64,
    /// Statements of workloads that the ledger has counted.
    pub counted: u64,
    /// The gateways' own.
    pub own: u64,
    /// Sessions of allowed roles.
    pub allowed: u64,
    /// Statements of workloads that are too new to be in the ledger.
    pub not_yet: u64,
    /// Findings.
    pub findings: u64,
    /// From when, in milliseconds since 1970.
    pub from: u64,
    /// Until when.
    pub until: u64,
}

type Key = (u32, [u8; 16]);

/// What a role of the store is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Its statements are recorded one by one.
    Recorded,
    /// They are counted.
    Counted,
}

/// The ledgers' side, read up to a time.
struct Ledgers {
    logs: Vec<LogReader>,
    store: String,
    roles: HashMap<String, (u32, Role)>,
    /// Which role a session has, by its name.
    sessions: HashMap<String, u32>,
    by_principal: HashMap<String, Vec<String>>,
    counted: HashMap<(u32, String), u64>,
    pending: HashMap<Key, VecDeque<u64>>,
    order: VecDeque<(u64, Key)>,
}

struct LogReader {
    dir: PathBuf,
    /// The public keys, where the log is followed: up to its checkpoint, as that grows.
    vkeys: Option<String>,
    /// How many entries may be read, and how many have been.
    until: u64,
    at: u64,
    records: Option<Records>,
    next: Option<(Leaf, Vec<u8>)>,
    /// The time of the last entry that was read.
    newest: u64,
    /// Up to here all counts of this gateway are read.
    counts_until: u64,
}

#[derive(Deserialize)]
struct SessionRecord {
    session: String,
    principal: String,
    store: String,
    role: String,
    /// Logs of before do not say it; there the first count does.
    #[serde(default)]
    counted: bool,
}

#[derive(Deserialize)]
struct IntentRecord {
    session: String,
    #[serde(flatten)]
    texts: Texts,
}

#[derive(Deserialize)]
struct ClosedRecord {
    session: String,
}

#[derive(Deserialize)]
struct CountedRecord {
    principal: String,
    store: String,
    shapes: Vec<ShapeCount>,
}

#[derive(Deserialize)]
struct ShapeCount {
    fingerprint: String,
    statements: u64,
}

fn digest(text: &str) -> [u8; 32] {
    let end = (0..=text.len().min(RECORDED)).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    Sha256::digest(&text[..end]).into()
}

fn key(role: u32, digest: &[u8; 32]) -> Key {
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    (role, short)
}

impl LogReader {
    fn open(dir: &Path, vkeys: Option<String>) -> Result<Self, Error> {
        let records = Records::open(dir)?;
        let Some(first) = records.as_ref().map(Records::index) else {
            return Err(Error::corrupt(dir, "there are no private records here"));
        };
        let until = if vkeys.is_some() { first } else { u64::MAX };
        let dir = dir.to_owned();
        Ok(Self { dir, vkeys, until, at: first, records, next: None, newest: 0, counts_until: 0 })
    }

    /// Looks whether a log that is followed has grown.
    fn refresh(&mut self) -> Result<(), Error> {
        let Some(vkeys) = &self.vkeys else { return Ok(()) };
        let Some(head) = read_head(&self.dir, vkeys)? else { return Ok(()) };
        if head.size <= self.until {
            return Ok(());
        }
        self.until = head.size;
        self.records = Records::open_at(&self.dir, self.at)?;
        if let Some(records) = &mut self.records {
            let mut problems = Vec::new();
            while records.index() < self.at && records.next(&mut problems).is_some() {}
        }
        if self.next.is_none() { self.advance() } else { Ok(()) }
    }

    fn advance(&mut self) -> Result<(), Error> {
        let mut problems = Vec::new();
        if self.at >= self.until {
            return Ok(());
        }
        let entry = self.records.as_mut().and_then(|r| r.next(&mut problems));
        self.at += u64::from(entry.is_some());
        if let Some(problem) = problems.pop() {
            return Err(Error::corrupt(&self.dir, problem));
        }
        self.next = match entry {
            Some(entry) => {
                let leaf = entry.parse_leaf().map_err(|e| Error::corrupt(&self.dir, e.to_string()))?;
                Some((leaf, entry.record))
            }
            None => None,
        };
        Ok(())
    }
}

impl Ledgers {
    fn new(mut logs: Vec<LogReader>, store: &str) -> Result<Self, Error> {
        for log in &mut logs {
            log.refresh()?;
            log.advance()?;
        }
        Ok(Self {
            logs,
            store: store.to_owned(),
            roles: HashMap::new(),
            sessions: HashMap::new(),
            by_principal: HashMap::new(),
            counted: HashMap::new(),
            pending: HashMap::new(),
            order: VecDeque::new(),
        })
    }

    /// Reads on until all entries up to `time` are known, and forgets intents that are too old.
    fn read_until(&mut self, time: u64, forget: u64) -> Result<(), Error> {
        loop {
            let due =
                self.logs.iter_mut().filter(|l| l.next.as_ref().is_some_and(|(leaf, _)| leaf.time <= time));
            let Some(log) = due.min_by_key(|l| l.next.as_ref().map_or(u64::MAX, |(leaf, _)| leaf.time))
            else {
                break;
            };
            let dir = log.dir.clone();
            let Some((leaf, record)) = log.next.take() else { break };
            log.advance()?;
            log.newest = leaf.time;
            log.counts_until = match leaf.kind {
                // Statements that began in the last moment may be in the next.
                Kind::Counted => leaf.time.saturating_sub(1000).max(log.counts_until),
                // There was nothing to count.
                Kind::Heartbeat => leaf.time.saturating_sub(COUNTED_WITHIN).max(log.counts_until),
                Kind::GatewayStopped => u64::MAX,
                Kind::GatewayStarted => leaf.time,
                _ => log.counts_until,
            };
            if record.is_empty() {
                continue; // erased
            }
            self.entry(&leaf, &record)
                .map_err(|_| Error::corrupt(&dir, "a record lacks what its kind must have"))?;
        }
        while self.order.front().is_some_and(|(at, _)| *at < forget) {
            let Some((at, key)) = self.order.pop_front() else { break };
            if let Some(times) = self.pending.get_mut(&key) {
                if times.front() == Some(&at) {
                    times.pop_front();
                }
                if times.is_empty() {
                    self.pending.remove(&key);
                }
            }
        }
        Ok(())
    }

    fn role(&mut self, name: &str, role: Role) -> u32 {
        let number = u32::try_from(self.roles.len()).unwrap_or(u32::MAX);
        let entry = self.roles.entry(name.to_owned()).or_insert((number, role));
        entry.0
    }

    fn entry(&mut self, leaf: &Leaf, record: &[u8]) -> Result<(), serde_json::Error> {
        match leaf.kind {
            Kind::SessionOpened => {
                let opened: SessionRecord = serde_json::from_slice(record)?;
                if opened.store == self.store {
                    let kind = if opened.counted { Role::Counted } else { Role::Recorded };
                    let role = self.role(&opened.role, kind);
                    if let Some(known) = self.roles.get_mut(&opened.role).filter(|_| opened.counted) {
                        known.1 = Role::Counted;
                    }
                    self.sessions.insert(opened.session, role);
                    let theirs = self.by_principal.entry(opened.principal).or_default();
                    if !theirs.contains(&opened.role) {
                        theirs.push(opened.role);
                    }
                }
            }
            Kind::SessionClosed => {
                let closed: ClosedRecord = serde_json::from_slice(record)?;
                self.sessions.remove(&closed.session);
            }
            Kind::Intent => {
                let intent: IntentRecord = serde_json::from_slice(record)?;
                if let Some(role) = self.sessions.get(&intent.session) {
                    let digest = if intent.texts.is_undecoded() {
                        Some(digest(shape::NOT_UNDERSTOOD))
                    } else {
                        intent.texts.digest()
                    };
                    let asked = intent.texts.asks.iter().filter_map(|d| hex::decode(d).ok()?.try_into().ok());
                    for digest in digest.into_iter().chain(asked) {
                        let key = key(*role, &digest);
                        self.pending.entry(key).or_default().push_back(leaf.time);
                        self.order.push_back((leaf.time, key));
                    }
                }
            }
            Kind::Counted => {
                let counted: CountedRecord = serde_json::from_slice(record)?;
                if counted.store == self.store {
                    self.count(&counted);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, counted: &CountedRecord) {
        for name in self.by_principal.get(&counted.principal).cloned().unwrap_or_default() {
            if let Some((number, role)) = self.roles.get_mut(&name) {
                *role = Role::Counted;
                for shape in &counted.shapes {
                    *self.counted.entry((*number, shape.fingerprint.clone())).or_default() +=
                        shape.statements;
                }
            }
        }
    }

    /// Takes one count of a statement: by its shape's id, by its fingerprint, or one of those that the
    /// gateway did not understand, since it may have read the text under other settings.
    fn take_count(&mut self, role: u32, shape: &Names) -> bool {
        [shape.id.as_str(), &shape.fingerprint, shape::NOT_UNDERSTOOD].iter().any(|name| {
            let left = self.counted.get_mut(&(role, (*name).to_owned())).filter(|left| **left > 0);
            left.map(|left| *left -= 1).is_some()
        })
    }

    /// Up to when all counts are known. A gateway that has died counts no more: the others do not wait for it.
    fn counts_until(&self) -> u64 {
        let newest = self.logs.iter().map(|l| l.newest).max().unwrap_or(0);
        let alive = self.logs.iter().filter(|l| l.newest + 10 * COUNTED_WITHIN >= newest);
        alive.map(|l| l.counts_until).min().unwrap_or(0)
    }

    /// Takes the intent of a statement at `time`.
    fn take(&mut self, key: &Key, time: u64) -> bool {
        let Some(times) = self.pending.get_mut(key) else { return false };
        let Some(place) = times.iter().position(|at| at.abs_diff(time) <= WINDOW) else { return false };
        times.remove(place);
        if times.is_empty() {
            self.pending.remove(key);
        }
        true
    }
}

/// What counts call the shape of a text: its id, or libpg_query's fingerprint in logs of before 2026-11-29.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Names {
    id: String,
    fingerprint: String,
}

/// A workload's statements of one shape.
#[derive(Default)]
struct Ran {
    /// Those whose count is not due yet.
    waiting: VecDeque<Line>,
}

/// A comparison under way.
pub struct Reconciliation {
    settings: Settings,
    ledgers: Ledgers,
    shapes: HashMap<String, Names>,
    ran: BTreeMap<(u32, Names), Ran>,
    seen: HashSet<String>,
    /// Portals of sessions that were told with their statements: a further fetch is of one of them.
    portals: HashMap<String, VecDeque<[u8; 32]>>,
    summary: Summary,
}

/// Portals of a session that are remembered.
const PORTALS: usize = 64;

impl Reconciliation {
    /// Compares with the ledgers in `dirs`: those of all gateways that serve the store.
    pub fn new(settings: Settings, dirs: &[PathBuf]) -> Result<Self, Error> {
        let logs = dirs.iter().map(|dir| LogReader::open(dir, None)).collect::<Result<_, _>>()?;
        Self::with(settings, logs)
    }

    /// The same with ledgers that go on growing; see [`Self::refresh`].
    fn following(settings: Settings, logs: &[(PathBuf, String)]) -> Result<Self, Error> {
        let logs = logs.iter().map(|(dir, vkeys)| LogReader::open(dir, Some(vkeys.clone())));
        Self::with(settings, logs.collect::<Result<_, _>>()?)
    }

    /// Looks whether ledgers that are followed have grown.
    fn refresh(&mut self) -> Result<(), Error> {
        self.ledgers.logs.iter_mut().try_for_each(LogReader::refresh)
    }

    fn with(settings: Settings, logs: Vec<LogReader>) -> Result<Self, Error> {
        let ledgers = Ledgers::new(logs, &settings.store)?;
        let summary = Summary { from: u64::MAX, ..Summary::default() };
        Ok(Self {
            settings,
            ledgers,
            shapes: HashMap::new(),
            ran: BTreeMap::new(),
            seen: HashSet::new(),
            portals: HashMap::new(),
            summary,
        })
    }

    /// Reads a file of the server's log; files come in the order of time. Findings go to `tell`.
    pub fn read(
        &mut self,
        file: &Path,
        mut tell: impl FnMut(Finding),
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), Error> {
        let mut log = ServerLog::open(file)?;
        let mut count = 0_u64;
        while let Some(line) = log.next_line()? {
            self.line(&line, &mut tell)?;
            count += 1;
            if count.is_multiple_of(10_000) {
                let (position, total) = log.progress();
                progress(position, total);
            }
        }
        Ok(())
    }

    /// One record of the server's log.
    pub fn line(&mut self, line: &Line, tell: &mut impl FnMut(Finding)) -> Result<(), Error> {
        if (line.database != self.settings.database && !line.is_replication)
            || line.time < self.settings.since
        {
            return Ok(());
        }
        if self.summary.from == u64::MAX {
            // Counts from before the first line are of statements that are not in this log.
            self.ledgers.read_until(line.time, 0)?;
            self.ledgers.counted.clear();
        }
        self.summary.from = self.summary.from.min(line.time);
        self.summary.until = self.summary.until.max(line.time);
        self.ledgers.read_until(line.time + WINDOW, line.time.saturating_sub(2 * WINDOW))?;
        let is_new = !self.seen.contains(&line.session);
        if is_new {
            self.seen.insert(line.session.clone());
            self.summary.sessions += 1;
        }
        if self.settings.allowed.contains(&line.role) {
            self.summary.allowed += u64::from(is_new);
            return Ok(());
        }
        if line.is_replication {
            // It reads everything, past every face and every record.
            if is_new {
                self.found(line, Problem::Connection, None, tell);
            }
            return Ok(());
        }
        let known = self.ledgers.roles.get(&line.role).copied();
        let is_steward = line.role == self.settings.steward;
        if known.is_none() && !is_steward {
            if is_new && !line.role.is_empty() {
                self.found(line, Problem::Connection, None, tell);
            }
            if let What::Statement { text, .. } = &line.what {
                self.found(line, Problem::Statement, Some(text), tell);
            }
            return Ok(());
        }
        match &line.what {
            What::Connected | What::Disconnected | What::Other => {}
            // More rows of a statement that was compared when it began; if it was.
            What::Statement { of: Via::Fetch(portal), .. } if self.is_known_portal(line, portal) => {}
            What::Unknown => self.found(line, Problem::NotUnderstood, None, tell),
            What::FastPath { text } => self.called(line, text, known, tell),
            // Other fetches are of portals that SQL began: by FETCH or MOVE. Each Execute has an intent then.
            What::Statement { text, of } => {
                if let Via::Execute(portal) = of {
                    self.remember_portal(line, portal);
                }
                self.statement(line, text, of == &Via::Simple, known, is_steward, tell);
            }
        }
        if line.what == What::Disconnected {
            self.seen.remove(&line.session);
            self.portals.remove(&line.session);
        }
        self.settle(line.time, false, tell);
        Ok(())
    }

    fn is_known_portal(&self, line: &Line, portal: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(portal).into();
        self.portals.get(&line.session).is_some_and(|known| known.contains(&digest))
    }

    fn remember_portal(&mut self, line: &Line, portal: &str) {
        let known = self.portals.entry(line.session.clone()).or_default();
        let digest = Sha256::digest(portal).into();
        if !known.contains(&digest) {
            if known.len() >= PORTALS {
                known.pop_front();
            }
            known.push_back(digest);
        }
    }

    /// A statement by a role that gateways use.
    fn statement(
        &mut self,
        line: &Line,
        text: &String,
        is_simple: bool,
        known: Option<(u32, Role)>,
        is_steward: bool,
        tell: &mut impl FnMut(Finding),
    ) {
        if is_steward {
            if own::is_stewards(text) {
                self.summary.own += 1;
            } else {
                self.found(line, Problem::Steward, Some(text), tell);
            }
            return;
        }
        let (role, kind) = known.unwrap_or((u32::MAX, Role::Recorded));
        // A text that a gateway could not decode is on record in other letters.
        let undecoded = || key(role, &digest(shape::NOT_UNDERSTOOD));
        if self.ledgers.take(&key(role, &digest(text)), line.time)
            || !text.is_ascii() && self.ledgers.take(&undecoded(), line.time)
        {
            self.summary.recorded += 1;
        } else if own::stands_for_deallocate(text)
            || is_simple && (own::prepares_connection(text) || own::counts_rows(text))
        {
            self.summary.own += 1;
        } else if kind == Role::Counted {
            self.ran(role, line.clone(), text);
        } else {
            self.found(line, Problem::Statement, Some(text), tell);
        }
    }

    /// A function-call message: on record as such, or counted as something that is not understood.
    fn called(
        &mut self,
        line: &Line,
        text: &str,
        known: Option<(u32, Role)>,
        tell: &mut impl FnMut(Finding),
    ) {
        let Some((role, kind)) = known else { return self.found(line, Problem::FastPath, None, tell) };
        if self.ledgers.take(&key(role, &digest(text)), line.time) {
            self.summary.recorded += 1;
        } else if kind == Role::Counted {
            self.ran(role, line.clone(), text);
        } else {
            self.found(line, Problem::FastPath, None, tell);
        }
    }

    fn ran(&mut self, role: u32, line: Line, text: &str) {
        let shape = shape::with_key(text, |key| {
            if let Some(known) = self.shapes.get(key) {
                return known.clone();
            }
            let shape = Names { id: shape::id(text), fingerprint: shape::fingerprint(text) };
            if self.shapes.len() >= 100_000 {
                self.shapes.clear();
            }
            self.shapes.insert(key.to_owned(), shape.clone());
            shape
        });
        self.ran.entry((role, shape)).or_default().waiting.push_back(line);
    }

    /// Statements of workloads whose counts must be in the ledger by now.
    fn settle(&mut self, now: u64, is_over: bool, tell: &mut impl FnMut(Finding)) {
        let due = now.saturating_sub(COUNTED_WITHIN);
        let is_any_due = self.ran.values().any(|ran| ran.waiting.front().is_some_and(|l| l.time < due));
        if !is_over && !is_any_due {
            return;
        }
        let mut missing = Vec::new();
        let counts_until = self.ledgers.counts_until();
        for ((role, shape), ran) in &mut self.ran {
            while let Some(line) = ran.waiting.front() {
                if !is_over && line.time >= due {
                    break;
                }
                let Some(line) = ran.waiting.pop_front() else { break };
                // What is not counted yet must not take the count of another statement: some counts stand
                // for statements of any shape.
                if line.time > counts_until {
                    self.summary.not_yet += 1;
                } else if self.ledgers.take_count(*role, shape) {
                    self.summary.counted += 1;
                } else {
                    missing.push(line);
                }
            }
        }
        for line in missing {
            if let What::Statement { text, .. } | What::FastPath { text } = &line.what {
                self.found(&line, Problem::NotCounted, Some(text), tell);
            }
        }
    }

    fn found(&mut self, line: &Line, what: Problem, text: Option<&String>, tell: &mut impl FnMut(Finding)) {
        self.summary.findings += 1;
        tell(Finding {
            time: line.time,
            what,
            role: line.role.clone(),
            database: line.database.clone(),
            address: line.address.clone(),
            session: line.session.clone(),
            text_digest: text.map(|text| hex::encode(digest(text))),
        });
    }

    /// The end of the server's log.
    pub fn finish(mut self, mut tell: impl FnMut(Finding)) -> Result<Summary, Error> {
        self.ledgers.read_until(u64::MAX, 0)?;
        self.settle(u64::MAX, true, &mut tell);
        if self.summary.from == u64::MAX {
            self.summary.from = 0;
        }
        Ok(self.summary)
    }
}
