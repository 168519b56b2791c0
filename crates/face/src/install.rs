//! Preparing a store, once, as its superuser; and putting everything back.
//!
//! PostgreSQL has no "deny": what PUBLIC may do, every face may do. So PUBLIC loses what would let a face around its
//! views, and the group [`OTHERS`] of the roles that were there before gets exactly that back. Each change is paired with
//! its undo, and the undos are kept in the store (`ringfence.undo`). The catalogue stays readable: `\d`, JDBC and ORMs
//! keep working; what in it could give something away is named by [`crate::preflight`].

use rand_core::{OsRng, RngCore};
use tokio_postgres::Client;

use crate::Error;
use crate::ddl::{FACES, OTHERS};
use crate::sql::{ident, literal};

/// The steward's role.
pub const STEWARD: &str = "ringfence";

/// What PUBLIC keeps of `pg_catalog`'s volatile functions: harmless, and clients rely on them. The sizes say no more than
/// `pg_class.relpages`, which everybody can read, and psql's `\dt+` asks for them. A tablespace's size is not among
/// them: temporary files of others' statements count in it.
pub const HARMLESS_VOLATILE: &[&str] = &[
    "random",
    "clock_timestamp",
    "timeofday",
    "gen_random_uuid",
    "nextval",
    "currval",
    "lastval",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_table_size",
    "pg_relation_size",
    "pg_total_relation_size",
    "pg_indexes_size",
    "pg_database_size",
];

/// One change and how to take it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The statement.
    pub apply: String,
    /// Its opposite; empty where the drop of the `ringfence` schema and roles is enough.
    pub undo: String,
}

fn change(apply: String, undo: impl Into<String>) -> Change {
    Change { apply, undo: undo.into() }
}

/// What an installation needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The steward's SCRAM verifier: a password never reaches the server's log.
    pub steward_verifier: String,
    /// The role whose privileges principals with full access get.
    pub full_role: Option<String>,
}

/// Works out everything that an installation would do, without doing it.
pub async fn plan(client: &Client, options: &Options) -> Result<Vec<Change>, Error> {
    let server: String = value(client, "SHOW server_version_num").await?;
    if server.parse::<u32>().unwrap_or(0) < 150_000 {
        let problem = "Ringfence needs PostgreSQL 15 or later".to_owned();
        return Err(Error::Refused { doing: "be prepared", problem });
    }
    let database: String = value(client, "SELECT current_database()::text").await?;
    let mut changes = roles_and_schema(client, &database, options).await?;
    changes.extend(databases(client).await?);
    changes.extend(schemas_and_languages(client).await?);
    changes.extend(functions(client).await?);
    changes.extend(relations(client).await?);
    Ok(changes)
}

/// Carries out a plan, all or nothing, and keeps the undos.
pub async fn apply(client: &mut Client, changes: &[Change]) -> Result<(), Error> {
    let tx = client.transaction().await.map_err(Error::refused("begin"))?;
    // The mask key passes through one of these statements; the server's log must not have it.
    tx.batch_execute(
        "SET LOCAL log_statement = 'none'; SET LOCAL log_min_duration_statement = -1;
         SET LOCAL log_min_error_statement = 'panic'",
    )
    .await
    .map_err(Error::refused("keep its log quiet"))?;
    for change in changes {
        tx.batch_execute(&change.apply).await.map_err(Error::refused("be prepared"))?;
    }
    for undo in changes.iter().map(|c| &c.undo).filter(|u| !u.is_empty()) {
        tx.execute("INSERT INTO ringfence.undo (sql) VALUES ($1)", &[undo])
            .await
            .map_err(Error::refused("keep the undo list"))?;
    }
    tx.batch_execute(&format!("ALTER TABLE ringfence.undo OWNER TO {STEWARD}"))
        .await
        .map_err(Error::refused("be prepared"))?;
    tx.commit().await.map_err(Error::refused("commit the preparation"))
}

