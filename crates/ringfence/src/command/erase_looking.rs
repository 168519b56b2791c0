//! What is left after an erasure: looked for as bytes, and told.

use std::path::PathBuf;

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

/// Looks for people who were erased: asks the stores' clusters, and looks through their files, the folders and the buckets as bytes.
pub(super) async fn look(
    places: &Places,
    plan: &Plan,
    stores: &[String],
    probes: &Probes,
) -> Result<Value, Failure> {
    let bar = progress();
    let (mut left, mut not_looked) = (Vec::new(), Vec::new());
    let mut people = 0;
    let mut count = |copy: &Copy| {
        if let Holds::Found { people: found, .. } = copy.holds {
            people = people.max(found);
        }
    };
    let mut folders: Vec<Folder> = places.folders.clone();
    for store in stores {
        let Some(cluster) = places.clusters.iter().find(|c| c.store == *store) else {
            not_looked.push(format!("the cluster of {store}: no [[copies.clusters]] names it"));
            continue;
        };
        let asked = Cluster { store, location: &cluster.location, admin: &cluster.admin };
        let told = &mut |what: &str| bar.set_message(what.to_owned());
        for copy in databases::look(&plan.jurisdiction, &asked, probes, told).await? {
            count(&copy);
            if !copy.holds.is_nothing() {
                left.push(copy);
            }
        }
        add_files(store, &cluster.location, cluster.data_dir.as_ref(), &mut folders, &mut not_looked);
    }
    let known_keys = places.known_keys()?;
    for standby in places.standbys.iter().filter(|s| stores.contains(&s.store)) {
        add_files(&standby.name, &standby.location, standby.data_dir.as_ref(), &mut folders, &mut not_looked);
    }
    let (mut files, mut bytes) = (0, 0);
    for folder in &folders {
        bar.set_message(folder.path.display().to_string());
        let mut looked = scan::look(&plan.jurisdiction, folder, probes, &mut |_| bar.tick());
        keys::recognise(&mut looked.copies, &known_keys);
        files += looked.files;
        bytes += looked.bytes;
        not_looked.extend(looked.unread);
        for copy in looked.copies {
            count(&copy);
            if !copy.holds.is_nothing() {
                left.push(copy);
            }
        }
    }
    for bucket in &places.buckets {
        bar.set_message(bucket.shelf.place.clone());
        let told = &mut |n| {
            bytes += n;
            bar.tick();
        };
        let mut found =
            objects::look(&plan.jurisdiction, &bucket.shelf, &*bucket.objects, probes, &mut not_looked, told);
        keys::recognise(&mut found, &known_keys);
        for copy in found {
            count(&copy);
            if !copy.holds.is_nothing() {
                left.push(copy);
            }
        }
    }
    bar.finish_and_clear();
    left.truncate(100);
    not_looked.truncate(100);
    not_looked.extend(plan.remains.iter().map(|r| format!("{} {}: {}", r.id, r.place, r.why)));
    let mut looked_at: Vec<String> = folders.iter().map(|f| f.path.display().to_string()).collect();
    looked_at.extend(places.buckets.iter().map(|b| b.shelf.place.clone()));
    Ok(json!({ "looked_for": probes.count(), "people": people, "left": left, "not_looked_into": not_looked,
        "looked_at": { "clusters": stores, "folders": looked_at, "files": files, "bytes": bytes } }))
}

/// Files of a cluster's own log that have these people in them: they are emptied.
pub(super) async fn logs(
    cluster: &ClusterToAsk,
    jurisdiction: &str,
    probes: &Probes,
) -> Result<Vec<Target>, Failure> {
    let Some(data) = &cluster.data_dir else { return Ok(Vec::new()) };
    let database = Database::connect(&cluster.store, &cluster.admin).await?;
    let sql = "SELECT current_setting('log_directory')";
    let place: String = database.row("ask where its log is", sql, &[]).await?.get(0);
    let Ok(path) = data.join(place).canonicalize() else { return Ok(Vec::new()) };
    let folder = Folder { path, location: cluster.location.clone(), owner: String::new() };
    let looked = scan::look(jurisdiction, &folder, probes, &mut |_| ());
    let found = looked.copies.into_iter().filter(|c| matches!(c.holds, Holds::Found { .. }));
    let target = |c: Copy| Target {
        id: c.id,
        kind: c.kind,
        location: c.location,
        place: c.place,
        action: Action::EmptyLog,
        key: None,
    };
    Ok(found.map(target).collect())
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
    let clusters = left["looked_at"]["clusters"].as_array().into_iter().flatten();
    let clusters: Vec<&str> = clusters.filter_map(Value::as_str).collect();
    println!(
        "Looked for {} people in the cluster of {} and {} files: {} found.",
        left["looked_for"],
        clusters.join(", "),
        left["looked_at"]["files"],
        left["people"]
    );
}
