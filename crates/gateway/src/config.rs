//! What a gateway needs to know, already validated.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ringfence_face::Target;
use ringfence_face::ddl::Limits;

use ringfence_verifier::manifest::Mention;

use crate::certificate::Tls;
use crate::meter::OtherLog;
use crate::pool::PoolSettings;
use crate::traces::Traces;

/// A gateway's settings.
#[derive(Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// A folder for a Unix socket, named as libpq expects it (`.s.PGSQL.PORT`, with the first address's port).
    pub unix_dir: Option<PathBuf>,
    /// A socket at which a successor may ask for the listening sockets.
    pub handover: Option<PathBuf>,
    /// The certificate, if TLS is offered.
    pub tls: Option<Arc<Tls>>,
    /// Which clients are refused without TLS.
    pub tls_required: TlsRequired,
    /// Balancers: they send the client's address in the PROXY protocol.
    pub proxies: Vec<IpNet>,
    /// Makes the passwords of store logins and the salts shown to unknown users. 32 bytes or more.
    pub secret: Vec<u8>,
    /// The most clients at once that have logged in.
    pub max_clients: usize,
    /// The most connections of one principal.
    pub max_per_principal: usize,
    /// The bytes that the sessions of one principal may put on record in a minute.
    pub recorded_per_minute: u64,
    /// How long a client may take to log in.
    pub login_timeout: Duration,
    /// How many worker threads; 0 means one for each core.
    pub workers: usize,
    /// How long running sessions may go on after a stop was asked for.
    pub drain: Duration,
    /// The folder of its own log: the meter begins with what that says.
    pub log: PathBuf,
    /// The logs of other gateways, whose readers are counted with its own.
    pub other_logs: Vec<OtherLog>,
    /// The manifest of logs that its own log is in, for the record.
    pub manifest: Option<Mention>,
    /// Where people ask in a browser: the web console's origin, if there is one.
    pub console: Option<String>,
    /// Where spans of statements and pages go, if anywhere.
    pub traces: Option<Arc<Traces>>,
    /// The stores behind it.
    pub stores: Vec<StoreConfig>,
    /// Names that lead to the store where rows are at home.
    pub routes: Vec<RouteConfig>,
}

/// Which clients are refused without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRequired {
    /// All.
    Always,
    /// Those on other machines.
    BeyondLoopback,
    /// None.
    Never,
}

/// A name that leads to a store, and later perhaps to another one.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// What clients ask for, like a store's name.
    pub name: String,
    /// Where it leads before anything has moved.
    pub store: String,
    /// Teams that may hold its clients for a move.
    pub movers: BTreeSet<String>,
}

/// How to reach a store.
#[derive(Clone)]
pub struct StoreConfig {
    /// The database name that clients ask for; its rules are in the policy under the same name.
    pub name: String,
    /// The steward's connection; sessions go to the same host with the same trust.
    pub steward: Target,
    /// The store's role for principals with full access.
    pub full_role: Option<String>,
    /// Limits of face logins.
    pub limits: Limits,
    /// Limits of the pools of connections.
    pub pool: PoolSettings,
}
