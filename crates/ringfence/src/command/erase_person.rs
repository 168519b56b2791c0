//! `ringfence erase … --subject`: one person's own request, in every store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use ringfence_face::Target as Reached;
use ringfence_policy::Catalogue;
use ringfence_residency::backup::keys;
use ringfence_residency::copies::files as scan;
use ringfence_residency::copies::probe::Probes;
use ringfence_residency::copies::{Copy, Holds, Kind, objects};
use ringfence_residency::erase::dump::{self, whose::Whose};
use ringfence_residency::erase::online::Writer;
use ringfence_residency::erase::person::{self, Subject};
use ringfence_residency::erase::rows::Step;
use ringfence_residency::erase::{Action, Plan, Registered, Remains, Target, wal};
use ringfence_residency::{Database, Error};
use serde_json::{Value, json};

use super::console::{Console, WhoArgs};
use super::erase::{empty_log, log_remains, progress, registered, rewritten_already, unchanged};
use super::{Failure, erase_looking as looking, print_json};
use crate::scans::{self, Places};

/// How long replication may take to bring a deletion from where the rows are at home.
const PATIENCE: Duration = Duration::from_secs(10);
/// PostgreSQL's code for a row that the fence of a move keeps where it is.
const FENCED: &str = "25006";

/// A store with its rules.
struct Store {
    admin: Reached,
    catalogue: Catalogue,
}

/// Every store that the configuration can reach as an administrator: those of [copies], and both sides of moves.
fn stores(path: &Path, places: &Places) -> Result<BTreeMap<String, Store>, Failure> {
    let mut stores = BTreeMap::new();
    for cluster in &places.clusters {
        let store = Store { admin: cluster.admin.clone(), catalogue: cluster.catalogue.clone() };
        stores.insert(cluster.store.clone(), store);
    }
    for name in crate::moves::names(path)? {
        let loaded = crate::moves::load(path, Some(&name))?;
        for side in [&loaded.of.from, &loaded.of.to] {
            let store = || Store { admin: side.admin.clone(), catalogue: loaded.catalogue.clone() };
            stores.entry(side.store.clone()).or_insert_with(store);
        }
    }
    Ok(stores)
}

/// What would be erased, and what stays.
pub(super) async fn plan(
    subject: &str,
    rewrite: bool,
    rewrite_dumps: bool,
    who: &WhoArgs,
) -> Result<Plan, Failure> {
    let (table, key) =
        subject.split_once(':').filter(|(t, k)| !t.is_empty() && !k.is_empty()).ok_or_else(|| {
            Failure::setup(format!("{subject:?} does not name a table and a key, as users:4711"))
        })?;
    let subject = Subject { table: table.to_owned(), key: key.to_owned() };
    let path = who.config.path();
    let jurisdiction = scans::jurisdiction(&path)?;
    let places = scans::load(&path, &jurisdiction)?;
    let (mut rows, mut remains, mut values, mut home) = (Vec::new(), Vec::new(), Vec::new(), None);
    for (name, store) in stores(&path, &places)? {
        let database = Database::connect(&name, &store.admin).await?;
        let has = match person::look(&database, &store.catalogue, &subject).await {
            Ok(has) => has,
            // A store whose catalogue has no such people.
            Err(Error::Blocked(_)) => continue,
            Err(e) => return Err(e.into()),
        };
        let located = store_location(&path, &name)?;
        // The store in the jurisdiction decides, where there is one.
        if !has.rows.is_empty() && (home.is_none() || places.countries.contains(&located)) {
            home = Some(name.clone());
        }
        rows.extend(has.rows.into_iter().map(|(table, n)| (format!("{name}: {table}"), n)));
        values.extend(has.values);
        for (table, column, n) in has.named {
            remains.push(Remains {
                id: "-".to_owned(),
                location: located.clone(),
                place: format!("{name}: {table}.{column}"),
                why: format!("{n} rows are about somebody else, and name them"),
            });
        }
    }
    let home = home.ok_or_else(|| Failure::refused("no store has rows about them"))?;
    let probes = Probes::new(values)?;
    if probes.count() == 0 {
        remains.push(Remains {
            id: "-".to_owned(),
            location: "?".to_owned(),
            place: "files, logs, backups".to_owned(),
            why: "no value of theirs is long enough to be looked for as bytes: nobody can say where else they are".to_owned(),
        });
    }
    let (targets, more) = copies(&places, &jurisdiction, &probes, rewrite_dumps, who).await?;
    remains.extend(more);
    Ok(Plan {
        v: 1,
        what: "erase".to_owned(),
        of: String::new(),
        jurisdiction,
        store: home.clone(),
        home,
        rows,
        targets,
        remains,
        subject: Some(subject),
        rewrite,
    })
}

