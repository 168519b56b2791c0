//! Takes an answer, with all that proves it, into a folder for somebody else: see [`ringfence_verifier::bundle`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ringfence_verifier::bundle::{Bundle, ENTRIES, FORMAT, HASHES, INDEX, LEAVES, LogPart, Shown, TRUST};
use ringfence_verifier::checkpoint::{CHECKPOINT, Head, WITNESSED, open_head};
use ringfence_verifier::question::{Question, Reach};
use ringfence_verifier::record::Leaf;
use ringfence_verifier::segment::Finder;
use ringfence_verifier::tiles::{self, Shelf, WIDTH};
use tlog_tiles::{Hash, HashReader, Tile, prove_record, split_stored_hash_index};

use crate::Error;
use crate::columns::read;
use crate::index::{State, TEXTS, read_state};
use crate::question::{Answer, ask};

/// Tiles that are kept in memory while proofs are made.
const TILES: usize = 4096;

/// What was written.
#[derive(Debug, Default, serde::Serialize)]
pub struct Written {
    /// Statements that answer.
    pub statements: u64,
    /// Statements that answer and are newer than the last confirmed checkpoint: they are not in the bundle.
    pub newer: u64,
    /// Entries that are shown.
    pub entries: u64,
    /// Public leaves that show that nothing was kept back.
    pub leaves: u64,
    /// How large the bundle is.
    pub bytes: u64,
}

/// A log to ask: its index and its public keys, one a line.
pub struct Source {
    /// The index's folder.
    pub index: PathBuf,
    /// The keys.
    pub vkeys: String,
}

/// A trust policy of an installation that has no witnesses: its logs' keys go along, at least.
pub fn keys_only(sources: &[Source]) -> String {
    let lines = sources.iter().flat_map(|source| source.vkeys.lines());
    let mut text: String = lines.map(|key| ["log ", key, "\n"].concat()).collect();
    text.push_str("quorum none\n");
    text
}

/// Writes the answer to `question` into the folder `out`, which must not be there yet. With `complete`, all public leaves of
/// the time go along. `trust` is the text of a trust policy.
pub fn write(
    out: &Path,
    sources: &[Source],
    question: &Question,
    complete: bool,
    trust: &str,
    made: u64,
) -> Result<Written, Error> {
    fs::create_dir(out).map_err(Error::io("cannot create", out))?;
    let indexes: Vec<PathBuf> = sources.iter().map(|s| s.index.clone()).collect();
    let mut answer = ask(&indexes, question, None, true)?;
    let mut heads = Vec::new();
    for (asked, source) in answer.logs.iter().zip(sources) {
        heads.push(checkpoint(&asked.dir, &source.vkeys)?);
    }
    let newer = keep_confirmed(&mut answer, &heads);
    let mut written = Written { statements: answer.hits.len() as u64, newer, ..Written::default() };
    let mut logs = Vec::new();
    for (n, (source, checkpoint)) in sources.iter().zip(&heads).enumerate() {
        let state = read_state(&source.index)
            .ok_or_else(|| Error::corrupt(&source.index, "there is no index here"))?;
        let dir = format!("log-{n}");
        let folder = out.join(&dir);
        fs::create_dir(&folder).map_err(Error::io("cannot create", &folder))?;
        let part = Part {
            index: &source.index,
            state: &state,
            checkpoint,
            folder: &folder,
            answer: &answer,
            log: n,
        };
        logs.push(part.write(dir, question, complete, &mut written)?);
    }
    let people = answer.people.into_iter().filter(|(_, reach)| reach.statements > 0).collect();
    let bundle = Bundle { format: FORMAT.to_owned(), made, question: question.clone(), people, logs };
    let json = serde_json::to_vec_pretty(&bundle).map_err(|e| Error::corrupt(out, e.to_string()))?;
    for (name, bytes) in [(INDEX, json.as_slice()), (TRUST, trust.as_bytes())] {
        let path = out.join(name);
        fs::write(&path, bytes).map_err(Error::io("cannot write", &path))?;
        written.bytes += bytes.len() as u64;
    }
    Ok(written)
}

