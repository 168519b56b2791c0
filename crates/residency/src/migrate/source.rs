//! The side that rows leave: marks, the publication, the fence, the watch.

use ringfence_face::sql::{ident, literal};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tokio_postgres::types::ToSql;

use super::plan::Planned;
use super::{Move, SCHEMA, let_read, prepare_schema};
use crate::database::{Database, Error};
use crate::scope::{Bits, How, MARK, Table};

/// Pages of a table that are marked in one transaction.
const PAGES: i64 = 2_000;

/// What a table's functions are called by: names of any length and any character stay apart.
fn tag(table: &Table) -> String {
    hex::encode(&Sha256::digest(table.quoted())[..8])
}

/// The same for what is of one move alone: several may have left the same store.
fn tag_of(of: &Move, table: &Table) -> String {
    hex::encode(&Sha256::digest(format!("{} {}", of.name, table.quoted()))[..8])
}

/// Marks new and changed rows from now on, and lays the fence, open. May be run again.
pub async fn prepare(of: &Move, tables: &[Planned], from: &Database) -> Result<(), Error> {
    prepare_schema(from, &of.from).await?;
    open(of, from).await?;
    for planned in tables {
        let table = &planned.table;
        let mut sql = String::new();
        if table.is_marked() {
            let _ = write!(
                sql,
                "ALTER TABLE {t} ADD COLUMN IF NOT EXISTS {MARK} boolean;
                 {function};
                 CREATE OR REPLACE TRIGGER ringfence_1_mark BEFORE INSERT OR UPDATE OF {columns}, {MARK} ON {t}
                     FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.mark_{tag}();",
                t = table.quoted(),
                function = mark_function(table),
                columns = owners(table).join(", "),
                tag = tag(table),
            );
        }
        sql.push_str(&fence_triggers(of, table));
        from.run_locking("lay marks and the fence", &sql).await?;
    }
    let marked: Vec<&Table> = tables.iter().map(|t| &t.table).filter(|t| t.is_marked()).collect();
    for table in tables.iter().map(|t| &t.table).filter(|t| !t.is_marked()) {
        from.run_locking("follow where people live", &residence_trigger(table, &marked)).await?;
    }
    Ok(())
}

fn owners(table: &Table) -> Vec<String> {
    match &table.how {
        How::Residence { key, column, .. } => vec![ident(key), ident(column)],
        How::Subjects { columns, .. } => columns.iter().map(|c| ident(c)).collect(),
        How::Everything => Vec::new(),
    }
}

/// Runs as the move's own superuser, since whoever writes a row need not be allowed to see where people live; so nothing in it may be
/// found by the caller's search path.
fn mark_function(table: &Table) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {SCHEMA}.mark_{tag}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp AS $f$
         BEGIN NEW.{MARK} := {member}; RETURN NEW; END $f$;
         REVOKE ALL ON FUNCTION {SCHEMA}.mark_{tag}() FROM PUBLIC",
        tag = tag(table),
        member = table.member("NEW"),
    )
}

/// Where somebody comes to live, or leaves, the rows about them follow.
fn residence_trigger(residents: &Table, marked: &[&Table]) -> String {
    let How::Residence { key, column, .. } = &residents.how else { return String::new() };
    let here = (residents.schema.clone(), residents.name.clone());
    let mut body = String::new();
    for table in marked {
        let How::Subjects { columns, residents, .. } = &table.how else { continue };
        if *residents != here {
            continue;
        }
        let about: Vec<String> = columns.iter().map(|c| format!("t.{} = rf_who", ident(c))).collect();
        let _ = writeln!(
            body,
            "UPDATE {t} t SET {MARK} = {member} WHERE ({about}) AND t.{MARK} IS DISTINCT FROM {member};",
            t = table.quoted(),
            about = about.join(" OR "),
            member = table.member("t"),
        );
    }
    format!(
        "CREATE OR REPLACE FUNCTION {SCHEMA}.residence_{tag}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp AS $f$
         DECLARE rf_who {t}.{key}%TYPE;
         BEGIN
             IF TG_OP = 'DELETE' THEN rf_who := OLD.{key}; ELSE rf_who := NEW.{key}; END IF;
             IF TG_OP = 'UPDATE' THEN
                 IF ({old}) = ({new}) AND OLD.{key} = NEW.{key} THEN RETURN NULL; END IF;
             END IF;
             {body}
             RETURN NULL;
         END $f$;
         REVOKE ALL ON FUNCTION {SCHEMA}.residence_{tag}() FROM PUBLIC;
         CREATE OR REPLACE TRIGGER ringfence_2_residence AFTER INSERT OR DELETE OR UPDATE OF {key}, {column} ON {t}
             FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.residence_{tag}()",
        tag = tag(residents),
        t = residents.quoted(),
        key = ident(key),
        column = ident(column),
        old = residents.member("OLD"),
        new = residents.member("NEW"),
    )
}

