//! A witness for logs of others: the server side of [C2SP tlog-witness](https://c2sp.org/tlog-witness), without the HTTP.
//!
//! For each log that it knows, it keeps the newest checkpoint that it has cosigned, and cosigns a new one only if a proof
//! shows that the log grew without changing what was there. What must never happen: two cosignatures on checkpoints that do
//! not extend each other. So looking, deciding and keeping are one step under a lock, and what is kept is durable before the
//! cosignature leaves.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ringfence_verifier::checkpoint::{Head, open, origin_of};
use ringfence_verifier::cosignature::CosignerKey;
use ringfence_verifier::{Error, keys};
use sha2::{Digest as _, Sha256};
use signed_note::Note;
use tlog_tiles::{EMPTY_HASH, Hash, check_tree};

use crate::whole::{sync_dir, write_whole};

/// The largest request that is read, in bytes: 63 proof lines and a note with some cosignatures.
pub const MAX_REQUEST: usize = 64 * 1024;
/// The most proof lines (C2SP tlog-witness).
const MAX_PROOF: usize = 63;
/// The most contradictory checkpoints that are kept of a log.
const MAX_EVIDENCE: usize = 16;
/// The content type of the size in a 409.
const SIZE_TYPE: &str = "text/x.tlog.size";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// An answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The content type.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    fn refuse(status: u16, why: &str) -> Self {
        Self { status, content_type: TEXT_TYPE, body: format!("{why}\n").into_bytes() }
    }

    fn ok(body: Vec<u8>) -> Self {
        Self { status: 200, content_type: TEXT_TYPE, body }
    }
}

/// A log that the witness knows.
struct Known {
    /// Its keys, one a line.
    vkeys: String,
    /// The newest checkpoint that was cosigned, and when.
    last: Option<(Head, u64)>,
}

/// See the module's text.
pub struct Witness {
    dir: PathBuf,
    key: CosignerKey,
    logs: Mutex<HashMap<String, Known>>,
    /// Held as long as the witness is open: two processes on one folder could cosign two histories.
    _lock: File,
}

/// What a witness does with a checkpoint, for its operator's log.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It was cosigned.
    Cosigned {
        /// The log.
        origin: String,
        /// Its size.
        size: u64,
    },
    /// The log's own key has signed something that contradicts what it signed before. The note is kept in `evidence/`.
    Contradiction {
        /// The log.
        origin: String,
        /// What contradicts what.
        problem: String,
    },
    /// It was refused for another reason.
    Refused(String),
}

impl Witness {
    /// Opens the witness whose state is in `dir` (created if absent). `logs` are the public keys of the logs it knows; several
    /// keys of one name are one log.
    pub fn open(dir: &Path, skey: &str, logs: &[String]) -> Result<Self, Error> {
        let key = CosignerKey::parse(skey)?;
        fs::create_dir_all(dir).map_err(Error::io("cannot create", dir))?;
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(Error::io("cannot create", &path))?;
        lock.try_lock().map_err(|_| Error::corrupt(dir, "another witness runs on this folder"))?;
        let mut known: HashMap<String, Known> = HashMap::new();
        for vkey in logs {
            keys::verifiers(vkey)?;
            let origin = keys::origin(vkey).unwrap_or_default().to_owned();
            let log = known.entry(origin).or_insert_with(|| Known { vkeys: String::new(), last: None });
            log.vkeys.push_str(vkey.trim());
            log.vkeys.push('\n');
        }
        for (origin, log) in &mut known {
            let path = dir.join(file_of(origin));
            match fs::read(&path) {
                Ok(note) => {
                    let last = own(&note, &log.vkeys, &key);
                    log.last = Some(last.ok_or_else(|| {
                        Error::corrupt(
                            &path,
                            "is not a checkpoint that this witness has cosigned for this log",
                        )
                    })?);
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("cannot read", &path)(e)),
            }
        }
        Ok(Self { dir: dir.to_owned(), key, logs: Mutex::new(known), _lock: lock })
    }

    /// The witness's public key.
    pub fn vkey(&self) -> String {
        self.key.public().vkey()
    }

    /// `POST add-checkpoint`. `now` is in seconds since 1970.
    pub fn add_checkpoint(&self, body: &[u8], now: u64) -> (Answer, Event) {
        match self.decide(body, now) {
            Ok((answer, event)) => (answer, event),
            Err((answer, why)) => (answer, Event::Refused(why)),
        }
    }

