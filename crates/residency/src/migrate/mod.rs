//! Moving a jurisdiction's rows from one store to another while they are in use, by PostgreSQL's own logical replication.
//!
//! In the order in which it happens: [`plan`] reads both sides ([`shape`]) and names what stands in the way; [`source`] marks the
//! rows, publishes them and can fence them off; [`target`] takes them by a subscription ([`carry`] brings the tables first);
//! [`verify`] compares both sides while they are in use; [`cutover`] changes over from one to the other, and [`status`] tells how
//! far it is.
//!
//! Where the rows are at home is said in one place, by one transaction: in the table `ringfence_move.home` of the store that they
//! leave, in the same transaction that fences them off there for good. Whoever dies before it leaves everything at the source, and
//! whoever dies after it leaves everything at the target.

pub mod carry;
pub mod cutover;
pub mod plan;
pub mod shape;
pub mod source;
pub mod status;
pub mod target;
pub mod verify;

use ringfence_face::Target;
use ringfence_face::ddl::OTHERS;
use ringfence_face::sql::{ident, literal};

use crate::database::{Database, Error};
use crate::scope::{How, Table};

/// The schema of what a move keeps in a database.
pub const SCHEMA: &str = "ringfence_move";

/// One side of a move as the configuration says it.
#[derive(Clone)]
pub struct Side {
    /// The store.
    pub store: String,
    /// Its superuser's connection.
    pub admin: Target,
    /// How the other side's server connects here, as libpq takes it.
    pub replication: String,
    /// The role that it connects as.
    pub replication_role: String,
    /// The gateway's own role here: it reads where rows are at home.
    pub steward: String,
    /// What full-access workloads run as.
    pub full_role: Option<String>,
}

/// A move.
#[derive(Clone)]
pub struct Move {
    /// Its name: letters, digits and underscores.
    pub name: String,
    /// The jurisdiction whose rows move.
    pub jurisdiction: String,
    /// The route that workloads reach them by.
    pub route: String,
    /// From where.
    pub from: Side,
    /// To where.
    pub to: Side,
}

impl Move {
    /// The same rows, the other way.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { from: self.to.clone(), to: self.from.clone(), ..self.clone() }
    }

    /// Both sides.
    pub async fn connect(&self) -> Result<(Database, Database), Error> {
        let from = Database::connect(&self.from.store, &self.from.admin).await?;
        let to = Database::connect(&self.to.store, &self.to.admin).await?;
        Ok((from, to))
    }

    /// The publication, the subscription and the slot of the way there.
    pub fn publication(&self) -> String {
        format!("ringfence_move_{}", self.name)
    }

    /// Those of the way back.
    pub fn back(&self) -> String {
        format!("ringfence_back_{}", self.name)
    }

    /// The function that says until when the rows are fenced off.
    pub fn until(&self) -> String {
        format!("{SCHEMA}.{}", ident(&format!("until_{}", self.name)))
    }
}

