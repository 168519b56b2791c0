//! The web console: people log in with the identity that they have, see what waits for them, and decide with a passkey.
//!
//! It is a window on the gateway's own console ([`ringfence_gateway::console`]): each page asks it what the command line asks, and
//! whatever changes something is done, refused and put on record there, under the person's name. [`identity`] says who somebody is
//! (OpenID Connect), [`session`] remembers it, [`headers`] bounds what a page may do, [`pages`] writes them.
//!
//! A session is enough to look and to turn something down. It is not enough to approve: an approval is the assertion of a passkey
//! over the exact request, which whoever has stolen a cookie does not have, and the operator of this program neither.

pub mod api;
mod backchannel;
mod evidence;
pub mod headers;
pub mod identity;
pub mod issue;
pub mod limits;
pub mod listen;
mod live;
mod log;
pub mod member;
pub mod native;
pub mod notify;
pub mod pages;
pub mod readers;
pub mod session;
mod traced;
pub mod traffic;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use ringfence_gateway::refusal::Refusal;
use ringfence_gateway::server::Shared;
use ringfence_ledger::SparseIndex;
use ringfence_policy::Outcome;
use tokio_rustls::rustls::ServerConfig;

pub use identity::Provider;
use limits::Limits;
use session::Sessions;
use traffic::Traffic;

/// What the console needs to know.
#[derive(Clone)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What people type: `https://console.example`. Its host is what passkeys are for.
    pub origin: String,
    /// Who says who people are.
    pub provider: Provider,
    /// What `ringfence login` gives, if it is asked for.
    pub login: Option<Login>,
    /// Who is told of requests.
    pub webhooks: Vec<notify::Receiver>,
    /// What the provider shows to deactivate somebody (SCIM).
    pub scim_token: Option<String>,
    /// Teams that run the gateway: they see how it is, and nobody's data.
    pub operators: BTreeSet<String>,
    /// A folder with reports for everybody.
    pub published: Option<PathBuf>,
    /// The verifier as one HTML page, which everybody may have.
    pub verifier_page: Option<PathBuf>,
    /// Whom evidence names to be believed (C2SP tlog-policy), where there are witnesses.
    pub trust: Option<String>,
    /// Whether a proxy is in front, so that addresses say nothing of people.
    pub is_behind_proxy: bool,
    /// Without it the console speaks HTTP, which it does on the loopback only.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Certificates for those who log in.
#[derive(Clone)]
pub struct Login {
    /// Who signs them.
    pub authority: issue::Authority,
    /// Where clients reach the gateway.
    pub host: String,
    /// See above.
    pub port: u16,
    /// The certificates to trust there (PEM), where they are not the system's.
    pub root: Option<String>,
}

impl Config {
    /// The host of passkeys (the relying party's ID).
    pub fn relying_party(&self) -> &str {
        let host = self.origin.split("://").nth(1).unwrap_or_default();
        host.rsplit_once(':').map_or(host, |(host, _)| host)
    }
}

/// What all pages share.
pub struct Desk {
    /// The gateway.
    pub gateway: Arc<Shared>,
    /// The configuration.
    pub config: Config,
    /// Who is logged in.
    pub sessions: Sessions,
    /// What crosses the border.
    pub traffic: Arc<Traffic>,
    /// Finds entries of the log.
    pub entries: Arc<SparseIndex>,
    /// How much may be asked for.
    pub limits: Limits,
    /// What requesters would see, by request and version of the rules.
    pub outcomes: Mutex<HashMap<(String, String), Arc<Outcome>>>,
    /// Held while somebody's evidence is made.
    pub evidence: Arc<tokio::sync::Mutex<()>>,
    /// Who has read which private records lately.
    pub readers: readers::Readers,
}

/// The HTTP status of a refusal.
fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal.code {
        "42501" => StatusCode::FORBIDDEN,
        // Signed out, or deactivated.
        "57P01" | "28000" => StatusCode::UNAUTHORIZED,
        "3D000" => StatusCode::NOT_FOUND,
        "22023" | "42601" => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A console that runs.
pub struct Console {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Console {
    /// Starts it, on a thread and a runtime of its own: no page holds a worker of the gateway up.
    pub fn start(gateway: Arc<Shared>, config: Config) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let traffic = Traffic::follow(&gateway)?;
        let entries = Arc::new(SparseIndex::new(gateway.ledger.dir()));
        let limits = Limits::new(!config.is_behind_proxy);
        let sessions = Sessions::default();
        let outcomes = Mutex::default();
        let (readers, evidence) = (readers::Readers::default(), Arc::default());
        let desk = Arc::new(Desk {
            gateway,
            config,
            sessions,
            traffic,
            entries,
            limits,
            outcomes,
            evidence,
            readers,
        });
        pages::public::check(&desk)?;
        std::thread::Builder::new().name("console".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    runtime.spawn(notify::follow(Arc::clone(&desk)));
                    runtime.block_on(listen::serve(listener, desk));
                }
                Err(e) => tracing::error!(problem = %e, "the console cannot start"),
            }
        })?;
        Ok(Self { address })
    }
}
