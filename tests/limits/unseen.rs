//! What a session does without a text of its own for it: by a name that stands for more than a query, by a
//! commit that fails, by planning, by settings and by messages that are malformed.

use ringfence_verifier::record::Kind;

use super::names::texts;
use super::{ANALYST, ENGINEER, Place, WORKLOAD};
use crate::harness::client::{bind, end, execute, parse, query, run, send, sync};
use crate::harness::ledger;
use crate::harness::support::wire::{Wire, frame};

const READS: &str = "select email from users order by id limit 2";

/// Sends batches; the e-mail addresses in their answers.
fn seen(place: &Place, wire: &mut Wire, batches: &[Vec<Vec<u8>>]) -> u64 {
    let answers = batches.iter().map(|batch| send(wire, batch));
    answers.map(|answer| place.emails_in(&answer.bytes).len() as u64).sum()
}

/// A message can prepare what SQL cannot: EXECUTE of it changes what names stand for.
#[test]
fn execute_of_what_changes_names_is_not_a_query() {
    let place = Place::turn();
    let swaps = |by: &str, to: &str, away: &str, from: &str| {
        vec![
            vec![parse("d", by), parse("k", away), parse("x", from), sync()],
            vec![query("begin; declare c cursor for select 1")],
            vec![query("execute k")],
            vec![query("execute d")],
            vec![query(to)],
            vec![bind("", "x", &[]), execute("", 0), sync()],
            vec![query("rollback")],
            vec![query("execute k")],
            vec![query("execute d")],
            vec![query(to)],
            vec![bind("", "x", &[]), execute("", 0), sync()],
        ]
    };
    let cases = [
        swaps(&format!("prepare x as {READS}"), "execute x", "deallocate x", "select 1"),
        swaps(&format!("declare c cursor for {READS}"), "fetch all from c", "close c", "select 1"),
    ];
    for batches in cases {
        let grant = place.grant(30, 20);
        let mut wire = place.connect(ANALYST, false);
        let clear = seen(&place, &mut wire, &batches);
        end(wire);
        let charged = grant.settled();
        assert!(clear <= charged, "{clear} clear values, {charged} charged");
        drop(grant);
        for who in [ENGINEER, WORKLOAD] {
            let from = ledger::size(&place.log(false));
            let mut wire = place.connect(who, false);
            let clear = seen(&place, &mut wire, &batches);
            end(wire);
            assert!(clear > 0, "{who} may run what they like: {batches:?}");
            if who == WORKLOAD {
                continue;
            }
            std::thread::sleep(std::time::Duration::from_millis(300));
            let intents = ledger::records(&place.log(false), from, Kind::Intent);
            let names_it = |intent: &&serde_json::Value| {
                intent["not_understood"] == true || texts(&intents, intent).iter().any(|t| t.contains(READS))
            };
            let count = intents.iter().filter(names_it).count();
            assert!(count >= 4, "{count} of {intents:#?}");
        }
    }
}

/// PREPARE and DEALLOCATE stay when the commit after them fails.
#[test]
fn a_commit_that_fails_leaves_no_name_that_is_another() {
    let place = Place::turn();
    for is_pooled in [false, true] {
        let grant = place.grant(30, 20);
        let mut wire = place.connect(ANALYST, is_pooled);
        let fails = "declare h cursor with hold for select 1 / (id - id) from users";
        let batches = vec![
            vec![query("prepare x as select 1, 2")],
            vec![query(&format!("{fails}; deallocate x"))],
            vec![query(&format!("{fails}; prepare x as {READS}"))],
            vec![query("execute x")],
            vec![bind("", "x", &[]), execute("", 0), sync()],
        ];
        let clear = seen(&place, &mut wire, &batches);
        // A name is certain again once it is made again.
        run(&mut wire, "discard all");
        let answer = run(&mut wire, &format!("prepare z as {READS}"));
        assert_eq!(answer.sqlstate(), None, "{answer:?}");
        assert_eq!(run(&mut wire, "execute z").rows.len(), 2);
        end(wire);
        let charged = grant.settled();
        assert!(clear + 2 <= charged, "pooled {is_pooled}: {clear} + 2 clear values, {charged} charged");
    }
}

