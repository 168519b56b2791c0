//! Who is logged in. A browser has a random name for its session in a cookie; here is only the name's digest. A login that goes on at the
//! provider is sealed in a cookie whole: as many as like may be begun, and nobody's is lost to somebody else's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::{COOKIE, ORIGIN};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use rand_core::{OsRng, RngCore as _};
use sha2::{Digest as _, Sha256};

use crate::identity::Begun;

/// `__Host-`: only by HTTPS, only for this host, for all paths (RFC 6265bis, 4.1.3.2). Browsers take their own machine for safe.
pub const COOKIE_NAME: &str = "__Host-ringfence";
/// The same while somebody logs in.
pub const LOGIN_COOKIE: &str = "__Host-ringfence-login";
/// How long a session lasts without a page being asked for.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// How long it lasts at most.
const LONGEST: Duration = Duration::from_secs(10 * 3600);
/// How long somebody may take to log in.
const LOGIN: Duration = Duration::from_secs(10 * 60);

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// A random name, not to be guessed: 256 bits.
pub fn random() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<32>())
}

/// Somebody's session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who, by the registry's name.
    pub person: String,
    /// When they logged in at the provider, in milliseconds since 1970.
    pub since: u64,
    /// What every form has to bring along (synchronizer token).
    pub csrf: String,
    begun: Instant,
    seen: Instant,
}

/// The length of a nonce of XChaCha20 in bytes.
const NONCE: usize = 24;

type Digest = [u8; 32];

fn digest(token: &str) -> Digest {
    Sha256::digest(token).into()
}

/// All sessions of this process.
pub struct Sessions {
    running: Mutex<HashMap<Digest, Session>>,
    /// Seals logins; of this process, as the sessions are.
    seal: XChaCha20Poly1305,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { running: Mutex::default(), seal: XChaCha20Poly1305::new(&Key::from(bytes())) }
    }
}

/// A cookie's value.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// A cookie as it is set. `Lax`, since a login comes back from another site; what changes something has the form's token besides.
pub fn set(name: &str, value: &str, seconds: u64) -> String {
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}")
}

impl Sessions {
    /// Opens a session of somebody who logged in at `since` (milliseconds since 1970); returns its name for the cookie.
    pub fn open(&self, person: &str, since: u64) -> String {
        let (token, now) = (random(), Instant::now());
        let session = Session { person: person.to_owned(), since, csrf: random(), begun: now, seen: now };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, s| s.seen.elapsed() < IDLE && s.begun.elapsed() < LONGEST);
        running.insert(digest(&token), session);
        token
    }

    /// The session that a browser has, if it still lasts.
    pub fn find(&self, headers: &HeaderMap) -> Option<Session> {
        self.look(headers, true)
    }

    /// The same for a page that asks by itself: nobody need be there.
    pub fn peek(&self, headers: &HeaderMap) -> Option<Session> {
        self.look(headers, false)
    }

    fn look(&self, headers: &HeaderMap, is_there: bool) -> Option<Session> {
        let token = digest(cookie(headers, COOKIE_NAME)?);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let session = running.get_mut(&token)?;
        if session.seen.elapsed() >= IDLE || session.begun.elapsed() >= LONGEST {
            running.remove(&token);
            return None;
        }
        if is_there {
            session.seen = Instant::now();
        }
        Some(session.clone())
    }

    /// Ends all sessions of somebody.
    pub fn close_all(&self, person: &str) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, session| session.person != person);
    }

    /// Ends it.
    pub fn close(&self, headers: &HeaderMap) {
        if let Some(token) = cookie(headers, COOKIE_NAME) {
            self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest(token));
        }
    }

    /// A login that goes on at the provider, for the cookie. `None` only if it cannot be sealed.
    pub fn begin(&self, begun: &Begun) -> Option<String> {
        let nonce = XNonce::from(bytes::<NONCE>());
        let plain = serde_json::to_vec(begun).ok()?;
        let sealed = self.seal.encrypt(&nonce, Payload { msg: &plain, aad: LOGIN_COOKIE.as_bytes() }).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    /// Opens a login that comes back, if it was begun in this browser, here, and not too long ago. That it counts once is the
    /// provider's: its code does.
    pub fn take(&self, headers: &HeaderMap) -> Option<Begun> {
        let bytes = URL_SAFE_NO_PAD.decode(cookie(headers, LOGIN_COOKIE)?).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        let payload = Payload { msg: sealed, aad: LOGIN_COOKIE.as_bytes() };
        let begun: Begun =
            serde_json::from_slice(&self.seal.decrypt(XNonce::from_slice(nonce), payload).ok()?).ok()?;
        // A clock that was set back a little ends no login.
        let now = ringfence_ledger::now_ms();
        let is_now = begun.at <= now + 60_000 && u128::from(now.saturating_sub(begun.at)) < LOGIN.as_millis();
        is_now.then_some(begun)
    }
}

