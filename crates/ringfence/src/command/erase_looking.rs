//! What is left after an erasure: looked for as bytes, and told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ringfence_residency::Database;
use ringfence_residency::backup::keys;
use ringfence_residency::copies::databases::{self, Cluster};
use ringfence_residency::copies::files::{self as scan, Folder};
use ringfence_residency::copies::probe::Probes;
use ringfence_residency::copies::{Copy, Holds, objects};
use ringfence_residency::erase::{Action, Plan, Target};
use serde_json::{Value, json};

use super::Failure;
use super::erase::{progress, text};
use crate::scans::{ClusterToAsk, Places};

/// How many places a certificate lists; how many there are is in it in any case.
const LISTED: usize = 200;

/// What was found.
pub(super) struct Left {
    /// All of it, what holds people first.
    pub(super) copies: Vec<Copy>,
    /// For the certificate.
    pub(super) told: Value,
}

impl Left {
    /// Whether somebody was found, anywhere.
    pub(super) fn has_people(&self) -> bool {
        self.copies.iter().any(|copy| matches!(copy.holds, Holds::Found { .. }))
    }
}

/// Where was looked, and what was seen there.
#[derive(Default)]
struct Seen {
    copies: Vec<Copy>,
    not_looked: Vec<String>,
    limits: BTreeSet<String>,
    files: u64,
    bytes: u64,
}

/// Looks for people who were erased: asks the stores' clusters, and looks through their files, the folders and the buckets as bytes.
pub(super) async fn look(
    places: &Places,
    plan: &Plan,
    stores: &[String],
    probes: &Probes,
) -> Result<Left, Failure> {
    let bar = progress();
    let mut seen = Seen::default();
    if probes.count() == 0 {
        seen.not_looked
            .push("everything: no value is known by which they could be found as bytes".to_owned());
    }
    let mut folders: Vec<Folder> = places.folders.clone();
    for store in stores {
        let Some(cluster) = places.clusters.iter().find(|c| c.store == *store) else {
            seen.not_looked.push(format!("the cluster of {store}: no [[copies.clusters]] names it"));
            continue;
        };
        let asked = Cluster { store, location: &cluster.location, admin: &cluster.admin };
        let told = &mut |what: &str| bar.set_message(what.to_owned());
        match databases::look(&plan.jurisdiction, &asked, probes, told).await {
            Ok(copies) => seen.copies.extend(copies),
            Err(e) => seen.not_looked.push(format!("the cluster of {store}: {e}")),
        }
        limits(cluster, &mut seen).await;
        add_files(store, &cluster.location, cluster.data_dir.as_ref(), &mut folders, &mut seen.not_looked);
        if let Ok(logs) = Logs::of(cluster).await {
            seen.not_looked
                .extend(logs.elsewhere.iter().map(|where_| format!("the log of {store}: {where_}")));
            // Those in the data directory are looked at with it.
            let data = cluster.data_dir.as_ref().and_then(|dir| dir.canonicalize().ok());
            let outside = |path: &&PathBuf| data.as_ref().is_none_or(|data| !path.starts_with(data));
            let folder = |path: &PathBuf| Folder {
                path: path.clone(),
                location: cluster.location.clone(),
                owner: String::new(),
            };
            folders.extend(logs.paths.iter().filter(outside).map(folder));
        }
    }
    for standby in places.standbys.iter().filter(|s| stores.contains(&s.store)) {
        let dir = standby.data_dir.as_ref();
        add_files(&standby.name, &standby.location, dir, &mut folders, &mut seen.not_looked);
    }
    for folder in &folders {
        bar.set_message(folder.path.display().to_string());
        let looked = scan::look(&plan.jurisdiction, folder, probes, &mut |_| bar.tick());
        seen.files += looked.files;
        seen.bytes += looked.bytes;
        seen.not_looked.extend(looked.unread);
        seen.copies.extend(looked.copies);
    }
    for bucket in &places.buckets {
        bar.set_message(bucket.shelf.place.clone());
        let Seen { copies, not_looked, bytes, limits, .. } = &mut seen;
        let told = &mut |n| {
            *bytes += n;
            bar.tick();
        };
        copies.extend(objects::look(
            &plan.jurisdiction,
            &bucket.shelf,
            &*bucket.objects,
            probes,
            not_looked,
            told,
        ));
        limits.insert("a bucket that keeps versions keeps what was deleted in it".to_owned());
    }
    bar.finish_and_clear();
    let known_keys = places.known_keys()?;
    keys::recognise(&mut seen.copies, &known_keys);
    if known_keys.iter().any(|kept| kept.destroyed.is_none() && kept.without.is_some()) {
        seen.limits.insert(format!(
            "backups of everybody else have the rows of who came to {} after they were made",
            plan.jurisdiction
        ));
    }
    let mut looked_at: Vec<String> = folders.iter().map(|f| f.path.display().to_string()).collect();
    looked_at.extend(places.buckets.iter().map(|b| b.shelf.place.clone()));
    Ok(tell(seen, stores, &looked_at, probes))
}

