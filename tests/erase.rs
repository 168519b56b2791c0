//! What is left of moved rows is erased: from the legacy store, its files, its backups in two countries. Canaries in every moved row are
//! looked for by grep, before and after.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

#[path = "support/s3.rs"]
mod s3;
mod support;

use std::fs;
use std::process::Command;

use serde_json::Value;
use support::{Demo, text};

const WHO: [&str; 2] = ["--as", "us-engineer"];
const CANARY: &str = "CANARY-7d1f";

/// With the configuration that knows of the standby and the bucket.
fn ringfence(demo: &Demo, arguments: &[&str]) -> std::process::Output {
    demo.ringfence_with("erase", arguments)
}

fn ok(demo: &Demo, arguments: &[&str]) -> String {
    let output = ringfence(demo, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

/// Files with a canary, by `grep` and not by our own code; dumps are unpacked first.
fn grep(demo: &Demo) -> Vec<String> {
    let script = format!(
        "grep -rlaF {CANARY} sg-legacy/ sg-standby/ backups/ s3/ 2>/dev/null
         for f in backups/*/*.dump s3/dumps/*; do [ -e \"$f\" ] && pg_restore -f - \"$f\" | grep -qF {CANARY} && echo \"$f\"; done
         for f in backups/*/*.gz; do [ -e \"$f\" ] && zcat \"$f\" | grep -qF {CANARY} && echo \"$f\"; done; true"
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(&demo.dir).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Everything about people of other countries in a database of the legacy cluster, to the byte.
fn others(demo: &Demo, database: &str) -> String {
    let tables = [
        ("users", "country <> 'US'"),
        ("devices", "user_id in (select id from users where country <> 'US')"),
        ("messages", "sender_id in (select id from users where country <> 'US')"),
        ("payments", "user_id in (select id from users where country <> 'US')"),
        ("watch_history", "user_id in (select id from users where country <> 'US')"),
        ("profiles", "user_id in (select id from users where country <> 'US')"),
    ];
    let columns = "id,country,created_at,email,phone,full_name,birth_date|id,user_id,device_id,ip,model,last_lat,last_lon|id,sender_id,recipient_id,body,sent_at|id,user_id,card_last4,amount_cents,paid_at|user_id,video_id,watched_at,seconds|user_id,handle,display_name,bio";
    let digest = |((table, member), columns): ((&str, &str), &str)| {
        demo.superuser("sg-legacy", database, &format!("select count(*), md5(string_agg(r, E'\\n' order by r)) from (select row({columns})::text r from {table} where {member}) x"))
    };
    tables.into_iter().zip(columns.split('|')).map(digest).collect::<Vec<_>>().join("; ")
}

#[test]
fn nothing_is_left_of_rows_that_have_moved() {
    let demo = Demo::start("erase");
    let legacy = |sql: &str| demo.superuser("sg-legacy", "legacy", sql);
    // In every row of somebody in the U.S. that has a text; and in the log, where a program wrote one.
    let quiet = "set log_statement = 'none'; ";
    let us = "in (select id from users where country = 'US')";
    legacy(&format!(
        "{quiet} update users set full_name = '{CANARY}-' || id, email = '{CANARY}-' || id || '@example.org' where country = 'US';
         update messages set body = '{CANARY} ' || repeat(md5(id::text), 3) where sender_id {us};
         update devices set model = '{CANARY}' where user_id {us}; update profiles set bio = '{CANARY}' where user_id {us};
         update videos set title = '{CANARY}' where author_id {us}; analyze"
    ));
    let said = demo.psql(
        "us-engineer",
        "legacy",
        &format!("select count(*) from users where email = '{CANARY}-4711@example.org'"),
    );
    assert_eq!(text(&said).trim(), "1");
    demo.shell(
        "pg_dump -Fc -f backups/singapore/nightly.dump && pg_dump | gzip > backups/virginia/plain.sql.gz",
    );
    demo.shell("pg_basebackup -D backups/virginia/base -X fetch -c fast");
    demo.shell("psql -qc 'copy users to stdout csv' > backups/singapore/users.csv");
    demo.shell("mkdir backups/singapore/wal && cp sg-legacy/pg_wal/0000* backups/singapore/wal/");
    demo.shell("printf 'age-encryption.org/v1\\n-> X25519 x\\n' > backups/singapore/archive.age");
    demo.shell("psql -qc 'create materialized view people as select id, email from users'");
    demo.shell("psql -qc \"select pg_create_physical_replication_slot('forgotten', true)\"");
    // A standby, an object store, and a backup of our own with a copy on tape.
    demo.standby("sg-standby");
    demo.shell("mkdir -p s3/dumps && cp backups/singapore/nightly.dump s3/dumps/weekly.bin && printf 'access\nsecret\n' > s3.keys && printf 'access\nno\n' > wrong.keys");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _server = s3::serve(&demo.dir.join("s3"), port);
    let config = fs::read_to_string(demo.dir.join("ringfence.toml")).unwrap();
    let config = format!(
        "{config}
[[copies.standbys]]
store = \"legacy\"
name = \"sg-standby\"
location = \"SG\"
url = \"host='{}' user=postgres dbname=legacy\"
data_dir = \"sg-standby\"

[[copies.buckets]]
location = \"SG\"
bucket = {{ endpoint = \"http://127.0.0.1:{port}\", name = \"dumps\", keys = \"s3.keys\" }}
",
        demo.dir.join("sg-standby").canonicalize().unwrap().display()
    );
    fs::write(demo.dir.join("erase.toml"), &config).unwrap();
    fs::write(demo.dir.join("refused.toml"), config.replace("\"s3.keys\"", "\"wrong.keys\"")).unwrap();
    let refused = demo
        .ringfence_with("refused", &[&["copies", "scan", "--dry-run", "--people", "50"], &WHO[..]].concat());
    let told = text(&refused);
    assert!(told.contains("NOT LOOKED INTO") && told.contains("the object store answers 403"), "{told}");
    let folder = demo.dir.join("backups/singapore").display().to_string();
    let made =
        ok(&demo, &[&["backup", "run", "--store", "legacy", "--to", &folder, "--json"], &WHO[..]].concat());
    let made: Value = serde_json::from_str(&made).unwrap();
    let backup = made["folder"].as_str().unwrap().to_owned();
    demo.shell(&format!("cp -r {backup} backups/virginia/tape"));
    let identity = demo.dir.join("keys/backup.identity").display().to_string();
    let restore = |folder: &str, to: &str| {
        let to = demo.dir.join(to).display().to_string();
        let arguments =
            ["backup", "restore", folder, "--identity", &identity, "--reason", "a drill", "--output", &to];
        (ok(&demo, &[&arguments[..], &WHO[..]].concat()), fs::read_to_string(to).unwrap())
    };
    let (_, whole) = restore(&backup, "before.sql");
    assert!(whole.contains(CANARY));
    let stranger = demo.dir.join("stranger.key").display().to_string();
    ok(&demo, &["backup", "keygen", "--out", &stranger]);
    let refused = ringfence(&demo, &["backup", "check", &backup, "--identity", &stranger]);
    assert!(!refused.status.success() && text(&refused).contains("cannot be opened with these identities"));
    let before = others(&demo, "legacy");
    let found = grep(&demo);
    for place in [
        "sg-legacy/base",
        "sg-legacy/pg_wal",
        "sg-legacy/log",
        "nightly.dump",
        "plain.sql.gz",
        "virginia/base",
        "users.csv",
        "singapore/wal",
        "sg-standby/base",
        "s3/dumps/weekly.bin",
    ] {
        assert!(found.iter().any(|f| f.contains(place)), "no canary in {place}: {found:?}");
    }

    ok(&demo, &[&["migrate", "start"], &WHO[..]].concat());
    let early = ringfence(&demo, &[&["erase", "plan"], &WHO[..]].concat());
    assert!(text(&early).contains("the rows have not left legacy"), "{}", text(&early));
    ok(&demo, &[&["migrate", "cutover"], &WHO[..]].concat());
    let scanned = ringfence(&demo, &[&["copies", "scan"], &WHO[..]].concat());
    let told = text(&scanned);
    assert!(told.contains("/dumps/weekly.bin: 500 of 500 people found"), "{told}");
    assert!(told.contains("virginia/tape/us.sql.age: everything"), "{told}");

    let asked = ok(
        &demo,
        &[&["erase", "request", "--purpose", "letter of 2022", "--rewrite-dumps", "--json"], &WHO[..]]
            .concat(),
    );
    let asked: Value = serde_json::from_str(&asked).unwrap();
    let id = asked["id"].as_str().unwrap().to_owned();
    let plan = asked["plan"].to_string();
    for place in [
        "nightly.dump",
        "plain.sql.gz",
        "virginia/base",
        "users.csv",
        "singapore/wal",
        "slot forgotten",
        "database legacy",
        "postgresql.csv",
        "/dumps/weekly.bin",
        "virginia/tape/us.sql.age",
        "\"action\":\"destroy-key\"",
        "\"action\":\"rewrite-dump\"",
    ] {
        assert!(plan.contains(place), "{place} is not in {plan}");
    }
    assert!(asked["plan"]["remains"].to_string().contains("archive.age"));
    let run_early = ringfence(&demo, &[&["erase", "run", &id], &WHO[..]].concat());
    assert!(text(&run_early).contains("0 of 2 approvals"), "{}", text(&run_early));
    let key = |who: &str| demo.dir.join("keys").join(who).display().to_string();
    // Nobody else's signature, and no signature of something else.
    let wrong =
        ringfence(&demo, &["erase", "approve", &id, "--as", "us-approver-1", "--key", &key("us-approver-2")]);
    assert!(!wrong.status.success());
    let stranger =
        ringfence(&demo, &["erase", "approve", &id, "--as", "us-engineer", "--key", &key("us-approver-1")]);
    assert!(!stranger.status.success());
    for who in ["us-approver-1", "us-approver-2"] {
        ok(&demo, &["erase", "approve", &id, "--as", who, "--key", &key(who)]);
    }
    // Whoever runs it is killed in the middle, at any moment: the same command again goes on.
    let mut cut_off = Command::new(support::PROGRAM)
        .args(["erase", "run", &id, "--as", "us-engineer"])
        .env("PGPASSWORD", "demo")
        .env("RINGFENCE_CONFIG", demo.dir.join("erase.toml"))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(u64::from(std::process::id()) % 4000));
    cut_off.kill().unwrap();
    assert!(!cut_off.wait().unwrap().success(), "it was done before it could be killed");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(90);
    let done = loop {
        let done = ringfence(&demo, &[&["erase", "run", &id], &WHO[..]].concat());
        if done.status.success() || std::time::Instant::now() > until {
            break done;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    };
    assert!(done.status.success(), "{}", text(&done));
    assert!(text(&done).contains(": 0 found") && text(&done).contains("archive.age"), "{}", text(&done));

    assert_eq!(grep(&demo), Vec::<String>::new());
    // The backup's files are where they were, on tape, too: without the people of the U.S., with everybody else.
    for folder in [backup.clone(), demo.dir.join("backups/virginia/tape").display().to_string()] {
        let to = format!("after-{}.sql", folder.len());
        let (told, rest) = restore(&folder, &to);
        assert!(told.contains("DESTROYED  us.sql.age") && !rest.contains(CANARY), "{told}");
        assert!(rest.lines().count() > 10_000 && rest.contains("COPY"), "others' rows are gone with them");
    }
    let again = text(&ringfence(&demo, &[&["copies", "scan"], &WHO[..]].concat()));
    assert!(
        again.contains("virginia/tape/us.sql.age: unreadable, its key was destroyed under E-"),
        "{again}"
    );
    let standby = demo.superuser(
        "sg-standby",
        "legacy",
        "select pg_is_in_recovery(), count(*) from users where country = 'US'",
    );
    assert_eq!(standby, "t|0");
    assert_eq!(legacy("select count(*) from users where country = 'US'"), "0");
    assert_eq!(legacy("select count(*) from people"), legacy("select count(*) from users"));
    assert_eq!(before, others(&demo, "legacy"), "rows of other people have changed");
    // Dumps were written anew: everybody else is in them as before, to the byte.
    for (n, dump) in
        ["backups/singapore/nightly.dump.sql.gz", "backups/virginia/plain.sql.gz"].iter().enumerate()
    {
        let name = format!("restored{n}");
        demo.superuser("sg-legacy", "postgres", &format!("create database {name} template template0"));
        demo.shell(&format!("zcat {dump} | psql -q -o /dev/null {name} 2>/dev/null"));
        assert_eq!(before, others(&demo, &name), "{dump}");
        assert_eq!(
            demo.superuser("sg-legacy", &name, "select count(*) from users where country = 'US'"),
            "0"
        );
        demo.superuser("sg-legacy", "postgres", &format!("drop database {name}"));
    }
    assert_eq!(legacy("select slot_name from pg_replication_slots"), "standby");
    assert_eq!(
        legacy("select count(*) from pg_attribute where attname = 'ringfence_moves' and not attisdropped"),
        "0"
    );
    assert!(fs::exists(demo.dir.join("backups/singapore/archive.age")).unwrap());

    // The rows are at home, in use, and cannot come to the legacy store again.
    let counted = demo.psql(
        "feed-service",
        "clips",
        &format!("select count(*) > 2000 from users where email like '{CANARY}%'"),
    );
    assert_eq!(text(&counted).trim(), "t");
    let written = demo.psql("feed-service", "clips", "update users set phone = '1' where id = 4711");
    assert!(written.status.success(), "{}", text(&written));
    let refused = demo.psql("us-engineer", "legacy", "insert into users select 4711, 'US', created_at, email, phone, full_name, birth_date from users limit 1");
    assert!(text(&refused).contains("at home in the store home"), "{}", text(&refused));
    let refused = demo.psql("us-engineer", "legacy", "insert into devices select 99999999, 4711, device_id, ip, model, last_lat, last_lon from devices limit 1");
    assert!(text(&refused).contains("at home in the store home"), "{}", text(&refused));
    let again = ringfence(&demo, &[&["erase", "run", &id], &WHO[..]].concat());
    assert!(text(&again).contains("is done"), "{}", text(&again));
    let back = ringfence(&demo, &[&["migrate", "back"], &WHO[..]].concat());
    assert!(text(&back).contains("there is no way back"), "{}", text(&back));

    // Somebody puts one back: verify finds it by its bytes.
    ok(&demo, &[&["erase", "verify", &id], &WHO[..]].concat());
    fs::write(demo.dir.join("backups/singapore/again.bin"), format!("xx{CANARY}-4711@example.orgxx"))
        .unwrap();
    let again = ringfence(&demo, &[&["erase", "verify", &id], &WHO[..]].concat());
    assert!(!again.status.success() && text(&again).contains("again.bin"), "{}", text(&again));

    // The certificate is on record, and a stranger sees that it was approved.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let shown = ok(&demo, &["ledger", "show", "--grep", &id]);
    assert!(shown.contains("erasure-certificate") && shown.contains("by us-approver-2"), "{shown}");
    assert!(!shown.contains(CANARY));
    // The platform went on meanwhile: no table was locked.
    let certificate = text(&ringfence(&demo, &["erase", "show", &id, "--as", "auditor", "--json"]));
    let certificate: Value = serde_json::from_str(&certificate).unwrap();
    assert_eq!(certificate["certificate"]["rewritten_in_use"], 8, "{certificate}");
    assert_eq!(legacy("select count(*) from pg_extension where extname = 'pg_repack'"), "0");
    let verified = Command::new(support::verifier())
        .arg(demo.dir.join("ledger"))
        .arg("--trust")
        .arg(demo.dir.join("witnesses.policy"))
        .output()
        .unwrap();
    assert!(verified.status.success() && text(&verified).contains("2 approvals"), "{}", text(&verified));
}

#[test]
fn one_person_is_erased_everywhere() {
    let demo = Demo::start("erase-me");
    let ringfence = |arguments: &[&str]| demo.ringfence(arguments);
    let ok = |arguments: &[&str]| {
        let output = ringfence(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    };
    let legacy = |sql: &str| demo.superuser("sg-legacy", "legacy", sql);
    let quiet = "set log_statement = 'none'; ";
    for (cluster, name) in [("sg-legacy", "legacy"), ("us-trusted", "us")] {
        demo.superuser(cluster, name, &format!(
            "{quiet} update users set country = 'US', email = '{CANARY}@example.org', full_name = '{CANARY} of nowhere' where id = 4711;
             update messages set body = '{CANARY} ' || repeat(md5(id::text), 3) where sender_id = 4711; analyze"));
    }
    legacy(
        "insert into messages (id, sender_id, recipient_id, body, sent_at) values (77777777, 2, 4711, 'hello', now())",
    );
    legacy(&format!("select count(*) from users where email = '{CANARY}@example.org'"));
    // The rows are at home elsewhere, with a way back: what is erased there is erased here, too.
    ok(&[&["migrate", "start"], &WHO[..]].concat());
    ok(&[&["migrate", "cutover"], &WHO[..]].concat());
    demo.shell("pg_dump -Fc -f backups/singapore/nightly.dump && pg_dump -Fd -f backups/singapore/weekly && pg_dump -f backups/virginia/plain.sql");
    demo.shell("pg_basebackup -D backups/virginia/base -X fetch -c fast");
    ok(&[
        "copies",
        "add",
        "--as",
        "us-engineer",
        "--location",
        "SG",
        "--place",
        "tape 17, vault B",
        "--owner",
        "platform",
    ]);
    let count = "select (select count(*) from users), (select count(*) from messages), (select count(*) from devices)";
    let before = legacy(count);

    let nobody = ringfence(&[&["erase", "plan", "--subject", "users:999999999"], &WHO[..]].concat());
    assert!(text(&nobody).contains("no store has rows about them"), "{}", text(&nobody));
    let wrong = ringfence(&[&["erase", "plan", "--subject", "languages:1"], &WHO[..]].concat());
    assert!(!wrong.status.success());
    let arguments = [
        "erase",
        "request",
        "--subject",
        "users:4711",
        "--rewrite",
        "--rewrite-dumps",
        "--purpose",
        "Art. 17 GDPR, ticket 4",
        "--json",
    ];
    let asked: Value = serde_json::from_str(&ok(&[&arguments[..], &WHO[..]].concat())).unwrap();
    let id = asked["id"].as_str().unwrap().to_owned();
    let plan = asked["plan"].to_string();
    for wanted in [
        "home: users",
        "legacy: users",
        "us: users",
        "nightly.dump",
        "messages.recipient_id",
        "empty-log",
        "tape 17, vault B",
        "rewrite-dump",
    ] {
        assert!(plan.contains(wanted), "{wanted}: {plan}");
    }
    assert!(!plan.contains(CANARY));
    assert!(!ringfence(&[&["erase", "run", &id], &WHO[..]].concat()).status.success());
    for who in ["us-approver-1", "us-approver-2"] {
        let key = demo.dir.join("keys").join(who).display().to_string();
        ok(&["erase", "approve", &id, "--as", who, "--key", &key]);
    }
    let done = ringfence(&[&["erase", "run", &id], &WHO[..]].concat());
    let told = text(&done);
    assert!(done.status.success() && told.contains("LEFT") && told.contains("virginia/base"), "{told}");
    for (gone, now) in [
        ("singapore/nightly.dump", "singapore/nightly.dump.sql.gz"),
        ("singapore/weekly", "singapore/weekly.sql.gz"),
        ("", "virginia/plain.sql"),
    ] {
        assert!(gone.is_empty() || !fs::exists(demo.dir.join("backups").join(gone)).unwrap(), "{gone}");
        demo.shell(&format!(
            "! zcat -f backups/{now} | grep -q {CANARY} && zcat -f backups/{now} | grep -q ^4712"
        ));
    }
    fs::remove_dir_all(demo.dir.join("backups/virginia/base")).unwrap();
    let left = Command::new("sh")
        .args(["-c", &format!("grep -rlaF {CANARY} sg-legacy/ us-trusted/ backups/; true")])
        .current_dir(&demo.dir)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&left.stdout),
        "",
        "values of the person are left in a cluster's files"
    );
    for (cluster, name) in [("sg-legacy", "legacy"), ("us-trusted", "us"), ("us-trusted", "home")] {
        let rows = demo.superuser(cluster, name, "select (select count(*) from users where id = 4711) + (select count(*) from messages where sender_id = 4711) + (select count(*) from devices where user_id = 4711)");
        assert_eq!(rows, "0", "{name}");
    }
    let after = legacy(count);
    assert_ne!(before, after);
    assert_eq!(
        legacy("select count(*) from messages where id = 77777777"),
        "1",
        "somebody else's row is gone"
    );
    let users = |counts: &str| counts.split('|').next().unwrap().parse::<u32>().unwrap();
    assert_eq!(users(&before), users(&after) + 1);
    ok(&[&["erase", "verify", &id], &WHO[..]].concat());
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(demo.verify().is_ok());
}