fn store_location(path: &Path, name: &str) -> Result<String, Failure> {
    let (file, _) = crate::config::parse(path)?;
    let found = file.stores.iter().find(|s| s.store.name == name);
    Ok(found.map_or_else(|| "?".to_owned(), |s| s.store.location.clone()))
}

/// Files that have them: logs are emptied, dumps written anew where that is wanted; what holds other people, too, stays until it is too
/// old to be kept. What is registered and cannot be looked into here may have them, and is named.
async fn copies(
    places: &Places,
    jurisdiction: &str,
    probes: &Probes,
    rewrite_dumps: bool,
    who: &WhoArgs,
) -> Result<(Vec<Target>, Vec<Remains>), Failure> {
    let (mut targets, mut remains) = (Vec::new(), Vec::new());
    let bar = progress();
    for cluster in &places.clusters {
        let (logs, elsewhere) = looking::logs(cluster, jurisdiction, probes).await?;
        targets.extend(logs);
        remains.extend(elsewhere.into_iter().map(|why| log_remains(cluster, why)));
    }
    let (mut found, mut unread): (Vec<Copy>, Vec<String>) = (Vec::new(), Vec::new());
    for folder in &places.folders {
        bar.set_message(folder.path.display().to_string());
        let looked = scan::look(jurisdiction, folder, probes, &mut |_| bar.tick());
        found.extend(looked.copies);
        unread.extend(looked.unread);
    }
    for bucket in &places.buckets {
        bar.set_message(bucket.shelf.place.clone());
        let told = &mut |_| bar.tick();
        found.extend(objects::look(jurisdiction, &bucket.shelf, &*bucket.objects, probes, &mut unread, told));
    }
    bar.finish_and_clear();
    keys::recognise(&mut found, &places.known_keys()?);
    for place in unread {
        let why = "it could not be looked into".to_owned();
        remains.push(Remains { id: "-".to_owned(), location: "?".to_owned(), place, why });
    }
    let seen: BTreeSet<String> = found.iter().map(|copy| copy.id.clone()).collect();
    for copy in found {
        let in_folder = places.can_reach(&copy.place) && !copy.place.starts_with("s3://");
        let why = match &copy.holds {
            Holds::Destroyed { .. } => continue,
            // Parts of encrypted backups are nobody's by their own word only; this person may have lived elsewhere then.
            Holds::Nobody { of } if *of > 0 || copy.key.is_none() => continue,
            Holds::Found { .. } if copy.kind == Kind::Dump && in_folder && rewrite_dumps => {
                targets.push(Target::new(&copy, Action::RewriteDump));
                continue;
            }
            Holds::Unknown { why } => format!("it cannot be looked into: {why}"),
            Holds::Nobody { .. } | Holds::Everything => {
                "nobody can look into it here; it may have them, and who restores it erases them again".to_owned()
            }
            Holds::Found { .. } => "it holds other people, too, and is kept until it is too old; who restores it erases them again".to_owned(),
        };
        remains.push(Remains { id: copy.id, location: copy.location, place: copy.place, why });
    }
    // What only the register knows: tapes, partners, archives, standbys. Databases were asked themselves.
    for Registered { copy, is_gone, .. } in registered(who, jurisdiction).await? {
        let was_asked =
            places.clusters.iter().any(|c| copy.place.starts_with(&format!("{}: database ", c.store)))
                && matches!(copy.kind, Kind::Database | Kind::MaterializedView);
        let is_nothing = copy.holds.is_nothing() && !matches!(copy.holds, Holds::Nobody { of: 0 });
        if is_gone || was_asked || is_nothing || seen.contains(&copy.id) || places.can_reach(&copy.place) {
            continue;
        }
        let why = "it is registered, and nobody looks into it here: its owner has to say".to_owned();
        remains.push(Remains { id: copy.id, location: copy.location, place: copy.place, why });
    }
    Ok((targets, remains))
}

