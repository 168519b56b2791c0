//! Reads both ends of a flow, and believes neither replication nor the configuration.

use std::collections::BTreeSet;

use ringfence_policy::Catalogue;
use serde::Serialize;

use super::{Carried, Flow, guard, is_open, is_public, sent};
use crate::copies::probe::Probes;
use crate::database::{Database, Error};
use crate::migrate::shape;
use crate::scope::{How, Table};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Whether the flow is open.
    pub open: bool,
    /// Why it has to be cut.
    pub problems: Vec<String>,
    /// Rows at the other end, by table.
    pub rows: Vec<(String, i64)>,
    /// Bytes that the source has sent since the flow opened, as its statistics count them; the first copy is not in it.
    pub sent_bytes: i64,
    /// Bytes of WAL that the other end has not confirmed.
    pub lag_bytes: Option<i64>,
    /// Errors that the other end has met.
    pub errors: i64,
    /// People who were looked for at the other end by their protected values.
    pub looked_for: u64,
}

/// Checks a flow against what was signed, and against the catalogue as it is now.
pub async fn check(
    of: &Flow,
    signed: &[Carried],
    catalogue: &Catalogue,
    probes: Option<&Probes>,
    from: &Database,
    to: &Database,
) -> Result<Checked, Error> {
    let open = is_open(of, from).await?;
    let mut problems = Vec::new();
    for carried in signed {
        for (column, _) in carried.columns.iter().filter(|(c, _)| !is_public(catalogue, &carried.table, c)) {
            problems.push(format!("{}.{column} is not public by the catalogue any more", carried.table));
        }
    }
    for (table, columns) in sent(of, from).await? {
        let allowed = signed.iter().find(|c| c.quoted() == table);
        let allowed: BTreeSet<String> =
            allowed.iter().flat_map(|c| &c.columns).map(|(column, _)| column.clone()).collect();
        for column in columns.difference(&allowed) {
            problems.push(format!("{} sends {column} of {table}, which nobody has signed for", from.name));
        }
    }
    if open {
        problems.extend(other_readers(of, from).await?);
    }
    if open && !guard::stands(from).await? {
        problems.push(format!("the guard at {} is gone: publications can be changed unnoticed", from.name));
    }
    let mut rows = Vec::new();
    for carried in signed {
        let table =
            Table { schema: carried.schema.clone(), name: carried.table.clone(), how: How::Everything };
        let Some(shape) = shape::read(to, &table).await? else {
            problems.push(format!("{} has no table {}", to.name, carried.table));
            continue;
        };
        for column in &shape.columns {
            if !carried.columns.iter().any(|(name, _)| *name == column.name) {
                problems.push(format!(
                    "{} has a column {}.{}, which does not go",
                    to.name, carried.table, column.name
                ));
            }
        }
        let counted =
            to.row("count the rows", &format!("SELECT count(*) FROM {}", carried.quoted()), &[]).await?;
        rows.push((carried.table.clone(), counted.get(0)));
        let Some(probes) = probes else { continue };
        let people = probes.in_relation(to, &carried.quoted()).await?.people();
        if people > 0 {
            problems
                .push(format!("{} has protected values of {people} people in {}", to.name, carried.table));
        }
    }
    let bytes = from
        .maybe(
            "ask for the volume",
            "SELECT total_bytes FROM pg_stat_replication_slots WHERE slot_name = $1",
            &[&of.publication()],
        )
        .await?;
    let lag = from
        .maybe(
            "ask for the lag",
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $1",
            &[&of.publication()],
        )
        .await?;
    let errors = to
        .row(
            "ask for errors",
            "SELECT coalesce(sum(apply_error_count + sync_error_count), 0)::bigint FROM pg_stat_subscription_stats WHERE subname = $1",
            &[&of.publication()],
        )
        .await?;
    Ok(Checked {
        open,
        problems,
        rows,
        sent_bytes: bytes.map_or(0, |row| row.get(0)),
        lag_bytes: lag.and_then(|row| row.get(0)),
        errors: errors.get(0),
        looked_for: probes.map_or(0, Probes::count),
    })
}

/// What else the flow's role reads at the source. Whoever has the other end has its password, and PostgreSQL lets a role that may replicate
/// decode everything: what is not the flow's own subscription is reason to cut.
async fn other_readers(of: &Flow, from: &Database) -> Result<Vec<String>, Error> {
    let sql = "SELECT coalesce(s.slot_name::text, 'no slot'), a.backend_type || coalesce(' ' || r.state, '')
               FROM pg_stat_activity a LEFT JOIN pg_stat_replication r ON r.pid = a.pid LEFT JOIN pg_replication_slots s ON s.active_pid = a.pid
               WHERE a.usename = $1 AND CASE
                   WHEN a.backend_type <> 'walsender' THEN true
                   WHEN s.slot_name IS NULL THEN r.state IN ('backup', 'catchup', 'streaming')
                   ELSE s.slot_name <> $2 AND NOT (s.plugin = 'pgoutput' AND s.slot_name ~ '^pg_[0-9]+_sync_[0-9]+_[0-9]+$') END";
    let rows = from.rows("see what the flow's role does", sql, &[&of.from.role, &of.publication()]).await?;
    let told = |row: &tokio_postgres::Row| {
        let (slot, kind): (String, String) = (row.get(0), row.get(1));
        format!("somebody reads {} beside the flow: {slot}, {kind}", from.name)
    };
    Ok(rows.iter().map(told).collect())
}
