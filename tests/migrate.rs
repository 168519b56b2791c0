//! Rows move from one store to another while real clients write them through the gateway.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Demo, PROGRAM, Served, text};

const MOVER: [&str; 2] = ["--as", "us-engineer"];

fn migrate(demo: &Demo, config: &str, what: &str, more: &[&str]) -> std::process::Output {
    demo.ringfence_with(config, &[&["migrate", what], more].concat())
}

fn done(demo: &Demo, what: &str, more: &[&str]) -> String {
    let output = migrate(demo, "ringfence", what, more);
    assert!(output.status.success(), "{what}: {}", text(&output));
    text(&output)
}

fn json(demo: &Demo, what: &str, more: &[&str]) -> Value {
    let output = migrate(demo, "ringfence", what, &[more, &["--json"]].concat());
    assert!(output.status.success(), "{what}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What clients have written and were told so.
#[derive(Default)]
struct Written {
    next: AtomicU64,
    /// Messages that are there.
    inserted: Mutex<BTreeSet<u64>>,
    /// Messages that are gone again.
    deleted: Mutex<BTreeSet<u64>>,
    /// How often a counter was raised, of users 1 to 4.
    raised: [AtomicU64; 4],
    /// How often it may have been, for all we know.
    unsure: AtomicU64,
    errors: Mutex<Vec<String>>,
    longest: Mutex<Duration>,
}

/// Clients in the middle of their work, as a platform's programs are: prepared statements, transactions, one after the other.
struct Load {
    written: Arc<Written>,
    stop: Arc<AtomicBool>,
    /// Where the gateway is.
    port: Arc<AtomicU16>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

const FIRST: u64 = 1_000_000_000;

impl Load {
    fn start(port: u16, clients: usize) -> Self {
        let mut load = Self {
            written: Arc::default(),
            stop: Arc::default(),
            port: Arc::new(AtomicU16::new(port)),
            threads: Vec::new(),
        };
        for number in 0..clients {
            let (written, stop, port) = (load.written.clone(), load.stop.clone(), load.port.clone());
            load.threads.push(std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    while !stop.load(Ordering::Acquire) {
                        if let Err(e) = client(number, &port, &written, &stop).await {
                            let text =
                                e.as_db_error().map_or_else(|| e.to_string(), |db| db.message().to_owned());
                            written.errors.lock().unwrap().push(text);
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    }
                });
            }));
        }
        load
    }

    fn stop(mut self) -> Arc<Written> {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.written.clone()
    }
}

