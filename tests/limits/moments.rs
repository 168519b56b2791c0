//! What has no bound is counted as the store shows it when the statement runs, however long the store or the
//! client takes before that; and what planning says is on record.

use ringfence_verifier::record::Kind;

use super::names::texts;
use super::{ANALYST, Place, lock};
use crate::harness::client::{bind, close, end, execute, parse, query, run, send, sync};
use crate::harness::ledger;
use crate::harness::support::wire::frame;

const FIRST_NEW: u64 = 9_000_000;
/// Makes people whom the grant shows, while a statement is planned.
const MAKE: &str = "insert into users select (jsonb_populate_record(null::users, to_jsonb(u) || jsonb_build_object('id', 9000000 + g,
    'email', 'new' || g || '@moment.example'))).* from (select * from users order by id limit 1) u,
    generate_series(1, 60) g";
const DROP: &str = "delete from users where id >= 9000000";

fn new_in(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).matches("@moment.example").count()
}

fn flush() -> Vec<u8> {
    frame(b'H', b"")
}

#[test]
fn a_bind_and_its_execute_see_the_same_rows() {
    let place = Place::turn();
    let grant = place.grant(10, 1000);
    let sql = "select string_agg(email, ',') from users";
    for is_pooled in [false, true] {
        let mut wire = place.connect(ANALYST, is_pooled);
        let bound = [parse("a", sql), bind("p", "a", &[]), flush()].concat();
        wire.send(&bound).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let answer = send(&mut wire, &[execute("p", 0), sync()]);
        assert_eq!(place.emails_in(&answer.bytes).len(), 0, "{answer:?}");
        assert_eq!(answer.sqlstate(), Some("0A000"), "{answer:?}");
        // In pieces of the network, and without a Flush between them, they are together.
        let whole = [parse("", sql), bind("", "", &[]), execute("", 0), sync()].concat();
        let (head, rest) = whole.split_at(whole.len() - 12);
        wire.send(head).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        let answer = send(&mut wire, &[rest.to_vec()]);
        assert_eq!(place.emails_in(&answer.bytes).len(), 10, "{answer:?}");
        let cut = whole.len() - sync().len() - execute("", 0).len();
        wire.send(&whole[..cut]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        let answer = send(&mut wire, &[whole[cut..].to_vec()]);
        assert_eq!(place.emails_in(&answer.bytes).len(), 10, "{answer:?}");
        end(wire);
    }
    assert!(grant.settled() >= 40);
}

#[test]
fn rows_that_come_while_a_statement_is_planned_are_charged() {
    let place = Place::turn();
    let slow = "length(factorial(12000)::text)";
    let condition = format!("id >= {FIRST_NEW}");
    let id = place.demo.grant(ANALYST, "users.email", &condition, &["--max-rows", "20"]);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let sql = format!("select string_agg(email, ','), {slow}, {slow}, {slow} from users");
    let heavy = format!("select {slow} + {slow} + {slow}");
    let in_one = [parse("", &sql), bind("", "", &[]), execute("", 0), sync()].concat();
    let behind = [
        parse("h", &heavy),
        bind("h", "h", &[]),
        parse("", "select string_agg(email, ',') from users"),
        bind("", "", &[]),
        execute("", 0),
        sync(),
    ]
    .concat();
    let declared =
        format!("begin; declare c cursor for {heavy}; select string_agg(email, ',') from users; rollback");
    let long = "a".repeat(70);
    let noticed = sql.replace("string_agg(email, ',')", &format!("string_agg(email, ',') as {long}"));
    for (way, messages) in [
        ("a Query", query(&sql)),
        ("behind a notice", query(&noticed)),
        (
            "behind a notice of Parse",
            [parse("", &noticed), bind("", "", &[]), execute("", 0), sync()].concat(),
        ),
        ("behind many notices", query(&format!("set client_min_messages = debug5; {sql}"))),
        ("Bind and Execute", in_one),
        ("behind a Bind", behind),
        ("behind DECLARE", query(&declared)),
    ] {
        for is_pooled in [false, true] {
            lock(&place.store).rows(DROP);
            let used = format!("select rows_used from ringfence.requests where id = '{id}'");
            let before: u64 = lock(&place.control).value(&used).parse().unwrap();
            let mut wire = place.connect(ANALYST, is_pooled);
            // The store needs some time to begin with the statement.
            let answer = std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(std::time::Duration::from_millis(150));
                    lock(&place.store).rows(MAKE);
                });
                send(&mut wire, std::slice::from_ref(&messages))
            });
            std::thread::sleep(std::time::Duration::from_millis(300));
            let after: u64 = lock(&place.control).value(&used).parse().unwrap();
            let seen = new_in(&answer.bytes) as u64;
            assert!(seen <= after - before, "{way}, pooled {is_pooled}: {seen} seen, {before} to {after}");
            drop(wire);
        }
    }
    lock(&place.store).rows(DROP);
    place.demo.ringfence(&["revoke", &id, "--as", "us-approver-3"]);
}