/// Planning evaluates functions that are marked IMMUTABLE or STABLE: what is bound may have read rows,
/// whether or not it is executed.
#[test]
fn what_is_bound_is_on_record_if_planning_can_read() {
    let place = Place::turn();
    let peek = "create or replace function public.rf_peek() returns int immutable language plpgsql as $$ \
                begin raise exception '%', (select email from public.users order by id limit 1); end $$";
    super::lock(&place.store).rows(peek);
    let sql = "select public.rf_peek()";
    for is_pooled in [false, true] {
        let log = place.log(is_pooled);
        let from = ledger::size(&log);
        let mut wire = place.connect(ENGINEER, is_pooled);
        let answer = send(&mut wire, &[parse("", sql), bind("", "", &[]), sync()]);
        assert_eq!(place.emails_in(&answer.bytes).len(), 1, "{answer:?}");
        end(wire);
        let intents = ledger::wait_for(&log, from, Kind::Intent, 1);
        assert!(intents.iter().any(|i| texts(&intents, i).iter().any(|t| t == sql)), "{intents:?}");
        // One intent for a Bind and its Execute.
        let from = ledger::size(&log);
        let mut wire = place.connect(ENGINEER, is_pooled);
        let harmless = "select query_to_xml('select 1',true,false,'')";
        let answer = send(&mut wire, &[parse("", harmless), bind("", "", &[]), execute("", 0), sync()]);
        assert_eq!(answer.rows.len(), 1, "{answer:?}");
        end(wire);
        std::thread::sleep(std::time::Duration::from_millis(300));
        let intents = ledger::records(&log, from, Kind::Intent);
        assert_eq!(intents.iter().filter(|i| i["principal"] == ENGINEER).count(), 1, "{intents:?}");
    }
}

/// A text that reads differently under other settings is another statement.
#[test]
fn a_shared_statement_is_read_under_its_settings() {
    let place = Place::turn();
    let text = r"select '\'' , email from users order by id limit 2 --'";
    let setting = |value: &str| query(&format!("set standard_conforming_strings = {value}"));
    let runs = |name: &str| vec![bind("", name, &[]), execute("", 0), sync()];
    let mut first = place.connect(ENGINEER, true);
    send(&mut first, &[setting("off")]);
    send(&mut first, &[parse("x", text), sync()]);
    assert_eq!(seen(&place, &mut first, &[runs("x")]), 2);
    send(&mut first, &[setting("on")]);
    // The same bytes are a constant now: under another name, and in another session.
    send(&mut first, &[parse("y", text), sync()]);
    assert_eq!(seen(&place, &mut first, &[runs("y")]), 0);
    let mut second = place.connect(ENGINEER, true);
    send(&mut second, &[parse("z", text), sync()]);
    assert_eq!(seen(&place, &mut second, &[runs("z")]), 0);
    end(first);
    end(second);
}

/// A change of `pg_settings` sets parameters as SET does.
#[test]
fn an_update_of_pg_settings_is_a_set() {
    let place = Place::turn();
    let text = r"select '\'' , email from users order by id limit 2 --'";
    let set = "update pg_settings set setting = 'off' where name = 'standard_conforming_strings'";
    let one = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    let log = place.log(false);
    let from = ledger::size(&log);
    let mut wire = place.connect(ENGINEER, false);
    let answer = send(&mut wire, &[one(set), one(text), sync()]);
    assert_eq!(place.emails_in(&answer.bytes).len(), 2, "{answer:?}");
    end(wire);
    let intents = ledger::wait_for(&log, from, Kind::Intent, 2);
    let read = intents.iter().find(|i| texts(&intents, i).iter().any(|t| t.contains("email"))).unwrap();
    assert!(
        read["settings"]["standard_conforming_strings"] == "unsure" || read["not_understood"] == true,
        "{read}"
    );
    // It stays in the connection, so the session keeps that.
    let mut first = place.connect(WORKLOAD, true);
    run(&mut first, "update pg_settings set setting = 'pg_catalog' where name = 'search_path'");
    for _ in 0..3 {
        let mut other = place.connect(WORKLOAD, true);
        assert_eq!(run(&mut other, "select 1 from users limit 1").sqlstate(), None);
    }
}

/// The store answers a function-call message that it cannot read with an error and ReadyForQuery.
#[test]
fn a_malformed_function_call_has_an_answer_of_its_own() {
    let place = Place::turn();
    let mut wire = place.connect(WORKLOAD, false);
    wire.send(
        &[
            frame(b'F', b"\0\0"),
            parse("x", READS),
            sync(),
            parse("x", "select 77"),
            sync(),
            bind("", "x", &[]),
            execute("", 0),
            sync(),
        ]
        .concat(),
    )
    .unwrap();
    let mut ready = 0;
    while ready < 4 {
        ready += usize::from(wire.next().expect("the session goes on").0 == b'Z');
    }
    let from = ledger::size(&place.log(false));
    end(wire);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let counted = ledger::records(&place.log(false), from, Kind::Counted);
    let shapes = counted.iter().flat_map(|c| c["shapes"].as_array().cloned().unwrap_or_default());
    let wrong = shapes.filter(|s| s["statement"] == "select ?" && s["rows"] == 2).count();
    assert_eq!(wrong, 0, "{counted:?}");
}

