//! The side that rows come to: the subscription, and what the way back needs.

use std::time::{Duration, Instant};

use ringfence_face::sql::{ident, literal};

use super::plan::Planned;
use super::{Move, SCHEMA, let_read, prepare_schema};
use crate::database::{Database, Error};
use crate::scope::MARK;

/// Gives the tables the mark, so that replication finds all columns. Whatever is written here belongs, and has to be marked at the
/// source, too, if it ever goes back there.
pub async fn prepare(of: &Move, tables: &[Planned], to: &Database) -> Result<(), Error> {
    for planned in tables.iter().filter(|t| t.table.is_marked()) {
        let sql = format!(
            "ALTER TABLE {t} ADD COLUMN IF NOT EXISTS {MARK} boolean;
             ALTER TABLE {t} ALTER COLUMN {MARK} SET DEFAULT true",
            t = planned.table.quoted()
        );
        to.run_locking("add the mark", &sql).await?;
    }
    let_read(to, &of.to, tables).await?;
    // Not the token: that one comes with the copy, which would meet it here.
    let sql = format!("INSERT INTO {SCHEMA}.target_of VALUES ({}) ON CONFLICT DO NOTHING", literal(&of.name));
    to.run("note that the move has begun", &sql).await
}

/// Whether a move of this name has begun to bring rows here.
pub async fn is_begun(of: &Move, to: &Database) -> Result<bool, Error> {
    let name = format!("{SCHEMA}.target_of");
    if !to.row("look for the move", "SELECT to_regclass($1) IS NOT NULL", &[&name]).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    let sql = format!("SELECT EXISTS (SELECT FROM {name} WHERE move = $1)");
    Ok(to.row("look for the move", &sql, &[&of.name]).await?.get(0))
}

/// The schema for a move's own tables.
pub async fn prepare_own(of: &Move, to: &Database) -> Result<(), Error> {
    prepare_schema(to, &of.to).await
}

/// Whether this database has a subscription of this name.
pub(crate) async fn exists(to: &Database, name: &str) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
                WHERE s.subname = $1 AND d.datname = current_database())";
    Ok(to.row("look for the subscription", sql, &[&name]).await?.get(0))
}

/// Whether the way there exists.
pub async fn is_subscribed(of: &Move, to: &Database) -> Result<bool, Error> {
    exists(to, &of.publication()).await
}

/// Subscribes: PostgreSQL copies the rows of a snapshot, then follows all changes after it.
pub async fn subscribe(of: &Move, to: &Database, from: &Database) -> Result<(), Error> {
    let name = of.publication();
    if exists(to, &name).await? {
        return to.run("go on", &format!("ALTER SUBSCRIPTION {} ENABLE", ident(&name))).await;
    }
    // A crash between the two sides may have left the slot.
    drop_slot(from, &name).await?;
    // The token is a row of both sides from the start, so that the copy would meet it.
    to.run("prepare the token", &format!("DELETE FROM {SCHEMA}.token WHERE move = {}", literal(&of.name)))
        .await?;
    // A table's first copy ends by dropping its slot at the source; were the note of that lost here in a crash, PostgreSQL would ask for
    // the slot for ever. So notes are durable until all tables are copied ([`hurry`]).
    let sql = format!(
        "CREATE SUBSCRIPTION {n} CONNECTION {conn} PUBLICATION {n} WITH (copy_data = true, streaming = on, synchronous_commit = on)",
        n = ident(&name),
        conn = literal(&of.from.replication),
    );
    to.run_unlogged("subscribe", &sql).await
}

/// All tables are copied: from here on the target need not wait for its disk with each change. What must not be lost is waited for at the
/// change-over.
pub async fn hurry(of: &Move, to: &Database) -> Result<(), Error> {
    // Any change of a subscription begins it anew, which takes seconds.
    let waits = "SELECT EXISTS (SELECT FROM pg_subscription WHERE subname = $1 AND subsynccommit <> 'off')";
    if !to.row("look how it waits", waits, &[&of.publication()]).await?.get::<_, bool>(0) {
        return Ok(());
    }
    let sql = format!("ALTER SUBSCRIPTION {} SET (synchronous_commit = off)", ident(&of.publication()));
    to.run("let it hurry", &sql).await
}

