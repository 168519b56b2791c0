//! What a move will do, and what stands in its way; nothing is touched.

use serde::Serialize;

use super::shape::{self, Shape};
use super::{Move, home};
use crate::database::{Database, Error};
use crate::scope::{How, MARK, Scope, Table};
use ringfence_policy::catalogue::Belongs;

/// The oldest PostgreSQL with row filters in publications.
const OLDEST: i32 = 150_000;

/// A move, looked at from both sides.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The tables with what the source has.
    pub tables: Vec<Planned>,
    /// Tables that stay: they are about nobody.
    pub stay: Vec<String>,
    /// What must be mended first.
    pub blockers: Vec<String>,
    /// What whoever decides should know.
    pub notes: Vec<String>,
}

/// One table of it.
#[derive(Debug, Serialize)]
pub struct Planned {
    /// Which rows.
    pub table: Table,
    /// What the source has.
    pub shape: Shape,
    /// Whether the target has the table, or it will be brought over.
    pub exists: bool,
}

/// Reads both sides. `is_under_way` is for a move that has begun: then the target has rows, and marks are there.
pub async fn plan(
    of: &Move,
    scope: &Scope,
    from: &Database,
    to: &Database,
    is_under_way: bool,
) -> Result<Plan, Error> {
    let mut plan =
        Plan { tables: Vec::new(), stay: scope.stay.clone(), blockers: Vec::new(), notes: Vec::new() };
    for database in [from, to] {
        settings(database, &mut plan.blockers).await?;
    }
    let fits = of.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if of.name.is_empty() || of.name.len() > 30 || !fits {
        plan.blockers.push(format!(
            "the move's name {:?} is not of up to 30 lower-case letters, digits and underscores",
            of.name
        ));
    }
    if let Some((store, _)) = home(from, &of.name).await?.filter(|_| !is_under_way) {
        plan.blockers.push(format!("{}: its rows have moved to {store} already", from.name));
    }
    for table in &scope.tables {
        let shown = table.shown();
        let Some(shape) = shape::read(from, table).await? else {
            plan.notes.push(format!("{shown}: is in the catalogue, and not in {}", from.name));
            continue;
        };
        let there = shape::read(to, table).await?;
        compare(of, table, &shape, there.as_ref(), is_under_way, &mut plan);
        plan.tables.push(Planned { table: table.clone(), shape, exists: there.is_some() });
    }
    if plan.tables.is_empty() {
        plan.blockers.push(format!("{} has none of the catalogue's tables with data subjects", from.name));
    }
    if plan.tables.iter().any(|t| t.table.is_marked()) {
        plan.notes.push(format!(
            "tables whose rows do not say a country get a column {MARK} at their end for the time of the move: a program that reads SELECT * by position will see it"
        ));
    }
    if !is_under_way {
        what_it_needs(of, from, to, &mut plan).await?;
    }
    column_lists(from, &mut plan).await?;
    blocking_objects(from, &mut plan).await?;
    Ok(plan)
}

async fn settings(database: &Database, blockers: &mut Vec<String>) -> Result<(), Error> {
    let row = database
        .row(
            "read its settings",
            "SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
                    current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots)::int,
                    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), pg_is_in_recovery()",
            &[],
        )
        .await?;
    let (version, wal, slots, is_super, is_standby): (i32, String, i32, bool, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    let name = &database.name;
    if version < OLDEST {
        blockers.push(format!(
            "{name}: PostgreSQL {} has no row filters; a move needs 15 or later",
            version / 10_000
        ));
    }
    if wal != "logical" {
        blockers.push(format!("{name}: wal_level is {wal}; set it to logical and restart the server"));
    }
    if slots < 4 {
        blockers.push(format!(
            "{name}: {slots} replication slots are free, and a move needs 4: raise max_replication_slots"
        ));
    }
    if !is_super {
        blockers
            .push(format!("{name}: the move's own connection is no superuser's, which subscriptions need"));
    }
    if is_standby {
        blockers.push(format!("{name}: is a standby"));
    }
    Ok(())
}

