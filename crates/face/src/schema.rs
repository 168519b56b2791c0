//! What a store has: its tables and the types of their columns.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::Error;

/// A column's type as masks need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlType {
    /// The base type's name in `pg_type`, domains resolved: `text`, `int8`, `bpchar`, …
    pub base: String,
    /// As `format_type` prints it: `character(4)`.
    pub printed: String,
}

/// A table or partitioned table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreTable {
    /// The schema it lies in.
    pub schema: String,
    /// It has row-level security, and not from us.
    pub has_policies: bool,
    /// Its columns in order.
    pub columns: Vec<(String, SqlType)>,
}

/// User tables by (schema, name).
pub type StoreSchema = BTreeMap<(String, String), StoreTable>;

/// Reads all user tables that are not ours.
pub async fn read(client: &Client) -> Result<StoreSchema, Error> {
    let rows = client
        .query(
            "SELECT n.nspname::text, c.relname::text, a.attname::text,
                    coalesce(b.typname, t.typname)::text, format_type(a.atttypid, a.atttypmod),
                    c.relrowsecurity AND NOT EXISTS (
                      SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'ringfence_others')
             FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             JOIN pg_type t ON t.oid = a.atttypid
             LEFT JOIN pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
             WHERE c.relkind IN ('r', 'p', 'f', 'm')
               AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'ringfence')
               AND n.nspname NOT LIKE 'pg\\_temp%' AND n.nspname NOT LIKE 'rf\\_%'
             ORDER BY 1, 2, a.attnum",
            &[],
        )
        .await
        .map_err(Error::refused("list its tables"))?;
    let mut schema = StoreSchema::new();
    for row in rows {
        let (namespace, table): (String, String) = (row.get(0), row.get(1));
        let sql_type = SqlType { base: row.get(3), printed: row.get(4) };
        schema
            .entry((namespace.clone(), table))
            .or_insert_with(|| StoreTable {
                schema: namespace,
                has_policies: row.get(5),
                columns: Vec::new(),
            })
            .columns
            .push((row.get(2), sql_type));
    }
    Ok(schema)
}