/// The newest checkpoint that witnesses have confirmed, or else the log's own.
fn checkpoint(dir: &Path, vkeys: &str) -> Result<(Vec<u8>, Head), Error> {
    for name in [WITNESSED, CHECKPOINT] {
        let path = dir.join(name);
        let note = match fs::read(&path) {
            Ok(note) => note,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io("cannot read", &path)(e)),
        };
        let head = open_head(&note, vkeys).map_err(|problem| Error::corrupt(&path, problem))?;
        return Ok((note, head));
    }
    Err(Error::corrupt(dir, "there is no checkpoint here"))
}

/// Takes out of an answer what the checkpoints do not cover yet; returns how many statements that were.
fn keep_confirmed(answer: &mut Answer, heads: &[(Vec<u8>, Head)]) -> u64 {
    let all = answer.hits.len();
    let size = |log: usize| heads.get(log).map_or(0, |(_, head)| head.size);
    answer.hits.retain(|hit| hit.intent < size(hit.log));
    let mut reaches = vec![Reach { first: u64::MAX, ..Reach::default() }; answer.people.len()];
    for hit in &mut answer.hits {
        if hit.outcome.is_none_or(|outcome| outcome >= size(hit.log)) {
            (hit.outcome, hit.rows, hit.bytes) = (None, 0, 0);
            hit.charged.clear();
        }
        if let Some(reach) = reaches.get_mut(hit.by) {
            reach.statements += u64::from(!hit.again);
            reach.rows += hit.rows;
            reach.bytes += hit.bytes;
            reach.charge(&hit.charged);
            reach.first = reach.first.min(hit.began);
            reach.last = reach.last.max(hit.began);
            reach.columns.extend(hit.columns.split_whitespace().map(str::to_owned));
        }
    }
    for ((_, reach), confirmed) in answer.people.iter_mut().zip(reaches) {
        *reach = confirmed;
    }
    // Numbers of people stay as they are: whoever has nothing left is told no more.
    (all - answer.hits.len()) as u64
}

struct Part<'a> {
    index: &'a Path,
    state: &'a State,
    checkpoint: &'a (Vec<u8>, Head),
    folder: &'a Path,
    answer: &'a Answer,
    log: usize,
}

