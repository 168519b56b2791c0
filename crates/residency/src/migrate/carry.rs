//! Brings tables over that the target has not: their definition by `pg_dump`, their indexes after their rows.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::{Either, select, try_join};
use futures_util::stream::{self, FuturesUnordered, StreamExt as _, TryStreamExt as _};
use ringfence_face::Target;
use ringfence_face::sql::{ident, literal};
use tokio::sync::mpsc::UnboundedSender;
use tokio_postgres::Row;

use super::plan::Planned;
use super::{Move, SCHEMA};
use crate::client;
use crate::database::{Database, Error};

/// The tables' definitions in SQL, without indexes, constraints across tables, owners and privileges.
async fn definitions(side: &Target, tables: &[&Planned]) -> Result<String, Error> {
    let mut command = client::program("pg_dump", side);
    command.args([
        "--schema-only",
        "--section=pre-data",
        "--no-owner",
        "--no-privileges",
        "--no-publications",
    ]);
    for planned in tables {
        command.arg("--table").arg(planned.table.quoted());
    }
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await;
    let failed = |problem: String| Error::Failed(format!("pg_dump cannot describe the tables: {problem}"));
    let output = output.map_err(std::io::Error::other).flatten().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8(output.stdout).map_err(|e| failed(e.to_string()))?;
    // psql's own words (\restrict …) are not SQL.
    Ok(text.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n"))
}

/// Makes the missing tables, small ones with their primary keys.
pub async fn tables(of: &Move, planned: &[Planned], from: &Database, to: &Database) -> Result<(), Error> {
    let missing: Vec<&Planned> = planned.iter().filter(|t| !t.exists).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = definitions(&of.from.admin, &missing).await?;
    let mut sql = String::from("BEGIN;\n");
    for schema in missing.iter().map(|t| &t.table.schema) {
        let _ = writeln!(sql, "CREATE SCHEMA IF NOT EXISTS {};", ident(schema));
    }
    sql.push_str(&text);
    for table in &missing {
        for (definition, is_key) in constraints(table, from).await? {
            if is_key && !is_large(table) {
                sql.push_str(&definition);
            }
        }
        let _ = writeln!(sql, "INSERT INTO {SCHEMA}.brought VALUES ({});", literal(&table.table.quoted()));
        if let Some(role) = &of.to.full_role {
            let (t, role) = (table.table.quoted(), ident(role));
            let _ = writeln!(
                sql,
                "GRANT USAGE ON SCHEMA {} TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON {t} TO {role};",
                ident(&table.table.schema)
            );
            for sequence in &table.shape.sequences {
                let _ = writeln!(sql, "GRANT USAGE, SELECT ON SEQUENCE {sequence} TO {role};");
            }
        }
    }
    sql.push_str("COMMIT; RESET search_path; SET search_path = pg_catalog;");
    let made = to.run("make the tables", &sql).await;
    if made.is_err() {
        let _ = to.run("roll back", "ROLLBACK; SET search_path = pg_catalog").await;
    }
    made
}

/// Constraints of a table as statements, and whether each is its primary key.
async fn constraints(table: &Planned, from: &Database) -> Result<Vec<(String, bool)>, Error> {
    let t = table.table.quoted();
    let rows = from
        .rows(
            "read its constraints",
            "SELECT conname::text, contype::text, pg_get_constraintdef(oid) FROM pg_constraint
             WHERE conrelid = $1::text::regclass AND contype IN ('p', 'u', 'f', 'x') ORDER BY contype = 'f', conname",
            &[&t],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| {
            let (name, kind, definition): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            let name = ident(&name);
            let sql = format!(
                "DO $do$ BEGIN
                    IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conrelid = {rel}::regclass AND conname = {lit}) THEN
                        ALTER TABLE {t} ADD CONSTRAINT {name} {definition};
                    END IF;
                 END $do$;\n",
                rel = literal(&t),
                lit = literal(name.trim_matches('"')),
            );
            (sql, kind == "p")
        })
        .collect())
}

/// A table from this many rows on gets its primary key after its rows: an index that is built at once costs a fraction of one that
/// grows row by row.
const LARGE: i64 = 50_000;

fn is_large(planned: &Planned) -> bool {
    planned.shape.rows >= LARGE
}

/// What a table that was brought over still lacks.
struct Rest {
    /// As it is called in SQL.
    table: String,
    /// The statement that makes its primary key, which replication needs for the first change after the copy.
    key: String,
    /// Names and statements: indexes, then statistics.
    after: Vec<(String, String)>,
}

/// What the tables need beside their rows, while PostgreSQL copies those: keys of large tables the moment their copy ends, their
/// indexes and statistics while others are still copied; constraints across tables and triggers at the end. May be run again.
pub async fn rest(
    of: &Move,
    planned: &[Planned],
    from: &Database,
    to: &Database,
    told: &(dyn Fn(&str) + Sync),
) -> Result<(), Error> {
    let brought =
        to.rows("see what was brought", &format!("SELECT relation FROM {SCHEMA}.brought"), &[]).await?;
    let brought: Vec<String> = brought.iter().map(|row| row.get(0)).collect();
    let (mut tables, mut later) = (Vec::new(), String::new());
    for table in planned {
        let t = table.table.quoted();
        let mut rest = Rest { table: t.clone(), key: String::new(), after: Vec::new() };
        if brought.contains(&t) {
            rest.after = indexes(&t, from).await?;
            for (sql, is_key) in constraints(table, from).await? {
                if is_key { &mut rest.key } else { &mut later }.push_str(&sql);
            }
            later.push_str(&triggers(&t, from).await?);
        }
        rest.after.push((format!("statistics of {}", table.table.shown()), format!("ANALYZE {t}")));
        tables.push(rest);
    }
    let (ready, statements) = tokio::sync::mpsc::unbounded_channel();
    let statements = stream::unfold(statements, async |mut statements| {
        statements.recv().await.map(|next: (String, String)| (Ok(next), statements))
    });
    let work = statements.try_for_each_concurrent(SIDE_BY_SIDE, async |(name, sql)| {
        told(&name);
        let database = Database::connect(&of.to.store, &of.to.admin).await?;
        database.run("make room for sorting", "SET maintenance_work_mem = '256MB'").await?;
        database.run("finish the tables", &sql).await
    });
    try_join(keys(of, to, tables, ready), work).await?;
    let names: Vec<String> = planned.iter().map(|t| literal(&t.table.quoted())).collect();
    let _ =
        write!(later, "UPDATE {SCHEMA}.brought SET finished = true WHERE relation IN ({})", names.join(", "));
    to.run("make constraints and triggers", &later).await
}

