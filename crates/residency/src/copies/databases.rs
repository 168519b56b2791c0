//! Asks a cluster what it knows of: its databases and what is in them, who follows it, whom it follows, where its WAL goes.

use ringfence_face::Target;

use super::probe::Probes;
use super::{Copy, Holds, Kind};
use crate::database::{Database, Error};

/// A cluster to ask, by one of its databases.
pub struct Cluster<'a> {
    /// The store that is in it.
    pub store: &'a str,
    /// The country where it is.
    pub location: &'a str,
    /// Its superuser's connection.
    pub admin: &'a Target,
}

const DOING: &str = "tell what it knows of";

/// Everything that the cluster knows of. `told` hears what is looked at.
pub async fn look(
    jurisdiction: &str,
    cluster: &Cluster<'_>,
    probes: &Probes,
    told: &mut (dyn FnMut(&str) + Send),
) -> Result<Vec<Copy>, Error> {
    let first = Database::connect(cluster.store, cluster.admin).await?;
    let mut copies = Vec::new();
    let at = |kind, place: String, holds| Copy::new(jurisdiction, kind, cluster.location, &place, holds);
    let place = |what: String| format!("{}: {what}", cluster.store);
    let databases = first
        .rows(
            DOING,
            "SELECT datname::text, datallowconn, pg_database_size(oid) FROM pg_database ORDER BY 1",
            &[],
        )
        .await?;
    let mut holds_any = false;
    for row in &databases {
        let (name, may_connect, bytes): (String, bool, i64) = (row.get(0), row.get(1), row.get(2));
        if name == "template0" {
            continue; // PostgreSQL's own, which nobody can write to
        }
        told(&name);
        if !may_connect {
            let why = "it allows no connections".to_owned();
            copies.push(at(Kind::Database, place(format!("database {name}")), Holds::Unknown { why }));
            continue;
        }
        let mut target = cluster.admin.clone();
        target.config.dbname(&name);
        let database = Database::connect(cluster.store, &target).await?;
        let found = relations(&database, probes, told).await?;
        let people = found.iter().map(|r| r.people).max().unwrap_or(0);
        holds_any |= people > 0;
        let in_tables: Vec<&str> = found.iter().filter(|r| !r.is_view).map(|r| r.name.as_str()).collect();
        let holds = |people| match people {
            0 => Holds::Nobody { of: probes.count() },
            people => Holds::Found { people, of: probes.count() },
        };
        if people > 0 {
            let mut copy = at(Kind::Database, place(format!("database {name}")), holds(people))
                .note(in_tables.join(", "));
            copy.bytes = u64::try_from(bytes).ok();
            copies.push(copy);
        }
        for view in found.iter().filter(|r| r.is_view && r.people > 0) {
            let what = place(format!("database {name}, materialised view {}", view.name));
            copies.push(at(Kind::MaterializedView, what, holds(view.people)));
        }
        logical(&database, &name, &mut copies, &at, &place).await?;
    }
    let everything = || if holds_any { Holds::Everything } else { Holds::Nobody { of: probes.count() } };
    physical(&first, jurisdiction, &mut copies, &at, &place, &everything).await?;
    Ok(copies)
}

struct Relation {
    name: String,
    is_view: bool,
    people: u64,
}

/// Tables and materialised views with values that were looked for, whatever they are called.
async fn relations(
    database: &Database,
    probes: &Probes,
    told: &mut (dyn FnMut(&str) + Send),
) -> Result<Vec<Relation>, Error> {
    let rows = database
        .rows(
            DOING,
            "SELECT format('%I.%I', n.nspname, c.relname), c.relkind = 'm', array_agg(quote_ident(a.attname))
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             JOIN pg_type t ON t.oid = a.atttypid
             WHERE c.relkind IN ('r', 'm') AND (c.relkind = 'r' OR c.relispopulated)
               AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
               AND (t.typcategory = 'S' OR t.typname IN ('uuid', 'json', 'jsonb', 'bytea'))
             GROUP BY 1, 2 ORDER BY 1",
            &[],
        )
        .await?;
    let mut found = Vec::new();
    for row in &rows {
        let (name, is_view, columns): (String, bool, Vec<String>) = (row.get(0), row.get(1), row.get(2));
        told(&name);
        let people = probes.in_table(database, &name, &columns).await?;
        if people > 0 {
            found.push(Relation { name, is_view, people });
        }
    }
    Ok(found)
}

