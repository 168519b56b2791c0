//! Code of the customer that runs without being called by its name: operators, casts, overloads, triggers,
//! defaults, rules, views. The person has full access, in the country.

use ringfence_verifier::record::Kind;
use serde_json::Value;

use super::names::texts;
use super::{ENGINEER, Place, WORKLOAD, lock};
use crate::harness::client::{Answer, bind, end, execute, parse, query, run, send, sync};
use crate::harness::ledger;
use crate::harness::support::text;
use crate::harness::support::wire::frame;

/// What a store's owner could have made. `peek` raises an address, `seek` shows one, `turn` changes how texts
/// are read, `swap` changes what a name stands for.
const MAKE: &str = "create schema hidden; grant usage on schema hidden to public;
    create function hidden.peek(int) returns int immutable language plpgsql as $$
      begin raise exception '%', (select email from public.users order by id limit 1); end $$;
    create function hidden.seek(int) returns text language sql as
      'select email from public.users order by id limit 1';
    create function hidden.turn(int) returns int language plpgsql as $$
      begin perform set_config('standard_conforming_strings', 'off', false); return 1; end $$;
    create function hidden.swap(int) returns int language plpgsql as $$
      begin execute 'deallocate hid'; execute 'prepare hid as select email from public.users order by id limit 1';
      return 1; end $$;
    create operator public.!@# (rightarg = int, function = hidden.peek);
    create operator public.!## (rightarg = int, function = hidden.seek);
    create operator public.!!! (rightarg = int, function = hidden.turn);
    create operator public.@@! (rightarg = int, function = hidden.swap);
    create function public.initcap(int) returns int immutable language sql as 'select hidden.peek(1)';
    create function public.lower(int) returns text language sql as 'select hidden.seek(1)';
    create view public.hid_view as select id from videos where hidden.peek(16) = 1;
    create view public.hid_plain as select email from users order by id limit 1;
    create view public.hid_outer as select * from hid_view;
    create table public.hid_default (i int default hidden.peek(1));
    create table public.hid_rows (i int, a text);
    create function hidden.fill() returns trigger language plpgsql as $$
      begin new.a := hidden.seek(1); return new; end $$;
    create trigger fill before insert on hid_rows for each row execute function hidden.fill();
    create function public.hid_field(videos) returns text language sql as 'select hidden.seek(1)';
    create function hidden.check(text) returns boolean language plpgsql as $$
      begin raise exception '%', (select email from public.users order by id limit 1); end $$;
    create domain public.hid_domain as text check (hidden.check(value));
    create type public.hid_row as (i int);
    create function hidden.as_text(hid_row) returns text language sql as 'select hidden.seek(1)';
    create type public.hid_pair as (d hid_domain);
    create domain public.hid_outermost as hid_domain[];
    create function hidden.as_int(hid_row) returns int language sql as 'select hidden.swap($1.i)';
    create table public.hid_parent (id int primary key);
    create table public.hid_child (id int references hid_parent on delete cascade);
    create function hidden.cascaded() returns trigger language plpgsql as $$
      begin raise exception '%', (select email from public.users order by id limit 1); end $$;
    create trigger cascaded before delete on hid_child for each row execute function hidden.cascaded();
    create table public.hid_late (i int);
    create function hidden.late() returns trigger language plpgsql as $$
      begin perform set_config('standard_conforming_strings', 'off', false); return null; end $$;
    create constraint trigger late after insert on hid_late deferrable initially deferred
      for each row execute function hidden.late();
    create view public.hid_typed as select ('x'::hid_domain)::text as t from videos;
    create domain public.hid_of as text check (value::hid_domain is not null);
    create table public.hid_check (t text check (('x' || t)::hid_domain is not null));
    create function hidden.differ(int, int) returns boolean immutable language plpgsql as $$
      begin return hidden.check('x'); end $$;
    create operator public.<!> (leftarg = int, rightarg = int, function = hidden.differ, negator = <=!>);
    create operator public.<=!> (leftarg = int, rightarg = int, function = int4eq, negator = <!>);
    create function hidden.noticed() returns event_trigger language plpgsql as $$
      begin if exists (select from pg_event_trigger_ddl_commands() where object_identity like '%hid_noticed%') then
        perform hidden.check('x'); end if; end $$;
    create event trigger hid_event on ddl_command_end execute function hidden.noticed();
    create view public.hid_nums as select hidden.swap(1) as n;
    create function public.hid_joins() returns bigint language sql as
      'select count(*) from (values (1)) a(b) join hid_nums v on v.n > 0';
    create function public.hid_lists() returns int language plpgsql as $$ declare x int; begin
      x := (select count(*) from (values (1)) w(id), hid_nums v where v.n > 0); return x; end $$;
    create view public.hid_set as select name, setting from pg_settings;
    create function public.hid_one(int) returns text language sql as 'select hidden.seek(1)';
    create table public.hid_kid () inherits (users);
    create operator public.<~~ (leftarg = tsquery, rightarg = text, function = pg_catalog.ts_rewrite);
    create table public.hid_note (i int, x xml default query_to_xml(
      'select email from users order by id limit 1', true, true, ''));
    create function public.hid_make() returns int language plpgsql as $$ begin
      execute 'create function pg_temp.made(int) returns text language sql as $q$select hidden.seek(1)$q$';
      execute 'create operator public.!&! (rightarg = int, function = pg_temp.made)'; return 1; end $$;
    insert into hid_parent values (1), (2), (3), (4), (5), (6); insert into hid_child select id from hid_parent;
    grant execute on all functions in schema hidden to public; grant execute on all functions in schema public to public;
    grant all on hid_view, hid_plain, hid_outer, hid_default, hid_rows, hid_parent, hid_child, hid_late,
      hid_nums, hid_typed, hid_check, hid_kid, hid_note, hid_set to public;
    grant create on schema public to public";
