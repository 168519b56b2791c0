//! The meter against a real store: whom results show is counted exactly where they say it, never less where they do not; limits
//! hold whatever the session, the cursor or the colleague; a crash loses nobody.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

#[path = "support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::Value;
use support::wire::{Way, Wire, frame};
use support::{Demo, Served, text};

const ANALYST: &str = "singapore-analyst";
const COLLEAGUE: &str = "singapore-colleague";
const PEOPLE: &str = "covered-personal-identifiers";
const PLACES: &str = "precise-geolocation";
const MONEY: &str = "personal-financial";

/// One demo for all: its gateways are apart, each with a log and a registry of its own.
fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| Demo::start("meter"))
}

/// Serializes what writes the registry that a gateway copies.
static REGISTRY: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// A gateway with a colleague of the analyst's and other limits.
fn serve(name: &str, limits: &str, change: impl FnOnce(String) -> String) -> Served {
    let demo = demo();
    let _one = REGISTRY.lock();
    let path = demo.dir.join("registry.toml");
    let original = std::fs::read_to_string(&path).unwrap();
    let block = original.split("[[people]]").find(|b| b.contains(ANALYST)).unwrap();
    let colleague = block.replace(ANALYST, COLLEAGUE);
    std::fs::write(&path, format!("limits = [{limits}]\n{original}\n[[people]]{colleague}")).unwrap();
    let served = demo.serve_with(name, "", change);
    std::fs::write(&path, original).unwrap();
    served
}

/// (known, unknown) in any form, by recipient and category.
type Counts = BTreeMap<(String, String), (u64, u64)>;

fn meter(name: &str) -> Counts {
    meter_of(demo(), name)
}

fn meter_of(demo: &Demo, name: &str) -> Counts {
    // What was promised is there: a checkpoint follows within a second.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let output = demo.ringfence_with(name, &["meter", "--json"]);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let lines = report["lines"].as_array().unwrap();
    lines
        .iter()
        .map(|line| {
            let of = |key: &str| line[key].as_str().unwrap().to_owned();
            let name = line["recipient"]["name"].as_str().unwrap().to_owned();
            let number = |key: &str| line[key].as_u64().unwrap();
            ((name, of("category")), (number("any"), number("any_unknown")))
        })
        .collect()
}

fn count(counts: &Counts, who: &str, category: &str) -> (u64, u64) {
    counts.get(&(who.to_owned(), category.to_owned())).copied().unwrap_or_default()
}

/// The values of the first column of each row that came, from byte `from` on, and the SQLSTATE of an error.
fn rows(received: &[u8]) -> (Vec<Vec<u8>>, Option<String>) {
    let (mut at, mut rows, mut error) = (0, Vec::new(), None);
    while let Some(head) = received.get(at..at + 5) {
        let length = u32::from_be_bytes(head[1..5].try_into().unwrap()) as usize;
        let Some(body) = received.get(at + 5..=at + length) else { break };
        if head[0] == b'D' {
            let size = i32::from_be_bytes(body[2..6].try_into().unwrap());
            rows.push(body[6..6 + usize::try_from(size).unwrap_or(0)].to_vec());
        }
        if head[0] == b'E' {
            let text = String::from_utf8_lossy(body).into_owned();
            error = text.split('\0').find_map(|f| f.strip_prefix('C')).map(str::to_owned);
        }
        at += length + 1;
    }
    (rows, error)
}

fn run(wire: &mut Wire, sql: &str, way: Way) -> (Vec<Vec<u8>>, Option<String>) {
    let before = wire.received.len();
    let _ = wire.run(sql, way);
    rows(&wire.received[before..])
}

fn connect(served: &Served, who: &str) -> Wire {
    Wire::connect(served.port, who, "us").unwrap()
}