fn tell(mut seen: Seen, stores: &[String], looked_at: &[String], probes: &Probes) -> Left {
    seen.copies.retain(|copy| !copy.holds.is_nothing());
    let found = |copy: &Copy| match copy.holds {
        Holds::Found { people, .. } => people,
        _ => 0,
    };
    seen.copies.sort_by_key(|copy| std::cmp::Reverse(found(copy)));
    let people = seen.copies.first().map_or(0, found);
    seen.limits
        .insert("what a file system or a disk keeps of files that were deleted or written over".to_owned());
    seen.limits.insert("values that stand compressed in the free room of a database's files".to_owned());
    let told = json!({
        "looked_for": probes.count(),
        "people": (probes.count() > 0).then_some(people),
        "left": seen.copies.iter().take(LISTED).collect::<Vec<_>>(), "left_in_all": seen.copies.len(),
        "not_looked_into": seen.not_looked.iter().take(LISTED).collect::<Vec<_>>(),
        "not_looked_into_in_all": seen.not_looked.len(),
        "limits": seen.limits,
        "looked_at": { "clusters": stores, "folders": looked_at, "files": seen.files, "bytes": seen.bytes },
    });
    Left { copies: seen.copies, told }
}

/// What cannot be found as bytes in a cluster's files, because of how it is set.
async fn limits(cluster: &ClusterToAsk, seen: &mut Seen) {
    let Ok(database) = Database::connect(&cluster.store, &cluster.admin).await else { return };
    let sql = "SELECT current_setting('wal_compression'), current_setting('server_encoding')";
    let Ok(row) = database.row("ask how it is set", sql, &[]).await else { return };
    let (compression, encoding): (String, String) = (row.get(0), row.get(1));
    if compression != "off" {
        seen.limits.insert(format!(
            "whole pages in the WAL of {}, which are compressed there (wal_compression)",
            cluster.store
        ));
    }
    if encoding != "UTF8" {
        seen.limits.insert(format!(
            "values that are not ASCII in the files of {}, which are in {encoding}",
            cluster.store
        ));
    }
}

/// Where a server's own log is.
pub(super) struct Logs {
    /// Folders and files on this host.
    pub(super) paths: Vec<PathBuf>,
    /// Where else it goes, that nobody can reach from here.
    pub(super) elsewhere: Vec<String>,
}

