//! Who is logged in. A browser has a random name for its session in a cookie; here is only the name's digest.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::{COOKIE, ORIGIN};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
/// The most logins that are begun at once: each is cheap, and anybody may begin one.
const MOST_LOGINS: usize = 10_000;

/// A random name, not to be guessed: 256 bits.
pub fn random() -> String {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Somebody's session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who, by the registry's name.
    pub person: String,
    /// When they logged in, in milliseconds since 1970.
    pub since: u64,
    /// What every form has to bring along (synchronizer token).
    pub csrf: String,
    begun: Instant,
    seen: Instant,
}

type Digest = [u8; 32];

fn digest(token: &str) -> Digest {
    Sha256::digest(token).into()
}

/// All sessions of this process.
#[derive(Default)]
pub struct Sessions {
    running: Mutex<HashMap<Digest, Session>>,
    logins: Mutex<HashMap<Digest, (Begun, Instant)>>,
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
    /// Opens a session; returns its name for the cookie.
    pub fn open(&self, person: &str) -> String {
        let (token, now) = (random(), Instant::now());
        let session = Session {
            person: person.to_owned(),
            since: ringfence_ledger::now_ms(),
            csrf: random(),
            begun: now,
            seen: now,
        };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, s| s.seen.elapsed() < IDLE && s.begun.elapsed() < LONGEST);
        running.insert(digest(&token), session);
        token
    }

    /// The session that a browser has, if it still lasts.
    pub fn find(&self, headers: &HeaderMap) -> Option<Session> {
        let token = digest(cookie(headers, COOKIE_NAME)?);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let session = running.get_mut(&token)?;
        if session.seen.elapsed() >= IDLE || session.begun.elapsed() >= LONGEST {
            running.remove(&token);
            return None;
        }
        session.seen = Instant::now();
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

    /// Remembers a login that goes on at the provider; returns its name for the cookie. `None` where too many have begun.
    pub fn begin(&self, begun: Begun) -> Option<String> {
        let token = random();
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins.retain(|_, (_, at)| at.elapsed() < LOGIN);
        if logins.len() >= MOST_LOGINS {
            return None;
        }
        logins.insert(digest(&token), (begun, Instant::now()));
        Some(token)
    }

    /// Takes a login that comes back; each counts once.
    pub fn take(&self, headers: &HeaderMap) -> Option<Begun> {
        let token = cookie(headers, LOGIN_COOKIE)?;
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, at) = logins.remove(&digest(token))?;
        (at.elapsed() < LOGIN).then_some(begun)
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
        let token = sessions.open("ann");
        let mine = with(&format!("a=b; {COOKIE_NAME}={token}; {COOKIE_NAME}x=1"));
        assert_eq!(sessions.find(&mine).unwrap().person, "ann");
        for other in ["", "a=b", &format!("{COOKIE_NAME}={}", random()), &format!("ringfence={token}")] {
            assert!(sessions.find(&with(other)).is_none(), "{other}");
        }
        sessions.close(&mine);
        assert!(sessions.find(&mine).is_none());
    }

    #[test]
    fn a_form_of_another_site_is_not_ours() {
        let sessions = Sessions::default();
        let token = sessions.open("ann");
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