    fn decide(&self, body: &[u8], now: u64) -> Result<(Answer, Event), (Answer, String)> {
        let refuse = |status: u16, why: String| (Answer::refuse(status, &why), why);
        let asked = Asked::parse(body).map_err(|why| refuse(400, why))?;
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = logs.get_mut(&asked.origin) else {
            return Err(refuse(404, format!("the log {:?} is not known here", asked.origin)));
        };
        let opened =
            open(asked.note, &log.vkeys).map_err(|why| refuse(403, format!("the checkpoint {why}")))?;
        let head = opened.head;
        if asked.old > head.size {
            return Err(refuse(400, "the old size is larger than the checkpoint's".to_owned()));
        }
        let size = log.last.as_ref().map_or(0, |(head, _)| head.size);
        if asked.old != size {
            let body = format!("{size}\n").into_bytes();
            let answer = Answer { status: 409, content_type: SIZE_TYPE, body };
            return Err((answer, format!("{}: old is {}, not {size}", asked.origin, asked.old)));
        }
        if let Err(problem) = grew(log.last.as_ref().map(|(head, _)| head), &head, &asked.proof) {
            // Only a note of the same size proves by itself that there are two histories; of others, some are kept: they may
            // come with a wrong proof from anybody.
            let proves_itself = asked.old == head.size;
            self.keep_evidence(
                &asked,
                head.size,
                if proves_itself { MAX_EVIDENCE } else { MAX_EVIDENCE / 4 },
            );
            let answer = Answer::refuse(422, &problem);
            return Ok((answer, Event::Contradiction { origin: asked.origin, problem }));
        }
        // A clock that was set back must not sign that this was the newest tree at a time before the last.
        let time = now.max(log.last.as_ref().map_or(0, |(_, time)| *time));
        let failed = |e: Error| refuse(500, e.to_string());
        let cosignature = self.key.cosign(&opened.text, time).map_err(failed)?;
        let note = Note::new(&opened.text, &[opened.by_log, vec![cosignature.clone()]].concat())
            .map_err(|e| refuse(400, format!("the checkpoint is malformed: {e}")))?;
        write_whole(&self.dir, &file_of(&asked.origin), &note.to_bytes()).map_err(failed)?;
        let size = head.size;
        log.last = Some((head, time)); // before anything can fail: it may be read from the file already
        sync_dir(&self.dir.join("x")).map_err(failed)?;
        let event = Event::Cosigned { origin: asked.origin, size };
        Ok((Answer::ok(cosignature.to_bytes()), event))
    }

    /// `GET <origin hash>/checkpoint`: the newest checkpoint that was cosigned.
    pub fn checkpoint(&self, origin_hash: &str) -> Answer {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let found = logs.iter().find(|(origin, log)| log.last.is_some() && hash_of(origin) == origin_hash);
        match found.map(|(origin, _)| fs::read(self.dir.join(file_of(origin)))) {
            Some(Ok(note)) => Answer::ok(note),
            Some(Err(_)) => Answer::refuse(500, "the checkpoint cannot be read"),
            None => Answer::refuse(404, "no checkpoint of this log was cosigned here"),
        }
    }

    /// Best effort: the log's own signature under two histories proves that it shows different people different things.
    fn keep_evidence(&self, asked: &Asked<'_>, size: u64, most: usize) {
        let dir = self.dir.join("evidence");
        let log = &hash_of(&asked.origin)[..16];
        let of_log = |name: &std::ffi::OsString| name.to_string_lossy().starts_with(log);
        let kept =
            fs::read_dir(&dir).map_or(0, |all| all.flatten().filter(|e| of_log(&e.file_name())).count());
        let digest = hex::encode(&Sha256::digest(asked.note)[..8]);
        let name = format!("evidence/{log}-{size}-{digest}.note");
        if kept < most && !self.dir.join(&name).exists() {
            let _ = write_whole(&self.dir, &name, asked.note);
        }
    }
}

fn hash_of(origin: &str) -> String {
    hex::encode(Sha256::digest(origin))
}

fn file_of(origin: &str) -> String {
    format!("{}.checkpoint", hash_of(origin))
}

/// The head and the time of a note that the witness itself has cosigned.
fn own(note: &[u8], vkeys: &str, key: &CosignerKey) -> Option<(Head, u64)> {
    let opened = open(note, vkeys).ok()?;
    let time = opened.others.iter().find_map(|line| key.public().check(&opened.text, line))?.ok()?;
    Some((opened.head, time))
}

