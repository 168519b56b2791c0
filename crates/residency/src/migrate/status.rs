//! How far a move is.

use serde::Serialize;

use super::plan::Planned;
use super::{Move, carry, has_moved, target};
use crate::database::{Database, Error};

/// The stages of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing has begun.
    Planned,
    /// The rows are being marked.
    Marking,
    /// The first copy runs.
    Copying,
    /// The rows are there; keys, indexes or constraints are still made.
    Indexing,
    /// Both sides have the rows; changes follow.
    Following,
    /// The rows are at home at the target; there is a way back.
    Moved,
}

impl Stage {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Marking => "marking",
            Self::Copying => "copying",
            Self::Indexing => "indexing",
            Self::Following => "following",
            Self::Moved => "moved",
        }
    }
}

/// A picture of a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The stage.
    pub stage: Stage,
    /// Tables with their first copy, and all.
    pub tables: (i64, i64),
    /// Rows that the target has, as its statistics count them.
    pub rows: i64,
    /// Bytes of the target's tables.
    pub bytes: i64,
    /// Bytes of WAL that the other side has not confirmed; none where nothing follows.
    pub lag_bytes: Option<i64>,
    /// Errors while applying and copying since it began.
    pub errors: (i64, i64),
    /// Milliseconds since 1970, by the source's clock: two pictures make a rate.
    pub at: f64,
}

/// Looks at both sides.
pub async fn status(of: &Move, tables: &[Planned], from: &Database, to: &Database) -> Result<Status, Error> {
    let at = from
        .row("read the clock", "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8", &[])
        .await?;
    let is_moved = has_moved(of, from, to).await?;
    let is_subscribed = target::is_subscribed(of, to).await?;
    let (all, ready) = target::copied(of, to).await?;
    let is_marked = from
        .row(
            "look for marks",
            "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgname = $2 AND tgrelid = ANY (SELECT to_regclass(x)::oid FROM unnest($1::text[]) x))",
            &[&names(tables), &format!("ringfence_9_rows_{}", of.name)],
        )
        .await?;
    let stage = match (is_moved, is_subscribed, is_marked.get::<_, bool>(0)) {
        (true, ..) => Stage::Moved,
        (_, true, _) if ready < all || all == 0 => Stage::Copying,
        (_, true, _) if !carry::is_finished(to).await? => Stage::Indexing,
        (_, true, _) => Stage::Following,
        (_, false, true) => Stage::Marking,
        (_, false, false) => Stage::Planned,
    };
    // Measuring takes a lock, and a table whose key waits for its rows gives none: there the copy itself says how far it is.
    let sizes = to
        .row(
            "measure its tables",
            "SELECT coalesce(sum(CASE WHEN EXISTS (SELECT FROM pg_locks l WHERE l.relation = c AND l.mode = 'AccessExclusiveLock')
                                 THEN 0 ELSE pg_total_relation_size(c) END), 0)::bigint,
                    coalesce(sum(greatest(pg_stat_get_live_tuples(c), 0)), 0)::bigint
               FROM (SELECT to_regclass(x)::oid AS c FROM unnest($1::text[]) x) y WHERE c IS NOT NULL",
            &[&names(tables)],
        )
        .await?;
    let copying = to
        .row("ask for running copies", "SELECT coalesce(sum(tuples_processed), 0)::bigint, coalesce(sum(bytes_processed), 0)::bigint FROM pg_stat_progress_copy WHERE datname = current_database()", &[])
        .await?;
    let (publisher, slot) = if is_moved { (to, of.back()) } else { (from, of.publication()) };
    let lag = publisher
        .maybe(
            "ask for the lag",
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )
        .await?;
    Ok(Status {
        stage,
        tables: (ready, all),
        rows: sizes.get::<_, i64>(1) + copying.get::<_, i64>(0),
        bytes: sizes.get::<_, i64>(0) + copying.get::<_, i64>(1),
        lag_bytes: lag.and_then(|row| row.get(0)),
        errors: target::errors(of, to).await?,
        at: at.get(0),
    })
}

fn names(tables: &[Planned]) -> Vec<String> {
    tables.iter().map(|t| t.table.quoted()).collect()
}
