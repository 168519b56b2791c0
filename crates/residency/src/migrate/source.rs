//! The side that rows leave: marks, the publication, the fence, the watch.

use ringfence_face::sql::{ident, literal};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

use super::plan::Planned;
use super::{Move, SCHEMA, prepare_schema};
use crate::database::{Database, Error};
use crate::scope::{How, MARK, Table};

/// Pages of a table that are marked in one transaction.
const PAGES: i64 = 2_000;

/// What a table's functions are called by: names of any length and any character stay apart.
fn tag(table: &Table) -> String {
    hex::encode(&Sha256::digest(table.quoted())[..8])
}

/// Marks new and changed rows from now on, and lays the fence, open. May be run again.
pub async fn prepare(of: &Move, tables: &[Planned], from: &Database) -> Result<(), Error> {
    prepare_schema(from, &of.from).await?;
    let open =
        format!("{}; REVOKE ALL ON FUNCTION {}() FROM PUBLIC", fence_function(of, "-infinity"), of.fence());
    from.run("lay the fence", &open).await?;
    for planned in tables {
        let table = &planned.table;
        let mut sql = String::new();
        if table.is_marked() {
            sql = format!(
                "ALTER TABLE {t} ADD COLUMN IF NOT EXISTS {MARK} boolean NOT NULL DEFAULT false;
                 {function};
                 CREATE OR REPLACE TRIGGER ringfence_1_mark BEFORE INSERT OR UPDATE OF {columns}, {MARK} ON {t}
                     FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.mark_{tag}()",
                t = table.quoted(),
                function = mark_function(table),
                columns = owners(table).join(", "),
                tag = tag(table),
            );
            sql.push(';');
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
            "UPDATE {t} t SET {MARK} = NOT t.{MARK} WHERE ({about}) AND t.{MARK} IS DISTINCT FROM {member};",
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
    )
}

fn fence_triggers(of: &Move, table: &Table) -> String {
    let (t, fence) = (table.quoted(), of.fence());
    let (old, new) = (table.cheap("OLD."), table.cheap("NEW."));
    format!(
        "CREATE OR REPLACE TRIGGER ringfence_9_insert BEFORE INSERT ON {t} FOR EACH ROW WHEN ({new})
             EXECUTE FUNCTION {fence}();
         CREATE OR REPLACE TRIGGER ringfence_9_update BEFORE UPDATE ON {t} FOR EACH ROW WHEN ({old} OR {new})
             EXECUTE FUNCTION {fence}();
         CREATE OR REPLACE TRIGGER ringfence_9_delete BEFORE DELETE ON {t} FOR EACH ROW WHEN ({old})
             EXECUTE FUNCTION {fence}();
         CREATE OR REPLACE TRIGGER ringfence_9_truncate BEFORE TRUNCATE ON {t} FOR EACH STATEMENT
             EXECUTE FUNCTION {fence}()"
    )
}

/// The end of the fence is a word in the function: functions are looked up as they are now, also by a transaction whose snapshot is
/// older. A row in a table would not be seen by that one, and its write would be lost.
fn fence_function(of: &Move, until: &str) -> String {
    let message = format!(
        "rows of the jurisdiction {} are at home in the store {} and cannot be changed in {}",
        of.jurisdiction, of.to.store, of.from.store
    );
    format!(
        "CREATE OR REPLACE FUNCTION {fence}() RETURNS trigger LANGUAGE plpgsql AS $f$
         BEGIN
             IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.<) {until}::pg_catalog.timestamptz THEN
                 RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction', MESSAGE = {message}, HINT = {hint};
             END IF;
             IF TG_OP IN ('DELETE', 'TRUNCATE') THEN RETURN OLD; END IF;
             RETURN NEW;
         END $f$",
        fence = of.fence(),
        until = literal(until),
        message = literal(&message),
        hint = literal(&format!("Connect through the gateway to {}, which leads there.", of.route)),
    )
}

/// How many pages there are to mark, for progress.
pub async fn pages(tables: &[Planned], from: &Database) -> Result<i64, Error> {
    let names: Vec<String> =
        tables.iter().filter(|t| t.table.is_marked()).map(|t| t.table.quoted()).collect();
    let sql =
        "SELECT coalesce(sum(pg_relation_size(x::regclass) / current_setting('block_size')::int), 0)::bigint
               FROM unnest($1::text[]) x";
    Ok(from.row("measure the tables", sql, &[&names]).await?.get(0))
}

/// Marks the rows that were there before, in small transactions. May be run again after a crash; `told` hears of pages.
pub async fn backfill(
    tables: &[Planned],
    from: &Database,
    told: &mut (dyn FnMut(i64) + Send),
) -> Result<u64, Error> {
    let doing = "mark the rows";
    let mut marked = 0;
    for table in tables.iter().map(|t| &t.table).filter(|t| t.is_marked()) {
        let (t, member) = (table.quoted(), table.member("t"));
        let size = format!("SELECT pg_relation_size({}) / current_setting('block_size')::int", literal(&t));
        let mut at = 0_i64;
        // Until the end as it is then: rows that are changed meanwhile move there.
        while at < from.row(doing, &size, &[]).await?.get(0) {
            let sql = format!(
                "UPDATE {t} t SET {MARK} = true WHERE t.ctid >= '({at},0)'::tid AND t.ctid < '({end},0)'::tid
                    AND NOT t.{MARK} AND {member}",
                end = at + PAGES
            );
            marked += from.execute(doing, &sql, &[]).await?;
            told(PAGES);
            at += PAGES;
        }
        // And those that moved into the room that was free in pages before.
        marked += mend(table, from).await?;
    }
    Ok(marked)
}

