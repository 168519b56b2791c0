//! People abroad with full access, and a partner at home: who comes while code of the store's owner runs, late or unseen, is
//! counted, or is not shown.

use std::time::{Duration, Instant};

use crate::harness::client::{bind, end, execute, parse, run, send, sync};
use crate::harness::database::Database;
use crate::harness::support::wire::{Wire, frame};
use crate::harness::support::{Demo, Served};

const PEOPLE: &str = "covered-personal-identifiers";
const GATEWAY: &str = "late";
const MAKE: &str = "insert into users select (jsonb_populate_record(null::users, to_jsonb(u)
    || jsonb_build_object('id', 9000000 + g, 'email', 'new' || g || '@moment.example'))).*
    from (select * from users order by id limit 1) u, generate_series(1, 60) g";
const DROP: &str = "delete from users where id >= 9000000";
/// Looks at the new people each time.
const LATE: &str = "create function pg_temp.late(int) returns text language sql volatile as
    'select string_agg(email, chr(44)) from public.users where id > 9000000 and $1 > 0'";
/// Keeps the new people when it is called.
const KEEP: &str = "create temp table kept (e text); create function pg_temp.keep() returns int
    language plpgsql volatile as $$ begin perform pg_sleep(1.2);
    insert into kept select email from users where id >= 9000000; return 1; end $$";
const ALL: &str = "select string_agg(email, ',') from users";

struct Place {
    demo: Demo,
    served: Served,
    store: Database,
}

impl Place {
    fn come(&self) {
        self.store.rows(MAKE);
    }

    fn go(&self) {
        self.store.rows(DROP);
    }
}

fn flush() -> Vec<u8> {
    frame(b'H', b"")
}

/// Parse, Bind and Execute of each text.
fn batch(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|sql| [parse("", sql), bind("", "", &[]), execute("", 0)]).flatten().collect()
}

fn sends(wire: &mut Wire, messages: &[Vec<u8>]) {
    wire.send(&messages.concat()).unwrap();
    std::thread::sleep(Duration::from_millis(400));
}

fn all_of(wire: &mut Wire, texts: &[&str]) {
    for sql in texts {
        let answer = run(wire, sql);
        assert_eq!(answer.sqlstate(), None, "{sql}: {}", answer.error());
    }
}

fn shows_new(wire: &Wire) -> bool {
    String::from_utf8_lossy(&wire.received).contains("@moment.example")
}

fn a_cursor_goes_on(wire: &mut Wire, place: &Place) {
    let declare = "declare c cursor for select g, pg_temp.late(g) from generate_series(1, 9) g";
    all_of(wire, &[LATE, "begin", declare, "fetch 1 from c"]);
    place.come();
    run(wire, "fetch 1 from c");
    run(wire, "rollback");
}

fn a_portal_goes_on(wire: &mut Wire, place: &Place) {
    all_of(wire, &[LATE]);
    let sql = "select g, pg_temp.late(g) from generate_series(1, 9) g";
    sends(wire, &[parse("", sql), bind("p", "", &[]), execute("p", 1), flush()]);
    place.come();
    send(wire, &[execute("p", 1), sync()]);
}

fn deferred(wire: &mut Wire) {
    all_of(
        wire,
        &[
            "create temp table own (i int); create temp table kept (e text)",
            "create function pg_temp.copy() returns trigger language plpgsql volatile as $$ begin
             insert into kept select email from users where id >= 9000000; return null; end $$",
            "create constraint trigger late after insert on own deferrable initially deferred
             for each row execute function pg_temp.copy()",
        ],
    );
    sends(wire, &[batch(&["insert into own values (1)"]), flush()]);
}

fn a_trigger_waits_for_sync(wire: &mut Wire, place: &Place) {
    deferred(wire);
    place.come();
    send(wire, &[sync()]);
    run(wire, "select e from kept");
}

fn a_trigger_waits_for_a_query(wire: &mut Wire, place: &Place) {
    deferred(wire);
    place.come();
    run(wire, "select 1");
    run(wire, "select e from kept");
}

fn a_held_cursor_waits_for_sync(wire: &mut Wire, place: &Place) {
    all_of(wire, &[LATE]);
    let declare = "declare h cursor with hold for select pg_temp.late(g) from generate_series(1, 3) g";
    sends(wire, &[batch(&[declare]), flush()]);
    place.come();
    send(wire, &[sync()]);
    run(wire, "fetch 3 from h");
}

