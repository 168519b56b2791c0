//! `[copies]` of `ringfence.toml`: where to look for copies.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfence_face::Target;
use ringfence_ledger::objects::Client;
use ringfence_policy::{Catalogue, Registry};
use ringfence_residency::backup::keys::{self, Kept, Keys, Recipient};
use ringfence_residency::copies::files::Folder;
use ringfence_residency::copies::objects::{Objects, Shelf};
use ringfence_residency::erase::files::is_inside;
use serde::Deserialize;

use crate::command::Failure;
use crate::config::{BucketFile, Reader, parse};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CopiesFile {
    /// Whose data is looked for.
    jurisdiction: Option<String>,
    /// Clusters to ask.
    #[serde(default)]
    clusters: Vec<ClusterFile>,
    /// Standbys of those, by connections of their own.
    #[serde(default)]
    standbys: Vec<StandbyFile>,
    /// Folders to look through.
    #[serde(default)]
    folders: Vec<FolderFile>,
    /// Buckets to look through.
    #[serde(default)]
    buckets: Vec<ShelfFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShelfFile {
    /// The bucket.
    bucket: BucketFile,
    /// The country where it lies.
    location: String,
    /// Who is responsible.
    #[serde(default)]
    owner: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    /// The store that is in it.
    store: String,
    /// Its superuser's connection to the store's database.
    url: String,
    /// A file with the password, if the url has none.
    password_file: Option<PathBuf>,
    /// PEM certificates to trust: TLS is required then, and certificate and name are verified.
    tls_root: Option<PathBuf>,
    /// Its data directory, where this program runs on the same host: `erase` looks through its files.
    data_dir: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StandbyFile {
    /// The store whose cluster it follows.
    store: String,
    /// What it is called.
    name: String,
    /// The country where it lies.
    location: String,
    /// Its superuser's connection.
    url: String,
    /// A file with the password, if the url has none.
    password_file: Option<PathBuf>,
    /// PEM certificates to trust: TLS is required then, and certificate and name are verified.
    tls_root: Option<PathBuf>,
    /// Its data directory, where this program runs on the same host.
    data_dir: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FolderFile {
    /// Where.
    path: PathBuf,
    /// The country where it lies.
    location: String,
    /// Who is responsible.
    #[serde(default)]
    owner: String,
}

/// `[backups]`: backups that are encrypted with a key each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupsFile {
    /// The folder with their keys, in the jurisdiction.
    keys: PathBuf,
    /// A file with whom the keys are wrapped for: age recipients, one a line.
    recipients: PathBuf,
}

/// A cluster to ask.
pub(crate) struct ClusterToAsk {
    pub(crate) store: String,
    pub(crate) location: String,
    pub(crate) admin: Target,
    pub(crate) catalogue: Catalogue,
    pub(crate) data_dir: Option<PathBuf>,
    /// Its own log, where the configuration names it.
    pub(crate) server_log: Option<PathBuf>,
}

/// A standby, for erasures.
pub(crate) struct Standby {
    pub(crate) store: String,
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) admin: Target,
    pub(crate) data_dir: Option<PathBuf>,
}

/// A bucket to look through.
pub(crate) struct BucketToAsk {
    pub(crate) shelf: Shelf,
    pub(crate) objects: Box<dyn Objects + Send + Sync>,
}

/// How long one object of a bucket may take: backups are large.
const PATIENCE: Duration = Duration::from_secs(3600);

struct Reached(Client);

impl Objects for Reached {
    fn list(&self) -> Result<Vec<(String, u64)>, String> {
        let mut all: Vec<_> = self.0.list().map_err(|e| e.to_string())?.into_iter().collect();
        all.sort();
        Ok(all)
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, String> {
        Ok(Box::new(self.0.open(name).map_err(|e| e.to_string())?))
    }

    fn delete(&self, name: &str) -> Result<(), String> {
        self.0.delete(name).map_err(|e| e.to_string())
    }
}

/// Where to look.
pub(crate) struct Places {
    pub(crate) clusters: Vec<ClusterToAsk>,
    pub(crate) standbys: Vec<Standby>,
    pub(crate) folders: Vec<Folder>,
    pub(crate) buckets: Vec<BucketToAsk>,
    pub(crate) countries: Vec<String>,
    /// Keys of encrypted backups, where there are any.
    pub(crate) keys: Option<Keys>,
    /// Whom new keys are wrapped for.
    pub(crate) recipients: Vec<Recipient>,
}

impl Places {
    /// Whether a place is in one of the folders or buckets.
    pub(crate) fn can_reach(&self, place: &str) -> bool {
        if place.starts_with("s3://") {
            return self.buckets.iter().any(|b| place.starts_with(&b.shelf.place));
        }
        self.folders.iter().any(|f| is_inside(Path::new(place), &f.path) || Path::new(place) == f.path)
    }

    /// What is known of encrypted backups.
    pub(crate) fn known_keys(&self) -> Result<Vec<Kept>, Failure> {
        self.keys.as_ref().map_or_else(|| Ok(Vec::new()), |keys| Ok(keys.all()?))
    }
}

/// The jurisdiction that the configuration names, or its only one.
pub(crate) fn jurisdiction(path: &Path) -> Result<String, Failure> {
    let (file, _) = parse(path)?;
    let mut names: Vec<String> = file.stores.iter().map(|s| s.store.jurisdiction.clone()).collect();
    names.sort();
    names.dedup();
    match (file.copies.jurisdiction, names.as_slice()) {
        (Some(name), _) => Ok(name),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(Failure::setup("which jurisdiction? Name it with --jurisdiction")),
    }
}

/// Reads where to look for copies of a jurisdiction's data.
pub(crate) fn load(path: &Path, jurisdiction: &str) -> Result<Places, Failure> {
    let (file, dir) = parse(path)?;
    let mut reader = Reader { dir: &dir, problems: Vec::new() };
    let registry = reader.text(&file.policy.registry);
    let registry = reader.keep("registry", Registry::parse(&registry));
    let countries = registry.as_ref().and_then(|r| r.jurisdictions.get(jurisdiction));
    let countries = countries.map(|j| j.countries.iter().cloned().collect::<Vec<_>>());
    if registry.is_some() && countries.is_none() {
        reader.problems.push(format!("the registry has no jurisdiction {jurisdiction}"));
    }
    let mut clusters = Vec::new();
    for cluster in &file.copies.clusters {
        let what = format!("copies, cluster of {}", cluster.store);
        let Some(store) = file.stores.iter().find(|s| s.store.name == cluster.store) else {
            reader.problems.push(format!("{what}: there is no such store"));
            continue;
        };
        let (password, root) = (cluster.password_file.as_deref(), cluster.tls_root.as_deref());
        let admin = reader.connection(&what, &cluster.url, password, root);
        let catalogue = reader.text(&store.catalogue);
        let catalogue = reader.keep(&what, Catalogue::parse(&catalogue));
        if let (Some(admin), Some(catalogue)) = (admin, catalogue) {
            let location = store.store.location.clone();
            let data_dir = cluster.data_dir.as_ref().map(|path| dir.join(path));
            clusters.push(ClusterToAsk {
                store: cluster.store.clone(),
                location,
                admin,
                catalogue,
                data_dir,
                server_log: store.server_log.as_ref().map(|path| dir.join(path)),
            });
        }
    }
    let mut standbys = Vec::new();
    for standby in &file.copies.standbys {
        let what = format!("copies, standby {}", standby.name);
        let (password, root) = (standby.password_file.as_deref(), standby.tls_root.as_deref());
        if let Some(admin) = reader.connection(&what, &standby.url, password, root) {
            standbys.push(Standby {
                store: standby.store.clone(),
                name: standby.name.clone(),
                location: standby.location.to_ascii_uppercase(),
                admin,
                data_dir: standby.data_dir.as_ref().map(|path| dir.join(path)),
            });
        }
    }
    let mut folders = Vec::new();
    for folder in &file.copies.folders {
        match dir.join(&folder.path).canonicalize() {
            Ok(path) => folders.push(Folder {
                path,
                location: folder.location.to_ascii_uppercase(),
                owner: folder.owner.clone(),
            }),
            Err(e) => reader.problems.push(format!("copies, folder {}: {e}", folder.path.display())),
        }
    }
    let mut buckets = Vec::new();
    for shelf in &file.copies.buckets {
        let opened = shelf.bucket.open(&dir);
        let opened =
            opened.and_then(|b| Client::patient(&b, PATIENCE).map(|c| (b, c)).map_err(|e| e.to_string()));
        if let Some((bucket, client)) = reader.keep("copies, bucket", opened) {
            let host = bucket.endpoint.split("://").nth(1).unwrap_or_default().trim_end_matches('/');
            let prefix = bucket.prefix.trim_matches('/');
            let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
            let shelf = Shelf {
                place: format!("s3://{host}/{}/{prefix}", bucket.name),
                location: shelf.location.to_ascii_uppercase(),
                owner: shelf.owner.clone(),
            };
            buckets.push(BucketToAsk { shelf, objects: Box::new(Reached(client)) });
        }
    }
    let (mut keys, mut recipients) = (None, Vec::new());
    if let Some(backups) = &file.backups {
        keys = Some(Keys::new(dir.join(&backups.keys)));
        let text = reader.text(&backups.recipients);
        let what = format!("backups, {}", backups.recipients.display());
        recipients = reader.keep(&what, keys::recipients(&text)).unwrap_or_default();
    }
    match countries {
        Some(countries) if reader.problems.is_empty() => {
            Ok(Places { clusters, standbys, folders, buckets, countries, keys, recipients })
        }
        _ => Err(Failure::setup(format!(
            "{} has problems:\n  {}",
            path.display(),
            reader.problems.join("\n  ")
        ))),
    }
}