/// Tables whose first copy can never end, because their slot is gone from the source.
pub async fn stuck(of: &Move, from: &Database, to: &Database) -> Result<Vec<String>, Error> {
    let sql = "SELECT r.srrelid::regclass::text, format('pg_%s_sync_%s_%s', s.oid, r.srrelid, (SELECT system_identifier FROM pg_control_system()))
               FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
               WHERE s.subname = $1 AND r.srsubstate = 'f' ORDER BY 1";
    let mut stuck = Vec::new();
    for row in to.rows("ask how far the copy is", sql, &[&of.publication()]).await? {
        let (table, slot): (String, String) = (row.get(0), row.get(1));
        let known = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)";
        if !from.row("look for a slot", known, &[&slot]).await?.get::<_, bool>(0) {
            stuck.push(table);
        }
    }
    Ok(stuck)
}

/// Where a slot is and nobody uses it, removes it.
pub async fn drop_slot(at: &Database, name: &str) -> Result<(), Error> {
    let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
               WHERE slot_name = $1 AND NOT active AND database = current_database()";
    at.rows("remove a slot", sql, &[&name]).await.map(drop)
}

/// Tables of the subscription and how many of them have their first copy.
pub async fn copied(of: &Move, to: &Database) -> Result<(i64, i64), Error> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE r.srsubstate = 'r') FROM pg_subscription_rel r
               JOIN pg_subscription s ON s.oid = r.srsubid WHERE s.subname = $1";
    let row = to.row("ask how far the copy is", sql, &[&of.publication()]).await?;
    Ok((row.get(0), row.get(1)))
}

/// What went wrong in the subscription since it began: errors while applying and while copying.
pub async fn errors(of: &Move, to: &Database) -> Result<(i64, i64), Error> {
    let sql = "SELECT coalesce(sum(apply_error_count), 0)::bigint, coalesce(sum(sync_error_count), 0)::bigint
               FROM pg_stat_subscription_stats WHERE subname = $1";
    let row = to.row("ask for errors", sql, &[&of.publication()]).await?;
    Ok((row.get(0), row.get(1)))
}

/// The same for a subscription of any name, all kinds together.
pub async fn errors_of(name: &str, at: &Database) -> Result<i64, Error> {
    let sql = "SELECT coalesce(sum(apply_error_count + sync_error_count), 0)::bigint FROM pg_stat_subscription_stats WHERE subname = $1";
    Ok(at.row("ask for errors", sql, &[&name]).await?.get(0))
}

