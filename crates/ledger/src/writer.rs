//! Group commit: whatever arrives while the disk is busy becomes durable together.
//!
//! Two threads. The *journal* thread takes all waiting entries, writes them with one `fdatasync` and resolves their
//! tickets. The *sequencer* thread follows with tiles and checkpoints. Nobody who appends waits for the second.
//!
//! When the disk is full or the log cannot be written, tickets resolve to [`Unavailable`], entries that nobody waits for
//! (outcomes, refusals) are kept in memory up to a bound, and the journal thread tries again until it works.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;
use std::time::Duration;

use crate::record::{Entry, now_ms};
use crate::segment::{self, Journal};
use crate::sequencer::{self, Sequencer};
use crate::{Error, keys};

/// Where a log lies and how it is written.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The log's folder.
    pub dir: PathBuf,
    /// The signing key (`PRIVATE+KEY+…`).
    pub skey: String,
    /// The public key.
    pub vkey: String,
    /// How long after an entry a checkpoint follows, at most.
    pub publish_every: Duration,
}

/// Why an entry is not durable.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the ledger cannot be written: {0}")]
pub struct Unavailable(pub Arc<str>);

/// Resolves when the entry is durable, with its index, or when it cannot be.
#[derive(Debug)]
pub struct Ticket {
    fate: Arc<Fate>,
    calls: Arc<Calls>,
    /// The thread under which its waker waits.
    seat: Option<ThreadId>,
}

/// What became of an entry.
type Fate = OnceLock<Result<u64, Unavailable>>;

/// Who waits, by thread.
type Seats = HashMap<ThreadId, Vec<(Arc<Fate>, Waker)>>;

/// Who waits, by the thread that polled. To wake a task of another thread's runtime costs a system call, and a group has
/// many: so the journal wakes one task a thread, and that one wakes its neighbours.
#[derive(Debug, Default)]
struct Calls {
    waiting: Mutex<Seats>,
}

impl Calls {
    fn waiting(&self) -> MutexGuard<'_, Seats> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes one task of each thread that has one whose fate is known.
    fn call(&self) {
        let first = |seat: &Vec<(Arc<Fate>, Waker)>| {
            seat.iter().find(|(fate, _)| fate.get().is_some()).map(|(_, waker)| waker.clone())
        };
        let chosen: Vec<Waker> = self.waiting().values().filter_map(first).collect();
        chosen.into_iter().for_each(Waker::wake);
    }

    /// Wakes all tasks of a thread whose fate is known.
    fn pass_on(&self, thread: ThreadId) {
        let known: Vec<(Arc<Fate>, Waker)> = match self.waiting().get_mut(&thread) {
            Some(seat) => seat.extract_if(.., |(fate, _)| fate.get().is_some()).collect(),
            None => return,
        };
        for (_, waker) in known {
            waker.wake();
        }
    }
}

impl Ticket {
    /// Waits until the entry is durable; returns its index.
    pub async fn durable(mut self) -> Result<u64, Unavailable> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Result<u64, Unavailable>> {
        if self.fate.get().is_none() {
            let thread = std::thread::current().id();
            if self.seat.is_some_and(|seat| seat != thread) {
                self.leave();
            }
            let mut waiting = self.calls.waiting();
            let seat = waiting.entry(thread).or_default();
            match seat.iter_mut().find(|(fate, _)| Arc::ptr_eq(fate, &self.fate)) {
                Some((_, waker)) => waker.clone_from(context.waker()),
                None => seat.push((Arc::clone(&self.fate), context.waker().clone())),
            }
            self.seat = Some(thread);
        }
        // Looked at again after taking a seat: the journal may have called in between.
        match self.fate.get() {
            Some(fate) => Poll::Ready(fate.clone()),
            None => Poll::Pending,
        }
    }

    /// Gives up the seat; whoever is known to be done on its thread hears of it from us.
    fn leave(&mut self) {
        if let Some(thread) = self.seat.take() {
            if let Some(seat) = self.calls.waiting().get_mut(&thread) {
                seat.retain(|(fate, _)| !Arc::ptr_eq(fate, &self.fate));
            }
            self.calls.pass_on(thread);
        }
    }

