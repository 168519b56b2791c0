//! A log of 100,000 records, and what somebody who runs it might do to it afterwards: each is found and named. And honest
//! logs that were cut by a crash at a random moment: none is called wrong.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ringfence_ledger::{Counters, Entry, Keys, Kind, Ledger, Settings, generate_keys};
use ringfence_verifier::checkpoint::{CHECKPOINT, WITNESSED, open};
use ringfence_verifier::cosignature::{Algorithm, CosignerKey};
use ringfence_verifier::installation::Judge;
use ringfence_verifier::quorum::Quorum;
use ringfence_verifier::segment::{self, SALT};
use ringfence_verifier::tally::HeartbeatRecord;
use ringfence_verifier::tiles::{self, Shelf, Tree};
use ringfence_verifier::verify::verify_with;
use serde_json::json;

const RECORDS: u64 = 100_000;

struct Log {
    dir: PathBuf,
    keys: Keys,
    witness: CosignerKey,
    quorum: Quorum,
}

fn settings(dir: &Path, keys: &Keys, every: Duration) -> Settings {
    let (skey, vkey) = (keys.signer.clone(), keys.verifier.clone());
    Settings { dir: dir.to_owned(), skey, vkey, publish_every: every, witnesses: None, bucket: None }
}

fn heartbeat(ledger: &Ledger) {
    ledger.heartbeat(|promised| {
        let statements = promised.values().sum();
        let record = HeartbeatRecord { every_ms: 30_000, sessions: 1, promised: promised.clone() };
        Entry::new(Kind::Heartbeat, "-", &record).counting(Counters { statements, ..Counters::default() })
    });
}

/// What the gateway writes, with an approved grant in it.
fn fill(ledger: &Ledger, records: u64) {
    let (private, public) = ringfence_key();
    ledger.record(Entry::new(Kind::GatewayStarted, "-", &json!({ "version": "test" })));
    let rules = json!({ "digest": "d", "approvals": 1, "approver_keys": { "ann": public } });
    ledger.record(Entry::new(Kind::PolicyChanged, "-", &rules));
    let request = r#"{"id":"R-1","requester":"eve"}"#;
    ledger.record(Entry::new(Kind::Requested, "us", &json!({ "request": request })));
    let signature = sign(&private, request);
    ledger.record(Entry::new(
        Kind::Approved,
        "us",
        &json!({ "id": "R-1", "approver": "ann", "signature": signature }),
    ));
    ledger.record(Entry::new(Kind::Granted, "us", &json!({ "id": "R-1" })));
    for n in 0..records {
        if n % 10_000 == 0 {
            heartbeat(ledger);
        }
        let record = json!({ "session": "s", "n": n, "statement": format!("select {n}") });
        let entry = Entry::new(Kind::Intent, "us", &record);
        if n % 1000 == 999 {
            ledger.append(entry).wait().unwrap(); // not more than can wait
        } else {
            ledger.record(entry);
        }
    }
    heartbeat(ledger);
}

fn ringfence_key() -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).status().unwrap();
    assert!(made.success());
    (fs::read_to_string(&file).unwrap(), fs::read_to_string(file.with_extension("pub")).unwrap())
}

fn sign(private: &str, text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (key, file) = (dir.path().join("key"), dir.path().join("text"));
    fs::write(&key, private).unwrap();
    let only_mine = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&key, only_mine).unwrap();
    fs::write(&file, text).unwrap();
    let signed = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-q", "-n", "ringfence-approval", "-f"])
        .arg(&key)
        .arg(&file)
        .output();
    assert!(signed.unwrap().status.success());
    fs::read_to_string(dir.path().join("text.sig")).unwrap()
}

impl Log {
    fn problems(&self) -> Vec<String> {
        verify_with(&self.dir, &self.keys.verifier, Some(&self.quorum), &mut Judge::default()).problems
    }

