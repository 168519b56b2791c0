//! Removes rows that have moved from the store that they left, and what the database keeps of them beside.

use ringfence_face::sql::{ident, literal};

use super::online::Writer;
use super::wal;
use crate::database::{Database, Error};
use crate::migrate::plan::Planned;
use crate::migrate::{Move, SCHEMA, source, target};
use crate::scope::MARK;

/// Pages of a table whose rows are deleted in one transaction.
const PAGES: i64 = 1_000;

/// What happens, for whoever watches.
pub enum Step<'a> {
    /// Something begins.
    Begun(&'a str),
    /// Pages that were gone through, of so many.
    Pages(i64, i64),
}

/// What was done.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Erased {
    /// Rows deleted, by table.
    pub rows: Vec<(String, u64)>,
    /// Tables and catalogues that were written anew.
    pub rewritten: u64,
    /// How many of the tables were in use meanwhile.
    pub online: u64,
    /// Materialised views that were made anew.
    pub refreshed: u64,
    /// Segments of WAL that were used up.
    pub wal_segments: u32,
}

/// Tables that stay, and refer to rows that would go: nothing may be left that points to nobody.
pub async fn blockers(tables: &[Planned], from: &Database) -> Result<Vec<String>, Error> {
    let names: Vec<String> = tables.iter().map(|t| t.table.quoted()).collect();
    let rows = from
        .rows(
            "look for references",
            "SELECT k.conrelid::regclass::text, k.confrelid::regclass::text FROM pg_constraint k
             WHERE k.contype = 'f' AND k.confrelid = ANY (SELECT x::regclass FROM unnest($1::text[]) x)
               AND NOT k.conrelid = ANY (SELECT x::regclass FROM unnest($1::text[]) x)",
            &[&names],
        )
        .await?;
    let told = |row: &tokio_postgres::Row| {
        let (here, there): (String, String) = (row.get(0), row.get(1));
        format!("{here} refers to {there}, and is not in the catalogue with a subject: whose are its rows?")
    };
    Ok(rows.iter().map(told).collect())
}

/// How many rows of each table there are to erase.
pub async fn count(tables: &[Planned], from: &Database) -> Result<Vec<(String, i64)>, Error> {
    let mut counts = Vec::new();
    for planned in tables {
        let table = &planned.table;
        let sql = format!("SELECT count(*) FROM {} t WHERE {}", table.quoted(), table.member("t"));
        counts.push((table.shown(), from.row("count the rows", &sql, &[]).await?.get(0)));
    }
    Ok(counts)
}

/// Drops a slot that nobody uses, of any kind; one that is gone already is as good.
pub async fn drop_slot(from: &Database, name: &str) -> Result<(), Error> {
    let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
    from.rows("drop a slot", sql, &[&name]).await.map(drop)
}

/// Fails if a table has rows to erase, and the store that should have them has none.
pub async fn is_safe(tables: &[Planned], from: &Database, to: &Database) -> Result<(), Error> {
    for (planned, (name, rows)) in tables.iter().zip(count(tables, from).await?) {
        let sql = format!("SELECT EXISTS (SELECT FROM {})", planned.table.quoted());
        if rows > 0 && !to.row("look whether it has the rows", &sql, &[]).await?.get::<_, bool>(0) {
            return Err(Error::Failed(format!(
                "{} has no {name}, so nothing is erased from {}",
                to.name, from.name
            )));
        }
    }
    Ok(())
}