/// The statements that put everything back: faces first, then the undos from last to first, then our roles.
pub async fn uninstall_plan(client: &Client) -> Result<Vec<String>, Error> {
    let rows = client
        .query("SELECT sql FROM ringfence.undo ORDER BY n DESC", &[])
        .await
        .map_err(|_| Error::NotInstalled)?;
    let mut sql = Vec::new();
    let faces = client
        .query("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'rf\\_%'", &[])
        .await
        .map_err(Error::refused("list the faces"))?;
    sql.extend(faces.iter().map(|r| format!("DROP SCHEMA {} CASCADE", ident(r.get(0)))));
    let tables = client
        .query(
            "SELECT n.nspname::text, c.relname::text,
                    EXISTS (SELECT FROM pg_policy t WHERE t.polrelid = c.oid
                            AND t.polname <> 'ringfence_others' AND t.polname NOT LIKE 'rf\\_%')
             FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.polname = 'ringfence_others'",
            &[],
        )
        .await
        .map_err(Error::refused("list the policies"))?;
    for row in tables {
        sql.extend(crate::ddl::disable_row_security(row.get(0), row.get(1), row.get(2)));
    }
    let roles = client
        .query("SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'rf\\_%'", &[])
        .await
        .map_err(Error::refused("list our roles"))?;
    for role in roles.iter().map(|r| ident(r.get(0))) {
        sql.push(format!("DROP OWNED BY {role}"));
        sql.push(format!("DROP ROLE {role}"));
    }
    sql.extend(rows.iter().map(|r| r.get(0)));
    sql.push("DROP SCHEMA ringfence CASCADE".to_owned());
    let elsewhere = "SELECT 1 FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid AND d.refclassid = 'pg_authid'::regclass
        JOIN pg_database b ON b.oid = d.dbid
        WHERE r.rolname IN ('ringfence', 'ringfence_faces', 'ringfence_others')
          AND b.datname <> current_database() LIMIT 1";
    let shared =
        client.query_opt(elsewhere, &[]).await.map_err(Error::refused("answer about itself"))?.is_some();
    for role in [FACES, OTHERS, STEWARD] {
        sql.push(format!("DROP OWNED BY {role}"));
        // Another prepared database of the cluster still needs the roles.
        if !shared {
            sql.push(format!("DROP ROLE {role}"));
        }
    }
    Ok(sql)
}

/// Carries out [`uninstall_plan`], all or nothing.
pub async fn uninstall(client: &mut Client, plan: &[String]) -> Result<(), Error> {
    let tx = client.transaction().await.map_err(Error::refused("begin"))?;
    for statement in plan {
        tx.batch_execute(statement).await.map_err(Error::refused("put itself back"))?;
    }
    tx.commit().await.map_err(Error::refused("commit"))
}

async fn value(client: &Client, sql: &str) -> Result<String, Error> {
    Ok(client.query_one(sql, &[]).await.map_err(Error::refused("answer about itself"))?.get(0))
}

async fn rows(client: &Client, sql: &str) -> Result<Vec<tokio_postgres::Row>, Error> {
    client.query(sql, &[]).await.map_err(Error::refused("answer about itself"))
}

