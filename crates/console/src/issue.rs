//! Short-lived client certificates for those who log in at the identity provider: what psql then shows the gateway.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use ringfence_gateway::certificate::LOGIN_UNIT;

/// The authority that signs them. The gateway's `client_ca` names it, too.
#[derive(Clone)]
pub struct Authority {
    issuer: Arc<Issuer<'static, KeyPair>>,
    /// Its own certificate (PEM), which goes along.
    certificate: Arc<str>,
    /// How long a certificate lasts.
    pub lasts: Duration,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The authority's files are no certificate with its key.
    #[error("the authority's certificate and key: {0}")]
    Authority(String),
    /// What was sent is no request for a certificate, or is not signed by its own key.
    #[error("this is no request for a certificate (PKCS #10 in PEM) that its own key has signed")]
    Request,
}

/// A certificate.
pub struct Issued {
    /// It, and the authority's own (PEM).
    pub chain: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
}

impl Authority {
    /// Reads an authority from PEM.
    pub fn new(certificate: &str, key: &str, lasts: Duration) -> Result<Self, Problem> {
        let wrong = |e: rcgen::Error| Problem::Authority(e.to_string());
        let key = KeyPair::from_pem(key).map_err(wrong)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(wrong)?;
        Ok(Self { issuer: Arc::new(issuer), certificate: certificate.into(), lasts })
    }

    /// A certificate for `name` over the key in `request`. Only the key is taken from the request: whatever else it asks for, other names,
    /// other uses, to be an authority itself, is not there.
    pub fn issue(&self, name: &str, request: &str, now: SystemTime) -> Result<Issued, Problem> {
        let asked = CertificateSigningRequestParams::from_pem(request).map_err(|_| Problem::Request)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationalUnitName, LOGIN_UNIT);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        // Whole seconds: a certificate says no more.
        let begins = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let expires = begins + self.lasts.as_secs();
        let moment = |seconds: u64| (SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).into();
        params.not_before = moment(begins);
        params.not_after = moment(expires);
        let signed = CertificateSigningRequestParams { params, public_key: asked.public_key };
        let certificate = signed.signed_by(&*self.issuer).map_err(|_| Problem::Request)?;
        Ok(Issued { chain: format!("{}{}", certificate.pem(), self.certificate), expires })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use rcgen::BasicConstraints;
    use ringfence_gateway::certificate::{common_name, given_by_login};
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;

    use super::*;

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority::new(&certificate, &key.serialize_pem(), Duration::from_secs(3600)).unwrap()
    }

    #[test]
    fn only_the_key_is_taken_from_a_request() {
        let mut greedy = CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.distinguished_name.push(DnType::CommonName, "us-approver-1");
        let key = KeyPair::generate().unwrap();
        let request = greedy.serialize_request(&key).unwrap().pem().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_700);
        let issued = authority().issue("ann", &request, now).unwrap();
        assert_eq!(issued.expires, 1_800_003_600);
        let leaf = CertificateDer::from_pem_slice(issued.chain.as_bytes()).unwrap();
        assert_eq!(common_name(&leaf).as_deref(), Some("ann"));
        assert_eq!(given_by_login(&leaf), Some(1_800_000_000_000));
        let text = String::from_utf8_lossy(&leaf);
        assert!(!text.contains("us-approver-1") && !text.contains("db.example"));
        // 2.5.29.19 with an empty sequence: no authority.
        let basic = [0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x02, 0x30, 0x00];
        assert!(leaf.windows(basic.len()).any(|w| w == basic), "{}", hex::encode(&leaf));
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_none() {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        let mut der = request.der().to_vec();
        *der.last_mut().unwrap() ^= 1;
        let pem = |der: &[u8]| {
            let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
        };
        for wrong in [pem(&der), "x".to_owned(), String::new()] {
            assert!(
                matches!(authority().issue("ann", &wrong, SystemTime::now()), Err(Problem::Request)),
                "{wrong}"
            );
        }
        assert!(authority().issue("ann", &pem(request.der()), SystemTime::now()).is_ok());
    }
}
