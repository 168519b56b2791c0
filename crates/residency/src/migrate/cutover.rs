//! The change-over, there and back. What clients see of it is a pause.

use std::time::{Duration, Instant};

use ringfence_face::sql::{ident, literal};
use serde::Serialize;

use super::plan::Planned;
use super::verify::{self, Verified};
use super::{Move, SCHEMA, carry, home, source, target};
use crate::database::{Database, Error};

/// How long the fence stands before it is decided. Whatever goes wrong, writes go on after that.
const FENCE: Duration = Duration::from_secs(10);
/// How long the target may take to catch up while clients wait.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How many changed rows may be left to compare while clients wait.
const FEW: u64 = 300;
/// How often the list of changed rows is worked off before clients wait.
const ROUNDS: u32 = 200;
/// How long the outcome of a decision is asked for, where the source went away while it was made.
const FIND_OUT: Duration = Duration::from_secs(120);
/// How long one answer may take then.
const ANSWER: Duration = Duration::from_secs(5);

/// The gateways that hold clients back.
pub trait Gateways {
    /// Lets running transactions end and holds the next ones. An error says which do not end; then nobody is held.
    fn hold(&mut self, within: Duration) -> impl Future<Output = Result<(), String>> + Send;
    /// Lets go of whom it holds; each gateway looks where the rows are at home first. Returns the longest time that clients were held.
    fn release(&mut self) -> impl Future<Output = Result<Duration, String>> + Send;
}

/// What a change-over did.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where the rows are at home now.
    pub store: String,
    /// How long clients were held, at most, in milliseconds.
    pub held_ms: f64,
    /// Where that time went, in milliseconds.
    pub parts: Vec<(&'static str, f64)>,
    /// What was compared before.
    pub verified: Verified,
    /// Rows that changed since, and were compared one by one.
    pub changed: u64,
}