const DROP: &str = "drop event trigger if exists hid_event; drop schema if exists hidden cascade;
    drop function if exists public.hid_joins(), public.hid_lists(); drop view if exists hid_nums cascade; drop view if exists hid_set, hid_typed, hid_view, hid_plain, hid_outer cascade;
    drop table if exists hid_rows, hid_default, hid_child, hid_parent, hid_late, hid_check, hid_kid, hid_note cascade;
    drop type if exists hid_row, hid_pair cascade; drop operator if exists public.<~~ (tsquery, text);
    drop operator if exists public.!&! (none, int); revoke create on schema public from public;
    drop function if exists public.hid_one(int); drop function if exists public.hid_make(); drop domain if exists hid_outermost, hid_of, hid_domain cascade;
    drop function if exists public.initcap(int); drop function if exists public.lower(int);
    drop function if exists public.hid_field(videos); drop operator if exists public.<=!> (int, int)";

/// The objects, until the end.
struct Made<'a>(&'a Place);

impl<'a> Made<'a> {
    fn new(place: &'a Place) -> Self {
        lock(&place.store).attempt(DROP);
        assert!(lock(&place.store).attempt(MAKE).is_some(), "the objects are made");
        known();
        Self(place)
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        lock(&self.0.store).attempt(DROP);
        known();
    }
}

/// What the gateways know of a store is no older than three seconds.
fn known() {
    std::thread::sleep(std::time::Duration::from_millis(3300));
}

fn bound(sql: &str) -> Vec<Vec<u8>> {
    vec![parse("", sql), bind("", "", &[]), sync()]
}

/// A Parse that says of which type its parameter is.
fn typed(sql: &str, number: &str) -> Vec<u8> {
    let mut body = [&[0], sql.as_bytes(), &[0, 0, 1]].concat();
    body.extend(number.parse::<u32>().unwrap().to_be_bytes());
    frame(b'P', &body)
}

fn whole(sql: &str) -> Vec<Vec<u8>> {
    vec![parse("", sql), bind("", "", &[]), execute("", 0), sync()]
}

/// The intents of a session that sends batches, and its answers.
fn recorded(place: &Place, is_pooled: bool, batches: &[Vec<Vec<u8>>]) -> (Vec<Value>, Vec<Answer>) {
    let log = place.log(is_pooled);
    let from = ledger::size(&log);
    let mut wire = place.connect(ENGINEER, is_pooled);
    let answers = batches.iter().map(|batch| send(&mut wire, batch)).collect();
    end(wire);
    std::thread::sleep(std::time::Duration::from_millis(300));
    (ledger::records(&log, from, Kind::Intent), answers)
}