    /// The same for a thread that may block.
    pub fn wait(self) -> Result<u64, Unavailable> {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut durable = std::pin::pin!(self.durable());
        loop {
            match durable.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => return result,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
    }
}

fn closed() -> Unavailable {
    Unavailable("it was closed".into())
}

/// Entries that nobody waits for and that wait for the disk themselves. Beyond this many the log is worse than late.
const MAX_KEPT: usize = 100_000;
/// How long an entry that nobody waits for may wait for one that somebody does, so that an outcome costs no sync of its own.
const LINGER: Duration = Duration::from_millis(10);
/// How long the sequencer sleeps at a time, so that it sees the end of the log soon.
const LOOK: Duration = Duration::from_millis(20);
/// The most entries in one group.
const MAX_GROUP: usize = 4096;
/// How long to wait between attempts when the log cannot be written.
const RETRY: Duration = Duration::from_millis(500);

/// Settles a ticket's fate; if nothing does, the log was closed.
struct Promise(Arc<Fate>);

impl Promise {
    fn settle(self, result: Result<u64, Unavailable>) {
        let _ = self.0.set(result);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.get_or_init(|| Err(closed()));
    }
}

struct Waiting {
    entry: Entry,
    ticket: Option<Promise>,
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Waiting>,
    /// How many of them somebody waits for.
    awaited: usize,
    closing: bool,
    failure: Option<Unavailable>,
}

impl Inbox {
    /// The journal thread sleeps only while there is nothing.
    fn put(&mut self, waiting: Waiting, arrived: &Condvar) {
        let is_awaited = waiting.ticket.is_some();
        if self.waiting.is_empty() || (is_awaited && self.awaited == 0) {
            arrived.notify_one();
        }
        self.awaited += usize::from(is_awaited);
        self.waiting.push_back(waiting);
    }

    fn take_group(&mut self) -> Vec<Waiting> {
        let count = self.waiting.len().min(MAX_GROUP);
        let group: Vec<Waiting> = self.waiting.drain(..count).collect();
        self.awaited -= group.iter().filter(|w| w.ticket.is_some()).count();
        group
    }
}

struct Shared {
    inbox: Mutex<Inbox>,
    calls: Arc<Calls>,
    arrived: Condvar,
    healthy: AtomicBool,
    size: AtomicU64,
    last_time: AtomicU64,
    groups: AtomicU64,
}

/// A log that is open for appending. Dropping it (the last clone) writes what waits and a last checkpoint.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    vkey: String,
    dir: PathBuf,
}