/// What a move keeps in each database.
pub(crate) async fn prepare_schema(database: &Database, side: &Side) -> Result<(), Error> {
    let sql = format!(
        "CREATE SCHEMA IF NOT EXISTS {SCHEMA};
         CREATE TABLE IF NOT EXISTS {SCHEMA}.token (move text PRIMARY KEY, n bigint NOT NULL);
         CREATE TABLE IF NOT EXISTS {SCHEMA}.target_of (move text PRIMARY KEY);
         CREATE TABLE IF NOT EXISTS {SCHEMA}.home (
            move text PRIMARY KEY, route text NOT NULL, store text NOT NULL, epoch bigint NOT NULL,
            erased boolean NOT NULL DEFAULT false, since pg_lsn);
         ALTER TABLE {SCHEMA}.home ADD COLUMN IF NOT EXISTS since pg_lsn;
         CREATE TABLE IF NOT EXISTS {SCHEMA}.identity (relation text PRIMARY KEY, was \"char\" NOT NULL, index text);
         CREATE TABLE IF NOT EXISTS {SCHEMA}.brought (relation text PRIMARY KEY, finished boolean NOT NULL DEFAULT false);
         CREATE UNLOGGED TABLE IF NOT EXISTS {SCHEMA}.watched (
            n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, relation text NOT NULL, key text[] NOT NULL);
         REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC;
         GRANT USAGE ON SCHEMA {SCHEMA} TO {steward}, {replication};
         GRANT SELECT ON {SCHEMA}.home TO {steward};
         GRANT SELECT ON {SCHEMA}.token TO {replication}",
        steward = ident(&side.steward),
        replication = ident(&side.replication_role),
    );
    database.run("prepare for a move", &sql).await?;
    let_begin(database, &side.replication_role).await
}

/// `ringfence install` has taken from PUBLIC what a replication connection begins with (set_config), and keeps it for others here.
pub(crate) async fn let_begin(database: &Database, role: &str) -> Result<(), Error> {
    let sql = format!(
        "DO $do$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = {others}) THEN GRANT {role} TO {member}; END IF; END $do$",
        others = literal(OTHERS),
        role = ident(OTHERS),
        member = ident(role),
    );
    database.run("let replication begin", &sql).await
}

/// Lets the other side's server read the tables.
pub(crate) async fn let_read(
    database: &Database,
    side: &Side,
    tables: &[plan::Planned],
) -> Result<(), Error> {
    let role = ident(&side.replication_role);
    let grant = |planned: &plan::Planned| {
        let (schema, table) = (ident(&planned.table.schema), planned.table.quoted());
        format!("GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {table} TO {role};")
    };
    database
        .run("let the replication role read", &tables.iter().map(grant).collect::<Vec<_>>().concat())
        .await
}

/// Where the rows that left this store by this move went, if they did; and the count of such decisions.
pub async fn home(database: &Database, name: &str) -> Result<Option<(String, i64)>, Error> {
    let known = database
        .row("look for the move", "SELECT to_regclass($1) IS NOT NULL", &[&format!("{SCHEMA}.home")])
        .await?;
    if !known.get::<_, bool>(0) {
        return Ok(None);
    }
    let sql = format!("SELECT store, epoch FROM {SCHEMA}.home WHERE move = $1");
    Ok(database
        .maybe("look where rows are at home", &sql, &[&name])
        .await?
        .map(|row| (row.get(0), row.get(1))))
}

/// Whether the rows that left are being erased here, so that there is no way back.
pub async fn is_erased(of: &Move, from: &Database) -> Result<bool, Error> {
    if home(from, &of.name).await?.is_none() {
        return Ok(false);
    }
    let sql = format!("SELECT erased FROM {SCHEMA}.home WHERE move = $1");
    Ok(from.row("look whether rows are erased", &sql, &[&of.name]).await?.get(0))
}

/// Whether the rows are at home at the target. Where both sides have decided, in turns, what was decided last counts.
pub async fn has_moved(of: &Move, from: &Database, to: &Database) -> Result<bool, Error> {
    let (left, came_back) = (home(from, &of.name).await?, home(to, &of.name).await?);
    Ok(match (left, came_back) {
        (Some((_, left)), Some((_, back))) => left > back,
        (Some(_), None) => true,
        (None, _) => false,
    })
}

/// Removes what this move keeps in a database, and the schema with it when no other move is left.
pub(crate) async fn forget_schema(database: &Database, name: &str) -> Result<(), Error> {
    let sql = format!(
        "DELETE FROM {SCHEMA}.token WHERE move = {m}; DELETE FROM {SCHEMA}.home WHERE move = {m};
         DELETE FROM {SCHEMA}.target_of WHERE move = {m};
         DO $do$ BEGIN
            IF NOT EXISTS (SELECT FROM {SCHEMA}.token) AND NOT EXISTS (SELECT FROM {SCHEMA}.home)
                AND NOT EXISTS (SELECT FROM {SCHEMA}.target_of) THEN
                DROP SCHEMA {SCHEMA} CASCADE;
            END IF;
         END $do$",
        m = literal(name)
    );
    database.run("clean up after the move", &sql).await
}

/// The same tables where all of their rows belong: at a target.
pub(crate) fn everything(tables: &[plan::Planned]) -> Vec<plan::Planned> {
    tables
        .iter()
        .map(|planned| plan::Planned {
            table: Table { how: How::Everything, ..planned.table.clone() },
            shape: planned.shape.clone(),
            exists: true,
        })
        .collect()
}

/// Begins, or goes on after a crash; the caller has claimed the move. Prepares both sides, marks, publishes, subscribes. The copy then runs by itself. `told` hears of
/// pages that were marked, and of how many there are.
pub async fn start(
    of: &Move,
    tables: &[plan::Planned],
    from: &Database,
    to: &Database,
    told: &mut (dyn FnMut(i64, i64) + Send),
) -> Result<u64, Error> {
    if home(to, &of.name).await?.is_some() {
        cutover::finish_back(of, tables, from, to).await?; // somebody died after the decision to go back
    }
    target::prepare_own(of, to).await?;
    source::prepare(of, tables, from).await?;
    let people = source::people(tables, from).await?;
    let pages = source::pages(tables, &people, from).await?;
    told(0, pages);
    let marked = source::backfill(tables, &people, from, &mut |n| told(n, pages)).await?;
    carry::tables(of, tables, from, to).await?;
    target::prepare(of, tables, to).await?;
    source::publish(of, tables, &people, from).await?;
    target::subscribe(of, to, from).await?;
    Ok(marked)
}

/// Gives a move up: everything that it laid is removed on both sides, and the target's copies of the rows with it. Refused once the
/// rows are at home at the target.
pub async fn abort(of: &Move, tables: &[plan::Planned], from: &Database, to: &Database) -> Result<(), Error> {
    from.claim(&of.name).await?;
    if has_moved(of, from, to).await? {
        let store = &of.to.store;
        let problem =
            format!("the rows are at home at {store}: go back first, with `ringfence migrate back`");
        return Err(Error::Blocked(vec![problem]));
    }
    target::unsubscribe(to, Some(from), &of.publication()).await?;
    target::unsubscribe(from, Some(to), &of.back()).await?;
    // Only what this move brought.
    let begun = target::is_begun(of, to).await?;
    if begun {
        source::clean(&of.reversed(), &everything(tables), to).await?;
    }
    let there: Vec<String> = tables.iter().filter(|t| t.exists).map(|t| t.table.quoted()).collect();
    if !there.is_empty() && begun {
        to.run("remove the copied rows", &format!("TRUNCATE {}", there.join(", "))).await?;
    }
    target::clean(of, tables, to).await?;
    if is_begun(of, from).await? {
        source::clean(of, tables, from).await?;
        forget_schema(from, &of.name).await?;
    }
    if begun { forget_schema(to, &of.name).await } else { Ok(()) }
}

/// Whether a move of this name has begun at the source.
pub async fn is_begun(of: &Move, from: &Database) -> Result<bool, Error> {
    let name = format!("until_{}", of.name);
    let sql = "SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname = $2)";
    Ok(from.row("look for the move", sql, &[&SCHEMA, &name]).await?.get(0))
}
