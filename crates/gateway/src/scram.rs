//! SCRAM-SHA-256 for the side that verifies (RFC 5802, RFC 7677), as PostgreSQL uses it: the user name in the exchange is
//! empty, the one of the startup packet counts. The SASL libraries that we looked at refuse an empty name, so the exchange
//! is here; its primitives are `hmac` and `sha2`, and the client side towards stores is `postgres-protocol`'s.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha256};

type Key = [u8; 32];

/// What a server keeps of a password (PostgreSQL's form: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`).
#[derive(Clone)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl Verifier {
    /// Reads PostgreSQL's form.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once('$')?;
        let (parameters, keys) = rest.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| -> Option<Key> { BASE64.decode(text).ok()?.try_into().ok() };
        (scheme == "SCRAM-SHA-256").then_some(())?;
        Some(Self {
            iterations: iterations.parse().ok().filter(|n| *n > 0)?,
            salt: BASE64.decode(salt).ok()?,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }

    /// A verifier that no password fits, the same each time for a name, so that an unknown user looks like a known one.
    pub fn mock(secret: &[u8], user: &str) -> Self {
        let salt = hmac(secret, &[b"ringfence/mock-salt/v1\n", user.as_bytes()])[..16].to_vec();
        let mut noise = [0; 64];
        OsRng.fill_bytes(&mut noise);
        let (stored, server) = noise.split_at(32);
        let key = |half: &[u8]| -> Key { half.try_into().expect("half of 64 bytes") };
        Self { iterations: 4096, salt, stored_key: key(stored), server_key: key(server) }
    }
}

/// The mechanism without channel binding.
pub const PLAIN: &str = "SCRAM-SHA-256";
/// The one with it: the client proves that it talks to the holder of the very certificate that it was shown.
pub const PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The header of a client that binds its login to the server's certificate.
const BINDS: &str = "p=tls-server-end-point,,";

/// How a client may bind its login to the channel, and how it said that it does.
#[derive(Clone, Copy, Debug)]
pub enum Binding<'a> {
    /// There is nothing to bind to.
    Impossible,
    /// It could have, and chose [`PLAIN`].
    Declined,
    /// It chose [`PLUS`]: this is what it must have seen.
    Required(&'a [u8]),
}

impl Binding<'_> {
    /// The header that a client's first message begins with (RFC 5802 section 6): `y` says that it would bind but was not
    /// offered to, so it is right only where there was no offer. Where there was, somebody took it out on the way.
    fn header(self, client_first: &str) -> Option<&'static str> {
        let allowed: &[&str] = match self {
            Self::Impossible => &["n,,", "y,,"],
            Self::Declined => &["n,,"],
            Self::Required(_) => &[BINDS],
        };
        allowed.iter().copied().find(|header| client_first.starts_with(header))
    }
}

/// Why an exchange failed. Which of the two it was is told to nobody but the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The client's message is not one of this exchange.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The proof does not fit.
    #[error("the proof does not fit")]
    WrongPassword,
}

/// After the client's first message.
pub struct Challenged {
    verifier: Verifier,
    /// What the client must send back of its header, and of the channel where it is bound.
    bound: Vec<u8>,
    nonce: String,
    first_bare: String,
    server_first: String,
}

/// Takes the client's first message, makes the challenge.
pub fn challenge(
    verifier: Verifier,
    binding: Binding<'_>,
    client_first: &[u8],
) -> Result<(Challenged, String), ScramError> {
    let mut random = [0; 18];
    OsRng.fill_bytes(&mut random);
    challenge_with(verifier, binding, client_first, &BASE64.encode(random))
}

fn challenge_with(
    verifier: Verifier,
    binding: Binding<'_>,
    client_first: &[u8],
    random: &str,
) -> Result<(Challenged, String), ScramError> {
    let text = std::str::from_utf8(client_first).map_err(|_| ScramError::Malformed)?;
    // An authorisation identity, which would stand between the commas, is refused.
    let header = binding.header(text).ok_or(ScramError::Malformed)?;
    let bare = &text[header.len()..];
    let mut bound = header.as_bytes().to_vec();
    if let Binding::Required(seen) = binding {
        bound.extend_from_slice(seen);
    }
    let mut attributes = bare.split(',');
    let name = attributes.next().and_then(|a| a.strip_prefix("n="));
    let nonce = attributes.next().and_then(|a| a.strip_prefix("r="));
    let (Some(_), Some(nonce)) = (name, nonce) else { return Err(ScramError::Malformed) };
    if nonce.is_empty() || !nonce.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        return Err(ScramError::Malformed);
    }
    let nonce = format!("{nonce}{random}");
    let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
    let state = Challenged {
        verifier,
        bound,
        nonce,
        first_bare: bare.to_owned(),
        server_first: server_first.clone(),
    };
    Ok((state, server_first))
}

