//! `[[moves]]` of `ringfence.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ringfence_face::Target;
use ringfence_policy::{Catalogue, Registry};
use ringfence_residency::migrate::{Move, Side};
use serde::Deserialize;

use crate::command::Failure;
use crate::config::{Reader, parse, the_one};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoveFile {
    /// Its name: letters, digits, underscores.
    name: String,
    /// Whose rows move.
    jurisdiction: String,
    /// The store that they leave.
    from: String,
    /// The store that they come to.
    to: String,
    /// The route that workloads reach them by.
    route: String,
    /// Further gateways that have clients of the route, by address.
    #[serde(default)]
    gateways: Vec<SocketAddr>,
    /// How to reach the one store.
    source: SideFile,
    /// And the other.
    target: SideFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SideFile {
    /// The connection of its superuser.
    url: String,
    /// A file with the password, if the url has none.
    password_file: Option<PathBuf>,
    /// PEM certificates to trust: TLS is required then, and certificate and name are verified.
    tls_root: Option<PathBuf>,
    /// How the other side's server connects here, as libpq takes it: `host=… dbname=… user=…`.
    replication: String,
    /// A file with the password for that.
    replication_password_file: Option<PathBuf>,
}

/// How a side is reached, read.
pub(crate) struct Reached {
    /// Its superuser's connection.
    pub(crate) admin: Target,
    /// How the other side's server connects here.
    pub(crate) replication: String,
    /// As whom.
    pub(crate) role: String,
}

impl SideFile {
    /// Reads the files that it names.
    pub(crate) fn read(&self, what: &str, reader: &mut Reader<'_>) -> Option<Reached> {
        let admin =
            reader.connection(what, &self.url, self.password_file.as_deref(), self.tls_root.as_deref())?;
        let seen: tokio_postgres::Config = reader.keep(what, self.replication.parse())?;
        let mut replication = self.replication.clone();
        if let Some(file) = &self.replication_password_file {
            let password = reader.text(file);
            let quoted = password.trim().replace('\\', "\\\\").replace('\'', "\\'");
            replication = format!("{replication} password='{quoted}'");
        }
        Some(Reached { admin, replication, role: seen.get_user().unwrap_or_default().to_owned() })
    }
}

/// A move, and what it needs to know of the rules.
pub(crate) struct LoadedMove {
    pub(crate) of: Move,
    pub(crate) catalogue: Catalogue,
    /// The jurisdiction's countries.
    pub(crate) countries: Vec<String>,
    /// The gateways that hold the route's clients, besides the configuration's own.
    pub(crate) gateways: Vec<SocketAddr>,
}

/// The moves that are configured.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, Failure> {
    Ok(parse(path)?.0.moves.into_iter().map(|m| m.name).collect())
}

/// Reads one move: the one that is named, or the only one.
pub(crate) fn load(path: &Path, name: Option<&str>) -> Result<LoadedMove, Failure> {
    let (mut file, dir) = parse(path)?;
    let found = the_one(std::mem::take(&mut file.moves), |one| &one.name, name, "moves", "move")?;
    let mut reader = Reader { dir: &dir, problems: Vec::new() };
    let store = |name: &str| file.stores.iter().find(|s| s.store.name == name);
    let side = |name: &str, side: &SideFile, reader: &mut Reader<'_>| {
        let what = format!("move {}, {name}", found.name);
        let Some(of) = store(name) else {
            reader.problems.push(format!("{what}: there is no such store"));
            return None;
        };
        let reached = side.read(&what, reader)?;
        let steward: tokio_postgres::Config = reader.keep(&what, of.url.parse())?;
        Some(Side {
            store: name.to_owned(),
            admin: reached.admin,
            replication: reached.replication,
            replication_role: reached.role,
            steward: steward.get_user().unwrap_or("ringfence").to_owned(),
            full_role: of.full_access_role.clone(),
        })
    };
    let from = side(&found.from, &found.source, &mut reader);
    let to = side(&found.to, &found.target, &mut reader);
    let registry = reader.text(&file.policy.registry);
    let registry = reader.keep("registry", Registry::parse(&registry));
    let catalogue = store(&found.from).map(|s| reader.text(&s.catalogue));
    let catalogue = catalogue.and_then(|text| reader.keep("catalogue", Catalogue::parse(&text)));
    let countries = registry.as_ref().and_then(|r| r.jurisdictions.get(&found.jurisdiction));
    let mut problem = |text: String| reader.problems.push(format!("move {}: {text}", found.name));
    if !file.routes.iter().any(|r| r.name == found.route) {
        problem(format!("there is no [[routes]] called {}", found.route));
    }
    if registry.is_some() && countries.is_none() {
        problem(format!("the registry has no jurisdiction {}", found.jurisdiction));
    }
    match (from, to, catalogue, countries) {
        (Some(from), Some(to), Some(catalogue), Some(countries)) if reader.problems.is_empty() => {
            Ok(LoadedMove {
                of: Move { name: found.name, jurisdiction: found.jurisdiction, route: found.route, from, to },
                catalogue,
                countries: countries.countries.iter().cloned().collect(),
                gateways: found.gateways,
            })
        }
        _ => Err(Failure::setup(format!(
            "{} has problems:\n  {}",
            path.display(),
            reader.problems.join("\n  ")
        ))),
    }
}