fn a_bind_keeps_what_it_saw(wire: &mut Wire, place: &Place) {
    all_of(
        wire,
        &[
            KEEP,
            "create function pg_temp.imm() returns int language plpgsql immutable as
             $$ begin return pg_temp.keep(); end $$",
        ],
    );
    sends(wire, &[parse("", "select pg_temp.imm()"), bind("", "", &[]), flush()]);
    place.come();
    send(wire, &[sync()]);
    run(wire, "select e from kept");
}

fn a_level_is_set_within_a_batch(wire: &mut Wire, place: &Place) {
    place.come();
    let set = "select set_config('default_transaction_isolation', 'repeatable read', false)";
    sends(wire, &[batch(&["begin", set, "commit", "begin", "select 1"]), flush()]);
    place.go();
    send(wire, &[batch(&[ALL]), sync()]);
}

fn a_transaction_begins_behind_discard(wire: &mut Wire, place: &Place) {
    place.come();
    let texts = ["discard all", "begin isolation level repeatable read", "select count(*) from pg_class"];
    send(wire, &[batch(&texts), sync()]);
    place.go();
    run(wire, ALL);
}

fn a_level_is_set_behind_discard(wire: &mut Wire, place: &Place) {
    place.come();
    let set = "set default_transaction_isolation = 'repeatable read'";
    send(wire, &[batch(&["discard all", set]), sync()]);
    all_of(wire, &["begin", "select 1"]);
    place.go();
    run(wire, ALL);
}

fn a_level_is_set_unseen_behind_discard(wire: &mut Wire, place: &Place) {
    place.come();
    let set = "select set_config('default_transaction_isolation', 'repeatable read', false)";
    send(wire, &[batch(&["discard all", set]), sync()]);
    all_of(wire, &["begin", "select 1"]);
    place.go();
    run(wire, ALL);
}

fn a_chained_transaction_keeps_its_level(wire: &mut Wire, place: &Place) {
    place.come();
    all_of(wire, &["begin isolation level repeatable read", "select 1", "commit and chain", "select 1"]);
    place.go();
    run(wire, ALL);
}

fn the_client_leaves_early(wire: &mut Wire, place: &Place) {
    all_of(wire, &[LATE]);
    let sql = "select g, repeat(' ', 9000), pg_temp.late(g), pg_sleep(0.4) from generate_series(1, 12) g";
    wire.send(&frame(b'Q', format!("{sql}\0").as_bytes())).unwrap();
    std::thread::sleep(Duration::from_millis(900));
    place.come();
    let until = Instant::now() + Duration::from_secs(20);
    while !shows_new(wire) && Instant::now() < until && wire.next().is_ok_and(|(tag, _)| tag != b'Z') {}
}

fn the_counts_own_settings(wire: &mut Wire, place: &Place) {
    place.store.rows(
        "create schema wrong; grant usage on schema wrong to public;
         create function wrong.same(bigint) returns bigint language sql as 'select 1::bigint';
         create function wrong.same(bigint, bigint) returns bigint language sql as 'select 1::bigint';
         create function wrong.hashtextextended(text, bigint) returns bigint language sql as 'select 1::bigint';
         create aggregate wrong.count(*) (sfunc = wrong.same, stype = bigint, initcond = '1');
         create aggregate wrong.sum(bigint) (sfunc = wrong.same, stype = bigint, initcond = '1');
         grant execute on all functions in schema wrong to public",
    );
    all_of(wire, &["set role none", "alter role session_user set search_path = wrong, pg_catalog, public"]);
    all_of(wire, &["reset role", ALL]);
    place.come();
    run(wire, ALL);
    run(wire, ALL);
}

type Way = fn(&mut Wire, &Place);

const WAYS: &[(&str, Way)] = &[
    ("a cursor goes on", a_cursor_goes_on),
    ("a portal goes on", a_portal_goes_on),
    ("a trigger waits for Sync", a_trigger_waits_for_sync),
    ("a trigger waits for a Query", a_trigger_waits_for_a_query),
    ("a held cursor waits for Sync", a_held_cursor_waits_for_sync),
    ("a Bind keeps what it saw", a_bind_keeps_what_it_saw),
    ("a level is set within a batch", a_level_is_set_within_a_batch),
    ("a transaction begins behind DISCARD", a_transaction_begins_behind_discard),
    ("a level is set behind DISCARD", a_level_is_set_behind_discard),
    ("a level is set unseen behind DISCARD", a_level_is_set_unseen_behind_discard),
    ("a chained transaction", a_chained_transaction_keeps_its_level),
    ("the client leaves early", the_client_leaves_early),
    ("the count's own settings", the_counts_own_settings),
];

