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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tlog_tiles::{Hash, HashReader, check_record, node_hash, prove_record, record_hash, stored_hash_index};

use crate::approvals::Approvals;
use crate::checkpoint::{CHECKPOINT, Head, open_witnessed};
use crate::manifest::rfc3339;
use crate::question::{Question, Reach, Who};
use crate::quorum::Quorum;
use crate::record::{Kind, Leaf, Sealed};
use crate::tiles::{WIDTH, split_bundle};

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

/// Hashes that nobody vouches for until a proof made of them holds.
struct Untrusted(HashMap<u64, Hash>);

impl HashReader for Untrusted {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let hash = |index| self.0.get(index).copied().ok_or(tlog_tiles::Error::InvalidTile);
        indexes.iter().map(hash).collect()
    }
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
            self.verdict.proven.push(format!(
                "{}{employer} in {}{covered} ran {} statements at {} and received {} rows, from {} to {}{purposes}",
                who.person,
                who.location,
                reach.statements,
                who.store,
                reach.rows,
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

fn hashes(bytes: &[u8]) -> Result<Untrusted, String> {
    if !bytes.len().is_multiple_of(40) {
        return Err(format!("{HASHES} was cut"));
    }
    let mut found = HashMap::with_capacity(bytes.len() / 40);
    for pair in bytes.chunks_exact(40) {
        let (index, hash) = pair.split_at(8);
        let index = u64::from_le_bytes(index.try_into().map_err(|_| "")?);
        found.insert(index, Hash(hash.try_into().map_err(|_| "")?));
    }
    Ok(Untrusted(found))
}

/// That a leaf with this hash is at `index` of the tree.
fn prove(head: &Head, index: u64, leaf: Hash, hashes: &Untrusted) -> Result<(), String> {
    if index >= head.size {
        return Err(format!("entry {index} lies beyond the checkpoint"));
    }
    let proof = prove_record(head.size, index, hashes)
        .map_err(|_| format!("entry {index}: its proof is not whole"))?;
    check_record(&proof, head.size, head.root, index, leaf)
        .map_err(|_| format!("entry {index}: is not in the tree that the checkpoint signs"))
}

/// A run of leaves, proven.
struct Leaves {
    from: u64,
    texts: Vec<Vec<u8>>,
    parsed: Vec<Leaf>,
    size: u64,
}

impl Leaves {
    fn prove(
        bytes: &[u8],
        from: u64,
        until: u64,
        head: &Head,
        hashes: &mut Untrusted,
    ) -> Result<Self, String> {
        let texts = split_bundle(bytes).ok_or_else(|| format!("{LEAVES} was cut"))?;
        let width = WIDTH as u64;
        let is_aligned = from.is_multiple_of(width) && (until.is_multiple_of(width) || until == head.size);
        if until < from || until > head.size || texts.len() as u64 != until - from || !is_aligned {
            return Err(format!("{LEAVES} are not those from {from} until {until}"));
        }
        // What is inside the tiles comes from the leaves themselves, so the proof of one leaf of a full tile binds all. Tiles
        // are each other's siblings: all are hashed before any is proven.
        let mut first_hashes = Vec::new();
        for (tile, leaves) in (from / width..).zip(texts.chunks(WIDTH)) {
            let first = tile * width;
            let (mut level, mut height) =
                (leaves.iter().map(|leaf| record_hash(leaf)).collect::<Vec<Hash>>(), 0);
            let bound = if leaves.len() == WIDTH { 1 } else { leaves.len() };
            first_hashes.extend((first..).zip(level.iter().copied()).take(bound));
            while !level.is_empty() {
                for (n, hash) in (first >> height..).zip(&level) {
                    hashes.0.insert(stored_hash_index(height, n), *hash);
                }
                level = level.chunks_exact(2).map(|pair| node_hash(pair[0], pair[1])).collect();
                height += 1;
            }
        }
        for (index, hash) in first_hashes {
            prove(head, index, hash, hashes)?;
        }
        let parsed: Result<Vec<Leaf>, _> = texts.iter().map(|leaf| serde_json::from_slice(leaf)).collect();
        let parsed = parsed.map_err(|_| format!("{LEAVES}: there is one that is not of this format"))?;
        Ok(Self { from, texts: texts.into_iter().map(<[u8]>::to_vec).collect(), parsed, size: head.size })
    }

    fn get(&self, index: u64) -> Option<&[u8]> {
        let place = usize::try_from(index.checked_sub(self.from)?).ok()?;
        self.texts.get(place).map(Vec::as_slice)
    }

    /// Until when they reach over the time of the question; `None` if they do not. The first leaf must lie before it, and the
    /// last one after it; or witnesses have seen, after it, that there were no more (`confirmed`).
    fn covers(&self, question: &Question, confirmed: Option<u64>) -> Result<Option<u64>, String> {
        let mut time = 0;
        for leaf in &self.parsed {
            if leaf.time < time {
                return Err(format!("{LEAVES}: one is older than the one before it"));
            }
            time = leaf.time;
        }
        let is_last = self.from + self.parsed.len() as u64 == self.size;
        let begins =
            self.from == 0 || self.parsed.first().is_some_and(|l| question.since.is_some_and(|s| l.time < s));
        let ends = match question.until {
            Some(until) => {
                time >= until || (is_last && confirmed.is_some_and(|confirmed| confirmed >= until))
            }
            None => is_last,
        };
        Ok((begins && ends).then(|| question.until.unwrap_or(time)))
    }

    /// How many statements, and ends of statements, that look like an answer from outside are not shown.
    fn undisclosed(&self, question: &Question, entries: &BTreeMap<u64, Entry>) -> (u64, u64) {
        let looks = |leaf: &Leaf| {
            leaf.from.is_some()
                && question.from.as_ref().is_none_or(|from| leaf.from.as_ref() == Some(from))
                && (!question.covered || leaf.covered)
                && question.jurisdiction.as_ref().is_none_or(|j| *j == leaf.jurisdiction)
                && question.since.is_none_or(|since| leaf.time >= since)
                && question.until.is_none_or(|until| leaf.time < until)
        };
        let hidden = (self.from..)
            .zip(&self.parsed)
            .filter(|(index, leaf)| looks(leaf) && !entries.contains_key(index));
        let (mut statements, mut ends) = (0, 0);
        for (_, leaf) in hidden {
            statements += u64::from(leaf.kind == Kind::Intent);
            ends += u64::from(leaf.kind == Kind::Outcome);
        }
        (statements, ends)
    }
}

/// An entry that is proven to be in the log.
struct Entry {
    leaf: Leaf,
    record: serde_json::Value,
    bytes: Vec<u8>,
}

fn entries(
    bytes: &[u8],
    head: &Head,
    hashes: &Untrusted,
    leaves: Option<&Leaves>,
) -> Result<BTreeMap<u64, Entry>, String> {
    let mut found = BTreeMap::new();
    for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let shown: Shown =
            serde_json::from_slice(line).map_err(|e| format!("{ENTRIES}: a line is no entry: {e}"))?;
        let index = shown.index;
        match leaves.and_then(|l| l.get(index)) {
            Some(leaf) if leaf == shown.leaf.as_bytes() => {}
            Some(_) => return Err(format!("entry {index}: is not the leaf at this place")),
            None => prove(head, index, record_hash(shown.leaf.as_bytes()), hashes)?,
        }
        let salt = hex::decode(&shown.salt).ok().and_then(|s| s.try_into().ok());
        let salt = salt.ok_or_else(|| format!("entry {index}: its salt is malformed"))?;
        let sealed = Sealed { leaf: shown.leaf.into_bytes(), salt, record: shown.record.into_bytes() };
        if !sealed.is_committed() {
            return Err(format!("entry {index}: its record is not the one that the leaf commits to"));
        }
        let leaf = sealed.parse_leaf().map_err(|_| format!("entry {index}: is not a leaf of this format"))?;
        let record = serde_json::from_slice(&sealed.record)
            .map_err(|_| format!("entry {index}: its record is not JSON"))?;
        if found.insert(index, Entry { leaf, record, bytes: sealed.record }).is_some() {
            return Err(format!("entry {index} is there twice"));
        }
    }
    Ok(found)
}

/// Makes the answer again, from proven entries alone.
struct Answering<'a> {
    question: &'a Question,
    sessions: BTreeMap<String, Who>,
    purposes: BTreeMap<String, String>,
    granted: BTreeSet<String>,
    verified: u64,
    /// Digests of the rules that are shown in full.
    rules: BTreeSet<String>,
    running: BTreeMap<(String, u64), (Who, Reach)>,
    /// Statements of this log that have ended, at least with a part of their rows.
    ended: BTreeMap<(String, u64), Who>,
    /// Statements without an end.
    without_end: u64,
    people: BTreeMap<Who, Reach>,
}