impl Ledger {
    /// Opens or creates the log and starts its threads. Recovers what a crash left durable but unsequenced.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        keys::signer(&settings.skey)?;
        let root = settings.dir.as_path();
        let _ = std::fs::remove_file(root.join(crate::tiles::TEMPORARY));
        let head = sequencer::read_head(root, &settings.vkey)?;
        let mut sequencer = Sequencer::open(root, &settings.skey, head.as_ref())?;
        let (journal, tail) = Journal::open(root, head.as_ref().map_or(0, |h| h.size))?;
        for leaf in &tail {
            sequencer.push(leaf)?;
        }
        sequencer.publish()?;
        let last_time = last_time(root, journal.size())?;
        let behind = last_time.saturating_sub(now_ms());
        if behind > 1000 {
            // Entries keep the newest time until the clock has caught up: time never goes back in a log.
            tracing::error!(behind_ms = behind, "the system's clock is behind the log's newest entry");
        }
        let shared = Arc::new(Shared {
            inbox: Mutex::new(Inbox::default()),
            calls: Arc::default(),
            arrived: Condvar::new(),
            healthy: AtomicBool::new(true),
            size: AtomicU64::new(journal.size()),
            last_time: AtomicU64::new(last_time),
            groups: AtomicU64::new(0),
        });
        let (leaves, sequenced) = mpsc::channel();
        let journal_thread = spawn("ledger-journal", {
            let shared = Arc::clone(&shared);
            move || write_groups(&shared, journal, &leaves)
        })?;
        let every = settings.publish_every;
        let sequencer_thread = spawn("ledger-sequencer", move || follow(sequencer, &sequenced, every))?;
        let threads = Mutex::new(vec![journal_thread, sequencer_thread]);
        let inner = Inner { shared, threads, vkey: settings.vkey.clone(), dir: settings.dir.clone() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Hands in an entry; the ticket resolves when it is durable.
    pub fn append(&self, entry: Entry) -> Ticket {
        let shared = &self.inner.shared;
        let fate = Arc::new(Fate::new());
        let promise = Promise(Arc::clone(&fate));
        let mut inbox = shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = &inbox.failure {
            promise.settle(Err(failure.clone()));
        } else {
            inbox.put(Waiting { entry, ticket: Some(promise) }, &shared.arrived);
        }
        Ticket { fate, calls: Arc::clone(&shared.calls), seat: None }
    }

    /// Hands in an entry that nobody waits for, such as an outcome. It is written as soon as the log can be.
    pub fn record(&self, entry: Entry) {
        let shared = &self.inner.shared;
        let mut inbox = shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.waiting.len() >= MAX_KEPT {
            tracing::error!(
                "the ledger has been unwritable for so long that an entry about a past event is lost"
            );
            return;
        }
        inbox.put(Waiting { entry, ticket: None }, &shared.arrived);
    }

    /// `Err` while the log cannot be written: governed statements are refused then without being run.
    pub fn healthy(&self) -> Result<(), Unavailable> {
        if self.inner.shared.healthy.load(Ordering::Acquire) {
            return Ok(());
        }
        let inbox = self.inner.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.failure.clone().map_or(Ok(()), Err)
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

    /// The log's public key.
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
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.shared.arrived.notify_one();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
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
    loop {
        let mut group = {
            let mut inbox = shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            while inbox.awaited == 0 && inbox.failure.is_none() && !inbox.closing {
                let is_empty = inbox.waiting.is_empty();
                let (woken, timeout) = if is_empty {
                    let woken = shared.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner);
                    (woken, false)
                } else {
                    let waited = shared.arrived.wait_timeout(inbox, LINGER);
                    let (woken, result) = waited.unwrap_or_else(PoisonError::into_inner);
                    (woken, result.timed_out())
                };
                inbox = woken;
                if timeout {
                    break;
                }
            }
            if inbox.closing && inbox.waiting.is_empty() {
                return;
            }
            inbox.take_group()
        };
        let time = now_ms().max(shared.last_time.load(Ordering::Acquire));
        let mut leaves_of_group = Vec::with_capacity(group.len());
        encoded.clear();
        group.retain_mut(|waiting| {
            let seal = waiting.entry.seal(time);
            let framed = segment::encode(&seal.leaf, &seal.salt, &waiting.entry.record, &mut encoded);
            match framed {
                Ok(()) => leaves_of_group.push(seal.leaf),
                Err(error) => {
                    tracing::error!(%error, "an entry cannot be written");
                    if let Some(ticket) = waiting.ticket.take() {
                        ticket.settle(Err(Unavailable(error.to_string().into())));
                    }
                    return false;
                }
            }
            true
        });
        match journal.append(&encoded, group.len()) {
            Ok(first) => {
                shared.last_time.store(time, Ordering::Release);
                shared.size.store(journal.size(), Ordering::Release);
                shared.groups.fetch_add(1, Ordering::Relaxed);
                if !shared.healthy.swap(true, Ordering::AcqRel) {
                    shared.inbox.lock().unwrap_or_else(PoisonError::into_inner).failure = None;
                    tracing::info!("the ledger can be written again");
                }
                for (index, waiting) in (first..).zip(group) {
                    if let Some(ticket) = waiting.ticket {
                        ticket.settle(Ok(index));
                    }
                }
                shared.calls.call();
                let _ = leaves.send(leaves_of_group);
            }
            Err(error) => {
                fail(shared, group, &error);
                shared.calls.call();
                std::thread::sleep(RETRY);
                let inbox = shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
                if inbox.closing {
                    return;
                }
            }
        }
    }
}

/// Refuses the tickets of a group that could not be written, keeps its other entries, and closes the log to new ones.
fn fail(shared: &Shared, group: Vec<Waiting>, error: &Error) {
    let failure = Unavailable(error.to_string().into());
    let mut inbox = shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.healthy.swap(false, Ordering::AcqRel) {
        tracing::error!(%error, "governed statements are refused until the ledger can be written");
    }
    inbox.failure = Some(failure.clone());
    let arrived_since = std::mem::take(&mut inbox.waiting);
    inbox.awaited = 0;
    for waiting in group.into_iter().chain(arrived_since) {
        match waiting.ticket {
            Some(ticket) => ticket.settle(Err(failure.clone())),
            None => inbox.waiting.push_back(waiting),
        }
    }
}

/// The sequencer thread: sleeps from the first leaf until a checkpoint is due, then takes all that came meanwhile.
fn follow(mut sequencer: Sequencer, leaves: &mpsc::Receiver<Vec<Vec<u8>>>, every: Duration) {
    let mut closing = false;
    while !closing {
        let mut next = if sequencer.is_behind() {
            Ok(Vec::new()) // the last checkpoint failed: try again
        } else {
            leaves.recv().map_err(|_| mpsc::TryRecvError::Disconnected)
        };
        let due = std::time::Instant::now() + every;
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
                    let now = std::time::Instant::now();
                    if now >= due {
                        break;
                    }
                    std::thread::sleep((due - now).min(LOOK));
                }
            }
            next = leaves.try_recv();
        }
        if let Err(error) = sequencer.publish() {
            tracing::error!(%error, "no new checkpoint; entries stay durable in the journal");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Counters, Kind};

    fn settings(dir: &Path) -> Settings {
        let keys = crate::generate_keys("test.example/log");
        let publish_every = Duration::from_millis(5);
        Settings { dir: dir.to_owned(), skey: keys.signer, vkey: keys.verifier, publish_every }
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
            let report = crate::verify::verify(dir.path(), &settings.vkey);
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
        let report = crate::verify::verify(dir.path(), &settings.vkey);
        assert!(report.problems[0].contains("is not a whole entry"), "{:?}", report.problems);
        drop(Ledger::open(&settings).unwrap());
        assert_eq!(std::fs::read(&segment).unwrap(), whole);
        assert!(crate::verify::verify(dir.path(), &settings.vkey).problems.is_empty());
    }

    #[test]
    fn an_unwritable_log_refuses_and_resumes_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let ledger = Ledger::open(&settings).unwrap();
        ledger.append(entry(1)).wait().unwrap();
        // Entries that cannot be framed stand for a disk that refuses: the whole group fails as with ENOSPC.
        let failure = Unavailable("no space left".into());
        ledger.inner.shared.inbox.lock().unwrap().failure = Some(failure);
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
