//! Compares both sides while they are in use.
//!
//! A table is cut into ranges of its key; a range's digest is SHA-256 over the digests of its rows in the order of their keys, a
//! table's over those of its ranges, the move's over those of its tables: a Merkle tree of three levels, computed where the rows are.
//! Ranges that differ are narrowed down to rows; rows that differ are looked at again until replication has caught up. What differs
//! then, differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use ringfence_face::sql::ident;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_postgres::types::ToSql;

use super::plan::Planned;
use super::{Move, SCHEMA, source, target};
use crate::database::{Database, Error};

/// Rows in a range.
const RANGE: i64 = 20_000;
/// How often rows that differ are looked at again.
const ROUNDS: u32 = 8;
/// How long replication may take to catch up between two looks.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Keys that are compared in one statement.
const BATCH: usize = 5_000;

/// A row's key as text, column by column.
pub type Key = Vec<String>;

/// What was compared and found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verified {
    /// By table.
    pub tables: BTreeMap<String, TableVerified>,
    /// SHA-256 over the tables' digests at the source.
    pub root: String,
}

/// One table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TableVerified {
    /// Rows of the jurisdiction at the source.
    pub rows: i64,
    /// Ranges compared.
    pub ranges: u64,
    /// Rows that differed at first, while changes were on their way, and were looked at again.
    pub looked_again: u64,
    /// Rows that the target has not.
    pub missing: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Rows that are different.
    pub different: u64,
    /// SHA-256 over the ranges' digests at the source.
    pub root: String,
    /// The keys of what differs. They may be personal data: they are in no log.
    #[serde(skip)]
    pub keys: Vec<Key>,
}

impl Verified {
    /// How many rows differ.
    pub fn differences(&self) -> u64 {
        self.tables.values().map(|t| t.missing + t.extra + t.different).sum()
    }
}

/// A side's half of a comparison.
struct Half<'a> {
    database: &'a Database,
    /// Which rows count.
    member: String,
}

struct Comparing<'a> {
    planned: &'a Planned,
    from: Half<'a>,
    to: Half<'a>,
}

const DOING: &str = "compare rows";

impl<'a> Comparing<'a> {
    fn new(planned: &'a Planned, from: &'a Database, to: &'a Database) -> Self {
        let member = planned.table.member("t");
        Self {
            planned,
            from: Half { database: from, member },
            to: Half { database: to, member: "true".to_owned() },
        }
    }

    fn key(&self) -> String {
        let columns: Vec<String> =
            self.planned.shape.key.iter().map(|(c, _)| format!("t.{}", ident(c))).collect();
        columns.join(", ")
    }

    fn key_text(&self) -> String {
        let columns: Vec<String> =
            self.planned.shape.key.iter().map(|(c, _)| format!("t.{}::text", ident(c))).collect();
        format!("ARRAY[{}]", columns.join(", "))
    }

    /// The digest of one row.
    fn digest(&self) -> String {
        let columns: Vec<String> =
            self.planned.shape.carried().map(|c| format!("t.{}", ident(&c.name))).collect();
        format!("sha256(convert_to(ROW({})::text, 'UTF8'))", columns.join(", "))
    }

    /// A bound: `(t.a, t.b) > ($1::text::bigint, …)`.
    fn bound(&self, sign: &str, first: usize) -> String {
        let values: Vec<String> = self
            .planned
            .shape
            .key
            .iter()
            .enumerate()
            .map(|(n, (_, sql_type))| format!("${}::text::{sql_type}", first + n))
            .collect();
        format!("({}) {sign} ({})", self.key(), values.join(", "))
    }

    /// Keys that cut the source's rows into ranges.
    async fn cuts(&self) -> Result<Vec<Key>, Error> {
        let sql = format!(
            "SELECT key FROM (SELECT {text} AS key, row_number() OVER (ORDER BY {key}) AS n FROM {t} t WHERE {member}) x
             WHERE n % {RANGE} = 0 ORDER BY n",
            text = self.key_text(),
            key = self.key(),
            t = self.planned.table.quoted(),
            member = self.from.member,
        );
        Ok(self.from.database.rows(DOING, &sql, &[]).await?.iter().map(|row| row.get(0)).collect())
    }

    fn within(&self, low: Option<&Key>, high: Option<&Key>) -> (String, Vec<String>) {
        let (mut sql, mut values) = (String::new(), Vec::new());
        for (key, sign) in [(low, ">"), (high, "<=")] {
            if let Some(key) = key {
                let _ = write!(sql, " AND {}", self.bound(sign, values.len() + 1));
                values.extend(key.iter().cloned());
            }
        }
        (sql, values)
    }