/// What the fence does in a row's case. It goes by the people, not by marks. Once they are erased nobody here knows of them: then rows
/// about somebody who is not known are refused, too.
fn fence_function(of: &Move, table: &Table, are_erased: bool) -> String {
    let message = format!(
        "rows of the jurisdiction {} are at home in the store {} and cannot be changed in {}",
        of.jurisdiction, of.to.store, of.from.store
    );
    format!(
        "CREATE OR REPLACE FUNCTION {SCHEMA}.fence_{tag}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp AS $f$
         DECLARE rf_moved boolean := TG_OP = 'TRUNCATE';
         BEGIN
             IF TG_OP IN ('UPDATE', 'DELETE') THEN rf_moved := {old}; END IF;
             IF TG_OP IN ('INSERT', 'UPDATE') AND rf_moved IS NOT TRUE THEN rf_moved := {new}; END IF;
             {unknown}
             IF rf_moved THEN
                 RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction', MESSAGE = {message}, HINT = {hint};
             END IF;
             RETURN NULL;
         END $f$;
         REVOKE ALL ON FUNCTION {SCHEMA}.fence_{tag}() FROM PUBLIC",
        tag = tag_of(of, table),
        unknown = if are_erased { unknown(table) } else { String::new() },
        old = table.member("OLD"),
        new = table.member("NEW"),
        message = literal(&message),
        hint = literal(&format!("Connect through the gateway to {}, which leads there.", of.route)),
    )
}

fn unknown(table: &Table) -> String {
    let How::Subjects { columns, residents, residence, .. } = &table.how else { return String::new() };
    let subject = ident(&columns[0]);
    format!(
        "IF TG_OP IN ('INSERT', 'UPDATE') AND rf_moved IS NOT TRUE AND NEW.{subject} IS NOT NULL THEN
             rf_moved := NOT EXISTS (SELECT FROM {}.{} rf_s WHERE rf_s.{} = NEW.{subject}); END IF;",
        ident(&residents.0),
        ident(&residents.1),
        ident(&residence.0),
    )
}

/// Asked of each row only while the fence is closed; behind the row's own triggers and computed columns, which may change whose it is.
fn fence_triggers(of: &Move, table: &Table) -> String {
    format!(
        "{function};
         CREATE OR REPLACE TRIGGER {rows} AFTER INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW
             WHEN (pg_catalog.clock_timestamp() < {until}()) EXECUTE FUNCTION {SCHEMA}.fence_{tag}();
         CREATE OR REPLACE TRIGGER {truncate} BEFORE TRUNCATE ON {t} FOR EACH STATEMENT
             WHEN (pg_catalog.clock_timestamp() < {until}()) EXECUTE FUNCTION {SCHEMA}.fence_{tag}()",
        function = fence_function(of, table, false),
        rows = ident(&format!("ringfence_9_rows_{}", of.name)),
        truncate = ident(&format!("ringfence_9_truncate_{}", of.name)),
        tag = tag_of(of, table),
        t = table.quoted(),
        until = of.until(),
    )
}