#[test]
fn who_comes_while_code_runs_late_is_counted() {
    let demo = Demo::start("abroad");
    let people: Vec<String> = (0..WAYS.len() + 3).map(|n| format!("singapore-late-{n}")).collect();
    let served = demo.serve_full_access(GATEWAY, &people);
    let store = Database::connect(&demo.dir.join("us-trusted"), "us");
    let place = Place { demo, served, store };
    let there: u64 = place.store.value("select count(*) from users").parse().unwrap();
    let mut expected = Vec::new();
    for ((what, way), who) in WAYS.iter().zip(&people) {
        place.go();
        let mut wire = Wire::connect(place.served.port, who, "us").unwrap();
        way(&mut wire, &place);
        let is_shown = shows_new(&wire);
        if *what == "the client leaves early" {
            drop(wire);
        } else {
            end(wire);
        }
        // Who is counted is counted while they are there.
        std::thread::sleep(Duration::from_millis(800));
        expected.push((*what, if is_shown { there + 60 } else { 0 }));
    }
    place.go();
    expected.extend(code_that_no_word_calls(&place, &people[WAYS.len()..], there));
    let shown = expected.iter().filter(|(_, people)| *people > 0).count();
    assert!(shown > expected.len() / 2, "most ways show somebody: {expected:?}");
    // What was promised is there: a checkpoint follows within a second.
    std::thread::sleep(Duration::from_secs(2));
    let output = place.demo.ringfence_with(GATEWAY, &["meter", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let counted = |who: &str| -> u64 {
        let lines = report["lines"].as_array().unwrap().iter();
        let own = lines.filter(|line| line["recipient"]["name"] == who && line["category"] == PEOPLE);
        own.map(|line| line["any"].as_u64().unwrap() + line["any_unknown"].as_u64().unwrap()).sum()
    };
    let wrong: Vec<_> = expected
        .iter()
        .zip(&people)
        .map(|((what, shown), who)| (what, shown, counted(who)))
        .filter(|(_, shown, counted)| counted < *shown)
        .collect();
    assert!(wrong.is_empty(), "shown and counted: {wrong:?}");
}

/// Code that a store's owner has put where no word of a text calls it.
fn code_that_no_word_calls(place: &Place, people: &[String], there: u64) -> Vec<(&'static str, u64)> {
    let mut found = Vec::new();
    // A function that another session has defined at this moment.
    let mut first = Wire::connect(place.served.port, &people[0], "us").unwrap();
    let mut second = Wire::connect(place.served.port, &people[1], "us").unwrap();
    all_of(&mut second, &["select 1"]);
    place.store.rows("create schema own; grant all on schema own to public");
    all_of(
        &mut first,
        &["create function own.lower(bigint) returns text language sql as
           'select string_agg(email, chr(44)) from public.users'"],
    );
    end(first);
    let answer = run(&mut second, "set search_path = own, public; select lower(5::bigint)");
    let is_shown = String::from_utf8_lossy(&answer.bytes).contains('@');
    end(second);
    found.push(("the one who defines", 0));
    found.push(("a definition of the other session's", if is_shown { there } else { 0 }));
    // Values of PostgreSQL's own types are compared by it.
    place.store.rows(
        "create function own.cmp(json, json) returns int immutable language plpgsql as $$ begin
           perform set_config('a.b', (select string_agg(email, ',') from public.users), false); return 0; end $$;
         create function own.lt(json, json) returns boolean immutable language sql as 'select false';
         create operator own.<< (leftarg = json, rightarg = json, function = own.lt);
         create operator own.>> (leftarg = json, rightarg = json, function = own.lt);
         create operator own.=== (leftarg = json, rightarg = json, function = own.lt);
         create operator class own.jsons default for type json using btree as
           operator 1 own.<<, operator 3 own.===, operator 5 own.>>, function 1 own.cmp(json, json);
         grant execute on all functions in schema own to public",
    );
    // The gateway looks at the store's code every few seconds.
    std::thread::sleep(Duration::from_secs(4));
    let mut third = Wire::connect(place.served.port, &people[2], "us").unwrap();
    run(&mut third, "select distinct to_json(g) from generate_series(1, 2) g");
    let answer = run(&mut third, "select current_setting('a.b')");
    let is_shown = String::from_utf8_lossy(&answer.bytes).contains('@');
    end(third);
    found.push(("a class of operators", if is_shown { there } else { 0 }));
    found
}