/// What a database says of others that have its rows, or whose rows it has.
async fn logical(
    database: &Database,
    name: &str,
    copies: &mut Vec<Copy>,
    at: &dyn Fn(Kind, String, Holds) -> Copy,
    place: &dyn Fn(String) -> String,
) -> Result<(), Error> {
    let foreign = database
        .rows(
            DOING,
            "SELECT f.ftrelid::regclass::text, s.srvname::text,
                    coalesce((SELECT string_agg(o, ' ' ORDER BY o) FROM unnest(s.srvoptions) o WHERE o NOT ILIKE '%pass%'), '')
             FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver ORDER BY 1",
            &[],
        )
        .await?;
    for row in &foreign {
        let (table, server, options): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let why = "it lies in another server: look there".to_owned();
        let mut copy = at(
            Kind::ForeignTable,
            place(format!("database {name}, foreign table {table}")),
            Holds::Unknown { why },
        )
        .note(format!("server {server} {options}"));
        "?".clone_into(&mut copy.location);
        copies.push(copy);
    }
    let publications = database
        .rows(
            DOING,
            "SELECT p.pubname::text, coalesce(string_agg(t.schemaname || '.' || t.tablename, ', ' ORDER BY 1), '')
             FROM pg_publication p LEFT JOIN pg_publication_tables t ON t.pubname = p.pubname GROUP BY p.pubname ORDER BY 1",
            &[],
        )
        .await?;
    for row in &publications {
        let (publication, tables): (String, String) = (row.get(0), row.get(1));
        let why = "what subscribers have is not known here".to_owned();
        copies.push(
            at(
                Kind::Publication,
                place(format!("database {name}, publication {publication}")),
                Holds::Unknown { why },
            )
            .note(tables),
        );
    }
    let subscriptions = database
        .rows(
            DOING,
            "SELECT subname::text, subenabled, regexp_replace(subconninfo, 'password\\s*=\\s*(''([^''\\\\]|\\\\.)*''|\\S+)', 'password=…', 'gi')
             FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1",
            &[],
        )
        .await?;
    for row in &subscriptions {
        let (subscription, enabled, from): (String, bool, String) = (row.get(0), row.get(1), row.get(2));
        let state = if enabled { "follows" } else { "disabled; followed" };
        let why = "the rows are in the database's tables".to_owned();
        copies.push(
            at(
                Kind::Subscription,
                place(format!("database {name}, subscription {subscription}")),
                Holds::Unknown { why },
            )
            .note(format!("{state} {from}")),
        );
    }
    Ok(())
}

/// What the cluster as a whole says: standbys, slots, archives.
async fn physical(
    first: &Database,
    jurisdiction: &str,
    copies: &mut Vec<Copy>,
    at: &dyn Fn(Kind, String, Holds) -> Copy,
    place: &dyn Fn(String) -> String,
    everything: &dyn Fn() -> Holds,
) -> Result<(), Error> {
    let standbys = first
        .rows(
            DOING,
            "SELECT s.application_name, coalesce(host(s.client_addr), 'this machine'), s.state,
                    coalesce(r.slot_type, 'physical') = 'logical' OR s.usesysid IS NULL
             FROM pg_stat_replication s LEFT JOIN pg_replication_slots r ON r.active_pid = s.pid ORDER BY 1",
            &[],
        )
        .await?;
    for row in standbys.iter().filter(|row| !row.get::<_, bool>(3)) {
        let (name, from, state): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        // Where it is nobody can tell from here.
        copies.push(
            Copy::new(
                jurisdiction,
                Kind::Replica,
                "?",
                &place(format!("standby {name} at {from}")),
                everything(),
            )
            .note(state),
        );
    }
    let slots = first
        .rows(
            DOING,
            "SELECT slot_name::text, slot_type, active, coalesce(database::text, ''),
                    coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint
             FROM pg_replication_slots WHERE NOT temporary ORDER BY 1",
            &[],
        )
        .await?;
    for row in &slots {
        let (name, kind, active, database, behind): (String, String, bool, String, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
        let used = if active { "in use" } else { "nobody uses it" };
        let of = if database.is_empty() { String::new() } else { format!(" of {database}") };
        let mut copy = at(Kind::Slot, place(format!("slot {name}")), everything())
            .note(format!("{kind}{of}, {used}; keeps WAL"));
        copy.bytes = u64::try_from(behind).ok();
        copies.push(copy);
    }
    let archive = first
        .row(
            DOING,
            "SELECT current_setting('archive_mode'), current_setting('archive_command'), coalesce(current_setting('archive_library', true), '')",
            &[],
        )
        .await?;
    let (mode, command, library): (String, String, String) = (archive.get(0), archive.get(1), archive.get(2));
    if mode != "off" && (!command.is_empty() || !library.is_empty()) {
        let how = if library.is_empty() {
            "archive_command".to_owned()
        } else {
            format!("archive_library {library}")
        };
        let mut copy = at(Kind::WalArchive, place(how), everything()).note(command);
        "?".clone_into(&mut copy.location);
        copies.push(copy);
    }
    Ok(())
}