async fn client(
    number: usize,
    port: &AtomicU16,
    written: &Written,
    stop: &AtomicBool,
) -> Result<(), tokio_postgres::Error> {
    let dsn = format!(
        "host=127.0.0.1 port={} user=feed-service password=demo dbname=clips connect_timeout=5",
        port.load(Ordering::Acquire)
    );
    let (mut client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let insert = client.prepare("insert into messages (id, sender_id, recipient_id, body, sent_at) values ($1, $2, 1, 'hello', now())").await?;
    let raise = client.prepare("update users set phone = (phone::bigint + 1)::text where id = $1").await?;
    let delete = client.prepare("delete from messages where id = $1").await?;
    let ids = US_USERS;
    while !stop.load(Ordering::Acquire) {
        let id = FIRST + written.next.fetch_add(1, Ordering::AcqRel);
        let user = (number + usize::try_from(id).unwrap()) % ids.len();
        let begun = Instant::now();
        let transaction = client.transaction().await?;
        transaction.execute(&insert, &[&i64::try_from(id).unwrap(), &ids[user]]).await?;
        assert_eq!(transaction.execute(&raise, &[&ids[user]]).await?, 1);
        written.unsure.fetch_add(1, Ordering::AcqRel);
        transaction.commit().await?;
        written.unsure.fetch_sub(1, Ordering::AcqRel);
        written.raised[user].fetch_add(1, Ordering::AcqRel);
        written.inserted.lock().unwrap().insert(id);
        if id.is_multiple_of(5) {
            // Until the answer is there nobody knows whether it is gone.
            written.inserted.lock().unwrap().remove(&id);
            assert_eq!(client.execute(&delete, &[&i64::try_from(id).unwrap()]).await?, 1);
            written.deleted.lock().unwrap().insert(id);
        }
        let took = begun.elapsed();
        let mut longest = written.longest.lock().unwrap();
        *longest = took.max(*longest);
    }
    drop(client);
    let _ = connection.await;
    Ok(())
}

/// Users of the demo who live in the U.S.
const US_USERS: [i64; 4] = [2, 4, 5, 4711];

/// Where the rows are by the gateway's own word.
fn route(demo: &Demo) -> String {
    let shown = demo.psql("us-engineer", "ringfence", "show routes");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    shown.split('|').nth(1).unwrap_or_default().to_owned()
}

fn database(store: &str) -> (&str, &str) {
    if store == "home" { ("us-trusted", "home") } else { ("sg-legacy", "legacy") }
}

/// Counters begin at nought.
fn prepare(demo: &Demo) {
    let ids = US_USERS.map(|id| id.to_string()).join(",");
    let sql = format!("update users set phone = '0', country = 'US' where id in ({ids})");
    demo.superuser("sg-legacy", "legacy", &sql);
}

/// Every write that a client was told of is there once, and nothing that was deleted.
fn is_whole(demo: &Demo, store: &str, written: &Written) {
    let (cluster, name) = database(store);
    let ids = demo.superuser(cluster, name, &format!("select id from messages where id >= {FIRST}"));
    let there: BTreeSet<u64> = ids.lines().map(|l| l.parse().unwrap()).collect();
    let inserted = written.inserted.lock().unwrap();
    let lost: Vec<&u64> = inserted.difference(&there).collect();
    assert!(lost.is_empty(), "{store} has lost {} messages, such as {}", lost.len(), lost[0]);
    let deleted = written.deleted.lock().unwrap();
    let back: Vec<&u64> = deleted.intersection(&there).collect();
    assert!(back.is_empty(), "{store} has {} messages that were deleted", back.len());
    let unsure = written.unsure.load(Ordering::Acquire);
    for (user, raised) in US_USERS.iter().zip(&written.raised) {
        let raised = raised.load(Ordering::Acquire);
        let is: u64 = demo
            .superuser(cluster, name, &format!("select phone from users where id = {user}"))
            .parse()
            .unwrap();
        assert!(
            (raised..=raised + unsure).contains(&is),
            "{store}: the counter of {user} is {is}, and {raised} were told"
        );
    }
}

#[test]
fn rows_move_while_they_are_written() {
    let demo = Demo::start("migrate");
    prepare(&demo);
    let plan = json(&demo, "plan", &[]);
    assert_eq!(plan["plan"]["blockers"], Value::from(Vec::<Value>::new()));
    assert_eq!(plan["plan"]["tables"].as_array().unwrap().len(), 8);
    let stay = demo.superuser(
        "sg-legacy",
        "legacy",
        "select md5(string_agg(u::text, '' order by id)) from users u where country <> 'US'",
    );

    demo.superuser(
        "sg-legacy",
        "legacy",
        "alter table payments alter id add generated by default as identity;
         select setval(pg_get_serial_sequence('payments', 'id'), max(id)) from payments",
    );
    let somebody_else =
        demo.superuser("sg-legacy", "legacy", "select max(id) from users where country = 'SG'");
    let load = Load::start(demo.port, 4);
    done(&demo, "start", &MOVER);
    // Somebody comes to live in the U.S. in the middle, somebody leaves, and their rows with them.
    demo.superuser("sg-legacy", "legacy", "update users set country = 'US' where id = (select id from users where country = 'DE' order by id limit 1)");
    demo.superuser("sg-legacy", "legacy", "update users set country = 'DE' where id = (select id from users where country = 'US' and id > 10 and id not in (4711) order by id limit 1)");
    done(&demo, "verify", &[]);

    let report = json(&demo, "cutover", &MOVER);
    assert_eq!(report["store"], "home");
    assert!(report["verified"]["tables"]["messages"]["rows"].as_i64().unwrap() > 5000, "{report}");
    std::thread::sleep(Duration::from_secs(1));
    let before = load.written.inserted.lock().unwrap().len();
    std::thread::sleep(Duration::from_secs(1));
    assert!(load.written.inserted.lock().unwrap().len() > before, "nobody writes any more");
    assert_eq!(route(&demo), "home");
    // Past the gateway, and through a name that still leads there: the rows that moved are fenced off, the others are not.
    let refused = demo.psql("us-engineer", "legacy", "update users set phone = '1' where id = 4711");
    assert!(text(&refused).contains("at home in the store home"), "{}", text(&refused));
    let free = demo.psql("us-engineer", "legacy", "update users set phone = phone where country = 'DE'");
    assert!(free.status.success(), "{}", text(&free));

    // What empties a table at the target would empty everybody's at the source.
    let truncate = |cluster: &str, name: &str| demo.attempt(cluster, name, "truncate watch_history");
    let told = text(&truncate("us-trusted", "home"));
    assert!(told.contains("would not reach the way back"), "{told}");
    let told = text(&truncate("sg-legacy", "legacy"));
    assert!(told.contains("at home in the store home"), "{told}");
    // Both sides go on drawing numbers, and none is drawn twice: the way back takes these rows.
    let draw = "insert into payments (user_id, card_last4, amount_cents, paid_at) select $1, '0000', 1, now() from generate_series(1, 50)";
    for (cluster, name, who) in [("us-trusted", "home", "4711"), ("sg-legacy", "legacy", &somebody_else)] {
        demo.superuser(cluster, name, &draw.replace("$1", who));
    }
    // Somebody leaves the country while their rows are at home there.
    demo.superuser("us-trusted", "home", "update users set country = 'DE' where id = (select id from users where id > 10 and id not in (4711) order by id limit 1)");

    // As a mover leaves it that dies in the middle of going back.
    demo.superuser("sg-legacy", "legacy", "alter subscription ringfence_back_us_home disable");
    done(&demo, "back", &MOVER);
    assert_eq!(route(&demo), "legacy");
    std::thread::sleep(Duration::from_secs(1));
    done(&demo, "verify", &[]);
    // Two at once: one of them is told to wait, or comes late. A transaction that is open elsewhere in the cluster keeps nobody waiting.
    let open = "begin; select pg_current_xact_id(); select pg_sleep(8); commit";
    let mut open =
        demo.superusers_psql("us-trusted", "postgres", open).stdout(Stdio::null()).spawn().unwrap();
    let mut movers = [begin(&demo, "ringfence", "cutover"), begin(&demo, "ringfence", "cutover")];
    let written = || load.written.inserted.lock().unwrap().len();
    let mut before = written();
    while open.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1500));
        assert!(written() > before, "clients wait for somebody else's transaction");
        before = written();
    }
    for mover in &mut movers {
        assert!(mover.wait().unwrap().success());
    }
    assert_eq!(route(&demo), "home");
    std::thread::sleep(Duration::from_secs(1));
    let written = load.stop();
    assert_eq!(*written.errors.lock().unwrap(), Vec::<String>::new());
    is_whole(&demo, "home", &written);
    println!(
        "{} transactions, the longest {:?}",
        written.raised.iter().map(|r| r.load(Ordering::Acquire)).sum::<u64>(),
        written.longest.lock().unwrap()
    );

    // A person who sees a face is told to come again; a temporary table cannot move.
    let shown = demo.ringfence(&["ledger", "show", "--grep", "us_home"]);
    for stage in ["started", "copied", "changed-over", "gone-back"] {
        assert!(text(&shown).contains(stage), "{stage}: {}", text(&shown));
    }
    let aborted = migrate(&demo, "ringfence", "abort", &MOVER);
    assert!(text(&aborted).contains("go back first"), "{}", text(&aborted));
    done(&demo, "back", &MOVER);
    is_whole(&demo, "legacy", &written);
    // As a mover leaves it that dies behind the decision: nobody may write on either side, until the same command goes on.
    let stopped = "create or replace function ringfence_move.until_us_home() returns timestamptz language plpgsql stable
        as $f$ begin return 'infinity'::timestamptz; end $f$";
    demo.superuser("sg-legacy", "legacy", stopped);
    let write = || demo.psql("us-engineer", "clips", "update users set phone = phone where id = 4711");
    assert!(text(&write()).contains("at home in the store home"), "{}", text(&write()));
    done(&demo, "back", &MOVER);
    assert!(write().status.success(), "{}", text(&write()));
    done(&demo, "abort", &MOVER);
    for (cluster, name) in [("sg-legacy", "legacy"), ("us-trusted", "home")] {
        let left = demo.superuser(
            cluster,
            name,
            "select count(*) from pg_publication union all select count(*) from pg_subscription
             union all select count(*) from pg_replication_slots
             union all select count(*) from pg_trigger where tgname like 'ringfence%'
             union all select count(*) from pg_attribute where attname = 'ringfence_moves' and not attisdropped
             union all select count(*) from pg_namespace where nspname = 'ringfence_move'",
        );
        assert_eq!(left, "0\n0\n0\n0\n0\n0", "{name}");
    }
    assert_eq!(demo.superuser("us-trusted", "home", "select count(*) from users"), "0");
    let stayed = demo.superuser("sg-legacy", "legacy", "select count(*) from users where country <> 'US'");
    assert!(stayed.parse::<u32>().unwrap() > 1000 && stay.len() == 32);
    assert!(demo.verify().is_ok());
}

