//! The source's own guard: an event trigger that refuses every change after which a flow would carry a column that was not signed.

use std::fmt::Write as _;

use ringfence_face::sql::literal;

use super::{Carried, Flow};
use crate::database::{Database, Error};

/// The schema of what flows keep at their source.
pub const SCHEMA: &str = "ringfence_flow";

/// Lays it, with the columns of this flow.
pub async fn lay(of: &Flow, tables: &[Carried], from: &Database) -> Result<(), Error> {
    let mut allowed = String::new();
    for carried in tables {
        let columns: Vec<String> = carried.columns.iter().map(|(name, _)| literal(name)).collect();
        // A name can be given to another column later; its number cannot.
        let _ = write!(
            allowed,
            "INSERT INTO {SCHEMA}.allowed SELECT {}, {}, {}, ARRAY[{columns}],
                (SELECT array_agg(attnum) FROM pg_attribute WHERE attrelid = {}::regclass AND attname IN ({columns}));",
            literal(&of.name),
            literal(&carried.schema),
            literal(&carried.table),
            literal(&carried.quoted()),
            columns = columns.join(", ")
        );
    }
    let sql = format!(
        "BEGIN;
         CREATE SCHEMA IF NOT EXISTS {SCHEMA};
         CREATE TABLE IF NOT EXISTS {SCHEMA}.allowed (
            flow text NOT NULL, schema text NOT NULL, relation text NOT NULL, columns text[] NOT NULL, numbers int2[] NOT NULL, PRIMARY KEY (flow, schema, relation));
         REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC;
         DELETE FROM {SCHEMA}.allowed WHERE flow = {name};
         {allowed}
         CREATE OR REPLACE FUNCTION {SCHEMA}.guard() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp AS $f$
         DECLARE rf_what text;
         BEGIN
             SELECT format('%I.%I of %I', t.schemaname, t.tablename, t.pubname) INTO rf_what
               FROM pg_publication_tables t LEFT JOIN {SCHEMA}.allowed a
                 ON t.pubname = 'ringfence_flow_' || a.flow AND t.schemaname = a.schema AND t.tablename = a.relation
              WHERE t.pubname LIKE 'ringfence\\_flow\\_%' AND (a.columns IS NULL OR NOT t.attnames::text[] <@ a.columns) LIMIT 1;
             IF rf_what IS NULL THEN
                 SELECT format('%s of %I under a name that was signed for another column', r.prrelid::regclass, p.pubname) INTO rf_what
                   FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                   JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                   JOIN {SCHEMA}.allowed a ON p.pubname = 'ringfence_flow_' || a.flow AND n.nspname = a.schema AND c.relname = a.relation
                  WHERE NOT r.prattrs::int2[] <@ a.numbers LIMIT 1;
             END IF;
             IF rf_what IS NOT NULL THEN
                 RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
                     MESSAGE = 'this would let columns out of the jurisdiction that nobody has signed for: ' || rf_what,
                     HINT = 'Ask for a new flow with `ringfence flow request`; the in-country team signs it.';
             END IF;
         END $f$;
         REVOKE ALL ON FUNCTION {SCHEMA}.guard() FROM PUBLIC;
         DROP EVENT TRIGGER IF EXISTS ringfence_flow_guard;
         CREATE EVENT TRIGGER ringfence_flow_guard ON ddl_command_end
             WHEN TAG IN ('CREATE PUBLICATION', 'ALTER PUBLICATION', 'ALTER TABLE') EXECUTE FUNCTION {SCHEMA}.guard();
         COMMIT",
        name = literal(&of.name),
    );
    if let Err(e) = from.run("lay the guard", &sql).await {
        let _ = from.run("roll back", "ROLLBACK").await;
        return Err(e);
    }
    Ok(())
}

/// Whether it stands.
pub async fn stands(from: &Database) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'ringfence_flow_guard' AND evtenabled IN ('O', 'A'))";
    Ok(from.row("look for the guard", sql, &[]).await?.get(0))
}

/// Takes it away with its last flow.
pub async fn lift(of: &Flow, from: &Database) -> Result<(), Error> {
    let sql = format!(
        "DO $do$ BEGIN
            IF to_regclass('{SCHEMA}.allowed') IS NULL THEN RETURN; END IF;
            DELETE FROM {SCHEMA}.allowed WHERE flow = {name};
            IF NOT EXISTS (SELECT FROM {SCHEMA}.allowed) THEN
                DROP EVENT TRIGGER IF EXISTS ringfence_flow_guard;
                DROP SCHEMA {SCHEMA} CASCADE;
            END IF;
         END $do$",
        name = literal(&of.name)
    );
    from.run("take the guard away", &sql).await
}
