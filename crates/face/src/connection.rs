//! Connections of the gateway's own to PostgreSQL, with TLS or without.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::ClientConfig;

/// So long somebody waits for one of a pool's connections.
const WAIT: Duration = Duration::from_secs(10);

/// Where to connect, and whom to trust there.
#[derive(Clone)]
pub struct Target {
    /// Host, user, database, password.
    pub config: Config,
    /// With it TLS is required and the server's certificate and name are verified; without it there is no TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// Whether what is said leaves this machine without TLS (CISA II.B: encryption in transit).
    pub fn is_exposed(&self) -> bool {
        let is_remote = |host: &Host| match host {
            Host::Tcp(name) => {
                name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            Host::Unix(_) => false,
        };
        self.tls.is_none() && self.config.get_hosts().iter().any(is_remote)
    }

    /// Connects; `name` says in the log whose connection ended.
    pub async fn connect(&self, name: &'static str) -> Result<Client, tokio_postgres::Error> {
        let mut config = self.config.clone();
        if let Some(tls) = &self.tls {
            config.ssl_mode(SslMode::Require);
            let (client, connection) =
                config.connect(MakeRustlsConnect::new(ClientConfig::clone(tls))).await?;
            watch(connection, name);
            return Ok(client);
        }
        config.ssl_mode(SslMode::Disable);
        let (client, connection) = config.connect(NoTls).await?;
        watch(connection, name);
        Ok(client)
    }

    /// At most `most` connections, made when they are needed; `set_up` is done to each one first.
    pub fn pool(&self, most: usize, set_up: Hook) -> Pool {
        let mut config = self.config.clone();
        let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if let Some(tls) = &self.tls {
            config.ssl_mode(SslMode::Require);
            Manager::from_config(config, MakeRustlsConnect::new(ClientConfig::clone(tls)), how)
        } else {
            config.ssl_mode(SslMode::Disable);
            Manager::from_config(config, NoTls, how)
        };
        let pool = Pool::builder(manager).max_size(most).post_create(set_up);
        let pool = pool.runtime(Runtime::Tokio1).wait_timeout(Some(WAIT));
        pool.build().expect("a pool with time limits has a runtime")
    }
}

fn watch(
    connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    name: &'static str,
) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!(%error, "{name}: the connection ended");
        }
    });
}