#[test]
fn what_stands_in_the_way_is_told_before_anything_is_touched() {
    let demo = Demo::start("migrate-plan");
    let blocked = |wanted: &str| {
        let output = migrate(&demo, "ringfence", "start", &MOVER);
        assert!(!output.status.success() && text(&output).contains(wanted), "{wanted}: {}", text(&output));
        let touched = demo.superuser(
            "sg-legacy",
            "legacy",
            "select count(*) from pg_namespace where nspname = 'ringfence_move'",
        );
        assert_eq!(touched, "0", "{wanted}");
    };
    let legacy = |sql: &str| demo.superuser("sg-legacy", "legacy", sql);
    legacy("alter table watch_history drop constraint watch_history_pkey");
    blocked("watch_history: has no primary key");
    legacy("alter table watch_history add primary key (user_id, video_id, watched_at)");
    legacy("alter table devices set unlogged");
    blocked("devices: is unlogged");
    legacy("alter table devices set logged");
    legacy("alter table payments replica identity nothing");
    blocked("payments: has replica identity nothing");
    legacy("alter table payments replica identity default");
    legacy("alter table profiles add column picture oid");
    blocked("profiles: picture refers to large objects");
    legacy("alter table profiles drop column picture");
    let home = |sql: &str| demo.superuser("us-trusted", "home", sql);
    home("create table users (id int primary key, country char(2))");
    blocked("users: id is integer in home, and bigint here");
    home("drop table users");
    home(
        "create table follows (follower_id bigint, followee_id bigint, primary key (follower_id, followee_id)); insert into follows values (1, 2)",
    );
    blocked("follows: has rows in home already");
    home("drop table follows");
    legacy(
        "create type mood as enum ('good'); alter table profiles add column mood mood; alter table messages add constraint their_recipient foreign key (recipient_id) references users (id) not valid",
    );
    blocked("profiles: uses the type public.mood, which home has not");
    blocked("their_recipient wants recipient_id to be in public.users, and a party may live elsewhere");
    legacy(
        "alter table messages drop constraint their_recipient; alter table profiles drop column mood; drop type mood",
    );
    let stranger = migrate(&demo, "ringfence", "start", &["--as", "singapore-analyst"]);
    assert!(text(&stranger).contains("may not move"), "{}", text(&stranger));

    // Keys that are too far apart for a bit each: every row that moves gets a mark.
    legacy(
        "insert into users select 9000000000000000000, country, created_at, email, phone, full_name, birth_date from users where id = 4711; insert into devices select 9000000000000000000, 9000000000000000000, device_id, ip, model, 1, 1 from devices limit 1",
    );
    // An open transaction cannot move: after two seconds nobody is held any more, and nothing has changed.
    done(&demo, "start", &MOVER);
    let mut open = Command::new("psql")
        .arg(demo.dsn("us-engineer", "clips"))
        .args(["-X", "-c", "begin; select count(*) from users; select pg_sleep(12); commit"])
        .env("PGPASSWORD", "demo")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let refused = migrate(&demo, "ringfence", "cutover", &MOVER);
    assert!(text(&refused).contains("in the middle of something"), "{}", text(&refused));
    assert_eq!(route(&demo), "legacy");
    assert!(open.wait().unwrap().success());
    let marked = legacy(
        "select count(*) filter (where ringfence_moves) = count(*) filter (where user_id in (select id from users where country = 'US')), count(*) filter (where ringfence_moves) > 1000 from devices",
    );
    assert_eq!(marked, "t|t");
    done(&demo, "verify", &[]);

    // A row that the target has and the source has not is found, and keeps the rows where they are.
    done(&demo, "start", &MOVER);
    home(
        "set session_replication_role = replica; update users set email = 'canary' where id = 4711; delete from devices where id = (select min(id) from devices)",
    );
    let differs = migrate(&demo, "ringfence", "verify", &[]);
    let seen = text(&differs);
    assert!(
        !differs.status.success() && seen.contains("DIFFERS  users: ") && seen.contains("1 different"),
        "{seen}"
    );
    assert!(
        seen.contains("DIFFERS  devices") && seen.contains("1 missing") && !seen.contains("canary"),
        "{seen}"
    );
    let refused = migrate(&demo, "ringfence", "cutover", &MOVER);
    assert!(text(&refused).contains("2 rows differ"), "{}", text(&refused));
    assert_eq!(route(&demo), "legacy");
    let written = demo.psql("us-engineer", "clips", "update users set phone = '2' where id = 4711");
    assert!(written.status.success(), "{}", text(&written));
}

