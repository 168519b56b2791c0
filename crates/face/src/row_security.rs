//! Row-level security of the store's tables: it comes with the first face that shows some rows of a table only, and goes
//! with the last one. Only the owners of faces have policies that take rows away; all other roles see what they saw.
//!
//! PostgreSQL locks the table for it, against readers too, so each lock is waited for a moment only ([`LOCK`]): a reader
//! that comes meanwhile waits as long.

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Transaction;

use crate::Error;
use crate::ddl;
use crate::spec::View;

/// So long one transaction waits for its locks on tables.
pub(crate) const LOCK: Duration = Duration::from_millis(100);
/// A lock that is hard to get is waited for at least so long.
const LEAST: Duration = Duration::from_millis(10);

/// Serialises gateways that compile at the same time.
const ADVISORY_LOCK: i64 = 0x72_66_61_63_65; // "rface"

/// Takes the compiler's lock; what is locked after it may be `tables` tables.
pub(crate) async fn begin(tx: &Transaction<'_>, tables: usize) -> Result<(), Error> {
    let each = LOCK / u32::try_from(tables.max(1)).unwrap_or(u32::MAX);
    tx.batch_execute(&format!(
        "SET LOCAL lock_timeout = '2s'; SELECT pg_advisory_xact_lock({ADVISORY_LOCK});
         SET LOCAL lock_timeout = '{}ms'",
        each.max(LEAST).as_millis()
    ))
    .await
    .map_err(Error::refused("take the compiler's lock"))
}

/// Switches it on for the table of a view, if it is not on.
pub(crate) async fn enable(tx: &Transaction<'_>, view: &View) -> Result<(), Error> {
    let row = tx
        .query_one(
            "SELECT c.relrowsecurity,
                    EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = $3
                            AND p.polroles = '{0}'),
                    EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname <> $3
                            AND p.polname NOT LIKE 'rf\\_%')
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2",
            &[&view.schema, &view.table, &ddl::OTHERS_POLICY],
        )
        .await
        .map_err(Error::refused("read a table's row security"))?;
    let (is_on, is_ours, has_policies): (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
    if is_on && (is_ours || view.has_policies) {
        return Ok(());
    }
    if has_policies && !is_on {
        let problem = format!(
            "{}.{} has policies, and its row-level security is switched off: for a grant it would have to be \
             switched on, with them; ENABLE ROW LEVEL SECURITY, or drop the policies",
            view.schema, view.table
        );
        return Err(Error::Refused { doing: "show some rows of a table only", problem });
    }
    let sql = ddl::enable_row_security(&view.schema, &view.table);
    tx.batch_execute(&sql.join(";\n")).await.map_err(Error::refused("enable row-level security"))
}

/// Switches it off where we switched it on and no face needs it any more.
pub(crate) async fn calm(client: &mut ClientWrapper) -> Result<(), Error> {
    let tables = client
        .query(
            "SELECT n.nspname::text, c.relname::text,
                    EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname <> $1
                            AND p.polname NOT LIKE 'rf\\_%')
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = $1)
               AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname LIKE 'rf\\_%'
                               AND (NOT p.polpermissive OR pg_get_expr(p.polqual, p.polrelid) <> 'true'))",
            &[&ddl::OTHERS_POLICY],
        )
        .await
        .map_err(Error::refused("read the tables' row security"))?;
    for row in tables {
        let tx = client.build_transaction().start().await.map_err(Error::refused("begin"))?;
        begin(&tx, 1).await?;
        let sql = ddl::disable_row_security(row.get(0), row.get(1), row.get(2));
        tx.batch_execute(&sql.join(";\n")).await.map_err(Error::refused("disable row-level security"))?;
        tx.commit().await.map_err(Error::refused("commit"))?;
    }
    Ok(())
}