/// No answer passes after a cut, also one that waits for its count.
#[test]
fn an_answer_that_waits_does_not_outlive_its_grant() {
    let place = Place::turn();
    for way in ["revoked", "expired"] {
        let more: &[&str] =
            if way == "expired" { &["--max-rows", "50", "--for", "4s"] } else { &["--max-rows", "50"] };
        let id = place.demo.grant(ANALYST, "users.email", "id <= 30", more);
        std::thread::sleep(std::time::Duration::from_millis(1200));
        let mut wire = place.connect(ANALYST, false);
        let sql = "select string_agg(email, ',') from users where id <= 30 and pg_sleep(0.1) is not null";
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| {
                let lock_up =
                    "begin; lock table users in access exclusive mode; select pg_sleep(4.5); commit";
                std::thread::sleep(std::time::Duration::from_millis(500));
                place.demo.superuser("us-trusted", "us", lock_up);
            });
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(2500));
                if way == "revoked" {
                    let revoked = place.demo.ringfence(&["revoke", &id, "--as", "us-approver-3"]);
                    assert!(revoked.status.success());
                }
            });
            send(&mut wire, &[query(sql)])
        });
        assert_eq!(place.emails_in(&answer.bytes).len(), 0, "{way}: {answer:?}");
        assert_eq!(answer.sqlstate(), Some("57P01"), "{way}: {answer:?}");
        place.demo.ringfence(&["revoke", &id, "--as", "us-approver-3"]);
    }
}

#[test]
fn what_planning_says_to_a_face_is_on_record() {
    let place = Place::turn();
    let version = lock(&place.store).value("select current_setting('server_version')");
    let log = place.log(false);
    let from = ledger::size(&log);
    let mut wire = place.connect(ANALYST, false);
    for sql in [
        "select 'mk1' from users where id < current_setting('server_version')::int",
        "select 'mk2' from users where id < (pg_get_userbyid(10)::text)::int",
    ] {
        let answer = send(&mut wire, &[parse("", sql), bind("", "", &[]), sync()]);
        let said = answer.error();
        assert!(!said.contains(&version) && !said.contains("postgres"), "{said}");
        std::thread::sleep(std::time::Duration::from_millis(200));
        let intents = ledger::records(&log, from, Kind::Intent);
        assert!(intents.iter().any(|i| texts(&intents, i).iter().any(|t| t == sql)), "{sql}: {intents:?}");
    }
    // Each of two Binds of one portal is planned, whichever of them runs.
    for (first, portal) in [
        ("select 'mk3', repeat('abc', 2)::int from users limit 1", "p"),
        ("select 'mk4', repeat('a', 2)", ""),
    ] {
        let second = format!("select 'other', length('{portal}')");
        let between = if portal.is_empty() { Vec::new() } else { close('P', portal) };
        let messages = [
            parse("s1", first),
            parse("s2", &second),
            bind(portal, "s1", &[]),
            between,
            bind(portal, "s2", &[]),
            execute(portal, 1),
            execute(portal, 1),
            close('S', "s1"),
            close('S', "s2"),
            sync(),
        ];
        send(&mut wire, &messages);
        send(&mut wire, &[close('S', "s1"), close('S', "s2"), sync()]);
        std::thread::sleep(std::time::Duration::from_millis(200));
        let intents = ledger::records(&log, from, Kind::Intent);
        assert!(
            intents.iter().any(|i| texts(&intents, i).iter().any(|t| t == first)),
            "{first}: {intents:?}"
        );
    }
    // A parameter that cannot be read is the client's own.
    let sql = "select length(country) from users where id = $1::int";
    let answer = send(&mut wire, &[parse("", sql), bind("", "", &["many"]), execute("", 0), sync()]);
    assert!(answer.error().contains("\"many\""), "{}", answer.error());
    end(wire);
}