/// Starts a change-over as a process of its own.
fn begin(demo: &Demo, config: &str, what: &str) -> Child {
    Command::new(PROGRAM)
        .args(["migrate", what, "--as", "us-engineer"])
        .env("PGPASSWORD", "demo")
        .env("RINGFENCE_CONFIG", demo.dir.join(format!("{config}.toml")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills one of them, who comes back at once unless it is the mover. Returns whom.
fn strike(
    demo: &Demo,
    whom: u64,
    mover: &mut Child,
    gateway: &mut Option<Served>,
    load: &Load,
) -> &'static str {
    let victim = ["mover", "sg-legacy", "us-trusted", "gateway"][usize::try_from(whom).unwrap()];
    match victim {
        "mover" => drop(mover.kill()),
        "gateway" => {
            drop(gateway.take());
            let again = demo.serve("second", "");
            load.port.store(again.port, Ordering::Release);
            *gateway = Some(again);
        }
        cluster => demo.crash_store(cluster),
    }
    victim
}

/// How many rounds of killing there are; more of them for whoever has the time.
fn rounds() -> u32 {
    std::env::var("RF_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

#[test]
fn whoever_is_killed_the_rows_are_whole_on_one_side() {
    let demo = Demo::start("migrate-kill");
    prepare(&demo);
    let mut gateway = Some(demo.serve("second", ""));
    let port = gateway.as_ref().unwrap().port;
    done(&demo, "start", &MOVER);
    let load = Load::start(port, 3);
    let mut seed = u64::from(std::process::id()) ^ u64::from(Instant::now().elapsed().subsec_nanos());
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut at = "legacy".to_owned();
    for round in 0..rounds() {
        let (what, wanted) = if at == "legacy" { ("cutover", "home") } else { ("back", "legacy") };
        let mut mover = begin(&demo, "second", what);
        std::thread::sleep(Duration::from_millis(random(400)));
        let victim = strike(&demo, random(4), &mut mover, &mut gateway, &load);
        let _ = mover.wait();
        // Whatever happened: the same command again brings it to an end.
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let output = migrate(&demo, "second", what, &MOVER);
            let is_there = text(&output).contains("there is nothing to go back from");
            if output.status.success() || is_there {
                break;
            }
            assert!(Instant::now() < until, "round {round}, {victim} killed, {what}: {}", text(&output));
            std::thread::sleep(Duration::from_millis(500));
        }
        at = wanted.to_owned();
        let shown = Command::new("psql")
            .arg(format!(
                "host=127.0.0.1 port={} user=us-engineer dbname=ringfence",
                gateway.as_ref().unwrap().port
            ))
            .args(["-X", "-A", "-t", "-c", "show routes"])
            .env("PGPASSWORD", "demo")
            .output()
            .unwrap();
        assert!(
            text(&shown).starts_with(&format!("clips|{at}|")),
            "round {round}, {victim}: {}",
            text(&shown)
        );
        let before = load.written.inserted.lock().unwrap().len();
        let until = Instant::now() + Duration::from_secs(30);
        while load.written.inserted.lock().unwrap().len() < before + 20 {
            assert!(
                Instant::now() < until,
                "round {round}, {victim}: nobody can write; {:?}",
                load.written.errors.lock().unwrap().last()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("round {round}: {victim} killed during {what}, the rows are at {at}");
    }
    // Whoever has just got the rows crashes, and PostgreSQL forgets how far its slot was: nothing that came from the other side goes back.
    let again = |what: &str| {
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            let output = migrate(&demo, "second", what, &MOVER);
            if output.status.success() || text(&output).contains("there is nothing to go back from") {
                break;
            }
            assert!(Instant::now() < until, "{what}: {}", text(&output));
            std::thread::sleep(Duration::from_millis(500));
        }
    };
    for (what, cluster) in [("cutover", "us-trusted"), ("back", "sg-legacy"), ("cutover", "us-trusted")] {
        again(what);
        demo.crash_store(cluster);
    }
    again("back");
    "legacy".clone_into(&mut at);
    let written = load.stop();
    is_whole(&demo, &at, &written);
    drop(gateway);
}

#[test]
fn a_start_that_is_killed_goes_on() {
    let demo = Demo::start("migrate-start");
    prepare(&demo);
    // Large enough to get its key after its rows.
    demo.superuser("sg-legacy", "legacy", "insert into messages (id, sender_id, recipient_id, body, sent_at) select 10000000 + g, 4711, 1, repeat(md5(g::text), 12), now() from generate_series(1, 80000) g; analyze messages");
    let mut gateway = Some(demo.serve("second", ""));
    let load = Load::start(gateway.as_ref().unwrap().port, 2);
    // No room at the target: it is told, nobody else notices, and it goes on when there is room.
    demo.restart_store_under("us-trusted", "ulimit -f 49152");
    let full = migrate(&demo, "second", "start", &MOVER);
    assert!(text(&full).contains("cannot copy the rows"), "{}", text(&full));
    demo.restart_store("us-trusted");
    assert_eq!(*load.written.errors.lock().unwrap(), Vec::<String>::new());
    let mut seed = u64::from(std::process::id()) ^ u64::from(Instant::now().elapsed().subsec_nanos());
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for round in 0..rounds().div_ceil(2) {
        let mut mover = begin(&demo, "second", "start");
        std::thread::sleep(Duration::from_millis(random(2500)));
        let victim = strike(&demo, random(4), &mut mover, &mut gateway, &load);
        // What it was doing goes on as far as it can: nobody waits for it here.
        let _ = mover.kill();
        let _ = mover.wait();
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            let output = migrate(&demo, "second", "start", &MOVER);
            if output.status.success() {
                break;
            }
            assert!(Instant::now() < until, "round {round}, {victim} killed: {}", text(&output));
            std::thread::sleep(Duration::from_millis(500));
        }
        let verified = migrate(&demo, "second", "verify", &[]);
        assert!(verified.status.success(), "round {round}, {victim} killed: {}", text(&verified));
        let made = demo.superuser("us-trusted", "home", "select (select count(*) from pg_constraint where contype = 'p' and connamespace = 'public'::regnamespace), (select count(*) from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace = 'public'::regnamespace)");
        let wanted = demo.superuser("sg-legacy", "legacy", "select (select count(*) from pg_constraint where contype = 'p' and connamespace = 'public'::regnamespace), (select count(*) from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace = 'public'::regnamespace)");
        assert_eq!(made, wanted, "round {round}, {victim} killed: keys or indexes are missing");
        println!("round {round}: {victim} killed during start");
        if round + 1 < rounds().div_ceil(2) {
            let aborted = migrate(&demo, "second", "abort", &MOVER);
            assert!(aborted.status.success(), "round {round}, {victim} killed: {}", text(&aborted));
        }
    }
    let output = migrate(&demo, "second", "cutover", &MOVER);
    assert!(output.status.success(), "{}", text(&output));
    std::thread::sleep(Duration::from_secs(1));
    let written = load.stop();
    is_whole(&demo, "home", &written);
    let many = demo.superuser(
        "us-trusted",
        "home",
        "select count(*) from messages where id between 10000001 and 10080000",
    );
    assert_eq!(many, "80000");
    drop(gateway);
}
