//! Flows: public columns of a jurisdiction's rows go on to a store outside, by PostgreSQL's logical replication.
//!
//! What goes is a publication with column lists. It is held against what the in-country team has signed and what the catalogue calls
//! public: before it opens ([`plan`]), by the source at every change of a publication or table ([`guard`]), and again from both ends
//! by a reader that has nothing to do with replication ([`check`]). A flow that carries anything else is cut. The other end has
//! tables for these columns only, so PostgreSQL itself fails where more is sent.

pub mod check;
pub mod guard;

use std::collections::BTreeSet;

use ringfence_face::Target;
use ringfence_face::sql::{ident, literal};
use ringfence_policy::Catalogue;
use ringfence_policy::catalogue::{Class, Column};
use serde::{Deserialize, Serialize};

use crate::database::{Database, Error};
use crate::migrate::shape;
use crate::migrate::target::{self, drop_slot};
use crate::scope::{How, Table};

/// One end of a flow.
#[derive(Clone)]
pub struct End {
    /// What it is called.
    pub name: String,
    /// Its superuser's connection.
    pub admin: Target,
    /// How the other end's server connects here, as libpq takes it.
    pub replication: String,
    /// The role that it connects as.
    pub role: String,
}

/// A flow as the configuration says it.
#[derive(Clone)]
pub struct Flow {
    /// Its name: letters, digits and underscores.
    pub name: String,
    /// The jurisdiction that the rows belong to.
    pub jurisdiction: String,
    /// The contract that it serves.
    pub contract: String,
    /// From where.
    pub from: End,
    /// To where.
    pub to: End,
    /// The country where that is.
    pub location: String,
    /// The tables.
    pub tables: Vec<String>,
}

/// A table's columns that go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Names and types of the columns, in the table's order.
    pub columns: Vec<(String, String)>,
    /// The columns of the primary key.
    pub key: Vec<String>,
}

impl Carried {
    /// Schema and name, quoted.
    pub fn quoted(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.table))
    }

    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| ident(name)).collect::<Vec<_>>().join(", ")
    }
}

/// What would go, and what stands in the way.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The tables.
    pub tables: Vec<Carried>,
    /// Columns that stay, by table: they are protected, or unclassified.
    pub stay: Vec<(String, Vec<String>)>,
    /// What must be mended first.
    pub blockers: Vec<String>,
}

impl Flow {
    /// The publication, the subscription and the slot.
    pub fn publication(&self) -> String {
        format!("ringfence_flow_{}", self.name)
    }

    /// Both ends.
    pub async fn connect(&self) -> Result<(Database, Database), Error> {
        let from = Database::connect(&self.from.name, &self.from.admin).await?;
        let to = Database::connect(&self.to.name, &self.to.admin).await?;
        Ok((from, to))
    }
}

/// Whether a column is public by the catalogue.
fn is_public(catalogue: &Catalogue, table: &str, column: &str) -> bool {
    let column = catalogue.tables.get(table).and_then(|t| t.columns.get(column));
    matches!(column, Some(Column::Word(Class::Public)))
}