/// Waits until the token has arrived.
pub async fn await_token(of: &Move, to: &Database, n: i64, within: Duration) -> Result<(), Error> {
    let until = Instant::now() + within;
    let sql = format!("SELECT coalesce(max(n), -1) FROM {SCHEMA}.token WHERE move = $1");
    loop {
        let at: i64 = to.row("look for the token", &sql, &[&of.name]).await?.get(0);
        if at >= n {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Error::Failed(format!(
                "{} did not catch up within {} s; `ringfence migrate status` shows the lag",
                to.name,
                within.as_secs()
            )));
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

/// Stops the way there, without removing it.
pub async fn pause(of: &Move, to: &Database) -> Result<(), Error> {
    to.run("stop following", &format!("ALTER SUBSCRIPTION {} DISABLE", ident(&of.publication()))).await
}

/// Goes on after [`pause`].
pub async fn go_on(of: &Move, to: &Database) -> Result<(), Error> {
    to.run("go on following", &format!("ALTER SUBSCRIPTION {} ENABLE", ident(&of.publication()))).await
}

/// How long a slot may take to come: PostgreSQL waits for every transaction of the cluster that writes.
const SLOT: Duration = Duration::from_secs(60);

/// A slot for the other direction, before anybody waits. [`begin_slot`] says from where it counts. Its publication has to be there before.
pub async fn make_slot(at: &Database, name: &str) -> Result<(), Error> {
    drop_slot(at, name).await?;
    at.give_up_after(SLOT).await?;
    let sql = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')::text";
    let made = at.row("keep the other direction", sql, &[&name]).await;
    at.give_up_after(Duration::ZERO).await?;
    match made {
        Err(Error::Refused { sqlstate, .. }) if sqlstate == "57014" => Err(Error::Failed(format!(
            "{}: a transaction has been open for more than {} s somewhere in the cluster, and a replication slot waits for all of them: pg_stat_activity and pg_prepared_xacts name them",
            at.name,
            SLOT.as_secs()
        ))),
        made => made.map(drop),
    }
}

/// From here on the slot remembers what changes; what was replicated to this side is before it, and on the disk. Returns from where: a crash
/// may set the slot back until the next checkpoint, so whoever follows it has to know, too.
pub async fn begin_slot(of: &Move, at: &Database, name: &str) -> Result<String, Error> {
    flush(of, at).await?;
    let sql = "SELECT (pg_replication_slot_advance($1, pg_current_wal_flush_lsn())).end_lsn::text";
    Ok(at.row("begin the other direction", sql, &[&name]).await?.get(0))
}

/// What the target publishes for the way back.
pub async fn publish_back(of: &Move, tables: &[Planned], to: &Database) -> Result<(), Error> {
    let known = to
        .row(
            "look for the publication",
            "SELECT count(*) FROM pg_publication WHERE pubname = $1",
            &[&of.back()],
        )
        .await?;
    // TRUNCATE knows no row filter: at the other side it would empty the table of everybody.
    to.run(
        "keep TRUNCATE from the way back",
        &format!(
            "CREATE OR REPLACE FUNCTION {SCHEMA}.no_truncate() RETURNS trigger LANGUAGE plpgsql AS $f$
             BEGIN
                 RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                     MESSAGE = 'TRUNCATE of ' || TG_RELID::regclass || ' would not reach the way back of its move',
                     HINT = 'DELETE does; or end the way back with `ringfence erase`.';
             END $f$"
        ),
    )
    .await?;
    for planned in tables {
        let sql = format!(
            "CREATE OR REPLACE TRIGGER ringfence_7_truncate BEFORE TRUNCATE ON {} FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.no_truncate()",
            planned.table.quoted()
        );
        to.run_locking("keep TRUNCATE from the way back", &sql).await?;
    }
    if known.get::<_, i64>(0) > 0 {
        return Ok(());
    }
    let names: Vec<String> = tables.iter().map(|t| t.table.quoted()).collect();
    let sql = format!(
        "CREATE PUBLICATION {} FOR TABLE {}, {SCHEMA}.token WHERE (move = {}) WITH (publish = 'insert, update, delete')",
        ident(&of.back()),
        names.join(", "),
        literal(&of.name)
    );
    to.run("publish for the way back", &sql).await
}

/// Everything that was replicated is on the target's disk when this returns: replication itself does not wait for that.
async fn flush(of: &Move, to: &Database) -> Result<(), Error> {
    let sql = format!(
        "SET synchronous_commit = on; INSERT INTO {SCHEMA}.token VALUES ({}, 0) ON CONFLICT (move) DO UPDATE SET n = {SCHEMA}.token.n; RESET synchronous_commit",
        literal(&of.name)
    );
    to.run("wait for its disk", &sql).await
}

/// How far apart the numbers of both sides are: each goes on drawing its own, and rows of both meet again if there is a way back.
const APART: i64 = 10_000_000_000;

/// What a sequence's numbers may grow to: where it ends, and where the columns end that draw from it.
const BOUNDS: &str = "SELECT seqincrement, seqmin, least(seqmax,
        (SELECT min(CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 ELSE 9223372036854775807 END)
           FROM pg_depend d LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
           JOIN pg_attribute a ON (a.attrelid, a.attnum) = (f.adrelid, f.adnum)
                OR (d.classid = 'pg_class'::regclass AND (a.attrelid, a.attnum::int) = (d.refobjid, d.refobjsubid))
          WHERE (d.classid = 'pg_attrdef'::regclass AND d.refobjid = $1::text::regclass)
             OR (d.classid = 'pg_class'::regclass AND d.objid = $1::text::regclass AND d.refobjsubid > 0)))::bigint
    FROM pg_sequence WHERE seqrelid = $1::text::regclass";

/// Sequences go on where the source's are; `apart` where the source goes on drawing from its own, for the rows that stay: then the target's
/// numbers begin far behind, so that none is drawn on both sides.
pub async fn sequences(tables: &[Planned], from: &Database, to: &Database, apart: bool) -> Result<(), Error> {
    let names: std::collections::BTreeSet<&String> = tables.iter().flat_map(|t| &t.shape.sequences).collect();
    for name in names {
        let there = to.row("look for a sequence", "SELECT to_regclass($1) IS NOT NULL", &[name]).await?;
        if !there.get::<_, bool>(0) {
            return Err(Error::Failed(format!("{} has no sequence {name}", to.name)));
        }
        let read = format!("SELECT last_value, is_called FROM {name}");
        let row = from.row("read a sequence", &read, &[]).await?;
        let (here, mut is_called): (i64, bool) = (row.get(0), row.get(1));
        let row = to.row("read a sequence", &read, &[]).await?;
        let (there, called_there): (i64, bool) = (row.get(0), row.get(1));
        let row = to.row("read a sequence", BOUNDS, &[name]).await?;
        let (step, smallest, largest): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let mut value = here;
        if apart {
            let room =
                if step > 0 { largest.saturating_sub(here) } else { here.saturating_sub(smallest) } / 2;
            // In whole steps, where several systems draw in turns.
            let gap = room.min(APART) / step.abs().max(1) * step;
            if gap == 0 {
                return Err(Error::Failed(format!("{name} has no numbers left for two sides")));
            }
            value += gap;
        }
        // Where the target is further already, it stays there.
        if (step > 0 && there >= value) || (step < 0 && there <= value) {
            (value, is_called) = (there, is_called || called_there);
        }
        let sql = format!("SELECT setval({}, {value}, {is_called})", literal(name));
        to.rows("set a sequence", &sql, &[]).await?;
    }
    Ok(())
}

/// Removes a subscription, also where its publisher is gone: then the slot stays there and is told.
pub async fn unsubscribe(to: &Database, from: Option<&Database>, name: &str) -> Result<(), Error> {
    if exists(to, name).await? {
        let n = ident(name);
        to.run("stop following", &format!("ALTER SUBSCRIPTION {n} DISABLE")).await?;
        to.run("let go of the slot", &format!("ALTER SUBSCRIPTION {n} SET (slot_name = NONE)")).await?;
        to.run("end the subscription", &format!("DROP SUBSCRIPTION {n}")).await?;
    }
    let Some(from) = from else { return Ok(()) };
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        drop_slot(from, name).await?;
        let left = from
            .row(
                "look for the slot",
                "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1",
                &[&name],
            )
            .await?;
        if left.get::<_, i64>(0) == 0 {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Error::Failed(format!("{}: the slot {name} is still in use", from.name)));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Removes the rest: tables and rows stay.
pub async fn clean(of: &Move, tables: &[Planned], to: &Database) -> Result<(), Error> {
    to.run("end the way back", &format!("DROP PUBLICATION IF EXISTS {}", ident(&of.back()))).await?;
    for planned in tables.iter().filter(|t| t.table.is_marked()) {
        let sql = format!("ALTER TABLE {} DROP COLUMN IF EXISTS {MARK}", planned.table.quoted());
        to.run_locking("remove the mark", &sql).await?;
    }
    Ok(())
}
