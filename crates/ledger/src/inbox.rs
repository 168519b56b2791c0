//! Where entries wait for the journal thread, and how it gathers them into groups: each group costs one sync, whatever its
//! size, so it pays to have many in one and not to let anybody wait for that in vain.
//!
//! Three rules. Whoever hands in an entry on a thread that has more to do first lets it do so ([`Inbox::end_batch`]). After a
//! group that several waited for, the journal gives them, who have just heard, the time of one more sync to come again;
//! without that, the first to come has a sync to itself and all others wait for the next. And entries that nobody waits
//! for (outcomes) ride along with others, or wait a few milliseconds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringfence_verifier::Kind;

use crate::entry::Entry;
use crate::ticket::{Calls, Promise, Ticket, Unavailable};

/// Entries that nobody waits for and that wait for the disk themselves. Beyond this many the log is worse than late.
const MAX_KEPT: usize = 100_000;
/// How long an entry that nobody waits for may wait for one that somebody does, so that an outcome costs no sync of its own.
const LINGER: Duration = Duration::from_millis(10);
/// The most entries in one group.
const MAX_GROUP: usize = 4096;
/// How many entries of a batch are enough to begin with.
const BATCH: usize = 16;
/// Fewer than this many who wait do not pay for waiting for each other.
const SEVERAL: usize = 4;
/// The longest that a group waits for those of the group before to come again.
const MAX_PAUSE: Duration = Duration::from_millis(2);

/// How many entries of each kind were promised.
pub type Counts = BTreeMap<Kind, u64>;

/// An entry in the inbox.
pub(crate) struct Waiting {
    pub(crate) entry: Entry,
    pub(crate) promise: Option<Promise>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// How many of them somebody waits for.
    awaited: usize,
    /// How many of the last group somebody waited for.
    last_awaited: usize,
    /// How many awaited entries the journal thread sleeps for; 0 while it does not sleep.
    wanted: usize,
    /// It sleeps until it is woken, however long that takes.
    sleeps: bool,
    closing: bool,
    failure: Option<Unavailable>,
    /// What was promised since the log was opened. What was refused again does not count; what was lost does.
    promised: Counts,
}

impl State {
    fn promise(&mut self, kind: Kind) {
        *self.promised.entry(kind).or_default() += 1;
    }

    fn take_back(&mut self, kind: Kind) {
        if let Some(count) = self.promised.get_mut(&kind) {
            *count = count.saturating_sub(1);
        }
    }
}

