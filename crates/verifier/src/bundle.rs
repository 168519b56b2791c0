//! A bundle: the answer to a question, with everything that a stranger needs to check it offline.
//!
//! ```text
//! bundle.json        question, answer, the logs that were asked
//! trust.policy       the keys that whoever made it believes (C2SP tlog-policy): yours may differ
//! log-0/checkpoint   the log's signed head, with witnesses' cosignatures
//! log-0/entries      the entries that answer, one JSON object a line, with their private records
//! log-0/hashes       what proves that they are in the log: (stored-hash index, hash), sorted, 40 bytes each
//! log-0/leaves       all public leaves of the time asked about, as an entry bundle of C2SP tlog-tiles (optional)
//! ```
//!
//! With the leaves of the whole time, it is *proven* that nothing across the border was kept back, as far as the question is
//! about what is public of an access: country, covered or not, time, jurisdiction. Everything that only the one who made the bundle says
//! is told as *claimed*.

mod answering;
mod proofs;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::answering::Answering;
use self::proofs::{Entry, Leaves, entries, hashes};
use crate::checkpoint::{CHECKPOINT, open_witnessed};
use crate::manifest::rfc3339;
use crate::question::{Question, Reach, Who};
use crate::quorum::Quorum;

/// What `format` says.
pub const FORMAT: &str = "ringfence-bundle/v1";
/// The file that says what the bundle is.
pub const INDEX: &str = "bundle.json";
/// The trust policy of whoever made it.
pub const TRUST: &str = "trust.policy";
/// The files of a log.
pub const ENTRIES: &str = "entries";
/// See [`ENTRIES`].
pub const HASHES: &str = "hashes";
/// See [`ENTRIES`].
pub const LEAVES: &str = "leaves";
/// The most bytes of a file that is read.
const MAX_FILE: u64 = 8 << 30;

/// `bundle.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// [`FORMAT`].
    pub format: String,
    /// When it was made, in milliseconds since 1970.
    pub made: u64,
    /// What was asked.
    pub question: Question,
    /// Who reached what.
    pub people: Vec<(Who, Reach)>,
    /// The logs that were asked.
    pub logs: Vec<LogPart>,
}

/// A log in a bundle.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPart {
    /// Its folder.
    pub dir: String,
    /// Its name.
    pub origin: String,
    /// Entries under its checkpoint.
    pub size: u64,
    /// How many are shown.
    pub entries: u64,
    /// Which leaves are there, if all of a time are: from, and until (exclusive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaves: Option<(u64, u64)>,
}

/// An entry as a bundle shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// Its place.
    pub index: u64,
    /// The leaf's text.
    pub leaf: String,
    /// The salt, in hex.
    pub salt: String,
    /// The private record's text.
    pub record: String,
    /// It is shown for a text in it only, which a statement that answers names; it answers nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_text: bool,
}

/// What the verifier says.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    /// What is proven.
    pub proven: Vec<String>,
    /// What only whoever made the bundle says.
    pub claimed: Vec<String>,
    /// What is wrong. Nothing counts as proven then.
    pub problems: Vec<String>,
}

/// Checks the bundle in `root`. `trust` is whom the reader believes; without it, the bundle's own word is taken, and told as
/// a claim.
pub fn check(root: &Path, trust: Option<&Quorum>) -> Verdict {
    let mut verdict = Verdict::default();
    if let Err(problem) = (Checking { root, verdict: &mut verdict }).check(trust) {
        verdict.problems.push(problem);
    }
    if !verdict.problems.is_empty() {
        verdict.proven.clear();
    }
    verdict
}

struct Checking<'a> {
    root: &'a Path,
    verdict: &'a mut Verdict,
}

/// A log whose entries are proven.
struct Proven {
    entries: BTreeMap<u64, Entry>,
    /// Until when all public leaves of the time are there, in milliseconds since 1970; absent if some are missing.
    complete_until: Option<u64>,
    /// Statements that look like an answer from outside, and are not shown; and ends of statements.
    undisclosed: (u64, u64),
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let told = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    // A link may lead anywhere, and a device never ends.
    let found = fs::symlink_metadata(path).map_err(told)?;
    if !found.is_file() || found.len() > MAX_FILE {
        return Err(format!("{} is no file, or too long", path.display()));
    }
    let (mut bytes, file) = (Vec::new(), fs::File::open(path).map_err(told)?);
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(told)?;
    Ok(bytes)
}