#[test]
fn what_planning_runs_unseen_is_on_record() {
    let place = Place::turn();
    let _made = Made::new(&place);
    for is_pooled in [false, true] {
        // A constant of a type is read when the text is parsed.
        for sql in [
            "select '{x}'::hid_domain[]",
            "select '(x)'::hid_pair",
            "select '{(x)}'::hid_pair[]",
            "select '{x}'::hid_outermost",
            "select hid_outermost('{x}')",
        ] {
            let (intents, answers) = recorded(&place, is_pooled, &[vec![parse("", sql), sync()]]);
            assert_eq!(place.emails_in(&answers[0].bytes).len(), 1, "{sql}: {answers:?}");
            let has = intents.iter().any(|i| texts(&intents, i).iter().any(|t| t == sql));
            assert!(has, "pooled {is_pooled}: {sql} is not on record: {intents:?}");
        }
        // What the session has made and not committed.
        let make = "begin; create function pg_temp.own(text) returns boolean language sql as
            'select hidden.check($1)'; create domain pg_temp.own_domain as text check (pg_temp.own(value))";
        let sql = "select '{x}'::pg_temp.own_domain[]";
        let batches = [vec![query(make)], vec![parse("", sql), sync()], vec![query("rollback")]];
        let (intents, answers) = recorded(&place, is_pooled, &batches);
        assert_eq!(place.emails_in(&answers[1].bytes).len(), 1, "{sql}: {answers:?}");
        let has = intents.iter().any(|i| texts(&intents, i).iter().any(|t| t == sql));
        assert!(has, "pooled {is_pooled}: {sql} is not on record: {intents:?}");
        // A parameter is read when it is bound; its type stands in the message only.
        let number = lock(&place.store).value("select 'hid_domain'::regtype::oid::int8");
        let sql = "select $1 is null";
        let (intents, answers) =
            recorded(&place, is_pooled, &[vec![typed(sql, &number), bind("", "", &["x"]), sync()]]);
        assert_eq!(place.emails_in(&answers[0].bytes).len(), 1, "{sql}: {answers:?}");
        let has = intents.iter().any(|i| texts(&intents, i).iter().any(|t| t == sql));
        assert!(has, "pooled {is_pooled}: {sql} is not on record: {intents:?}");
        for sql in [
            "select !@# 16",
            "select initcap(16)",
            "select * from hid_view",
            "select * from hid_outer",
            "insert into hid_default default values",
        ] {
            let (intents, answers) = recorded(&place, is_pooled, &[bound(sql)]);
            assert_eq!(place.emails_in(&answers[0].bytes).len(), 1, "{sql} shows what it can: {answers:?}");
            let has = intents.iter().any(|i| texts(&intents, i).iter().any(|t| t == sql));
            assert!(has, "pooled {is_pooled}: {sql} is not on record: {intents:?}");
        }
    }
}