impl Challenged {
    /// Takes the client's final message; if the proof fits, returns the server's final one.
    pub fn finish(self, client_final: &[u8]) -> Result<String, ScramError> {
        let text = std::str::from_utf8(client_final).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof: Key =
            BASE64.decode(proof).ok().and_then(|p| p.try_into().ok()).ok_or(ScramError::Malformed)?;
        if without_proof != format!("c={},r={}", BASE64.encode(&self.bound), self.nonce) {
            return Err(ScramError::Malformed);
        }
        let message = [self.first_bare.as_str(), &self.server_first, without_proof].join(",");
        let signature = hmac(&self.verifier.stored_key, &[message.as_bytes()]);
        let client_key: Vec<u8> = proof.iter().zip(signature).map(|(p, s)| p ^ s).collect();
        // StoredKey is a hash: how long comparing hashes takes says nothing about the password.
        if Sha256::digest(client_key)[..] != self.verifier.stored_key {
            return Err(ScramError::WrongPassword);
        }
        let server = hmac(&self.verifier.server_key, &[message.as_bytes()]);
        Ok(format!("v={}", BASE64.encode(server)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    fn exchange(password: &str, typed: &str) -> Result<(), ScramError> {
        bound_exchange(password, typed, ChannelBinding::unsupported(), Binding::Impossible)
    }

    fn bound_exchange(
        password: &str,
        typed: &str,
        client: ChannelBinding,
        binding: Binding<'_>,
    ) -> Result<(), ScramError> {
        let verifier =
            Verifier::parse(&postgres_protocol::password::scram_sha_256(password.as_bytes())).unwrap();
        let mut client = ScramSha256::new(typed.as_bytes(), client);
        let (state, first) = challenge(verifier, binding, client.message())?;
        client.update(first.as_bytes()).unwrap();
        let last = state.finish(client.message())?;
        client.finish(last.as_bytes()).unwrap();
        Ok(())
    }

    #[test]
    fn the_drivers_client_side_is_satisfied_and_a_wrong_password_is_not_enough() {
        assert_eq!(exchange("correct horse battery", "correct horse battery"), Ok(()));
        assert_eq!(
            exchange("correct horse battery", "correct horse batterz"),
            Err(ScramError::WrongPassword)
        );
    }

    #[test]
    fn a_login_is_bound_to_the_certificate_that_the_client_saw() {
        let through = |seen: &[u8]| {
            let client = ChannelBinding::tls_server_end_point(seen.to_vec());
            bound_exchange("pencil", "pencil", client, Binding::Required(b"ours"))
        };
        assert_eq!(through(b"ours"), Ok(()));
        assert_eq!(through(b"somebody in the middle's"), Err(ScramError::Malformed));
        let plain = |client| bound_exchange("pencil", "pencil", client, Binding::Declined);
        assert_eq!(plain(ChannelBinding::unsupported()), Ok(()));
        // "I would have bound it, but was not asked": it was.
        assert_eq!(plain(ChannelBinding::unrequested()), Err(ScramError::Malformed));
    }

    #[test]
    fn the_example_of_rfc_7677_holds() {
        // RFC 7677 §3: user "user", password "pencil".
        let salt = "W22ZaJ0SNY7soEsUEjb6gQ==";
        let salted = {
            let salt = BASE64.decode(salt).unwrap();
            let mut block = hmac(b"pencil", &[&salt, &1_u32.to_be_bytes()]);
            let mut sum = block;
            for _ in 1..4096 {
                block = hmac(b"pencil", &[&block]);
                sum.iter_mut().zip(block).for_each(|(s, b)| *s ^= b);
            }
            sum
        };
        let stored = Sha256::digest(hmac(&salted, &[b"Client Key"]));
        let server = hmac(&salted, &[b"Server Key"]);
        let text = format!("SCRAM-SHA-256$4096:{salt}${}:{}", BASE64.encode(stored), BASE64.encode(server));
        let (state, first) = challenge_with(
            Verifier::parse(&text).unwrap(),
            Binding::Impossible,
            b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        )
        .unwrap();
        assert_eq!(
            first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = state.finish(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        );
        assert_eq!(last.as_deref(), Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn malformed_messages_are_refused() {
        for bad in [
            &b""[..],
            b"p=tls-server-end-point,,n=,r=x",
            b"n,a=eve,n=,r=x",
            b"n,,m=x,n=,r=x",
            b"n,,n=,r=",
            b"\xff",
        ] {
            let verifier = Verifier::mock(b"secret", "ann");
            assert!(
                matches!(challenge(verifier, Binding::Impossible, bad), Err(ScramError::Malformed)),
                "{bad:?}"
            );
        }
    }
}
