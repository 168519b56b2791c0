//! Row-level security comes and goes with grants of some rows, and nobody else notices: no reader waits for it, and every
//! role sees the rows that it saw.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::client::{end, run};
use crate::harness::database::Database;
use crate::harness::support::wire::Wire;
use crate::harness::support::{Demo, text};

const ANALYST: &str = "singapore-analyst";
const IS_ON: &str = "select relrowsecurity from pg_class where oid = 'public.users'::regclass";
const POLICIES: &str = "select count(*) from pg_policies where tablename in ('users', 'profiles')";

fn emails(demo: &Demo) -> Result<usize, String> {
    let mut wire = Wire::connect(demo.port, ANALYST, "us")?;
    let count = run(&mut wire, "select email from users").rows.len();
    end(wire);
    Ok(count)
}

/// A condition for so many people.
fn first(store: &Database, count: usize) -> String {
    let ids = store.rows(&format!("select id from users order by id limit {count}"));
    format!("id in ({})", ids.concat().join(", "))
}

/// What must come soon.
fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_there() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn row_security_comes_and_goes_with_grants_and_nobody_notices() {
    let demo = Demo::start("row-security");
    let store = Database::connect(&demo.dir.join("us-trusted"), "us");
    let all: usize = store.value("select count(*) from users").parse().unwrap();
    assert_eq!(store.value(IS_ON), "f");
    assert_eq!(emails(&demo), Ok(all), "masked ones");
    assert_eq!(store.value(POLICIES), "0", "a face of all rows needs none");
    beside_an_idle_transaction(&demo, &store);
    everybody_else_sees_all_rows(&demo, &store, all);
    it_goes_with_the_last_grant(&demo, &store);
    policies_of_the_store_stay_in_force(&demo, &store, all);
}

/// Somebody in the country has read the table and not ended the transaction.
fn beside_an_idle_transaction(demo: &Demo, store: &Database) {
    let mut idle = Wire::connect(demo.port, "us-engineer", "us").unwrap();
    run(&mut idle, "begin");
    assert_eq!(run(&mut idle, "select id from users limit 1").rows.len(), 1);
    demo.grant(ANALYST, "users.email", &first(store, 2), &[]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let reader = Database::connect(&demo.dir.join("us-trusted"), "us");
            reader.rows("set lock_timeout = '2s'");
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert!(reader.attempt("select id from users limit 1").is_some(), "a reader had to wait");
                count += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            count
        });
        // The steward has time for others: this login and its face are new.
        let other = scope.spawn(|| Wire::connect(demo.port, "beijing-engineer", "us").map(end));
        let refused = emails(demo).unwrap_err();
        is_over.store(true, Ordering::Relaxed);
        assert!(refused.contains("the rows of users cannot be chosen just now"), "{refused}");
        assert!(refused.contains("transaction"), "{refused}");
        other.join().unwrap().unwrap();
        assert!(reader.join().unwrap() > 100, "somebody read meanwhile");
    });
    assert_eq!(store.value(IS_ON), "f");
    run(&mut idle, "commit");
    end(idle);
    assert_eq!(emails(demo), Ok(2));
    assert_eq!(store.value(IS_ON), "t");
}

fn everybody_else_sees_all_rows(demo: &Demo, store: &Database, all: usize) {
    store.rows(
        "create role made_later login; grant select on users to made_later;
         grant usage on schema public to made_later",
    );
    store.rows("create role of_a_group nologin; grant made_later to of_a_group");
    for role in ["made_later", "of_a_group", "clips_app"] {
        store.rows(&format!("set role {role}"));
        assert_eq!(store.value("select count(*) from users"), all.to_string(), "{role}");
        store.rows("reset role");
    }
    // Somebody whose grant is for all rows, or who has none.
    let mut other = Wire::connect(demo.port, "beijing-engineer", "us").unwrap();
    assert_eq!(run(&mut other, "select id from users").rows.len(), all);
    end(other);
    // A dump refuses to run where row-level security could take rows away.
    let told = text(&demo.ringfence(&["check", "--store", "us"]));
    let line = told.lines().find(|line| line.contains("made_later"));
    assert!(line.is_some_and(|line| line.contains("pg_dump") && line.contains("users")), "{told}");
    assert!(!told.lines().any(|line| line.contains("clips_app") && line.contains("pg_dump")), "{told}");
}

fn it_goes_with_the_last_grant(demo: &Demo, store: &Database) {
    let requests = text(&demo.ringfence(&["requests", "--json", "--as", "us-approver-1"]));
    let ids = requests.split("\"id\": \"").skip(1).filter_map(|rest| rest.split('"').next());
    for id in ids.collect::<Vec<_>>() {
        demo.ringfence(&["revoke", id, "--as", "us-approver-1", "--reason", "a test"]);
    }
    wait_for("the grant ends", || emails(demo).is_ok_and(|count| count > 2));
    store.rows("update ringfence.faces set last_used = now() - interval '1 day'");
    // Somebody uses the table just then: it is tried again later.
    store.rows("begin; select 1 from users limit 1");
    let first = demo.serve("first", "");
    assert_eq!(store.value(IS_ON), "t");
    store.rows("commit");
    drop(first);
    // A gateway drops what nobody uses when it starts, and each minute.
    let _second = demo.serve("second", "");
    wait_for("row-level security goes", || store.value(IS_ON) == "f");
    assert_eq!(store.value(POLICIES), "0");
}

/// What the store's owner decides about rows counts for everybody but faces, and a face shows no row beside its grant.
fn policies_of_the_store_stay_in_force(demo: &Demo, store: &Database, all: usize) {
    store.rows(
        "create policy everybody on users using (true);
         create policy few on users as restrictive to made_later using (id % 2 = 0);
         alter table users enable row level security",
    );
    let of_made_later = || {
        store.rows("set role made_later");
        let count = store.value("select count(*) from users");
        store.rows("reset role");
        count
    };
    let few = of_made_later();
    assert_ne!(few, all.to_string());
    // A login looks at the store once a minute.
    let third = demo.serve("third", "");
    let mut wire = Wire::connect(third.port, ANALYST, "us").unwrap();
    assert_eq!(run(&mut wire, "select email from users").rows.len(), all);
    end(wire);
    demo.grant(ANALYST, "users.email", &first(store, 3), &[]);
    let found = || {
        let mut wire = Wire::connect(third.port, ANALYST, "us").unwrap();
        let count = run(&mut wire, "select email from users").rows.len();
        end(wire);
        count
    };
    wait_for("the grant begins", || found() == 3);
    assert_eq!(of_made_later(), few);
    // Switched off by its owner, it is not switched on with policies that nobody has switched on.
    store.rows("alter table users disable row level security");
    let fourth = demo.serve("fourth", "");
    let refused = Wire::connect(fourth.port, ANALYST, "us").map(end).unwrap_err();
    assert!(refused.contains("users has policies"), "{refused}");
    assert_eq!(of_made_later(), all.to_string());
}