/// A name that is confirmed after something ran that may have changed it is not sure.
#[test]
fn a_name_that_sql_has_run_by_another_is_not_sure() {
    let place = Place::turn();
    let log = place.log(false);
    let from = ledger::size(&log);
    let mut wire = place.connect(ENGINEER, false);
    let hidden = "prepare a as select email from users order by id limit 3";
    send(&mut wire, &[parse("x", "deallocate a"), parse("y", hidden), sync()]);
    run(&mut wire, "prepare a as select 1; execute x; execute y");
    run(&mut wire, "prepare b as select 1; select 1/0");
    let answer = run(&mut wire, "execute a");
    assert_eq!(place.emails_in(&answer.bytes).len(), 3, "{answer:?}");
    end(wire);
    let intents = ledger::wait_for(&log, from, Kind::Intent, 4);
    let last = intents.iter().rfind(|i| i["statement"] == "execute a").unwrap();
    assert_eq!(last["not_understood"], true, "{last}");
}

/// ROLLBACK TO has the tag of ROLLBACK and ends no cursor that was made before the savepoint.
#[test]
fn a_rollback_to_a_savepoint_is_no_rollback() {
    let place = Place::turn();
    let mut wire = place.connect(ENGINEER, false);
    let declare = "begin; declare c cursor with hold for select email from users order by id limit 3;
        savepoint s; rollback to s; commit";
    // The same in parts: a text of several parts is one batch.
    for text in declare.split(';') {
        let declared = run(&mut wire, text);
        assert_eq!(declared.sqlstate(), None, "{declared:?}");
    }
    run(&mut wire, "close c");
    let from = ledger::size(&place.log(false));
    let declared = run(&mut wire, declare);
    assert_eq!(declared.sqlstate(), None, "{declared:?}");
    let answer = run(&mut wire, "fetch all from c");
    assert_eq!((answer.sqlstate(), answer.rows.len()), (None, 3), "{answer:?}");
    end(wire);
    let intents = ledger::wait_for(&place.log(false), from, Kind::Intent, 2);
    let fetch = intents.iter().find(|i| i["statement"] == "fetch all from c").unwrap();
    assert!(fetch["not_understood"].is_null(), "{fetch}");
}

/// A refusal of ours leaves the unnamed statement as the store does.
#[test]
fn a_refusal_leaves_the_unnamed_statement() {
    let place = Place::turn();
    let mut wire = place.connect(ANALYST, false);
    send(&mut wire, &[parse("", "select 7"), sync()]);
    assert_eq!(send(&mut wire, &[bind("", "nowhere", &[]), sync()]).sqlstate(), Some("26000"));
    let answer = send(&mut wire, &[bind("", "", &[]), execute("", 0), sync()]);
    assert_eq!((answer.sqlstate(), answer.rows.len()), (None, 1), "{answer:?}");
    end(wire);
}

/// One batch cannot fill the gateway's memory.
#[test]
fn a_batch_without_a_sync_has_a_bound() {
    let place = Place::turn();
    let mut wire = place.connect(ANALYST, false);
    let long = "x".repeat(16_000);
    let batch = |portal: &dyn Fn(usize) -> String| {
        let mut sent = vec![parse("", "select $1::text is null")];
        sent.extend((0..6_000).map(|n| bind(&portal(n), "", &[&long])));
        sent.push(sync());
        sent
    };
    let answer = send(&mut wire, &batch(&|n| format!("p{n}")));
    assert_eq!(answer.sqlstate(), Some("54000"), "{:?}", answer.errors);
    // Of portals of one name there is one at a time, and what is answered is kept no longer.
    let answer = send(&mut wire, &batch(&|_| String::new()));
    assert_eq!(answer.sqlstate(), None, "{:?}", answer.errors);
    let mut sent = vec![parse("", "select $1::text is null")];
    sent.extend((0..6_000).flat_map(|_| [bind("", "", &[&long]), execute("", 0)]));
    sent.push(sync());
    let answer = send(&mut wire, &sent);
    assert_eq!((answer.sqlstate(), answer.rows.len()), (None, 6_000), "{:?}", answer.errors);
    // Texts of settings are kept until the end of the batch.
    let set = format!("set application_name = '{}'", "x".repeat(200_000));
    let mut sent: Vec<_> =
        (0..400).flat_map(|_| [parse("", &set), bind("", "", &[]), execute("", 0)]).collect();
    sent.push(sync());
    let answer = send(&mut wire, &sent);
    assert_eq!(answer.sqlstate(), Some("54000"), "{:?}", answer.errors);
    assert_eq!(run(&mut wire, "select 1").rows.len(), 1);
    end(wire);
}
