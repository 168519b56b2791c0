//! What reports are made of: one pass over the logs of a period.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use ringfence_meter::Reached;
use ringfence_meter::record::Group;
use ringfence_meter::tally::{Line, Tally};
use ringfence_policy::Registry;
use ringfence_policy::ownership::{coverage, covered_companies};
use ringfence_statement::analysis::Cache;
use ringfence_statement::scope::QueryScope;
use ringfence_verifier::checkpoint::read_head;
use ringfence_verifier::manifest::rfc3339;
use ringfence_verifier::record::{Kind, Leaf};
use ringfence_verifier::segment::Records;
use serde::Deserialize;
use serde_json::Value;

use super::figures::Figures;
use crate::Error;
use crate::texts::{Part, Remembered, Texts};

/// What to read, and how.
pub struct Scope {
    /// Logs: folders with the texts of their public keys.
    pub logs: Vec<(PathBuf, String)>,
    /// From this time on, in milliseconds since 1970.
    pub from: u64,
    /// Before this time.
    pub until: u64,
    /// Words that purposes may be told to the public by.
    pub purposes: BTreeSet<String>,
    /// A figure of which all entries are wanted.
    pub traced: Option<String>,
}

/// A log that was read.
#[derive(Clone, Debug)]
pub struct ReadLog {
    /// Its name.
    pub origin: String,
    /// Entries under its checkpoint.
    pub entries: u64,
    /// The root of that.
    pub root: String,
}

/// A request, and what became of it.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// What was asked for, as it was signed.
    pub request: Value,
    /// When it came into force, in milliseconds since 1970.
    pub granted: Option<u64>,
    /// Who signed.
    pub approvers: Vec<String>,
    /// How it ended: denied, revoked, expired; and when.
    pub ended: Option<(&'static str, u64)>,
    /// The entries about it: which log, and index.
    pub entries: Vec<(usize, u64)>,
    /// Statements that ran under it.
    pub statements: u64,
    /// Of those, statements that gave back values of several rows at once only (sums, counts).
    pub folding: u64,
    /// Rows that they gave back.
    pub rows: u64,
    /// Granted columns that statements named.
    pub used: BTreeSet<String>,
}

impl Asked {
    /// A text of the request.
    pub fn text(&self, key: &str) -> &str {
        self.request[key].as_str().unwrap_or_default()
    }

    /// Its columns, as `table.column`.
    pub fn columns(&self) -> Vec<String> {
        let table = self.text("table");
        let columns = self.request["columns"].as_array().into_iter().flatten();
        columns.filter_map(Value::as_str).map(|c| format!("{table}.{c}")).collect()
    }
}

/// Somebody who reached data across the border without a grant, at a face.
#[derive(Clone, Debug, Default)]
pub struct Unasked {
    /// Where they are.
    pub location: String,
    /// Statements that named protected columns.
    pub protected: u64,
    /// Of those, statements that gave back values of several rows only.
    pub folding: u64,
    /// Statements that named public columns only, or none.
    pub public: u64,
}

/// See the module's text.
pub struct Facts {
    /// From when.
    pub from: u64,
    /// Until when.
    pub until: u64,
    /// The logs.
    pub logs: Vec<ReadLog>,
    /// The figures.
    pub figures: Figures,
    /// Requests of the period, and those in force in it, by name.
    pub requests: BTreeMap<String, Asked>,
    /// Who reached data without a grant.
    pub unasked: BTreeMap<String, Unasked>,
    /// Milliseconds from each request to its decision.
    pub decided_after: Vec<u64>,
    /// Refusals of covered persons: when, who, what and why, and the entry.
    pub refused_covered: Vec<(u64, String, String, (usize, u64))>,
    /// The meter at the end of the period.
    pub meter: Vec<Line>,
    /// The time of the first entry of all.
    pub oldest: Option<u64>,
    /// Entries whose records were erased.
    pub erased: u64,
    /// Digests of the rules in force within the period, and since when.
    pub policies: Vec<(u64, String)>,
    scope_purposes: BTreeSet<String>,
    /// By the rules in force: the first team of each person, who is a covered person, which columns are protected.
    teams: HashMap<String, String>,
    covered: BTreeSet<String>,
    sessions: HashMap<String, Session>,
    analyses: Cache,
    /// What texts of open sessions show.
    told: Remembered<String, Arc<Shows>>,
    protected: BTreeSet<String>,
}

