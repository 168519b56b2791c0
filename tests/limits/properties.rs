//! What the analysis of a text says, against what PostgreSQL does with the text.

use std::collections::BTreeSet;

use ringfence_statement::analysis::Analysis;
use ringfence_statement::scope::UNBOUNDED;
use ringfence_statement::settings::Settings;

use super::generator::{Random, reading};
use super::{ANALYST, Place, lock};
use crate::harness::client::{end, run};

fn generated(seed: u64, count: u64) -> Vec<String> {
    let mut random = Random(seed);
    (0..count).map(|_| reading(&mut random, "", 2)).collect()
}

fn count() -> u64 {
    std::env::var("RF_GENERATED_QUERIES").map_or(600, |v| v.parse().unwrap())
}

/// The scope of a query has each relation of PostgreSQL's own plan, with the face's views resolved.
#[test]
fn a_scope_has_each_relation_of_the_plan() {
    let place = Place::turn();
    // A face of somebody who sees masks.
    let mut wire = place.connect(ANALYST, false);
    run(&mut wire, "select id from users limit 1");
    let store = lock(&place.store);
    let face = store.value("select nspname from pg_namespace where nspname like 'rf\\_%' limit 1");
    store.value(&format!("set search_path = {face}"));
    let mut planned = 0;
    for sql in generated(3, count()) {
        let scope = Analysis::of(&sql, Settings::default()).scope;
        let Some(plan) = store.attempt(&format!("explain (verbose, format json) {sql}")) else { continue };
        planned += 1;
        let plan: serde_json::Value = serde_json::from_str(&plan.concat().concat()).unwrap();
        let mut relations = BTreeSet::new();
        collect(&plan, &mut relations);
        for relation in relations {
            assert!(
                scope.is_unknown || scope.tables.contains_key(&relation),
                "{sql}: the plan reads {relation}, the scope has {:?}",
                scope.tables.keys()
            );
        }
    }
    assert!(planned * 2 > count(), "most queries have a plan: {planned}");
    store.value("reset search_path");
    end(wire);
}

fn collect(plan: &serde_json::Value, relations: &mut BTreeSet<String>) {
    match plan {
        serde_json::Value::Array(all) => all.iter().for_each(|one| collect(one, relations)),
        serde_json::Value::Object(fields) => {
            let name = fields.get("Relation Name").and_then(|n| n.as_str());
            // The masks' key is the face's own, not the query's.
            relations.extend(name.filter(|n| *n != "mask_key").map(str::to_owned));
            fields.values().for_each(|one| collect(one, relations));
        }
        _ => {}
    }
}

/// Each address is a token of one row: no row of a result has tokens of more rows than the bound.
#[test]
fn no_row_holds_tokens_of_more_rows_than_the_bound() {
    let place = Place::turn();
    let store = lock(&place.store);
    let columns: BTreeSet<(String, String)> = store
        .rows("select table_name, column_name from information_schema.columns where table_schema = 'public'")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let has_column = |table: &str, column: &str| columns.contains(&(table.to_owned(), column.to_owned()));
    // Few rows, so that what has no bound is not slow.
    store.value(
        "create schema if not exists few; create table if not exists few.users as select * from public.users order by id limit 40; \
         create table if not exists few.devices as select * from public.devices where user_id in (select id from few.users); \
         create table if not exists few.messages as select * from public.messages limit 20; set search_path = few",
    );
    let (mut bounded, mut held) = (0, 0);
    for sql in generated(5, count()) {
        let scope = Analysis::of(&sql, Settings::default()).scope;
        let most = scope.max_rows("users", &has_column);
        if most == UNBOUNDED {
            continue;
        }
        let Some(rows) = store.attempt(&sql) else { continue };
        bounded += 1;
        for row in rows {
            let tokens = place.emails_in(row.join("\u{1}").as_bytes()).len() as u64;
            held += tokens;
            assert!(tokens <= most, "{sql}: {tokens} in one row, the bound is {most}");
        }
    }
    store.value("reset search_path; drop schema few cascade");
    assert!(bounded > 50 && held > bounded, "{bounded} queries with a bound, {held} tokens");
}