#[test]
fn an_error_of_a_commit_that_nobody_wrote_repeats_no_constant() {
    let place = Place::turn();
    let _grant = place.grant(20, 1000);
    let joined: Vec<String> = {
        let sql = "select email from users order by id limit 5";
        lock(&place.store).rows(sql).into_iter().flatten().collect()
    };
    let joined = joined.join(",");
    let declare = "declare h cursor with hold for select string_agg(email, ',')::int
        from (select email from users order by id limit 5) x";
    for is_pooled in [false, true] {
        for last in [format!("select 1 where '{joined}' = ''"), "commit".to_owned()] {
            let mut wire = place.connect(ANALYST, is_pooled);
            let messages = [parse("", declare), bind("", "", &[]), execute("", 0), query(&last)];
            let answer = send(&mut wire, &messages);
            assert!(!answer.error().contains('@'), "pooled {is_pooled}, {last}: {}", answer.error());
            assert!(!run(&mut wire, "rollback").is_gone);
            end(wire);
        }
    }
}

/// A Bind waits for its Execute; what is refused behind it is told with the next Flush.
#[test]
fn a_refusal_behind_a_bind_comes_with_a_flush() {
    let place = Place::turn();
    for is_pooled in [false, true] {
        let mut wire = place.connect(ANALYST, is_pooled);
        let refused = [parse("", "select 1"), bind("", "", &[]), parse("x", "listen a"), flush()];
        wire.send(&refused.concat()).unwrap();
        while wire.next().expect("an error comes").0 != b'E' {}
        let answer = send(&mut wire, &[sync()]);
        assert!(!answer.is_gone);
        assert_eq!(run(&mut wire, "select 1").rows.len(), 1);
        end(wire);
    }
}

/// A level that is set behind DISCARD ALL, in the same batch, holds when DISCARD ALL has ended.
#[test]
fn a_level_that_is_set_behind_discard_all_holds() {
    let place = Place::turn();
    let condition = format!("id >= {FIRST_NEW}");
    let id = place.demo.grant(ANALYST, "users.email", &condition, &["--max-rows", "10"]);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    lock(&place.store).rows(MAKE);
    let mut wire = place.connect(ANALYST, false);
    let texts = ["discard all", "begin isolation level repeatable read", "select count(*) from pg_class"];
    let batch = texts.iter().flat_map(|sql| [parse("", sql), bind("", "", &[]), execute("", 0)]);
    let answer = send(&mut wire, &batch.chain([sync()]).collect::<Vec<_>>());
    assert_eq!(answer.sqlstate(), None, "{}", answer.error());
    lock(&place.store).rows("delete from users where id > 9000001");
    let answer = run(&mut wire, "select string_agg(email, ',') from users");
    assert_eq!(new_in(&answer.bytes), 0, "{answer:?}");
    assert_eq!(answer.sqlstate(), Some("0A000"), "{answer:?}");
    run(&mut wire, "rollback");
    // The next transaction keeps none.
    let answer = run(&mut wire, "select string_agg(email, ',') from users");
    assert_eq!(new_in(&answer.bytes), 1, "{answer:?}");
    end(wire);
    lock(&place.store).rows(DROP);
    place.demo.ringfence(&["revoke", &id, "--as", "us-approver-3"]);
}
