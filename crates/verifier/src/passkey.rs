//! Passkeys: a WebAuthn assertion (W3C Web Authentication Level 3, §7.2) over a canonical text, as a browser makes it when somebody
//! approves with a security key, a fingerprint or a face. The challenge is the text's digest, so an assertion is for this text and no
//! other.
//!
//! The key is a line of OpenSSH's like any other approver's: `sk-ecdsa-sha2-nistp256@openssh.com` or
//! `sk-ssh-ed25519@openssh.com`, whose application (OpenSSH `PROTOCOL.u2f`) is the relying party's name, a host. The verifier needs
//! nobody's server for it: the browser has put the host into what the authenticator signed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Verifier as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ssh_key::public::KeyData;

/// The user was there (WebAuthn §6.1, bit 0).
const PRESENT: u8 = 0x01;
/// The authenticator has made sure who the user is: a PIN, a finger (bit 2).
const VERIFIED: u8 = 0x04;
/// Where the flags are, after the digest of the relying party's name.
const FLAGS: usize = 32;
/// The shortest authenticator data: digest, flags, counter.
const SHORTEST: usize = 37;

/// What the browser's `AuthenticatorAssertionResponse` has, each in base64url without padding, as `toJSON()` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assertion {
    /// The authenticator's own words: where, with whom present.
    pub authenticator_data: String,
    /// The browser's: what for, from which origin.
    #[serde(rename = "clientDataJSON")]
    pub client_data: String,
    /// Over both.
    pub signature: String,
}

impl Assertion {
    /// The page that asked the browser, as the browser says.
    pub fn origin(&self) -> Option<String> {
        let data = URL_SAFE_NO_PAD.decode(&self.client_data).ok()?;
        serde_json::from_slice::<ClientData>(&data).ok().map(|data| data.origin)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
}

/// The challenge for a text: its SHA-256, in base64url.
pub fn challenge(canonical: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
}

/// Whether an origin is a page of this relying party: its host, or one below it, by HTTPS. A browser takes its own machine for safe
/// without that, and so does this.
fn is_of(origin: &str, relying_party: &str) -> bool {
    let (host, is_secure) = match (origin.strip_prefix("https://"), origin.strip_prefix("http://")) {
        (Some(host), _) => (host, true),
        (None, Some(host)) => (host, false),
        (None, None) => return false,
    };
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => host,
    };
    let is_below =
        host.strip_suffix(relying_party).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    is_below && !relying_party.is_empty() && (is_secure || host == "localhost")
}