    async fn range(
        &self,
        half: &Half<'_>,
        low: Option<&Key>,
        high: Option<&Key>,
    ) -> Result<(i64, Vec<u8>), Error> {
        let (within, values) = self.within(low, high);
        let sql = format!(
            "SELECT count(*), coalesce(sha256(string_agg({digest}, ''::bytea ORDER BY {key})), ''::bytea)
             FROM {t} t WHERE {member}{within}",
            digest = self.digest(),
            key = self.key(),
            t = self.planned.table.quoted(),
            member = half.member,
        );
        let row = half.database.row(DOING, &sql, &parameters(&values)).await?;
        Ok((row.get(0), row.get(1)))
    }

    /// The rows of a range, each with its digest.
    async fn rows(
        &self,
        half: &Half<'_>,
        low: Option<&Key>,
        high: Option<&Key>,
    ) -> Result<BTreeMap<Key, Vec<u8>>, Error> {
        let (within, values) = self.within(low, high);
        let sql = format!(
            "SELECT {text}, {digest} FROM {t} t WHERE {member}{within}",
            text = self.key_text(),
            digest = self.digest(),
            t = self.planned.table.quoted(),
            member = half.member,
        );
        let rows = half.database.rows(DOING, &sql, &parameters(&values)).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// A join of `t` with keys that are given as arrays of text, one for each column, and those arrays.
    fn by_keys<'k>(&self, keys: &'k [Key]) -> (String, Vec<Vec<&'k str>>) {
        let shape = &self.planned.shape;
        let columns = (0..shape.key.len()).map(|n| keys.iter().map(|k| k[n].as_str()).collect()).collect();
        let names: Vec<String> = (0..shape.key.len()).map(|n| format!("k{n}")).collect();
        let arrays: Vec<String> = (1..=shape.key.len()).map(|n| format!("${n}::text[]")).collect();
        let on = shape
            .key
            .iter()
            .zip(&names)
            .map(|((c, sql_type), k)| format!("t.{} = k.{k}::{sql_type}", ident(c)));
        let on: Vec<String> = on.collect();
        let join =
            format!("JOIN unnest({}) AS k({}) ON {}", arrays.join(", "), names.join(", "), on.join(" AND "));
        (join, columns)
    }

    /// The rows of these keys, as far as they are there.
    async fn some(&self, half: &Half<'_>, keys: &[Key]) -> Result<BTreeMap<Key, Vec<u8>>, Error> {
        let (join, columns) = self.by_keys(keys);
        let sql = format!(
            "SELECT {text}, {digest} FROM {t} t {join} WHERE {member}",
            text = self.key_text(),
            digest = self.digest(),
            t = self.planned.table.quoted(),
            member = half.member,
        );
        let rows = half.database.rows(DOING, &sql, &parameters(&columns)).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Sets the marks of these rows right.
    async fn mend(&self, of: &Move, keys: &[Key]) -> Result<(), Error> {
        for batch in keys.chunks(BATCH) {
            let (join, columns) = self.by_keys(batch);
            let table = &self.planned.table;
            source::mend(of, table, self.from.database, &join, &parameters(&columns)).await?;
        }
        Ok(())
    }

    /// Which of these keys differ now.
    async fn differing(&self, keys: &BTreeSet<Key>) -> Result<BTreeMap<Key, Difference>, Error> {
        let keys: Vec<Key> = keys.iter().cloned().collect();
        let mut found = BTreeMap::new();
        for batch in keys.chunks(BATCH) {
            let (here, there) =
                futures_util::future::join(self.some(&self.from, batch), self.some(&self.to, batch)).await;
            found.extend(diff(&here?, &there?));
        }
        Ok(found)
    }
}

fn parameters<T: ToSql + Sync>(values: &[T]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|v| v as &(dyn ToSql + Sync)).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    Missing,
    Extra,
    Different,
}

fn diff(here: &BTreeMap<Key, Vec<u8>>, there: &BTreeMap<Key, Vec<u8>>) -> BTreeMap<Key, Difference> {
    let keys: BTreeSet<&Key> = here.keys().chain(there.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let difference = match (here.get(key), there.get(key)) {
                (Some(a), Some(b)) if a == b => return None,
                (Some(_), Some(_)) => Difference::Different,
                (Some(_), None) => Difference::Missing,
                (None, _) => Difference::Extra,
            };
            Some((key.clone(), difference))
        })
        .collect()
}