/// What happens, for whoever watches.
pub enum Step<'a> {
    /// Rows of a table were compared.
    Compared(&'a str, i64),
    /// A new step.
    Begun(&'static str),
}

/// Changes over. Everything that takes long happens before clients are held. The caller has claimed the move ([`Database::claim`]).
pub async fn run(
    of: &Move,
    tables: &[Planned],
    from: &Database,
    to: &Database,
    gateways: &mut (impl Gateways + Send),
    told: &mut (dyn FnMut(Step<'_>) + Send),
) -> Result<Report, Error> {
    if home(to, &of.name).await?.is_some() {
        finish_back(of, tables, from, to).await?; // somebody died after the decision to go back
    }
    let (all, ready) = target::copied(of, to).await?;
    if all == 0 || ready < all {
        return Err(Error::Blocked(vec![format!(
            "the first copy is not complete: {ready} of {all} tables; `ringfence migrate status` shows how far it is"
        )]));
    }
    if !carry::is_finished(to).await? {
        return Err(Error::Blocked(vec![format!(
            "{} lacks keys and indexes of its tables: `ringfence migrate start` makes them",
            to.name
        )]));
    }
    super::prepare_schema(from, &of.from).await?;
    // What an attempt before this one may have left.
    source::open(of, from).await?;
    target::go_on(of, to).await?;
    target::hurry(of, to).await?;
    told(Step::Begun("watching for changes"));
    source::watch(tables, from).await?;
    told(Step::Begun("comparing both sides"));
    let verified =
        verify::verify(of, tables, from, to, &mut |table, rows| told(Step::Compared(table, rows))).await?;
    if verified.differences() > 0 {
        source::unwatch(tables, from).await?;
        return Err(Error::Failed(format!(
            "{} rows differ between {} and {}; nothing was changed over. `ringfence migrate verify` names the tables",
            verified.differences(),
            from.name,
            to.name
        )));
    }
    told(Step::Begun("comparing what has changed since"));
    let mut changed = 0;
    for _ in 0..ROUNDS {
        let n = source::send_token(of, from).await?;
        target::await_token(of, to, n, Duration::from_secs(60)).await?;
        let (looked, _) = verify::watched(tables, from, to, 20_000).await?;
        changed += looked;
        if looked < FEW {
            break;
        }
    }
    target::publish_back(of, tables, to).await?;
    if let Err(e) = target::make_slot(to, &of.back()).await {
        source::unwatch(tables, from).await?;
        return Err(e);
    }
    told(Step::Begun("changing over"));
    let attempt = in_time([from, to], attempt(of, tables, from, to, gateways)).await;
    if let Err(Error::Unreachable { .. }) = &attempt {
        // Whoever cannot be asked cannot be told either. The fence goes by itself unless it was decided, and gateways ask the stores.
        gateways.release().await.map_err(Error::Failed)?;
    }
    let decided = match &attempt {
        Ok(_) => true,
        Err(_) => is_decided(of, from).await?,
    };
    if !decided {
        if let Err(e @ Error::Unreachable { .. }) = attempt {
            return Err(e); // the next attempt cleans up first
        }
        let (opened, resumed) = (source::open(of, from).await, target::go_on(of, to).await);
        let released = gateways.release().await;
        opened.and(resumed)?;
        target::drop_slot(to, &of.back()).await?;
        source::unwatch(tables, from).await?;
        released.map_err(Error::Failed)?;
    }
    let (parts, last) = match attempt {
        Ok(done) => done,
        Err(e) if !decided => return Err(e),
        Err(_) => {
            arrive(of, to).await?; // the decision was made, and its answer lost
            (Vec::new(), 0)
        }
    };
    let held = gateways.release().await.map_err(Error::Failed)?;
    finish(of, tables, from, to).await?;
    Ok(Report {
        store: of.to.store.clone(),
        held_ms: held.as_secs_f64() * 1000.0,
        parts,
        verified,
        changed: changed + last,
    })
}

/// What happens while clients wait.
async fn attempt(
    of: &Move,
    tables: &[Planned],
    from: &Database,
    to: &Database,
    gateways: &mut (impl Gateways + Send),
) -> Result<(Vec<(&'static str, f64)>, u64), Error> {
    let mut parts = Vec::new();
    let mut last = Instant::now();
    let mut part = |name: &'static str| {
        parts.push((name, last.elapsed().as_secs_f64() * 1000.0));
        last = Instant::now();
    };
    gateways.hold(Duration::from_secs(2)).await.map_err(Error::Failed)?;
    part("hold");
    let until = source::fence(of, tables, from, FENCE.as_secs_f64()).await?;
    part("fence");
    let n = source::send_token(of, from).await?;
    target::await_token(of, to, n, CATCH_UP).await?;
    part("catch up");
    let mut looked = 0;
    loop {
        let (some, differ) = verify::watched(tables, from, to, 50_000).await?;
        looked += some;
        if differ > 0 {
            return Err(Error::Failed(format!(
                "{differ} of the rows that changed last differ between {} and {}; nothing was changed over",
                from.name, to.name
            )));
        }
        if some == 0 {
            break;
        }
    }
    part("compare");
    target::sequences(tables, from, to, true).await?;
    target::pause(of, to).await?;
    let since = target::begin_slot(of, to, &of.back()).await?;
    part("sequences and the way back");
    let epoch = epoch(of, from, to).await?;
    source::settle(of, tables, from, &until, epoch, &since).await?;
    arrive(of, to).await?;
    part("decide");
    Ok((parts, looked))
}

/// Takes the fence away where the rows are at home now; it was closed there, if they have left it before. Only after the decision: until
/// then nobody may write there, and whoever dies in between leaves both sides closed, not open. May be run again.
async fn arrive(of: &Move, to: &Database) -> Result<(), Error> {
    if super::is_begun(of, to).await? {
        source::open(&of.reversed(), to).await?;
    }
    Ok(())
}

/// Greater than that of every decision before: also of other moves along the same route, which are in other databases.
async fn epoch(of: &Move, from: &Database, to: &Database) -> Result<i64, Error> {
    let known = [home(from, &of.name).await?, home(to, &of.name).await?];
    let known = known.iter().flatten().map(|(_, epoch)| *epoch).max().unwrap_or(0);
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let now: i64 = from.row("read the clock", sql, &[]).await?.get(0);
    Ok(now.max(known + 1))
}

/// Does what clients wait for, and gives up when the fence has ended anyway: a server that answers no more keeps nobody waiting.
async fn in_time<T>(
    sides: [&Database; 2],
    attempt: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let limited = async {
        for side in sides {
            side.give_up_after(FENCE).await?;
        }
        attempt.await
    };
    let done = tokio::time::timeout(FENCE + Duration::from_secs(3), limited).await;
    let Ok(done) = done else {
        return Err(Error::Unreachable {
            database: format!("{} or {}", sides[0].name, sides[1].name),
            problem: "no answer while clients waited".to_owned(),
        });
    };
    if !matches!(done, Err(Error::Unreachable { .. })) {
        for side in sides {
            side.give_up_after(Duration::ZERO).await?;
        }
    }
    done
}

/// Whether the decision was made, asked of the source until it answers: its connection may have gone in the middle.
async fn is_decided(of: &Move, from: &Database) -> Result<bool, Error> {
    let decided = |found: Option<(String, i64)>| found.is_some_and(|(store, _)| store == of.to.store);
    if let Ok(Ok(found)) = tokio::time::timeout(ANSWER, home(from, &of.name)).await {
        return Ok(decided(found));
    }
    let ask_again = async || {
        let again = Database::connect(&of.from.store, &of.from.admin).await?;
        home(&again, &of.name).await
    };
    let until = Instant::now() + FIND_OUT;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Ok(Ok(found)) = tokio::time::timeout(ANSWER, ask_again()).await {
            return Ok(decided(found));
        }
    }
    let problem = "nobody can tell whether it was decided; run it again when it answers".to_owned();
    Err(Error::Unreachable { database: from.name.clone(), problem })
}

/// Goes on where somebody died after the decision: the rows are at home at the target. The caller has claimed the move. Returns whether
/// anything was left to do.
pub async fn resume(
    of: &Move,
    tables: &[Planned],
    from: &Database,
    to: &Database,
    gateways: &mut (impl Gateways + Send),
) -> Result<bool, Error> {
    arrive(of, to).await?;
    gateways.release().await.map_err(Error::Failed)?;
    if super::is_erased(of, from).await? {
        return Ok(false);
    }
    let follows = "SELECT EXISTS (SELECT FROM pg_subscription WHERE subname = $1)";
    let was_done = from.row("look for the way back", follows, &[&of.back()]).await?.get::<_, bool>(0);
    finish(of, tables, from, to).await?;
    Ok(!was_done)
}

/// What can wait until clients are served again: the way there ends, the way back begins. May be run again.
async fn finish(of: &Move, tables: &[Planned], from: &Database, to: &Database) -> Result<(), Error> {
    source::unwatch(tables, from).await?;
    target::unsubscribe(to, Some(from), &of.publication()).await?;
    // A decision of before, the other way, is over.
    forget_decision(of, to).await?;
    follow(of, from, &of.back(), &of.to.replication).await
}

async fn forget_decision(of: &Move, at: &Database) -> Result<(), Error> {
    let sql = format!("DELETE FROM {SCHEMA}.home WHERE move = $1");
    at.execute("forget the decision before", &sql, &[&of.name]).await.map(drop)
}

/// Follows a side that has a slot and a publication of this name, from where the decision says; the slot itself may have been set back by a
/// crash. May be run again.
async fn follow(of: &Move, at: &Database, name: &str, other: &str) -> Result<(), Error> {
    let n = ident(name);
    if !target::exists(at, name).await? {
        let sql = format!(
            "CREATE SUBSCRIPTION {n} CONNECTION {conn} PUBLICATION {n} WITH (copy_data = false, create_slot = false, enabled = false, slot_name = {slot})",
            conn = literal(other),
            slot = literal(name),
        );
        at.run_unlogged("follow the other side", &sql).await?;
    }
    // One that has applied something knows better.
    let since = format!(
        "SELECT pg_replication_origin_advance('pg_' || s.oid, h.since) FROM pg_subscription s, {SCHEMA}.home h
         WHERE s.subname = $1 AND NOT s.subenabled AND h.move = $2 AND h.since IS NOT NULL
           AND coalesce(pg_replication_origin_progress('pg_' || s.oid, false), '0/0') < h.since"
    );
    at.rows("follow from the decision on", &since, &[&name, &of.name]).await?;
    // Whoever died in the middle of a change-over may have left it stopped.
    at.run("go on following", &format!("ALTER SUBSCRIPTION {n} ENABLE")).await
}

/// Goes back: the target's rows are replicated to the source, so nothing that was written since is lost. Then the target follows
/// the source again, so that another change-over is possible.
pub async fn back(
    of: &Move,
    tables: &[Planned],
    from: &Database,
    to: &Database,
    gateways: &mut (impl Gateways + Send),
) -> Result<f64, Error> {
    from.claim(&of.name).await?;
    if !super::has_moved(of, from, to).await? {
        if home(to, &of.name).await?.is_none() {
            let problem = format!("the rows have not left {}; there is nothing to go back from", from.name);
            return Err(Error::Blocked(vec![problem]));
        }
        // Somebody died after the decision.
        source::open(of, from).await?;
        gateways.release().await.map_err(Error::Failed)?;
        finish_back(of, tables, from, to).await?;
        return Ok(0.0);
    }
    if super::is_erased(of, from).await? {
        let problem = format!("the erasure of the rows at {} has begun; there is no way back", from.name);
        return Err(Error::Blocked(vec![problem]));
    }
    let reversed = of.reversed();
    // The target has rows of the jurisdiction only: there everything is fenced.
    let all = super::everything(tables);
    super::prepare_schema(to, &of.to).await?;
    source::lay(&reversed, &all, to).await?;
    finish(of, tables, from, to).await?;
    let n = source::send_token(of, to).await?;
    if let Err(e) = target::await_token(of, from, n, Duration::from_secs(60)).await {
        return Err(match target::errors_of(&of.back(), from).await? {
            0 => e,
            n => Error::Failed(format!(
                "{} cannot take what has changed at {} since, and has tried {n} times; its server log says why",
                from.name, to.name
            )),
        });
    }
    target::make_slot(from, &of.publication()).await?;
    let attempt = in_time([from, to], attempt_back(of, tables, &all, from, to, gateways));
    let attempt = Box::pin(attempt).await;
    if let Err(Error::Unreachable { .. }) = &attempt {
        gateways.release().await.map_err(Error::Failed)?;
    }
    if let Err(e) = attempt
        && !is_decided(&reversed, to).await?
    {
        if matches!(e, Error::Unreachable { .. }) {
            return Err(e); // the next attempt cleans up first
        }
        source::open(&reversed, to).await?;
        from.run("go on following", &format!("ALTER SUBSCRIPTION {} ENABLE", ident(&of.back()))).await?;
        target::drop_slot(from, &of.publication()).await?;
        gateways.release().await.map_err(Error::Failed)?;
        return Err(e);
    }
    // Only now: whoever dies before this leaves both sides closed, not open.
    source::open(of, from).await?;
    let held = gateways.release().await.map_err(Error::Failed)?;
    finish_back(of, tables, from, to).await?;
    Ok(held.as_secs_f64() * 1000.0)
}

/// What can wait until clients are served again. May be run again. Who has left the country while the rows were at home at the target is
/// gone there then: the way there carries nobody who does not belong, so nothing would ever remove them.
pub async fn finish_back(of: &Move, tables: &[Planned], from: &Database, to: &Database) -> Result<(), Error> {
    forget_decision(of, from).await?;
    target::unsubscribe(from, Some(to), &of.back()).await?;
    let (people, others): (Vec<&Planned>, Vec<&Planned>) = tables.iter().partition(|t| !t.table.is_marked());
    for planned in others.into_iter().chain(people) {
        let sql = format!(
            "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM {} t WHERE ({}) IS NOT TRUE; COMMIT",
            planned.table.quoted(),
            planned.table.member("t")
        );
        if let Err(e) = to.run("remove who has left", &sql).await {
            let _ = to.run("roll back", "ROLLBACK").await;
            return Err(e);
        }
    }
    follow(of, to, &of.publication(), &of.from.replication).await
}

async fn attempt_back(
    of: &Move,
    tables: &[Planned],
    all: &[Planned],
    from: &Database,
    to: &Database,
    gateways: &mut (impl Gateways + Send),
) -> Result<(), Error> {
    let reversed = of.reversed();
    gateways.hold(Duration::from_secs(2)).await.map_err(Error::Failed)?;
    let until = source::fence(&reversed, all, to, FENCE.as_secs_f64()).await?;
    let n = source::send_token(of, to).await?;
    target::await_token(of, from, n, CATCH_UP).await?;
    from.run("stop following", &format!("ALTER SUBSCRIPTION {} DISABLE", ident(&of.back()))).await?;
    target::sequences(tables, to, from, false).await?;
    let since = target::begin_slot(of, from, &of.publication()).await?;
    let epoch = epoch(of, from, to).await?;
    source::settle(&reversed, all, to, &until, epoch, &since).await
}