/// The people are erased, so that the fence knows none of them any more: it takes whoever is not known here for one of them.
pub async fn forget_people(of: &Move, tables: &[Planned], from: &Database) -> Result<(), Error> {
    for planned in tables {
        from.run("keep the fence without its people", &fence_function(of, &planned.table, true)).await?;
    }
    Ok(())
}

/// Until when the fence is closed: a word in a function, since functions are looked up as they are now, also by a transaction whose
/// snapshot is older. A row in a table would not be seen by that one, and its write would be lost.
fn closed_until(of: &Move, until: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {name}() RETURNS timestamptz LANGUAGE plpgsql STABLE AS $f$
         BEGIN RETURN {until}::pg_catalog.timestamptz; END $f$",
        name = of.until(),
        until = literal(until)
    )
}

/// The people of a jurisdiction by number, where they have numbers that are not too far apart.
async fn bits(residents: &Planned, from: &Database) -> Result<Option<Bits>, Error> {
    let How::Residence { key, .. } = &residents.table.how else { return Ok(None) };
    let column = residents.shape.columns.iter().find(|c| c.name == *key);
    if !column.is_some_and(|c| matches!(c.sql_type.as_str(), "bigint" | "integer" | "smallint")) {
        return Ok(None);
    }
    let sql = format!(
        "SELECT t.{}::bigint FROM {} t WHERE {}",
        ident(key),
        residents.table.quoted(),
        residents.table.member("t")
    );
    let rows = from.rows("list the people", &sql, &[]).await?;
    let keys: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    Ok(Bits::new(&keys))
}

/// The people behind each table that does not say a country, as [`bits`]; those without have to be marked row by row.
pub async fn people(tables: &[Planned], from: &Database) -> Result<People, Error> {
    let mut people = BTreeMap::new();
    for planned in tables.iter().filter(|t| !t.table.is_marked()) {
        if let Some(bits) = bits(planned, from).await? {
            people.insert((planned.table.schema.clone(), planned.table.name.clone()), bits);
        }
    }
    Ok(people)
}

/// People by the table that they are in.
pub type People = BTreeMap<(String, String), Bits>;

fn of_table<'a>(people: &'a People, table: &Table) -> Option<&'a Bits> {
    match &table.how {
        How::Subjects { residents, .. } => people.get(residents),
        _ => None,
    }
}

/// The tables whose rows have to be marked one by one.
fn to_mark<'a>(tables: &'a [Planned], people: &People) -> Vec<&'a Table> {
    tables.iter().map(|t| &t.table).filter(|t| t.is_marked() && of_table(people, t).is_none()).collect()
}

/// How many pages there are to mark, for progress.
pub async fn pages(tables: &[Planned], people: &People, from: &Database) -> Result<i64, Error> {
    let names: Vec<String> = to_mark(tables, people).iter().map(|t| t.quoted()).collect();
    let sql =
        "SELECT coalesce(sum(pg_relation_size(x::regclass) / current_setting('block_size')::int), 0)::bigint
               FROM unnest($1::text[]) x";
    Ok(from.row("measure the tables", sql, &[&names]).await?.get(0))
}

/// Marks the rows that were there before, in small transactions, where nothing else says whose they are. May be run again after a
/// crash; `told` hears of pages.
pub async fn backfill(
    tables: &[Planned],
    people: &People,
    from: &Database,
    told: &mut (dyn FnMut(i64) + Send),
) -> Result<u64, Error> {
    let doing = "mark the rows";
    let mut marked = 0;
    for table in to_mark(tables, people) {
        let (t, member) = (table.quoted(), table.member("t"));
        let size = format!("SELECT pg_relation_size({}) / current_setting('block_size')::int", literal(&t));
        let mut at = 0_i64;
        // Until the end as it is then: rows that are changed meanwhile move there.
        while at < from.row(doing, &size, &[]).await?.get(0) {
            let sql = format!(
                "UPDATE {t} t SET {MARK} = true WHERE t.ctid >= '({at},0)'::tid AND t.ctid < '({end},0)'::tid
                    AND t.{MARK} IS NOT TRUE AND {member}",
                end = at + PAGES
            );
            marked += from.execute(doing, &sql, &[]).await?;
            told(PAGES);
            at += PAGES;
        }
        // And those that moved into the room that was free in pages before.
        let rest = format!("UPDATE {t} t SET {MARK} = true WHERE t.{MARK} IS NOT TRUE AND {member}");
        marked += from.execute(doing, &rest, &[]).await?;
    }
    Ok(marked)
}

