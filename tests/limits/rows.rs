//! Row limits: charged rows, on which an answer can depend in clear.

use ringfence_verifier::record::Kind;

use super::{ANALYST, Place};
use crate::harness::client::{bind, end, execute, parse, run, send, sync};
use crate::harness::ledger;

/// Statements that read the granted column, with what they cost: rows of the grant, of which it has 50
/// and shows 30. `None` is refused: it costs all 30, and fewer are left.
#[test]
fn a_statement_costs_the_rows_that_its_answer_can_depend_on() {
    let place = Place::turn();
    let many = vec!["(select email from w offset 0 limit 1)"; 20].join(", ");
    let used = format!("with w as (select email from users order by id) select {many}");
    let cases: Vec<(&str, Option<u64>)> = vec![
        ("select email from users order by id limit 3", Some(3)),
        ("select email from users where id < 0", Some(1)),
        ("select email, 1 / (id - id) from users", Some(1)),
        ("select (email)::int from users", Some(1)),
        (&used, Some(20)),
        ("select string_agg(email, ',') from users", Some(30)),
        ("select string_agg(e, ',') from (select email as e from users order by id limit 4) s", Some(4)),
        ("select array(select email from users limit 5)", Some(5)),
        ("select string_agg((select email from users where id = u.id), ',') from users u", Some(30)),
        (
            "select string_agg(e, ',') from (select (select email from users order by id offset g limit 1) e from generate_series(1, 7) g) s",
            Some(7),
        ),
        ("select lower(email), upper(email) from users order by id limit 2", Some(2)),
        ("select u.email, v.email from users u, users v where u.id = v.id order by u.id limit 2", Some(4)),
        ("copy (select email from users order by id limit 3) to stdout", Some(3)),
        ("prepare p as select max(email) from users", Some(0)),
        (
            "select u.id, (select max(id) from payments where user_id = u.id) from users u order by u.id limit 2",
            Some(2),
        ),
        ("select (select string_agg(u.email, ',')) from users u", Some(30)),
        (
            "with recursive r as (select email, 1 as n from users union all select email, n + 1 from r where n < 2) select * from r limit 1",
            Some(30),
        ),
    ];
    for (sql, cost) in &cases {
        let grant = place.grant(30, 50);
        let from = ledger::size(&place.log(false));
        let mut wire = place.connect(ANALYST, false);
        let answer = run(&mut wire, sql);
        let seen = place.emails_in(&answer.bytes).len() as u64;
        end(wire);
        std::thread::sleep(std::time::Duration::from_millis(100));
        let charged = grant.charged();
        assert_eq!(Some(charged), *cost, "{sql}: {}", answer.error());
        assert!(seen <= charged, "{sql}: {seen} clear values, {charged} charged");
        // The outcome says the same.
        let outcomes = ledger::wait_for(&place.log(false), from, Kind::Outcome, 1);
        let told: u64 = outcomes.iter().filter_map(|o| o["charged"][&grant.id].as_u64()).sum();
        assert_eq!(told, charged, "{sql}: {outcomes:?}");
    }
}

#[test]
fn what_is_not_left_is_refused_before_it_runs_with_both_numbers() {
    let place = Place::turn();
    let grant = place.grant(30, 20);
    let mut wire = place.connect(ANALYST, false);
    run(&mut wire, "select email from users order by id limit 5");
    for messages in [
        vec![crate::harness::client::query("select string_agg(email, ',') from users")],
        vec![
            parse("x", "select string_agg(email, ',') from users"),
            bind("", "x", &[]),
            execute("", 0),
            sync(),
        ],
    ] {
        let answer = send(&mut wire, &messages);
        assert_eq!(answer.sqlstate(), Some("54000"), "{answer:?}");
        let told = answer.error();
        assert!(told.contains("more than 20") && told.contains("has 15 left"), "{told}");
        assert!(told.contains("LIMIT 15"), "{told}");
        assert!(place.emails_in(&answer.bytes).is_empty());
    }
    let answer = run(&mut wire, "execute x");
    assert_eq!(answer.sqlstate(), Some("54000"), "{answer:?}");
    // The session goes on.
    let answer = run(&mut wire, "select email from users order by id limit 2");
    assert_eq!(answer.rows.len(), 2, "{}", answer.error());
    end(wire);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(grant.charged(), 7);
}

