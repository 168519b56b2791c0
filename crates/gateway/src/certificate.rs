//! Certificates: the gateway's own, to which a login can be bound, and those of clients.

use std::sync::Arc;

use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::attr::AttributeValue;
use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::{rfc4519, rfc5912};
use x509_cert::der::{Decode as _, Tag, Tagged as _};

/// What clients are shown, and what follows from it.
#[derive(Debug)]
pub struct Tls {
    /// rustls's settings; with them, whether client certificates are asked for and whose are believed.
    pub server: Arc<ServerConfig>,
    /// The channel binding of the certificate, where its signature names a hash.
    pub end_point: Option<Box<[u8]>>,
}

impl Tls {
    /// `server` shows `leaf`.
    pub fn new(server: Arc<ServerConfig>, leaf: &CertificateDer<'_>) -> Self {
        Self { server, end_point: end_point(leaf) }
    }
}

/// The channel a client came through.
#[derive(Debug, Default)]
pub struct Channel {
    /// The gateway's TLS, if the client uses it.
    pub tls: Option<Arc<Tls>>,
    /// Whom the client's certificate names, if it showed one. rustls has verified it.
    pub named: Option<String>,
    /// When it was given, if `ringfence login` gave it: milliseconds since 1970.
    pub given: Option<u64>,
}

/// The channel binding `tls-server-end-point` (RFC 5929 section 4.1): the certificate's hash by the algorithm of its own
/// signature, SHA-256 for MD5 and SHA-1. `None` where the signature's name does not say which (Ed25519, RSA-PSS); libpq knows
/// none there either.
fn end_point(leaf: &CertificateDer<'_>) -> Option<Box<[u8]>> {
    /// Signatures with MD5 and SHA-1, which the database of names does not have all of.
    const OLD: &[&str] = &["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1"];
    let certificate = Certificate::from_der(leaf).ok()?;
    let algorithm = certificate.signature_algorithm.oid;
    let is_old = OLD.iter().any(|old| ObjectIdentifier::new(old).is_ok_and(|old| old == algorithm));
    Some(match algorithm {
        rfc5912::ECDSA_WITH_SHA_256 | rfc5912::SHA_256_WITH_RSA_ENCRYPTION => Sha256::digest(leaf)[..].into(),
        _ if is_old => Sha256::digest(leaf)[..].into(),
        rfc5912::ECDSA_WITH_SHA_384 | rfc5912::SHA_384_WITH_RSA_ENCRYPTION => Sha384::digest(leaf)[..].into(),
        rfc5912::ECDSA_WITH_SHA_512 | rfc5912::SHA_512_WITH_RSA_ENCRYPTION => Sha512::digest(leaf)[..].into(),
        _ => return None,
    })
}

/// The organisational unit in the subject of certificates that `ringfence login` gives.
pub const LOGIN_UNIT: &str = "ringfence login";

/// When a certificate was given by `ringfence login`, in milliseconds since 1970; `None` for any other certificate.
pub fn given_by_login(leaf: &CertificateDer<'_>) -> Option<u64> {
    let certificate = Certificate::from_der(leaf).ok()?;
    let subject = &certificate.tbs_certificate.subject;
    let mut units = subject.0.iter().flat_map(|relative| relative.0.iter()).filter(|a| a.oid == rfc4519::OU);
    units.find(|unit| text(&unit.value).as_deref() == Some(LOGIN_UNIT))?;
    let begins = certificate.tbs_certificate.validity.not_before.to_unix_duration();
    u64::try_from(begins.as_millis()).ok()
}

/// A string of a name.
fn text(value: &AttributeValue) -> Option<String> {
    match value.tag() {
        Tag::Utf8String => Some(value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str().to_owned()),
        Tag::PrintableString => Some(value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str().to_owned()),
        _ => None,
    }
}

/// The common name of a certificate's subject, as PostgreSQL reads it; `None` unless there is exactly one.
pub fn common_name(leaf: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(leaf).ok()?;
    let attributes = certificate.tbs_certificate.subject.0.iter().flat_map(|relative| relative.0.iter());
    let mut names = attributes.filter(|attribute| attribute.oid == rfc4519::CN);
    let (name, None) = (names.next()?, names.next()) else { return None };
    text(&name.value)
}
