//! What would let a face role around its views, and what nobody classified.

use ringfence_policy::Catalogue;
use serde::Serialize;
use tokio_postgres::Client;

use crate::Error;
use crate::install::{HARMLESS_VOLATILE, REACHABLE_FUNCTIONS, REACHABLE_RELATIONS};
use crate::mask;
use crate::schema;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A way around the views, or data that policy does not know. Exit code 1.
    Error,
    /// Readable by everybody in the database's own catalogue; a human must judge whether it gives something away.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What it is about, as `table.column` or the like.
    pub object: String,
    /// What is wrong and what to do.
    pub problem: String,
}

fn error(object: impl Into<String>, problem: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, object: object.into(), problem: problem.into() }
}

fn warning(object: impl Into<String>, problem: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, object: object.into(), problem: problem.into() }
}

async fn rows(client: &Client, sql: &str) -> Result<Vec<tokio_postgres::Row>, Error> {
    client.query(sql, &[]).await.map_err(Error::refused("answer about itself"))
}

/// What a move keeps in a store while it lasts: about no column of the catalogue, and in no face.
const MOVE_SCHEMA: &str = "ringfence_move";
const MOVE_MARK: &str = "ringfence_moves";

/// Looks at a store through the steward's eyes.
pub async fn check(client: &Client, catalogue: &Catalogue) -> Result<Vec<Finding>, Error> {
    let mut found = classification(client, catalogue).await?;
    found.extend(reachable(client).await?);
    found.extend(catalogue_texts(client, catalogue).await?);
    found.extend(row_security(client, catalogue).await?);
    Ok(found)
}

/// What is otherwise for others while a grant opens some rows of a table only: row-level security is on then.
async fn row_security(client: &Client, catalogue: &Catalogue) -> Result<Vec<Finding>, Error> {
    let tables: Vec<String> = catalogue.tables.keys().cloned().collect();
    let ask =
        async |sql: &str| client.query(sql, &[&tables]).await.map_err(Error::refused("answer about itself"));
    // A table that has it by itself is as it was for a dump.
    let dumping = "SELECT r.rolname::text, string_agg(c.relname::text, ', ' ORDER BY c.relname)
        FROM pg_roles r, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE r.rolcanlogin AND NOT r.rolsuper AND NOT r.rolbypassrls AND r.rolname !~ '^(pg_|rf_|ringfence)'
          AND c.relname = ANY($1) AND c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|rf_|ringfence)'
          AND (NOT c.relrowsecurity OR EXISTS (
            SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'ringfence_others'))
          AND has_table_privilege(r.oid, c.oid, 'SELECT') AND NOT pg_has_role(r.oid, c.relowner, 'USAGE')
        GROUP BY 1 ORDER BY 1";
    let mut found = Vec::new();
    for row in ask(dumping).await? {
        let (role, tables): (String, String) = (row.get(0), row.get(1));
        let problem = format!(
            "has no BYPASSRLS: its pg_dump of {tables} fails while a grant opens some rows of them only;              dump as the tables' owner, or ALTER ROLE … BYPASSRLS"
        );
        found.push(warning(format!("the role {role}"), problem));
    }
    let hidden = "SELECT c.relname::text, string_agg(t.polname::text, ', ' ORDER BY t.polname)
        FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid AND p.polname = 'ringfence_others'
        JOIN pg_policy t ON t.polrelid = c.oid AND t.polname <> p.polname AND t.polname NOT LIKE 'rf\\_%'
        WHERE c.relname = ANY($1) AND t.polpermissive GROUP BY 1 ORDER BY 1";
    for row in ask(hidden).await? {
        let (table, policies): (String, String) = (row.get(0), row.get(1));
        let problem = format!(
            "has got policies ({policies}) since a grant opens some rows of it only: they take no rows away              before the last such grant has ended"
        );
        found.push(warning(table, problem));
    }
    Ok(found)
}

/// Columns without a class, classes without a column, masks that do not fit.
async fn classification(client: &Client, catalogue: &Catalogue) -> Result<Vec<Finding>, Error> {
    let has = schema::read(client).await?;
    let mut found = Vec::new();
    if has.is_empty() && !catalogue.tables.is_empty() {
        // The target of a move, before it has begun.
        let problem = "has none of the catalogue's tables yet";
        found.push(warning("the store", problem));
        return Ok(found);
    }
    for ((namespace, table), stored) in &has {
        if namespace == MOVE_SCHEMA {
            continue;
        }
        let classified = catalogue.tables.get(table).filter(|t| t.schema == *namespace);
        for (column, sql_type) in stored.columns.iter().filter(|(name, _)| name != MOVE_MARK) {
            let name = format!("{namespace}.{table}.{column}");
            match classified.and_then(|t| t.columns.get(column)) {
                None => {
                    found.push(error(name, "is unclassified: it is in no face until the catalogue lists it"));
                }
                Some(class) => {
                    if let Some(how) = class.protected()
                        && let Err(e) = mask::expression(table, column, how, sql_type)
                    {
                        found.push(error(name, e.to_string()));
                    }
                }
            }
        }
    }
    for (table, classified) in &catalogue.tables {
        match has.get(&(classified.schema.clone(), table.clone())) {
            None => found.push(error(table.clone(), "is in the catalogue but not in the store")),
            Some(stored) => {
                for column in
                    classified.columns.keys().filter(|c| !stored.columns.iter().any(|(n, _)| n == *c))
                {
                    found
                        .push(error(format!("{table}.{column}"), "is in the catalogue but not in the store"));
                }
            }
        }
    }
    Ok(found)
}

