//! What runs under a name is on record, metered and charged as what the name stands for.

use ringfence_verifier::record::Kind;
use serde_json::Value;

use super::{ANALYST, ENGINEER, Place, WORKLOAD};
use crate::harness::client::{Answer, bind, close, end, execute, parse, query, run, send, sync};
use crate::harness::ledger;
use crate::harness::support::text;

/// The texts that an intent runs: its own, and those that its names stand for, looked up where another
/// entry of the session has them.
pub fn texts(intents: &[Value], intent: &Value) -> Vec<String> {
    let own = std::iter::once((&intent["statement"], &intent["text"]));
    let meant = intent["stands_for"].as_array().into_iter().flatten().map(|m| (&m["statement"], m));
    own.chain(meant)
        .map(|(sql, of)| sql.as_str().map_or_else(|| named(intents, intent, of), str::to_owned))
        .collect()
}

/// The text in the entry that an intent names.
fn named(intents: &[Value], intent: &Value, of: &Value) -> String {
    let is_holder = |i: &&Value| i["session"] == intent["session"] && i["n"] == of["entry"];
    let holder = intents
        .iter()
        .find(is_holder)
        .unwrap_or_else(|| panic!("no entry has the text of {intent}: {intents:?}"));
    let meant = holder["stands_for"].as_array().into_iter().flatten();
    let mut all = std::iter::once((&holder["statement"], &holder["text"]["digest"]))
        .chain(meant.map(|m| (&m["statement"], &m["digest"])));
    let found = all.find(|(_, digest)| **digest == of["digest"]);
    found.and_then(|(sql, _)| sql.as_str()).unwrap_or_else(|| panic!("{intent}")).to_owned()
}

const READS: &str = "select id, email, full_name from users order by id limit 4";

/// Ways of running a text by a name, each as batches of messages.
fn ways(sql: &str) -> Vec<(&'static str, Vec<Vec<Vec<u8>>>)> {
    let declare = format!("begin; declare c cursor for {sql}");
    let prepare = format!("prepare x as {sql}");
    vec![
        ("Parse, SQL EXECUTE", vec![vec![parse("x", sql), sync()], vec![query("execute x")]]),
        ("PREPARE, EXECUTE", vec![vec![query(&prepare)], vec![query("execute x")]]),
        ("PREPARE and EXECUTE in one text", vec![vec![query(&format!("{prepare}; execute x"))]]),
        ("PREPARE, Bind", vec![vec![query(&prepare)], vec![bind("", "x", &[]), execute("", 0), sync()]]),
        (
            "Parse of EXECUTE",
            vec![
                vec![parse("x", sql), sync()],
                vec![parse("y", "execute x"), bind("", "y", &[]), execute("", 0), sync()],
            ],
        ),
        (
            "Parse over a name that SQL has freed",
            vec![
                vec![parse("x", "select 1"), sync()],
                vec![query("deallocate x")],
                vec![query(&prepare)],
                vec![bind("", "x", &[]), execute("", 0), sync()],
            ],
        ),
        (
            "the same in one batch",
            vec![vec![
                parse("x", "select 1"),
                parse("", "deallocate x"),
                bind("", "", &[]),
                execute("", 0),
                parse("", &prepare),
                bind("", "", &[]),
                execute("", 0),
                bind("p", "x", &[]),
                execute("p", 0),
                sync(),
            ]],
        ),
        (
            "DECLARE, FETCH",
            vec![vec![query(&declare)], vec![query("fetch all from c")], vec![query("commit")]],
        ),
        (
            "DECLARE, Execute",
            vec![vec![query(&declare)], vec![execute("c", 0), sync()], vec![query("commit")]],
        ),
        (
            "Bind, FETCH",
            vec![
                vec![query("begin")],
                vec![parse("", sql), bind("c", "", &[]), sync()],
                vec![query("fetch all from c")],
                vec![query("commit")],
            ],
        ),
        (
            "a portal that SQL has replaced",
            vec![
                vec![query("begin")],
                vec![parse("", "select 1"), bind("c", "", &[]), sync()],
                vec![query("close c")],
                vec![query(&format!("declare c cursor for {sql}"))],
                vec![execute("c", 0), sync()],
                vec![query("commit")],
            ],
        ),
        (
            "in pieces",
            vec![vec![
                parse("", sql),
                bind("c", "", &[]),
                execute("c", 2),
                execute("c", 2),
                execute("c", 2),
                sync(),
            ]],
        ),
        (
            "Close and Bind again",
            vec![vec![
                parse("x", "select 1"),
                close('S', "x"),
                parse("x", sql),
                bind("", "x", &[]),
                execute("", 0),
                sync(),
            ]],
        ),
    ]
}

