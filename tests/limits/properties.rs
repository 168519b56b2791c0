//! What the analysis of a text says, against what PostgreSQL does with the text.

use std::collections::BTreeSet;

use ringfence_statement::analysis::Analysis;
use ringfence_statement::functions::{Function, function};
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
            // The masks' key and the constants of grants are the face's own, not the query's.
            let is_own = |n: &&str| *n == "mask_key" || n.starts_with("constants_");
            relations.extend(name.filter(|n| !is_own(n)).map(str::to_owned));
            fields.values().for_each(|one| collect(one, relations));
        }
        _ => {}
    }
}

/// A database of few rows, in which each text is a token of its row: a letter for the table, the row's
/// number and a letter for the column, as in `u17e@tok.en`.
fn tokens(random: &mut Random) -> String {
    let mut count = |most: u64| random.below(most + 1);
    let (users, devices, messages) = (count(40), count(12), count(12));
    // A few people have the same country, some have no device, some have two.
    format!(
        "drop schema if exists few cascade; create schema few; \
         create table few.users (like public.users); create table few.devices (like public.devices); \
         create table few.messages (like public.messages); \
         insert into few.users select n, 'US', now(), 'u' || n || 'e@tok.en', 'u' || n || 'p@tok.en', \
           'u' || n || 'f@tok.en', '2000-01-01' from generate_series(1, {users}) n; \
         insert into few.devices select n, 1 + n % (1 + {users}), gen_random_uuid(), '::1', \
           'd' || n || 'm@tok.en', 0, 0 from generate_series(1, {devices}) n; \
         insert into few.messages select n, 1 + n % (1 + {users}), 1 + n * 7 % (1 + {users}), \
           'm' || n || 'b@tok.en', now() from generate_series(1, {messages}) n; \
         set search_path = few"
    )
}

/// The rows whose tokens stand in a text, by the table's letter.
fn rows_in(text: &str) -> BTreeSet<(char, String)> {
    let ends = text.match_indices("@tok.en").map(|(at, _)| &text[..at]);
    ends.filter_map(|before| {
        let before = before.strip_suffix(|c: char| c.is_ascii_lowercase())?;
        let digits = before.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (before, number) = before.split_at(before.len() - digits);
        Some((before.chars().next_back()?, number.to_owned()))
    })
    .collect()
}

/// In generated databases, no row of a result has tokens of more rows of a table than the bound.
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
    let (mut bounded, mut held, mut most_held) = (0, 0, 0);
    let mut random = Random(5);
    // The same texts about other columns and tables, too.
    let others = |sql: String, n: usize| match n % 4 {
        0 => sql.replace("email", "full_name"),
        1 => sql.replace("d.ip", "d.model, d.user_id"),
        2 => sql.replace("select 1 as json_agg", "select body as json_agg from messages order by id limit 1"),
        _ => sql,
    };
    let texts = generated(6, count()).into_iter().enumerate().map(|(n, sql)| (n, others(sql, n)));
    for (n, sql) in texts {
        if n % 50 == 0 {
            store.value(&tokens(&mut random));
        }
        let scope = Analysis::of(&sql, Settings::default()).scope;
        let Some(rows) = store.attempt(&sql) else { continue };
        let tables = [('u', "users"), ('d', "devices"), ('m', "messages")];
        for (letter, table) in tables {
            let most = scope.max_rows(table, &has_column);
            if most == UNBOUNDED {
                continue;
            }
            bounded += u64::from(letter == 'u');
            for row in &rows {
                let found = rows_in(&row.join("\u{1}"));
                let tokens = found.iter().filter(|(l, _)| *l == letter).count() as u64;
                (held, most_held) = (held + tokens, most_held.max(tokens));
                assert!(tokens <= most, "{sql}: {tokens} rows of {table} in one row, the bound is {most}");
            }
        }
    }
    store.value("reset search_path; drop schema few cascade");
    assert!(bounded > 50 && held > bounded, "{bounded} queries with a bound, {held} tokens");
    assert!(most_held > 2, "some rows hold several");
}

/// PostgreSQL's own functions are what the analysis takes them for.
#[test]
fn functions_are_what_postgresql_says() {
    let place = Place::turn();
    let store = lock(&place.store);
    let own = store.rows(
        "select proname, string_agg(distinct case when proretset then 'set' else prokind::text end, ' ') \
         from pg_proc where pronamespace = 'pg_catalog'::regnamespace group by 1",
    );
    assert!(own.len() > 2000);
    let mut wrong = Vec::new();
    for row in &own {
        let kinds: BTreeSet<&str> = row[1].split(' ').collect();
        let combines = kinds.contains("a") || kinds.contains("w");
        let is_right = match function(&row[0]) {
            Function::Scalar => kinds == ["f"].into(),
            Function::SetReturning | Function::Catalogue => !combines,
            Function::Aggregate | Function::RunsSql => true,
            // Behind a dot it is taken for a column.
            Function::Unknown => !combines && !kinds.contains("set"),
        };
        if !is_right {
            wrong.push(format!("{}: {:?}, and PostgreSQL says {kinds:?}", row[0], function(&row[0])));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