impl Session {
    /// Whose it is, and since when.
    pub fn who(&self) -> (String, u64) {
        (self.person.clone(), self.since)
    }

    /// Whether a request that changes something comes from a page of ours: it brings the session's token, and no other origin.
    pub fn is_ours(&self, headers: &HeaderMap, token: &str, origin: &str) -> bool {
        let from = headers.get(ORIGIN).and_then(|value| value.to_str().ok());
        from.is_none_or(|from| from == origin) && digest(token) == digest(&self.csrf)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    fn with(cookies: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, cookies.parse().unwrap());
        headers
    }

    #[test]
    fn a_session_is_found_by_its_cookie_and_by_nothing_else() {
        let sessions = Sessions::default();
        let token = sessions.open("ann", 0);
        let mine = with(&format!("a=b; {COOKIE_NAME}={token}; {COOKIE_NAME}x=1"));
        assert_eq!(sessions.find(&mine).unwrap().person, "ann");
        for other in ["", "a=b", &format!("{COOKIE_NAME}={}", random()), &format!("ringfence={token}")] {
            assert!(sessions.find(&with(other)).is_none(), "{other}");
        }
        assert_eq!(sessions.peek(&mine).unwrap().person, "ann");
        sessions.close(&mine);
        assert!(sessions.find(&mine).is_none());
    }

    #[test]
    fn a_login_comes_back_to_where_it_was_begun_and_soon() {
        let begun = |at: u64| -> Begun {
            serde_json::from_value(
                serde_json::json!({ "state": "s", "nonce": "n", "verifier": "v", "next": "/x", "at": at }),
            )
            .unwrap()
        };
        let (sessions, now) = (Sessions::default(), ringfence_ledger::now_ms());
        let kept = sessions.begin(&begun(now)).unwrap();
        let back = |value: &str| sessions.take(&with(&format!("{LOGIN_COOKIE}={value}")));
        assert_eq!(back(&kept).unwrap().next, "/x");
        assert!(
            !String::from_utf8_lossy(&URL_SAFE_NO_PAD.decode(&kept).unwrap()).contains("verifier"),
            "it is sealed"
        );
        assert!(
            Sessions::default().take(&with(&format!("{LOGIN_COOKIE}={kept}"))).is_none(),
            "of another process"
        );
        let old = u64::try_from(LOGIN.as_millis()).unwrap() + 1;
        assert!(back(&sessions.begin(&begun(now - old)).unwrap()).is_none(), "too long ago");
        assert!(back(&sessions.begin(&begun(now + 90_000)).unwrap()).is_none(), "not yet");
        let mut changed = URL_SAFE_NO_PAD.decode(&kept).unwrap();
        for i in 0..changed.len() {
            changed[i] ^= 1;
            assert!(back(&URL_SAFE_NO_PAD.encode(&changed)).is_none(), "byte {i}");
            changed[i] ^= 1;
        }
        for short in ["", "AAAA", "!"] {
            assert!(back(short).is_none());
        }
    }

    #[test]
    fn a_form_of_another_site_is_not_ours() {
        let sessions = Sessions::default();
        let token = sessions.open("ann", 0);
        let session = sessions.find(&with(&format!("{COOKIE_NAME}={token}"))).unwrap();
        let from = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, origin.parse().unwrap());
            headers
        };
        let ours = "https://console.example";
        assert!(session.is_ours(&from(ours), &session.csrf, ours));
        assert!(!session.is_ours(&from("https://evil.example"), &session.csrf, ours));
        assert!(!session.is_ours(&from("null"), &session.csrf, ours));
        assert!(!session.is_ours(&from(ours), "", ours) && !session.is_ours(&from(ours), &random(), ours));
    }
}
