//! Old WAL: a server keeps segments to write over them later, with what they have in them.

use std::time::{Duration, Instant};

use ringfence_face::sql::literal;

use crate::database::{Database, Error};

/// The most segments of WAL that are used up so that none with old bytes is left.
const SEGMENTS: u32 = 2_000;
/// How long a standby may be behind.
const PATIENCE: Duration = Duration::from_secs(120);
/// Writes a little, and goes on in a new segment: the rest of the old one is filled.
const SWITCH: &str = "SELECT pg_logical_emit_message(true, 'ringfence', ''); SELECT pg_switch_wal()";

/// From here on the server removes old segments instead of keeping them.
async fn keep_none(at: &Database) -> Result<(), Error> {
    at.run("have no segments kept", "ALTER SYSTEM SET wal_recycle = off").await?;
    at.run("have no segments kept", "ALTER SYSTEM SET min_wal_size = '32MB'").await?;
    at.run("have no segments kept", "SELECT pg_reload_conf()").await
}

/// What somebody has set with ALTER SYSTEM before.
async fn set_before(at: &Database) -> Result<Vec<(String, String)>, Error> {
    let sql = "SELECT name, setting FROM pg_file_settings WHERE name IN ('wal_recycle', 'min_wal_size') AND sourcefile LIKE '%postgresql.auto.conf'";
    let rows = at.rows("look how it is set", sql, &[]).await?;
    let set: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    // As a run leaves it that was cut off in between.
    let is_ours = set.contains(&("wal_recycle".to_owned(), "off".to_owned()))
        && set.contains(&("min_wal_size".to_owned(), "32MB".to_owned()));
    Ok(if is_ours { Vec::new() } else { set })
}

async fn as_before(at: &Database, before: &[(String, String)]) -> Result<(), Error> {
    for setting in ["wal_recycle", "min_wal_size"] {
        let sql = match before.iter().find(|(name, _)| name == setting) {
            Some((_, value)) => format!("ALTER SYSTEM SET {setting} = {}", literal(value)),
            None => format!("ALTER SYSTEM RESET {setting}"),
        };
        at.run("put a setting back", &sql).await?;
    }
    at.run("put a setting back", "SELECT pg_reload_conf()").await
}

/// Uses up the segments that are kept for later with old bytes in them, then has all old ones removed. Returns how many it used up.
pub async fn remove(from: &Database) -> Result<u32, Error> {
    let before = set_before(from).await?;
    keep_none(from).await?;
    let kept = "SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND name > pg_walfile_name(pg_current_wal_lsn())";
    let mut used = 0;
    let done = async {
        from.run("write a checkpoint", "CHECKPOINT").await?;
        while used < SEGMENTS && from.row("look for kept WAL", kept, &[]).await?.get::<_, i64>(0) > 0 {
            from.run("use up a segment", SWITCH).await?;
            used += 1;
        }
        // What the last checkpoint may still need is removed by the one after it.
        for _ in 0..2 {
            from.run("use up a segment", SWITCH).await?;
            from.run("write a checkpoint", "CHECKPOINT").await?;
        }
        Ok(used)
    };
    let done = done.await;
    as_before(from, &before).await?;
    done
}

/// Waits until no slot that is in use holds on to WAL from before now: who reads it has read it then. One that stays behind keeps it, and
/// that is found when the bytes are looked for.
pub async fn let_slots_go_on(from: &Database, within: Duration) -> Result<(), Error> {
    let now: String =
        from.row("ask for the newest WAL", "SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
    let behind = "SELECT count(*) FROM pg_replication_slots WHERE active AND restart_lsn < $1::text::pg_lsn";
    let until = Instant::now() + within;
    while Instant::now() < until && from.row("look for slots", behind, &[&now]).await?.get::<_, i64>(0) > 0 {
        // A checkpoint writes what lets a slot forget older WAL.
        from.run("write a checkpoint", "CHECKPOINT").await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(())
}

/// The same for a standby, which has what its primary has sent: it replays all of that first. A restartpoint removes what is older
/// than the last checkpoint that it has replayed, so its primary writes some.
pub async fn remove_at_standby(primary: &Database, standby: &Database) -> Result<(), Error> {
    let is_standby = standby.row("look what it is", "SELECT pg_is_in_recovery()", &[]).await?;
    if !is_standby.get::<_, bool>(0) {
        return Err(Error::Failed(format!(
            "{} is no standby any more: it is a copy of its own",
            standby.name
        )));
    }
    let before = set_before(standby).await?;
    keep_none(standby).await?;
    let mut used = 0;
    let done = async {
        caught_up(primary, standby).await?;
        standby.run("make a restartpoint", "CHECKPOINT").await?;
        while used < SEGMENTS && keeps_more(primary, standby).await? {
            primary.run("use up a segment", SWITCH).await?;
            caught_up(primary, standby).await?;
            used += 1;
        }
        for _ in 0..3 {
            primary.run("use up a segment", SWITCH).await?;
            primary.run("write a checkpoint", "CHECKPOINT").await?;
            caught_up(primary, standby).await?;
            standby.run("make a restartpoint", "CHECKPOINT").await?;
        }
        Ok(())
    };
    let done = done.await;
    as_before(standby, &before).await?;
    done
}

/// Whether the standby has segments that it has not been sent yet: they were kept to be written over.
async fn keeps_more(primary: &Database, standby: &Database) -> Result<bool, Error> {
    let now =
        primary.row("ask for the newest WAL", "SELECT pg_walfile_name(pg_current_wal_lsn())", &[]).await?;
    let now: String = now.get(0);
    let sql = "SELECT EXISTS (SELECT FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND name > $1)";
    Ok(standby.row("look for kept WAL", sql, &[&now]).await?.get(0))
}

/// Waits until the standby has replayed what its primary has written by now.
async fn caught_up(primary: &Database, standby: &Database) -> Result<(), Error> {
    let at: String =
        primary.row("ask for the newest WAL", "SELECT pg_current_wal_flush_lsn()::text", &[]).await?.get(0);
    let until = Instant::now() + PATIENCE;
    let sql = "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)";
    while !standby.row("ask how far it is", sql, &[&at]).await?.get::<_, bool>(0) {
        if Instant::now() > until {
            return Err(Error::Failed(format!("{} does not catch up with {}", standby.name, primary.name)));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
