//! Group commit: whatever arrives while the disk is busy becomes durable together.
//!
//! Two threads. The *journal* thread takes all waiting entries, writes them with one `fdatasync` and resolves their
//! tickets. The *sequencer* thread follows with tiles and checkpoints. Nobody who appends waits for the second.
//!
//! When the disk is full or the log cannot be written, tickets resolve to [`Unavailable`], entries that nobody waits for
//! (outcomes, refusals) are kept in memory up to a bound, and the journal thread tries again until it works.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use ringfence_verifier::checkpoint::{Head, read_head};
use ringfence_verifier::record::MAX_LEAF;
use ringfence_verifier::tiles::LOCK;
use ringfence_verifier::{Error, keys, segment};

use crate::bucket::{Bucket, Mirror};
use crate::entry::{Entry, now_ms, salts};
use crate::inbox::{Counts, Inbox, Waiting};
use crate::journal::Journal;
use crate::sequencer::Sequencer;
use crate::ticket::{Calls, Ticket, Unavailable};
use crate::witnessing::{self, Health, Witnesses, Witnessing};

/// Where a log lies and how it is written.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The log's folder.
    pub dir: PathBuf,
    /// The signing key (`PRIVATE+KEY+…`). While keys rotate there are several, one a line, and all of them sign.
    pub skey: String,
    /// The public keys, one a line: the current one, then those that are retired.
    pub vkey: String,
    /// How long after an entry a checkpoint follows, at most.
    pub publish_every: Duration,
    /// Who cosigns the checkpoints.
    pub witnesses: Option<Witnesses>,
    /// An S3-compatible store that has a copy.
    pub bucket: Option<Bucket>,
}

/// A signer (`PRIVATE+KEY+…`) and its verifier key (`name+hash+key`).
pub struct Keys {
    /// The private half; never printed.
    pub signer: String,
    /// The public half, the "vkey" that everybody may have.
    pub verifier: String,
}

/// Makes a new Ed25519 key for the log `origin`.
pub fn generate_keys(origin: &str) -> Keys {
    let (signer, verifier) = signed_note::generate_key(&mut rand_core::OsRng, origin);
    Keys { signer, verifier }
}

/// How long the sequencer sleeps at a time, so that it sees the end of the log soon.
const LOOK: Duration = Duration::from_millis(20);
/// The largest record that is written, in bytes: a frame holds the leaf, too.
const MAX_RECORD: usize = segment::MAX_FRAME - MAX_LEAF - 1024;
/// How long to wait between attempts when the log cannot be written.
const RETRY: Duration = Duration::from_millis(500);

struct Shared {
    inbox: Inbox,
    calls: Arc<Calls>,
    healthy: AtomicBool,
    size: AtomicU64,
    last_time: AtomicU64,
    groups: AtomicU64,
    /// The first entry of the segment that is written to.
    segment: AtomicU64,
}

/// A log that is open for appending. Dropping it (the last clone) writes what waits and a last checkpoint.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

/// A log that may be closed meanwhile: for those who watch, and must not keep it open.
#[derive(Clone)]
pub struct WeakLedger(std::sync::Weak<Inner>);

impl WeakLedger {
    /// The log, unless it is closed.
    pub fn upgrade(&self) -> Option<Ledger> {
        self.0.upgrade().map(|inner| Ledger { inner })
    }
}

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    witnessing: Option<Arc<Witnessing>>,
    mirror: Option<Mirror>,
    vkey: String,
    dir: PathBuf,
    /// Held as long as the log is open: a second writer would cut what the first has written.
    _lock: File,
}

impl Ledger {
    /// A handle that does not keep the log open.
    pub fn downgrade(&self) -> WeakLedger {
        WeakLedger(Arc::downgrade(&self.inner))
    }

