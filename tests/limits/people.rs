//! What an aggregate shows of a table is counted person by person: those of several grants add up, and those
//! who take the place of others count, too.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::{Place, lock};
use crate::harness::client::{Answer, end, run};
use crate::harness::support::text;
use crate::harness::support::wire::Wire;

/// What the meter of the session gateway has for somebody: in clear, and in any form.
fn metered(place: &Place, who: &str, category: &str) -> (u64, u64) {
    std::thread::sleep(Duration::from_secs(2));
    let output = place.demo.ringfence(&["meter", "--json"]);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let lines = report["lines"].as_array().unwrap();
    let mine = lines.iter().find(|line| line["recipient"]["name"] == who && line["category"] == category);
    let number = |key: &str| mine.map_or(0, |line| line[key].as_u64().unwrap());
    (number("clear") + number("clear_unknown"), number("any") + number("any_unknown"))
}

fn fold(wire: &mut Wire, sql: &str) -> Answer {
    let answer = run(wire, sql);
    assert_eq!((answer.sqlstate(), answer.rows.len()), (None, 1), "{sql}: {}", answer.error());
    answer
}

#[test]
fn aggregates_of_several_grants_add_up() {
    let place = Place::turn();
    let reader = place.readers(9001).remove(0);
    let mut all = BTreeSet::new();
    for first in [0, 100, 200] {
        let (from, to) = (place.ids[first], place.ids[first + 20]);
        let condition = format!("id between {from} and {to}");
        let id = place.demo.grant(&reader, "users.email", &condition, &["--max-rows", "5000"]);
        let mut wire = place.connect(&reader, false);
        let answer = fold(&mut wire, "select string_agg(email, ' ') from users");
        all.extend(place.emails_in(&answer.bytes));
        end(wire);
        place.demo.ringfence(&["revoke", &id, "--as", "us-approver-3"]);
    }
    assert_eq!(all.len(), 63);
    let (clear, any) = metered(&place, &reader, "covered-personal-identifiers");
    assert!(clear >= 63, "{clear} in clear");
    assert!(any >= 63, "{any}");
}

#[test]
fn people_who_take_the_place_of_others_count_too() {
    let place = Place::turn();
    let reader = place.readers(9002).remove(0);
    let store = |sql: &str| lock(&place.store).rows(sql);
    let count = || -> u64 {
        lock(&place.store).value("select count(distinct user_id) from payments").parse().unwrap()
    };
    let money = || metered(&place, &reader, "personal-financial").1;
    assert_eq!(money(), 0);
    store("create table kept as select * from payments");
    let (a, b, c) = (place.ids[100], place.ids[200], place.ids[300]);
    store(&format!("delete from payments where user_id > {a}"));
    let sql = "select string_agg(card_last4 || ':' || amount_cents, ',') from payments";
    let mut wire = place.connect(&reader, false);
    fold(&mut wire, sql);
    let few = count();
    assert_eq!(money(), few);
    let refill = |from: u64, to: u64| {
        let rows = format!("select * from kept where user_id > {from} and user_id <= {to}");
        store(&format!("delete from payments; insert into payments {rows}"));
    };
    refill(a, b);
    fold(&mut wire, sql);
    let more = count();
    assert_eq!(money(), few + more);
    // The rows as they were before are refused: how many there were nobody knows.
    run(&mut wire, "begin isolation level repeatable read");
    assert_eq!(run(&mut wire, "select id from videos limit 1").sqlstate(), None);
    refill(b, c);
    assert_eq!(run(&mut wire, sql).sqlstate(), Some("0A000"));
    run(&mut wire, "rollback");
    end(wire);
    store("delete from payments; insert into payments select * from kept; drop table kept");
}