/// Erases, and looks for what is left.
pub(super) async fn run(
    id: &str,
    plan: &Plan,
    lock: bool,
    console: &Console,
    who: &WhoArgs,
) -> Result<(), Failure> {
    let Some(subject) = &plan.subject else { return Err(Failure::refused("the plan names nobody")) };
    let path = who.config.path();
    let places = scans::load(&path, &plan.jurisdiction)?;
    let stores = stores(&path, &places)?;
    let (mut values, mut databases) = (Vec::new(), Vec::new());
    for (name, store) in &stores {
        let database = Database::connect(name, &store.admin).await?;
        match person::look(&database, &store.catalogue, subject).await {
            Ok(has) => values.extend(has.values),
            Err(Error::Blocked(_)) => continue,
            Err(e) => return Err(e.into()),
        }
        databases.push((database, &store.catalogue));
    }
    // Nothing to look for means that they are gone: somebody runs it again. The certificate says so.
    let probes = Probes::new(values)?;
    let bar = progress();
    let (mut rows, mut failed, mut rewritten) = (Vec::new(), Vec::new(), 0);
    for (database, catalogue) in &databases {
        bar.set_message(format!("{}: deleting their rows", database.name));
        match person::delete(database, catalogue, subject).await {
            Ok(deleted) => {
                rows.extend(deleted.into_iter().map(|(t, n)| (format!("{}: {t}", database.name), n)));
            }
            // The rows are at home elsewhere: what happens there is replicated here.
            Err(Error::Refused { sqlstate, .. }) if sqlstate == FENCED => {}
            Err(e) => failed.push(e.to_string()),
        }
    }
    for (database, catalogue) in &databases {
        let mut still = person::look(database, catalogue, subject).await?;
        let until = Instant::now() + PATIENCE;
        while !still.rows.is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(200)).await;
            still = person::look(database, catalogue, subject).await?;
        }
        failed.extend(
            still.rows.iter().map(|(t, n)| format!("{}: {t} has {n} rows about them", database.name)),
        );
        let told = &mut |step: Step<'_>| {
            if let Step::Begun(what) = step {
                bar.set_message(format!("{}: {what}", database.name));
            }
        };
        let writer = match stores.get(&database.name).filter(|_| plan.rewrite) {
            Some(store) => Some(Writer::choose(database, &store.admin, lock).await?),
            None => None,
        };
        let cleaned = person::clean(database, catalogue, subject, writer.as_ref(), told).await;
        if let Some(writer) = &writer {
            writer.finish(database).await?;
        }
        rewritten += cleaned?;
    }
    let mut dumps = Vec::new();
    for target in &plan.targets {
        let place = Path::new(&target.place);
        bar.set_message(target.place.clone());
        let done = match target.action {
            Action::RewriteDump => {
                rewrite(&places, &stores, subject, target, id, &probes).map(|more| dumps.push(more))
            }
            _ => empty_some_log(&places, place).await,
        };
        if let Err(e) = done {
            failed.push(format!("{}: {e}", target.place));
        }
    }
    for (database, _) in &databases {
        bar.set_message(format!("{}: removing old WAL", database.name));
        wal::let_slots_go_on(database, PATIENCE).await?;
        wal::remove(database).await?;
    }
    for standby in &places.standbys {
        let Some((primary, _)) = databases.iter().find(|(database, _)| database.name == standby.store) else {
            continue;
        };
        bar.set_message(format!("{}: removing old WAL", standby.name));
        let at = Database::connect(&standby.name, &standby.admin).await?;
        wal::remove_at_standby(primary, &at).await?;
    }
    bar.finish_and_clear();
    let all: Vec<String> = stores.keys().cloned().collect();
    let left = looking::look(&places, plan, &all, &probes).await?;
    let known = |place: &str| plan.remains.iter().any(|r| r.place == place);
    // What nobody can look into is told, and is no worse than before.
    let found = left.copies.iter().filter(|copy| matches!(copy.holds, Holds::Found { .. }));
    let unexpected = found.filter(|copy| !known(&copy.place)).count();
    let certificate = json!({ "rows": rows, "planned": plan.rows, "rewritten": rewritten, "dumps": dumps, "failed": failed,
        "remains": plan.remains, "verified": left.told });
    let certified = console.ask(&json!({ "do": "certify", "id": id, "certificate": certificate })).await?;
    if who.json {
        print_json(&certified);
    } else {
        looking::print(&left.told);
        for problem in &failed {
            println!("FAILED   {problem}");
        }
        println!("The certificate of {id} is on record: ringfence erase show {id}");
    }
    if probes.count() == 0 {
        return Err(Failure::refused("their rows are gone, and nothing is known by which they could be looked for elsewhere")
            .hint("an earlier run was cut off after their rows were deleted, or no value of theirs was long enough: the certificate says that nobody looked"));
    }
    if failed.is_empty() && unexpected == 0 {
        return Ok(());
    }
    let hint = if plan.rewrite {
        "see above, and the certificate"
    } else {
        "bytes in a cluster's free room go when others are written there, or with --rewrite"
    };
    Err(Failure::refused("something is left that the plan did not name").hint(hint))
}

