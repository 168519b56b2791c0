//! The SQL of a face. Pure: names and statements, no connection.

use sha2::{Digest, Sha256};

use crate::condition;
use crate::mask::KEY_TABLE;
use crate::spec::{FaceSpec, Rows, Shown, View};
use crate::sql::{ident, literal};

/// The group that every login role of ours is in: it may connect. PostgreSQL keeps the rights on a database
/// in one row, which has no room for some thousand roles.
pub const FACES: &str = "ringfence_faces";
/// The group of the roles that were there before: what PUBLIC loses, it keeps.
pub const OTHERS: &str = "ringfence_others";
/// The name of the policy that keeps other roles' access to a table with row-level security.
pub const OTHERS_POLICY: &str = "ringfence_others";

/// Limits of a face's login role. The client cannot raise them: the gateway refuses it, and `temp_file_limit` and the
/// connection limit cannot be changed by the role at all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections a principal may have to a store.
    pub connections: u32,
    /// Milliseconds a statement may run.
    pub statement_timeout_ms: u64,
    /// KiB of temporary files a session may write.
    pub temp_file_kib: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10, statement_timeout_ms: 60_000, temp_file_kib: 256 * 1024 }
    }
}

/// The schema of a face.
pub fn schema_name(digest: &str) -> String {
    format!("rf_{digest}")
}

/// The NOLOGIN owner of a face's views.
pub fn owner_name(digest: &str) -> String {
    format!("rf_{digest}_owner")
}

/// The group of a face's login roles: it may read the views.
pub fn group_name(digest: &str) -> String {
    format!("rf_{digest}_group")
}

/// The login role of one principal at one face. One each: a role sees and may cancel the statements of its own kind.
pub fn login_name(digest: &str, principal: &str) -> String {
    format!("rf_{digest}_{}", hex::encode(&Sha256::digest(principal)[..6]))
}

/// The login role of a principal with full access.
pub fn full_login_name(principal: &str) -> String {
    format!("rf_full_{}", hex::encode(&Sha256::digest(principal)[..6]))
}

/// Creates owner, group and schema.
pub fn create_owner(digest: &str) -> Vec<String> {
    let (schema, owner) = (ident(&schema_name(digest)), ident(&owner_name(digest)));
    vec![
        format!("CREATE ROLE {owner} NOLOGIN NOINHERIT"),
        format!("GRANT {owner} TO CURRENT_USER"),
        format!("CREATE ROLE {} NOLOGIN", ident(&group_name(digest))),
        format!("CREATE SCHEMA {schema} AUTHORIZATION {owner}"),
        format!("GRANT USAGE ON SCHEMA ringfence TO {owner}"),
        format!("GRANT SELECT ON {KEY_TABLE} TO {owner}"),
    ]
}

/// Creates grants and views; `rows` is the SQL of a choice of a view's rows. Nothing here waits for those who use the
/// tables.
pub fn create_views(
    spec: &FaceSpec,
    digest: &str,
    mut rows: impl FnMut(&View, &Rows) -> String,
) -> Vec<String> {
    let (schema, owner) = (ident(&schema_name(digest)), ident(&owner_name(digest)));
    let mut sql = Vec::new();
    for view in &spec.views {
        let table = format!("{}.{}", ident(&view.schema), ident(&view.table));
        let reads: Vec<String> = view.reads.iter().map(|c| ident(c)).collect();
        sql.push(format!("GRANT USAGE ON SCHEMA {} TO {owner}", ident(&view.schema)));
        sql.push(format!("GRANT SELECT ({}) ON {table} TO {owner}", reads.join(", ")));
        let mut column = |(name, shown): &(String, Shown)| {
            let expression = match shown {
                Shown::Always(expression) => expression.clone(),
                Shown::In { rows: chosen, then, otherwise } => {
                    format!("CASE WHEN {} THEN {then} ELSE {otherwise} END", rows(view, chosen))
                }
            };
            format!("{expression} AS {}", ident(name))
        };
        let columns: Vec<String> = view.columns.iter().map(&mut column).collect();
        let name = format!("{schema}.{}", ident(&view.table));
        sql.push(format!("CREATE VIEW {name} AS SELECT {} FROM {table}", columns.join(", ")));
        sql.push(format!("ALTER VIEW {name} OWNER TO {owner}"));
    }
    let group = ident(&group_name(digest));
    sql.push(format!("GRANT USAGE ON SCHEMA {schema} TO {group}"));
    sql.push(format!("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {group}"));
    sql
}