async fn roles_and_schema(client: &Client, database: &str, options: &Options) -> Result<Vec<Change>, Error> {
    // What an earlier version has prepared stays, the mask key above all: the rest is added.
    let exists: bool = client
        .query_one("SELECT to_regnamespace('ringfence') IS NOT NULL", &[])
        .await
        .map_err(Error::refused("answer about itself"))?
        .get(0);
    let (mut inner, mut outer) = ([0x36_u8; 64], [0x5c_u8; 64]); // RFC 2104: key ⊕ ipad, key ⊕ opad
    let mut key = [0_u8; 64];
    OsRng.fill_bytes(&mut key);
    for ((i, o), k) in inner.iter_mut().zip(&mut outer).zip(key) {
        *i ^= k;
        *o ^= k;
    }
    let database = ident(database);
    let mut changes = Vec::new();
    let ours = "SELECT rolname::text FROM pg_roles WHERE rolname IN ('ringfence', 'ringfence_faces', 'ringfence_others')";
    let known: Vec<String> = rows(client, ours).await?.iter().map(|r| r.get(0)).collect();
    // Another database of the cluster may be prepared already: roles are the cluster's.
    for (role, how) in [
        (STEWARD, format!("LOGIN CREATEROLE PASSWORD {}", literal(&options.steward_verifier))),
        (FACES, "NOLOGIN".to_owned()),
        (OTHERS, "NOLOGIN".to_owned()),
    ] {
        if !known.iter().any(|k| k == role) {
            changes.push(change(format!("CREATE ROLE {role} {how}"), ""));
        }
    }
    changes.extend([
        change(format!("GRANT {OTHERS} TO {STEWARD}"), ""),
        change(format!("GRANT CREATE ON DATABASE {database} TO {STEWARD}"), ""),
        change(format!("GRANT CONNECT ON DATABASE {database} TO {STEWARD} WITH GRANT OPTION"), ""),
        change(
            format!("GRANT SET ON PARAMETER track_activities, track_counts, temp_file_limit TO {STEWARD}"),
            "",
        ),
    ]);
    let ours = [
        change(format!("CREATE SCHEMA ringfence AUTHORIZATION {STEWARD}"), ""),
        change(
            "CREATE TABLE ringfence.mask_key (inner_pad bytea NOT NULL, outer_pad bytea NOT NULL);
             CREATE UNIQUE INDEX mask_key_one ON ringfence.mask_key ((true));
             CREATE TABLE ringfence.faces (digest text PRIMARY KEY, spec text NOT NULL,
                                           created_at timestamptz NOT NULL DEFAULT now(),
                                           last_used timestamptz NOT NULL DEFAULT now());
             CREATE TABLE ringfence.undo (n bigint GENERATED ALWAYS AS IDENTITY, sql text NOT NULL)"
                .to_owned(),
            "",
        ),
        change(
            format!(
                "INSERT INTO ringfence.mask_key VALUES ('\\x{}', '\\x{}')",
                hex::encode(inner),
                hex::encode(outer)
            ),
            "",
        ),
        change(
            format!(
                "ALTER TABLE ringfence.mask_key OWNER TO {STEWARD}; ALTER TABLE ringfence.faces OWNER TO {STEWARD}"
            ),
            "",
        ),
    ];
    if !exists {
        changes.extend(ours);
    }
    for row in rows(
        client,
        "SELECT rolname::text FROM pg_roles WHERE NOT rolsuper AND rolname !~ '^(pg_|ringfence|rf_)'",
    )
    .await?
    {
        changes.push(change(format!("GRANT {OTHERS} TO {}", ident(row.get(0))), ""));
    }
    let owners = "SELECT DISTINCT r.rolname::text, r.rolsuper, min(c.relname)::text FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
        WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|ringfence$|rf_)' AND n.nspname <> 'information_schema'
        GROUP BY 1, 2";
    for row in rows(client, owners).await? {
        let (owner, is_super, table): (String, bool, String) = (row.get(0), row.get(1), row.get(2));
        if is_super {
            let problem = format!(
                "table {table} is owned by the superuser {owner}, whose rights the steward must not have; \
                 give the tables to a role that is no superuser first (ALTER TABLE … OWNER TO …)"
            );
            return Err(Error::Refused { doing: "be prepared", problem });
        }
        changes.push(change(format!("GRANT {} TO {STEWARD}", ident(&owner)), ""));
    }
    if let Some(role) = &options.full_role {
        let found = client
            .query_opt("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = $1", &[role])
            .await
            .map_err(Error::refused("answer about itself"))?;
        match found.map(|r| (r.get::<_, bool>(0), r.get::<_, bool>(1))) {
            Some((false, true)) => {}
            // Row-level security comes and goes with grants; who has full access must never notice, pg_dump included.
            Some((false, false)) => changes.push(change(
                format!("ALTER ROLE {} BYPASSRLS", ident(role)),
                format!("ALTER ROLE {} NOBYPASSRLS", ident(role)),
            )),
            Some((true, _)) => {
                let problem = format!("the full-access role {role} is a superuser; choose one that is not");
                return Err(Error::Refused { doing: "be prepared", problem });
            }
            None => return Err(Error::NotInStore(format!("the role {role}"))),
        }
    }
    Ok(changes)
}

async fn databases(client: &Client) -> Result<Vec<Change>, Error> {
    let sql = "SELECT datname::text, string_agg(g.privilege_type, ', ') FROM pg_database d
        CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) g
        WHERE g.grantee = 0 GROUP BY 1 ORDER BY 1";
    let mut changes = Vec::new();
    for row in rows(client, sql).await? {
        let (database, privileges) = (ident(row.get(0)), row.get::<_, String>(1));
        changes.push(change(
            format!("REVOKE {privileges} ON DATABASE {database} FROM PUBLIC"),
            format!("GRANT {privileges} ON DATABASE {database} TO PUBLIC"),
        ));
        changes.push(change(
            format!("GRANT {privileges} ON DATABASE {database} TO {OTHERS}"),
            format!("REVOKE {privileges} ON DATABASE {database} FROM {OTHERS}"),
        ));
    }
    Ok(changes)
}