struct Session {
    person: String,
    location: String,
    team: String,
    grants: Vec<String>,
    /// The grants that statements under way are about, by their numbers.
    under: HashMap<u64, Vec<String>>,
    /// The statement whose categories were counted last, and which they were.
    counted: (u64, BTreeSet<String>),
}

#[derive(Deserialize)]
struct Opened {
    session: String,
    principal: String,
    location: String,
    #[serde(default)]
    grants: Vec<String>,
}

#[derive(Deserialize)]
struct Intent {
    session: String,
    n: u64,
    #[serde(default)]
    principal: String,
    #[serde(flatten)]
    texts: Texts,
}

/// What a statement shows.
#[derive(Clone, Debug, Default)]
struct Shows {
    scope: QueryScope,
    /// It goes on with something that the entry does not name.
    is_opaque: bool,
}

impl Shows {
    fn may_be_anything(&self) -> bool {
        self.scope.is_unknown || self.is_opaque
    }
}

#[derive(Deserialize)]
struct Outcome {
    session: String,
    n: u64,
    #[serde(default)]
    reached: Vec<Group>,
}

impl Facts {
    /// Reads the logs. `progress` hears how many entries have been read.
    pub fn read(scope: &Scope, registry: &Registry, mut progress: impl FnMut(u64)) -> Result<Self, Error> {
        let mut facts = Self {
            from: scope.from,
            until: scope.until,
            logs: Vec::new(),
            figures: Figures::new(scope.traced.clone()),
            requests: BTreeMap::new(),
            unasked: BTreeMap::new(),
            decided_after: Vec::new(),
            refused_covered: Vec::new(),
            meter: Vec::new(),
            oldest: None,
            erased: 0,
            policies: Vec::new(),
            scope_purposes: scope.purposes.clone(),
            teams: HashMap::new(),
            covered: BTreeSet::new(),
            sessions: HashMap::new(),
            analyses: Cache::default(),
            told: Remembered::default(),
            protected: BTreeSet::new(),
        };
        let mut tally = Tally::exact(&registry.thresholds);
        for (number, (dir, vkey)) in scope.logs.iter().enumerate() {
            let head =
                read_head(dir, vkey)?.ok_or_else(|| Error::corrupt(dir, "there is no checkpoint here"))?;
            let mut records = Records::open(dir)?
                .ok_or_else(|| Error::corrupt(dir, "there are no private records here"))?;
            let mut problems = Vec::new();
            while records.index() < head.size {
                let index = records.index();
                let Some(entry) = records.next(&mut problems) else {
                    let problem = problems.pop();
                    return Err(Error::corrupt(
                        dir,
                        problem.unwrap_or_else(|| format!("the records from entry {index} on are missing")),
                    ));
                };
                let bad = |e: serde_json::Error| Error::corrupt(dir, format!("entry {index}: {e}"));
                let leaf = entry.parse_leaf().map_err(bad)?;
                if leaf.time < facts.until {
                    facts.entry((number, index), &leaf, entry.record(), &mut tally).map_err(bad)?;
                }
                if index.is_multiple_of(50_000) {
                    progress(index);
                }
            }
            facts.sessions.clear();
            facts.logs.push(ReadLog {
                origin: ringfence_verifier::keys::origin(vkey).unwrap_or_default().to_owned(),
                entries: head.size,
                root: head.root.to_string(),
            });
        }
        facts.meter = tally.lines(facts.until.saturating_sub(1));
        Ok(facts)
    }