#[test]
fn what_runs_unseen_reaches_anything() {
    let place = Place::turn();
    let _made = Made::new(&place);
    let begin = ledger::size(&place.log(false));
    let reads = [
        "select !## 1",
        "select lower(1)",
        "select v.hid_field from videos v limit 1",
        "select (v).hid_field from videos v limit 1",
        "insert into hid_rows values (1) returning a",
        "select email as e from hid_plain",
        "select hidden.seek(1)",
        "select g.hid_one from generate_series(1, 1) g",
        "select (1).hid_one",
        "select 'a'::tsquery <~~ 'select ''a''::tsquery, plainto_tsquery(''simple'', email) from users order by id limit 1'",
        "insert into hid_note (i) values (1) returning x",
    ];
    for is_pooled in [false, true] {
        for batch in reads.iter().flat_map(|sql| [vec![query(sql)], whole(sql)]) {
            let (intents, answers) = recorded(&place, is_pooled, std::slice::from_ref(&batch));
            let what = String::from_utf8_lossy(&batch.concat()).into_owned();
            assert_eq!(place.emails_in(&answers[0].bytes).len(), 1, "{what} shows what it can: {answers:?}");
            assert!(intents.iter().any(|i| i["reaches_more"] == true), "{what}: {intents:?}");
        }
        for sql in [
            // A foreign key's other table, by the key's own statement.
            "delete from hid_parent where id = 1",
            // Domains in what a table or a view is made of.
            "select * from hid_typed",
            "insert into hid_check values ('y')",
            // An operator that the planner takes for another.
            "select not i <=!> 1 from (select count(*)::int as i from videos) v",
            "create temp table hid_noticed (i int)",
            "select 1 as i into temp hid_noticed",
        ] {
            let (intents, answers) = recorded(&place, is_pooled, &[vec![query(sql)]]);
            assert_eq!(place.emails_in(&answers[0].bytes).len(), 1, "{sql}: {answers:?}");
            assert!(intents.iter().any(|i| i["reaches_more"] == true), "{sql}: {intents:?}");
        }
        // A table holds rows of a classified one.
        let (intents, _) = recorded(&place, is_pooled, &[whole("select email from hid_kid")]);
        assert!(intents.iter().any(|i| i["reaches_more"] == true), "{intents:?}");
        // Made in the transaction under way: nobody else sees it.
        let batches = ["begin", "select hid_make()", "select !&! 1", "rollback"].map(|sql| vec![query(sql)]);
        let (intents, answers) = recorded(&place, is_pooled, &batches);
        assert_eq!(place.emails_in(&answers[2].bytes).len(), 1, "{answers:?}");
        let of_it = |i: &&Value| i["statement"] == "select !&! 1";
        assert!(intents.iter().filter(of_it).any(|i| i["reaches_more"] == true), "{intents:?}");
        // PostgreSQL's own do not, nor does a look at a table of which only a change runs code.
        for sql in [
            "select lower('A')",
            "select id + 1, email || 'x' from users limit 1",
            "select now()::text",
            "select a from hid_rows",
            "select * from hid_default",
            "select i from hid_note",
        ] {
            let (intents, _) = recorded(&place, is_pooled, &[whole(sql)]);
            if sql != reads[1] && !sql.contains("lower") {
                assert!(intents.iter().all(|i| i["reaches_more"] != true), "{sql}: {intents:?}");
            }
        }
    }
    // More comment than is parsed for what is only counted.
    let long = format!("select !## 1 /* {} */", "x".repeat(17_000));
    let (intents, _) = recorded(&place, false, &[vec![query(&long)]]);
    assert!(intents.iter().all(|i| i["reaches_more"] == true) && !intents.is_empty(), "{intents:?}");
    // The audit finds them.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let output =
        place.demo.ringfence(&["audit", "who-accessed", "--column", "users.email", "--json", "--each"]);
    let answer: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let hits: Vec<u64> =
        answer["hits"].as_array().unwrap().iter().map(|hit| hit["intent"].as_u64().unwrap()).collect();
    let entries = ledger::entries(&place.log(false), begin);
    for sql in &reads {
        let of_sql = |record: &Value| record["statement"] == **sql && record["principal"] == ENGINEER;
        let mine: Vec<u64> =
            entries.iter().filter(|(.., record)| of_sql(record)).map(|(index, ..)| *index).collect();
        assert!(!mine.is_empty() && mine.iter().all(|index| hits.contains(index)), "{sql}: {mine:?}");
    }
}

/// The intents that run a text.
fn of_text<'a>(intents: &'a [Value], sql: &str) -> Vec<&'a Value> {
    intents.iter().filter(|i| texts(intents, i).iter().any(|t| t == sql)).collect()
}

