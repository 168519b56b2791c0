//! A copy of the log in an S3-compatible store, for readers who are many and far: tiles first, then the checkpoint that needs them.
//!
//! It follows within seconds, by a thread of its own, and holds nobody up: while the store does not answer, the log goes on, and what
//! is missing there follows later. Private records go along only if that is asked for, and only whole segments.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::objects::Client;
pub use crate::objects::{Bucket, Problem};
use crate::whole::write_whole;
use ringfence_verifier::Error;
use ringfence_verifier::checkpoint::{CHECKPOINT, WITNESSED, open_head};
use ringfence_verifier::segment;
use ringfence_verifier::tiles::{self, Shelf, WIDTH};

/// How often to look whether the log has grown.
const LOOK: Duration = Duration::from_millis(500);
/// After trouble, how long until the next attempt, and how often it is told.
const REST: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(60);

/// The tiles that a log of `to` entries has and one of `from` had not.
fn grown(from: u64, to: u64) -> Vec<String> {
    let width = WIDTH as u64;
    let mut names = Vec::new();
    let mut add = |shelf: Shelf, from: u64, to: u64| {
        names.extend((from / width..to / width).map(|n| tiles::path(shelf, n, WIDTH)));
        if !to.is_multiple_of(width) {
            let partial = usize::try_from(to % width).unwrap_or(WIDTH);
            names.push(tiles::path(shelf, to / width, partial));
        }
    };
    add(Shelf::Entries, from, to);
    let (mut level, mut from, mut to) = (0, from, to);
    while to > 0 {
        add(Shelf::Level(level), from, to);
        (level, from, to) = (level + 1, from / width, to / width);
    }
    names
}

