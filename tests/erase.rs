//! What is left of moved rows is erased: from the legacy store, its files, its backups in two countries. Canaries in every moved row are
//! looked for by grep, before and after.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::process::Command;

use serde_json::Value;
use support::{Demo, text};

const WHO: [&str; 2] = ["--as", "us-engineer"];
const CANARY: &str = "CANARY-7d1f";

fn ok(demo: &Demo, arguments: &[&str]) -> String {
    let output = demo.ringfence(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

/// Files with a canary, by `grep` and not by our own code; dumps are unpacked first.
fn grep(demo: &Demo) -> Vec<String> {
    let script = format!(
        "grep -rlaF {CANARY} sg-legacy/ backups/ 2>/dev/null
         for f in backups/*/*.dump; do [ -e \"$f\" ] && pg_restore -f - \"$f\" | grep -qF {CANARY} && echo \"$f\"; done
         for f in backups/*/*.gz; do [ -e \"$f\" ] && zcat \"$f\" | grep -qF {CANARY} && echo \"$f\"; done; true"
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(&demo.dir).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Everything about people of other countries, to the byte.
fn others(demo: &Demo) -> String {
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
        demo.superuser("sg-legacy", "legacy", &format!("select count(*), md5(string_agg(r, E'\\n' order by r)) from (select row({columns})::text r from {table} where {member}) x"))
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
    let before = others(&demo);
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
    ] {
        assert!(found.iter().any(|f| f.contains(place)), "no canary in {place}: {found:?}");
    }

    ok(&demo, &[&["migrate", "start"], &WHO[..]].concat());
    let early = demo.ringfence(&[&["erase", "plan"], &WHO[..]].concat());
    assert!(text(&early).contains("the rows have not left legacy"), "{}", text(&early));
    ok(&demo, &[&["migrate", "cutover"], &WHO[..]].concat());
    let _ = demo.ringfence(&[&["copies", "scan"], &WHO[..]].concat());

    let asked =
        ok(&demo, &[&["erase", "request", "--purpose", "letter of 2022", "--json"], &WHO[..]].concat());
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
    ] {
        assert!(plan.contains(place), "{place} is not in {plan}");
    }
    assert!(asked["plan"]["remains"].to_string().contains("archive.age"));
    let run_early = demo.ringfence(&[&["erase", "run", &id], &WHO[..]].concat());
    assert!(text(&run_early).contains("0 of 2 approvals"), "{}", text(&run_early));
    let key = |who: &str| demo.dir.join("keys").join(who).display().to_string();
    // Nobody else's signature, and no signature of something else.
    let wrong =
        demo.ringfence(&["erase", "approve", &id, "--as", "us-approver-1", "--key", &key("us-approver-2")]);
    assert!(!wrong.status.success());
    let stranger =
        demo.ringfence(&["erase", "approve", &id, "--as", "us-engineer", "--key", &key("us-approver-1")]);
    assert!(!stranger.status.success());
    for who in ["us-approver-1", "us-approver-2"] {
        ok(&demo, &["erase", "approve", &id, "--as", who, "--key", &key(who)]);
    }
    let done = demo.ringfence(&[&["erase", "run", &id], &WHO[..]].concat());
    assert!(done.status.success(), "{}", text(&done));
    assert!(text(&done).contains(": 0 found") && text(&done).contains("archive.age"), "{}", text(&done));

    assert_eq!(grep(&demo), Vec::<String>::new());
    assert_eq!(legacy("select count(*) from users where country = 'US'"), "0");
    assert_eq!(legacy("select count(*) from people"), legacy("select count(*) from users"));
    assert_eq!(before, others(&demo), "rows of other people have changed");
    assert_eq!(legacy("select count(*) from pg_replication_slots"), "0");
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
    let back = demo.ringfence(&[&["migrate", "back"], &WHO[..]].concat());
    assert!(text(&back).contains("there is no way back"), "{}", text(&back));

    // Somebody puts one back: verify finds it by its bytes.
    ok(&demo, &[&["erase", "verify", &id], &WHO[..]].concat());
    fs::write(demo.dir.join("backups/singapore/again.bin"), format!("xx{CANARY}-4711@example.orgxx"))
        .unwrap();
    let again = demo.ringfence(&[&["erase", "verify", &id], &WHO[..]].concat());
    assert!(!again.status.success() && text(&again).contains("again.bin"), "{}", text(&again));

    // The certificate is on record, and a stranger sees that it was approved.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let shown = ok(&demo, &["ledger", "show", "--grep", &id]);
    assert!(shown.contains("erasure-certificate") && shown.contains("by us-approver-2"), "{shown}");
    assert!(!shown.contains(CANARY));
    let verified = Command::new(support::verifier())
        .arg(demo.dir.join("ledger"))
        .arg("--trust")
        .arg(demo.dir.join("witnesses.policy"))
        .output()
        .unwrap();
    assert!(verified.status.success() && text(&verified).contains("2 approvals"), "{}", text(&verified));
}