#[test]
fn who_is_in_a_result_is_counted_once_and_who_may_be_is_counted_too() {
    let served = serve("exact", "", |t| t);
    let mut wire = connect(&served, ANALYST);
    for way in [Way::Simple, Way::ExtendedText, Way::ExtendedBinary] {
        // The same people, in text and in binary, in whatever place the key is.
        run(&mut wire, "select id, email from users where id <= 2000", way);
        run(
            &mut wire,
            "select s.mail, s.x from (select email as mail, id as x from users where id <= 1000) s",
            way,
        );
    }
    let us: u64 =
        demo().superuser("us-trusted", "us", "select count(*) from users where id <= 2000").parse().unwrap();
    assert_eq!(count(&meter("exact"), ANALYST, PEOPLE), (us, 0));
    assert_eq!(count(&meter("exact"), "clips-singapore", PEOPLE), (us, 0));

    // A statement prepared without Describe, and run without: the gateway asks by itself, and the client does not see it.
    let text = b"p\0select id, phone from users where id between 2001 and 2100\0\0\0";
    wire.send(&[frame(b'P', text), frame(b'S', b"")].concat()).unwrap();
    wire.until_ready().unwrap();
    let before = wire.received.len();
    let bind = frame(b'B', b"\0p\0\0\0\0\0\0\x01\0\x01");
    wire.send(&[bind, frame(b'E', b"\0\0\0\0\x05"), frame(b'E', b"\0\0\0\0\0"), frame(b'S', b"")].concat())
        .unwrap();
    wire.until_ready().unwrap();
    let tags: BTreeSet<u8> = tags(&wire.received[before..]).into_iter().collect();
    assert_eq!(tags, [b'2', b'D', b's', b'C', b'Z'].into());
    let more: u64 = demo()
        .superuser("us-trusted", "us", "select count(*) from users where id between 2001 and 2100")
        .parse()
        .unwrap();
    assert_eq!(count(&meter("exact"), ANALYST, PEOPLE), (us + more, 0));

    // Whose devices: the key of the one table stands for the other, since they are joined on it.
    run(
        &mut wire,
        "select u.id, d.ip, d.id, d.last_lat from users u join devices d on d.user_id = u.id where u.id <= 100",
        Way::ExtendedBinary,
    );
    let devices = "select count(*) from devices where user_id <= 100";
    let devices: u64 = demo().superuser("us-trusted", "us", devices).parse().unwrap();
    let counts = meter("exact");
    assert_eq!(count(&counts, ANALYST, PEOPLE), (us + more, 0));
    assert_eq!(count(&counts, ANALYST, PLACES), (devices, 0));

    // Nothing of anybody: public columns, counts of rows, catalogues.
    run(
        &mut wire,
        "select id, country from users; select count(*) from payments; select relname from pg_class",
        Way::Simple,
    );
    assert_eq!(meter("exact"), counts);
    let mut beijing = connect(&served, "beijing-engineer");
    run(&mut beijing, "select * from users", Way::Simple);
    assert_eq!(meter("exact"), counts);

    // Cursors carry the key, too.
    run(
        &mut wire,
        "begin; declare c cursor for select amount_cents, user_id from payments where user_id < 900",
        Way::Simple,
    );
    let (paid, _) = run(&mut wire, "fetch 40 from c", Way::Simple);
    run(&mut wire, "fetch 40 from c; commit", Way::ExtendedText); // two statements at once: refused by the store
    assert_eq!(paid.len(), 40);
    let counts = meter("exact");
    let (known, unknown) = count(&counts, ANALYST, MONEY);
    assert!(known > 0 && known <= 40 && unknown == 0, "{known} {unknown}");
    run(&mut wire, "rollback", Way::Simple);

    // What does not say whom it is about: a row without the key, COPY, two people in a row, an aggregate.
    let (mails, _) = run(&mut wire, "select email from users where id <= 30", Way::Simple);
    let (pairs, _) = run(
        &mut wire,
        "select a.id, b.email from users a, users b where a.id <= 9 and b.id = a.id",
        Way::Simple,
    );
    let unknown = mails.len() + 2 * pairs.len();
    assert_eq!(count(&meter("exact"), ANALYST, PEOPLE).1, unknown as u64);
    let copied =
        Wire::run(&mut wire, "copy (select id, email from users where id <= 20) to stdout", Way::Simple);
    assert!(copied.is_ok());
    let here = "select count(*) from users where id <= 20";
    let copied: u64 = demo().superuser("us-trusted", "us", here).parse().unwrap();
    assert_eq!(count(&meter("exact"), ANALYST, PEOPLE).1, unknown as u64 + copied);
    for _ in 0..2 {
        let (one, error) = run(&mut wire, "select string_agg(distinct email, ' ') from users", Way::Simple);
        assert_eq!((one.len(), error), (1, None));
    }
    let all: u64 = demo().superuser("us-trusted", "us", "select count(*) from users").parse().unwrap();
    assert_eq!(count(&meter("exact"), ANALYST, PEOPLE), (all, unknown as u64 + copied), "all of them, once");
    let (_, error) = run(&mut wire, "select 1", Way::Simple);
    assert_eq!(error, None);
}

fn tags(received: &[u8]) -> Vec<u8> {
    let (mut at, mut tags) = (0, Vec::new());
    while let Some(head) = received.get(at..at + 5) {
        tags.push(head[0]);
        at += 1 + u32::from_be_bytes(head[1..5].try_into().unwrap()) as usize;
    }
    tags
}