impl Part<'_> {
    fn write(
        &self,
        dir: String,
        question: &Question,
        complete: bool,
        written: &mut Written,
    ) -> Result<LogPart, Error> {
        let (note, head) = self.checkpoint;
        let mut bytes = self.file(CHECKPOINT, note)?;
        let mut wanted = self.wanted(head.size);
        // Entries with the texts of statements, which answer nothing themselves.
        let mut for_text = BTreeSet::new();
        for entry in self.texts(&wanted)?.into_iter().filter(|entry| *entry < head.size) {
            if wanted.insert(entry) {
                for_text.insert(entry);
            }
        }
        let leaves = if complete { Some(self.range(question, head)?) } else { None };
        let hashes = Recorder { root: &self.state.dir, tiles: Mutex::default(), read: Mutex::default() };
        let broken =
            |e: tlog_tiles::Error| Error::corrupt(&self.state.dir, format!("no proof can be made: {e}"));
        for index in wanted.iter().filter(|i| leaves.is_none_or(|(from, until)| **i < from || **i >= until)) {
            prove_record(head.size, *index, &hashes).map_err(broken)?;
        }
        if let Some((from, until)) = leaves {
            for first in (from..until).step_by(WIDTH) {
                prove_record(head.size, first, &hashes).map_err(broken)?;
            }
            // The last tile may be partial: then each of its leaves is proven by itself.
            for index in until - until % WIDTH as u64..until {
                prove_record(head.size, index, &hashes).map_err(broken)?;
            }
            bytes += self.leaves(from, until)?;
            written.leaves += until - from;
        }
        bytes += self.file(HASHES, &hashes.take(leaves))?;
        bytes += self.entries(&wanted, &for_text)?;
        written.entries += wanted.len() as u64;
        written.bytes += bytes;
        Ok(LogPart {
            dir,
            origin: self.state.origin.clone(),
            size: head.size,
            entries: wanted.len() as u64,
            leaves,
        })
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<u64, Error> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).map_err(Error::io("cannot write", &path))?;
        Ok(bytes.len() as u64)
    }

    /// The entries that the answer rests on: statements, their sessions, the grants of those with their approvals, and the
    /// rules under which all that was.
    fn wanted(&self, size: u64) -> BTreeSet<u64> {
        let mut wanted = BTreeSet::new();
        let mut grants = BTreeSet::new();
        for hit in &self.answer.hits {
            if hit.log == self.log {
                wanted.extend([hit.session, hit.intent]);
                wanted.extend(hit.outcome);
            }
            // Signed at one gateway, in force at all: the signatures may be in another log than the statement.
            if let Some((who, _)) = self.answer.people.get(hit.by) {
                grants.extend(who.grants.iter());
            }
        }
        for asked in grants.into_iter().filter_map(|g| self.state.requests.get(g)) {
            wanted.insert(asked.entry);
            wanted.extend(asked.approvals.iter().chain(&asked.granted));
        }
        let rules: BTreeSet<u64> = self.state.policies.iter().map(|(_, entry)| *entry).collect();
        let in_force: Vec<u64> =
            wanted.iter().filter_map(|e| rules.range(..e).next_back().copied()).collect();
        wanted.extend(in_force);
        wanted.retain(|entry| *entry < size);
        wanted
    }

    /// The entries that have the texts of these statements.
    fn texts(&self, statements: &BTreeSet<u64>) -> Result<BTreeSet<u64>, Error> {
        let column = |n: usize| {
            let (name, width) = TEXTS[n];
            read(&self.index.join(name), width, 0, self.state.texts)
        };
        let (intents, entries) = (column(0)?, column(1)?);
        let of = intents.iter().zip(&entries).filter(|(intent, _)| statements.contains(intent));
        Ok(of.map(|(_, entry)| *entry).collect())
    }

    /// The run of leaves, in whole tiles, that reaches over the time of the question with one more on each side.
    fn range(&self, question: &Question, head: &Head) -> Result<(u64, u64), Error> {
        let width = WIDTH as u64;
        let first = |time: u64| self.first_at_least(head.size, time);
        let from = question.since.map_or(Ok(0), &first)?.saturating_sub(1);
        let until = question.until.map_or(Ok(head.size), &first)?.saturating_add(1).min(head.size);
        Ok((from - from % width, until.next_multiple_of(width).min(head.size)))
    }

    fn bundle(&self, n: u64, size: u64) -> Result<Vec<u8>, Error> {
        let width = usize::try_from(size - n * WIDTH as u64).map_or(WIDTH, |left| left.min(WIDTH));
        let exact = self.state.dir.join(tiles::path(Shelf::Entries, n, width));
        if let Ok(bytes) = fs::read(&exact) {
            return Ok(bytes);
        }
        let full = self.state.dir.join(tiles::path(Shelf::Entries, n, WIDTH));
        fs::read(&full).map_err(Error::io("cannot read", &exact))
    }

    /// The first entry that is not before `time`; the size if there is none.
    fn first_at_least(&self, size: u64, time: u64) -> Result<u64, Error> {
        let damaged = || Error::corrupt(&self.state.dir, "an entry bundle is damaged");
        let times = |n: u64| -> Result<Vec<u64>, Error> {
            let bytes = self.bundle(n, size)?;
            let entries = tiles::split_bundle(&bytes).ok_or_else(damaged)?;
            let left = usize::try_from(size - n * WIDTH as u64).unwrap_or(WIDTH);
            let leaves = entries.into_iter().take(left).map(serde_json::from_slice::<Leaf>);
            leaves.map(|leaf| leaf.map(|l| l.time).map_err(|_| damaged())).collect()
        };
        let (mut low, mut high) = (0, size.div_ceil(WIDTH as u64));
        while low < high {
            let middle = low + (high - low) / 2;
            if times(middle)?.last().is_some_and(|last| *last < time) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low >= size.div_ceil(WIDTH as u64) {
            return Ok(size);
        }
        let within = times(low)?.iter().take_while(|t| **t < time).count() as u64;
        Ok((low * WIDTH as u64 + within).min(size))
    }

    fn leaves(&self, from: u64, until: u64) -> Result<u64, Error> {
        let path = self.folder.join(LEAVES);
        let mut out = BufWriter::new(File::create(&path).map_err(Error::io("cannot create", &path))?);
        let mut bytes = 0;
        for n in from / WIDTH as u64..until.div_ceil(WIDTH as u64) {
            let bundle = self.bundle(n, until)?;
            let width = usize::try_from(until - n * WIDTH as u64).map_or(WIDTH, |left| left.min(WIDTH));
            let entries = tiles::split_bundle(&bundle).unwrap_or_default();
            let length: usize = entries.iter().take(width).map(|e| e.len() + 2).sum();
            out.write_all(&bundle[..length]).map_err(Error::io("cannot write", &path))?;
            bytes += length as u64;
        }
        out.flush().map_err(Error::io("cannot write", &path))?;
        Ok(bytes)
    }

    fn entries(&self, wanted: &BTreeSet<u64>, for_text: &BTreeSet<u64>) -> Result<u64, Error> {
        let path = self.folder.join(ENTRIES);
        let mut out = BufWriter::new(File::create(&path).map_err(Error::io("cannot create", &path))?);
        let mut finder = Finder::new(&self.state.dir)?;
        let (mut bytes, mut line) = (0, Vec::new());
        for index in wanted {
            let entry = finder.get(*index)?;
            let entry = entry.ok_or_else(|| {
                Error::corrupt(
                    &self.state.dir.join("private"),
                    format!("the record of entry {index} is not here"),
                )
            })?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (leaf, record) = (text(&entry.leaf), text(&entry.record));
            let for_text = for_text.contains(index);
            let shown = Shown { index: *index, leaf, salt: hex::encode(entry.salt), record, for_text };
            line.clear();
            serde_json::to_writer(&mut line, &shown).map_err(|e| Error::corrupt(&path, e.to_string()))?;
            line.push(b'\n');
            out.write_all(&line).map_err(Error::io("cannot write", &path))?;
            bytes += line.len() as u64;
        }
        out.flush().map_err(Error::io("cannot write", &path))?;
        Ok(bytes)
    }
}