/// Erases; the caller has claimed the move, and seen after that that the rows are at home elsewhere. May be run again after a crash. From the first step on there is no way back. `lock` has tables locked while they are written
/// anew, where that could be done in use.
pub async fn erase(
    of: &Move,
    tables: &[Planned],
    from: &Database,
    to: &Database,
    lock: bool,
    told: &mut (dyn FnMut(Step<'_>) + Send),
) -> Result<Erased, Error> {
    let mut erased = Erased::default();
    told(Step::Begun("ending the way back"));
    let begun = format!("UPDATE {SCHEMA}.home SET erased = true WHERE move = $1 AND store = $2");
    if from.execute("note that there is no way back", &begun, &[&of.name, &of.to.store]).await? != 1 {
        return Err(Error::Failed(format!(
            "{} does not say that the rows have left for {}",
            from.name, of.to.store
        )));
    }
    target::unsubscribe(from, Some(to), &of.back()).await?;
    target::unsubscribe(to, Some(from), &of.publication()).await?;
    for (database, name) in [(to, of.back()), (from, of.publication())] {
        database.run("end the publication", &format!("DROP PUBLICATION IF EXISTS {}", ident(&name))).await?;
    }
    // The fence goes by people, and stays: whoever writes rows of the jurisdiction here is refused now as before.
    from.run("pass the fence", "SET session_replication_role = replica").await?;
    let deleted = delete(tables, from, told, &mut erased).await;
    from.run("stand before the fence again", "RESET session_replication_role").await?;
    deleted?;
    source::forget_people(of, tables, from).await?;
    told(Step::Begun("removing marks"));
    for planned in tables.iter().filter(|t| t.table.is_marked()) {
        for database in [from, to] {
            let t = planned.table.quoted();
            let sql = format!(
                "DROP TRIGGER IF EXISTS ringfence_1_mark ON {t}; ALTER TABLE {t} DROP COLUMN IF EXISTS {MARK}"
            );
            database.run_locking("remove the mark", &sql).await?;
        }
    }
    for planned in tables {
        let sql = format!("DROP TRIGGER IF EXISTS ringfence_7_truncate ON {}", planned.table.quoted());
        to.run_locking("allow TRUNCATE again", &sql).await?;
    }
    for planned in tables {
        let t = planned.table.quoted();
        let mut sql = format!("DROP TRIGGER IF EXISTS ringfence_2_residence ON {t}");
        if let Some(identity) = source::identity_before(&planned.table, from).await? {
            sql = format!("{sql}; ALTER TABLE {t} REPLICA IDENTITY {identity}");
        }
        from.run_locking("have short rows in the WAL again", &sql).await?;
    }
    from.run("forget what was watched", &format!("TRUNCATE {SCHEMA}.watched")).await?;
    let names: Vec<String> = tables.iter().map(|t| t.table.quoted()).collect();
    views(&names, from, told, &mut erased).await?;
    let writer = Writer::choose(from, &of.from.admin, lock).await?;
    let rewritten = rewrite(&names, &writer, from, told, &mut erased).await;
    writer.finish(from).await?;
    rewritten?;
    told(Step::Begun("removing old WAL"));
    erased.wal_segments = wal::remove(from).await?;
    Ok(erased)
}

/// In small transactions, so that nobody waits for long. People go last: by them the other rows are found.
async fn delete(
    tables: &[Planned],
    from: &Database,
    told: &mut (dyn FnMut(Step<'_>) + Send),
    erased: &mut Erased,
) -> Result<(), Error> {
    let (people, others): (Vec<&Planned>, Vec<&Planned>) = tables.iter().partition(|t| !t.table.is_marked());
    for planned in others.into_iter().chain(people) {
        let table = &planned.table;
        let (t, member) = (table.quoted(), table.member("t"));
        told(Step::Begun(&format!("deleting rows of {}", table.shown())));
        let size = format!("SELECT pg_relation_size({}) / current_setting('block_size')::int", literal(&t));
        let pages: i64 = from.row("measure the table", &size, &[]).await?.get(0);
        let (mut at, mut rows) = (0, 0);
        while at < pages {
            let sql = format!(
                "DELETE FROM {t} t WHERE t.ctid >= '({at},0)'::tid AND t.ctid < '({end},0)'::tid AND {member}",
                end = at + PAGES
            );
            rows += from.execute("delete rows", &sql, &[]).await?;
            at += PAGES;
            told(Step::Pages(at.min(pages), pages));
        }
        erased.rows.push((table.shown(), rows));
    }
    Ok(())
}

/// Materialised views over these tables, and over those views.
pub(super) async fn views(
    names: &[String],
    from: &Database,
    told: &mut (dyn FnMut(Step<'_>) + Send),
    erased: &mut Erased,
) -> Result<(), Error> {
    let views = from
        .rows(
            "look for materialised views",
            "WITH RECURSIVE over AS (
                SELECT x::regclass::oid AS rel, 0 AS depth FROM unnest($1::text[]) x
                UNION SELECT r.ev_class, o.depth + 1 FROM over o
                    JOIN pg_depend d ON d.refobjid = o.rel AND d.classid = 'pg_rewrite'::regclass
                    JOIN pg_rewrite r ON r.oid = d.objid WHERE r.ev_class <> o.rel AND o.depth < 50)
             SELECT c.oid::regclass::text FROM over o JOIN pg_class c ON c.oid = o.rel AND c.relkind = 'm'
             GROUP BY c.oid ORDER BY max(o.depth)",
            &[&names],
        )
        .await?;
    for view in &views {
        let view: String = view.get(0);
        told(Step::Begun(&format!("making {view} anew")));
        from.run("make a materialised view anew", &format!("REFRESH MATERIALIZED VIEW {view}")).await?;
        erased.refreshed += 1;
    }
    Ok(())
}

/// Deleted rows are bytes in pages until those are written anew, in tables, indexes and TOAST, and in the statistics, which keep the
/// commonest values.
async fn rewrite(
    tables: &[String],
    writer: &Writer<'_>,
    from: &Database,
    told: &mut (dyn FnMut(Step<'_>) + Send),
    erased: &mut Erased,
) -> Result<(), Error> {
    for table in tables {
        told(Step::Begun(&format!("writing {table} anew ({})", writer.word())));
        erased.online += u64::from(writer.write(from, table).await?);
        erased.rewritten += 1;
    }
    told(Step::Begun("writing statistics and catalogues anew"));
    for catalogue in ["pg_statistic", "pg_statistic_ext_data", "pg_publication_rel", "pg_largeobject"] {
        from.run("write a catalogue anew", &format!("VACUUM FULL pg_catalog.{catalogue}")).await?;
        erased.rewritten += 1;
    }
    Ok(())
}