#[test]
fn no_session_cursor_grant_aggregate_or_colleague_gets_around_a_limit() {
    // 1 % of 1,000 devices.
    let served = serve("limit", r#"{ at = 0.01, then = "refuse" }"#, |t| t);
    let devices = |wire: &mut Wire, count: u32, way| {
        run(wire, &format!("select id, last_lat from devices order by id limit {count}"), way)
    };
    let mut first = connect(&served, ANALYST);
    let (four, error) = devices(&mut first, 4, Way::Simple);
    assert_eq!((four.len(), error), (4, None));
    let (seven, error) = devices(&mut first, 7, Way::ExtendedBinary);
    assert_eq!((seven.len(), error), (7, None));
    let mut second = connect(&served, COLLEAGUE);
    let (ten, error) = devices(&mut second, 40, Way::Simple);
    assert_eq!(
        (ten.len(), error.as_deref()),
        (10, Some("54000")),
        "seven of the analyst's, three more, no eleventh"
    );
    for (who, sql) in [
        (ANALYST, "select id, last_lat from devices order by id desc"),
        (COLLEAGUE, "select last_lat from devices order by id limit 1"),
        (
            ANALYST,
            "begin; declare c cursor for select id, last_lat from devices order by id desc; fetch 1 from c",
        ),
        (ANALYST, "select avg(last_lat) from devices"),
        (ANALYST, "copy (select last_lat from devices) to stdout"),
        (ANALYST, "select d.id, d.last_lat from devices d, generate_series(1, 2) order by d.id desc"),
        (
            COLLEAGUE,
            "with w as (select id, last_lat from devices) select id, last_lat from w order by id desc",
        ),
    ] {
        let mut wire = connect(&served, who);
        let (rows, error) = run(&mut wire, sql, Way::Simple);
        assert_eq!((rows.len(), error.as_deref()), (0, Some("54000")), "{sql}");
        if !sql.starts_with("begin") && !sql.contains(';') {
            let mut wire = connect(&served, who);
            let (rows, error) = run(&mut wire, sql, Way::ExtendedText);
            assert_eq!((rows.len(), error.as_deref()), (0, Some("54000")), "{sql}");
        }
    }
    // Those who are known can be read again, and what is not of that category.
    let mut wire = connect(&served, ANALYST);
    assert_eq!(devices(&mut wire, 10, Way::Simple).0.len(), 10);
    assert_eq!(count(&meter("limit"), "clips-singapore", PLACES), (10, 0));
}

#[test]
fn a_further_approval_lets_further_people_be_read() {
    let served =
        serve("approve", r#"{ at = 0.005, then = "approve" }, { at = 0.003, then = "warn" }"#, |t| t);
    // The grant that is there already was asked for before the limit was reached.
    let id = demo().grant(ANALYST, "devices.last_lat", "id > 0", &[]);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let sql = "select id, last_lat from devices order by id";
    let mut wire = connect(&served, ANALYST);
    let before = wire.received.len();
    let (five, error) = run(&mut wire, sql, Way::Simple);
    assert_eq!((five.len(), error.as_deref()), (5, Some("54000")));
    let told = String::from_utf8_lossy(&wire.received[before..]).into_owned();
    assert!(told.contains("0.4 % of the threshold for precise-geolocation is reached"), "{told}");
    assert!(told.contains("a further approval"), "{told}");
    let again = demo().grant(ANALYST, "devices.last_lat", "id > 0", &[]);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let (many, error) = run(&mut connect(&served, ANALYST), sql, Way::Simple);
    assert!(many.len() > 100 && error.is_none(), "{} {error:?}", many.len());
    for id in [id, again] {
        demo().ringfence(&["revoke", &id, "--as", "us-approver-1"]);
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[test]
fn a_random_workload_counts_as_by_hand_before_and_after_a_crash() {
    let mut served = serve("random", "", |t| t);
    let seed = std::env::var("RF_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    let mut dice = Dice(seed);
    let mut truth: BTreeMap<(&str, &str), BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut unknown: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut wires = [ANALYST, COLLEAGUE].map(|who| (who, connect(&served, who)));
    for _ in 0..300 {
        let (who, wire) = &mut wires[usize::try_from(dice.below(2)).unwrap()];
        let (from, many) = (dice.below(4800), 1 + dice.below(60));
        let way = [Way::Simple, Way::ExtendedText][usize::try_from(dice.below(2)).unwrap()];
        let between = |column: &str| format!("{column} between {from} and {}", from + many);
        let (sql, category, has_key) = match dice.below(7) {
            0 => (format!("select id, email, phone from users where {}", between("id")), PEOPLE, true),
            1 => (
                format!("select u.id, u.birth_date from users u where {} order by email", between("u.id")),
                PEOPLE,
                true,
            ),
            2 => (
                format!("select user_id, card_last4 from payments where {}", between("user_id")),
                MONEY,
                true,
            ),
            3 => (
                format!("select id, last_lat, last_lon from devices where {}", between("user_id")),
                PLACES,
                true,
            ),
            4 => (
                format!(
                    "select u.id, p.amount_cents from users u join payments p on u.id = p.user_id where {}",
                    between("u.id")
                ),
                MONEY,
                true,
            ),
            5 => (format!("select full_name from users where {}", between("id")), PEOPLE, false),
            _ => (format!("select id, country, created_at from users where {}", between("id")), "", true),
        };
        let (rows, error) = run(wire, &sql, way);
        assert_eq!(error, None, "{sql}");
        for recipient in [*who, "clips-singapore"] {
            if !category.is_empty() && has_key {
                truth.entry((recipient, category)).or_default().extend(rows.iter().cloned());
            } else if !category.is_empty() {
                *unknown.entry((recipient, category)).or_default() += rows.len() as u64;
            }
        }
    }
    let compare = |counts: &Counts| {
        for recipient in [ANALYST, COLLEAGUE, "clips-singapore"] {
            for category in [PEOPLE, MONEY, PLACES] {
                let key = (recipient, category);
                let known = truth.get(&key).map_or(0, |ids| ids.len() as u64);
                let expected = (known, unknown.get(&key).copied().unwrap_or(0));
                assert_eq!(
                    count(counts, recipient, category),
                    expected,
                    "{recipient} {category}, seed {seed}"
                );
            }
        }
    };
    compare(&meter("random"));

    // A crash in the middle of results that two people read: whoever was shown is counted, and hardly anybody else.
    let (_, wire) = &mut wires[0];
    let before = wire.received.len();
    wire.send(&frame(
        b'Q',
        b"select u.id, u.email from users u join follows f on f.follower_id = u.id order by u.id desc\0",
    ))
    .unwrap();
    let distinct = |received: &[u8]| rows(received).0.into_iter().collect::<BTreeSet<Vec<u8>>>();
    while distinct(&wire.received[before..]).len() < 200 {
        wire.next().unwrap();
    }
    served.kill();
    while wire.next().is_ok() {}
    let shown = distinct(&wire.received[before..]);
    assert!(shown.len() >= 200);
    let served = serve("random", "", |t| t);
    let after = meter("random");
    let own = truth.get(&(ANALYST, PEOPLE)).cloned().unwrap_or_default();
    let least = own.union(&shown).count() as u64;
    let (known, rows_unknown) = count(&after, ANALYST, PEOPLE);
    assert!(known >= least, "{known} counted, {least} shown");
    assert!(known <= least + 2000, "{known} counted, {least} shown");
    assert_eq!(rows_unknown, unknown.get(&(ANALYST, PEOPLE)).copied().unwrap_or(0));
    // The gateway itself has read the same from its log, and decides by it.
    let dsn = format!("host=127.0.0.1 port={} user=us-approver-1 dbname=ringfence", served.port);
    let mut psql = std::process::Command::new("psql");
    let shown = psql
        .arg(dsn)
        .args(["-X", "-A", "-t", "-c", "show meter"])
        .env("PGPASSWORD", "demo")
        .output()
        .unwrap();
    let shown = text(&shown);
    for category in [PEOPLE, MONEY, PLACES] {
        let (any, unknown) = count(&after, ANALYST, category);
        let line = shown
            .lines()
            .find(|l| l.starts_with(&format!("{ANALYST}|person|us|{category}|")))
            .unwrap_or_default();
        let fields: Vec<&str> = line.split('|').collect();
        assert_eq!(fields.get(5..7).unwrap_or_default(), [any.to_string(), unknown.to_string()], "{shown}");
    }
    let mut wire = connect(&served, ANALYST);
    let sql = "select u.id, u.email from users u join follows f on f.follower_id = u.id order by u.id desc limit 300";
    run(&mut wire, sql, Way::Simple);
    assert_eq!(count(&meter("random"), ANALYST, PEOPLE), (known, rows_unknown));
}

#[test]
fn two_gateways_count_together() {
    let one = serve("one", r#"{ at = 0.01, then = "refuse" }"#, |t| t);
    let two = serve("two", r#"{ at = 0.01, then = "refuse" }"#, |t| {
        t.replace(
            "[policy]",
            "[[ledger.others]]\ndir = \"ledger-one\"\nvkey = \"keys-one/ledger.vkey\"\n\n[policy]",
        )
    });
    let sql = "select id, last_lat from devices order by id limit 8";
    assert_eq!(run(&mut connect(&one, ANALYST), sql, Way::Simple).0.len(), 8);
    // A checkpoint within a second, a look within two.
    std::thread::sleep(std::time::Duration::from_secs(5));
    let sql = "select id, last_lat from devices order by id desc limit 8";
    let (two_more, error) = run(&mut connect(&two, COLLEAGUE), sql, Way::Simple);
    assert_eq!((two_more.len(), error.as_deref()), (2, Some("54000")));
    assert_eq!(count(&meter("two"), "clips-singapore", PLACES), (10, 0));
}

/// See [`Demo::serve_full_access`].
fn serve_full_access(demo: &Demo, name: &str, people: &[String]) -> Served {
    let _one = REGISTRY.lock();
    demo.serve_full_access(name, people)
}

/// Notices, notifications and reported settings tell somebody abroad no value, full access or not.
fn nothing_but_rows_has_a_value(served: &Served, who: &str) {
    let mut wire = connect(served, who);
    let (_, error) = run(&mut wire, "listen chan", Way::Simple);
    assert_eq!(error, None);
    // The gateway's own notices about the meter have come.
    let before = wire.received.len();
    demo().superuser("us-trusted", "us", "notify chan, 'payload@example'");
    for sql in [
        "select 1",
        "do $$ begin raise notice '%', (select email from users limit 1); end $$",
        "select length(set_config('application_name', (select email from users limit 1), false))",
        "set application_name = 'own'",
        "do $$ begin raise exception '%', (select email from users limit 1); end $$",
    ] {
        run(&mut wire, sql, Way::Simple);
    }
    let bytes = &wire.received[before..];
    assert!(tags(bytes).contains(&b'A'));
    let said = String::from_utf8_lossy(bytes);
    // The only notices are the gateway's own about the meter.
    let notices = tags(bytes).into_iter().map(char::from).filter(|tag| *tag == 'N').count();
    assert_eq!(notices, said.matches("of the threshold for").count(), "{said}");
    assert!(said.contains("chan") && said.contains("application_name\0own"), "{said}");
    assert!(!said.contains('@'), "{said}");
}

/// A mistyped name is the store's to refuse; what turns out to be there all the same shows no row.
fn a_name_that_is_not_there_counts_nobody(served: &Served, who: &str) {
    let mut wire = connect(served, who);
    assert_eq!(run(&mut wire, "select * from usrs", Way::Simple).1.as_deref(), Some("42P01"));
    assert_eq!(run(&mut wire, "select max(id) from usrs", Way::Simple).1.as_deref(), Some("42P01"));
    let store = |sql: &str| demo().superuser("us-trusted", "us", sql);
    // A table that was made since is known.
    store("create table app_later as select 1 as n; grant select on app_later to public");
    assert_eq!(run(&mut wire, "select n from app_later", Way::Simple), (vec![b"1".to_vec()], None));
    store("drop table app_later");
}

/// What came with a name that was not there is known with it.
fn a_new_name_comes_with_its_code(served: &Served, who: &str) {
    let mut wire = connect(served, who);
    run(&mut wire, "select 1", Way::Simple);
    let new =
        "create table app_newest (i int, a text default app.peek(1)); grant all on app_newest to public";
    demo().superuser("us-trusted", "us", new);
    let (rows, error) = run(&mut wire, "insert into app_newest (i) values (1) returning a", Way::Simple);
    assert_eq!((rows.len(), error), (1, None));
}

#[test]
fn full_access_abroad_is_counted_through_views_copies_functions_and_moves() {
    let all: u64 = demo().superuser("us-trusted", "us", "select count(*) from users").parse().unwrap();
    demo().superuser(
        "us-trusted",
        "us",
        "create view app_report as select * from users; create materialized view pg_report as select * from users;
         create table base_of_all (email text); create table part_of_all () inherits (base_of_all);
         insert into part_of_all select email from users; create sequence app_numbers; grant all on app_numbers to public; create schema app; grant usage on schema app to public;
         create function app.lower(int) returns setof text language sql as 'select email from public.users';
         create function app.peek(int) returns text language sql as 'select email from public.users limit 1';
         create operator public.@@@@ (rightarg = int, function = app.peek);
         create function public.lower(int) returns setof text language sql as 'select email from public.users';
         create function public.app_peek(videos) returns text language sql as 'select app.peek(1)';
         create function app.shown(videos) returns text language sql as 'select app.peek(1)';
         create cast (videos as text) with function app.shown(videos);
         create table app_set (a text);
         create function app.set() returns trigger language plpgsql as
           'begin new.a := app.peek(1); return new; end';
         create trigger app_set before insert on app_set for each row execute function app.set();
         create table app_default (i int, a text default app.peek(1));
         create table app_log (a text); create table app_log2 (a text);
         create rule app_log as on insert to app_log do also select email from users limit 3;
         create rule app_log2 as on update to app_log2 do instead select email from users limit 3;
         create table base_of_users (id bigint not null); alter table users inherit base_of_users;
         create table app.leads as select email from users; create table public.leads (email text);
         create function app.shown_v(videos) returns varchar language sql as 'select app.peek(1)::varchar';
         create cast (videos as varchar) with function app.shown_v(videos);
         create domain app.note as text; create type app.box as (t text);
         create type app.tag as (i int);
         create function app.tag_cmp(app.tag, app.tag) returns int immutable language plpgsql as
           'begin perform app.peek(1); return 0; end';
         create function app.tag_lt(app.tag, app.tag) returns boolean immutable language sql as 'select $1.i < $2.i';
         create function app.tag_eq(app.tag, app.tag) returns boolean immutable language sql as 'select $1.i = $2.i';
         create operator app.<<< (leftarg = app.tag, rightarg = app.tag, function = app.tag_lt);
         create operator app.=== (leftarg = app.tag, rightarg = app.tag, function = app.tag_eq);
         create operator class app.tags default for type app.tag using btree as
           operator 1 app.<<<, operator 3 app.===, function 1 app.tag_cmp(app.tag, app.tag);
         create table app.tagged (id int, t app.tag); insert into app.tagged values (1, row(1)), (2, row(2));
         create function pg_catalog.app_low(int) returns text language sql as 'select app.peek(1)';
         create schema shop; grant usage on schema shop to public; create table shop.orders (id int, state text);
         insert into shop.orders values (1, 'a'), (2, 'b'); grant select on shop.orders to public;
         create schema rf_evil; grant usage on schema rf_evil to public;
         create view rf_evil.follows as select email as title from public.users limit 5;
         grant all on app_set, app_default, app_log, app_log2, base_of_users, app.leads, public.leads, rf_evil.follows, app.tagged to public;
         grant execute on all functions in schema app to public; grant execute on all functions in schema public to public;
         grant select on app_report, pg_report, base_of_all, part_of_all to public",
    );
    // What is read, and how many it may show at least, of those who cannot be told apart.
    let reads: &[(&[&str], u64)] = &[
        (&["select id, title from videos limit 3", "select relname from pg_class", "select 1"], 0),
        (&["update devices set model = upper('x') where id < 0", "select last_value from app_numbers"], 0),
        (&["update devices set model = ip::text where id < 0"], all),
        (&["update devices set model = (select ip::text) where id < 0"], all),
        (&["update devices set model = devices::text where id < 0"], all),
        (&["update devices d set model = d::text where id < 0"], all),
        (&["update devices set (model) = (select devices.ip::text) where id < 0"], all),
        (&["update devices set model = array_to_string(array(select ip), '') where id < 0"], all),
        // PostgreSQL's own functions in SQL cast what they are given.
        (&["select 'x' || v from videos v where v.id < 0"], all),
        (&["select v.quote_nullable from videos v where v.id < 0"], all),
        (&["select quote_literal(v) from videos v where v.id < 0"], all),
        (&["select 1 from users where id < 9 and set_config('a.b', email, false) is null", "show a.b"], all),
        (&["select 1 from users where id < 9 and pg_advisory_xact_lock(length(email)) is null"], all),
        (&["select set_config('a.b', 'c', false)", "select setval('app_numbers', 7)"], 0),
        // It is not counted again while it holds the lock.
        (&["begin", "lock table users", "rollback"], all),
        (&["select @@@@ 1"], all),
        (&["select lower(1)"], all),
        (&["select v.app_peek from videos v limit 1"], all),
        (&["select (v).app_peek from videos v limit 1"], all),
        (&["select v::text from videos v limit 1"], all),
        // Whatever the target is called, and whatever is around it.
        (&["select v::varchar(200) from videos v limit 1"], all),
        (&["select v::pg_catalog.text from videos v limit 1"], all),
        (&["select (array[v])::_text from videos v limit 1"], all),
        (&["select v::app.note from videos v limit 1"], all),
        (&["select row(v)::app.box from videos v limit 1"], all),
        // What compares without an operator in the text.
        (&["select id from app.tagged order by t"], all),
        (&["select greatest(t, t) from app.tagged"], all),
        (&["select distinct t from app.tagged"], all),
        (&["select pg_catalog.app_low(1)"], all),
        // A function behind a dot takes the whole row.
        (&["select u.to_jsonb from users u limit 3"], 3),
        (&["select public.users.row_to_json from users limit 3"], 3),
        (&["select (select u.row_to_json) from users u limit 3"], 3),
        (&["select s.to_jsonb from (select * from users limit 3) s"], 3),
        (&["select u.json_agg from users u"], all),
        (&["select u.concat from users u where u.ctid is not null limit 3"], 3),
        // They are counted, and not refused.
        (&["do $$ begin null; end $$", "select query_to_xml('select 1', true, true, '')"], all),
        (&["begin", "do $$ begin null; end $$", "insert into app_log2 values ('z')", "commit"], all),
        // Tables that nobody classified are counted in their own schema.
        (
            &[
                "select count(*) from shop.orders",
                "select state, array_agg(id) from shop.orders group by state",
                "with x as (select id from shop.orders) select max(id) from x",
            ],
            0,
        ),
        // What is defined counts all; what is the person's own is not refused.
        (&["create temp table own as select 1 as i", "select max(i) from own"], all),
        (&["insert into app_set values ('x') returning a"], all),
        (&["insert into app_default(i) values (1) returning a"], all),
        (&["insert into app_log values ('x')"], all),
        (&["update app_log2 set a = 'y'"], all),
        (&["table base_of_users limit 1"], all),
        (&["select string_agg(email, ',') from app.leads"], all),
        (&["select title from rf_evil.follows"], all),
        (&["select email from users order by id limit 7"], 7),
        (&["select email from app_report limit 1"], all),
        (&["select email from pg_report limit 1"], all),
        (&["select most_common_vals from pg_stats"], all),
        (&["select email from part_of_all limit 1"], all),
        (&["select app.lower(1)"], all),
        (&["select row_to_json(j) from (users u cross join (select 1) x) j limit 3"], 3),
        (&["select j.e from (users u cross join (select 1) x) as j(a, b, c, d, e) limit 3"], 3),
        (&["select * into temp videos from users", "select * from videos limit 1"], all),
        (
            &[
                "begin; declare c cursor for select 1 from users where email > '' limit 9",
                "move all c",
                "commit",
            ],
            9,
        ),
        (&["select json_agg from (select (u.email).json_agg from users u, (select 1 as json_agg) s) t"], all),
    ];
    let people: Vec<String> = (0..reads.len() + 3).map(|n| format!("singapore-full-{n}")).collect();
    let served = serve_full_access(demo(), "full", &people);
    for (who, (texts, _)) in people.iter().zip(reads) {
        let mut wire = connect(&served, who);
        for sql in *texts {
            let (_, error) = run(&mut wire, sql, Way::Simple);
            assert_eq!(error, None, "{sql}");
        }
    }
    nothing_but_rows_has_a_value(&served, &people[reads.len()]);
    a_name_that_is_not_there_counts_nobody(&served, &people[reads.len() + 1]);
    a_new_name_comes_with_its_code(&served, &people[reads.len() + 2]);
    let counts = meter("full");
    assert_eq!(count(&counts, &people[reads.len() + 1], PEOPLE), (0, 0));
    let (known, unknown) = count(&counts, &people[reads.len() + 2], PEOPLE);
    assert!(known + unknown >= all, "{known} and {unknown}");
    for (who, (texts, least)) in people.iter().zip(reads) {
        let (known, unknown) = count(&counts, who, PEOPLE);
        let most = if *least == all { u64::MAX } else { *least };
        assert!(
            (*least..=most).contains(&(known + unknown)),
            "{texts:?}: {known} and {unknown}, not {least}"
        );
    }
    demo().superuser(
        "us-trusted",
        "us",
        "drop view app_report; drop materialized view pg_report; drop table base_of_all cascade;
         drop sequence app_numbers; alter table users no inherit base_of_users; drop schema app cascade;
         drop schema rf_evil cascade; drop function public.lower(int), public.app_peek(videos);
         drop schema shop cascade; drop table app_newest; drop function if exists pg_catalog.app_low(int);
         drop table app_set, app_default, app_log, app_log2, base_of_users, leads",
    );
}

/// People who come while a statement is under way are counted, or it does not show them.
#[test]
fn full_access_abroad_is_counted_at_the_moment_of_the_answer() {
    const MAKE: &str = "insert into users select (jsonb_populate_record(null::users, to_jsonb(u)
        || jsonb_build_object('id', 9000000 + g, 'email', 'new' || g || '@moment.example'))).*
        from (select * from users order by id limit 1) u, generate_series(1, 60) g";
    // One of its own: other tests count these people.
    let demo = Demo::start("moment");
    let drop = || demo.superuser("us-trusted", "us", "delete from users where id >= 9000000");
    let slow = "length(factorial(12000)::text)";
    let all = format!("select string_agg(email, ','), {slow}, {slow}, {slow} from users");
    let late = "select g, repeat(' ', 9000), pg_temp.late(g), pg_sleep(0.4) from generate_series(1, 8) g";
    let make_late = "create function pg_temp.late(int) returns text language sql volatile as
        'select string_agg(email, chr(44)) from public.users where id > 9000000 and $1 > 0'";
    let level = "default_transaction_isolation";
    let begun = |set: &str| vec![set.to_owned(), "begin".to_owned(), "select 1".to_owned()];
    // What is sent before, what changes meanwhile, how long after, and what shows it.
    let mut ways: Vec<(Vec<String>, bool, u64, String)> = vec![
        (vec![], true, 150, all.clone()),
        (
            vec![],
            true,
            150,
            all.replace("string_agg(email, ',')", &format!("string_agg(email, ',') as {}", "a".repeat(70))),
        ),
        (vec!["set client_min_messages = debug5".to_owned()], true, 150, all.clone()),
        (vec![], true, 150, format!("{all}; create temp table behind (i int)")),
        (vec![], true, 150, format!("{all}; lock table follows in access share mode")),
        (vec![make_late.to_owned()], true, 1500, late.to_owned()),
        (begun(&format!("select set_config('{level}', 'repeatable read', false)")), false, 0, all.clone()),
        (
            begun(&format!("update pg_settings set setting = 'repeatable read' where name = '{level}'")),
            false,
            0,
            all.clone(),
        ),
        (begun(&format!("set {level} = 'repeatable read'")), false, 0, all.clone()),
    ];
    // Of what runs as SQL, or changes rows, is not known what it reads.
    let unknown = [
        "query_to_xml('select email from users where id >= 9000000', true, true, '')",
        "(select string_agg(word, ',') from ts_stat('select to_tsvector(email) from users where id >= 9000000'))",
    ];
    let mut unknown: Vec<String> =
        unknown.iter().map(|what| format!("select {what}, {slow}, {slow}, {slow}")).collect();
    unknown.push(format!(
        "with a as (insert into videos select * from videos where false returning 1)
         select string_agg(email, ','), {slow}, {slow}, {slow} from users"
    ));
    let repeatable = || vec!["begin isolation level repeatable read".to_owned(), "select 1".to_owned()];
    for sql in unknown {
        ways.push((vec![], true, 150, sql.clone()));
        ways.push((repeatable(), false, 0, sql));
    }
    // Definitions can run code, and keep what it says where it is read later.
    let copies = "query_to_xml('select email from users where id >= 9000000', true, true, '')::text";
    let own = "create temp table own (i int)";
    for definition in [
        format!("alter table own add column e text default {copies}"),
        format!("alter table own alter column i type text using {copies}"),
        format!("create temp table pp partition of own_parts for values in (({copies}))"),
    ] {
        let parts = "create temp table own_parts (i text) partition by list (i)";
        let mut first = vec![own.to_owned(), parts.to_owned(), "insert into own values (1)".to_owned()];
        first.extend(repeatable());
        ways.push((first, false, 0, definition));
    }
    // What waits for the end of a transaction.
    let late_copy = "create function pg_temp.copy() returns trigger language plpgsql volatile as $$ begin
        perform pg_sleep(1.2); insert into kept select email from users where id >= 9000000; return null; end $$";
    let first = [
        "create temp table kept (e text)",
        own,
        late_copy,
        "create constraint trigger late after insert on own deferrable initially deferred
         for each row execute function pg_temp.copy()",
        "begin",
        "insert into own values (1)",
    ];
    ways.push((first.map(str::to_owned).to_vec(), true, 150, "commit".to_owned()));
    let own_reads = ways.len() - 4..ways.len();
    let people: Vec<String> = (0..ways.len() + 3).map(|n| format!("singapore-moment-{n}")).collect();
    let served = serve_full_access(&demo, "moment", &people);
    let shows = |wire: &mut Wire, sql: &str| {
        let before = wire.received.len();
        let _ = wire.run(sql, Way::Simple);
        String::from_utf8_lossy(&wire.received[before..]).contains("@moment.example")
    };
    let show = |wire: &mut Wire, comes: bool, after: u64, sql: &str| {
        if !comes {
            drop();
            return shows(wire, sql);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(after));
                demo.superuser("us-trusted", "us", MAKE);
            });
            shows(wire, sql)
        })
    };
    let mut seen = Vec::new();
    for (n, (who, (first, comes, after, sql))) in people.iter().zip(&ways).enumerate() {
        drop();
        if !comes {
            demo.superuser("us-trusted", "us", MAKE);
        }
        let mut wire = connect(&served, who);
        for sql in first {
            assert_eq!(run(&mut wire, sql, Way::Simple).1, None, "{sql}");
        }
        let mut is_seen = show(&mut wire, *comes, *after, sql);
        if own_reads.contains(&n) {
            // What the definition kept, if it ran.
            for sql in ["commit", "select e from own", "select i from own", "select e from kept"] {
                is_seen |= shows(&mut wire, sql);
            }
        }
        seen.push(if is_seen { 60 } else { 0 });
    }
    // A level that comes with the login, and one that the role has.
    let options = [("options", "-c default_transaction_isolation=repeatable\\ read")];
    for (who, with) in people[ways.len()..][..2].iter().zip([options.as_slice(), &[]]) {
        drop();
        demo.superuser("us-trusted", "us", MAKE);
        if with.is_empty() {
            let mut wire = connect(&served, who);
            run(&mut wire, &format!("alter role session_user set {level} = 'repeatable read'"), Way::Simple);
        }
        let mut wire = Wire::connect_with(served.port, who, "us", with).unwrap();
        run(&mut wire, "begin", Way::Simple);
        run(&mut wire, "select 1", Way::Simple);
        seen.push(if show(&mut wire, false, 0, &all) { 60 } else { 0 });
    }
    // A Parse begins the transaction of a batch.
    drop();
    demo.superuser("us-trusted", "us", MAKE);
    let mut wire = connect(&served, &people[ways.len() + 2]);
    run(&mut wire, &format!("set {level} = 'repeatable read'"), Way::Simple);
    wire.send(&[frame(b'P', b"a\0select 1\0\0\0"), frame(b'H', b"")].concat()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop();
    let before = wire.received.len();
    let _ = wire.run(&all, Way::ExtendedText);
    let is_seen = String::from_utf8_lossy(&wire.received[before..]).contains("@moment.example");
    seen.push(if is_seen { 60 } else { 0 });
    drop();
    let there: u64 = demo.superuser("us-trusted", "us", "select count(*) from users").parse().unwrap();
    let comes = ways.iter().map(|(_, comes, ..)| *comes);
    assert!(comes.zip(&seen).any(|(comes, seen)| comes && *seen > 0), "no answer showed who came: {seen:?}");
    let counts = meter_of(&demo, "moment");
    for (n, (who, seen)) in people.iter().zip(seen).enumerate() {
        let (known, unknown) = count(&counts, who, PEOPLE);
        let shown = if seen == 0 { 0 } else { there + seen };
        assert!(known + unknown >= shown, "way {n}: {known} and {unknown} of {shown}");
    }
}