    fn entry(
        &mut self,
        at: (usize, u64),
        leaf: &Leaf,
        record: Option<&[u8]>,
        tally: &mut Tally,
    ) -> Result<(), serde_json::Error> {
        self.oldest = Some(self.oldest.map_or(leaf.time, |oldest| oldest.min(leaf.time)));
        let is_within = leaf.time >= self.from;
        let Some(record) = record else {
            self.erased += 1;
            return Ok(());
        };
        match leaf.kind {
            Kind::PolicyChanged => {
                let record: Value = serde_json::from_slice(record)?;
                self.rules(&record);
                if let Some(digest) = record["digest"].as_str() {
                    self.policies.push((leaf.time, digest.to_owned()));
                }
            }
            Kind::SessionOpened => self.opened(at, leaf, serde_json::from_slice(record)?, is_within),
            Kind::Intent => self.intent(at, leaf, &serde_json::from_slice(record)?, is_within),
            Kind::Outcome if leaf.from.is_some() => {
                let outcome: Outcome = serde_json::from_slice(record)?;
                if is_within {
                    self.figures.add("rows", leaf.counters.rows, at);
                    self.by_session(&outcome.session, "rows", leaf.counters.rows, leaf, at);
                    self.categories(&outcome.session, outcome.n, &outcome.reached, at);
                }
                let under = self.sessions.get_mut(&outcome.session).and_then(|s| s.under.remove(&outcome.n));
                for id in under.into_iter().flatten() {
                    if let Some(asked) = self.requests.get_mut(&id).filter(|_| is_within) {
                        asked.rows += leaf.counters.rows;
                    }
                }
            }
            Kind::Reached => {
                let reached: Reached<'_> = serde_json::from_slice(record)?;
                if is_within {
                    self.categories(&reached.session.clone(), reached.n, &reached.reached, at);
                }
                tally.replay(Some((leaf, reached)));
            }
            Kind::SessionClosed => {
                let closed: Value = serde_json::from_slice(record)?;
                let session = closed["session"].as_str().unwrap_or_default();
                self.sessions.remove(session);
                self.told.forget(&session.to_owned());
            }
            Kind::Refused => self.refused(at, leaf, &serde_json::from_slice(record)?, is_within),
            Kind::Requested
            | Kind::Approved
            | Kind::Granted
            | Kind::Denied
            | Kind::Revoked
            | Kind::Expired => {
                self.about(at, leaf, &serde_json::from_slice(record)?, is_within)?;
            }
            Kind::SideDoor if is_within => self.figures.add("side-doors", 1, at),
            Kind::BorderClosed if is_within => self.figures.add("border.closed", 1, at),
            Kind::Erased if is_within => {
                let record: Value = serde_json::from_slice(record)?;
                let ranges = record["entries"].as_array().into_iter().flatten();
                let count =
                    ranges.filter_map(|r| Some(r[1].as_u64()? - r[0].as_u64()?.min(r[1].as_u64()?))).sum();
                self.figures.add("erasures", 1, at);
                self.figures.add("erased-records", count, at);
            }
            Kind::LegalHold if is_within => self.figures.add("legal-holds", 1, at),
            Kind::GatewayStarted if is_within => self.figures.add("gateway-starts", 1, at),
            Kind::Heartbeat if is_within => self.figures.add("heartbeats", 1, at),
            _ => {}
        }
        Ok(())
    }

    /// New rules: who is in which team, what is protected.
    fn rules(&mut self, record: &Value) {
        let text = record["rules"].as_str().unwrap_or_default();
        let Ok(rules) = serde_json::from_str::<Value>(text) else { return };
        self.protected.clear();
        for store in rules[1].as_array().into_iter().flatten() {
            for (table, classified) in store[1]["tables"].as_object().into_iter().flatten() {
                for (column, class) in classified["columns"].as_object().into_iter().flatten() {
                    if class != "public" {
                        self.protected.insert(format!("{table}.{column}"));
                    }
                }
            }
        }
        let people = rules[0]["people"].as_array().into_iter().flatten();
        let team = |person: &Value| {
            let team = person["teams"].as_array()?.iter().find_map(Value::as_str)?;
            Some((person["name"].as_str()?.to_owned(), team.to_owned()))
        };
        self.teams = people.filter_map(team).collect();
        self.covered = serde_json::from_value::<Registry>(rules[0].clone())
            .map(|registry| covered_people(&registry))
            .unwrap_or_default();
    }

    fn team(&self, person: &str) -> String {
        self.teams.get(person).map_or("no team", String::as_str).to_owned()
    }

    fn opened(&mut self, at: (usize, u64), leaf: &Leaf, record: Opened, is_within: bool) {
        let session = Session {
            team: self.team(&record.principal),
            person: record.principal,
            location: record.location,
            grants: record.grants,
            under: HashMap::new(),
            counted: (0, BTreeSet::new()),
        };
        self.sessions.insert(record.session.clone(), session);
        if is_within && leaf.from.is_some() {
            self.figures.add("sessions", 1, at);
            self.by_session(&record.session, "sessions", 1, leaf, at);
        }
    }

