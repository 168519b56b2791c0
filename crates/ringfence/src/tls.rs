//! TLS from PEM files: towards stores and gateways, and towards clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringfence_gateway::certificate::{Believed, Tls};
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// What a client shows of itself.
pub(crate) struct Identity {
    /// The certificate, and those that lead to its authority.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
}

/// TLS that trusts the certificates in a PEM file and nothing else.
pub(crate) fn client(root: &Path, identity: Option<&Identity>) -> Result<Arc<rustls::ClientConfig>, String> {
    let roots = authorities(root)?;
    if roots.is_empty() {
        return Err(format!("{}: has no certificate", root.display()));
    }
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    let config = match identity {
        Some(Identity { certificate, key }) => config
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|e| format!("{}: {e}", certificate.display()))?,
        None => config.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Where a gateway's certificates are.
pub(crate) struct Files {
    /// Its own, and those that lead to its authority.
    pub(crate) certificate: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// The authorities of clients.
    pub(crate) client_ca: Option<PathBuf>,
    /// The authorities of devices.
    pub(crate) device_ca: Option<PathBuf>,
    /// Both kinds' lists of revoked certificates.
    pub(crate) client_crl: Option<PathBuf>,
}

/// What a gateway shows, and which certificates of clients it believes.
pub(crate) fn server(files: &Files) -> Result<Tls, String> {
    let chain = certificates(&files.certificate)?;
    let revoked = files.client_crl.as_deref();
    let verifier =
        |ca: &Option<PathBuf>| ca.iter().map(|path| client_verifier(&[path], revoked)).next().transpose();
    let believed = Believed { people: verifier(&files.client_ca)?, devices: verifier(&files.device_ca)? };
    let authorities: Vec<&PathBuf> = files.client_ca.iter().chain(&files.device_ca).collect();
    if authorities.is_empty() && revoked.is_some() {
        return Err("client_crl without client_ca or device_ca".to_owned());
    }
    let clients = match authorities.as_slice() {
        [] => rustls::server::WebPkiClientVerifier::no_client_auth(),
        all => client_verifier(all, revoked)?,
    };
    let leaf = chain.first().cloned().ok_or("the certificate's file has none")?;
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, private_key(&files.key)?)
        .map_err(|e| e.to_string())?;
    Ok(Tls::new(Arc::new(server), &leaf, believed))
}

/// What the web console shows.
pub(crate) fn pages(certificate: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, String> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Clients may show a certificate; one that they show must verify.
fn client_verifier(
    authorities: &[&PathBuf],
    revoked: Option<&Path>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let mut roots = rustls::RootCertStore::empty();
    for path in authorities {
        roots.roots.extend(self::authorities(path)?.roots);
    }
    let roots = Arc::new(roots);
    let mut builder = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated();
    if let Some(path) = revoked {
        let lists: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_file_iter(path).and_then(Iterator::collect);
        builder = builder.with_crls(lists.map_err(|e| format!("{}: {e}", path.display()))?);
    }
    let names: Vec<_> = authorities.iter().map(|path| path.display().to_string()).collect();
    builder.build().map_err(|e| format!("{}: {e}", names.join(", ")))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    found.map_err(|e| format!("{}: {e}", path.display()))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn authorities(path: &Path) -> Result<rustls::RootCertStore, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(roots)
}