async fn schemas_and_languages(client: &Client) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    let schemas = "SELECT n.nspname::text,
          (SELECT string_agg(g.privilege_type, ', ') FROM aclexplode(n.nspacl) g WHERE g.grantee = 0)
        FROM pg_namespace n WHERE n.nspname !~ '^(pg_|ringfence$|rf_)' AND n.nspname <> 'information_schema' ORDER BY 1";
    for row in rows(client, schemas).await? {
        let (schema, public) = (ident(row.get(0)), row.get::<_, Option<String>>(1));
        changes.push(change(
            format!("GRANT USAGE ON SCHEMA {schema} TO {STEWARD} WITH GRANT OPTION"),
            format!("REVOKE USAGE ON SCHEMA {schema} FROM {STEWARD} CASCADE"),
        ));
        if let Some(privileges) = public {
            changes.extend(moved(&privileges, &format!("SCHEMA {schema}")));
        }
    }
    let languages = "SELECT l.lanname::text FROM pg_language l
        CROSS JOIN LATERAL aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) g
        WHERE g.grantee = 0 AND l.lanpltrusted AND l.lanname NOT IN ('internal', 'c') ORDER BY 1";
    for row in rows(client, languages).await? {
        changes.extend(moved("USAGE", &format!("LANGUAGE {}", ident(row.get(0)))));
    }
    Ok(changes)
}

/// Takes `privileges` on `object` from PUBLIC and gives them to the roles that were there before.
fn moved(privileges: &str, object: &str) -> [Change; 2] {
    [
        change(
            format!("REVOKE {privileges} ON {object} FROM PUBLIC"),
            format!("GRANT {privileges} ON {object} TO PUBLIC"),
        ),
        change(
            format!("GRANT {privileges} ON {object} TO {OTHERS}"),
            format!("REVOKE {privileges} ON {object} FROM {OTHERS}"),
        ),
    ]
}

/// The functions that a face must not call: `pg_catalog`'s volatile ones but for a short list, those behind the
/// statistics views, and all user functions that PUBLIC may execute. Statistics count what an index or a table gave
/// below a row policy, so they tell values that no view shows. Each view of them calls a function `pg_stat_get_…`, in
/// PostgreSQL 15 to 18, `pg_stat_io` included, which `track_counts` does not switch off.
pub const REACHABLE_FUNCTIONS: &str =
    "SELECT p.oid::regprocedure::text, p.proname::text, n.nspname::text, p.prosecdef, p.prokind::text
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g
    WHERE g.grantee = 0 AND n.nspname NOT LIKE 'rf\\_%'
      AND (n.nspname <> 'pg_catalog' OR p.provolatile = 'v' OR p.proname LIKE 'pg\\_stat\\_%')
      AND n.nspname <> 'information_schema'
      AND p.prorettype <> 'trigger'::regtype AND p.prorettype <> 'event_trigger'::regtype
    ORDER BY 1";

async fn functions(client: &Client) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    for row in rows(client, REACHABLE_FUNCTIONS).await? {
        let (signature, name, schema): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        if schema == "pg_catalog" && HARMLESS_VOLATILE.contains(&name.as_str()) {
            continue;
        }
        changes.extend(moved("EXECUTE", &format!("ROUTINE {signature}")));
    }
    let makers = "SELECT DISTINCT r.rolname::text FROM pg_roles r
        WHERE r.rolname !~ '^(pg_|ringfence|rf_)' ORDER BY 1";
    for row in rows(client, makers).await? {
        let role = ident(row.get(0));
        changes.push(change(
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE {role} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"),
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT EXECUTE ON FUNCTIONS TO PUBLIC"),
        ));
        changes.push(change(
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT EXECUTE ON FUNCTIONS TO {OTHERS}"),
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE {role} REVOKE EXECUTE ON FUNCTIONS FROM {OTHERS}"),
        ));
    }
    Ok(changes)
}

/// User relations that PUBLIC has something on.
pub const REACHABLE_RELATIONS: &str = "SELECT n.nspname::text, c.relname::text, c.relkind::text, string_agg(DISTINCT g.privilege_type, ', ')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL aclexplode(c.relacl) g
    WHERE g.grantee = 0 AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'rf\\_%'
    GROUP BY 1, 2, 3 ORDER BY 1, 2";

async fn relations(client: &Client) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    for row in rows(client, REACHABLE_RELATIONS).await? {
        let (schema, name, kind): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let word = if kind == "S" { "SEQUENCE" } else { "TABLE" };
        changes.extend(moved(row.get(3), &format!("{word} {}.{}", ident(&schema), ident(&name))));
    }
    Ok(changes)
}
