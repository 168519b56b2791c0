//! An approval: an SSH signature (SSHSIG, OpenSSH `PROTOCOL.sshsig`) over the canonical request, or a passkey's assertion whose
//! challenge is its digest. What `ssh-keygen -Y sign -n ringfence-approval` makes, a hardware key included, is as good as what
//! `ringfence approve` makes.

use ringfence_verifier::approvals::{NAMESPACE, verify_signature};
use serde::{Deserialize, Serialize};
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use crate::Error;
use crate::request::Request;

/// Who signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The approver's name.
    pub approver: String,
    /// The armoured SSHSIG, or a passkey's assertion in JSON.
    pub signature: String,
}

/// Signs `request` with an OpenSSH private key (PEM text). An encrypted key needs its agent: use `ssh-keygen -Y sign`.
pub fn sign(request: &Request, private_key: &str) -> Result<String, Error> {
    sign_text(&request.canonical(), private_key)
}

/// The same for another canonical text.
pub fn sign_text(canonical: &str, private_key: &str) -> Result<String, Error> {
    let key = PrivateKey::from_openssh(private_key).map_err(|e| Error::Key(e.to_string()))?;
    if key.is_encrypted() {
        return Err(Error::Key(
            "is encrypted; sign with `ssh-keygen -Y sign -n ringfence-approval` and pass --signature".into(),
        ));
    }
    let signature =
        key.sign(NAMESPACE, HashAlg::Sha512, canonical.as_bytes()).map_err(|e| Error::Key(e.to_string()))?;
    signature.to_pem(LineEnding::LF).map_err(|e| Error::Key(e.to_string()))
}

impl Approval {
    /// Verifies the signature with the approver's public key (OpenSSH lines).
    pub fn verify(&self, request: &Request, public_key: &str) -> Result<(), Error> {
        self.verify_text(&request.canonical(), public_key)
    }

    /// The same over a canonical text.
    pub fn verify_text(&self, canonical: &str, public_key: &str) -> Result<(), Error> {
        verify_signature(canonical, &self.signature, public_key)
            .map_err(|problem| Error::Approval { approver: self.approver.clone(), problem })
    }
}

/// Makes an Ed25519 key: the private key file and the public line.
pub fn generate_key(comment: &str) -> Result<(String, String), Error> {
    let mut key = PrivateKey::random(&mut ssh_key::rand_core::OsRng, ssh_key::Algorithm::Ed25519)
        .map_err(|e| Error::Key(e.to_string()))?;
    key.set_comment(comment);
    let private = key.to_openssh(LineEnding::LF).map_err(|e| Error::Key(e.to_string()))?;
    let public = key.public_key().to_openssh().map_err(|e| Error::Key(e.to_string()))?;
    Ok((private.to_string(), public))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Ask;
    use ringfence_policy::{Catalogue, Registry, Store};

    fn request(purpose: &str) -> Result<Request, Error> {
        let registry = Registry::parse(r#"people = [{ name = "ann", location = "SG" }]"#).unwrap();
        let catalogue = Catalogue::parse(
            r#"[tables.users.columns]
               id = "public"
               email = { protected = "contact", kind = "email" }"#,
        )
        .unwrap();
        let store: Store = serde_json::from_value(serde_json::json!({
            "name": "us", "jurisdiction": "us", "location": "US", "kind": "trusted"
        }))
        .unwrap();
        let ask = Ask {
            store: "us".into(),
            columns: vec!["users.email".into()],
            condition: Some("id = 7".into()),
            purpose: purpose.into(),
            seconds: 7200,
            max_rows: Some(10),
        };
        Request::new(&ask, "R1".into(), &registry.people[0], None, &store, &catalogue, 1_000)
    }

    #[test]
    fn only_the_exact_request_by_the_right_key_is_approved() {
        let (private, public) = generate_key("ann").unwrap();
        let (_, other) = generate_key("bob").unwrap();
        let asked = request("refund 4711").unwrap();
        let approval = Approval { approver: "ann".into(), signature: sign(&asked, &private).unwrap() };
        approval.verify(&asked, &public).unwrap();
        approval.verify(&asked, &other).unwrap_err();
        for changed in [
            Request { seconds: 7201, ..asked.clone() },
            Request { max_rows: None, ..asked.clone() },
            Request { condition: None, ..asked.clone() },
            Request { requester: "eve".into(), ..asked.clone() },
        ] {
            approval.verify(&changed, &public).unwrap_err();
        }
        assert_eq!(Request::parse(&asked.canonical()).unwrap(), asked);
        Request::parse(&format!(" {}", asked.canonical())).unwrap_err();
    }

    #[test]
    fn a_signature_for_another_purpose_is_no_approval() {
        let (private, public) = generate_key("ann").unwrap();
        let asked = request("refund").unwrap();
        let key = PrivateKey::from_openssh(&private).unwrap();
        let signature = key.sign("file", HashAlg::Sha512, asked.canonical().as_bytes()).unwrap();
        let approval =
            Approval { approver: "ann".into(), signature: signature.to_pem(LineEnding::LF).unwrap() };
        approval.verify(&asked, &public).unwrap_err();
    }

    #[test]
    fn a_request_says_why_it_cannot_be_made() {
        assert!(request("").unwrap_err().to_string().contains("purpose"));
        assert!(request("two\nlines").is_err());
    }
}
