//! The register of copies: real dumps, base backups, WAL, exports and what PostgreSQL knows of, found by what is in them.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on fails")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Demo, text};

const WHO: [&str; 2] = ["--as", "us-engineer"];

fn scan(demo: &Demo, more: &[&str]) -> Value {
    let output = demo.ringfence(&[&["copies", "scan", "--json", "--people", "200"], &WHO[..], more].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
}

/// A copy by the end of its place.
fn at<'a>(scan: &'a Value, place: &str) -> Option<&'a Value> {
    scan["copies"].as_array().unwrap().iter().find(|c| c["place"].as_str().unwrap().ends_with(place))
}

#[test]
fn copies_are_found_by_what_is_in_them() {
    let demo = Demo::start("copies");
    demo.shell("pg_dump -Fc -f backups/singapore/nightly.dump");
    demo.shell("pg_dump -Fd -f backups/singapore/weekly");
    demo.shell("pg_dump -Ft -f backups/singapore/monthly.tar");
    demo.shell("pg_dump | gzip > backups/virginia/plain.sql.gz");
    demo.shell("pg_dump -t follows -Fc -f backups/singapore/follows.dump");
    demo.shell("pg_basebackup -D backups/virginia/base -X fetch -c fast");
    demo.shell(
        "psql -qc \"copy (select id, email from users) to stdout csv\" > backups/singapore/for-marketing.txt",
    );
    demo.shell("psql -qc \"copy (select id, email from users where country <> 'US') to stdout csv\" > backups/singapore/others.csv",
    );
    demo.shell("mkdir backups/singapore/wal && cp sg-legacy/pg_wal/0000* backups/singapore/wal/");
    demo.shell("printf 'age-encryption.org/v1\\n-> X25519 x\\n' > backups/singapore/archive.age");
    demo.shell("head -c 3000 backups/singapore/nightly.dump > backups/singapore/broken.dump");
    // As a pg_dump of years from now would write it; and one in a wrapping of its own.
    demo.shell(
        "(printf 'PGDMP\\377'; tail -c +7 backups/singapore/nightly.dump) > backups/singapore/newer.dump",
    );
    demo.shell("gzip -c backups/singapore/nightly.dump > backups/singapore/nightly.dump.gz");
    demo.superuser("sg-legacy", "legacy", "create materialized view people as select id, email from users");
    demo.superuser("sg-legacy", "legacy", "select pg_create_physical_replication_slot('forgotten', true)");
    demo.superuser("sg-legacy", "legacy", "create publication everything for all tables");
    // Where no column has their values alone: in a document that the database keeps compressed, in another database, and by name nowhere.
    let emails = demo.superuser(
        "sg-legacy",
        "legacy",
        "select string_agg(email, ' ') from users where country = 'US'",
    );
    let document = format!("create table leftover as select jsonb_build_object('seen', '{emails}') as x");
    demo.superuser("sg-legacy", "postgres", &document);
    // A cluster whose rows lie in a tablespace; an archive in an archive; what nobody knows; a link to elsewhere.
    demo.shell("mkdir -p backups/singapore/moved/base backups/singapore/moved/pg_tblspc room && echo 15 > backups/singapore/moved/PG_VERSION && cp backups/singapore/for-marketing.txt room/16400 && ln -s $PWD/room backups/singapore/moved/pg_tblspc/16399");
    demo.shell("tar czf backups/singapore/both.tgz -C backups/singapore nightly.dump && head -c 5000 /dev/urandom > backups/singapore/noise.bin && ln -s /etc backups/singapore/elsewhere");
    demo.shell("mkdir backups/singapore/daily && pg_dump -Fd -t follows -f backups/singapore/daily/d && cp backups/singapore/for-marketing.txt backups/singapore/daily/d/notes");

    let found = scan(&demo, &[]);
    let holds =
        |place: &str| at(&found, place).map(|c| (c["kind"].as_str().unwrap(), c["holds"].as_str().unwrap()));
    for (place, kind) in [
        ("nightly.dump", "dump"),
        ("/weekly", "dump"),
        ("monthly.tar", "dump"),
        ("plain.sql.gz", "dump"),
        ("virginia/base", "base-backup"),
        ("for-marketing.txt", "export"),
        ("singapore/wal", "wal-archive"),
        ("database postgres", "database"),
        ("singapore/moved", "base-backup"),
        ("both.tgz", "export"),
        ("daily/d/notes", "export"),
        ("database legacy", "database"),
        ("materialised view public.people", "materialized-view"),
    ] {
        assert_eq!(holds(place), Some((kind, "found")), "{place} of {found}");
    }
    assert_eq!(
        at(&found, "nightly.dump").unwrap()["people"],
        at(&found, "nightly.dump").unwrap()["of"],
        "everybody is in it"
    );
    assert_eq!(holds("newer.dump"), Some(("dump", "unknown")));
    let why = at(&found, "newer.dump").unwrap()["why"].as_str().unwrap();
    assert!(why.contains("unsupported version"), "{why}");
    assert_eq!(holds("nightly.dump.gz"), Some(("dump", "found")));
    assert_eq!(holds("follows.dump"), Some(("dump", "nobody")));
    assert_eq!(holds("others.csv"), None, "an export without anybody of the jurisdiction is no copy");
    assert_eq!(holds("archive.age"), Some(("sealed", "unknown")));
    assert_eq!(holds("noise.bin"), Some(("sealed", "unknown")));
    let unread = found["could_not_read"].to_string();
    assert!(unread.contains("singapore/elsewhere: a link to /etc"), "{found}");
    assert_eq!(holds("broken.dump").unwrap().1, "unknown");
    assert_eq!(holds("slot forgotten"), Some(("slot", "everything")));
    assert!(at(&found, "slot forgotten").unwrap()["note"].as_str().unwrap().contains("nobody uses it"));
    assert_eq!(holds("publication everything").unwrap().0, "publication");
    let everything = found.to_string();
    assert!(!everything.contains('@'), "a value of somebody is in the answer");

    // What lies elsewhere is found when it is told where to look; what it did not look at is said.
    let hidden = demo.dir.join("somewhere");
    fs::create_dir(&hidden).unwrap();
    fs::copy(demo.dir.join("backups/singapore/nightly.dump"), hidden.join("x.bin")).unwrap();
    assert_eq!(at(&scan(&demo, &[]), "x.bin"), None);
    let folder = format!("{}=SG", hidden.display());
    let output = demo.ringfence(&[&["copies", "scan", "--folder", &folder], &WHO[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output);
    assert!(told.contains("x.bin: ") && told.contains("Not looked at: any other place"), "{told}");

    // The register: findings, an exception that the in-country team decides, and a copy that is gone.
    let listed = |more: &[&str]| -> Vec<Value> {
        let output = demo.ringfence(&[&["copies", "list", "--json"], &WHO[..], more].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    };
    let findings = listed(&["--findings"]);
    let is_finding =
        |place: &str, all: &[Value]| all.iter().any(|c| c["place"].as_str().unwrap().ends_with(place));
    assert!(is_finding("nightly.dump", &findings) && is_finding("archive.age", &findings));
    assert!(!is_finding("plain.sql.gz", &findings), "it is in the U.S.");
    assert!(!is_finding("follows.dump", &findings));
    let id = |place: &str| {
        let all = listed(&[]);
        let copy = all.iter().find(|c| c["place"].as_str().unwrap().ends_with(place)).unwrap().clone();
        copy["id"].as_str().unwrap().to_owned()
    };
    let sealed = id("archive.age");
    let except = |who: &str| {
        demo.ringfence(&[
            "copies",
            "except",
            &sealed,
            "--as",
            who,
            "--reason",
            "litigation",
            "--for",
            "30days",
        ])
    };
    assert!(!except("us-engineer").status.success(), "who is no approver has excepted a copy");
    assert!(except("us-approver-1").status.success());
    assert!(!is_finding("archive.age", &listed(&["--findings"])));

    fs::remove_file(demo.dir.join("backups/singapore/broken.dump")).unwrap();
    let again = scan(&demo, &[]);
    let broken = id("broken.dump");
    assert_eq!(again["not_seen_any_more"], Value::from(vec![broken.clone()]));
    let gone = demo.ringfence(&["copies", "gone", &broken, "--as", "us-engineer", "--reason", "deleted"]);
    assert!(gone.status.success(), "{}", text(&gone));
    let added = demo.ringfence(&[
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
    assert!(added.status.success(), "{}", text(&added));
    assert!(is_finding("tape 17, vault B", &listed(&["--findings"])));
    let stranger = demo.ringfence(&["copies", "list", "--as", "singapore-analyst"]);
    assert!(text(&stranger).contains("may not read"), "{}", text(&stranger));
    let shown = demo.ringfence(&["ledger", "show", "--grep", &sealed]);
    assert!(
        text(&shown).contains("registered by us-engineer")
            && text(&shown).contains("excepted by us-approver-1"),
        "{}",
        text(&shown)
    );
    assert!(demo.verify().is_ok());
}
