//! What is decided of one text does not hold for another: constants that are placeholders, words that
//! mean something else in the store's version of PostgreSQL.

use super::{ANALYST, Place};
use crate::harness::client::{end, run};

/// Who else sends texts.
const OTHER: &str = "beijing-engineer";

/// A text whose constants are the placeholders of keys is the key of other texts.
#[test]
fn a_text_that_is_a_key_is_no_other_text() {
    let place = Place::turn();
    let pairs = [
        (
            "select string_agg(email, '') from (select email from users limit 0) p",
            "select string_agg(email, '|') from (select email from users limit 30) p",
        ),
        (
            "select array(select email from users order by id limit 0)",
            "select array(select email from users order by id limit 30)",
        ),
        (
            "select (select (select email from users order by id offset g limit 0) e from generate_series(0, 0) g limit 1)",
            "select (select string_agg(e, '') from (select (select email from users order by id offset g limit 1) e \
             from generate_series(1, 30) g) s)",
        ),
        (
            "select (select email from users order by id offset g limit 0) from generate_series(0, 0) g",
            "select (select email from users order by id offset g limit 1) from generate_series(1, 30) g",
        ),
        (
            "select string_agg(email, '') from (select email from users fetch first 0 rows only) p",
            "select string_agg(email, ' ') from (select email from users fetch first 30 rows only) p",
        ),
    ];
    for (first, then) in pairs {
        for who in [ANALYST, OTHER] {
            let grant = place.grant(40, 20);
            end({
                let mut wire = place.connect(who, false);
                run(&mut wire, first);
                wire
            });
            let mut wire = place.connect(ANALYST, false);
            let clear = place.emails_in(&run(&mut wire, then).bytes).len() as u64;
            end(wire);
            let charged = grant.settled();
            assert!(clear <= charged, "{then}: {clear} clear values, {charged} charged");
        }
    }
    // Nor is a refusal of one person's text one of another's.
    for (first, then) in [
        ("set statement_timeout = 0", "set statement_timeout = 5000"),
        ("select id::float(0) from users limit 0", "select id::float(5) from users limit 1"),
        (
            "copy (select country from users where id = 0) to ''",
            "copy (select country from users where id = 1) to stdout",
        ),
    ] {
        let mut wire = place.connect(OTHER, false);
        run(&mut wire, first);
        end(wire);
        let mut wire = place.connect(ANALYST, false);
        assert_eq!(run(&mut wire, then).sqlstate(), None, "{then}");
        end(wire);
    }
    let mut wire = place.connect(ANALYST, false);
    let answer = run(&mut wire, "copy (select country from users where id = 7) to '/tmp/zz'");
    assert!(answer.error().contains("not allowed through a face"), "{}", answer.error());
    end(wire);
}

/// `SYSTEM_USER` is a function since PostgreSQL 16; before, it is a name like any other.
#[test]
fn a_word_of_a_newer_grammar_hides_no_column() {
    let place = Place::turn();
    let grant = place.grant(40, 20);
    for sql in [
        "select (select string_agg(system_user, ',') from (values (1)) v) from (select email as \"system_user\" from users) s",
        "select system_user, \"system_user\".id from users as \"system_user\" order by id limit 30",
        "select (select string_agg(\"system_user\", ',') from (values (1)) v) from (select email as \"system_user\" from users) s",
    ] {
        for is_pooled in [false, true] {
            let mut wire = place.connect(ANALYST, is_pooled);
            let before = grant.settled();
            let clear = place.emails_in(&run(&mut wire, sql).bytes).len() as u64;
            end(wire);
            let charged = grant.settled() - before;
            assert!(clear <= charged, "{sql}: {clear} clear values, {charged} charged");
        }
    }
}