/// What a statement has leased and not used is there for the next one, however soon it comes.
#[test]
fn what_is_given_back_is_there_for_the_next_statement() {
    let place = Place::turn();
    let grant = place.grant(30, 60);
    for is_pooled in [false, true] {
        let mut wire = place.connect(ANALYST, is_pooled);
        for n in 0..30 {
            let answer = run(&mut wire, "select email from users order by id limit 1");
            assert_eq!(answer.rows.len(), 1, "{n}: {}", answer.error());
        }
        end(wire);
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(grant.charged(), 60);
}

/// FAULTS 28: a grant that is used up counts no more, and another one for other rows is used.
#[test]
fn a_used_up_grant_counts_no_more() {
    let place = Place::turn();
    let first = place.grant(10, 5);
    let mut wire = place.connect(ANALYST, false);
    let answer = run(&mut wire, "select email from users order by id");
    assert!(answer.is_gone && answer.error().contains("is used up"), "{answer:?}");
    assert_eq!(place.emails_in(&answer.bytes).len(), 5);
    // Alone: what is seen is what is seen without a grant, and the person hears why.
    let mut wire = place.connect(ANALYST, false);
    let answer = run(&mut wire, "select id, email from users order by id limit 3");
    assert_eq!((answer.rows.len(), answer.sqlstate()), (3, None));
    assert!(place.emails_in(&answer.bytes).is_empty());
    assert!(answer.notices.iter().any(|n| n[&'M'].contains("is used up")), "{:?}", answer.notices);
    end(wire);
    // A new grant for other rows.
    let (low, high) = (place.ids[10], place.ids[19]);
    let second = place.demo.grant(
        ANALYST,
        "users.email",
        &format!("id >= {low} and id <= {high}"),
        &["--max-rows", "100"],
    );
    let mut wire = place.connect(ANALYST, false);
    let answer = run(&mut wire, "select id, email from users where email like '%@%' order by id");
    let shown = place.emails_in(&answer.bytes);
    assert_eq!(Vec::from_iter(shown), place.ids[10..20], "{answer:?}");
    end(wire);
    assert_eq!(first.charged(), 5);
    place.demo.ringfence(&["revoke", &second, "--as", "us-approver-3"]);
}

/// What has no bound is counted when it is sent: it must not run on other rows than those.
#[test]
fn what_is_counted_is_what_runs() {
    let place = Place::turn();
    let all = "select string_agg(email, ',') from users";
    let store = |sql: &str| drop(super::lock(&place.store).rows(sql));
    let ids = &place.ids[..30];
    let last = ids[ids.len() - 1];
    let one = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    // Nobody's country is XX yet.
    let id = place.demo.grant(ANALYST, "users.email", "country = 'XX'", &["--max-rows", "5"]);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let grant = super::Grant { place: &place, id };
    let many = format!("update users set country = 'XX' where id <= {last}");
    let none = "update users set country = 'US' where country = 'XX'";
    let before = super::lock(&place.store).rows(&format!("select id, country from users where id <= {last}"));
    // Later: behind something that takes its time.
    for batch in [
        vec![crate::harness::client::query(&format!("select pg_sleep(0.5); {all}"))],
        vec![one("select pg_sleep(0.5)"), one(all), sync()],
    ] {
        let mut wire = place.connect(ANALYST, false);
        let changing = std::thread::scope(|scope| {
            let changes = scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(200));
                store(&many);
            });
            let answer = send(&mut wire, &batch);
            changes.join().unwrap();
            answer
        });
        let seen = place.emails_in(&changing.bytes).len() as u64;
        assert!(seen <= grant.settled(), "{seen} clear values: {changing:?}");
        store(none);
        end(wire);
    }
    // Earlier: on the rows of a transaction's beginning, or of a Bind.
    for begin in [
        "begin isolation level repeatable read",
        "begin; set transaction isolation level serializable",
        "begin",
    ] {
        store(&many);
        let mut wire = place.connect(ANALYST, false);
        run(&mut wire, begin);
        run(&mut wire, "select 1 from videos limit 1");
        send(&mut wire, &[parse("s", all), bind("p", "s", &[]), sync()]);
        store(none);
        let bound = send(&mut wire, &[execute("p", 0), sync()]);
        let now = run(&mut wire, all);
        let seen = place.emails_in(&[bound.bytes, now.bytes].concat()).len() as u64;
        assert!(seen <= grant.settled(), "{begin}: {seen} clear values");
        end(wire);
    }
    // Honest ways go on: alone, and in a transaction that is begun in the same batch.
    for batch in [
        vec![crate::harness::client::query(all)],
        vec![crate::harness::client::query(&format!("begin; set local lock_timeout = 0; {all}; commit"))],
        vec![one("begin"), one(all), one("commit"), sync()],
    ] {
        let mut wire = place.connect(ANALYST, false);
        let answer = send(&mut wire, &batch);
        assert_eq!(answer.sqlstate(), None, "{answer:?}");
        end(wire);
    }
    drop(grant);
    for row in before {
        store(&format!("update users set country = '{}' where id = {}", row[1], row[0]));
    }
}
