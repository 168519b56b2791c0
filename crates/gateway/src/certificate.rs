//! Certificates: the gateway's own, to which a login can be bound, and those of clients.

use std::sync::Arc;

use ringfence_policy::Device;
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use x509_cert::Certificate;
use x509_cert::attr::{AttributeTypeAndValue, AttributeValue};
use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::{rfc4519, rfc5912};
use x509_cert::der::{Decode as _, Tag, Tagged as _};

/// Whether an authority vouches for certificates now, the client's own first.
fn verifies(authority: Option<&Arc<dyn ClientCertVerifier>>, shown: &[CertificateDer<'_>]) -> bool {
    let Some((leaf, chain)) = shown.split_first() else { return false };
    authority.is_some_and(|a| a.verify_client_cert(leaf, chain, UnixTime::now()).is_ok())
}

/// What clients are shown, and what follows from it.
#[derive(Debug)]
pub struct Tls {
    /// rustls's settings; with them, whether client certificates are asked for and whose are believed.
    pub server: Arc<ServerConfig>,
    /// The channel binding of the certificate, where its signature names a hash.
    pub end_point: Option<Box<[u8]>>,
    believed: Believed,
}

/// Which authorities' certificates say what. Those that rustls lets in are of one of them.
#[derive(Debug, Default)]
pub struct Believed {
    /// Those who name people.
    pub people: Option<Arc<dyn ClientCertVerifier>>,
    /// Those who name devices.
    pub devices: Option<Arc<dyn ClientCertVerifier>>,
}

impl Tls {
    /// `server` shows `leaf`.
    pub fn new(server: Arc<ServerConfig>, leaf: &CertificateDer<'_>, believed: Believed) -> Self {
        Self { server, end_point: end_point(leaf), believed }
    }

    /// Whether certificates that were believed before still are, by somebody.
    pub fn believes(&self, shown: &[CertificateDer<'_>]) -> bool {
        let Believed { people, devices } = &self.believed;
        verifies(people.as_ref(), shown) || verifies(devices.as_ref(), shown)
    }

    /// What follows from a client's certificates, its own first. rustls has verified that it has the key.
    pub fn channel(self: Arc<Self>, shown: Option<&[CertificateDer<'_>]>) -> Channel {
        let mut channel = Channel { tls: Some(Arc::clone(&self)), ..Channel::default() };
        channel.shown = shown.map(|all| all.iter().map(|one| one.clone().into_owned()).collect());
        let Some((shown, leaf)) = shown.and_then(|all| Some((all, all.first()?))) else { return channel };
        let Believed { people, devices } = &self.believed;
        // Again, though rustls has: a session that is resumed brings a certificate that may have ended since.
        let names_device = verifies(devices.as_ref(), shown);
        // What an authority for devices gives names nobody, though one for people may stand above it: whoever names laptops would name
        // approvers.
        if verifies(people.as_ref(), shown) && !names_device {
            channel.named = common_name(leaf);
            channel.given = given_by_login(leaf);
        }
        if names_device {
            channel.device = device(leaf);
        }
        channel
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
    /// Which device the certificate names, if an authority for devices gave it.
    pub device: Option<Device>,
    /// The certificates that it showed, its own first.
    pub shown: Option<Shown>,
}

/// A client's certificates, its own first.
pub type Shown = Arc<[CertificateDer<'static>]>;

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
    let mut units = attributes(&certificate).filter(|a| a.oid == rfc4519::OU);
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
    only(&Certificate::from_der(leaf).ok()?, rfc4519::CN)
}

/// The device that a certificate names: whose it is by the subject's organisation (O), which one by its serial number (RFC 4519,
/// section 2.31), or else its common name. `None` unless both are there, once, and short.
pub fn device(leaf: &CertificateDer<'_>) -> Option<Device> {
    /// The longest of each, in bytes.
    const LONGEST: usize = 128;
    let certificate = Certificate::from_der(leaf).ok()?;
    let owner = only(&certificate, rfc4519::O)?;
    let is_numbered = attributes(&certificate).any(|a| a.oid == rfc4519::SERIAL_NUMBER);
    let id = only(&certificate, if is_numbered { rfc4519::SERIAL_NUMBER } else { rfc4519::CN })?;
    let fits = |text: &str| (1..=LONGEST).contains(&text.len()) && !text.chars().any(char::is_control);
    (fits(&owner) && fits(&id)).then_some(Device { id, owner })
}

fn attributes(certificate: &Certificate) -> impl Iterator<Item = &AttributeTypeAndValue> {
    certificate.tbs_certificate.subject.0.iter().flat_map(|relative| relative.0.iter())
}

/// An attribute of a certificate's subject; `None` unless there is exactly one.
fn only(certificate: &Certificate, attribute: ObjectIdentifier) -> Option<String> {
    let mut found = attributes(certificate).filter(|a| a.oid == attribute);
    let (found, None) = (found.next()?, found.next()) else { return None };
    text(&found.value)
}