/// See the module's text.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    /// The journal thread has not been woken yet for an entry that somebody waits for.
    batched: AtomicBool,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an entry that somebody waits for. The journal thread may not hear of it before [`Self::end_batch`].
    pub(crate) fn append(&self, entry: Entry, calls: &Arc<Calls>) -> Ticket {
        let (ticket, promise) = Ticket::new(calls);
        let mut state = self.state();
        if let Some(failure) = &state.failure {
            promise.settle(Err(failure.clone()));
            return ticket;
        }
        state.awaited += 1;
        state.promise(entry.kind);
        state.waiting.push_back(Waiting { entry, promise: Some(promise) });
        // One who is alone gains nothing from a batch.
        let now = state.awaited == state.wanted && (state.wanted > 1 || state.last_awaited <= 1);
        if now || (state.wanted == 1 && state.awaited == BATCH) {
            self.batched.store(false, Ordering::Release);
            self.arrived.notify_one();
        } else if state.wanted == 1 && state.awaited == 1 {
            self.batched.store(true, Ordering::Release);
        }
        ticket
    }

    /// Wakes the journal thread if an entry of a batch waits for that.
    pub(crate) fn end_batch(&self) {
        if self.batched.load(Ordering::Acquire) && self.batched.swap(false, Ordering::AcqRel) {
            self.arrived.notify_one();
        }
    }

    /// Takes an entry that nobody waits for; false if there are too many already.
    pub(crate) fn record(&self, entry: Entry) -> bool {
        let mut state = self.state();
        // One that is lost counts all the same: the next heartbeat shows that it is missing.
        state.promise(entry.kind);
        if state.waiting.len() >= MAX_KEPT {
            return false;
        }
        if state.sleeps {
            self.arrived.notify_one();
        }
        state.waiting.push_back(Waiting { entry, promise: None });
        true
    }

    /// Takes an entry that is made of what was promised up to here.
    pub(crate) fn heartbeat(&self, make: impl FnOnce(&Counts) -> Entry) {
        let mut state = self.state();
        if state.failure.is_some() {
            return;
        }
        let entry = make(&state.promised);
        if state.sleeps {
            self.arrived.notify_one();
        }
        state.promise(entry.kind);
        state.waiting.push_back(Waiting { entry, promise: None });
    }

    /// An entry that was taken cannot be written at all.
    pub(crate) fn forget(&self, waiting: &Waiting) {
        if waiting.promise.is_some() {
            self.state().take_back(waiting.entry.kind);
        }
    }

    /// Why entries are refused, while they are.
    pub(crate) fn failure(&self) -> Option<Unavailable> {
        self.state().failure.clone()
    }

    /// Entries are taken again.
    pub(crate) fn reopen(&self) {
        self.state().failure = None;
    }

    /// What waits is written, and then no more.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.arrived.notify_one();
    }

    /// Whether it was closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.state().closing
    }

    /// The next group; `None` once it is closed and empty. `sync` is how long the last one took.
    pub(crate) fn next_group(&self, sync: Duration) -> Option<Vec<Waiting>> {
        let mut state = self.gather(self.state(), sync);
        // An outcome that comes soon after its intent wakes nobody: the next intent does, or the time.
        let mut is_quiet = false;
        while state.awaited == 0 && state.failure.is_none() && !state.closing {
            state.wanted = 1;
            if is_quiet && state.waiting.is_empty() {
                state.sleeps = true;
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.sleeps = false;
            } else {
                let waited = self.arrived.wait_timeout(state, LINGER);
                let (woken, result) = waited.unwrap_or_else(PoisonError::into_inner);
                state = woken;
                if result.timed_out() && !state.waiting.is_empty() {
                    break;
                }
                is_quiet = result.timed_out();
            }
        }
        state.wanted = 0;
        if state.closing && state.waiting.is_empty() {
            return None;
        }
        let count = state.waiting.len().min(MAX_GROUP);
        let group: Vec<Waiting> = state.waiting.drain(..count).collect();
        state.last_awaited = group.iter().filter(|w| w.promise.is_some()).count();
        state.awaited -= state.last_awaited;
        Some(group)
    }

    /// Waits until those of the last group and those who came meanwhile are all there, or for the time of a sync.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, State>, sync: Duration) -> MutexGuard<'a, State> {
        let expected = state.last_awaited + state.awaited;
        if expected < SEVERAL || state.awaited >= MAX_GROUP {
            return state;
        }
        state.wanted = expected;
        let is_short =
            |state: &mut State| state.awaited < expected && !state.closing && state.failure.is_none();
        let waited = self.arrived.wait_timeout_while(state, sync.min(MAX_PAUSE), is_short);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The log cannot be written: refuses whoever waits, keeps what nobody waits for, and takes no more until
    /// [`Self::reopen`].
    pub(crate) fn fail(&self, group: Vec<Waiting>, failure: &Unavailable) {
        let mut state = self.state();
        state.failure = Some(failure.clone());
        state.awaited = 0;
        let arrived_since = std::mem::take(&mut state.waiting);
        for waiting in group.into_iter().chain(arrived_since) {
            match waiting.promise {
                Some(promise) => {
                    state.take_back(waiting.entry.kind);
                    promise.settle(Err(failure.clone()));
                }
                // Its counts include what is refused here.
                None if waiting.entry.kind == Kind::Heartbeat => state.take_back(Kind::Heartbeat),
                None => state.waiting.push_back(waiting),
            }
        }
    }
}