    /// Opens or creates the log and starts its threads. Recovers what a crash left durable but unsequenced.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        keys::signers(&settings.skey)?;
        keys::verifiers(&settings.vkey)?;
        let root = settings.dir.as_path();
        let lock = lock(root)?;
        crate::erase::clean_up(root);
        let _ = std::fs::remove_file(root.join(ringfence_verifier::tiles::TEMPORARY));
        let head = read_head(root, &settings.vkey)?;
        let mut sequencer = Sequencer::open(root, &settings.skey, head.as_ref())?;
        let (journal, tail) = Journal::open(root, head.as_ref().map_or(0, |h| h.size))?;
        for leaf in &tail {
            sequencer.push(leaf)?;
        }
        let witnessing = match &settings.witnesses {
            Some(witnesses) => Some(Arc::new(Witnessing::start(root, &settings.vkey, witnesses.clone())?)),
            None => None,
        };
        let published = sequencer.publish()?;
        if let (Some(witnessing), Some((head, note))) = (&witnessing, sequencer.newest(published)?) {
            witnessing.offer(head, note);
        }
        let last_time = last_time(root, journal.size())?;
        let behind = last_time.saturating_sub(now_ms());
        if behind > 1000 {
            // Entries keep the newest time until the clock has caught up: time never goes back in a log.
            tracing::error!(behind_ms = behind, "the system's clock is behind the log's newest entry");
        }
        let shared = Arc::new(Shared {
            inbox: Inbox::default(),
            calls: Arc::default(),
            healthy: AtomicBool::new(true),
            size: AtomicU64::new(journal.size()),
            last_time: AtomicU64::new(last_time),
            groups: AtomicU64::new(0),
            segment: AtomicU64::new(journal.segment()),
        });
        let (leaves, sequenced) = mpsc::channel();
        let journal_thread = spawn("ledger-journal", {
            let shared = Arc::clone(&shared);
            move || write_groups(&shared, journal, &leaves)
        })?;
        let every = settings.publish_every;
        let offered = witnessing.clone();
        let sequencer_thread = spawn("ledger-sequencer", move || {
            follow(sequencer, &sequenced, every, |head, note| {
                if let Some(witnessing) = &offered {
                    witnessing.offer(head, note);
                }
            });
        })?;
        let mirror = settings.bucket.as_ref().map(|bucket| Mirror::start(root, &settings.vkey, bucket));
        let mirror = mirror.transpose()?;
        let threads = Mutex::new(vec![journal_thread, sequencer_thread]);
        let inner = Inner {
            shared,
            threads,
            witnessing,
            mirror,
            vkey: settings.vkey.clone(),
            dir: settings.dir.clone(),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Hands in an entry; the ticket resolves when it is durable.
    pub fn append(&self, entry: Entry) -> Ticket {
        let ticket = self.append_batched(entry);
        self.end_batch();
        ticket
    }

    /// Hands in an entry of a batch: where several are usual, nothing is done about it until [`Self::end_batch`], or until
    /// there are many. So the
    /// statements that a thread has found in one look at its sockets share a sync, and the first of them does not have one
    /// to itself while the others wait for the next.
    pub fn append_batched(&self, entry: Entry) -> Ticket {
        let shared = &self.inner.shared;
        shared.inbox.append(entry, &shared.calls)
    }

    /// Whoever has handed in entries of a batch calls this before it sleeps.
    pub fn end_batch(&self) {
        self.inner.shared.inbox.end_batch();
    }

    /// Hands in an entry that nobody waits for, such as an outcome. It is written as soon as the log can be.
    pub fn record(&self, entry: Entry) {
        if !self.inner.shared.inbox.record(entry) {
            tracing::error!(
                "the ledger has been unwritable for so long that an entry about a past event is lost"
            );
        }
    }

    /// `Err` while the log cannot be written: governed statements are refused then without being run.
    pub fn healthy(&self) -> Result<(), Unavailable> {
        if self.inner.shared.healthy.load(Ordering::Acquire) {
            return Ok(());
        }
        self.inner.shared.inbox.failure().map_or(Ok(()), Err)
    }

    /// How many entries are durable.
    pub fn size(&self) -> u64 {
        self.inner.shared.size.load(Ordering::Acquire)
    }

    /// How many times the disk was asked to sync a group.
    pub fn groups(&self) -> u64 {
        self.inner.shared.groups.load(Ordering::Relaxed)
    }

    /// The time of the newest entry, in milliseconds since 1970: a clock that was set back is behind it.
    pub fn last_time(&self) -> u64 {
        self.inner.shared.last_time.load(Ordering::Acquire)
    }

    /// Hands in an entry that says how many entries of each kind this process has promised to write, up to here. Whoever
    /// reads the log counts them: one that is missing shows.
    pub fn heartbeat(&self, make: impl FnOnce(&Counts) -> Entry) {
        self.inner.shared.inbox.heartbeat(make);
    }

    /// The first entry of the segment that is written to. Entries that wait now may come into the next.
    pub fn segment(&self) -> u64 {
        self.inner.shared.segment.load(Ordering::Acquire)
    }

    /// How the log stands with its witnesses.
    pub fn witnessed(&self) -> witnessing::State {
        self.inner.witnessing.as_ref().map_or(witnessing::State::NotAsked, |w| w.state())
    }

    /// What is known of each witness.
    pub fn witnesses(&self) -> Vec<Health> {
        self.inner.witnessing.as_ref().map(|w| w.health()).unwrap_or_default()
    }

    /// The log's public keys, one a line, the current one first.
    pub fn vkey(&self) -> &str {
        &self.inner.vkey
    }

    /// The log's folder.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.inbox.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
        if let Some(witnessing) = &self.witnessing {
            witnessing.close();
        }
        if let Some(mirror) = &self.mirror {
            mirror.close();
        }
    }
}