/// Reads both ends; nothing is touched.
pub async fn plan(of: &Flow, catalogue: &Catalogue, from: &Database, to: &Database) -> Result<Plan, Error> {
    let mut plan = Plan { tables: Vec::new(), stay: Vec::new(), blockers: Vec::new() };
    let fits = of.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if of.name.is_empty() || of.name.len() > 30 || !fits {
        plan.blockers.push(format!(
            "the flow's name {:?} is not of up to 30 lower-case letters, digits and underscores",
            of.name
        ));
    }
    let wal = from.row("read its settings", "SELECT current_setting('wal_level')", &[]).await?;
    if wal.get::<_, &str>(0) != "logical" {
        plan.blockers.push(format!(
            "{}: wal_level is {}; set it to logical",
            from.name,
            wal.get::<_, &str>(0)
        ));
    }
    let is_open = is_open(of, from).await?;
    for name in &of.tables {
        let Some(classified) = catalogue.tables.get(name) else {
            plan.blockers.push(format!("{name}: is not in the catalogue"));
            continue;
        };
        let table = Table { schema: classified.schema.clone(), name: name.clone(), how: How::Everything };
        let Some(shape) = shape::read(from, &table).await? else {
            plan.blockers.push(format!("{name}: is not in {}", from.name));
            continue;
        };
        let (goes, stays): (Vec<_>, Vec<_>) =
            shape.carried().partition(|column| is_public(catalogue, name, &column.name));
        let key: Vec<String> = shape.key.iter().map(|(column, _)| column.clone()).collect();
        let mut block = |problem: String| plan.blockers.push(format!("{name}: {problem}"));
        if key.is_empty() {
            block("has no primary key, so its changes cannot be replicated".to_owned());
        }
        for column in key.iter().filter(|column| !is_public(catalogue, name, column)) {
            block(format!("{column} is of its primary key and not public, so its rows cannot go"));
        }
        if shape.identity != "d" {
            block(
                "has another replica identity than its primary key, which would carry columns that stay"
                    .to_owned(),
            );
        }
        let carried = Carried {
            schema: table.schema.clone(),
            table: name.clone(),
            columns: goes.iter().map(|c| (c.name.clone(), c.sql_type.clone())).collect(),
            key,
        };
        if let Some(there) = shape::read(to, &table).await? {
            for column in &there.columns {
                if !carried.columns.iter().any(|(name, _)| *name == column.name) {
                    block(format!(
                        "{} has a column {} there, which does not go: use a database of the flow's own",
                        to.name, column.name
                    ));
                }
            }
            if there.is_filled && !is_open {
                block(format!(
                    "has rows in {} already, which come again: empty it there with TRUNCATE",
                    to.name
                ));
            }
        }
        plan.stay.push((name.clone(), stays.iter().map(|c| c.name.clone()).collect()));
        plan.tables.push(carried);
    }
    if plan.tables.is_empty() {
        plan.blockers.push("it names no table".to_owned());
    }
    if let Some(more) = reads_more(of, &plan.tables, from).await? {
        plan.blockers.push(format!(
            "the role {} can read {more} at {}, which does not go: give the flow a role of its own",
            of.from.role, from.name
        ));
    }
    Ok(plan)
}

/// A column that the flow's role can read and that does not go, if there is one.
async fn reads_more(of: &Flow, tables: &[Carried], from: &Database) -> Result<Option<String>, Error> {
    let sql = "SELECT DISTINCT n.nspname::text, c.relname::text, a.attname::text FROM pg_class c
               JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
                 AND n.nspname NOT LIKE 'ringfence%' AND has_column_privilege($1::text, c.oid, a.attnum, 'SELECT') ORDER BY 1, 2, 3";
    let role =
        from.maybe("look for the role", "SELECT FROM pg_roles WHERE rolname = $1", &[&of.from.role]).await?;
    if role.is_none() {
        return Ok(None); // PostgreSQL says so when it opens
    }
    for row in from.rows("see what the flow's role may read", sql, &[&of.from.role]).await? {
        let (schema, table, column): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let goes = |c: &Carried| {
            c.schema == schema && c.table == table && c.columns.iter().any(|(name, _)| *name == column)
        };
        if !tables.iter().any(goes) {
            return Ok(Some(format!("{schema}.{table}.{column}")));
        }
    }
    Ok(None)
}

/// Whether the flow is open at its source.
pub async fn is_open(of: &Flow, from: &Database) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)";
    Ok(from.row("look for the flow", sql, &[&of.publication()]).await?.get(0))
}