impl<'a> Answering<'a> {
    fn new(question: &'a Question) -> Self {
        Self {
            question,
            sessions: BTreeMap::new(),
            purposes: BTreeMap::new(),
            granted: BTreeSet::new(),
            verified: 0,
            rules: BTreeSet::new(),
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            without_end: 0,
            people: BTreeMap::new(),
        }
    }

    fn conclude(self) -> BTreeMap<Who, Reach> {
        self.people
    }

    fn end_log(&mut self) {
        for (who, reach) in std::mem::take(&mut self.running).into_values() {
            self.without_end += 1;
            self.add(who, &reach);
        }
        self.ended.clear();
        self.sessions.clear();
    }

    fn add(&mut self, who: Who, more: &Reach) {
        let reach = self.people.entry(who).or_insert_with(|| Reach { first: u64::MAX, ..Reach::default() });
        reach.statements += more.statements;
        reach.rows += more.rows;
        reach.bytes += more.bytes;
        reach.first = reach.first.min(more.first);
        reach.last = reach.last.max(more.last);
    }

    /// The grants of a log. One gateway's grants are in force at all of them.
    fn grants(&mut self, entries: &BTreeMap<u64, Entry>) -> Result<(), String> {
        let mut approvals = Approvals::default();
        for (index, entry) in entries {
            let text = |key: &str| entry.record[key].as_str().unwrap_or_default();
            let followed = match entry.leaf.kind {
                Kind::PolicyChanged => approvals.policy(&entry.bytes),
                Kind::Requested => approvals.requested(&entry.bytes),
                Kind::Approved => approvals.approved(&entry.bytes),
                Kind::Granted => approvals.granted(&entry.bytes),
                _ => Ok(()),
            };
            followed.map_err(|problem| format!("entry {index}: {problem}"))?;
            if entry.leaf.kind == Kind::PolicyChanged && entry.record["rules"].is_string() {
                self.rules.insert(text("digest").to_owned());
            }
            if entry.leaf.kind == Kind::Granted {
                self.granted.insert(text("id").to_owned());
            }
            if entry.leaf.kind == Kind::Requested {
                let request: serde_json::Value = serde_json::from_str(text("request")).unwrap_or_default();
                let word = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
                let known = self.purposes.insert(word("id"), word("purpose"));
                if known.is_some_and(|known| known != word("purpose")) {
                    return Err(format!(
                        "entry {index}: the request {} is in another log in other words",
                        word("id")
                    ));
                }
            }
        }
        self.verified += approvals.verified;
        Ok(())
    }

