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
    let sql = format!(
        "CREATE SUBSCRIPTION {n} CONNECTION {conn} PUBLICATION {n} WITH (copy_data = true, streaming = on)",
        n = ident(&name),
        conn = literal(&of.from.replication),
    );
    to.run_unlogged("subscribe", &sql).await
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

/// From here on the target remembers what changes, for the way back. The publication has to be there before.
pub async fn keep_way_back(of: &Move, to: &Database) -> Result<(), Error> {
    drop_slot(to, &of.back()).await?;
    to.row(
        "keep the way back",
        "SELECT pg_create_logical_replication_slot($1, 'pgoutput')::text",
        &[&of.back()],
    )
    .await
    .map(drop)
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
    if known.get::<_, i64>(0) > 0 {
        return Ok(());
    }
    let names: Vec<String> = tables.iter().map(|t| t.table.quoted()).collect();
    let sql = format!(
        "CREATE PUBLICATION {} FOR TABLE {}, {SCHEMA}.token WHERE (move = {})",
        ident(&of.back()),
        names.join(", "),
        literal(&of.name)
    );
    to.run("publish for the way back", &sql).await
}

/// Everything that was replicated is on the target's disk when this returns: replication itself does not wait for that.
pub async fn flush(of: &Move, to: &Database) -> Result<(), Error> {
    let sql = format!(
        "SET synchronous_commit = on; INSERT INTO {SCHEMA}.token VALUES ({}, 0) ON CONFLICT (move) DO UPDATE SET n = {SCHEMA}.token.n; RESET synchronous_commit",
        literal(&of.name)
    );
    to.run("wait for its disk", &sql).await
}

/// Sequences go on where the source's are.
pub async fn sequences(tables: &[Planned], from: &Database, to: &Database) -> Result<(), Error> {
    let names: std::collections::BTreeSet<&String> = tables.iter().flat_map(|t| &t.shape.sequences).collect();
    for name in names {
        let there = to.row("look for a sequence", "SELECT to_regclass($1) IS NOT NULL", &[name]).await?;
        if !there.get::<_, bool>(0) {
            return Err(Error::Failed(format!("{} has no sequence {name}", to.name)));
        }
        let row =
            from.row("read a sequence", &format!("SELECT last_value, is_called FROM {name}"), &[]).await?;
        let (value, called): (i64, bool) = (row.get(0), row.get(1));
        let sql = format!(
            "SELECT setval({}, greatest({value}, (SELECT last_value FROM {name})), {called} OR (SELECT is_called FROM {name}))",
            literal(name)
        );
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