    /// Adds to a measure's breakdowns.
    fn by_session(&mut self, session: &str, measure: &str, more: u64, leaf: &Leaf, at: (usize, u64)) {
        let month = rfc3339(leaf.time / 1000).chars().take(7).collect::<String>();
        let country = leaf.from.as_deref().unwrap_or("unknown");
        let standing = if leaf.covered { "covered persons" } else { "others abroad" };
        let purpose;
        let mut breakdown = vec![("country", country), ("month", &month), ("standing", standing)];
        if let Some(known) = self.sessions.get(session) {
            purpose = match known.grants.first().and_then(|id| self.requests.get(id)) {
                Some(asked) => public_purpose(&self.scope_purposes, asked.text("purpose")),
                None => "without a grant (masked or public data only)".to_owned(),
            };
            breakdown.extend([("team", known.team.as_str()), ("purpose", &purpose)]);
        }
        for (by, what) in breakdown {
            self.figures.add(&format!("{measure}.{by}.{what}"), more, at);
        }
    }

    fn intent(&mut self, at: (usize, u64), leaf: &Leaf, intent: &Intent, is_within: bool) {
        if leaf.from.is_none() {
            return;
        }
        // A statement before the period may have the text of one in it.
        let shows = self.shows(intent);
        if !is_within {
            return;
        }
        self.figures.add("statements", 1, at);
        self.by_session(&intent.session, "statements", 1, leaf, at);
        let named = self.named(&shows.scope);
        let (person, location, grants) = match self.sessions.get(&intent.session) {
            Some(known) => (known.person.clone(), known.location.clone(), known.grants.clone()),
            None => (intent.principal.clone(), leaf.from.clone().unwrap_or_default(), Vec::new()),
        };
        if grants.is_empty() {
            let unasked = self.unasked.entry(person).or_default();
            unasked.location = location;
            if named.is_empty() && !shows.scope.is_unknown {
                unasked.public += 1;
            } else {
                unasked.protected += 1;
                unasked.folding += u64::from(shows.scope.aggregates());
            }
        }
        for id in grants {
            let Some(asked) = self.requests.get_mut(&id) else { continue };
            // A session has all of a person's grants; a statement is under those whose table it names.
            if !shows.may_be_anything() && !shows.scope.tables.contains_key(asked.text("table")) {
                continue;
            }
            if let Some(session) = self.sessions.get_mut(&intent.session) {
                session.under.entry(intent.n).or_default().push(id);
            }
            asked.statements += 1;
            asked.folding += u64::from(shows.scope.aggregates() && !shows.scope.is_unknown);
            let granted = asked.columns();
            asked.used.extend(granted.into_iter().filter(|c| shows.may_be_anything() || named.contains(c)));
        }
    }

    /// What a statement shows, by all its texts.
    fn shows(&mut self, intent: &Intent) -> Shows {
        let mut all = Shows { scope: QueryScope::empty(), is_opaque: false };
        for (part, digest) in intent.texts.parts() {
            let shows = match part {
                Part::Here(text, settings) => {
                    let analysis = self.analyses.of(text, settings);
                    let is_opaque = analysis.uses_names() && !intent.texts.has_meanings();
                    let shows = Arc::new(Shows { scope: QueryScope::clone(&analysis.scope), is_opaque });
                    if let Some(digest) = digest {
                        self.told.insert(intent.session.clone(), digest, Arc::clone(&shows));
                    }
                    shows
                }
                Part::There(digest) => self
                    .told
                    .get(&intent.session, digest)
                    .unwrap_or_else(|| Arc::new(Shows { scope: QueryScope::unknown(), is_opaque: false })),
            };
            all.scope.merge(&shows.scope);
            all.is_opaque |= shows.is_opaque;
        }
        all.scope.is_unknown |= intent.texts.is_unknown();
        all
    }

    /// The protected columns that a statement names.
    fn named(&self, reach: &QueryScope) -> BTreeSet<String> {
        let is_named = |column: &&String| {
            let (table, column) = column.split_once('.').unwrap_or_default();
            reach.tables.get(table).is_some_and(|mention| mention.names(column))
        };
        self.protected.iter().filter(is_named).cloned().collect()
    }

    /// A statement reached people: it counts once for each category.
    fn categories(&mut self, session: &str, n: u64, groups: &[Group], at: (usize, u64)) {
        let Some(known) = self.sessions.get_mut(session) else { return };
        if known.counted.0 != n {
            known.counted = (n, BTreeSet::new());
        }
        for (category, _) in groups.iter().flat_map(Group::categories) {
            if known.counted.1.insert(category.to_owned()) {
                self.figures.add(&format!("statements.category.{category}"), 1, at);
            }
        }
    }

