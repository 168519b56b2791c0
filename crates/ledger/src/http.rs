//! HTTP to others, for witnesses and buckets: certificates that are named, time limits, no redirects, no proxy.

use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{PemItem, RootCerts, TlsConfig};

use ringfence_verifier::Error;

/// What to trust: the certificates in `roots` (PEM). Without one it is an error where TLS is needed.
pub(crate) fn tls(roots: &[u8], is_needed: bool) -> Result<TlsConfig, Error> {
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(roots) {
        if let Ok(PemItem::Certificate(certificate)) = item {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() && is_needed {
        return Err(Error::Key("no certificate to trust is named for an https: URL".to_owned()));
    }
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(certificates)))
        .build())
}

/// Somebody who asks, and waits no longer than `patience` for an answer.
pub(crate) fn agent(patience: Duration, tls: TlsConfig) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .max_redirects(0)
        .tls_config(tls)
        .proxy(None)
        .user_agent(concat!("ringfence/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}