fn lock(root: &Path) -> Result<File, Error> {
    std::fs::create_dir_all(root).map_err(Error::io("cannot create", root))?;
    let path = root.join(LOCK);
    let file = File::create(&path).map_err(Error::io("cannot create", &path))?;
    file.try_lock().map_err(|_| {
        Error::corrupt(root, "another process writes this log; each gateway needs a log of its own")
    })?;
    Ok(file)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, Error> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|source| Error::Io {
        what: "cannot start thread",
        path: name.to_owned(),
        source,
    })
}

fn last_time(root: &Path, size: u64) -> Result<u64, Error> {
    let last = if size == 0 { None } else { segment::find(root, size - 1)? };
    Ok(last.and_then(|e| e.parse_leaf().ok()).map_or(0, |leaf| leaf.time))
}

/// The journal thread.
fn write_groups(shared: &Shared, mut journal: Journal, leaves: &mpsc::Sender<Vec<Vec<u8>>>) {
    let mut encoded = Vec::new();
    let mut sync = Duration::ZERO;
    while let Some(taken) = shared.inbox.next_group(sync) {
        let time = now_ms().max(shared.last_time.load(Ordering::Acquire));
        let mut leaves_of_group = Vec::with_capacity(taken.len());
        encoded.clear();
        let mut group = Vec::with_capacity(taken.len());
        let salts = salts(taken.len());
        for (mut waiting, salt) in taken.into_iter().zip(salts) {
            if waiting.promise.is_none() && waiting.entry.record.len() > MAX_RECORD {
                tracing::error!(kind = ?waiting.entry.kind, "an entry is too large, and is written without what is long in it");
                waiting.entry = waiting.entry.shortened();
            }
            let leaf = waiting.entry.seal(time, &salt);
            match segment::encode(&leaf, &salt, &waiting.entry.record, &mut encoded) {
                Ok(()) => {
                    leaves_of_group.push(leaf);
                    group.push(waiting);
                }
                Err(error) => {
                    tracing::error!(%error, "an entry cannot be written");
                    shared.inbox.forget(&waiting);
                    if let Some(promise) = waiting.promise {
                        promise.settle(Err(Unavailable(error.to_string().into())));
                    }
                }
            }
        }
        let started = Instant::now();
        match journal.append(&encoded, group.len()) {
            Ok(first) => {
                sync = started.elapsed();
                shared.last_time.store(time, Ordering::Release);
                shared.size.store(journal.size(), Ordering::Release);
                shared.segment.store(journal.segment(), Ordering::Release);
                shared.groups.fetch_add(1, Ordering::Relaxed);
                if !shared.healthy.swap(true, Ordering::AcqRel) {
                    shared.inbox.reopen();
                    tracing::info!("the ledger can be written again");
                }
                for (index, waiting) in (first..).zip(group) {
                    if let Some(promise) = waiting.promise {
                        promise.settle(Ok(index));
                    }
                }
                shared.calls.call();
                let _ = leaves.send(leaves_of_group);
            }
            Err(error) => {
                fail(shared, group, &error);
                shared.calls.call();
                std::thread::sleep(RETRY);
                if shared.inbox.is_closing() {
                    return;
                }
            }
        }
    }
}

/// Refuses the tickets of a group that could not be written, keeps its other entries, and closes the log to new ones.
fn fail(shared: &Shared, group: Vec<Waiting>, error: &Error) {
    if shared.healthy.swap(false, Ordering::AcqRel) {
        tracing::error!(%error, "governed statements are refused until the ledger can be written");
    }
    shared.inbox.fail(group, &Unavailable(error.to_string().into()));
}

