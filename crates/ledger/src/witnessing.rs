//! Has witnesses cosign the log's checkpoints: the client side of [C2SP tlog-witness](https://c2sp.org/tlog-witness).
//!
//! One thread for each witness, so that one that is slow, wrong or hostile holds up only itself. They work in rounds: all ask
//! for the same checkpoint, since a quorum is of cosignatures on one. A round ends when the quorum is met, or when it has
//! had its time; the next takes the newest checkpoint. When nothing grows, the same checkpoint is cosigned again from time
//! to time: a witness that answers says that nobody has shown it another history meanwhile.
//!
//! What is asked is how long ago a quorum last answered ([`Witnessing::state`]), on a clock that nobody sets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringfence_verifier::Error;
use ringfence_verifier::checkpoint::{Head, WITNESSED, open};
use ringfence_verifier::quorum::{Quorum, Witness};
use ringfence_verifier::tiles::FileTiles;
use signed_note::{Note, Signature};
use tlog_tiles::{Hash, TileHashReader, prove_tree};
use ureq::tls::TlsConfig;

use crate::entry::now_ms;
use crate::http;
use crate::whole::{sync_dir, write_whole};
use crate::witness::{decimal, request};

/// How long a witness has to answer, and a round to find its quorum.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a thread looks whether there is something to do, if nobody wakes it.
const LOOK: Duration = Duration::from_millis(200);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// How far a witness's clock may be off, in seconds.
const SKEW: u64 = 300;

/// Whom to ask, and how long without an answer is too long.
#[derive(Clone, Debug)]
pub struct Witnesses {
    /// The witnesses and how many of them it takes. Those without a URL are not asked.
    pub quorum: Quorum,
    /// How old the newest confirmation may get.
    pub max_age: Duration,
    /// The certificates (PEM) that witnesses' own must come from, for URLs with `https:`. Cosignatures are signed, so TLS keeps
    /// only from others what is asked.
    pub tls_roots: Vec<u8>,
}

impl Witnesses {
    /// Whether a witness is asked over TLS.
    pub fn need_tls(&self) -> bool {
        self.quorum.witnesses.iter().any(|w| w.url.as_ref().is_some_and(|url| url.starts_with("https:")))
    }

    fn tls(&self) -> Result<TlsConfig, Error> {
        http::tls(&self.tls_roots, self.need_tls())
    }
}

/// How the log stands with its witnesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No cosignatures are asked for.
    NotAsked,
    /// A quorum confirmed the log so long ago, which is recent enough.
    Confirmed(Duration),
    /// The last confirmation is too old, or there has been none since the start.
    Overdue(Option<Duration>),
}

/// What is known of one witness, for the operator.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// What the policy calls it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The largest size that it has cosigned since the start.
    pub size: u64,
    /// When it last cosigned.
    pub last: Option<Instant>,
    /// What went wrong last, if that was after the last cosignature.
    pub problem: Option<String>,
}

/// A checkpoint that all witnesses are asked for.
struct Round {
    number: u64,
    head: Head,
    note: Vec<u8>,
    began: Instant,
    /// Who has cosigned, by place in the policy, and their lines.
    cosigned: BTreeSet<usize>,
    lines: Vec<Signature>,
    is_met: bool,
}

#[derive(Default)]
struct Inner {
    newest: Option<(Head, Vec<u8>)>,
    round: Option<Round>,
    health: Vec<Health>,
    closing: bool,
}

struct Shared {
    root: PathBuf,
    vkeys: String,
    witnesses: Witnesses,
    inner: Mutex<Inner>,
    changed: Condvar,
    epoch: Instant,
    /// Milliseconds from `epoch` to the beginning of the last round that met the quorum, plus one; 0 before the first.
    confirmed: AtomicU64,
}

/// See the module's text.
pub(crate) struct Witnessing {
    shared: Arc<Shared>,
}

