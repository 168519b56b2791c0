//! Tickets: whoever hands in an entry that must be durable waits on one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

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
pub(crate) type Fate = OnceLock<Result<u64, Unavailable>>;

/// Who waits, by thread.
type Seats = HashMap<ThreadId, Vec<(Arc<Fate>, Waker)>>;

/// Who waits, by the thread that polled. To wake a task of another thread's runtime costs a system call, and a group has
/// many: so the journal wakes one task a thread, and that one wakes its neighbours.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    waiting: Mutex<Seats>,
}

impl Calls {
    fn waiting(&self) -> MutexGuard<'_, Seats> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes one task of each thread that has one whose fate is known.
    pub(crate) fn call(&self) {
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
    /// A ticket that waits, and what settles it.
    pub(crate) fn new(calls: &Arc<Calls>) -> (Self, Promise) {
        let fate = Arc::new(Fate::new());
        let promise = Promise(Arc::clone(&fate));
        (Self { fate, calls: Arc::clone(calls), seat: None }, promise)
    }

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

/// Settles a ticket's fate; if nothing does, the log was closed.
pub(crate) struct Promise(Arc<Fate>);

impl Promise {
    pub(crate) fn settle(self, result: Result<u64, Unavailable>) {
        let _ = self.0.set(result);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.get_or_init(|| Err(closed()));
    }
}