/// Sets marks right that do not say what the people's countries say. There are none, but for rows that were written at the same moment
/// as the person whom they are about, by another transaction.
pub async fn mend(table: &Table, from: &Database) -> Result<u64, Error> {
    if !table.is_marked() {
        return Ok(0);
    }
    let (t, member) = (table.quoted(), table.member("t"));
    let more = format!("UPDATE {t} t SET {MARK} = true WHERE NOT t.{MARK} AND {member}");
    let fewer = format!("UPDATE {t} t SET {MARK} = false WHERE t.{MARK} AND NOT {member}");
    Ok(from.execute("set marks right", &more, &[]).await?
        + from.execute("set marks right", &fewer, &[]).await?)
}

/// Publishes the rows. From then on PostgreSQL writes whole old rows into its WAL where they are changed: a row filter is asked of
/// them, too.
pub async fn publish(of: &Move, tables: &[Planned], from: &Database) -> Result<(), Error> {
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
    let role = ident(&of.from.replication_role);
    let mut grants = String::new();
    for planned in tables {
        let table = &planned.table;
        let _ = write!(
            grants,
            "GRANT USAGE ON SCHEMA {} TO {role}; GRANT SELECT ON {} TO {role};",
            ident(&table.schema),
            table.quoted()
        );
    }
    from.run("let the replication role read", &grants).await?;
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
    let filtered: Vec<String> =
        tables.iter().map(|t| format!("{} WHERE ({})", t.table.quoted(), t.table.filter())).collect();
    let sql = format!(
        "CREATE PUBLICATION {} FOR TABLE {}, {SCHEMA}.token WHERE (move = {})",
        ident(&of.publication()),
        filtered.join(", "),
        literal(&of.name)
    );
    from.run("publish the rows", &format!("ALTER TABLE {SCHEMA}.token REPLICA IDENTITY DEFAULT; {sql}")).await
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
    let sql = format!("BEGIN; {}; {}; COMMIT", lock(tables), fence_function(of, &until));
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

/// Closes the fence for good: the rows are at home elsewhere.
pub async fn close(of: &Move, from: &Database) -> Result<(), Error> {
    from.run("close the fence", &fence_function(of, "infinity")).await
}

/// Takes the fence away, if the rows are at home here.
pub async fn open(of: &Move, from: &Database) -> Result<(), Error> {
    from.run("take the fence away", &fence_function(of, "-infinity")).await
}

/// The decision: in one transaction the fence stays for good, and the rows are at home at the target. Refused where the fence has ended
/// meanwhile, since somebody may have written.
pub async fn settle(
    of: &Move,
    tables: &[Planned],
    from: &Database,
    until: &str,
    epoch: i64,
) -> Result<(), Error> {
    let sql = format!(
        "BEGIN; {lock};
         DO $do$ BEGIN
             IF clock_timestamp() >= {until}::timestamptz THEN
                 RAISE EXCEPTION 'the fence ended before the change-over was decided';
             END IF;
         END $do$;
         {fence};
         INSERT INTO {SCHEMA}.home VALUES ({name}, {route}, {store}, {epoch})
             ON CONFLICT (move) DO UPDATE SET store = excluded.store, epoch = excluded.epoch, route = excluded.route;
         COMMIT",
        lock = lock(tables),
        until = literal(until),
        fence = fence_function(of, "infinity"),
        name = literal(&of.name),
        route = literal(&of.route),
        store = literal(&of.to.store),
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

/// Removes all of it: the tables are as before. The fence goes, too, so the rows must be at home here, or be gone.
pub async fn clean(of: &Move, tables: &[Planned], from: &Database) -> Result<(), Error> {
    from.run("end the publication", &format!("DROP PUBLICATION IF EXISTS {}", ident(&of.publication())))
        .await?;
    for planned in tables {
        let table = &planned.table;
        let t = table.quoted();
        let names = ["1_mark", "2_residence", "8_watch", "9_insert", "9_update", "9_delete", "9_truncate"];
        let mut sql = names.map(|n| format!("DROP TRIGGER IF EXISTS ringfence_{n} ON {t};")).concat();
        let kept = from
            .maybe(
                "look how it was",
                &format!("SELECT was::text, index FROM {SCHEMA}.identity WHERE relation = $1"),
                &[&t],
            )
            .await?;
        if let Some(kept) = kept {
            let (was, index): (String, Option<String>) = (kept.get(0), kept.get(1));
            let identity = match (was.as_str(), index) {
                ("i", Some(index)) => {
                    let name = index.rsplit('.').next().unwrap_or(&index).trim_matches('"');
                    format!("USING INDEX {}", ident(name))
                }
                ("n", _) => "NOTHING".to_owned(),
                _ => "DEFAULT".to_owned(),
            };
            let _ = write!(sql, "ALTER TABLE {t} REPLICA IDENTITY {identity};");
        }
        if table.is_marked() {
            let _ = write!(sql, "ALTER TABLE {t} DROP COLUMN IF EXISTS {MARK};");
        }
        let tag = tag(table);
        let _ = write!(sql, "DROP FUNCTION IF EXISTS {SCHEMA}.mark_{tag}(), {SCHEMA}.residence_{tag}(), {SCHEMA}.watch_{tag}();
             DELETE FROM {SCHEMA}.identity WHERE relation = {}",
            literal(&t));
        from.run_locking("put the table back", &sql).await?;
    }
    from.run("remove the fence", &format!("DROP FUNCTION IF EXISTS {}()", of.fence())).await
}