/// Opens it. May be run again after a crash.
pub async fn open(of: &Flow, tables: &[Carried], from: &Database, to: &Database) -> Result<(), Error> {
    for carried in tables {
        let columns: Vec<String> =
            carried.columns.iter().map(|(name, sql_type)| format!("{} {sql_type}", ident(name))).collect();
        let key: Vec<String> = carried.key.iter().map(|column| ident(column)).collect();
        let sql = format!(
            "CREATE SCHEMA IF NOT EXISTS {}; CREATE TABLE IF NOT EXISTS {} ({}, PRIMARY KEY ({}))",
            ident(&carried.schema),
            carried.quoted(),
            columns.join(", "),
            key.join(", ")
        );
        to.run("make the tables", &sql).await?;
    }
    guard::lay(of, tables, from).await?;
    crate::migrate::let_begin(from, &of.from.role).await?;
    from.run("let the role in", &format!("ALTER ROLE {} LOGIN", ident(&of.from.role))).await?;
    let name = of.publication();
    if !is_open(of, from).await? {
        let listed: Vec<String> = tables.iter().map(|t| format!("{} ({})", t.quoted(), t.names())).collect();
        // The role that replicates may read these columns, and no others.
        let grants = tables.iter().map(|t| {
            format!(
                "GRANT USAGE ON SCHEMA {} TO {role}; GRANT SELECT ({}) ON {} TO {role};",
                ident(&t.schema),
                t.names(),
                t.quoted(),
                role = ident(&of.from.role)
            )
        });
        let sql = format!(
            "BEGIN; {} CREATE PUBLICATION {} FOR TABLE {}; COMMIT",
            grants.collect::<String>(),
            ident(&name),
            listed.join(", ")
        );
        if let Err(e) = from.run("publish the columns", &sql).await {
            let _ = from.run("roll back", "ROLLBACK").await;
            return Err(e);
        }
    }
    if target::exists(to, &name).await? {
        return Ok(());
    }
    drop_slot(from, &name).await?;
    let sql = format!(
        "CREATE SUBSCRIPTION {n} CONNECTION {conn} PUBLICATION {n}",
        n = ident(&name),
        conn = literal(&of.from.replication)
    );
    to.run_unlogged("subscribe", &sql).await
}

/// How many tables have their first copy, of how many, and how often copying failed.
pub async fn copied(of: &Flow, to: &Database) -> Result<(i64, i64, i64), Error> {
    let sql = "SELECT count(*) FILTER (WHERE r.srsubstate = 'r'), count(*),
                      (SELECT coalesce(sum(apply_error_count + sync_error_count), 0)::bigint FROM pg_stat_subscription_stats x WHERE x.subname = $1)
               FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid WHERE s.subname = $1";
    let row = to.row("ask how far the copy is", sql, &[&of.publication()]).await?;
    Ok((row.get(0), row.get(1), row.get(2)))
}

/// Ends it: nothing goes any more when this returns. What has gone stays at the other end. That end may be out of reach, and is told
/// then; the source's half is done first.
pub async fn close(
    of: &Flow,
    tables: &[Carried],
    from: &Database,
    to: Result<Database, Error>,
) -> Result<(), Error> {
    let name = of.publication();
    from.run("end the publication", &format!("DROP PUBLICATION IF EXISTS {}", ident(&name))).await?;
    let role = ident(&of.from.role);
    let revoke = |t: &Carried| format!("REVOKE SELECT ({}) ON {} FROM {role};", t.names(), t.quoted());
    let revoke = tables.iter().map(revoke).collect::<Vec<_>>().concat();
    from.run("take the columns back", &revoke).await?;
    // A sender that is busy would go on with what it has read; and the role has no other business here, once its last flow is closed.
    let others = "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname LIKE 'ringfence\\_flow\\_%')";
    if !from.row("look for other flows", others, &[]).await?.get::<_, bool>(0) {
        from.run("keep the role out", &format!("ALTER ROLE {role} NOLOGIN")).await?;
    }
    let others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1 AND datname = current_database()";
    from.rows("stop what the role does", others, &[&of.from.role]).await?;
    let stop = "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL";
    from.rows("stop the sender", stop, &[&name]).await?;
    let ended = match to {
        Ok(to) => target::unsubscribe(&to, Some(from), &name).await,
        Err(e) => drop_slot(from, &name).await.and(Err(e)),
    };
    guard::lift(of, from).await?;
    ended
}

/// The columns that a publication sends now, by quoted table.
async fn sent(of: &Flow, from: &Database) -> Result<Vec<(String, BTreeSet<String>)>, Error> {
    let rows = from
        .rows(
            "read the publication",
            "SELECT schemaname::text, tablename::text, attnames::text[] FROM pg_publication_tables WHERE pubname = $1 ORDER BY 1, 2",
            &[&of.publication()],
        )
        .await?;
    let one = |row: &tokio_postgres::Row| {
        let columns: Vec<String> = row.get(2);
        (format!("{}.{}", ident(row.get(0)), ident(row.get(1))), columns.into_iter().collect())
    };
    Ok(rows.iter().map(one).collect())
}