/// Marks rows that the publication takes for somebody else's, or takes although they are. There are none, but for rows that were
/// written at the same moment as the person whom they are about, by another transaction. `on` says which rows, of table `t`.
pub async fn mend(
    of: &Move,
    table: &Table,
    from: &Database,
    on: &str,
    with: &[&(dyn ToSql + Sync)],
) -> Result<u64, Error> {
    if !table.is_marked() {
        return Ok(0);
    }
    let filter = from
        .row(
            "read the row filter",
            "SELECT pg_get_expr(r.prqual, r.prrelid) FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
             WHERE p.pubname = $1 AND r.prrelid = $2::text::regclass",
            &[&of.publication(), &table.quoted()],
        )
        .await?;
    let filter: String = filter.get(0);
    let t = table.quoted();
    // The filter's columns have no table before them, and there is one table here.
    let sql = format!(
        "UPDATE {t} SET {MARK} = x.rf_belongs FROM (SELECT t.ctid AS rf_at, {member} AS rf_belongs FROM {t} t {on}) x
         WHERE {t}.ctid = x.rf_at AND ({filter}) IS DISTINCT FROM x.rf_belongs",
        member = table.member("t"),
    );
    from.execute("set marks right", &sql, with).await
}

/// Publishes the rows. From then on PostgreSQL writes whole old rows into its WAL where they are changed: a row filter is asked of
/// them, too.
pub async fn publish(of: &Move, tables: &[Planned], people: &People, from: &Database) -> Result<(), Error> {
    for planned in tables {
        let t = planned.table.quoted();
        let sql = format!(
            "INSERT INTO {SCHEMA}.identity
                SELECT {name}, c.relreplident, (SELECT i.indexrelid::regclass::text FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
                FROM pg_class c WHERE c.oid = {name}::regclass AND c.relreplident <> 'f' ON CONFLICT DO NOTHING;
             ALTER TABLE {t} REPLICA IDENTITY FULL",
            name = literal(&t)
        );
        if planned.shape.identity != "f" {
            from.run_locking("have whole old rows in the WAL", &sql).await?;
        }
    }
    let_read(from, &of.from, tables).await?;
    let token =
        format!("INSERT INTO {SCHEMA}.token VALUES ({}, 0) ON CONFLICT DO NOTHING", literal(&of.name));
    from.run("prepare the token", &token).await?;
    let known = from
        .row(
            "look for the publication",
            "SELECT count(*) FROM pg_publication WHERE pubname = $1",
            &[&of.publication()],
        )
        .await?;
    if known.get::<_, i64>(0) > 0 {
        return Ok(());
    }
    let filtered: Vec<String> = tables
        .iter()
        .map(|t| format!("{} WHERE ({})", t.table.quoted(), t.table.filter(of_table(people, &t.table))))
        .collect();
    let sql = format!(
        "CREATE PUBLICATION {} FOR TABLE {}, {SCHEMA}.token WHERE (move = {})",
        ident(&of.publication()),
        filtered.join(", "),
        literal(&of.name)
    );
    from.run_unlogged("publish the rows", &sql).await
}

/// A mark in the stream: when it has arrived at the other side, everything before it has.
pub async fn send_token(of: &Move, from: &Database) -> Result<i64, Error> {
    let sql = format!("UPDATE {SCHEMA}.token SET n = n + 1 WHERE move = $1 RETURNING n");
    Ok(from.row("send a token", &sql, &[&of.name]).await?.get(0))
}

fn lock(tables: &[Planned]) -> String {
    let names: Vec<String> = tables.iter().map(|t| t.table.quoted()).collect();
    // A vacuum that a cluster runs by itself steps aside once somebody has waited for it as long as deadlock_timeout.
    format!(
        "SET LOCAL lock_timeout = 2000; SET LOCAL deadlock_timeout = 10; LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
        names.join(", ")
    )
}

/// Fences the rows off for a few seconds: who writes them hears an error. Waits for transactions that are writing, also of those who
/// came past the gateway. Returns when it ends, by the source's clock.
pub async fn fence(of: &Move, tables: &[Planned], from: &Database, seconds: f64) -> Result<String, Error> {
    let sql = "SELECT (clock_timestamp() + make_interval(secs => $1))::text";
    let until: String = from.row("read the clock", sql, &[&seconds]).await?.get(0);
    let sql = format!("BEGIN; {}; {}; COMMIT", lock(tables), closed_until(of, &until));
    if let Err(e) = from.run("fence the rows off", &sql).await {
        let _ = from.run("roll back", "ROLLBACK").await;
        return Err(e);
    }
    Ok(until)
}

/// Lays a fence alone, open: at a target, for the way back.
pub async fn lay(of: &Move, tables: &[Planned], at: &Database) -> Result<(), Error> {
    open(of, at).await?;
    for planned in tables {
        at.run_locking("lay the fence", &fence_triggers(of, &planned.table)).await?;
    }
    Ok(())
}

/// Takes the fence away, if the rows are at home here.
pub async fn open(of: &Move, from: &Database) -> Result<(), Error> {
    from.run("take the fence away", &closed_until(of, "-infinity")).await
}

/// The decision, and from where in its WAL the other side's changes are followed (`since`): in one transaction the fence stays for good, and the rows are at home at the target. Refused where the fence has ended
/// or was taken away meanwhile, since somebody may have written: the mover may have lost its connection, found the rows still at home
/// here and given up, while the server was yet to run this.
pub async fn settle(
    of: &Move,
    tables: &[Planned],
    from: &Database,
    until: &str,
    epoch: i64,
    since: &str,
) -> Result<(), Error> {
    let sql = format!(
        "BEGIN; {lock};
         DO $do$ BEGIN
             IF clock_timestamp() >= {until}::timestamptz OR {fence_now}() <> {until}::timestamptz THEN
                 RAISE EXCEPTION 'the fence ended before the change-over was decided';
             END IF;
         END $do$;
         {fence};
         INSERT INTO {SCHEMA}.home (move, route, store, epoch, since) VALUES ({name}, {route}, {store}, {epoch}, {since})
             ON CONFLICT (move) DO UPDATE SET store = excluded.store, epoch = excluded.epoch, route = excluded.route, since = excluded.since;
         COMMIT",
        lock = lock(tables),
        until = literal(until),
        fence_now = of.until(),
        fence = closed_until(of, "infinity"),
        name = literal(&of.name),
        route = literal(&of.route),
        store = literal(&of.to.store),
        since = literal(since),
    );
    if let Err(e) = from.run("decide the change-over", &sql).await {
        let _ = from.run("roll back", "ROLLBACK").await;
        return Err(e);
    }
    Ok(())
}

/// From now on the keys of all changed rows are noted, to be compared one by one.
pub async fn watch(tables: &[Planned], from: &Database) -> Result<(), Error> {
    from.run("empty the list of changed rows", &format!("TRUNCATE {SCHEMA}.watched")).await?;
    for planned in tables {
        let (table, key) = (&planned.table, &planned.shape.key);
        let of = |row: &str| -> String {
            let columns: Vec<String> = key.iter().map(|(c, _)| format!("{row}.{}::text", ident(c))).collect();
            format!(
                "INSERT INTO {SCHEMA}.watched (relation, key) VALUES ({}, ARRAY[{}])",
                literal(&table.quoted()),
                columns.join(", ")
            )
        };
        let sql = format!(
            "CREATE OR REPLACE FUNCTION {SCHEMA}.watch_{tag}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
                 SET search_path = pg_catalog, pg_temp AS $f$
             BEGIN
                 IF TG_OP <> 'INSERT' THEN {old}; END IF;
                 IF TG_OP <> 'DELETE' THEN {new}; END IF;
                 RETURN NULL;
             END $f$;
             REVOKE ALL ON FUNCTION {SCHEMA}.watch_{tag}() FROM PUBLIC;
             CREATE OR REPLACE TRIGGER ringfence_8_watch AFTER INSERT OR UPDATE OR DELETE ON {t}
                 FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.watch_{tag}()",
            tag = tag(table),
            old = of("OLD"),
            new = of("NEW"),
            t = table.quoted(),
        );
        from.run_locking("watch for changes", &sql).await?;
    }
    Ok(())
}

/// Ends the watch.
pub async fn unwatch(tables: &[Planned], from: &Database) -> Result<(), Error> {
    for planned in tables {
        let sql = format!("DROP TRIGGER IF EXISTS ringfence_8_watch ON {}", planned.table.quoted());
        from.run_locking("end the watch", &sql).await?;
    }
    Ok(())
}

/// The replica identity that a table had before [`publish`], as `ALTER TABLE … REPLICA IDENTITY` takes it.
pub async fn identity_before(table: &Table, from: &Database) -> Result<Option<String>, Error> {
    let sql = format!("SELECT was::text, index FROM {SCHEMA}.identity WHERE relation = $1");
    let Some(kept) = from.maybe("look how it was", &sql, &[&table.quoted()]).await? else { return Ok(None) };
    let (was, index): (String, Option<String>) = (kept.get(0), kept.get(1));
    Ok(Some(match (was.as_str(), index) {
        ("i", Some(index)) => {
            let name = index.rsplit('.').next().unwrap_or(&index).trim_matches('"');
            format!("USING INDEX {}", ident(name))
        }
        ("n", _) => "NOTHING".to_owned(),
        _ => "DEFAULT".to_owned(),
    }))
}

/// Removes all of it: the tables are as before. The fence goes, too, so the rows must be at home here, or be gone.
pub async fn clean(of: &Move, tables: &[Planned], from: &Database) -> Result<(), Error> {
    from.run("end the publication", &format!("DROP PUBLICATION IF EXISTS {}", ident(&of.publication())))
        .await?;
    for planned in tables {
        let table = &planned.table;
        let t = table.quoted();
        let own = [format!("9_rows_{}", of.name), format!("9_truncate_{}", of.name)];
        let names = ["1_mark", "2_residence", "7_truncate", "8_watch"].map(str::to_owned);
        let drop =
            |n: &String| format!("DROP TRIGGER IF EXISTS {} ON {t};", ident(&format!("ringfence_{n}")));
        let mut sql: String = names.iter().chain(&own).map(drop).collect();
        if let Some(identity) = identity_before(table, from).await? {
            let _ = write!(sql, "ALTER TABLE {t} REPLICA IDENTITY {identity};");
        }
        if table.is_marked() {
            let _ = write!(sql, "ALTER TABLE {t} DROP COLUMN IF EXISTS {MARK};");
        }
        let tag = tag(table);
        let _ = write!(sql, "DROP FUNCTION IF EXISTS {SCHEMA}.mark_{tag}(), {SCHEMA}.residence_{tag}(), {SCHEMA}.watch_{tag}(), {SCHEMA}.fence_{own}();
             REVOKE SELECT ON {t} FROM {role};
             DELETE FROM {SCHEMA}.identity WHERE relation = {}",
            literal(&t), own = tag_of(of, table), role = ident(&of.from.replication_role));
        from.run_locking("put the table back", &sql).await?;
    }
    from.run("remove the fence", &format!("DROP FUNCTION IF EXISTS {}()", of.until())).await
}