/// Whether a log may have grown from `last` to `head`. The error says what contradicts what.
fn grew(last: Option<&Head>, head: &Head, proof: &[Hash]) -> Result<(), String> {
    if head.size == 0 && head.root != EMPTY_HASH {
        return Err("a checkpoint of size 0 with the root of a tree that is not empty".to_owned());
    }
    let old = last.map_or(0, |l| l.size);
    if old == 0 {
        return if proof.is_empty() { Ok(()) } else { Err("a proof from the empty tree".to_owned()) };
    }
    let root = last.map_or(EMPTY_HASH, |l| l.root);
    if head.size == old {
        return match (head.root == root, proof.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err("a proof where nothing grew".to_owned()),
            (false, _) => Err(format!("another root at the size {old} than the one that was cosigned")),
        };
    }
    check_tree(&proof.to_vec(), head.size, head.root, old, root)
        .map_err(|_| format!("no proof that the tree of size {} extends the one of size {old}", head.size))
}

/// A request, parsed.
struct Asked<'a> {
    old: u64,
    proof: Vec<Hash>,
    note: &'a [u8],
    origin: String,
}

impl<'a> Asked<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, String> {
        if body.len() > MAX_REQUEST {
            return Err(format!("the request is longer than {MAX_REQUEST} bytes"));
        }
        let end = body.windows(2).position(|w| w == b"\n\n").ok_or("there is no empty line")?;
        let (head, note) = (&body[..end], &body[end + 2..]);
        let head = std::str::from_utf8(head).map_err(|_| "the proof is not text")?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|l| l.strip_prefix("old ")).and_then(decimal);
        let old = old.ok_or("the first line is not \"old\" and a size")?;
        let proof: Option<Vec<Hash>> =
            lines.map(|l| BASE64.decode(l).ok().and_then(|h| h.try_into().ok()).map(Hash)).collect();
        let proof = proof.ok_or("a proof line is not a hash in base64")?;
        if proof.len() > MAX_PROOF {
            return Err("there are more than 63 proof lines".to_owned());
        }
        let origin = origin_of(note).map_err(|e| format!("the checkpoint {e}"))?;
        Ok(Self { old, proof, note, origin })
    }
}

/// The body of an `add-checkpoint` request.
pub fn request(old: u64, proof: &[Hash], note: &[u8]) -> Vec<u8> {
    let mut body = format!("old {old}\n").into_bytes();
    for hash in proof {
        body.extend_from_slice(BASE64.encode(hash.0).as_bytes());
        body.push(b'\n');
    }
    body.push(b'\n');
    body.extend_from_slice(note);
    body
}

