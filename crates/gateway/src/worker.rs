//! Workers: a thread and a single-threaded runtime for each core. A client stays with its worker, so what a session does
//! wakes no other thread; a pooled connection to a store moves to the worker of whoever takes it.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

/// Something to do on a worker's thread, within its runtime.
type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The worker whose thread this is; `usize::MAX` on any other thread.
pub fn current() -> usize {
    NUMBER.get()
}

/// See the module's text. Dropping them ends their threads and what runs there.
pub struct Workers {
    jobs: Vec<mpsc::UnboundedSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    next: AtomicUsize,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Workers {
    /// Starts `count` workers. Each calls `before_sleep` when it has nothing more to do for now.
    pub fn start(
        count: usize,
        before_sleep: impl Fn() + Clone + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (mut jobs, mut threads) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for number in 0..count.max(1) {
            let (sender, mut receiver) = mpsc::unbounded_channel::<Job>();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .on_thread_park(before_sleep.clone())
                .build()?;
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                NUMBER.set(number);
                runtime.block_on(async move {
                    while let Some(job) = receiver.recv().await {
                        job();
                    }
                });
            })?;
            jobs.push(sender);
            threads.push(thread);
        }
        Ok(Self { jobs, threads, next: AtomicUsize::new(0) })
    }

    /// Has the next worker in turn do something.
    pub fn send(&self, job: impl FnOnce() + Send + 'static) {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.jobs.len();
        // A worker's thread ends only with us.
        let _ = self.jobs[number].send(Box::new(job));
    }
}
