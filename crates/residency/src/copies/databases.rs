//! Asks a cluster what it knows of: its databases and what is in them, who follows it, whom it follows, where its WAL goes.

use ringfence_face::Target;
use tokio_postgres::config::Host;

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
        let database = match Database::connect(cluster.store, &target).await {
            Ok(database) => database,
            Err(e) => {
                let why = format!("it cannot be entered: {e}");
                copies.push(at(Kind::Database, place(format!("database {name}")), Holds::Unknown { why }));
                continue;
            }
        };
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
    // What left the tables may still be where their changes went: that nobody is in the tables now says nothing of it.
    let everything = || {
        let why =
            "nobody is in the tables now; what it holds of the time before is not known here".to_owned();
        if holds_any { Holds::Everything } else { Holds::Unknown { why } }
    };
    physical(&first, jurisdiction, &mut copies, &at, &place, &everything).await?;
    Ok(copies)
}

struct Relation {
    name: String,
    is_view: bool,
    people: u64,
}

/// Tables and materialised views with values that were looked for, whatever they are called and whatever their columns hold: a value in
/// the middle of a document counts, one that is kept compressed, too.
async fn relations(
    database: &Database,
    probes: &Probes,
    told: &mut (dyn FnMut(&str) + Send),
) -> Result<Vec<Relation>, Error> {
    let rows = database
        .rows(
            DOING,
            "SELECT format('%I.%I', n.nspname, c.relname), c.relkind = 'm'
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'm') AND (c.relkind = 'r' OR c.relispopulated)
               AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
               AND n.nspname NOT LIKE 'pg\\_temp%'
             ORDER BY 1",
            &[],
        )
        .await?;
    let mut found = Vec::new();
    for row in &rows {
        let (name, is_view): (String, bool) = (row.get(0), row.get(1));
        told(&name);
        let people = match probes.in_relation(database, &name).await {
            Ok(seen) => seen.people(),
            // Dropped since it was listed.
            Err(Error::Refused { sqlstate, .. }) if sqlstate == "42P01" => continue,
            Err(e) => return Err(e),
        };
        if people > 0 {
            found.push(Relation { name, is_view, people });
        }
    }
    let objects = "(SELECT pg_catalog.lo_get(oid) FROM pg_catalog.pg_largeobject_metadata)";
    let seen = match probes.in_relation(database, objects).await {
        // One is larger than what PostgreSQL gives at once.
        Err(Error::Refused { .. }) => {
            probes
                .in_relation(database, "(SELECT data FROM pg_catalog.pg_largeobject ORDER BY loid, pageno)")
                .await
        }
        seen => seen,
    };
    let people = seen?.people();
    if people > 0 {
        found.push(Relation { name: "large objects".to_owned(), is_view: false, people });
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
                    coalesce((SELECT string_agg(o, ' ' ORDER BY o) FROM unnest(s.srvoptions) o
                        WHERE split_part(o, '=', 1) IN ('host', 'hostaddr', 'port', 'dbname', 'servername', 'database')), '')
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
            "SELECT subname::text, subenabled, subconninfo
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
            .note(format!("{state} {}", whom(&from))),
        );
    }
    Ok(())
}

/// Where a connection string leads, without whatever else is in it: a register is no place for secrets.
fn whom(connection: &str) -> String {
    // The driver knows fewer ways to check a certificate than libpq.
    let known = connection.replace("verify-full", "require").replace("verify-ca", "require");
    let Ok(config) = known.parse::<tokio_postgres::Config>() else { return "another server".to_owned() };
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    format!("{} of {}", config.get_dbname().unwrap_or("a database"), hosts.join(", "))
}

/// Of a command its program and the places that it names: what else is in it may be secret.
fn told_of(command: &str) -> String {
    let is_harmless = |(n, word): (usize, &str)| {
        let is_place = n == 0 || word.starts_with('/') || word.starts_with("s3://");
        is_place && !word.contains(['=', '@', '?', '\'', '"', '$'])
    };
    let words: Vec<&str> = command.split_whitespace().collect();
    let shown = words.iter().enumerate().map(|(n, word)| if is_harmless((n, word)) { word } else { "…" });
    let mut shown: Vec<&str> = shown.collect();
    shown.dedup();
    shown.join(" ")
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
        let mut copy = at(Kind::WalArchive, place(how), everything()).note(told_of(&command));
        "?".clone_into(&mut copy.location);
        copies.push(copy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_comes_into_the_register() {
        assert_eq!(
            whom("postgresql://repl:secret@db.example:5433/app?sslmode=verify-full"),
            "app of db.example"
        );
        assert_eq!(whom("postgresql://repl:secret@db.example/app?sslpassword=secret"), "another server");
        assert_eq!(whom("host=/run/pg user=u password='a b' dbname=app"), "app of /run/pg");
        assert_eq!(whom("host=h nonsense=secret"), "another server");
        assert_eq!(told_of("test ! -f /wal/%f && cp %p /wal/%f"), "test … /wal/%f … /wal/%f");
        assert_eq!(told_of("KEY=secret aws s3 cp %p s3://bucket/%f --key=x"), "… s3://bucket/%f …");
    }
}