/// An ASCII decimal without leading zeros.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_verifier::cosignature::{Algorithm, Cosigner};
    use ringfence_verifier::tiles::Tree;
    use tlog_tiles::Checkpoint;

    /// A log in memory: what it has signed at each size.
    struct Log {
        keys: crate::Keys,
        hashes: Vec<Hash>,
    }

    impl tlog_tiles::HashReader for Log {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
            Ok(indexes.iter().map(|&i| self.hashes[usize::try_from(i).unwrap()]).collect())
        }
    }

    impl Log {
        fn new(salt: &str, entries: u64) -> Self {
            let mut log = Self { keys: crate::generate_keys("test.example/log"), hashes: Vec::new() };
            for n in 0..entries {
                let new = tlog_tiles::stored_hashes(n, format!("{salt}{n}").as_bytes(), &log).unwrap();
                log.hashes.extend(new);
            }
            log
        }

        fn note(&self, size: u64) -> Vec<u8> {
            let root = tlog_tiles::tree_hash(size, self).unwrap();
            crate::sequencer::sign(&self.keys.signer, size, root).unwrap()
        }

        fn request(&self, old: u64, size: u64) -> Vec<u8> {
            let proof = if old == 0 || old >= size {
                Vec::new()
            } else {
                tlog_tiles::prove_tree(size, old, self).unwrap()
            };
            request(old, &proof, &self.note(size))
        }
    }

    fn witness(dir: &Path, log: &Log) -> Witness {
        let key = CosignerKey::from_seed("w.example/1", Algorithm::MlDsa44, [3; 32]).unwrap();
        Witness::open(dir, &key.skey(), std::slice::from_ref(&log.keys.verifier)).unwrap()
    }

    fn time_of(witness: &Witness, answer: &Answer, note: &[u8], log: &Log) -> u64 {
        let text = open(note, &log.keys.verifier).unwrap().text;
        let line = signed_note::Signature::from_bytes(answer.body.trim_ascii_end()).unwrap();
        Cosigner::parse(&witness.vkey()).unwrap().check(&text, &line).unwrap().unwrap()
    }

    #[test]
    fn it_cosigns_growth_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new("entry", 900);
        let one = witness(dir.path(), &log);
        let ask = |old, size| one.add_checkpoint(&log.request(old, size), 1000).0;
        let first = ask(0, 5);
        assert_eq!((first.status, time_of(&one, &first, &log.note(5), &log)), (200, 1000));
        assert_eq!(ask(5, 300).status, 200);
        assert_eq!(ask(300, 300).status, 200, "the same again, for a newer time");
        let conflict = ask(5, 400);
        assert_eq!(
            (conflict.status, conflict.content_type, conflict.body.as_slice()),
            (409, SIZE_TYPE, &b"300\n"[..])
        );
        assert_eq!(ask(300, 299).status, 400, "old is larger than the checkpoint");
        let unproven = one.add_checkpoint(&request(300, &[], &log.note(900)), 1000);
        assert_eq!(unproven.0.status, 422);
        assert!(matches!(unproven.1, Event::Contradiction { .. }));
        // The same key signs another history.
        let fork = Log {
            keys: crate::Keys { signer: log.keys.signer.clone(), verifier: log.keys.verifier.clone() },
            ..Log::new("fork", 900)
        };
        assert_eq!(one.add_checkpoint(&fork.request(300, 300), 1000).0.status, 422);
        assert_eq!(one.add_checkpoint(&fork.request(300, 900), 1000).0.status, 422);
        assert_eq!(fs::read_dir(dir.path().join("evidence")).unwrap().count(), 3);
        let stranger = Log::new("entry", 900);
        assert_eq!(one.add_checkpoint(&stranger.request(300, 900), 1000).0.status, 403);
        assert_eq!(one.checkpoint(&hash_of("test.example/log")).status, 200);
        assert_eq!(one.checkpoint(&hash_of("test.example/other")).status, 404);
        let kept = one.checkpoint(&hash_of("test.example/log")).body;
        assert_eq!(open(&kept, &log.keys.verifier).unwrap().head.size, 300);

        drop(one); // it remembers
        let again = witness(dir.path(), &log);
        assert_eq!(again.add_checkpoint(&log.request(0, 5), 1000).0.status, 409);
        // A clock that was set back: never an older time than the last.
        let late = again.add_checkpoint(&log.request(300, 900), 10).0;
        assert_eq!(time_of(&again, &late, &log.note(900), &log), 1000);
    }

    #[test]
    fn two_witnesses_cannot_share_a_folder_and_a_strange_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new("entry", 3);
        let one = witness(dir.path(), &log);
        let key = CosignerKey::from_seed("w.example/1", Algorithm::MlDsa44, [3; 32]).unwrap().skey();
        assert!(Witness::open(dir.path(), &key, &[]).is_err());
        drop(one);
        fs::write(dir.path().join(file_of("test.example/log")), log.note(3)).unwrap();
        assert!(
            Witness::open(dir.path(), &key, std::slice::from_ref(&log.keys.verifier)).is_err(),
            "not cosigned by it"
        );
    }

    #[test]
    fn malformed_requests_are_400() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new("entry", 3);
        let one = witness(dir.path(), &log);
        let note = String::from_utf8(log.note(3)).unwrap();
        let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
        for bad in [
            String::new(),
            note.clone(),
            format!("old 00\n\n{note}"),
            format!("old -1\n\n{note}"),
            format!("old 0\nAAAA\n\n{note}"),
            format!("old 0\n{}\n{note}", hash.repeat(64)),
            "old 0\n\nno note\n".to_owned(),
            format!("old 4\n\n{note}"),
        ] {
            assert_eq!(one.add_checkpoint(bad.as_bytes(), 1).0.status, 400, "{bad}");
        }
        assert_eq!(one.add_checkpoint(format!("old 0\n{hash}\n{note}").as_bytes(), 1).0.status, 422);
        let unknown = note.replace("test.example/log\n", "other.example/log\n");
        assert_eq!(one.add_checkpoint(format!("old 0\n\n{unknown}").as_bytes(), 1).0.status, 404);
        let root = Tree::default().root();
        let empty = Checkpoint::new("test.example/log", 0, root, "").unwrap();
        assert_eq!(empty.size(), 0);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = Asked::parse(&bytes);
            let _ = Asked::parse(&[b"old 0\n\n".as_slice(), &bytes].concat());
        }
    }
}