/// Reads hashes from tiles and remembers which.
struct Recorder<'a> {
    root: &'a Path,
    tiles: Mutex<HashMap<(u8, u64), Vec<u8>>>,
    read: Mutex<BTreeMap<u64, Hash>>,
}

impl Recorder<'_> {
    fn hash(&self, index: u64) -> Result<Hash, tlog_tiles::Error> {
        let tile = Tile::from_index(8, index);
        let key = (tile.level(), tile.level_index());
        let mut tiles = self.tiles.lock().map_err(|_| tlog_tiles::Error::InvalidTile)?;
        // A partial tile that was read for an earlier hash may be too short for this one.
        let fits = |bytes: &Vec<u8>| bytes.len() >= tile.width() as usize * tlog_tiles::HASH_SIZE;
        if !tiles.get(&key).is_some_and(fits) {
            if tiles.len() >= TILES {
                tiles.clear();
            }
            let bytes = self.tile(&tile).ok_or(tlog_tiles::Error::InvalidTile)?;
            tiles.insert(key, bytes);
        }
        let bytes = tiles.get(&key).ok_or(tlog_tiles::Error::InvalidTile)?;
        let width = u32::try_from(bytes.len() / tlog_tiles::HASH_SIZE).unwrap_or(0);
        Tile::new(8, tile.level(), tile.level_index(), width, false).hash_at_index(bytes, index)
    }

    /// The widest file of a tile that is there.
    fn tile(&self, tile: &Tile) -> Option<Vec<u8>> {
        let shelf = Shelf::Level(tile.level());
        if let Ok(bytes) = fs::read(self.root.join(tiles::path(shelf, tile.level_index(), WIDTH))) {
            return Some(bytes);
        }
        let mut widths = (tile.width() as usize..WIDTH).rev();
        widths.find_map(|w| fs::read(self.root.join(tiles::path(shelf, tile.level_index(), w))).ok())
    }

    /// What was read, but for what the leaves in the range give anyway.
    fn take(&self, leaves: Option<(u64, u64)>) -> Vec<u8> {
        let Ok(read) = self.read.lock() else { return Vec::new() };
        let mut bytes = Vec::new();
        for (index, hash) in read.iter() {
            let (level, n) = split_stored_hash_index(*index);
            let is_inside = level <= 8
                && leaves.is_some_and(|(from, until)| (n << level) >= from && ((n + 1) << level) <= until);
            if !is_inside {
                bytes.extend_from_slice(&index.to_le_bytes());
                bytes.extend_from_slice(&hash.0);
            }
        }
        bytes
    }
}

impl HashReader for Recorder<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let mut found = Vec::with_capacity(indexes.len());
        for index in indexes {
            let hash = self.hash(*index)?;
            if let Ok(mut read) = self.read.lock() {
                read.insert(*index, hash);
            }
            found.push(hash);
        }
        Ok(found)
    }
}