impl Checking<'_> {
    fn check(mut self, trust: Option<&Quorum>) -> Result<(), String> {
        let bundle: Bundle = serde_json::from_slice(&read(&self.root.join(INDEX))?)
            .map_err(|e| format!("{INDEX} is not a bundle's: {e}"))?;
        if bundle.format != FORMAT {
            return Err(format!("the format is {:?}, not {FORMAT}", bundle.format));
        }
        self.check_files(&bundle)?;
        let own;
        let trust = if let Some(trust) = trust {
            trust
        } else {
            let text = String::from_utf8(read(&self.root.join(TRUST))?)
                .map_err(|_| format!("{TRUST} is not text"))?;
            own = Quorum::parse(&text).map_err(|e| format!("{TRUST}: {e}"))?;
            self.verdict.claimed.push(
                "that the keys of logs and witnesses are right: they came with the bundle (name your own with --trust)"
                    .to_owned(),
            );
            &own
        };
        let mut logs = Vec::new();
        for part in &bundle.logs {
            logs.push(self.log(part, &bundle.question, trust).map_err(|e| format!("{}: {e}", part.dir))?);
        }
        let mut answering = Answering::new(&bundle.question);
        for (part, log) in bundle.logs.iter().zip(&logs) {
            answering.grants(&log.entries).map_err(|e| format!("{}: {e}", part.dir))?;
        }
        for (part, log) in bundle.logs.iter().zip(&logs) {
            answering.statements(&log.entries).map_err(|e| format!("{}: {e}", part.dir))?;
            // The next log's sessions are others, whatever they are called.
            answering.end_log();
        }
        if answering.without_text > 0 {
            self.verdict.claimed.push(format!(
                "that {} statements ran texts that are not shown: their entries were erased, or are not here",
                answering.without_text
            ));
        }
        let (approvals, rules) = (answering.verified, answering.rules.len());
        if answering.without_end > 0 {
            self.verdict.claimed.push(format!(
                "that {} statements that are shown without an end received no rows",
                answering.without_end
            ));
        }
        self.compare(&bundle, &answering.conclude(), approvals, rules)?;
        self.completeness(&bundle, &logs);
        Ok(())
    }

    /// No file is missing, and none lies there that nobody checks.
    fn check_files(&mut self, bundle: &Bundle) -> Result<(), String> {
        let mut expected: BTreeSet<String> = [INDEX, TRUST].map(str::to_owned).into();
        let origins: BTreeSet<&str> = bundle.logs.iter().map(|part| part.origin.as_str()).collect();
        if bundle.logs.is_empty() || origins.len() != bundle.logs.len() {
            return Err(format!("{INDEX} names no log, or one of them twice"));
        }
        for (n, part) in bundle.logs.iter().enumerate() {
            if part.dir != format!("log-{n}") {
                return Err(format!("{INDEX}: the log {} is not in log-{n}", part.origin));
            }
            let names = [CHECKPOINT, ENTRIES, HASHES].into_iter().chain(part.leaves.map(|_| LEAVES));
            expected.extend(names.map(|name| format!("{}/{name}", part.dir)));
        }
        let mut found = BTreeSet::new();
        let mut folders = vec![self.root.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries =
                fs::read_dir(&folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
            for entry in entries.flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(self.root).unwrap_or(&path).to_string_lossy().into_owned();
                    found.insert(name);
                }
            }
        }
        for name in expected.difference(&found) {
            self.verdict.problems.push(format!("{name}: is missing"));
        }
        for name in found.difference(&expected) {
            self.verdict.problems.push(format!("{name}: does not belong to the bundle"));
        }
        if self.verdict.problems.is_empty() { Ok(()) } else { Err("the bundle is not whole".to_owned()) }
    }

    fn log(&mut self, part: &LogPart, question: &Question, trust: &Quorum) -> Result<Proven, String> {
        let dir = self.root.join(&part.dir);
        let vkeys = trust.keys_of(&part.origin);
        if vkeys.is_empty() {
            return Err(format!("the trust policy does not know the log {}", part.origin));
        }
        let note = read(&dir.join(CHECKPOINT))?;
        let witnessed = open_witnessed(&note, &vkeys, trust).map_err(|e| format!("{CHECKPOINT} {e}"))?;
        if !witnessed.has_quorum {
            return Err(
                "the checkpoint does not have the cosignatures that the trust policy asks for".to_owned()
            );
        }
        if witnessed.head.size != part.size {
            return Err(format!(
                "the checkpoint has {} entries, and {INDEX} says {}",
                witnessed.head.size, part.size
            ));
        }
        let who: Vec<String> =
            witnessed.cosigned.iter().map(|c| format!("{} at {}", c.witness, rfc3339(c.time))).collect();
        if who.is_empty() {
            let only = format!(
                "that {} shows everybody the same history: no witness is in the trust policy",
                part.origin
            );
            self.verdict.claimed.push(only);
        } else {
            let seen = format!(
                "{} had these {} entries when witnesses saw it: {}",
                part.origin,
                part.size,
                who.join(", ")
            );
            self.verdict.proven.push(seen);
        }
        let mut hashes = hashes(&read(&dir.join(HASHES))?)?;
        let leaves = match part.leaves {
            Some((from, until)) => {
                Some(Leaves::prove(&read(&dir.join(LEAVES))?, from, until, &witnessed.head, &mut hashes)?)
            }
            None => None,
        };
        let entries = entries(&read(&dir.join(ENTRIES))?, &witnessed.head, &hashes, leaves.as_ref())?;
        if entries.len() as u64 != part.entries {
            return Err(format!("{} entries are shown, and {INDEX} says {}", entries.len(), part.entries));
        }
        let count = entries.len();
        self.verdict.proven.push(format!(
            "{count} entries of {} are in that history, with the private records that they commit to",
            part.origin
        ));
        let confirmed = witnessed.cosigned.iter().map(|c| c.time.saturating_mul(1000)).min();
        let (complete_until, undisclosed) = match leaves {
            Some(leaves) => (leaves.covers(question, confirmed)?, leaves.undisclosed(question, &entries)),
            None => (None, (0, 0)),
        };
        Ok(Proven { entries, complete_until, undisclosed })
    }

    /// The answer that the bundle gives is the one that its entries give.
    fn compare(
        &mut self,
        bundle: &Bundle,
        people: &BTreeMap<Who, Reach>,
        approvals: u64,
        rules: usize,
    ) -> Result<(), String> {
        let mut told = BTreeMap::new();
        for (who, reach) in &bundle.people {
            let mut reach = reach.clone();
            reach.columns.clear();
            if told.insert(who.clone(), reach).is_some() {
                return Err(format!("{} is told twice", who.person));
            }
        }
        if told != *people {
            let wrong = told.iter().find(|(who, reach)| people.get(who) != Some(reach));
            let missing = people.keys().find(|who| !told.contains_key(who));
            let name = wrong.map(|(who, _)| who).or(missing).map_or("", |who| &who.person);
            return Err(format!("the answer about {name} is not what the entries say"));
        }
        for (who, reach) in people {
            let covered = if who.covered.is_empty() { "" } else { ", a covered person" };
            let employer =
                if who.employer.is_empty() { String::new() } else { format!(" of {}", who.employer) };
            let purposes = if who.purposes.is_empty() {
                String::new()
            } else {
                format!(", for {}", who.purposes.join("; "))
            };
            let charged: Vec<String> = reach
                .charged
                .iter()
                .map(|(grant, rows)| format!(", {rows} rows charged to {grant}"))
                .collect();
            self.verdict.proven.push(format!(
                "{}{employer} in {}{covered} ran {} statements at {} and received {} rows{}, from {} to {}{purposes}",
                who.person,
                who.location,
                reach.statements,
                who.store,
                reach.rows,
                charged.concat(),
                rfc3339(reach.first / 1000),
                rfc3339(reach.last / 1000)
            ));
        }
        if people.is_empty() {
            self.verdict.proven.push("the bundle shows nobody".to_owned());
        }
        if rules > 0 {
            let shown = "versions of the rules (people, companies, catalogue, policies) are shown in full";
            self.verdict.proven.push(format!("{rules} {shown}"));
        }
        if approvals > 0 {
            self.verdict
                .claimed
                .push("that the rules that are shown are those that were in force then".to_owned());
            self.verdict
                .proven
                .push(format!("{approvals} approvals behind it are signed by the approvers' own keys"));
        }
        if bundle.people.iter().any(|(_, reach)| !reach.columns.is_empty()) {
            self.verdict.claimed.push("which columns the statements reached: read their texts".to_owned());
        }
        Ok(())
    }

    fn completeness(&mut self, bundle: &Bundle, logs: &[Proven]) {
        let names: Vec<&str> = bundle.logs.iter().map(|part| part.origin.as_str()).collect();
        self.verdict
            .claimed
            .push(format!("that these are all logs there are (check the manifest): {}", names.join(", ")));
        let until = logs.iter().map(|log| log.complete_until).min().flatten();
        let statements: u64 = logs.iter().map(|log| log.undisclosed.0).sum();
        let ends: u64 = logs.iter().map(|log| log.undisclosed.1).sum();
        let Some(until) = until else {
            self.verdict.claimed.push(
                "that nothing that answers was kept back (ask for a bundle made with --complete, after the time was over)"
                    .to_owned(),
            );
            return;
        };
        let until = rfc3339(until / 1000);
        match (bundle.question.is_public(), statements) {
            (true, 0) => {
                self.verdict.proven.push(format!(
                    "nothing across the border that answers was kept back: all public leaves of that time until {until} are \
                     here, and each statement from there is shown with its record"
                ));
                self.verdict.claimed.push(
                    "that gateways labelled each access with its true origin when they wrote it, before anybody asked"
                        .to_owned(),
                );
                self.verdict.claimed.push("that access inside the country, which has no public label, was not kept back".to_owned());
            }
            (true, count) => {
                self.verdict.problems.push(format!("{count} statements that answer are in the log and were kept back"));
            }
            (false, count) => self.verdict.claimed.push(format!(
                "that {count} further statements from there in that time, whose records are not here, are no answer"
            )),
        }
        if ends > 0 {
            self.verdict
                .claimed
                .push(format!("that {ends} ends of statements from there, which are not shown, add no rows"));
        }
    }
}
