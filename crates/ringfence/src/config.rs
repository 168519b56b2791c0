//! `ringfence.toml`: one typed tree, read whole, all problems told at once. Paths are relative to the file.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ringfence_face::Target;
use ringfence_face::ddl::Limits;
use ringfence_gateway::meter::OtherLog;
use ringfence_gateway::pool::{PoolMode, PoolSettings};
use ringfence_gateway::{Config as GatewayConfig, RouteConfig, StoreConfig, TlsRequired};
use ringfence_ledger::bucket::Bucket;
use ringfence_ledger::witnessing::Witnesses;
use ringfence_policy::{Catalogue, Policy, Registry, Store};
use ringfence_reports::reconcile;
use ringfence_reports::report::statements::Statements;
use ringfence_verifier::manifest::{self, Manifest, Mention};
use ringfence_verifier::quorum::Quorum;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::command::Failure;
use crate::flows::FlowFile;
use crate::moves::MoveFile;
use crate::scans::{BackupsFile, CopiesFile};
use crate::tls;
use crate::traces::{Collector, TracesFile};
use crate::web::ConsoleFile;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    gateway: GatewayFile,
    control: ControlFile,
    ledger: LedgerFile,
    pub(crate) policy: PolicyFile,
    #[serde(default)]
    pub(crate) stores: Vec<StoreFile>,
    #[serde(default)]
    pub(crate) routes: Vec<RouteFile>,
    #[serde(default)]
    pub(crate) moves: Vec<MoveFile>,
    #[serde(default)]
    pub(crate) flows: Vec<FlowFile>,
    #[serde(default)]
    pub(crate) copies: CopiesFile,
    pub(crate) backups: Option<BackupsFile>,
    console: Option<ConsoleFile>,
    metrics: Option<MetricsFile>,
    traces: Option<TracesFile>,
    #[serde(default)]
    reports: ReportsFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsFile {
    /// Where Prometheus finds /metrics. Without a login: the numbers name nobody.
    listen: SocketAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteFile {
    /// What clients ask for, like a store's name.
    pub(crate) name: String,
    /// The store that it leads to before anything has moved.
    store: String,
    /// Teams that may hold its clients for a move.
    #[serde(default)]
    movers: BTreeSet<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportsFile {
    /// What software cannot know and somebody has said, for reports to regulators.
    statements: Option<PathBuf>,
    /// Words with which purposes may begin that the transparency report then tells.
    #[serde(default)]
    purposes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayFile {
    /// Addresses to listen on, as in "127.0.0.1:6432".
    listen: Vec<SocketAddr>,
    /// A folder for a Unix socket as libpq expects it, with the first address's port.
    unix_dir: Option<PathBuf>,
    /// A socket at which `ringfence serve --take-over` asks for the listening sockets.
    handover: Option<PathBuf>,
    /// A file with 32 bytes or more, made by `ringfence keys`: the passwords of store logins come from it.
    secret: PathBuf,
    /// PEM files. Without them there is no TLS.
    tls: Option<TlsFile>,
    /// Balancers in front, as addresses or networks ("10.0.0.0/24"): they must send version 2 of the PROXY protocol.
    #[serde(default, deserialize_with = "networks")]
    proxies: Vec<IpNet>,
    /// The most clients at once that have logged in.
    #[serde(default = "max_clients")]
    max_clients: usize,
    /// The most connections of one principal.
    #[serde(default = "max_per_principal")]
    max_connections_per_principal: usize,
    /// How much of the ledger the sessions of one principal may fill in a minute, in MiB.
    #[serde(default = "recorded_mib_per_minute")]
    recorded_mib_per_minute: u64,
    /// How long a client may take to log in, in seconds.
    #[serde(default = "login_timeout")]
    login_timeout: u64,
    /// Worker threads; one for each core if absent.
    workers: Option<usize>,
    /// How long running sessions may go on after SIGTERM, in seconds.
    #[serde(default = "drain")]
    drain: u64,
}

/// Addresses and networks.
fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let network = |text: String| {
        let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        parsed.map_err(|_| D::Error::custom(format!("{text:?} is no address and no network")))
    };
    texts.into_iter().map(network).collect()
}

fn max_clients() -> usize {
    1000
}
fn recorded_mib_per_minute() -> u64 {
    256
}
fn max_per_principal() -> usize {
    100
}
fn login_timeout() -> u64 {
    15
}
fn drain() -> u64 {
    30
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFile {
    certificate: PathBuf,
    key: PathBuf,
    /// What the command line trusts when it connects; the certificate itself if absent.
    root: Option<PathBuf>,
    /// Certificates of the authorities whose client certificates are taken for a login; none are asked for without.
    client_ca: Option<PathBuf>,
    /// Certificates of the authorities whose client certificates say whose a device is.
    device_ca: Option<PathBuf>,
    /// Lists of revoked certificates, of both kinds of authority.
    client_crl: Option<PathBuf>,
    /// Refuse clients without TLS. If absent, those on other machines are refused.
    required: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControlFile {
    /// As libpq takes it: `host=… dbname=… user=…` or postgresql://…
    url: String,
    /// A file with the password, if the url has none.
    password_file: Option<PathBuf>,
    /// PEM certificates to trust: TLS is required then, and certificate and name are verified.
    tls_root: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerFile {
    /// The log's folder.
    dir: PathBuf,
    /// The signing key, made by `ringfence keys`.
    key: PathBuf,
    /// The public key.
    vkey: PathBuf,
    /// How long after an entry a checkpoint follows, at most, in milliseconds.
    #[serde(default = "publish_ms")]
    publish_ms: u64,
    /// The witnesses that cosign the checkpoints, and how many it takes (C2SP tlog-policy, with their URLs).
    witnesses: Option<PathBuf>,
    /// How old their newest confirmation may get, in seconds, before cross-border access closes.
    #[serde(default = "witness_max_age")]
    witness_max_age: u64,
    /// PEM certificates to trust, where a witness's URL is https:; the system's own are often in
    /// /etc/ssl/certs/ca-certificates.crt.
    witness_tls_root: Option<PathBuf>,
    /// The logs of the other gateways at the same stores: their readers are counted by the meter, too.
    #[serde(default)]
    others: Vec<OtherLogFile>,
    /// The list of all logs, made by `ringfence logs`.
    manifest: Option<ManifestFile>,
    /// An S3-compatible store for a copy of the log.
    bucket: Option<BucketFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BucketFile {
    /// The store's address, as in "https://s3.us-east-1.amazonaws.com".
    endpoint: String,
    /// The bucket.
    name: String,
    /// Its region.
    #[serde(default = "region")]
    region: String,
    /// What the names of objects begin with.
    #[serde(default)]
    prefix: String,
    /// A file with the access key on its first line and the secret key on its second.
    keys: PathBuf,
    /// PEM certificates to trust, for https:.
    tls_root: Option<PathBuf>,
    /// Whether whole segments of private records go along: only into a bucket inside the jurisdiction.
    #[serde(default)]
    private: bool,
}

fn region() -> String {
    "us-east-1".to_owned()
}

impl BucketFile {
    /// Reads keys and certificates.
    pub(crate) fn open(&self, dir: &Path) -> Result<Bucket, String> {
        let read = |path: &Path| {
            let path = dir.join(path);
            std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
        };
        let keys = read(&self.keys)?;
        let mut lines = keys.lines().map(str::trim).filter(|line| !line.is_empty());
        let (Some(access_key), Some(secret_key)) = (lines.next(), lines.next()) else {
            return Err("its file of keys has not two lines: the access key, and the secret key".to_owned());
        };
        let host = self.endpoint.split("://").nth(1).unwrap_or_default();
        let is_local = ["127.0.0.1", "[::1]", "localhost"].iter().any(|own| host.starts_with(own));
        if !self.endpoint.starts_with("https:") && !is_local {
            return Err("its endpoint is on another machine, so it must be https:".to_owned());
        }
        let tls_roots = self.tls_root.as_deref().map(read).transpose()?.unwrap_or_default().into_bytes();
        Ok(Bucket {
            endpoint: self.endpoint.clone(),
            name: self.name.clone(),
            region: self.region.clone(),
            prefix: self.prefix.clone(),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            tls_roots,
            private: self.private,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherLogFile {
    /// Its folder.
    dir: PathBuf,
    /// Its public key.
    vkey: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    /// The signed list of all logs; a gateway whose log is not in it does not start.
    file: PathBuf,
    /// The public key that signs it.
    vkey: PathBuf,
}

fn witness_max_age() -> u64 {
    60
}

fn publish_ms() -> u64 {
    1000
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyFile {
    /// Jurisdictions, people, workloads, companies.
    pub(crate) registry: PathBuf,
    /// Cedar policies; the built-in defaults if absent.
    policies: Option<PathBuf>,
}

#[derive(Deserialize)]
pub(crate) struct StoreFile {
    #[serde(flatten)]
    pub(crate) store: Store,
    /// The steward's connection.
    pub(crate) url: String,
    /// A file with the steward's password, if the url has none.
    password_file: Option<PathBuf>,
    /// PEM certificates to trust: TLS is required then, and certificate and name are verified.
    tls_root: Option<PathBuf>,
    /// The classification of its columns.
    pub(crate) catalogue: PathBuf,
    /// The store's role for principals with full access.
    pub(crate) full_access_role: Option<String>,
    /// Connections a principal may have to this store through a face.
    face_connections: Option<u32>,
    /// When sessions give their connection back: "session" (at their end) or "transaction".
    #[serde(default)]
    pool_mode: PoolModeFile,
    /// The most connections of one principal with the same start parameters.
    pool_size: Option<usize>,
    /// How long a client may queue for a connection, in seconds.
    pool_wait: Option<u64>,
    /// How long a connection may be unused, in seconds.
    server_idle: Option<u64>,
    /// How long a connection may live, in seconds.
    server_lifetime: Option<u64>,
    /// PostgreSQL's own log, csvlog or jsonlog: a file, or a folder of them. What in it did not come through a gateway is told at
    /// once.
    pub(crate) server_log: Option<PathBuf>,
    /// Roles that may connect past the gateway, as for replication or backups.
    #[serde(default)]
    allowed_roles: Vec<String>,
    /// How long clients wait for a store that does not answer, in seconds; 0 tells them at once.
    store_wait: Option<u64>,
}

/// All keys of a store. serde cannot refuse others where structures are flattened.
const STORE_KEYS: &[&str] = &[
    "name",
    "jurisdiction",
    "location",
    "kind",
    "full_access",
    "approvers",
    "auditors",
    "url",
    "password_file",
    "tls_root",
    "catalogue",
    "full_access_role",
    "face_connections",
    "pool_mode",
    "pool_size",
    "pool_wait",
    "server_idle",
    "server_lifetime",
    "server_log",
    "allowed_roles",
    "store_wait",
];

/// A misspelt key would silently leave its default in force.
fn unknown_store_key(text: &str) -> Option<String> {
    let table: toml::Table = toml::from_str(text).ok()?;
    let stores = table.get("stores")?.as_array()?;
    let mut keys = stores.iter().filter_map(|s| s.as_table()).flat_map(|s| s.keys());
    let unknown = keys.find(|key| !STORE_KEYS.contains(&key.as_str()))?;
    Some(format!("[[stores]] has no key {unknown}; known are {}", STORE_KEYS.join(", ")))
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PoolModeFile {
    #[default]
    Session,
    Transaction,
}

impl StoreFile {
    fn pool(&self) -> PoolSettings {
        let usual = PoolSettings::default();
        let seconds = |given: Option<u64>, usual| given.map_or(usual, Duration::from_secs);
        PoolSettings {
            mode: match self.pool_mode {
                PoolModeFile::Session => PoolMode::Session,
                PoolModeFile::Transaction => PoolMode::Transaction,
            },
            size: self.pool_size.unwrap_or(usual.size).max(1),
            wait: seconds(self.pool_wait, usual.wait),
            idle: seconds(self.server_idle, usual.idle),
            lifetime: seconds(self.server_lifetime, usual.lifetime),
            store_wait: seconds(self.store_wait, usual.store_wait),
        }
    }
}

/// Everything that a gateway runs on.
pub(crate) struct Loaded {
    pub(crate) gateway: GatewayConfig,
    pub(crate) policy: Policy,
    pub(crate) control: Target,
    pub(crate) ledger: ringfence_ledger::Settings,
    /// Stores whose own logs are followed.
    pub(crate) side_doors: Vec<SideDoor>,
    /// The web console, if there is one.
    pub(crate) console: Option<ringfence_console::Config>,
    /// Where metrics are served.
    pub(crate) metrics: Option<SocketAddr>,
    /// Where spans go.
    pub(crate) traces: Option<Collector>,
}

/// A store's own log, and what to compare it with.
pub(crate) struct SideDoor {
    pub(crate) log: PathBuf,
    pub(crate) jurisdiction: String,
    pub(crate) settings: reconcile::Settings,
}

/// What the command line needs of a configuration: where the gateway listens and where the log is.
pub(crate) struct Places {
    pub(crate) listen: SocketAddr,
    /// The certificates to trust there, if it offers TLS.
    pub(crate) root: Option<PathBuf>,
    pub(crate) ledger_dir: PathBuf,
    pub(crate) vkey: PathBuf,
    pub(crate) witnesses: Option<PathBuf>,
    /// Words that purposes may be told to the public by.
    pub(crate) purposes: Vec<String>,
    registry: PathBuf,
    secret: PathBuf,
    bucket: Option<(BucketFile, PathBuf)>,
    statements: Option<PathBuf>,
    others: Vec<(PathBuf, PathBuf)>,
}

impl Places {
    /// Who is who, and which thresholds count.
    pub(crate) fn registry(&self) -> Result<Registry, Failure> {
        let path = &self.registry;
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::setup(format!("cannot read {}: {e}", path.display())))?;
        Registry::parse(&text).map_err(|e| Failure::setup(format!("{}: {e}", path.display())))
    }

    /// The object store that has a copy of the log.
    pub(crate) fn bucket(&self) -> Result<Bucket, Failure> {
        let Some((bucket, dir)) = &self.bucket else {
            return Err(Failure::setup("no [ledger.bucket] is configured"));
        };
        bucket.open(dir).map_err(|e| Failure::setup(format!("ledger.bucket: {e}")))
    }

    /// The gateways' secret: it makes the hashes of data subjects, among others.
    pub(crate) fn secret(&self) -> Result<Vec<u8>, Failure> {
        let text = std::fs::read_to_string(&self.secret)
            .map_err(|e| Failure::setup(format!("cannot read {}: {e}", self.secret.display())))?;
        Ok(text.trim().as_bytes().to_vec())
    }

    /// What somebody has said for reports; nothing, where no file is named.
    pub(crate) fn statements(&self) -> Result<Statements, Failure> {
        let Some(path) = &self.statements else { return Ok(Statements::default()) };
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::setup(format!("cannot read {}: {e}", path.display())))?;
        toml::from_str(&text).map_err(|e| Failure::setup(format!("{}: {e}", path.display())))
    }

    /// The gateway's own log and those of the others, with their public keys.
    pub(crate) fn logs(&self) -> Result<Vec<(PathBuf, String)>, Failure> {
        let own = (self.ledger_dir.clone(), self.vkey.clone());
        std::iter::once(own)
            .chain(self.others.iter().cloned())
            .map(|(dir, vkey)| {
                let text = std::fs::read_to_string(&vkey)
                    .map_err(|e| Failure::setup(format!("cannot read {}: {e}", vkey.display())))?;
                Ok((dir, text.trim().to_owned()))
            })
            .collect()
    }
}

pub(crate) fn parse(path: &Path) -> Result<(File, PathBuf), Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::setup(format!("cannot read the configuration {}: {e}", path.display()))
            .hint("name it with --config FILE, or start `ringfence demo`, which writes one")
    })?;
    let wrong = |problem: String| Failure::setup(format!("{}: {problem}", path.display()));
    let file = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    if let Some(problem) = unknown_store_key(&text) {
        return Err(wrong(problem));
    }
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    Ok((file, dir))
}

/// Reads where things are, and no secrets of its own accord.
pub(crate) fn places(path: &Path) -> Result<Places, Failure> {
    let (file, dir) = parse(path)?;
    let listen = file.gateway.listen.first().copied();
    let listen =
        listen.ok_or_else(|| Failure::setup(format!("{}: gateway.listen is empty", path.display())))?;
    Ok(Places {
        listen,
        root: file.gateway.tls.map(|t| dir.join(t.root.unwrap_or(t.certificate))),
        ledger_dir: dir.join(file.ledger.dir),
        vkey: dir.join(file.ledger.vkey),
        witnesses: file.ledger.witnesses.map(|p| dir.join(p)),
        registry: dir.join(file.policy.registry),
        secret: dir.join(file.gateway.secret),
        bucket: file.ledger.bucket.map(|bucket| (bucket, dir.clone())),
        purposes: file.reports.purposes,
        statements: file.reports.statements.map(|p| dir.join(p)),
        others: file.ledger.others.iter().map(|o| (dir.join(&o.dir), dir.join(&o.vkey))).collect(),
    })
}

/// Gathers problems instead of stopping at the first.
pub(crate) struct Reader<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) problems: Vec<String>,
}

impl Reader<'_> {
    pub(crate) fn text(&mut self, path: &Path) -> String {
        let path = self.dir.join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|e| {
            self.problems.push(format!("cannot read {}: {e}", path.display()));
            String::new()
        })
    }

    pub(crate) fn keep<T, E: std::fmt::Display>(&mut self, what: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|e| self.problems.push(format!("{what}: {e}"))).ok()
    }

    pub(crate) fn connection(
        &mut self,
        what: &str,
        url: &str,
        password: Option<&Path>,
        tls_root: Option<&Path>,
    ) -> Option<Target> {
        let mut config: tokio_postgres::Config = self.keep(what, url.parse())?;
        if let Some(file) = password {
            let password = self.text(file);
            config.password(password.trim());
        }
        config.application_name("ringfence");
        let tls = match tls_root {
            Some(file) => {
                let made = tls::client(&self.dir.join(file), None);
                Some(self.keep(what, made)?)
            }
            None => None,
        };
        let target = Target { config, tls };
        if target.is_exposed() {
            let problem = "is on another machine, so tls_root must name the certificates to trust";
            self.problems.push(format!("{what}: {problem}"));
        }
        Some(target)
    }
}

/// The one that is named, or the only one. `list` is what the configuration calls them, `what` what a person does, as in `moves` and
/// `move`.
pub(crate) fn the_one<T>(
    mut all: Vec<T>,
    name_of: impl Fn(&T) -> &str,
    name: Option<&str>,
    list: &str,
    what: &str,
) -> Result<T, Failure> {
    let names: Vec<String> = all.iter().map(|one| name_of(one).to_owned()).collect();
    all.retain(|one| name.is_none_or(|name| name_of(one) == name));
    if let (1, Some(found)) = (all.len(), all.pop()) {
        return Ok(found);
    }
    let problem = match name {
        Some(name) => format!("no [[{list}]] is called {name}; known are: {}", names.join(", ")),
        None if names.is_empty() => format!("no [[{list}]] is configured"),
        None => format!("there are several {list}: {}", names.join(", ")),
    };
    Err(Failure::setup(problem).hint(format!("name it with --{what} NAME")))
}

/// Reads and validates everything.
pub(crate) fn load(path: &Path) -> Result<Loaded, Failure> {
    let (file, dir) = parse(path)?;
    let mut reader = Reader { dir: &dir, problems: Vec::new() };
    let registry = reader.text(&file.policy.registry);
    let registry = reader.keep("registry", Registry::parse(&registry));
    let policies = match &file.policy.policies {
        Some(path) => reader.text(path),
        None => ringfence_policy::decision::DEFAULT_POLICIES.to_owned(),
    };
    let (mut rules, mut stores, mut side_doors) = (Vec::new(), Vec::new(), Vec::new());
    for store in file.stores {
        let what = format!("store {}", store.store.name);
        let text = reader.text(&store.catalogue);
        let catalogue = reader.keep(&what, Catalogue::parse(&text));
        let steward =
            reader.connection(&what, &store.url, store.password_file.as_deref(), store.tls_root.as_deref());
        let (Some(catalogue), Some(steward)) = (catalogue, steward) else { continue };
        let pool = store.pool();
        if let Some(path) = &store.server_log {
            side_doors.push(SideDoor {
                log: dir.join(path),
                jurisdiction: store.store.jurisdiction.clone(),
                settings: reconcile::Settings {
                    store: store.store.name.clone(),
                    database: steward.config.get_dbname().unwrap_or(&store.store.name).to_owned(),
                    steward: steward.config.get_user().unwrap_or("ringfence").to_owned(),
                    allowed: store.allowed_roles.clone(),
                    since: 0,
                },
            });
        }
        let connections = store.face_connections.unwrap_or(Limits::default().connections);
        stores.push(StoreConfig {
            name: store.store.name.clone(),
            steward,
            full_role: store.full_access_role,
            limits: Limits { connections, ..Limits::default() },
            pool,
        });
        rules.push((store.store, catalogue));
    }
    if let Some(registry) = &registry {
        for person in &registry.people {
            if person.password.as_deref().is_some_and(|p| !p.starts_with("SCRAM-SHA-256$")) {
                let name = &person.name;
                reader.problems.push(format!(
                    "registry: {name}: the password is not a verifier; make one with `ringfence password`"
                ));
            }
        }
    }
    let policy = registry.and_then(|registry| reader.keep("policy", Policy::new(registry, rules, &policies)));
    let control = reader.connection(
        "control",
        &file.control.url,
        file.control.password_file.as_deref(),
        file.control.tls_root.as_deref(),
    );
    let secret = reader.text(&file.gateway.secret).trim().as_bytes().to_vec();
    if secret.len() < 32 {
        reader
            .problems
            .push("gateway.secret: has fewer than 32 bytes; make it with `ringfence keys`".to_owned());
    }
    let tls_required = match file.gateway.tls.as_ref().and_then(|tls| tls.required) {
        Some(true) => TlsRequired::Always,
        Some(false) => TlsRequired::Never,
        None => TlsRequired::BeyondLoopback,
    };
    let exposed = file.gateway.listen.iter().find(|address| !address.ip().is_loopback());
    if let Some(exposed) = exposed.filter(|_| file.gateway.tls.is_none()) {
        let what = "can be reached from other machines, so gateway.tls must name a certificate";
        reader.problems.push(format!("gateway.listen: {exposed} {what}"));
    }
    let tls = file.gateway.tls.as_ref().and_then(|t| {
        let made = tls::server(&tls::Files {
            certificate: dir.join(&t.certificate),
            key: dir.join(&t.key),
            client_ca: t.client_ca.as_ref().map(|p| dir.join(p)),
            device_ca: t.device_ca.as_ref().map(|p| dir.join(p)),
            client_crl: t.client_crl.as_ref().map(|p| dir.join(p)),
        });
        reader.keep("gateway.tls", made).map(Arc::new)
    });
    let skey = reader.text(&file.ledger.key).trim().to_owned();
    let vkey = reader.text(&file.ledger.vkey).trim().to_owned();
    let witnesses = file.ledger.witnesses.as_ref().and_then(|path| {
        let text = reader.text(path);
        let quorum = reader.keep("ledger.witnesses", Quorum::parse(&text))?;
        if !quorum.is_none() && quorum.witnesses.iter().all(|w| w.url.is_none()) {
            reader.problems.push("ledger.witnesses: no witness has a URL to ask".to_owned());
        }
        let tls_roots =
            file.ledger.witness_tls_root.as_ref().map(|p| reader.text(p).into_bytes()).unwrap_or_default();
        let witnesses =
            Witnesses { quorum, max_age: Duration::from_secs(file.ledger.witness_max_age.max(1)), tls_roots };
        if witnesses.need_tls() && witnesses.tls_roots.is_empty() {
            let problem =
                "a witness has an https: URL, so ledger.witness_tls_root must name the certificates to trust";
            reader.problems.push(format!("ledger.witnesses: {problem}"));
        }
        Some(witnesses)
    });
    let manifest = file.ledger.manifest.as_ref().and_then(|m| {
        let (note, key) = (reader.text(&m.file), reader.text(&m.vkey));
        let found = mention(&note, &key, &vkey);
        reader.keep("ledger.manifest", found)
    });
    let other = |log: &OtherLogFile| OtherLog { dir: dir.join(&log.dir), vkey: reader.text(&log.vkey) };
    let other_logs = file.ledger.others.iter().map(other).collect();
    let bucket = file.ledger.bucket.as_ref().map(|bucket| bucket.open(&dir));
    let bucket = bucket.and_then(|bucket| reader.keep("ledger.bucket", bucket));
    let port = file.gateway.listen.first().map_or(5432, SocketAddr::port);
    let traces = file.traces.and_then(|traces| traces.read(&mut reader));
    let console = file.console.as_ref().and_then(|console| console.read(port, &mut reader));
    let trust = file.ledger.witnesses.as_ref().map(|path| reader.text(path));
    let console = console.map(|console| ringfence_console::Config { trust, ..console });
    let problems = reader.problems;
    match (policy, control) {
        (Some(policy), Some(control)) if problems.is_empty() => Ok(Loaded {
            gateway: GatewayConfig {
                unix_dir: file.gateway.unix_dir.map(|p| dir.join(p)),
                handover: file.gateway.handover.map(|p| dir.join(p)),
                listen: file.gateway.listen,
                tls,
                tls_required,
                proxies: file.gateway.proxies,
                secret,
                max_clients: file.gateway.max_clients,
                max_per_principal: file.gateway.max_connections_per_principal,
                recorded_per_minute: file.gateway.recorded_mib_per_minute.saturating_mul(1 << 20),
                login_timeout: Duration::from_secs(file.gateway.login_timeout),
                workers: file.gateway.workers.unwrap_or(0),
                drain: Duration::from_secs(file.gateway.drain),
                stores,
                traces: None, // begun by what serves
                console: console.as_ref().map(|console| console.origin.clone()),
                manifest,
                log: dir.join(&file.ledger.dir),
                other_logs,
                routes: file
                    .routes
                    .into_iter()
                    .map(|r| RouteConfig { name: r.name, store: r.store, movers: r.movers })
                    .collect(),
            },
            policy,
            control,
            side_doors,
            console,
            metrics: file.metrics.map(|m| m.listen),
            traces,
            ledger: ringfence_ledger::Settings {
                dir: dir.join(file.ledger.dir),
                skey,
                vkey,
                publish_every: Duration::from_millis(file.ledger.publish_ms),
                witnesses,
                bucket,
            },
        }),
        _ => Err(Failure::setup(format!("{} has problems:\n  {}", path.display(), problems.join("\n  ")))),
    }
}

/// What the log will say of its manifest; an error if the log is not in it.
fn mention(note: &str, key: &str, vkey: &str) -> Result<Mention, String> {
    let told = |e: ringfence_verifier::Error| e.to_string();
    let manifest = Manifest::open(note.as_bytes(), key).map_err(told)?;
    if !manifest.is_alive(vkey, ringfence_ledger::now_ms() / 1000) {
        return Err(
            "this log's key is not in it, or not at this time: add it with `ringfence logs add`".to_owned()
        );
    }
    Ok(Mention { version: manifest.version, digest: manifest::digest(note.as_bytes()).map_err(told)? })
}