impl Logs {
    /// Asks the server, and the configuration.
    pub(super) async fn of(cluster: &ClusterToAsk) -> Result<Self, Failure> {
        let database = Database::connect(&cluster.store, &cluster.admin).await?;
        let sql = "SELECT current_setting('logging_collector') = 'on', current_setting('log_destination'),
                          current_setting('log_directory'), current_setting('data_directory')";
        let row = database.row("ask where its log is", sql, &[]).await?;
        let (collects, to, folder, data): (bool, String, String, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let (mut paths, mut elsewhere) = (Vec::new(), Vec::new());
        if collects {
            let data = cluster.data_dir.clone().unwrap_or_else(|| PathBuf::from(&data));
            match data.join(&folder).canonicalize() {
                Ok(path) => paths.push(path),
                Err(e) => elsewhere.push(format!("{folder}: {e}")),
            }
        }
        let known = cluster.server_log.iter().filter_map(|path| path.canonicalize().ok());
        paths.extend(known);
        for way in to.split(',').map(str::trim) {
            match way {
                "stderr" if !collects && cluster.server_log.is_none() => elsewhere
                    .push("it goes to the server's standard error: name the file as `server_log`".to_owned()),
                "syslog" | "eventlog" => {
                    elsewhere.push(format!("it goes to {way}, too: whoever keeps that has to erase it"));
                }
                _ => {}
            }
        }
        paths.sort();
        paths.dedup();
        Ok(Self { paths, elsewhere })
    }

    /// Whether a file is one of the log's own.
    pub(super) fn has(&self, place: &Path) -> bool {
        let inside =
            |path: &PathBuf| place == path || ringfence_residency::erase::files::is_inside(place, path);
        self.paths.iter().any(inside)
    }
}

/// Files of a cluster's own log that have these people in them: they are emptied. The second list says where else it goes.
pub(super) async fn logs(
    cluster: &ClusterToAsk,
    jurisdiction: &str,
    probes: &Probes,
) -> Result<(Vec<Target>, Vec<String>), Failure> {
    let Logs { paths, mut elsewhere } = Logs::of(cluster).await?;
    let mut targets = Vec::new();
    for path in paths {
        let folder = Folder { path, location: cluster.location.clone(), owner: String::new() };
        let looked = scan::look(jurisdiction, &folder, probes, &mut |_| ());
        elsewhere.extend(looked.unread);
        for copy in looked.copies {
            match &copy.holds {
                Holds::Found { .. } => targets.push(Target::new(&copy, Action::EmptyLog)),
                Holds::Unknown { why } => elsewhere.push(format!("{}: {why}", copy.place)),
                _ => {}
            }
        }
    }
    for target in &mut targets {
        (target.bytes, target.made) = (None, None); // a log grows
    }
    Ok((targets, elsewhere))
}

/// A cluster's files, where they are on this host.
fn add_files(
    name: &str,
    location: &str,
    dir: Option<&PathBuf>,
    folders: &mut Vec<Folder>,
    not_looked: &mut Vec<String>,
) {
    match dir.map(|dir| dir.canonicalize()) {
        Some(Ok(path)) => folders.push(Folder { path, location: location.to_owned(), owner: String::new() }),
        Some(Err(e)) => not_looked.push(format!("the files of {name}: {e}")),
        None => not_looked.push(format!("the files of {name}: no data_dir is configured on this host")),
    }
}

/// What was found, for people.
pub(super) fn print(left: &Value) {
    for copy in left["left"].as_array().into_iter().flatten() {
        let what = match copy["holds"].as_str() {
            Some("found") => format!("{} of {} people", copy["people"], copy["of"]),
            Some("everything") => "what its cluster holds".to_owned(),
            _ => format!("not known: {}", text(copy, "why")),
        };
        let note = copy["note"].as_str().map_or_else(String::new, |note| format!(" ({note})"));
        println!(
            "LEFT     {} {} {}: {what}{note}",
            text(copy, "location"),
            text(copy, "kind"),
            text(copy, "place")
        );
    }
    for not in left["not_looked_into"].as_array().into_iter().flatten() {
        println!("NOT LOOKED INTO  {}", not.as_str().unwrap_or_default());
    }
    for (all, listed) in [("left_in_all", "left"), ("not_looked_into_in_all", "not_looked_into")] {
        let listed = left[listed].as_array().map_or(0, Vec::len) as u64;
        let more = left[all].as_u64().unwrap_or(0).saturating_sub(listed);
        if more > 0 {
            println!("… and {more} more");
        }
    }
    for limit in left["limits"].as_array().into_iter().flatten() {
        println!("NOT SEEN HERE    {}", limit.as_str().unwrap_or_default());
    }
    let clusters = left["looked_at"]["clusters"].as_array().into_iter().flatten();
    let clusters: Vec<&str> = clusters.filter_map(Value::as_str).collect();
    let found = left["people"].as_u64().map_or_else(|| "nobody could be".to_owned(), |n| n.to_string());
    println!(
        "Looked for {} people in the cluster of {} and {} files: {found} found.",
        left["looked_for"],
        clusters.join(", "),
        left["looked_at"]["files"],
    );
}