    /// Writes a whole log of these entries, signed by the log's own key: the operator has it.
    fn write(&self, entries: &[(Vec<u8>, [u8; SALT], Vec<u8>)]) {
        let _ = fs::remove_dir_all(&self.dir);
        fs::create_dir_all(self.dir.join("private")).unwrap();
        let (mut tree, mut files, mut bytes) = (Tree::default(), Vec::new(), Vec::new());
        for (leaf, salt, record) in entries {
            tree.push(leaf, &mut files).unwrap();
            segment::encode(leaf, salt, record, &mut bytes).unwrap();
        }
        files.extend(tree.partial());
        for (name, bytes) in files {
            let path = self.dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::write(self.dir.join("private/00000000000000000000.seg"), bytes).unwrap();
        let text =
            tlog_tiles::Checkpoint::new("test.example/log", tree.size(), tree.root(), "").unwrap().to_bytes();
        let mut note = signed_note::Note::new(&text, &[]).unwrap();
        let signer = signed_note::StandardSigner::new(&self.keys.signer).unwrap();
        note.add_sigs(&[&signer]).unwrap();
        fs::write(self.dir.join(CHECKPOINT), note.to_bytes()).unwrap();
    }

    /// The witness confirms what is there now.
    fn confirm(&self) {
        let opened = open(&fs::read(self.dir.join(CHECKPOINT)).unwrap(), &self.keys.verifier).unwrap();
        let line = self.witness.cosign(&opened.text, 1_800_000_000).unwrap();
        let note = signed_note::Note::new(&opened.text, &[opened.by_log, vec![line]].concat()).unwrap();
        fs::write(self.dir.join(WITNESSED), note.to_bytes()).unwrap();
    }

    fn entries(&self) -> Vec<(Vec<u8>, [u8; SALT], Vec<u8>)> {
        let segments = segment::list(&self.dir).unwrap();
        let all = segments.iter().flat_map(|s| segment::read(s).unwrap().entries);
        all.map(|e| (e.leaf, e.salt, e.record)).collect()
    }
}

/// An entry anew, as the operator would make it who has the key but not the past.
fn sealed(kind: &str, time: u64, record: &serde_json::Value) -> (Vec<u8>, [u8; SALT], Vec<u8>) {
    let (salt, record) = ([7; SALT], serde_json::to_vec(record).unwrap());
    let commitment = hex::encode(ringfence_verifier::record::commitment(&salt, &record));
    let leaf = json!({ "v": 1, "kind": kind, "time": time, "jurisdiction": "us", "counters": {}, "commitment": commitment });
    (serde_json::to_vec(&leaf).unwrap(), salt, record)
}

fn time_of(entry: &(Vec<u8>, [u8; SALT], Vec<u8>)) -> u64 {
    serde_json::from_slice::<ringfence_verifier::Leaf>(&entry.0).unwrap().time
}

type Change = Box<dyn Fn(&mut Vec<(Vec<u8>, [u8; SALT], Vec<u8>)>)>;

#[test]
fn whatever_is_done_to_a_log_afterwards_is_named() {
    let place = tempfile::tempdir().unwrap();
    let witness = CosignerKey::from_seed("w.example/1", Algorithm::MlDsa44, [3; 32]).unwrap();
    let quorum = Quorum::parse(&format!("witness w {}\nquorum w\n", witness.public().vkey())).unwrap();
    let log = Log { dir: place.path().join("log"), keys: generate_keys("test.example/log"), witness, quorum };
    let ledger = Ledger::open(&settings(&log.dir, &log.keys, Duration::from_secs(9))).unwrap();
    fill(&ledger, RECORDS);
    drop(ledger);
    log.confirm();
    assert_eq!(log.problems(), Vec::<String>::new());
    let entries = log.entries();
    assert!(entries.len() as u64 > RECORDS);
    let witnessed = fs::read(log.dir.join(WITNESSED)).unwrap();
    let middle = entries.len() / 2;
    let forged_approval = {
        let (private, _) = ringfence_key();
        let signature = sign(&private, r#"{"id":"R-1","requester":"eve"}"#);
        json!({ "id": "R-1", "approver": "ann", "signature": signature })
    };
    // The operator has the log's key, makes everything fit again, and signs it. Only what others saw stands against it, and
    // what others signed, and what the gateway promised.
    let at = time_of(&entries[middle]);
    let cases: Vec<(&str, Change, &str)> = vec![
        (
            "edit",
            Box::new(move |e| {
                e[middle] = sealed("intent", at, &json!({ "session": "s", "n": 1, "statement": "other" }));
            }),
            "another history",
        ),
        ("drop", Box::new(move |e| drop(e.remove(middle))), "are missing"),
        ("reorder", Box::new(move |e| e.swap(middle, middle + 1)), "another history"),
        ("truncate", Box::new(move |e| e.truncate(middle)), "the log was cut"),
        (
            "fork",
            Box::new(move |e| {
                e.truncate(middle);
                for n in 0..RECORDS {
                    e.push(sealed(
                        "intent",
                        u64::MAX / 2,
                        &json!({ "session": "s", "n": n, "statement": "x" }),
                    ));
                }
            }),
            "another history",
        ),
        (
            "back-date",
            Box::new(move |e| {
                e.push(sealed("intent", 1000, &json!({ "session": "s", "n": 1, "statement": "x" })));
            }),
            "is older than the one before it",
        ),
        (
            "forge an approval",
            Box::new(move |e| e[3] = sealed("approved", time_of(&e[3]), &forged_approval)),
            "is not by their key over this request",
        ),
        (
            "replay a grant",
            Box::new(move |e| e.push(sealed("granted", u64::MAX / 2, &json!({ "id": "R-2" })))),
            "has 0 approvals in the log",
        ),
        (
            "swap the rules",
            Box::new(move |e| {
                let (_, public) = ringfence_key();
                let rules = json!({ "digest": "d", "approvals": 1, "approver_keys": { "ann": public } });
                e[1] = sealed("policy-changed", time_of(&e[1]), &rules);
            }),
            "is not by their key over this request",
        ),
        (
            "swap the rules' text",
            Box::new(move |e| {
                let rules =
                    json!({ "digest": "d", "approvals": 0, "approver_keys": {}, "rules": "everybody may" });
                e.push(sealed("policy-changed", u64::MAX / 2, &rules));
            }),
            "its rules are not those that its digest is of",
        ),
    ];
    for (what, change, problem) in cases {
        let mut changed = entries.clone();
        change(&mut changed);
        log.write(&changed);
        fs::write(log.dir.join(WITNESSED), &witnessed).unwrap();
        let problems = log.problems();
        assert!(
            problems.iter().any(|p| p.contains(problem)),
            "{what}: {:?}",
            problems.iter().take(4).collect::<Vec<_>>()
        );
        // Without the witnesses' word the log does not stand either.
        fs::remove_file(log.dir.join(WITNESSED)).unwrap();
        assert!(log.problems().iter().any(|p| p.contains("no checkpoint has the cosignatures")), "{what}");
    }
}

/// How many entries the tiles speak of, whatever level's was copied first.
fn entries_in_tiles(dir: &Path) -> u64 {
    let (mut most, mut folders) = (0, vec![dir.join("tile")]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let found = tiles::parse_path(path.strip_prefix(dir).unwrap().to_str().unwrap());
            let (n, width, level) = match found {
                Some((Shelf::Entries, n, width)) => (n, width, 0),
                Some((Shelf::Level(level), n, width)) => (n, width, u32::from(level)),
                None => continue,
            };
            most = most.max((n * 256 + width as u64) * 256_u64.pow(level));
        }
    }
    most
}

/// A crash leaves any prefix of the journal, any tiles of a checkpoint before, and the checkpoint before.
#[test]
fn honest_logs_that_were_cut_at_random_moments_are_not_called_wrong() {
    let place = tempfile::tempdir().unwrap();
    let keys = generate_keys("test.example/log");
    let (origin, copy) = (place.path().join("log"), place.path().join("copy"));
    let mut state = 42_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below.max(1)
    };
    let mut checked = 0;
    // RF_CUTS=1000 for the long form.
    let cuts = std::env::var("RF_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    while checked < cuts {
        let ledger = Ledger::open(&settings(&origin, &keys, Duration::from_millis(1))).unwrap();
        fill(&ledger, 40 + random(300));
        // While it runs, and the sequencer follows behind.
        for _ in 0..60 {
            ledger.record(Entry::new(Kind::Intent, "us", &json!({ "n": random(9) })));
            let _ = fs::remove_dir_all(&copy);
            // What is later on disk is copied first, as a crash would have it.
            fs::create_dir_all(&copy).unwrap();
            let copied = [CHECKPOINT, "tile", "private"].iter().all(|name| {
                let (from, to) = (origin.join(name), copy.join(name));
                from.exists()
                    && Command::new("cp").arg("-r").args([from, to]).output().unwrap().status.success()
            });
            if !copied {
                continue; // a partial tile went while it was copied: no moment that a crash could leave
            }
            // The last write may be torn, beyond the checkpoint.
            let head = ringfence_verifier::checkpoint::read_head(&copy, &keys.verifier).unwrap().unwrap();
            let last = segment::list(&copy).unwrap().pop().unwrap();
            let contents = segment::read(&last).unwrap();
            // Tiles are made of what is durable, so no crash takes that away.
            let durable = head.size.max(entries_in_tiles(&copy));
            let kept: u64 = contents
                .entries
                .iter()
                .take(usize::try_from(durable.saturating_sub(last.first)).unwrap())
                .map(|e| 6 + (e.leaf.len() + e.record.len() + SALT) as u64)
                .sum();
            let cut = kept + random(contents.whole - kept + 1);
            fs::OpenOptions::new().write(true).open(&last.path).unwrap().set_len(cut).unwrap();
            drop(Ledger::open(&settings(&copy, &keys, Duration::from_millis(1))).unwrap());
            let report = verify_with(&copy, &keys.verifier, None, &mut Judge::default());
            assert_eq!(report.problems, Vec::<String>::new());
            assert!(report.entries >= head.size);
            checked += 1;
        }
    }
}