    fn refused(&mut self, at: (usize, u64), leaf: &Leaf, record: &Value, is_within: bool) {
        if !is_within {
            return;
        }
        // Logins that are refused for the same reason are summed up.
        let times = record["times"].as_u64().unwrap_or(1);
        self.figures.add("refusals", times, at);
        if leaf.from.is_some() {
            self.figures.add("refusals.of.statements across the border", times, at);
        } else {
            self.figures.add("refusals.of.logins, approvals and others", times, at);
        }
        let who = record["principal"].as_str().unwrap_or_default();
        // A refused login has no leaf that says so.
        if leaf.covered || self.covered.contains(who) {
            let why = record["reason"].as_str().unwrap_or_default();
            self.refused_covered.push((leaf.time, who.to_owned(), why.to_owned(), at));
        }
    }

    fn about(
        &mut self,
        at: (usize, u64),
        leaf: &Leaf,
        record: &Value,
        is_within: bool,
    ) -> Result<(), serde_json::Error> {
        let id = record["id"].as_str().unwrap_or_default().to_owned();
        let count = |figures: &mut Figures, what: &str| {
            if is_within {
                figures.add(what, 1, at);
            }
        };
        if leaf.kind == Kind::Requested {
            let request: Value = serde_json::from_str(record["request"].as_str().unwrap_or_default())?;
            let id = request["id"].as_str().unwrap_or_default().to_owned();
            if !self.requests.contains_key(&id) {
                count(&mut self.figures, "requests");
                self.requests.insert(id, Asked { request, entries: vec![at], ..Asked::default() });
            }
            return Ok(());
        }
        let Some(asked) = self.requests.get_mut(&id) else { return Ok(()) };
        asked.entries.push(at);
        let created = asked.request["created"].as_u64().unwrap_or(leaf.time);
        let decided = leaf.time.saturating_sub(created);
        match leaf.kind {
            Kind::Approved => {
                asked.approvers.extend(record["approver"].as_str().map(str::to_owned));
                count(&mut self.figures, "approvals");
            }
            Kind::Granted if asked.granted.is_none() => {
                asked.granted = Some(leaf.time);
                count(&mut self.figures, "requests.outcome.granted");
                if is_within {
                    self.decided_after.push(decided);
                }
            }
            Kind::Denied => {
                asked.ended = Some(("denied", leaf.time));
                count(&mut self.figures, "requests.outcome.denied");
                if is_within {
                    self.decided_after.push(decided);
                }
            }
            Kind::Revoked => {
                asked.ended = Some(("revoked", leaf.time));
                count(&mut self.figures, "requests.outcome.granted and later revoked");
            }
            Kind::Expired => {
                let what = if asked.granted.is_some() { "expired" } else { "not decided in time" };
                asked.ended = Some((what, leaf.time));
                if asked.granted.is_none() {
                    count(&mut self.figures, "requests.outcome.not decided in time");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Where the figures come from, line by line.
    pub fn sources(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .logs
            .iter()
            .map(|log| format!("From the log {}: {} entries, root {}.", log.origin, log.entries, log.root))
            .collect();
        if self.erased > 0 {
            lines.push(format!(
                "{} private records were erased on record; nothing is counted of them.",
                self.erased
            ));
        }
        lines
    }
}

/// The covered persons of a registry.
fn covered_people(registry: &Registry) -> BTreeSet<String> {
    let companies = covered_companies(registry);
    let people = registry.people.iter().filter(|p| coverage(registry, &companies, p).is_some());
    people.map(|p| p.name.clone()).collect()
}

/// A purpose as the public may read it: a word that was agreed on, if the purpose begins with one; what people wrote may name
/// somebody.
pub fn public_purpose(words: &BTreeSet<String>, purpose: &str) -> String {
    let purpose = purpose.to_lowercase();
    let begins = |word: &&String| {
        purpose
            .strip_prefix(word.to_lowercase().as_str())
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    words.iter().find(begins).cloned().unwrap_or_else(|| "under a grant, other purposes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_is_told_by_agreed_words_only() {
        let words = BTreeSet::from(["ticket".to_owned(), "safety".to_owned()]);
        assert_eq!(public_purpose(&words, "Ticket 981: refund for Ann"), "ticket");
        assert_eq!(public_purpose(&words, "ticketing"), "under a grant, other purposes");
        assert_eq!(public_purpose(&words, "about Ann, safety"), "under a grant, other purposes");
    }
}