/// Creates the policies of a face: where only some rows are shown, one that nobody else's policy can widen; where the
/// table has row-level security of its own, one without which there would be no rows at all.
pub fn create_policies(
    spec: &FaceSpec,
    digest: &str,
    mut rows: impl FnMut(&View, &Rows) -> String,
) -> Vec<String> {
    let (name, owner) = (schema_name(digest), ident(&owner_name(digest)));
    let mut sql = Vec::new();
    for view in &spec.views {
        let table = format!("{}.{}", ident(&view.schema), ident(&view.table));
        if let Some(chosen) = view.rows.as_ref().filter(|_| view.conditions().is_some()) {
            let (policy, shown) = (ident(&name), rows(view, chosen));
            let what = format!("CREATE POLICY {policy} ON {table} AS RESTRICTIVE FOR SELECT");
            sql.push(format!("{what} TO {owner} USING ({shown})"));
        }
        if view.has_policies {
            let policy = ident(&format!("{name}_rows"));
            sql.push(format!("CREATE POLICY {policy} ON {table} FOR SELECT TO {owner} USING (true)"));
        }
    }
    sql
}

/// Creates the login role of a principal at a face. `verifier` is a SCRAM-SHA-256 verifier.
pub fn create_login(digest: &str, principal: &str, verifier: &str, limits: Limits) -> Vec<String> {
    let login = ident(&login_name(digest, principal));
    let (schema, group) = (ident(&schema_name(digest)), ident(&group_name(digest)));
    vec![
        format!(
            "CREATE ROLE {login} LOGIN INHERIT CONNECTION LIMIT {} PASSWORD {} IN ROLE {FACES}, {group}",
            // Two more, with which the gateway counts as this login.
            limits.connections.saturating_add(2),
            literal(verifier)
        ),
        format!("ALTER ROLE {login} SET search_path = {schema}"),
        format!("ALTER ROLE {login} SET default_transaction_read_only = on"),
        format!("ALTER ROLE {login} SET default_transaction_isolation = 'read committed'"),
        format!("ALTER ROLE {login} SET statement_timeout = {}", limits.statement_timeout_ms),
        format!("ALTER ROLE {login} SET idle_in_transaction_session_timeout = '10min'"),
        format!("ALTER ROLE {login} SET temp_file_limit = {}", limits.temp_file_kib),
        format!("ALTER ROLE {login} SET track_activities = off"),
        format!("ALTER ROLE {login} SET track_counts = off"),
    ]
}

/// Creates the login role of a principal with full access: every session becomes `role`, while the server's log and
/// `session_user` still name the principal's own.
pub fn create_full_login(principal: &str, role: &str, verifier: &str, limits: Limits) -> Vec<String> {
    let login = ident(&full_login_name(principal));
    let role = ident(role);
    vec![
        format!(
            // INHERIT: a client's own DISCARD ALL ends the SET ROLE below, and must not end its rights.
            "CREATE ROLE {login} LOGIN INHERIT CONNECTION LIMIT {} PASSWORD {} IN ROLE {role}, {FACES}",
            limits.connections,
            literal(verifier)
        ),
        format!("ALTER ROLE {login} SET role = {role}"),
    ]
}

/// Removes what [`create_login`] or [`create_full_login`] made. The role must have no session left.
pub fn drop_login(login: &str) -> Vec<String> {
    let login = ident(login);
    vec![
        format!("GRANT {login} TO CURRENT_USER"),
        format!("DROP OWNED BY {login}"),
        format!("DROP ROLE {login}"),
    ]
}

/// Removes what [`create_owner`] and [`create_views`] made; logins go first. `DROP OWNED` takes the policies and
/// grants along, but for the rights on `schemas` that the steward gave.
pub fn drop_face(digest: &str, schemas: &[String]) -> Vec<String> {
    let owner = ident(&owner_name(digest));
    let rights = schemas.iter().filter(|schema| **schema != schema_name(digest)).map(|schema| {
        format!("REVOKE USAGE ON SCHEMA {} FROM {owner} GRANTED BY CURRENT_USER", ident(schema))
    });
    let rights: Vec<String> = rights.collect();
    let sql = [
        format!("DROP SCHEMA {} CASCADE", ident(&schema_name(digest))),
        format!("DROP OWNED BY {owner}"),
        format!("DROP ROLE IF EXISTS {}", ident(&group_name(digest))),
        format!("DROP TABLE IF EXISTS {}", condition::table(digest)),
        format!("DROP ROLE {owner}"),
    ];
    rights.into_iter().chain(sql).collect()
}

/// Turns row-level security on for a table that has none. Every role, also one that is made later, goes on to see all
/// rows; only the owners of faces have policies that take rows away.
pub fn enable_row_security(schema: &str, table: &str) -> Vec<String> {
    let table = format!("{}.{}", ident(schema), ident(table));
    vec![
        format!("DROP POLICY IF EXISTS {OTHERS_POLICY} ON {table}"),
        format!("CREATE POLICY {OTHERS_POLICY} ON {table} TO PUBLIC USING (true) WITH CHECK (true)"),
        format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"),
    ]
}

/// Takes back what [`enable_row_security`] did. A table that has got policies of its own meanwhile keeps it on.
pub fn disable_row_security(schema: &str, table: &str, has_policies: bool) -> Vec<String> {
    let table = format!("{}.{}", ident(schema), ident(table));
    let mut sql = Vec::new();
    if !has_policies {
        sql.push(format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"));
    }
    sql.push(format!("DROP POLICY IF EXISTS {OTHERS_POLICY} ON {table}"));
    sql
}