/// The thread that keeps the copy.
pub(crate) struct Mirror {
    closing: Arc<AtomicBool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Mirror {
    pub(crate) fn start(root: &Path, vkeys: &str, bucket: &Bucket) -> Result<Self, Error> {
        let client = Client::new(bucket).map_err(|e| Error::Key(e.to_string()))?;
        let closing = Arc::new(AtomicBool::new(false));
        let copy = Copy {
            root: root.to_owned(),
            vkeys: vkeys.to_owned(),
            client,
            private: bucket.private,
            there: None,
            size: 0,
            witnessed: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("ledger-bucket".to_owned()).spawn({
            let closing = Arc::clone(&closing);
            move || copy.keep(&closing)
        });
        let thread = thread.map_err(Error::io("cannot start a thread for", root))?;
        Ok(Self { closing, thread: Mutex::new(Some(thread)) })
    }

    /// Has it follow once more, and waits for that.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

struct Copy {
    root: PathBuf,
    vkeys: String,
    client: Client,
    private: bool,
    /// What is there, with lengths; unknown until it was listed.
    there: Option<HashMap<String, u64>>,
    /// Entries under the checkpoint that is there.
    size: u64,
    witnessed: Vec<u8>,
}

impl Copy {
    fn keep(mut self, closing: &AtomicBool) {
        let mut told: Option<Instant> = None;
        loop {
            let is_last = closing.load(Ordering::Acquire);
            let pause = match self.follow() {
                Ok(()) => {
                    if told.take().is_some() {
                        tracing::info!(entries = self.size, "the object store has the log again");
                    }
                    LOOK
                }
                Err(problem) => {
                    if told.is_none_or(|at| at.elapsed() > AGAIN) {
                        told = Some(Instant::now());
                        tracing::error!(%problem, "the log's copy in the object store is behind; the log itself goes on");
                    }
                    REST
                }
            };
            if is_last {
                return;
            }
            let until = Instant::now() + pause;
            while Instant::now() < until && !closing.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Brings the copy up to the newest checkpoint.
    fn follow(&mut self) -> Result<(), Problem> {
        if self.there.is_none() {
            let there = self.client.list()?;
            if there.contains_key(CHECKPOINT) {
                let note = self.client.get(CHECKPOINT)?;
                // What is not this log's checkpoint is for somebody to look at, not to write over.
                let head = open_head(&note, &self.vkeys).map_err(|e| {
                    Problem::Settings(format!("the bucket has another log's checkpoint: {e}"))
                })?;
                self.size = head.size;
            }
            self.there = Some(there);
        }
        let path = self.root.join(CHECKPOINT);
        let note = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(Error::io("cannot read", &path))?,
        };
        let head = open_head(&note, &self.vkeys).map_err(|e| Error::corrupt(&path, e))?;
        if head.size < self.size {
            return Err(Problem::Settings(format!(
                "the bucket has {} entries of this log, which has {}: the log was set back",
                self.size, head.size
            )));
        }
        if head.size > self.size || !self.has(CHECKPOINT) {
            for name in grown(self.size, head.size) {
                if self.put_file(&name)? {
                    continue;
                }
                return Ok(()); // a partial tile has become a whole one meanwhile: the next look has a newer checkpoint
            }
            self.client.put(CHECKPOINT, &note)?;
            self.note(CHECKPOINT, note.len());
            self.size = head.size;
        }
        if let Ok(witnessed) = std::fs::read(self.root.join(WITNESSED))
            && witnessed != self.witnessed
        {
            self.client.put(WITNESSED, &witnessed)?;
            self.witnessed = witnessed;
        }
        if self.private { self.segments() } else { Ok(()) }
    }

    fn has(&self, name: &str) -> bool {
        self.there.as_ref().is_some_and(|there| there.contains_key(name))
    }

    fn note(&mut self, name: &str, length: usize) {
        if let Some(there) = &mut self.there {
            there.insert(name.to_owned(), length as u64);
        }
    }

    /// False if the file is not there any more.
    fn put_file(&mut self, name: &str) -> Result<bool, Problem> {
        let path = self.root.join(name);
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            read => read.map_err(Error::io("cannot read", &path))?,
        };
        self.client.put(name, &bytes)?;
        self.note(name, bytes.len());
        Ok(true)
    }

    /// Segments that are whole, and those that an erasure has changed.
    fn segments(&mut self) -> Result<(), Problem> {
        let mut segments = segment::list(&self.root)?;
        segments.pop(); // it is being written
        for segment in segments {
            let length = segment.path.metadata().map_err(Error::io("cannot read", &segment.path))?.len();
            let name = format!("private/{:020}.seg", segment.first);
            if self.there.as_ref().and_then(|there| there.get(&name)) != Some(&length) {
                self.put_file(&name)?;
            }
        }
        Ok(())
    }
}

/// Brings a log from a bucket to a folder that is not there yet: for readers, and for whoever has lost the log's own disk. Returns how
/// many entries it has. Only files that a log of this size has are written, whatever names the store tells.
pub fn fetch(
    bucket: &Bucket,
    vkeys: &str,
    into: &Path,
    mut progress: impl FnMut(usize, usize),
) -> Result<u64, Problem> {
    let client = Client::new(bucket)?;
    let checkpoint = client.get(CHECKPOINT)?;
    let head = open_head(&checkpoint, vkeys)
        .map_err(|e| Problem::Settings(format!("the bucket's checkpoint: {e}")))?;
    std::fs::create_dir(into).map_err(Error::io("cannot create", into))?;
    let mut names = grown(0, head.size);
    names.extend(client.list()?.into_keys().filter(|name| is_segment(name)));
    for (done, name) in names.iter().enumerate() {
        write_whole(into, name, &client.get(name)?)?;
        progress(done + 1, names.len());
    }
    write_whole(into, CHECKPOINT, &checkpoint)?;
    if let Ok(witnessed) = client.get(WITNESSED) {
        write_whole(into, WITNESSED, &witnessed)?;
    }
    Ok(head.size)
}

fn is_segment(name: &str) -> bool {
    let number = name.strip_prefix("private/").and_then(|n| n.strip_suffix(".seg"));
    number.is_some_and(|n| n.len() == 20 && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_has_grown_is_what_a_log_of_that_size_has_more() {
        assert_eq!(grown(0, 0), Vec::<String>::new());
        assert_eq!(grown(0, 1), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
        assert_eq!(grown(256, 257), ["tile/entries/001.p/1", "tile/0/001.p/1", "tile/1/000.p/1"]);
        let all: BTreeSet<String> = grown(0, 70_000).into_iter().collect();
        let mut by_steps: BTreeSet<String> = BTreeSet::new();
        let mut size = 0;
        for step in [1, 255, 1000, 65_536, 70_000] {
            by_steps.extend(grown(size, step));
            size = step;
        }
        assert!(all.is_subset(&by_steps));
        assert!(all.contains("tile/2/000.p/1") && all.contains("tile/1/001.p/17"), "{all:?}");
    }
}
