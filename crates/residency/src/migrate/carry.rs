//! Brings tables over that the target has not: their definition by `pg_dump`, their indexes after their rows.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use ringfence_face::Target;
use ringfence_face::sql::{ident, literal};
use tokio_postgres::config::Host;

use super::plan::Planned;
use super::{Move, SCHEMA};
use crate::database::{Database, Error};

/// The tables' definitions in SQL, without indexes, constraints across tables, owners and privileges.
async fn definitions(side: &Target, tables: &[&Planned]) -> Result<String, Error> {
    let config = &side.config;
    let mut command = Command::new("pg_dump");
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
    let host = config.get_hosts().first().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    command.env_remove("PGSERVICE").env("PGHOST", host.unwrap_or_default());
    command.env("PGPORT", config.get_ports().first().copied().unwrap_or(5432).to_string());
    command.env("PGUSER", config.get_user().unwrap_or_default());
    command.env("PGDATABASE", config.get_dbname().unwrap_or_default());
    if let Some(password) = config.get_password() {
        command.env("PGPASSWORD", String::from_utf8_lossy(password).into_owned());
    }
    command.env("PGSSLMODE", if side.tls.is_some() { "require" } else { "prefer" });
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

/// Makes the missing tables with their primary keys.
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
            if is_key {
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

/// Indexes, other constraints and triggers of the tables that were brought over: after their rows, which is faster. Then all tables'
/// statistics. May be run again.
pub async fn rest(
    of: &Move,
    planned: &[Planned],
    from: &Database,
    to: &Database,
    told: &mut (dyn FnMut(&str) + Send),
) -> Result<(), Error> {
    let mut indexes = VecDeque::new();
    let brought =
        to.rows("see what was brought", &format!("SELECT relation FROM {SCHEMA}.brought"), &[]).await?;
    let brought: Vec<String> = brought.iter().map(|row| row.get(0)).collect();
    let mut later = String::new();
    for table in planned.iter().filter(|t| brought.contains(&t.table.quoted())) {
        let t = table.table.quoted();
        let found = from
            .rows(
                "read its indexes",
                "SELECT c.relname::text, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 WHERE i.indrelid = $1::text::regclass AND i.indisvalid
                   AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid) ORDER BY 1",
                &[&t],
            )
            .await?;
        for index in &found {
            let definition: String = index.get(1);
            indexes.push_back((index.get(0), definition.replacen(" INDEX ", " INDEX IF NOT EXISTS ", 1)));
        }
        for (sql, is_key) in constraints(table, from).await? {
            if !is_key {
                later.push_str(&sql);
            }
        }
        let triggers = from
            .rows(
                "read its triggers",
                "SELECT tgname::text, pg_get_triggerdef(oid) FROM pg_trigger
                 WHERE tgrelid = $1::text::regclass AND NOT tgisinternal AND tgname NOT LIKE 'ringfence\\_%'",
                &[&t],
            )
            .await?;
        for trigger in &triggers {
            let (name, definition): (String, String) = (trigger.get(0), trigger.get(1));
            let _ = writeln!(later, "DROP TRIGGER IF EXISTS {} ON {t}; {definition};", ident(&name));
        }
    }
    together(of, to, indexes, told).await?;
    to.run("make constraints and triggers", &later).await?;
    let analyze =
        |t: &Planned| (format!("statistics of {}", t.table.shown()), format!("ANALYZE {}", t.table.quoted()));
    together(of, to, planned.iter().map(analyze).collect(), told).await
}

/// Runs statements on two connections side by side.
async fn together(
    of: &Move,
    to: &Database,
    work: VecDeque<(String, String)>,
    told: &mut (dyn FnMut(&str) + Send),
) -> Result<(), Error> {
    let second = Database::connect(&of.to.store, &of.to.admin).await?;
    let shared = Mutex::new((work, told));
    let next = || {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, sql) = shared.0.pop_front()?;
        (shared.1)(&name);
        Some(sql)
    };
    let worker = async |database: &Database| {
        database.run("make room for sorting", "SET maintenance_work_mem = '256MB'").await?;
        while let Some(sql) = next() {
            database.run("finish the tables", &sql).await?;
        }
        Ok(())
    };
    let (first, second) = futures_util::future::join(worker(to), worker(&second)).await;
    first.and(second)
}