/// Whether the tables have all that they need beside their rows.
pub async fn is_finished(to: &Database) -> Result<bool, Error> {
    let known = format!("SELECT to_regclass('{SCHEMA}.brought') IS NOT NULL");
    if !to.row("look for the move", &known, &[]).await?.get::<_, bool>(0) {
        return Ok(true);
    }
    let sql = format!("SELECT NOT EXISTS (SELECT FROM {SCHEMA}.brought WHERE NOT finished)");
    Ok(to.row("look whether its tables are complete", &sql, &[]).await?.get(0))
}

/// Statements that run side by side while tables are finished.
const SIDE_BY_SIDE: usize = 2;

/// Follows the copy of each table, makes its key as soon as its rows are there, and sends on what is to be done then.
///
/// A table without a key cannot take changes of rows, and PostgreSQL applies those as soon as the copy is over. So the statement
/// that makes the key stands in line for the table's lock while it is still copied: it is next. A change that comes first all the
/// same fails, and PostgreSQL tries it again a few seconds later.
async fn keys(
    of: &Move,
    to: &Database,
    mut left: Vec<Rest>,
    ready: UnboundedSender<(String, String)>,
) -> Result<(), Error> {
    let sql = "SELECT n.nspname::text, c.relname::text, r.srsubstate IN ('f', 's', 'r'),
                      EXISTS (SELECT FROM pg_stat_progress_copy p WHERE p.relid = r.srrelid)
               FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
               JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE s.subname = $1";
    let mut making = FuturesUnordered::new();
    let mut made = BTreeSet::new();
    loop {
        let (mut copying, mut copied) = (BTreeSet::new(), BTreeSet::new());
        for row in to.rows("ask how far the copy is", sql, &[&of.publication()]).await? {
            let name = format!("{}.{}", ident(row.get(0)), ident(row.get(1)));
            if row.get(2) {
                copied.insert(name);
            } else if row.get(3) {
                copying.insert(name);
            }
        }
        for rest in &mut left {
            if !rest.key.is_empty() && (copying.contains(&rest.table) || copied.contains(&rest.table)) {
                let (table, key) = (rest.table.clone(), std::mem::take(&mut rest.key));
                making.push(async move {
                    let database = Database::connect(&of.to.store, &of.to.admin).await?;
                    database.run("make room for sorting", "SET maintenance_work_mem = '256MB'").await?;
                    database.run("make a primary key", &key).await?;
                    Ok::<String, Error>(table)
                });
                made.insert(rest.table.clone());
            }
        }
        left.retain_mut(|rest| {
            let is_over = rest.key.is_empty() && !made.contains(&rest.table) && copied.contains(&rest.table);
            if is_over {
                // Nobody to hear it: what does the work has failed, and says why.
                rest.after.drain(..).for_each(|statement| drop(ready.send(statement)));
            }
            !is_over
        });
        if left.is_empty() {
            return Ok(());
        }
        let tick = tokio::time::sleep(Duration::from_millis(50));
        match select(Box::pin(tick), making.next()).await {
            Either::Right((Some(done), _)) => drop(made.remove(&done?)),
            Either::Right((None, tick)) => tick.await,
            Either::Left(_) => {}
        }
    }
}

/// A table's indexes that no constraint brings: names and statements.
async fn indexes(table: &str, from: &Database) -> Result<Vec<(String, String)>, Error> {
    let found = from
        .rows(
            "read its indexes",
            "SELECT c.relname::text, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
             WHERE i.indrelid = $1::text::regclass AND i.indisvalid
               AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) ORDER BY 1",
            &[&table],
        )
        .await?;
    let statement = |row: &Row| {
        let definition: String = row.get(1);
        (row.get(0), definition.replacen(" INDEX ", " INDEX IF NOT EXISTS ", 1))
    };
    Ok(found.iter().map(statement).collect())
}

/// The statements that make a table's triggers.
async fn triggers(table: &str, from: &Database) -> Result<String, Error> {
    let found = from
        .rows(
            "read its triggers",
            "SELECT tgname::text, pg_get_triggerdef(oid) FROM pg_trigger
             WHERE tgrelid = $1::text::regclass AND NOT tgisinternal AND tgname NOT LIKE 'ringfence\\_%'",
            &[&table],
        )
        .await?;
    let mut sql = String::new();
    for trigger in &found {
        let (name, definition): (String, String) = (trigger.get(0), trigger.get(1));
        let _ = writeln!(sql, "DROP TRIGGER IF EXISTS {} ON {table}; {definition};", ident(&name));
    }
    Ok(sql)
}
