//! The verifier against logs that the ledger wrote.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use ringfence_ledger::{Entry, Error, Kind, Ledger, Settings, generate_keys};
use ringfence_verifier::checkpoint::{self, CHECKPOINT};
use ringfence_verifier::verify::verify;
use ringfence_verifier::{proof, segment, tiles};

fn files_under(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            let is_lock = path.file_name().is_some_and(|name| name == ".lock");
            if path.is_dir() {
                folders.push(path);
            } else if !is_lock {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn log(dir: &Path, entries: u32) -> String {
    let keys = generate_keys("test.example/log");
    let vkey = keys.verifier.clone();
    let settings = Settings {
        dir: dir.to_owned(),
        skey: keys.signer,
        vkey: keys.verifier,
        publish_every: Duration::from_secs(9),
        witnesses: None,
        bucket: None,
    };
    let ledger = Ledger::open(&settings).unwrap();
    for n in 0..entries {
        let entry =
            Entry::new(Kind::Intent, "us", &serde_json::json!({ "statement": format!("SELECT {n}") }));
        drop(ledger.append(entry));
    }
    vkey
}

#[test]
fn flipping_any_one_bit_of_any_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let vkey = log(dir.path(), 300);
    assert_eq!(verify(dir.path(), &vkey).problems, Vec::<String>::new());
    let files = files_under(dir.path());
    assert!(files.len() >= 6, "{files:?}");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    runner
        .run(&(0..files.len(), any::<prop::sample::Index>(), 0..8u8), |(file, at, bit)| {
            let original = fs::read(&files[file]).unwrap();
            let mut flipped = original.clone();
            flipped[at.index(original.len())] ^= 1 << bit;
            fs::write(&files[file], &flipped).unwrap();
            let problems = verify(dir.path(), &vkey).problems;
            fs::write(&files[file], &original).unwrap();
            prop_assert!(
                !problems.is_empty(),
                "bit {} of byte {} in {:?}",
                bit,
                at.index(original.len()),
                files[file]
            );
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_byte_of_the_checkpoint_counts() {
    let dir = tempfile::tempdir().unwrap();
    let vkey = log(dir.path(), 3);
    let path = dir.path().join(CHECKPOINT);
    let original = fs::read(&path).unwrap();
    for at in 0..original.len() {
        for bit in 0..8 {
            let mut flipped = original.clone();
            flipped[at] ^= 1 << bit;
            fs::write(&path, &flipped).unwrap();
            assert!(!verify(dir.path(), &vkey).problems.is_empty(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn a_file_that_is_missing_or_foreign_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let vkey = log(dir.path(), 300);
    fs::write(dir.path().join("tile/notes.txt"), "x").unwrap();
    fs::remove_file(dir.path().join("tile/1/000.p/1")).unwrap();
    let problems = verify(dir.path(), &vkey).problems.join("\n");
    assert!(problems.contains("tile/notes.txt: does not belong"), "{problems}");
    assert!(problems.contains("tile/1/000.p/1: is missing"), "{problems}");
}

#[test]
fn the_public_half_verifies_alone() {
    let dir = tempfile::tempdir().unwrap();
    let vkey = log(dir.path(), 10);
    fs::remove_dir_all(dir.path().join("private")).unwrap();
    let report = verify(dir.path(), &vkey);
    assert_eq!((report.entries, report.records, report.problems.len()), (10, 0, 0));
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = segment::decode(&bytes);
        let _ = tiles::split_bundle(&bytes);
        let _ = tiles::parse_path(&String::from_utf8_lossy(&bytes));
        let _ = checkpoint::open_head(&bytes, "x+00000000+AA==");
        let _ = proof::check(&bytes, "x+00000000+AA==", None);
    }
}

#[test]
fn a_disclosed_entry_convinces_a_stranger_and_a_changed_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let keys = generate_keys("test.example/log");
    let settings = Settings {
        dir: dir.path().to_owned(),
        skey: keys.signer,
        vkey: keys.verifier.clone(),
        publish_every: Duration::from_secs(9),
        witnesses: None,
        bucket: None,
    };
    let ledger = Ledger::open(&settings).unwrap();
    for n in 0..600 {
        ledger.record(Entry::new(Kind::Intent, "us", &serde_json::json!({ "statement": n })));
    }
    drop(ledger);
    for index in [0, 255, 256, 599] {
        let shown_by = proof::prove(dir.path(), &keys.verifier, index, true).unwrap();
        let shown = proof::check(shown_by.as_bytes(), &keys.verifier, None).unwrap();
        assert_eq!(shown.record.unwrap()["statement"], index);
        let other = generate_keys("test.example/log").verifier;
        proof::check(shown_by.as_bytes(), &other, None).unwrap_err();
        proof::check(shown_by.replace(&format!("index {index}"), "index 7").as_bytes(), &keys.verifier, None)
            .unwrap_err();
    }
    let hidden = proof::prove(dir.path(), &keys.verifier, 3, false).unwrap();
    assert!(proof::check(hidden.as_bytes(), &keys.verifier, None).unwrap().record.is_none());
    assert!(matches!(proof::prove(dir.path(), &keys.verifier, 600, true), Err(Error::NoSuchEntry { .. })));
}