fn compare(
    of: &Move,
    table: &Table,
    here: &Shape,
    there: Option<&Shape>,
    is_under_way: bool,
    plan: &mut Plan,
) {
    let shown = table.shown();
    let mut block = |problem: String| plan.blockers.push(format!("{shown}: {problem}"));
    if here.key.is_empty() {
        block(
            "has no primary key, so its rows have no identity to be compared and changed by: add one"
                .to_owned(),
        );
    }
    if here.persistence != "p" {
        block("is unlogged, so replication does not see it: ALTER TABLE … SET LOGGED".to_owned());
    }
    if here.kind == "p" {
        block("is partitioned, which a move cannot carry yet".to_owned());
    }
    if here.identity == "n" {
        block("has replica identity nothing: its updates and deletes cannot be replicated".to_owned());
    }
    for column in here.columns.iter().filter(|c| c.large_object) {
        block(format!("{} refers to large objects, which replication does not carry", column.name));
    }
    if here.has_mark && !is_under_way {
        block(format!("has a column {MARK}: another move is under way, or left it"));
    }
    let keys: Vec<&String> = match &table.how {
        How::Residence { key, column, .. } => vec![key, column],
        How::Subjects { columns, .. } => columns.iter().collect(),
        How::Everything => Vec::new(),
    };
    if let How::Residence { column, .. } = &table.how {
        let built_in = ["text", "character", "smallint", "integer", "bigint", "name", "\"char\""];
        let of_type = here.columns.iter().find(|c| c.name == *column).map(|c| c.sql_type.as_str());
        if of_type.is_some_and(|t| !built_in.iter().any(|known| t.starts_with(known))) {
            block(format!(
                "{column} is {}, and a row filter takes PostgreSQL's own types only: keep the country in a text column",
                of_type.unwrap_or_default()
            ));
        }
    }
    for key in keys.iter().filter(|key| !here.columns.iter().any(|c| c.name == ***key)) {
        block(format!("has no column {key}, by which the catalogue says whose its rows are"));
    }
    if let Some(there) = there {
        for column in here.carried() {
            match there.columns.iter().find(|c| c.name == column.name) {
                None => block(format!("{} has no column {}", of.to.store, column.name)),
                Some(c) if c.sql_type != column.sql_type => {
                    block(format!(
                        "{} is {} in {}, and {} here",
                        column.name, c.sql_type, of.to.store, column.sql_type
                    ));
                }
                Some(_) => {}
            }
        }
        // A table that is still copied may get its key when its rows are there.
        if there.key != here.key && !(is_under_way && there.key.is_empty()) {
            block(format!("has another primary key in {}", of.to.store));
        }
        if there.is_filled && !is_under_way {
            block(format!("has rows in {} already", of.to.store));
        }
    }
    if let How::Subjects { columns, .. } = &table.how {
        for column in columns.iter().filter(|c| !here.indexed.contains(c)) {
            plan.notes.push(format!("{shown}: no index begins with {column}, so each person who moves in or out of the country costs a scan"));
        }
    }
}