    /// The sessions and statements of a log.
    fn statements(&mut self, entries: &BTreeMap<u64, Entry>) -> Result<(), String> {
        for (index, entry) in entries {
            self.entry(entry).map_err(|problem| format!("entry {index}: {problem}"))?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), String> {
        match entry.leaf.kind {
            Kind::PolicyChanged | Kind::Requested | Kind::Approved | Kind::Granted => Ok(()),
            Kind::SessionOpened => self.session(entry),
            Kind::Intent => self.intent(entry),
            Kind::Outcome => {
                let session = entry.record["session"].as_str().unwrap_or_default().to_owned();
                let key = (session, entry.record["n"].as_u64().unwrap_or_default());
                if self.question.since.is_some_and(|since| entry.leaf.time < since) {
                    return Err("ended before the time that was asked about".to_owned());
                }
                let (rows, bytes) = (entry.leaf.counters.rows, entry.leaf.counters.bytes);
                if let Some((who, reach)) = self.running.remove(&key) {
                    self.add(who.clone(), &Reach { rows, bytes, ..reach });
                    self.ended.insert(key, who);
                    return Ok(());
                }
                // A portal that is fetched in pieces has an end for each.
                let who = self.ended.get(&key).ok_or("is the end of a statement that is not shown")?.clone();
                self.add(who, &Reach { rows, bytes, first: u64::MAX, ..Reach::default() });
                Ok(())
            }
            _ => Err("is of a kind that answers no question".to_owned()),
        }
    }

    fn session(&mut self, entry: &Entry) -> Result<(), String> {
        let text = |key: &str| entry.record[key].as_str().unwrap_or_default().to_owned();
        let grants = entry.record["grants"].as_array().map(Vec::as_slice).unwrap_or_default();
        let grants: Vec<String> = grants.iter().filter_map(|g| g.as_str().map(str::to_owned)).collect();
        if let Some(grant) = grants.iter().find(|g| !self.granted.contains(*g)) {
            return Err(format!("depends on the grant {grant}, which is not shown"));
        }
        let who = Who {
            person: text("principal"),
            location: text("location"),
            employer: text("employer"),
            covered: text("covered"),
            store: text("store"),
            jurisdiction: entry.leaf.jurisdiction.clone(),
            purposes: grants.iter().filter_map(|g| self.purposes.get(g).cloned()).collect(),
            grants,
        };
        // What is public of an access must be what its record says.
        let (from, covered) = (entry.leaf.from.as_deref(), entry.leaf.covered);
        if from.is_some_and(|from| from != who.location)
            || covered != (from.is_some() && !who.covered.is_empty())
        {
            return Err("its leaf says another origin than its record".to_owned());
        }
        self.answers(&who)?;
        self.sessions.insert(text("session"), who);
        Ok(())
    }

    fn answers(&self, who: &Who) -> Result<(), String> {
        let asked = self.question;
        let same = |want: &Option<String>, is: &str| want.as_ref().is_none_or(|want| want == is);
        let purpose = asked.purpose.as_ref().map(|p| p.to_lowercase());
        let holds = same(&asked.jurisdiction, &who.jurisdiction)
            && same(&asked.from, &who.location)
            && same(&asked.employer, &who.employer)
            && same(&asked.person, &who.person)
            && same(&asked.store, &who.store)
            && (!asked.covered || !who.covered.is_empty())
            && purpose.is_none_or(|p| who.purposes.iter().any(|has| has.to_lowercase().contains(&p)));
        if holds { Ok(()) } else { Err(format!("{} does not answer the question", who.person)) }
    }

    fn intent(&mut self, entry: &Entry) -> Result<(), String> {
        let session = entry.record["session"].as_str().unwrap_or_default().to_owned();
        let n = entry.record["n"].as_u64().ok_or("has no number")?;
        let who = self.sessions.get(&session).ok_or("is of a session that is not shown")?;
        let time = entry.leaf.time;
        if self.question.until.is_some_and(|until| time >= until) {
            return Err("began after the time that was asked about".to_owned());
        }
        let reach = Reach { statements: 1, first: time, last: time, ..Reach::default() };
        let key = (session, n);
        if self.ended.contains_key(&key) || self.running.insert(key, (who.clone(), reach)).is_some() {
            return Err("is the beginning of a statement that has begun already".to_owned());
        }
        Ok(())
    }
}