/// Verifies an assertion (JSON) over a canonical text by a passkey. The error says what does not hold.
pub fn verify(canonical: &str, assertion: &str, key: &KeyData) -> Result<(), String> {
    let assertion: Assertion =
        serde_json::from_str(assertion).map_err(|_| "it is not a WebAuthn assertion".to_owned())?;
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "it is not base64url".to_owned());
    let data = decode(&assertion.authenticator_data)?;
    let client_data = decode(&assertion.client_data)?;
    let signature = decode(&assertion.signature)?;
    let client: ClientData =
        serde_json::from_slice(&client_data).map_err(|_| "its client data is not JSON".to_owned())?;
    let relying_party = match key {
        KeyData::SkEcdsaSha2NistP256(key) => key.application(),
        KeyData::SkEd25519(key) => key.application(),
        _ => return Err("their key is no passkey's".to_owned()),
    };
    if client.kind != "webauthn.get" || client.challenge != challenge(canonical) {
        return Err("it is not over this request".to_owned());
    }
    if client.cross_origin || !is_of(&client.origin, relying_party) {
        return Err(format!("it was made at {:?}, which is no page of {relying_party}", client.origin));
    }
    if data.len() < SHORTEST || data[..FLAGS] != Sha256::digest(relying_party)[..] {
        return Err(format!("the authenticator was asked by somebody else than {relying_party}"));
    }
    if data[FLAGS] & (PRESENT | VERIFIED) != PRESENT | VERIFIED {
        return Err("the authenticator has not made sure who was there".to_owned());
    }
    let mut signed = data;
    signed.extend_from_slice(&Sha256::digest(&client_data));
    let holds = match key {
        KeyData::SkEcdsaSha2NistP256(key) => {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key.ec_point().as_bytes());
            let signature = p256::ecdsa::Signature::from_der(&signature);
            matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(&signed, &signature).is_ok())
        }
        KeyData::SkEd25519(key) => {
            let key = ed25519_dalek::VerifyingKey::from_bytes(&key.public_key().0);
            let signature = ed25519_dalek::Signature::from_slice(&signature);
            matches!((key, signature), (Ok(key), Ok(signature)) if key.verify_strict(&signed, &signature).is_ok())
        }
        _ => false,
    };
    if holds { Ok(()) } else { Err("it is not by their key over this request".to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use p256::ecdsa::signature::Signer as _;
    use p256::ecdsa::{DerSignature, SigningKey};
    use ssh_key::public::SkEcdsaSha2NistP256;

    use super::*;

    const TEXT: &str = r#"{"id":"R-1"}"#;

    fn key(seed: u8, relying_party: &str) -> (SigningKey, KeyData) {
        let key = SigningKey::from_slice(&[seed; 32]).unwrap();
        let point = key.verifying_key().to_encoded_point(false);
        let public = SkEcdsaSha2NistP256::new(point.as_bytes().try_into().unwrap(), relying_party);
        (key, KeyData::SkEcdsaSha2NistP256(public))
    }

    /// As an authenticator and a browser would make it.
    fn made(key: &SigningKey, asked_by: &str, flags: u8, client: &str) -> String {
        let mut data = Sha256::digest(asked_by).to_vec();
        data.extend([flags, 0, 0, 0, 7]);
        let mut signed = data.clone();
        signed.extend_from_slice(&Sha256::digest(client));
        let signature: DerSignature = key.sign(&signed);
        serde_json::to_string(&Assertion {
            authenticator_data: URL_SAFE_NO_PAD.encode(data),
            client_data: URL_SAFE_NO_PAD.encode(client),
            signature: URL_SAFE_NO_PAD.encode(signature.as_bytes()),
        })
        .unwrap()
    }

    fn client(kind: &str, text: &str, origin: &str, more: &str) -> String {
        format!(r#"{{"type":"{kind}","challenge":"{}","origin":"{origin}"{more}}}"#, challenge(text))
    }

    #[test]
    fn an_assertion_is_for_one_text_one_key_and_one_place() {
        let (signer, public) = key(7, "ringfence.example");
        let good = client("webauthn.get", TEXT, "https://ringfence.example", "");
        let below =
            client("webauthn.get", TEXT, "https://us.ringfence.example:8443", r#","crossOrigin":false"#);
        for client in [&good, &below] {
            verify(TEXT, &made(&signer, "ringfence.example", 5, client), &public).unwrap();
        }
        let refused = |assertion: &str, key: &KeyData, why: &str| {
            let problem = verify(TEXT, assertion, key).unwrap_err();
            assert!(problem.contains(why), "{problem}, not {why}");
        };
        let by = |client: &str| made(&signer, "ringfence.example", 5, client);
        refused(
            &by(&client("webauthn.get", "other", "https://ringfence.example", "")),
            &public,
            "not over this request",
        );
        refused(
            &by(&client("webauthn.create", TEXT, "https://ringfence.example", "")),
            &public,
            "not over this request",
        );
        for origin in [
            "https://evil.example",
            "https://notringfence.example",
            "http://ringfence.example",
            "https://ringfence.example.evil",
            "https://evil.example/ringfence.example",
            "ringfence.example",
        ] {
            refused(&by(&client("webauthn.get", TEXT, origin, "")), &public, "no page of");
        }
        refused(
            &by(&client("webauthn.get", TEXT, "https://ringfence.example", r#","crossOrigin":true"#)),
            &public,
            "no page of",
        );
        refused(&made(&signer, "evil.example", 5, &good), &public, "asked by somebody else");
        for flags in [0, 1, 4] {
            refused(&made(&signer, "ringfence.example", flags, &good), &public, "made sure who was there");
        }
        refused(
            &made(&signer, "ringfence.example", 5, &good),
            &key(8, "ringfence.example").1,
            "not by their key",
        );
        let changed = made(&signer, "ringfence.example", 5, &good).replace("AAAAB", "AAAAC");
        assert_ne!(changed, made(&signer, "ringfence.example", 5, &good));
        refused(&changed, &public, "not by their key");
        for broken in ["{}", "[]", r#"{"authenticatorData":"","clientDataJSON":"","signature":""}"#] {
            verify(TEXT, broken, &public).unwrap_err();
        }
    }

    #[test]
    fn ed25519_passkeys_work_as_well() {
        use ed25519_dalek::Signer as _;
        let signer = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
        let public = ssh_key::public::Ed25519PublicKey(signer.verifying_key().to_bytes());
        let line = ssh_key::public::SkEd25519::new(public, "localhost");
        let client = client("webauthn.get", TEXT, "http://localhost:8080", "");
        let mut data = Sha256::digest("localhost").to_vec();
        data.extend([5, 0, 0, 0, 0]);
        let mut signed = data.clone();
        signed.extend_from_slice(&Sha256::digest(&client));
        let assertion = serde_json::to_string(&Assertion {
            authenticator_data: URL_SAFE_NO_PAD.encode(data),
            client_data: URL_SAFE_NO_PAD.encode(&client),
            signature: URL_SAFE_NO_PAD.encode(signer.sign(&signed).to_bytes()),
        })
        .unwrap();
        verify(TEXT, &assertion, &KeyData::SkEd25519(line)).unwrap();
    }
}