/// What PUBLIC, and so every face, can reach.
async fn reachable(client: &Client) -> Result<Vec<Finding>, Error> {
    let mut found = Vec::new();
    for row in rows(client, REACHABLE_FUNCTIONS).await? {
        let (signature, name, schema, definer): (String, String, String, bool) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        if schema == "pg_catalog" && HARMLESS_VOLATILE.contains(&name.as_str()) {
            continue;
        }
        let how = if definer { "runs with its owner's rights and " } else { "" };
        found.push(error(
            signature,
            format!("{how}can be executed by PUBLIC, so by every face; revoke it (`ringfence install` does)"),
        ));
    }
    for row in rows(client, REACHABLE_RELATIONS).await? {
        let (schema, name, privileges): (String, String, String) = (row.get(0), row.get(1), row.get(3));
        let extension_view = name.starts_with("pg_stat_statements");
        let problem = format!("is granted to PUBLIC ({privileges}), so to every face; revoke it");
        let object = format!("{schema}.{name}");
        found.push(if extension_view { warning(object, problem) } else { error(object, problem) });
    }
    let databases = "SELECT d.datname::text, string_agg(g.privilege_type, ', ') FROM pg_database d
        CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) g
        WHERE g.grantee = 0 GROUP BY 1 ORDER BY 1";
    for row in rows(client, databases).await? {
        let (name, privileges): (String, String) = (row.get(0), row.get(1));
        found.push(error(format!("database {name}"), format!("PUBLIC has {privileges} on it; revoke it")));
    }
    let schemas = "SELECT n.nspname::text, string_agg(g.privilege_type, ', ') FROM pg_namespace n
        CROSS JOIN LATERAL aclexplode(n.nspacl) g
        WHERE g.grantee = 0 AND n.nspname NOT IN ('pg_catalog', 'information_schema') GROUP BY 1 ORDER BY 1";
    for row in rows(client, schemas).await? {
        let (name, privileges): (String, String) = (row.get(0), row.get(1));
        found.push(error(format!("schema {name}"), format!("PUBLIC has {privileges} on it; revoke it")));
    }
    let languages = "SELECT l.lanname::text FROM pg_language l
        CROSS JOIN LATERAL aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) g
        WHERE g.grantee = 0 AND l.lanpltrusted AND l.lanname NOT IN ('internal', 'c')";
    for row in rows(client, languages).await? {
        found.push(error(
            format!("language {}", row.get::<_, String>(0)),
            "PUBLIC may write functions in it; revoke it",
        ));
    }
    for parameter in ["track_activities", "track_counts", "temp_file_limit"] {
        let sql = format!("SELECT has_parameter_privilege('ringfence', '{parameter}', 'SET')");
        let may_set = rows(client, &sql).await?.first().is_some_and(|row| row.get(0));
        if !may_set {
            let problem = "cannot be set for faces, so no face can be made: \
                           GRANT SET ON PARAMETER it TO ringfence (`ringfence install` does)";
            found.push(error(format!("the parameter {parameter}"), problem));
        }
    }
    let faces = "SELECT r.rolname::text, m.rolname::text FROM pg_auth_members a
        JOIN pg_roles r ON r.oid = a.member JOIN pg_roles m ON m.oid = a.roleid
        WHERE r.rolname LIKE 'rf\\_%' AND r.rolname NOT LIKE 'rf\\_full\\_%' AND m.rolname <> 'ringfence_faces'
          AND m.rolname <> regexp_replace(r.rolname, '^(rf_[0-9a-f]+)_.*$', '\\1_group')";
    for row in rows(client, faces).await? {
        let (face, role): (String, String) = (row.get(0), row.get(1));
        found
            .push(error(face, format!("is a member of {role}, whose rights go beyond its views; revoke it")));
    }
    Ok(found)
}

/// Texts in PostgreSQL's own catalogue, which every role can read, about tables that have protected columns.
async fn catalogue_texts(client: &Client, catalogue: &Catalogue) -> Result<Vec<Finding>, Error> {
    let sensitive: Vec<&str> = catalogue
        .tables
        .iter()
        .filter(|(_, t)| t.columns.values().any(|c| c.protected().is_some()))
        .map(|(name, _)| name.as_str())
        .collect();
    let sql = "SELECT c.relname || '.' || i.relname, 'has a partial or expression index, whose literals every role can read'
          FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
          WHERE (x.indpred IS NOT NULL OR x.indexprs IS NOT NULL) AND c.relname = ANY($1)
        UNION ALL
        SELECT c.relname || coalesce('.' || a.attname, ''), 'has a comment, which every role can read'
          FROM pg_description d JOIN pg_class c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass
          LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
          WHERE c.relname = ANY($1)
        UNION ALL
        SELECT c.relname || '.' || k.conname, 'has a CHECK constraint, whose literals every role can read'
          FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE k.contype = 'c' AND c.relname = ANY($1)
        UNION ALL
        SELECT p.oid::regprocedure::text, 'has a source text, which every role can read: no keys or values in it'
          FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
          WHERE n.nspname !~ '^(pg_|rf_|ringfence$)' AND n.nspname <> 'information_schema'
            AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.objid = p.oid AND e.deptype = 'e')
        ORDER BY 1";
    let rows = client.query(sql, &[&sensitive]).await.map_err(Error::refused("answer about itself"))?;
    Ok(rows.iter().map(|r| warning(r.get::<_, String>(0), r.get::<_, String>(1))).collect())
}