#[test]
fn what_runs_by_a_name_is_on_record_as_what_it_stands_for() {
    let place = Place::turn();
    let grant = place.grant(50, 100_000);
    for is_pooled in [false, true] {
        for who in [ANALYST, ENGINEER] {
            for (way, batches) in ways(READS) {
                // In transaction pooling the store knows a Parse by another name (`channels.rs`).
                if is_pooled && matches!(way, "Parse, SQL EXECUTE" | "Parse of EXECUTE") {
                    continue;
                }
                let log = place.log(is_pooled);
                let from = ledger::size(&log);
                let before = grant.charged();
                let mut wire = place.connect(who, is_pooled);
                let mut rows = 0;
                for batch in &batches {
                    let answer = send(&mut wire, batch);
                    assert!(answer.errors.is_empty(), "{who}, {way}: {answer:?}");
                    rows += answer.rows.iter().filter(|row| row.len() == 3).count();
                }
                assert_eq!(rows, 4, "{who}, {way}");
                end(wire);
                std::thread::sleep(std::time::Duration::from_millis(30));
                let intents = ledger::wait_for(&log, from, Kind::Intent, 1);
                let ran: Vec<String> = intents.iter().flat_map(|i| texts(&intents, i)).collect();
                assert!(ran.iter().any(|text| text.contains(READS)), "{who}, {way}: {ran:?}");
                if who == ANALYST {
                    let charged = grant.charged() - before;
                    assert!(charged >= 4, "{way}: {charged} charged");
                }
            }
        }
    }
    // Each way of reading a column is found.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let answer =
        place.demo.ringfence(&["audit", "who-accessed", "--column", "users.email", "--json", "--each"]);
    let answer: Value =
        serde_json::from_slice(&answer.stdout).unwrap_or_else(|_| panic!("{}", text(&answer)));
    let by = |who: &str| {
        let people = answer["people"].as_array().unwrap();
        people
            .iter()
            .filter(|p| p[0]["person"] == who)
            .map(|p| p[1]["statements"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert!(by(ANALYST) >= ways(READS).len() as u64, "{answer}");
    assert!(by(ENGINEER) >= ways(READS).len() as u64, "{answer}");
}

#[test]
fn a_name_that_is_not_known_is_refused_or_recorded_as_not_understood() {
    let place = Place::turn();
    for is_pooled in [false, true] {
        let mut wire = place.connect(ANALYST, is_pooled);
        for (messages, sqlstate) in [
            (vec![query("execute nothing")], "26000"),
            (vec![query("fetch 1 from nothing")], "34000"),
            (vec![bind("", "nothing", &[]), execute("", 0), sync()], "26000"),
            (vec![execute("nothing", 0), sync()], "34000"),
        ] {
            let answer = send(&mut wire, &messages);
            assert_eq!(answer.sqlstate(), Some(sqlstate), "{answer:?}");
        }
        // A block may have made the name unseen: full access goes on, and the record says so.
        let log = place.log(is_pooled);
        let from = ledger::size(&log);
        let mut wire = place.connect(ENGINEER, is_pooled);
        let hidden = "do $$ begin execute 'prepare h as select id, email from users limit 2'; end $$";
        assert_eq!(run(&mut wire, hidden).sqlstate(), None);
        assert_eq!(run(&mut wire, "execute h").rows.len(), 2);
        send(&mut wire, &[crate::harness::client::call(1299)]); // now()
        end(wire);
        let intents = ledger::wait_for(&log, from, Kind::Intent, 3);
        for text in ["execute h", "-- a function-call message: function 1299, now()"] {
            let executed = intents.iter().find(|i| i["statement"] == text).unwrap();
            assert_eq!(executed["not_understood"], true, "{executed}");
        }
    }
}

/// A portal whose first run was refused, or that the store skipped, has not begun: it is charged and
/// recorded when it does.
#[test]
fn a_portal_that_did_not_run_has_not_begun() {
    let place = Place::turn();
    let grant = place.grant(50, 20);
    let all = "select string_agg(email, ',') from users";
    for is_pooled in [false, true] {
        let mut wire = place.connect(ANALYST, is_pooled);
        run(&mut wire, "begin");
        send(&mut wire, &[parse("", all), bind("p", "", &[]), sync()]);
        for _ in 0..2 {
            run(&mut wire, "savepoint a");
            let answer = run(&mut wire, "fetch 1 from p");
            // It was bound before, and would show the rows of then.
            assert_eq!(answer.sqlstate(), Some("0A000"), "{answer:?}");
            let answer = send(&mut wire, &[execute("p", 1), sync()]);
            assert!(place.emails_in(&answer.bytes).is_empty(), "{answer:?}");
            run(&mut wire, "rollback to a");
        }
        run(&mut wire, "rollback");
        // What the store skips is resolved anew when it runs.
        run(&mut wire, "prepare foo as select ''::text");
        run(&mut wire, "begin");
        send(&mut wire, &[parse("", "execute foo"), bind("p", "", &[]), sync()]);
        run(&mut wire, "savepoint a");
        let wrong = [parse("", "select 1 / 0"), bind("", "", &[]), execute("", 0), execute("p", 0), sync()];
        assert_eq!(send(&mut wire, &wrong).sqlstate(), Some("22012"));
        run(&mut wire, "rollback to a");
        run(&mut wire, &format!("deallocate foo; prepare foo as {all}"));
        let answer = send(&mut wire, &[execute("p", 0), sync()]);
        assert!(place.emails_in(&answer.bytes).is_empty(), "{answer:?}");
        end(wire);
    }
    assert!(grant.charged() <= 20);
}

/// Drivers prepare many statements, make mistakes, and fetch until nothing comes.
#[test]
fn honest_clients_go_on() {
    let place = Place::turn();
    let grant = place.grant(10, 10);
    let mut wire = place.connect(ANALYST, false);
    send(&mut wire, &[parse("kept", "select country from videos limit 1"), sync()]);
    assert_eq!(run(&mut wire, "selec 1").sqlstate(), Some("42601"));
    let answer = send(&mut wire, &[bind("", "kept", &[]), execute("", 0), sync()]);
    assert_ne!(answer.sqlstate(), Some("55000"), "{answer:?}");
    // All rows of the limit in pieces, and the empty one after them.
    run(&mut wire, "begin");
    send(&mut wire, &[parse("", "select email from users order by id"), bind("p", "", &[]), sync()]);
    let mut rows = 0;
    for _ in 0..6 {
        let answer = send(&mut wire, &[execute("p", 2), sync()]);
        assert_eq!(answer.sqlstate(), None, "{answer:?}");
        rows += answer.rows.len();
    }
    assert_eq!(rows, 10);
    run(&mut wire, "commit");
    end(wire);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(grant.charged(), 10);
    // Settings that are reported after the statement has ended.
    let mut wire = place.connect(ANALYST, false);
    let zone = "set timezone = 'Asia/Tokyo'";
    let answer = send(&mut wire, &[parse("", zone), bind("", "", &[]), execute("", 0), sync()]);
    assert!(answer.tags.contains('S'), "{answer:?}");
    // More than ten thousand Binds in one batch.
    let mut batch = vec![parse("many", "select 1")];
    for _ in 0..11_000 {
        batch.extend([bind("", "many", &[]), execute("", 0)]);
    }
    batch.push(sync());
    let answer = send(&mut wire, &batch);
    assert_eq!((answer.rows.len(), answer.sqlstate()), (11_000, None));
}

#[test]
fn a_text_is_recorded_once_and_named_after() {
    let place = Place::turn();
    let log = place.log(false);
    let from = ledger::size(&log);
    let long = format!("select id, '{}' as filler from users limit 1", "x".repeat(140_000));
    let mut wire = place.connect(ENGINEER, false);
    send(&mut wire, &[parse("x", &long), sync()]);
    for _ in 0..50 {
        send(&mut wire, &[bind("", "x", &[]), execute("", 0), sync()]);
    }
    for _ in 0..10 {
        run(&mut wire, &long);
    }
    end(wire);
    let intents = ledger::wait_for(&log, from, Kind::Intent, 60);
    assert_eq!(intents.len(), 60);
    let whole = intents.iter().filter(|i| i["statement"].is_string()).count();
    assert_eq!(whole, 1, "the text is told once");
    assert!(intents.iter().all(|i| texts(&intents, i) == [long.clone()]));
}

/// What counts of a workload's statements that the gateway cannot read as the store does.
#[test]
fn what_a_workload_runs_unread_is_counted_as_not_understood() {
    let place = Place::turn();
    let log = place.log(false);
    let from = ledger::size(&log);
    let name = |bytes: &[u8], rest: &[u8]| [bytes, b"\0", rest].concat();
    let frame = crate::harness::support::wire::frame;
    let mut wire = place.connect_with(WORKLOAD, false, &[("client_encoding", "LATIN1")]);
    let answer: Answer = send(
        &mut wire,
        &[
            frame(b'P', &name(b"\xe9", b"select id, email from users limit 40\0\0\0")),
            frame(b'B', &[b"\0".as_slice(), &name(b"\xe9", b"\0\0\0\0\0\0")].concat()),
            execute("", 0),
            sync(),
        ],
    );
    assert_eq!(answer.rows.len(), 40, "{answer:?}");
    end(wire);
    let mut wire = place.connect_with(WORKLOAD, false, &[("client_encoding", "SJIS")]);
    run(&mut wire, "select id from users limit 2");
    send(&mut wire, &[frame(b'Q', b"select '\x83\x5c', email from users limit 3\0")]);
    send(&mut wire, &[crate::harness::client::call(1299)]); // now()
    run(&mut wire, "do $$ begin execute 'prepare h as select email from users limit 6'; end $$");
    assert_eq!(run(&mut wire, "execute h /* hidden */").rows.len(), 6);
    end(wire);
    let mut wire = place.connect(WORKLOAD, false);
    run(&mut wire, "prepare x as select email from users limit 5");
    run(&mut wire, "execute x");
    end(wire);
    // Counts are written each minute, and when a gateway stops.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(70);
    let shapes = loop {
        let counted = ledger::records(&log, from, Kind::Counted);
        let shapes: Vec<Value> =
            counted.iter().flat_map(|c| c["shapes"].as_array().cloned().unwrap_or_default()).collect();
        // Others run an `execute x` of their own.
        let is_last = |s: &Value| {
            let stands_for = s["stands_for"]["statement"].as_str().unwrap_or_default();
            s["statement"] == "execute x" && stands_for.contains("select email from users limit")
        };
        if shapes.iter().any(is_last) {
            break shapes;
        }
        assert!(std::time::Instant::now() < until, "{shapes:?}");
        std::thread::sleep(std::time::Duration::from_millis(500));
    };
    let rows = |wanted: &dyn Fn(&Value) -> bool| -> u64 {
        shapes.iter().filter(|s| wanted(s)).map(|s| s["rows"].as_u64().unwrap()).sum()
    };
    let is = |s: &Value, text: &str| s["statement"].as_str().is_some_and(|t| t.contains(text));
    assert!(rows(&|s| is(s, "select id , email from users limit ?")) >= 40, "{shapes:?}");
    assert!(rows(&|s| s["fingerprint"] == "not understood") >= 3, "{shapes:?}");
    assert!(shapes.iter().any(|s| is(s, "function 1299, now()")), "{shapes:?}");
    // A name that a block made unseen.
    let hidden = shapes.iter().find(|s| is(s, "execute h")).unwrap();
    assert_eq!(hidden["stands_for"]["fingerprint"], "not understood", "{hidden}");
}

/// A text that reads differently under `standard_conforming_strings = off` is read as the store reads it.
#[test]
fn texts_are_read_under_the_sessions_settings() {
    let place = Place::turn();
    let log = place.log(false);
    let from = ledger::size(&log);
    let mut wire = place.connect(ENGINEER, false);
    run(&mut wire, "set standard_conforming_strings = off");
    let answer = run(&mut wire, r"select '\'' , email from users limit 2 --'");
    assert_eq!(answer.rows.len(), 2, "{answer:?}");
    end(wire);
    let intents = ledger::wait_for(&log, from, Kind::Intent, 2);
    let read = intents.iter().find(|i| i["statement"].as_str().is_some_and(|s| s.contains("email"))).unwrap();
    assert_eq!(read["settings"]["standard_conforming_strings"], "off", "{read}");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let arguments =
        ["audit", "who-accessed", "--column", "users.email", "--person", ENGINEER, "--json", "--each"];
    let answer = text(&place.demo.ringfence(&arguments));
    assert!(
        answer.contains(&read["session"].as_str().map_or(String::new(), |_| "users.email".to_owned())),
        "{answer}"
    );
}
