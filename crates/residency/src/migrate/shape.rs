//! What the tables of a database look like, as far as a move depends on it.

use serde::Serialize;

use crate::database::{Database, Error};
use crate::scope::{MARK, Table};

/// A table as a database has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Columns in their order, without the mark: name, type, and whether the database computes them.
    pub columns: Vec<Column>,
    /// The primary key's columns with their types.
    pub key: Vec<(String, String)>,
    /// `p`ermanent, `u`nlogged or `t`emporary.
    pub persistence: String,
    /// `r` for an ordinary table, `p` for a partitioned one.
    pub kind: String,
    /// Replica identity: `d`efault, `n`othing, `f`ull, `i`ndex.
    pub identity: String,
    /// Rows, as PostgreSQL estimates them.
    pub rows: i64,
    /// Bytes with indexes and TOAST.
    pub bytes: i64,
    /// Whether some index begins with each of the columns that say whose a row is.
    pub indexed: Vec<String>,
    /// Sequences that its columns own or draw from.
    pub sequences: Vec<String>,
    /// Whether it has rows.
    pub is_filled: bool,
    /// Whether it has the mark.
    pub has_mark: bool,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type with modifiers.
    pub sql_type: String,
    /// Whether it is a stored generated column.
    pub generated: bool,
    /// Whether it holds a large object's number.
    pub large_object: bool,
}

impl Shape {
    /// Columns that replication carries.
    pub fn carried(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| !c.generated)
    }
}

/// Reads a table; `None` if there is none.
pub async fn read(database: &Database, table: &Table) -> Result<Option<Shape>, Error> {
    let doing = "read the table's definition";
    let found = database
        .maybe(
            doing,
            "SELECT c.oid, c.relpersistence::text, c.relkind::text, c.relreplident::text,
                    greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')",
            &[&table.schema, &table.name],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    let oid: u32 = row.get(0);
    let columns = database
        .rows(
            doing,
            "SELECT attname::text, format_type(atttypid, atttypmod), attgenerated <> '', atttypid = 'oid'::regtype OR
                    atttypid::regtype::text = 'lo'
             FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            &[&oid],
        )
        .await?;
    let mut columns: Vec<Column> = columns
        .iter()
        .map(|c| Column { name: c.get(0), sql_type: c.get(1), generated: c.get(2), large_object: c.get(3) })
        .collect();
    let has_mark = columns.iter().any(|c| c.name == MARK);
    columns.retain(|c| c.name != MARK);
    let key = database
        .rows(
            doing,
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod)
             FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k(n, at)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n
             WHERE i.indrelid = $1 AND i.indisprimary AND k.at <= i.indnkeyatts ORDER BY k.at",
            &[&oid],
        )
        .await?;
    let indexed = database
        .rows(
            doing,
            "SELECT DISTINCT a.attname::text FROM pg_index i
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
             WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL",
            &[&oid],
        )
        .await?;
    let sequences = database
        .rows(
            doing,
            "SELECT DISTINCT format('%I.%I', n.nspname, s.relname)
             FROM pg_depend d JOIN pg_class s ON s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace
             WHERE (d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.refobjid = $1 AND d.deptype IN ('a', 'i'))
                OR (d.classid = 'pg_attrdef'::regclass AND d.refobjid = s.oid
                    AND d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = $1))
             ORDER BY 1",
            &[&oid],
        )
        .await?;
    database.run(doing, "SET lock_timeout = 2000").await?;
    let filled = database.row(doing, &format!("SELECT EXISTS (SELECT FROM {})", table.quoted()), &[]).await;
    database.run(doing, "RESET lock_timeout").await?;
    let is_filled = match filled {
        Ok(row) => row.get(0),
        // Its key is waiting to be made behind its rows.
        Err(e) if e.is_lock_timeout() => true,
        Err(e) => return Err(e),
    };
    Ok(Some(Shape {
        columns,
        key: key.iter().map(|k| (k.get(0), k.get(1))).collect(),
        persistence: row.get(1),
        kind: row.get(2),
        identity: row.get(3),
        rows: row.get(4),
        bytes: row.get(5),
        indexed: indexed.iter().map(|i| i.get(0)).collect(),
        sequences: sequences.iter().map(|s| s.get(0)).collect(),
        is_filled,
        has_mark,
    }))
}