/// Compares everything. `told` hears of rows that were compared.
pub async fn verify(
    of: &Move,
    tables: &[Planned],
    from: &Database,
    to: &Database,
    told: &mut (dyn FnMut(&str, i64) + Send),
) -> Result<Verified, Error> {
    let mut verified = Verified::default();
    let mut root = Sha256::new();
    for planned in tables {
        let comparing = Comparing::new(planned, from, to);
        let shown = planned.table.shown();
        let (found, suspects) = compare(&comparing, &mut |rows| told(&shown, rows)).await?;
        let found = settle(of, &comparing, found, suspects).await?;
        root.update(found.root.as_bytes());
        verified.tables.insert(shown, found);
    }
    verified.root = hex::encode(root.finalize());
    Ok(verified)
}

/// One pass over a table: what is equal is done, what is not is suspect.
async fn compare(
    comparing: &Comparing<'_>,
    told: &mut (dyn FnMut(i64) + Send),
) -> Result<(TableVerified, BTreeSet<Key>), Error> {
    let mut found = TableVerified::default();
    let mut suspects = BTreeSet::new();
    let mut root = Sha256::new();
    let cuts = comparing.cuts().await?;
    let mut low = None;
    for high in cuts.iter().map(Some).chain([None]) {
        let (here, there) = futures_util::future::join(
            comparing.range(&comparing.from, low, high),
            comparing.range(&comparing.to, low, high),
        )
        .await;
        let (here, there) = (here?, there?);
        root.update(&here.1);
        found.rows += here.0;
        found.ranges += 1;
        if here != there {
            let (here, there) = futures_util::future::join(
                comparing.rows(&comparing.from, low, high),
                comparing.rows(&comparing.to, low, high),
            )
            .await;
            suspects.extend(diff(&here?, &there?).into_keys());
        }
        told(here.0);
        low = high;
    }
    found.root = hex::encode(root.finalize());
    found.looked_again = suspects.len() as u64;
    Ok((found, suspects))
}

/// Looks at suspects again, each time after everything that had happened has arrived.
async fn settle(
    of: &Move,
    comparing: &Comparing<'_>,
    mut found: TableVerified,
    mut suspects: BTreeSet<Key>,
) -> Result<TableVerified, Error> {
    let mut differing: BTreeMap<Key, Difference> = BTreeMap::new();
    for round in 0..ROUNDS {
        if suspects.is_empty() {
            break;
        }
        if round == 2 {
            // Not only on its way: perhaps a mark is wrong.
            let one_sided =
                differing.iter().filter(|(_, d)| **d != Difference::Different).map(|(k, _)| k.clone());
            comparing.mend(of, &one_sided.collect::<Vec<_>>()).await?;
        }
        let n = source::send_token(of, comparing.from.database).await?;
        target::await_token(of, comparing.to.database, n, CATCH_UP).await?;
        differing = comparing.differing(&suspects).await?;
        suspects = differing.keys().cloned().collect();
    }
    for (key, difference) in differing {
        match difference {
            Difference::Missing => found.missing += 1,
            Difference::Extra => found.extra += 1,
            Difference::Different => found.different += 1,
        }
        found.keys.push(key);
    }
    Ok(found)
}

/// Compares the rows that the watch has noted, and forgets those that are equal. Returns how many were looked at, and how many differ.
pub async fn watched(
    tables: &[Planned],
    from: &Database,
    to: &Database,
    at_most: i64,
) -> Result<(u64, u64), Error> {
    let sql = format!("SELECT n, relation, key FROM {SCHEMA}.watched ORDER BY n LIMIT {at_most}");
    let rows = from.rows("read the list of changed rows", &sql, &[]).await?;
    let mut by_table: BTreeMap<String, BTreeMap<Key, Vec<i64>>> = BTreeMap::new();
    for row in &rows {
        by_table.entry(row.get(1)).or_default().entry(row.get(2)).or_default().push(row.get(0));
    }
    let (mut equal, mut differ) = (Vec::new(), 0);
    for planned in tables {
        let Some(mut keys) = by_table.remove(&planned.table.quoted()) else { continue };
        let all: BTreeSet<Key> = keys.keys().cloned().collect();
        let differing = Comparing::new(planned, from, to).differing(&all).await?;
        differ += differing.len() as u64;
        keys.retain(|key, _| !differing.contains_key(key));
        equal.extend(keys.into_values().flatten());
    }
    let sql = format!("DELETE FROM {SCHEMA}.watched WHERE n = ANY ($1)");
    from.execute("forget compared rows", &sql, &[&equal]).await?;
    Ok((rows.len() as u64, differ))
}
