//! Questions to the ledger and bundles for strangers: real sessions, the verifier's own program, and what a forger would try.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Demo, text};

fn verify(demo: &Demo, what: &Path) -> (bool, String) {
    let output = Command::new(support::verifier())
        .arg(what)
        .arg("--trust")
        .arg(demo.dir.join("witnesses.policy"))
        .env_clear()
        .output()
        .unwrap();
    (output.status.success(), text(&output))
}

fn ask(demo: &Demo, arguments: &[&str]) -> Value {
    let output = demo.ringfence(&[&["audit", "who-accessed", "--json"], arguments].concat());
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn bundle(demo: &Demo, name: &str, arguments: &[&str]) -> PathBuf {
    let out = demo.dir.join(name);
    let shown = out.display().to_string();
    let output = demo.ringfence(&[&["audit", "bundle", "--out", &shown], arguments].concat());
    assert!(output.status.success(), "{}", text(&output));
    out
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

#[test]
fn strangers_can_check_who_reached_what() {
    let demo = Demo::start("audit");
    let grant = demo.grant("singapore-analyst", "users.email", "id < 100", &["--max-rows", "50"]);
    for n in 0..3 {
        let said =
            demo.psql("singapore-analyst", "us", &format!("select id, email from users where id = {n}"));
        assert!(said.status.success(), "{}", text(&said));
    }
    assert!(demo.psql("beijing-engineer", "us", "select count(*) from videos").status.success());
    assert!(demo.psql("us-engineer", "us", "select email from users limit 7").status.success());
    let until = Instant::now() + Duration::from_secs(20);
    while ask(&demo, &["--person", "us-engineer"])["people"][0][1]["rows"] != 7 {
        assert!(Instant::now() < until, "the ledger is not under a checkpoint");
        std::thread::sleep(Duration::from_millis(200));
    }
    questions_are_answered(&demo, &grant);
    // The newest entries must be confirmed by witnesses before a bundle shows them.
    std::thread::sleep(Duration::from_secs(3));
    a_bundle_convinces_and_a_forged_one_does_not(&demo);
    a_bundle_shows_what_it_cannot_prove(&demo);
    the_log_itself_verifies_for_a_stranger(&demo);
}

fn questions_are_answered(demo: &Demo, grant: &str) {
    let all = ask(demo, &["--jurisdiction", "us"]);
    let names: Vec<&str> =
        all["people"].as_array().unwrap().iter().map(|p| p[0]["person"].as_str().unwrap()).collect();
    assert_eq!(names, ["beijing-engineer", "singapore-analyst", "us-engineer"]);
    let analyst = &ask(demo, &["--from", "SG"])["people"][0];
    assert_eq!((&analyst[1]["statements"], &analyst[0]["grants"][0]), (&Value::from(3), &Value::from(grant)));
    assert_eq!(analyst[0]["purposes"][0], "a test");
    assert_eq!(ask(demo, &["--covered"])["people"][0][0]["person"], "beijing-engineer");
    assert_eq!(ask(demo, &["--purpose", "TEST"])["people"].as_array().unwrap().len(), 1);
    assert_eq!(ask(demo, &["--employer", "clips-us"])["people"][0][0]["person"], "us-engineer");
    let emails = ask(demo, &["--column", "users.email"]);
    let names: Vec<&str> =
        emails["people"].as_array().unwrap().iter().map(|p| p[0]["person"].as_str().unwrap()).collect();
    assert_eq!(names, ["singapore-analyst", "us-engineer"]);
    assert!(ask(demo, &["--column", "messages.body"])["people"].as_array().unwrap().is_empty());
    assert!(ask(demo, &["--until", "2020-01-01"])["people"].as_array().unwrap().is_empty());
    assert!(ask(demo, &["--since", "2100-01-01"])["people"].as_array().unwrap().is_empty());
    assert!(ask(demo, &["--person", "nobody"])["people"].as_array().unwrap().is_empty());
    // A statement's entries prove it.
    let each = ask(demo, &["--from", "CN", "--each"]);
    let intent = each["hits"][0]["intent"].to_string();
    let shown = text(&demo.ringfence(&["ledger", "disclose", &intent]));
    let file = demo.dir.join("intent.tlog-proof");
    fs::write(&file, shown).unwrap();
    let said = Command::new(support::verifier())
        .arg(&file)
        .arg("--vkey")
        .arg(demo.dir.join("keys/ledger.vkey"))
        .output()
        .unwrap();
    assert!(said.status.success() && text(&said).contains("select count(*) from videos"), "{}", text(&said));
    let csv = text(&demo.ringfence(&["audit", "who-accessed", "--csv", "--from", "SG"]));
    assert!(csv.contains("singapore-analyst,SG,clips-singapore,"), "{csv}");
    // The index is a convenience: without it the answer is the same.
    let before = ask(demo, &["--from", "SG"]);
    assert!(demo.ringfence(&["audit", "index", "--rebuild"]).status.success());
    assert_eq!(ask(demo, &["--from", "SG"])["people"], before["people"]);
}

fn a_bundle_convinces_and_a_forged_one_does_not(demo: &Demo) {
    let whole = bundle(demo, "sg", &["--from", "SG", "--complete"]);
    let (holds, said) = verify(demo, &whole);
    assert!(holds, "{said}");
    assert!(said.contains("PROVEN   nothing across the border that answers was kept back"), "{said}");
    assert!(said.contains("PROVEN   singapore-analyst of clips-singapore in SG ran 3 statements"), "{said}");
    assert!(said.contains("2 approvals behind it are signed"), "{said}");
    assert!(said.contains("ringfence-demo.example/witness-"), "{said}");
    assert!(!said.contains("beijing"), "{said}");

    let forged = demo.dir.join("forged");
    let entries = fs::read_to_string(whole.join("log-0/entries")).unwrap();
    let lines: Vec<&str> = entries.lines().collect();
    let is = |kind: &str| lines.iter().position(|l| l.contains(&format!(r#"\"kind\":\"{kind}\""#))).unwrap();
    let last =
        |kind: &str| lines.iter().rposition(|l| l.contains(&format!(r#"\"kind\":\"{kind}\""#))).unwrap();
    let without = |n: usize| {
        let kept: Vec<&str> = lines.iter().enumerate().filter(|(i, _)| *i != n).map(|(_, l)| *l).collect();
        kept.join("\n") + "\n"
    };
    let replaced = |n: usize, from: &str, to: &str| {
        let mut changed: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
        assert_ne!(changed[n], changed[n].replace(from, to), "{from} is in {}", changed[n]);
        changed[n] = changed[n].replace(from, to);
        changed.join("\n") + "\n"
    };
    let swapped = {
        let mut changed = lines.clone();
        changed.swap(is("intent"), is("outcome"));
        let mut texts: Vec<String> = changed.iter().map(|l| (*l).to_owned()).collect();
        // With the places kept, as a forger would.
        for (n, text) in texts.iter_mut().enumerate() {
            let index = lines[n].split(',').next().unwrap();
            *text = text.replacen(text.split(',').next().unwrap().to_owned().as_str(), index, 1);
        }
        texts.join("\n") + "\n"
    };
    let tampered = [
        (
            "an edited statement",
            replaced(is("intent"), "select id, email", "select id, phone"),
            "is not the one that the leaf commits to",
        ),
        (
            "another person",
            replaced(is("session-opened"), "singapore-analyst", "somebody-else"),
            "is not the one that the leaf commits to",
        ),
        (
            "another time",
            replaced(is("intent"), r#"\"time\":1"#, r#"\"time\":2"#),
            "is not the leaf at this place",
        ),
        ("a dropped outcome", without(is("outcome")), "entries are shown"),
        ("a dropped intent", without(last("intent")), "is the end of a statement that is not shown"),
        ("a dropped session", without(is("session-opened")), "of a session that is not shown"),
        ("a dropped approval", without(is("approved")), "has 1 approvals in the log, not 2"),
        ("a dropped grant", without(is("granted")), "which is not shown"),
        ("other rules", without(is("policy-changed")), "by somebody who is no approver"),
        ("swapped entries", swapped, "is not the leaf at this place"),
        ("an entry twice", format!("{entries}{}\n", lines[is("intent")]), "twice"),
    ];
    for (what, entries, problem) in tampered {
        copy(&whole, &forged);
        if what != "a dropped outcome" {
            // A forger makes the number fit.
            let mut index: Value =
                serde_json::from_slice(&fs::read(whole.join("bundle.json")).unwrap()).unwrap();
            index["logs"][0]["entries"] = Value::from(entries.lines().count());
            fs::write(forged.join("bundle.json"), index.to_string()).unwrap();
        }
        fs::write(forged.join("log-0/entries"), entries).unwrap();
        let (holds, said) = verify(demo, &forged);
        assert!(!holds && said.contains(problem) && !said.contains("PROVEN"), "{what}: {said}");
    }
    // One statement is kept back, with its session's numbers made to fit.
    copy(&whole, &forged);
    let kept: Vec<&str> = lines
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != last("intent") && *i != last("outcome"))
        .map(|(_, l)| *l)
        .collect();
    fs::write(forged.join("log-0/entries"), kept.join("\n") + "\n").unwrap();
    let mut index: Value = serde_json::from_slice(&fs::read(whole.join("bundle.json")).unwrap()).unwrap();
    index["logs"][0]["entries"] = Value::from(kept.len());
    let intents: Vec<u64> = kept
        .iter()
        .filter(|l| l.contains(r#"\"kind\":\"intent\""#))
        .map(|l| {
            let shown: Value = serde_json::from_str(l).unwrap();
            let leaf: Value = serde_json::from_str(shown["leaf"].as_str().unwrap()).unwrap();
            leaf["time"].as_u64().unwrap()
        })
        .collect();
    let reach = &mut index["people"][0][1];
    reach["statements"] = Value::from(2);
    reach["last"] = Value::from(*intents.last().unwrap());
    let outcomes = kept.iter().filter(|l| l.contains(r#"\"kind\":\"outcome\""#)).map(|l| {
        let shown: Value = serde_json::from_str(l).unwrap();
        let leaf: Value = serde_json::from_str(shown["leaf"].as_str().unwrap()).unwrap();
        (leaf["counters"]["rows"].as_u64().unwrap_or(0), leaf["counters"]["bytes"].as_u64().unwrap_or(0))
    });
    let (rows, bytes) = outcomes.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    (reach["rows"], reach["bytes"]) = (Value::from(rows), Value::from(bytes));
    // What those outcomes charged to grants.
    let mut charged: BTreeMap<String, u64> = BTreeMap::new();
    for line in kept.iter().filter(|l| l.contains(r#"\"kind\":\"outcome\""#)) {
        let shown: Value = serde_json::from_str(line).unwrap();
        let record: Value = serde_json::from_str(shown["record"].as_str().unwrap()).unwrap();
        for (grant, rows) in record["charged"].as_object().into_iter().flatten() {
            *charged.entry(grant.clone()).or_default() += rows.as_u64().unwrap();
        }
    }
    if let Some(reach) = reach.as_object_mut() {
        reach.remove("charged");
        if !charged.is_empty() {
            reach.insert("charged".to_owned(), serde_json::to_value(charged).unwrap());
        }
    }
    fs::write(forged.join("bundle.json"), index.to_string()).unwrap();
    let (holds, said) = verify(demo, &forged);
    assert!(!holds && said.contains("1 statements that answer are in the log and were kept back"), "{said}");

    // The other files.
    let read = |name: &str| fs::read(whole.join(name)).unwrap();
    let leaves = read("log-0/leaves");
    let note = String::from_utf8(read("log-0/checkpoint")).unwrap();
    let own_key: String =
        note.split_inclusive(char::is_control).filter(|l| !l.contains("/witness-")).collect();
    let answer = String::from_utf8(read("bundle.json")).unwrap();
    for (name, bytes, problem) in [
        ("log-0/leaves", leaves[..leaves.len() / 2].to_vec(), "leaves"),
        ("log-0/hashes", vec![0; 39], "hashes was cut"),
        ("log-0/checkpoint", own_key.into_bytes(), "cosignatures that the trust policy asks for"),
        (
            "log-0/checkpoint",
            note.replacen("ringfence-demo.example/us", "ringfence-demo.example/eu", 1).into_bytes(),
            "checkpoint",
        ),
        (
            "bundle.json",
            answer.replace("\"statements\": 3", "\"statements\": 2").into_bytes(),
            "is not what the entries say",
        ),
        (
            "bundle.json",
            answer.replace("\"from\": \"SG\"", "\"from\": \"CN\"").into_bytes(),
            "does not answer the question",
        ),
        ("bundle.json", b"{}".to_vec(), "is not a bundle's"),
        ("extra", b"x".to_vec(), "extra: does not belong"),
    ] {
        copy(&whole, &forged);
        fs::write(forged.join(name), bytes).unwrap();
        let (holds, said) = verify(demo, &forged);
        assert!(!holds && said.contains(problem) && !said.contains("PROVEN"), "{name} {problem}: {said}");
    }
    copy(&whole, &forged);
    fs::remove_file(forged.join("log-0/hashes")).unwrap();
    let (holds, said) = verify(demo, &forged);
    assert!(!holds && said.contains("log-0/hashes: is missing"), "{said}");
    // A stranger with other keys believes nothing of it.
    let strange = demo.dir.join("strange.policy");
    let other = demo.dir.join("other-keys").display().to_string();
    assert!(
        demo.ringfence(&["keys", "--dir", &other, "--origin", "ringfence-demo.example/us"]).status.success()
    );
    let vkey = fs::read_to_string(demo.dir.join("other-keys/ledger.vkey")).unwrap();
    fs::write(&strange, format!("log {}\nquorum none\n", vkey.trim())).unwrap();
    let output = Command::new(support::verifier()).arg(&whole).arg("--trust").arg(&strange).output().unwrap();
    assert!(
        !output.status.success() && text(&output).contains("no signature on it is by the log's key")
            || text(&output).contains("does not verify"),
        "{}",
        text(&output)
    );
}

fn a_bundle_shows_what_it_cannot_prove(demo: &Demo) {
    let part = bundle(demo, "person", &["--person", "singapore-analyst"]);
    let (holds, said) = verify(demo, &part);
    assert!(holds && said.contains("CLAIMED  that nothing that answers was kept back"), "{said}");
    let hashes = fs::read(part.join("log-0/hashes")).unwrap();
    assert!(hashes.len() >= 40, "entries are proven by hashes");
    let forged = demo.dir.join("forged");
    let flipped: Vec<u8> =
        hashes.iter().enumerate().map(|(n, b)| if n % 40 == 39 { b ^ 1 } else { *b }).collect();
    for (bytes, problem) in [(Vec::new(), "its proof is not whole"), (flipped, "is not in the tree")] {
        copy(&part, &forged);
        fs::write(forged.join("log-0/hashes"), bytes).unwrap();
        let (holds, said) = verify(demo, &forged);
        assert!(!holds && said.contains(problem), "{said}");
    }
    let nobody = bundle(demo, "nobody", &["--from", "RU", "--complete"]);
    let (holds, said) = verify(demo, &nobody);
    assert!(
        holds
            && said.contains("PROVEN   the bundle shows nobody")
            && said.contains("PROVEN   nothing across the border that answers was kept back"),
        "{said}"
    );
    let output = Command::new(support::verifier()).arg(&part).output().unwrap();
    assert!(
        text(&output).contains("CLAIMED  that the keys of logs and witnesses are right"),
        "{}",
        text(&output)
    );
}

fn the_log_itself_verifies_for_a_stranger(demo: &Demo) {
    let (holds, said) = verify(demo, &demo.dir.join("ledger"));
    assert!(holds && said.contains("2 approvals are signed"), "{said}");
}
