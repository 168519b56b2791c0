//! What records say of charges and texts, wherever they are shown.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::generator::now;
use super::{ANALYST, ENGINEER, Place, WORKLOAD};
use crate::harness::client::{bind, end, execute, parse, query, run, send, sync};
use crate::harness::support::wire::Wire;
use crate::harness::support::{text, verifier};

/// What a command prints where it has to succeed.
fn said(place: &Place, config: &str, arguments: &[&str]) -> String {
    let output = place.demo.ringfence_with(config, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

fn verified(bundle: &str, trust: &[&str]) -> (bool, String) {
    let output = Command::new(verifier()).arg(bundle).args(trust).output().unwrap();
    (output.status.success(), text(&output))
}

#[test]
fn charged_rows_are_shown_under_that_word() {
    let place = Place::turn();
    let grant = place.grant(50, 100);
    let mut wire = place.connect(ANALYST, false);
    // Two addresses in a row: seven rows of the result cost fourteen.
    let pairs = "select a.email, b.email from users a join users b on b.id = a.id order by a.id limit 7";
    assert_eq!(run(&mut wire, pairs).rows.len(), 7);
    end(wire);
    assert_eq!(grant.settled(), 14);
    // The checkpoint that the audit reads follows, and witnesses confirm it.
    std::thread::sleep(Duration::from_secs(4));
    let requests: Value = serde_json::from_str(&said(
        place.place,
        "ringfence",
        &["requests", "--as", "us-approver-1", "--json"],
    ))
    .unwrap();
    let mine = requests.as_array().unwrap().iter().find(|r| r["id"] == *grant.id).unwrap();
    assert_eq!(mine["charged"], 14, "{mine}");
    let printed = said(place.place, "ringfence", &["requests", "--as", "us-approver-1"]);
    assert!(printed.contains("rows charged 14 of 100"), "{printed}");
    let shown = said(place.place, "ringfence", &["ledger", "show", "--from", "-40"]);
    assert!(shown.contains("(7 rows, 14 charged)"), "{shown}");
    let answer: Value = serde_json::from_str(&said(
        place.place,
        "ringfence",
        &["audit", "who-accessed", "--person", ANALYST, "--json", "--each"],
    ))
    .unwrap();
    let hits = answer["hits"].as_array().unwrap();
    assert!(hits.iter().any(|hit| hit["charged"][&grant.id] == 14), "{answer}");
    let csv = said(place.place, "ringfence", &["audit", "who-accessed", "--person", ANALYST, "--csv"]);
    assert!(csv.lines().next().unwrap().contains("charged"), "{csv}");
    let out = place.demo.dir.join("charged-bundle").display().to_string();
    said(place.place, "ringfence", &["audit", "bundle", "--out", &out, "--person", ANALYST]);
    let trust = place.demo.dir.join("witnesses.policy").display().to_string();
    let (holds, proven) = verified(&out, &["--trust", &trust]);
    assert!(holds && proven.contains("charged"), "{proven}");
}

#[test]
fn an_erased_text_shows_in_each_entry_that_names_it() {
    let place = Place::turn();
    let served = place.demo.serve_with("texts", "", |text| text);
    let long = format!("select id, '{}' as filler from users limit 1", "x".repeat(300));
    let mut wire = Wire::connect(served.port, ENGINEER, "us").unwrap();
    for _ in 0..3 {
        assert_eq!(run(&mut wire, &long).rows.len(), 1);
    }
    end(wire);
    std::thread::sleep(Duration::from_millis(2500));
    drop(served);
    let dir = place.demo.dir.join("ledger-texts");
    let entries = crate::harness::ledger::entries(&dir, 0);
    let intents: Vec<&(u64, _, Value)> =
        entries.iter().filter(|(.., record)| record["text"]["digest"].is_string()).collect();
    assert_eq!(intents.len(), 3);
    let (first, _, holder) = intents[0];
    assert_eq!(holder["statement"], *long);
    let digest = holder["text"]["digest"].as_str().unwrap();
    assert!(intents[1..].iter().all(|(.., i)| i["statement"].is_null() && i["text"]["digest"] == *digest));
    // A bundle shows the text with each statement that ran it.
    let vkey = place.demo.dir.join("keys-texts/ledger.vkey").display().to_string();
    let ask = |name: &str| {
        let out = place.demo.dir.join(name).display().to_string();
        said(place.place, "texts", &["audit", "bundle", "--out", &out, "--person", ENGINEER]);
        verified(&out, &["--vkey", &vkey])
    };
    let (holds, before) = ask("texts-bundle");
    assert!(holds && !before.contains("not shown"), "{before}");
    let reached = ["audit", "who-accessed", "--column", "messages.body", "--json"];
    let who =
        |answer: &str| serde_json::from_str::<Value>(answer).unwrap()["people"].as_array().unwrap().len();
    assert_eq!(who(&said(place.place, "texts", &reached)), 0);
    // Without the text nobody can tell what the others reached.
    let entry = first.to_string();
    let why = ["--reason", "an order", "--by", "us-approver-1"];
    said(place.place, "texts", &[&["ledger", "erase", "--entry", &entry], &why[..]].concat());
    let shown = said(place.place, "texts", &["ledger", "show", "--from", "0"]);
    let gone = format!("which is not in this log any more; SHA-256 {digest}");
    assert_eq!(shown.matches(&gone).count(), 2, "{shown}");
    said(place.place, "texts", &["audit", "index", "--rebuild"]);
    assert_eq!(who(&said(place.place, "texts", &reached)), 1);
    let (_, after) = ask("texts-bundle-erased");
    assert!(after.contains("not shown"), "{after}");
}

/// The store's log has "execute fetch from" for a portal that SQL began, and no "execute" before it.
#[test]
fn what_messages_go_on_with_after_sql_is_reconciled() {
    let place = Place::turn();
    std::thread::sleep(Duration::from_millis(1100));
    let since = now();
    let goes_on = || vec![execute("c", 1), sync()];
    let select = "select id, 'goes on' from users order by id limit 9";
    for is_pooled in [true, false] {
        for who in [ENGINEER, WORKLOAD, ANALYST] {
            let mut wire = place.connect(who, is_pooled);
            for first in ["fetch 2 from c", "move 2 in c", "fetch 2 from c; select 1/0"] {
                for is_declared in [true, false] {
                    let begin = if is_declared {
                        vec![query(&format!("begin; declare c cursor for {select}"))]
                    } else {
                        vec![query("begin"), parse("", select), bind("c", "", &[]), sync()]
                    };
                    for message in begin.split_inclusive(|m| matches!(m[0], b'Q' | b'S')) {
                        assert_eq!(send(&mut wire, message).error(), " /  / ", "{who} {is_pooled}");
                    }
                    send(&mut wire, &[query(first)]);
                    send(&mut wire, &goes_on());
                    send(&mut wire, &goes_on());
                    send(&mut wire, &[query("rollback")]);
                }
            }
            end(wire);
        }
    }
    std::thread::sleep(Duration::from_secs(3));
    let report = place.reconcile(&since);
    assert_eq!(report["findings"], serde_json::json!([]), "{report}");
    assert!(report["summary"]["recorded"].as_u64().unwrap() > 100, "{report}");
}