/// What tables need that are brought over, and the target has not: found before their rows are copied, not after.
async fn what_it_needs(of: &Move, from: &Database, to: &Database, plan: &mut Plan) -> Result<(), Error> {
    let store = &of.to.store;
    let brought: Vec<(String, String, &Table)> = plan
        .tables
        .iter()
        .filter(|t| !t.exists)
        .map(|t| (t.table.quoted(), t.table.shown(), &t.table))
        .collect();
    let moved: Vec<String> = plan.tables.iter().map(|t| t.table.quoted()).collect();
    let mut blockers = Vec::new();
    for (quoted, shown, table) in &brought {
        let types = "SELECT DISTINCT a.atttypid::regtype::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                     LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
                     WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped
                       AND coalesce(e.typnamespace, t.typnamespace) <> 'pg_catalog'::regnamespace ORDER BY 1";
        for row in from.rows("read its types", types, &[quoted]).await? {
            let name: String = row.get(0);
            let lacks = to.row("look for a type", "SELECT to_regtype($1) IS NULL", &[&name]).await?;
            if lacks.get(0) {
                blockers
                    .push(format!("{shown}: uses the type {name}, which {store} has not: create it there"));
            }
        }
        let functions = "SELECT DISTINCT tgfoid::regprocedure::text FROM pg_trigger
                         WHERE tgrelid = $1::text::regclass AND NOT tgisinternal AND tgname NOT LIKE 'ringfence\\_%' ORDER BY 1";
        for row in from.rows("read its triggers", functions, &[quoted]).await? {
            let name: String = row.get(0);
            let lacks = to.row("look for a function", "SELECT to_regprocedure($1) IS NULL", &[&name]).await?;
            if lacks.get(0) {
                blockers.push(format!(
                    "{shown}: has a trigger by {name}, which {store} has not: create it there"
                ));
            }
        }
        let references = "SELECT k.conname::text, k.confrelid::regclass::text,
                                 (SELECT array_agg(a.attname::text) FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)),
                                 k.confrelid = ANY (SELECT x::regclass FROM unnest($2::text[]) x)
                          FROM pg_constraint k WHERE k.conrelid = $1::text::regclass AND k.contype = 'f' ORDER BY 1";
        for row in from.rows("read its references", references, &[quoted, &moved]).await? {
            let (name, there, columns, moves): (String, String, Vec<String>, bool) =
                (row.get(0), row.get(1), row.get(2), row.get(3));
            if !moves {
                let lacks = to.row("look for a table", "SELECT to_regclass($1) IS NULL", &[&there]).await?;
                if lacks.get(0) {
                    blockers.push(format!(
                        "{shown}: refers to {there}, which stays and {store} has not: bring it there"
                    ));
                }
            }
            let of_parties = match &table.how {
                How::Subjects { columns: of, belongs, .. } if *belongs != Belongs::All => {
                    columns.iter().find(|c| of[1..].contains(c))
                }
                _ => None,
            };
            if let (true, Some(party)) = (moves, of_parties) {
                blockers.push(format!(
                    "{shown}: {name} wants {party} to be in {there}, and a party may live elsewhere and stay: create the table in {store} without it"
                ));
            }
        }
    }
    plan.blockers.append(&mut blockers);
    Ok(())
}

/// A publication with column lists (a flow) and the whole old rows that a move needs do not go together: PostgreSQL would refuse
/// every update of the table.
async fn column_lists(from: &Database, plan: &mut Plan) -> Result<(), Error> {
    let names: Vec<String> = plan.tables.iter().map(|t| t.table.quoted()).collect();
    let sql = "SELECT r.prrelid::regclass::text, p.pubname::text FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
               WHERE r.prattrs IS NOT NULL AND r.prrelid = ANY (SELECT x::regclass FROM unnest($1::text[]) x) ORDER BY 1, 2";
    for row in from.rows("look for flows", sql, &[&names]).await? {
        let (table, publication): (String, String) = (row.get(0), row.get(1));
        plan.blockers.push(format!(
            "{table}: the publication {publication} carries some of its columns, and a move needs whole rows: close the flow first"
        ));
    }
    Ok(())
}

/// What replication does not carry.
async fn blocking_objects(from: &Database, plan: &mut Plan) -> Result<(), Error> {
    let names: Vec<String> = plan.tables.iter().map(|t| t.table.quoted()).collect();
    let views = from
        .rows(
            "look for materialised views",
            "SELECT DISTINCT v.oid::regclass::text FROM pg_depend d
             JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'm'
             WHERE d.refobjid = ANY (SELECT x::regclass FROM unnest($1::text[]) x)",
            &[&names],
        )
        .await?;
    for view in &views {
        let view: String = view.get(0);
        plan.notes.push(format!(
            "{view} is a materialised view over moved tables: a copy that stays at {} until it is refreshed",
            from.name
        ));
    }
    let large =
        from.row("look for large objects", "SELECT count(*) FROM pg_largeobject_metadata", &[]).await?;
    let large: i64 = large.get(0);
    if large > 0 {
        plan.notes.push(format!("{} has {large} large objects; they stay", from.name));
    }
    Ok(())
}
