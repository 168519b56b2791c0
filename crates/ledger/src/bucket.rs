//! A copy of the log in an S3-compatible store, for readers who are many and far: tiles first, then the checkpoint that needs them.
//!
//! It follows within seconds, by a thread of its own, and holds nobody up: while the store does not answer, the log goes on, and what
//! is missing there follows later. Private records go along only if that is asked for, and only whole segments.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringfence_verifier::Error;
use ringfence_verifier::checkpoint::{CHECKPOINT, WITNESSED, open_head};
use ringfence_verifier::segment;
use ringfence_verifier::tiles::{self, Shelf, WIDTH};
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket as S3, Credentials, S3Action as _, UrlStyle};

use crate::http;
use crate::whole::write_whole;

/// How often to look whether the log has grown.
const LOOK: Duration = Duration::from_millis(500);
/// How long the store may take for one object.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a signature is good for.
const SIGNED_FOR: Duration = Duration::from_secs(300);
/// After trouble, how long until the next attempt, and how often it is told.
const REST: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(60);
/// The largest object that is read, in bytes: a segment.
const MAX_OBJECT: u64 = 1 << 30;

/// Where.
#[derive(Clone)]
pub struct Bucket {
    /// The store's address, as in `https://s3.us-east-1.amazonaws.com`.
    pub endpoint: String,
    /// The bucket.
    pub name: String,
    /// Its region.
    pub region: String,
    /// What the names of objects begin with; empty for none.
    pub prefix: String,
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: String,
    /// The certificates (PEM) to trust, for an endpoint with `https:`.
    pub tls_roots: Vec<u8>,
    /// Whether whole segments of private records go along.
    pub private: bool,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.endpoint, self.name, self.prefix)
    }
}

/// A connection to a bucket.
struct Client {
    s3: S3,
    credentials: Credentials,
    agent: ureq::Agent,
    prefix: String,
}

/// Why an object could not be had or put; without what the store said, which may repeat a signature.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The settings are not right.
    #[error("{0}")]
    Settings(String),
    /// The store does not answer.
    #[error("the object store cannot be reached: {0}")]
    Unreachable(String),
    /// It answers with an error.
    #[error("the object store answers {status} for {object}")]
    Refused {
        /// HTTP's status.
        status: u16,
        /// Which object.
        object: String,
    },
    /// A file of the log.
    #[error(transparent)]
    Log(#[from] Error),
}

impl Client {
    fn new(bucket: &Bucket) -> Result<Self, Problem> {
        let wrong = |e: String| Problem::Settings(format!("the bucket: {e}"));
        let url = bucket.endpoint.parse().map_err(|_| wrong("its endpoint is no URL".to_owned()))?;
        let s3 = S3::new(url, UrlStyle::Path, bucket.name.clone(), bucket.region.clone());
        let s3 = s3.map_err(|e| wrong(e.to_string()))?;
        let tls = http::tls(&bucket.tls_roots, bucket.endpoint.starts_with("https:"))?;
        let prefix = bucket.prefix.trim_matches('/');
        Ok(Self {
            s3,
            credentials: Credentials::new(bucket.access_key.clone(), bucket.secret_key.clone()),
            agent: http::agent(PATIENCE, tls),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
        })
    }

    fn object(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Problem> {
        let object = self.object(name);
        let url = self.s3.put_object(Some(&self.credentials), &object).sign(SIGNED_FOR);
        let answer = self.agent.put(url.as_str()).send(bytes).map_err(|e| unreachable(&e))?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            status => Err(Problem::Refused { status, object }),
        }
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, Problem> {
        let object = self.object(name);
        let url = self.s3.get_object(Some(&self.credentials), &object).sign(SIGNED_FOR);
        let mut answer = self.agent.get(url.as_str()).call().map_err(|e| unreachable(&e))?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(Problem::Refused { status, object });
        }
        answer.body_mut().with_config().limit(MAX_OBJECT).read_to_vec().map_err(|e| unreachable(&e))
    }

    /// All objects under the prefix, by their names without it, with their lengths.
    fn list(&self) -> Result<HashMap<String, u64>, Problem> {
        let mut found = HashMap::new();
        let mut next: Option<String> = None;
        loop {
            let mut action = self.s3.list_objects_v2(Some(&self.credentials));
            action.with_prefix(self.prefix.clone());
            if let Some(token) = next.take() {
                action.with_continuation_token(token);
            }
            let url = action.sign(SIGNED_FOR);
            let mut answer = self.agent.get(url.as_str()).call().map_err(|e| unreachable(&e))?;
            let status = answer.status().as_u16();
            let object = format!("the list of {}", self.prefix);
            if status != 200 {
                return Err(Problem::Refused { status, object });
            }
            let text = answer.body_mut().read_to_string().map_err(|e| unreachable(&e))?;
            let page = ListObjectsV2::parse_response(&text)
                .map_err(|_| Problem::Unreachable("its list is not understood".to_owned()))?;
            for entry in page.contents {
                // Names come as they were written, or percent-encoded; ours have no character that differs.
                if let Some(name) = entry.key.strip_prefix(&self.prefix) {
                    found.insert(name.to_owned(), entry.size.unwrap_or(0));
                }
            }
            next = page.next_continuation_token;
            if next.is_none() {
                return Ok(found);
            }
        }
    }
}

fn unreachable(e: &ureq::Error) -> Problem {
    Problem::Unreachable(match e {
        ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
        ureq::Error::Io(e) => e.kind().to_string(),
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => "there is nobody".to_owned(),
        _ => "its answer is not HTTP as we know it".to_owned(),
    })
}

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