/// Writes a dump anew without the person.
fn rewrite(
    places: &Places,
    stores: &BTreeMap<String, Store>,
    subject: &Subject,
    target: &Target,
    under: &str,
    probes: &Probes,
) -> Result<Value, String> {
    let place = Path::new(&target.place);
    if let Some(done) = rewritten_already(target, under)? {
        return Ok(done);
    }
    if !places.can_reach(&target.place) {
        return Err("it is in no folder of the configuration".to_owned());
    }
    unchanged(target, place)?;
    // Whose dump it is nobody has written on it; the stores' catalogues are those of one platform.
    let store = stores.values().find(|store| store.catalogue.tables.contains_key(&subject.table));
    let store = store.ok_or("no store's catalogue knows them")?;
    let whose = Whose::person(&store.catalogue, subject);
    let done = dump::rewrite(place, whose, probes, under, &mut |_| ()).map_err(|e| e.to_string())?;
    Ok(json!(done))
}

/// Empties a file of the log of whichever cluster it is of.
async fn empty_some_log(places: &Places, place: &Path) -> Result<(), String> {
    let mut problem = "no [[copies.clusters]] is configured".to_owned();
    for cluster in &places.clusters {
        match empty_log(Some(cluster), place).await {
            Ok(()) => return Ok(()),
            Err(e) => problem = e,
        }
    }
    Err(problem)
}

/// Looks again: by the key, since nobody keeps their values.
pub(super) async fn verify(plan: &Plan, who: &WhoArgs) -> Result<(), Failure> {
    let Some(subject) = &plan.subject else { return Err(Failure::refused("the plan names nobody")) };
    let path = who.config.path();
    let places = scans::load(&path, &plan.jurisdiction)?;
    let mut left = Vec::new();
    for (name, store) in stores(&path, &places)? {
        let database = Database::connect(&name, &store.admin).await?;
        match person::look(&database, &store.catalogue, subject).await {
            Ok(has) => left.extend(has.rows.into_iter().map(|(table, n)| (format!("{name}: {table}"), n))),
            Err(Error::Blocked(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if who.json {
        print_json(&json!({ "rows": left }));
    } else {
        for (table, n) in &left {
            println!("LEFT     {table}: {n} rows");
        }
        println!(
            "Looked for rows by their key. Their values are kept nowhere, so files were looked through when they were erased."
        );
    }
    if left.is_empty() { Ok(()) } else { Err(Failure::refused("")) }
}