#[test]
fn texts_after_what_changes_the_session_unseen_are_not_understood() {
    let place = Place::turn();
    let _made = Made::new(&place);
    let reads = r"select '\'' , email from users order by id limit 2 --'";
    for is_pooled in [false, true] {
        let mut batch = vec![parse("", "select !!! 1"), bind("", "", &[]), execute("", 0)];
        batch.extend(whole(reads));
        let (intents, answers) = recorded(&place, is_pooled, &[batch]);
        assert_eq!(place.emails_in(&answers[0].bytes).len(), 2, "{answers:?}");
        let found = of_text(&intents, reads);
        assert!(!found.is_empty() && found.iter().all(|i| i["not_understood"] == true), "{intents:?}");
        // A trigger that waits for the end of the transaction.
        for late in [
            vec![vec![query("insert into hid_late values (1)")]],
            vec![vec![query("begin")], vec![query("insert into hid_late values (1)")], vec![query("commit")]],
            vec![
                vec![query("begin; insert into hid_late values (1)")],
                vec![query("set constraints all immediate")],
            ],
        ] {
            let (intents, answers) = recorded(&place, is_pooled, &[late, vec![vec![query(reads)]]].concat());
            let seen: usize = answers.iter().map(|a| place.emails_in(&a.bytes).len()).sum();
            let found = of_text(&intents, reads);
            // The store says so at the end of the transaction: then it is known.
            let is_known = |i: &&Value| {
                i["not_understood"] == true || i["settings"]["standard_conforming_strings"] == "off"
            };
            assert!(seen == 0 || !found.is_empty() && found.iter().all(is_known), "{seen}: {intents:?}");
        }
        // Names that a function may have changed.
        let long = format!("select @@! 1 /* {} */", "x".repeat(17_000));
        for swap in [
            "select @@! 1",
            "select hid_joins()",
            "select hid_lists()",
            &long,
            "select query_to_xml('select hidden.swap(1)', true, true, '')",
        ] {
            let (intents, answers) = recorded(
                &place,
                is_pooled,
                &[
                    vec![query("prepare hid as select 'harmless'")],
                    vec![query(swap)],
                    vec![query("execute hid")],
                    vec![bind("", "hid", &[]), execute("", 0), sync()],
                ],
            );
            let clear: usize = answers.iter().map(|a| place.emails_in(&a.bytes).len()).sum();
            assert_eq!(clear, 2, "{swap:.40}: {answers:?}");
            let unsure = intents.iter().filter(|i| i["not_understood"] == true).count();
            assert_eq!(unsure, 2, "{swap:.40}: {intents:?}");
        }
        // A cast, by another word for its target.
        lock(&place.store).rows("create cast (hid_row as int) with function hidden.as_int(hid_row)");
        known();
        let harmless = vec![query("prepare hid as select 'harmless'")];
        let batches = [harmless, vec![query("select row(1)::hid_row::integer")], vec![query("execute hid")]];
        let (intents, answers) = recorded(&place, is_pooled, &batches);
        lock(&place.store).rows("drop cast (hid_row as int)");
        assert_eq!(place.emails_in(&answers[2].bytes).len(), 1, "{answers:?}");
        assert!(intents.iter().any(|i| i["not_understood"] == true), "{intents:?}");
        // Parameters that a view sets.
        let set = "update hid_set set setting = 'off' where name = 'standard_conforming_strings'";
        let mut batch = vec![parse("", set), bind("", "", &[]), execute("", 0)];
        batch.extend(whole(reads));
        let (intents, answers) = recorded(&place, is_pooled, &[batch]);
        assert_eq!(place.emails_in(&answers[0].bytes).len(), 2, "{answers:?}");
        let found = of_text(&intents, reads);
        assert!(!found.is_empty() && found.iter().all(|i| i["not_understood"] == true), "{intents:?}");
    }
}

/// In transaction pooling, what code of others leaves in a connection is nobody else's.
#[test]
fn what_code_of_others_leaves_behind_stays_with_its_session() {
    let place = Place::turn();
    let _made = Made::new(&place);
    let leave = "create or replace function hidden.temps() returns void language sql as
          'select email as title into temp follows from public.users limit 1';
        grant execute on function hidden.temps() to public;
        create or replace function hidden.leave(int) returns int language plpgsql as $$
        begin perform set_config('search_path', 'hidden', false); return 1; end $$;
        grant execute on function hidden.leave(int) to public;
        create or replace view hidden.leaves as select set_config('search_path', 'nowhere', false) as s;
        grant select on hidden.leaves to public";
    assert!(lock(&place.store).attempt(leave).is_some());
    known();
    let xml =
        "select query_to_xml('select set_config(''search_path'', ''nowhere'', false)', true, false, '')";
    for who in [ENGINEER, WORKLOAD] {
        for sql in ["select hidden.leave(1)", xml, "select * from hidden.leaves"] {
            let mut others: Vec<_> = (0..3).map(|_| place.connect(who, true)).collect();
            let mut wire = place.connect(who, true);
            assert_eq!(run(&mut wire, sql).sqlstate(), None, "{sql}");
            for other in &mut others {
                let answer = run(other, "show search_path");
                let path = String::from_utf8_lossy(answer.rows[0][0].as_deref().unwrap()).into_owned();
                assert!(!path.contains("hidden") && !path.contains("nowhere"), "{who}, {sql}: {path}");
            }
            others.into_iter().chain([wire]).for_each(end);
        }
        let mut others: Vec<_> = (0..3).map(|_| place.connect(who, true)).collect();
        let mut wire = place.connect(who, true);
        assert_eq!(run(&mut wire, "select hidden.temps()").sqlstate(), None);
        for other in &mut others {
            let answer = run(
                other,
                "select count(*) from pg_class where relname = 'follows' and relpersistence = 't'
                and relnamespace = pg_my_temp_schema()",
            );
            assert_eq!(answer.rows[0][0].as_deref(), Some(b"0".as_slice()), "{who}");
        }
        others.into_iter().chain([wire]).for_each(end);
    }
}