impl Witnessing {
    /// Starts a thread for each witness that has a URL.
    pub(crate) fn start(root: &Path, vkeys: &str, witnesses: Witnesses) -> Result<Self, Error> {
        let health = witnesses.quorum.witnesses.iter().map(|w| Health {
            name: w.name.clone(),
            url: w.url.clone().unwrap_or_default(),
            ..Health::default()
        });
        let inner = Mutex::new(Inner { health: health.collect(), ..Inner::default() });
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            vkeys: vkeys.to_owned(),
            witnesses,
            inner,
            changed: Condvar::new(),
            epoch: Instant::now(),
            confirmed: AtomicU64::new(0),
        });
        let tls = shared.witnesses.tls()?;
        for (place, witness) in shared.witnesses.quorum.witnesses.iter().enumerate() {
            if witness.url.is_some() {
                let (shared, witness, tls) = (Arc::clone(&shared), witness.clone(), tls.clone());
                let name = format!("witness-{place}");
                let started = std::thread::Builder::new().name(name.clone());
                let started = started.spawn(move || ask_forever(&shared, place, &witness, tls));
                started.map_err(|source| Error::Io { what: "cannot start thread", path: name, source })?;
            }
        }
        Ok(Self { shared })
    }

    /// There is a new checkpoint.
    pub(crate) fn offer(&self, head: Head, note: Vec<u8>) {
        // To confirm an empty log is to confirm nothing.
        if head.size > 0 {
            self.shared.lock().newest = Some((head, note));
            self.shared.changed.notify_all();
        }
    }

    /// How long ago a quorum last confirmed the log.
    pub(crate) fn state(&self) -> State {
        if self.shared.witnesses.quorum.is_none() {
            return State::NotAsked;
        }
        let Some(since) = self.shared.confirmed.load(Ordering::Acquire).checked_sub(1) else {
            return State::Overdue(None);
        };
        let age = self.shared.epoch.elapsed().saturating_sub(Duration::from_millis(since));
        if age <= self.shared.witnesses.max_age { State::Confirmed(age) } else { State::Overdue(Some(age)) }
    }

    /// What is known of each witness.
    pub(crate) fn health(&self) -> Vec<Health> {
        self.shared.lock().health.clone()
    }

    /// Lets the threads end. Nobody waits for one that is in the middle of a request: what comes of it is not kept.
    pub(crate) fn close(&self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a round if it is time for one.
    fn advance(&self, inner: &mut Inner) {
        let Some((head, note)) = &inner.newest else { return };
        let again = (self.witnesses.max_age / 4).max(Duration::from_millis(250));
        let is_due = match &inner.round {
            None => true,
            Some(round) if round.is_met => round.head != *head || round.began.elapsed() >= again,
            Some(round) => round.began.elapsed() >= PATIENCE.min(again),
        };
        if is_due {
            inner.round = Some(Round {
                number: inner.round.as_ref().map_or(1, |r| r.number + 1),
                head: head.clone(),
                note: note.clone(),
                began: Instant::now(),
                cosigned: BTreeSet::new(),
                lines: Vec::new(),
                is_met: false,
            });
        }
    }

    /// Waits for a round that this thread has not worked on; `None` once all is over.
    fn next_round(&self, last: u64) -> Option<(u64, Head, Vec<u8>)> {
        let mut inner = self.lock();
        loop {
            if inner.closing {
                return None;
            }
            self.advance(&mut inner);
            if let Some(round) = inner.round.as_ref().filter(|r| r.number > last) {
                return Some((round.number, round.head.clone(), round.note.clone()));
            }
            inner = self.changed.wait_timeout(inner, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A witness has cosigned.
    fn cosigned(&self, number: u64, place: usize, size: u64, line: Signature) {
        let mut inner = self.lock();
        if inner.closing {
            return;
        }
        if let Some(health) = inner.health.get_mut(place) {
            if let Some(problem) = health.problem.take() {
                tracing::info!(witness = %health.name, after = %problem, "a witness cosigns again");
            }
            health.last = Some(Instant::now());
            health.size = health.size.max(size);
        }
        let Some(round) = inner.round.as_mut().filter(|r| r.number == number) else { return };
        round.cosigned.insert(place);
        round.lines.push(line);
        if !self.witnesses.quorum.is_met(&round.cosigned) {
            return;
        }
        match self.keep(round) {
            Ok(()) => {
                round.is_met = true;
                let began = round.began.saturating_duration_since(self.epoch).as_millis();
                self.confirmed.store(u64::try_from(began).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
            }
            Err(error) => tracing::error!(%error, "cosignatures cannot be kept"),
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Writes the checkpoint with its cosignatures.
    fn keep(&self, round: &Round) -> Result<(), Error> {
        let wrong = |e: String| Error::corrupt(&self.root.join(WITNESSED), e);
        let opened = open(&round.note, &self.vkeys).map_err(wrong)?;
        let lines = [opened.by_log, round.lines.clone()].concat();
        let note = Note::new(&opened.text, &lines).map_err(|e| wrong(e.to_string()))?;
        // A name of its own for what is being written: the sequencer writes in the same folder.
        write_whole(&self.root.join(FOLDER), "note", &note.to_bytes())?;
        let (from, to) = (self.root.join(FOLDER).join("note"), self.root.join(WITNESSED));
        std::fs::rename(&from, &to).map_err(Error::io("cannot replace", &to))?;
        sync_dir(&to)
    }

    fn failed(&self, place: usize, problem: String) {
        let mut inner = self.lock();
        let Some(health) = inner.health.get_mut(place) else { return };
        if health.problem.as_ref() != Some(&problem) {
            tracing::warn!(witness = %health.name, %problem, "a witness does not cosign");
        }
        health.problem = Some(problem);
    }
}

/// Where a witnessed checkpoint is written before it takes its place.
pub(crate) const FOLDER: &str = ".witnessed";

/// The thread of one witness.
fn ask_forever(shared: &Shared, place: usize, witness: &Witness, tls: TlsConfig) {
    let agent = http::agent(PATIENCE, tls);
    let url = format!("{}/add-checkpoint", witness.url.as_deref().unwrap_or_default().trim_end_matches('/'));
    let (mut last, mut known) = (0, 0);
    while let Some((number, head, note)) = shared.next_round(last) {
        last = number;
        let asked = Question { shared, agent: &agent, url: &url, witness, head: &head, note: &note };
        match asked.ask(&mut known) {
            Ok(line) => shared.cosigned(number, place, head.size, line),
            Err(problem) => shared.failed(place, problem),
        }
    }
}

/// One checkpoint for one witness.
struct Question<'a> {
    shared: &'a Shared,
    agent: &'a ureq::Agent,
    url: &'a str,
    witness: &'a Witness,
    head: &'a Head,
    note: &'a [u8],
}

impl Question<'_> {
    /// Asks; `known` is the size that the witness has of this log, as far as we know.
    fn ask(&self, known: &mut u64) -> Result<Signature, String> {
        for _ in 0..2 {
            let proof = self.proof(*known)?;
            let (status, answer) = self.post(&request(*known, &proof, self.note))?;
            match status {
                200 => {
                    let line = self.check(&answer)?;
                    *known = self.head.size;
                    return Ok(line);
                }
                409 => {
                    let text = std::str::from_utf8(&answer).ok().and_then(|t| t.strip_suffix('\n'));
                    let size = text.and_then(decimal).ok_or("it answers 409 without a size")?;
                    if size > self.head.size {
                        return Err(format!(
                            "it has cosigned {size} entries of this log, which has {}: the log was set back, or somebody \
                             else signs with its key",
                            self.head.size
                        ));
                    }
                    *known = size;
                }
                404 => return Err("it does not know this log (404)".to_owned()),
                403 => return Err("it does not accept this log's signature (403)".to_owned()),
                422 => {
                    return Err("it has seen another history of this log (422): the log was changed, or somebody else \
                                signs with its key"
                        .to_owned());
                }
                other => return Err(format!("it answers with status {other}")),
            }
        }
        Err("it answers 409 again and again".to_owned())
    }

    fn proof(&self, old: u64) -> Result<Vec<Hash>, String> {
        if old == 0 || old >= self.head.size {
            return Ok(Vec::new());
        }
        let tiles = FileTiles(&self.shared.root);
        let reader = TileHashReader::new(self.head.size, self.head.root, &tiles);
        prove_tree(self.head.size, old, &reader)
            .map_err(|e| format!("no proof can be made from the tiles: {e}"))
    }

    fn post(&self, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
        // What the library says may repeat what the witness said; a word of ours for the usual cases.
        let failed = |e: ureq::Error| match e {
            ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
            ureq::Error::Io(e) => format!("it cannot be reached: {}", e.kind()),
            ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => "it cannot be reached".to_owned(),
            ureq::Error::BodyExceedsLimit(_) => "its answer is too long".to_owned(),
            _ => "its answer is not HTTP as we know it".to_owned(),
        };
        let mut response = self.agent.post(self.url).send(body).map_err(failed)?;
        let status = response.status().as_u16();
        let answer = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(failed)?;
        Ok((status, answer))
    }

    /// The witness's own line in its answer, if it holds for this checkpoint and for now.
    fn check(&self, answer: &[u8]) -> Result<Signature, String> {
        let opened = open(self.note, &self.shared.vkeys)?;
        let lines = answer.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        let lines: Result<Vec<Signature>, _> = lines.map(Signature::from_bytes).collect();
        let lines = lines.map_err(|_| "its answer is no cosignature")?;
        let found = lines.into_iter().find_map(|l| Some((self.witness.key.check(&opened.text, &l)?, l)));
        let (time, line) = found.ok_or("its answer has no cosignature by its key")?;
        let time = time?;
        if time.abs_diff(now_ms() / 1000) > SKEW {
            return Err(format!("its clock is off by more than {SKEW} seconds"));
        }
        Ok(line)
    }
}