/// The sequencer thread: sleeps from the first leaf until a checkpoint is due, then takes all that came meanwhile.
fn follow(
    mut sequencer: Sequencer,
    leaves: &mpsc::Receiver<Vec<Vec<u8>>>,
    every: Duration,
    published: impl Fn(Head, Vec<u8>),
) {
    let mut closing = false;
    while !closing {
        let mut next = if sequencer.is_behind() {
            Ok(Vec::new()) // the last checkpoint failed: try again
        } else {
            leaves.recv().map_err(|_| mpsc::TryRecvError::Disconnected)
        };
        let due = Instant::now() + every;
        loop {
            match next {
                // A leaf that is too large never got into the journal.
                Ok(group) => {
                    for leaf in group {
                        sequencer.push(&leaf).expect("leaves in the journal fit a bundle");
                    }
                }
                Err(mpsc::TryRecvError::Disconnected) => {
                    closing = true;
                    break;
                }
                Err(mpsc::TryRecvError::Empty) => {
                    let now = Instant::now();
                    if now >= due {
                        break;
                    }
                    std::thread::sleep((due - now).min(LOOK));
                }
            }
            next = leaves.try_recv();
        }
        match sequencer.publish() {
            Ok(Some((head, note))) => published(head, note),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "no new checkpoint; entries stay durable in the journal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_verifier::{Counters, Kind, verify};

    fn settings(dir: &Path) -> Settings {
        let keys = generate_keys("test.example/log");
        let publish_every = Duration::from_millis(5);
        Settings {
            dir: dir.to_owned(),
            skey: keys.signer,
            vkey: keys.verifier,
            publish_every,
            witnesses: None,
            bucket: None,
        }
    }

    fn entry(n: u64) -> Entry {
        let record = serde_json::json!({ "n": n });
        Entry::new(Kind::Intent, "us", &record).counting(Counters { rows: n, ..Counters::default() })
    }

    #[test]
    fn what_was_acknowledged_is_there_after_a_restart_and_the_log_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        for round in 0..3 {
            let ledger = Ledger::open(&settings).unwrap();
            let tickets: Vec<Ticket> = (0..300).map(|n| ledger.append(entry(n))).collect();
            for (n, ticket) in tickets.into_iter().enumerate() {
                assert_eq!(ticket.wait().unwrap(), round * 300 + n as u64);
            }
            assert!(ledger.groups() < 300, "300 entries must not cost 300 syncs");
            drop(ledger);
            let report = verify::verify(dir.path(), &settings.vkey);
            assert_eq!(report.problems, Vec::<String>::new());
            assert_eq!(report.entries, (round + 1) * 300);
        }
    }

    #[test]
    fn a_torn_last_write_is_removed_and_everything_before_it_kept() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let ledger = Ledger::open(&settings).unwrap();
        ledger.append(entry(1)).wait().unwrap();
        drop(ledger);
        let segment = segment::list(dir.path()).unwrap().pop().unwrap().path;
        let whole = std::fs::read(&segment).unwrap();
        let torn = [whole.as_slice(), &whole[..whole.len() / 2]].concat();
        std::fs::write(&segment, torn).unwrap();
        let report = verify::verify(dir.path(), &settings.vkey);
        assert!(report.problems[0].contains("is not a whole entry"), "{:?}", report.problems);
        drop(Ledger::open(&settings).unwrap());
        assert_eq!(std::fs::read(&segment).unwrap(), whole);
        assert!(verify::verify(dir.path(), &settings.vkey).problems.is_empty());
    }

    #[test]
    fn an_entry_that_is_too_large_becomes_one_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let ledger = Ledger::open(&settings).unwrap();
        let record =
            |n: u64, bytes: usize| serde_json::json!({ "n": n, "long": "x".repeat(bytes), "ids": [1] });
        let large = |n: u64| Entry::new(Kind::Outcome, "us", &record(n, 5 << 20));
        ledger.record(large(7));
        // What somebody waits for is refused, so that the statement does not run.
        ledger.append(large(8)).wait().unwrap_err();
        ledger.append(entry(9)).wait().unwrap();
        drop(ledger);
        let report = verify::verify(dir.path(), &settings.vkey);
        assert_eq!((report.problems, report.entries), (Vec::<String>::new(), 2));
        let first = segment::find(dir.path(), 0).unwrap().unwrap();
        assert_eq!(first.parse_leaf().unwrap().kind, Kind::Outcome);
        let written: serde_json::Value = serde_json::from_slice(&first.record).unwrap();
        assert_eq!(written, serde_json::json!({ "n": 7, "too_large": large(7).record.len() }));
    }

    #[test]
    fn an_unwritable_log_refuses_and_resumes_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let ledger = Ledger::open(&settings).unwrap();
        ledger.append(entry(1)).wait().unwrap();
        // Entries that cannot be framed stand for a disk that refuses: the whole group fails as with ENOSPC.
        let failure = Unavailable("no space left".into());
        ledger.inner.shared.inbox.fail(Vec::new(), &failure);
        ledger.inner.shared.healthy.store(false, Ordering::Release);
        assert!(ledger.healthy().is_err());
        ledger.append(entry(2)).wait().unwrap_err();
        ledger.record(entry(3)); // an outcome: kept, and its success opens the log again
        while ledger.healthy().is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(ledger.append(entry(4)).wait().unwrap(), 2);
    }
}
