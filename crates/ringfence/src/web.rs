//! `[console]` of `ringfence.toml`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ringfence_console::identity::{Confirming, Known, NameClaim, agent};
use ringfence_console::issue::Authority;
use ringfence_console::notify::{Dialect, Receiver};
use ringfence_console::{Config, Login, Provider};
use serde::Deserialize;

use crate::config::Reader;
use crate::tls;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConsoleFile {
    /// Where it listens.
    listen: SocketAddr,
    /// What people type: `https://console.example`. Its host is what passkeys are for.
    origin: String,
    /// PEM files. Without them the console speaks HTTP, on the loopback only.
    certificate: Option<PathBuf>,
    /// The key of that.
    key: Option<PathBuf>,
    /// Whether a proxy is in front of it: then what one address may ask for is for the proxy to bound.
    #[serde(default)]
    behind_proxy: bool,
    /// Teams that run the gateway: they see how it is, and nobody's data.
    #[serde(default)]
    operators: BTreeSet<String>,
    /// A folder with reports for everybody.
    published: Option<PathBuf>,
    /// The verifier as one HTML page, which everybody may have.
    verifier_page: Option<PathBuf>,
    /// Who says who people are.
    provider: ProviderFile,
    /// Certificates for those who log in (`ringfence login`).
    login: Option<LoginFile>,
    /// Who is told of requests.
    #[serde(default)]
    webhooks: Vec<WebhookFile>,
    /// A file with the token by which the provider deactivates people (SCIM).
    scim_token: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookFile {
    /// A file with the address, which is a secret with many receivers.
    url: PathBuf,
    /// What it understands.
    #[serde(default)]
    dialect: Dialect,
    /// A file with what signs the messages; `whsec_` and base64, as Standard Webhooks has it, or any text.
    secret: PathBuf,
    /// PEM certificates to trust there; those of the provider unless given.
    tls_root: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginFile {
    /// The authority that signs them: PEM files. The gateway's `client_ca` names its certificate, too.
    ca_certificate: PathBuf,
    /// Its key.
    ca_key: PathBuf,
    /// Where clients reach the gateway.
    host: String,
    /// See above; the port at which it listens, unless something is between.
    port: Option<u16>,
    /// The certificates that clients are to trust there, where they are not the system's.
    root: Option<PathBuf>,
    /// How many hours a certificate lasts.
    #[serde(default = "eight")]
    hours: u64,
}

fn eight() -> u64 {
    8
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderFile {
    /// An OpenID Connect issuer: what comes before `/.well-known/openid-configuration`.
    issuer: String,
    /// What it calls the console. Its redirect URI there is the origin with `/callback`.
    client_id: String,
    /// What it calls `ringfence login`: a public client, with http://127.0.0.1 as redirect URI, or the device flow.
    cli_client_id: Option<String>,
    /// A file with the secret.
    client_secret: PathBuf,
    /// Which claim is somebody's name in the registry.
    #[serde(default)]
    name: NameClaim,
    /// Which claims confirm what the registry says of people.
    #[serde(default)]
    confirm: Confirming,
    /// PEM certificates to trust, for an issuer with https:.
    tls_root: Option<PathBuf>,
}

/// Whether a URL is of this machine.
fn is_local(url: &str) -> bool {
    let host = url.split("://").nth(1).unwrap_or_default();
    let host = host.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    ["127.0.0.1", "[::1]", "localhost"].contains(&host)
}

impl ConsoleFile {
    /// Reads the files that it names.
    pub(crate) fn read(&self, gateway_port: u16, reader: &mut Reader<'_>) -> Option<Config> {
        let mut problem = |text: &str| reader.problems.push(format!("console: {text}"));
        let origin = self.origin.trim_end_matches('/').to_owned();
        let is_secure = origin.starts_with("https://");
        let is_loopback =
            origin.starts_with("http://") && is_local(&origin) && self.listen.ip().is_loopback();
        if !(is_secure || is_loopback) {
            problem("its origin is on another machine, so it must be https:");
        }
        let issuer = &self.provider.issuer;
        let issuer_is_secure = issuer.starts_with("https://");
        if !(issuer_is_secure || issuer.starts_with("http://") && is_local(issuer)) {
            problem("its provider is on another machine, so the issuer must be https:");
        }
        if issuer_is_secure && self.provider.tls_root.is_none() {
            problem("its provider's issuer is https:, so tls_root must name the certificates to trust");
        }
        let tls = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let made = tls::pages(&reader.dir.join(certificate), &reader.dir.join(key));
                Some(reader.keep("console", made)?)
            }
            (None, None) if is_secure && !self.listen.ip().is_loopback() => {
                problem("it listens beyond this machine, so it needs certificate and key");
                return None;
            }
            (None, None) => None,
            _ => {
                problem("certificate and key go together");
                return None;
            }
        };
        let roots = self.provider.tls_root.as_ref().map(|path| reader.text(path).into_bytes());
        let agent = reader.keep("console", agent(roots.as_deref()))?;
        let login = match &self.login {
            None => None,
            Some(file) => {
                if self.provider.cli_client_id.is_none() {
                    reader.problems.push("console.login: the provider's cli_client_id is missing".to_owned());
                }
                let (certificate, key) = (reader.text(&file.ca_certificate), reader.text(&file.ca_key));
                let lasts = Duration::from_secs(file.hours.clamp(1, 24 * 7) * 3600);
                let authority = Authority::new(&certificate, &key, lasts).map_err(|e| e.to_string());
                Some(Login {
                    authority: reader.keep("console.login", authority)?,
                    host: file.host.clone(),
                    port: file.port.unwrap_or(gateway_port),
                    root: file.root.as_ref().map(|path| reader.text(path)),
                })
            }
        };
        let mut webhooks = Vec::new();
        for file in &self.webhooks {
            let url = reader.text(&file.url).trim().to_owned();
            if !(url.starts_with("https://") || url.starts_with("http://") && is_local(&url)) {
                reader
                    .problems
                    .push("console.webhooks: an address on another machine must be https:".to_owned());
            }
            let text = reader.text(&file.secret).trim().to_owned();
            let secret = text.strip_prefix("whsec_").and_then(|rest| BASE64.decode(rest).ok());
            let agent = match &file.tls_root {
                None => agent.clone(),
                Some(path) => {
                    let roots = reader.text(path).into_bytes();
                    reader.keep("console.webhooks", ringfence_console::identity::agent(Some(&roots)))?
                }
            };
            let secret = secret.unwrap_or_else(|| text.into_bytes());
            webhooks.push(Receiver { url, dialect: file.dialect, secret, agent });
        }
        let scim_token = self.scim_token.as_ref().map(|path| reader.text(path).trim().to_owned());
        if scim_token.as_ref().is_some_and(|token| token.len() < 32) {
            reader.problems.push("console: scim_token has less than 32 bytes".to_owned());
        }
        Some(Config {
            login,
            scim_token,
            webhooks,
            listen: self.listen,
            origin,
            trust: None, // the log's own section says it
            is_behind_proxy: self.behind_proxy,
            operators: self.operators.clone(),
            published: self.published.as_ref().map(|path| reader.dir.join(path)),
            verifier_page: self.verifier_page.as_ref().map(|path| reader.dir.join(path)),
            provider: Provider {
                issuer: issuer.clone(),
                client_id: self.provider.client_id.clone(),
                cli_client_id: self.provider.cli_client_id.clone(),
                client_secret: reader.text(&self.provider.client_secret).trim().to_owned(),
                claim: self.provider.name,
                confirming: self.provider.confirm.clone(),
                agent,
                known: Known::default(),
            },
            tls,
        })
    }
}
