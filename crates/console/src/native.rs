//! The command line at the identity provider: a public client (RFC 8252), by a browser on the same machine, or by any other (device
//! authorization, RFC 8628), and quietly again with a refresh token.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthenticationFlow, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod,
    CoreDeviceAuthorizationResponse, CoreGrantType, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
    CoreTokenResponse,
};
use openidconnect::{
    AdditionalProviderMetadata, AuthorizationCode, ClientId, CsrfToken, DeviceAuthorizationUrl, HttpRequest,
    HttpResponse, IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, ProviderMetadata,
    RedirectUrl, RefreshToken, Scope, TokenResponse as _,
};
use serde::{Deserialize, Serialize};

use crate::identity::answer;

/// How long somebody may take to log in.
const PATIENCE: Duration = Duration::from_secs(300);
/// The longest request line of a browser that comes back, in bytes.
const LONGEST: usize = 16 * 1024;
/// The claims that the ID token is to have, where a provider keeps them for its userinfo endpoint (OpenID Connect Core 1.0, 5.5): the
/// console is shown the ID token only.
const CLAIMS: &str = r#"{"id_token":{"preferred_username":null,"email":null,"email_verified":null,"auth_time":{"essential":true}}}"#;

/// Why nobody is logged in.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It does not answer, or not as a provider does.
    #[error("the identity provider {0} cannot be reached, or does not answer as one")]
    Unreachable(String),
    /// It has no device authorization.
    #[error("the identity provider has no login by another device; log in by a browser on this machine")]
    NoDevice,
    /// It has turned somebody down, or what came back is not of this login.
    #[error("the login was not finished: {0}")]
    Unfinished(String),
    /// Of this machine.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What the provider gave.
pub struct Tokens {
    /// Who logged in, signed by the provider.
    pub id_token: String,
    /// To log in again without asking anybody, if the provider gives one.
    pub refresh: Option<String>,
}

/// What a provider says of device authorization.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Device {
    device_authorization_endpoint: Option<DeviceAuthorizationUrl>,
}

impl AdditionalProviderMetadata for Device {}

type Metadata = ProviderMetadata<
    Device,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// The command line, as the provider knows it.
pub struct Native {
    metadata: Metadata,
    client_id: ClientId,
    agent: ureq::Agent,
}

/// The scopes besides `openid`: the last asks for a refresh token.
const SCOPES: [&str; 3] = ["profile", "email", "offline_access"];

impl Native {
    /// Asks the provider about itself. Blocks.
    pub fn new(issuer: &str, client_id: &str, agent: ureq::Agent) -> Result<Self, Problem> {
        let unreachable = || Problem::Unreachable(issuer.to_owned());
        let url = IssuerUrl::new(issuer.to_owned()).map_err(|_| unreachable())?;
        let metadata =
            Metadata::discover(&url, &|request| answer(&agent, request)).map_err(|_| unreachable())?;
        Ok(Self { metadata, client_id: ClientId::new(client_id.to_owned()), agent })
    }

    fn ask(&self, request: HttpRequest) -> Result<HttpResponse, ureq::Error> {
        answer(&self.agent, request)
    }

    /// Has somebody log in by a browser on this machine; `open` shows it the address. Blocks until they come back.
    pub fn by_browser(&self, open: impl FnOnce(&str)) -> Result<Tokens, Problem> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let redirect = format!("http://127.0.0.1:{}/", listener.local_addr()?.port());
        let redirect = RedirectUrl::new(redirect).map_err(|e| Problem::Unfinished(e.to_string()))?;
        let client = CoreClient::from_provider_metadata(self.metadata.clone(), self.client_id.clone(), None)
            .set_redirect_uri(redirect);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut url = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .set_pkce_challenge(challenge)
            .set_max_age(crate::identity::MAX_AGE)
            // Without it a provider need not give a refresh token (OpenID Connect Core 1.0, 11).
            .add_extra_param("prompt", "consent")
            .add_extra_param("claims", CLAIMS);
        for scope in SCOPES {
            url = url.add_scope(Scope::new(scope.to_owned()));
        }
        let (url, state, nonce) = url.url();
        open(url.as_str());
        let code = come_back(&listener, state.secret())?;
        let unfinished = |what: &str| Problem::Unfinished(what.to_owned());
        let tokens = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|_| unfinished("the provider has no token endpoint"))?
            .set_pkce_verifier(verifier)
            .request(&|request| self.ask(request))
            .map_err(|_| unfinished("the provider does not take the code"))?;
        let token = tokens.id_token().ok_or_else(|| unfinished("there is no ID token"))?;
        token
            .claims(&client.id_token_verifier(), &nonce)
            .map_err(|_| unfinished("the ID token does not verify"))?;
        given(&tokens)
    }

    /// Has somebody log in by any browser: `tell` says the address and the code to type there. Blocks until they have.
    pub fn by_device(&self, tell: impl FnOnce(&str, &str)) -> Result<Tokens, Problem> {
        let endpoint = self.metadata.additional_metadata().device_authorization_endpoint.clone();
        let client = CoreClient::from_provider_metadata(self.metadata.clone(), self.client_id.clone(), None)
            .set_device_authorization_url(endpoint.ok_or(Problem::NoDevice)?);
        let mut asked = client
            .exchange_device_code()
            .add_extra_param("claims", CLAIMS)
            .add_extra_param("prompt", "consent");
        for scope in SCOPES {
            asked = asked.add_scope(Scope::new(scope.to_owned()));
        }
        let unfinished = |what: &str| Problem::Unfinished(what.to_owned());
        let details: CoreDeviceAuthorizationResponse = asked
            .request(&|request| self.ask(request))
            .map_err(|_| unfinished("the provider gives no code for a device"))?;
        let place = details
            .verification_uri_complete()
            .map_or_else(|| details.verification_uri().to_string(), |u| u.secret().clone());
        tell(&place, details.user_code().secret());
        let tokens = client
            .exchange_device_access_token(&details)
            .map_err(|_| unfinished("the provider has no token endpoint"))?
            .request(&|request| self.ask(request), std::thread::sleep, Some(PATIENCE))
            .map_err(|_| unfinished("it was refused, or took too long"))?;
        given(&tokens)
    }

    /// Logs in again without asking anybody. Blocks.
    pub fn again(&self, refresh: &str) -> Result<Tokens, Problem> {
        let client = CoreClient::from_provider_metadata(self.metadata.clone(), self.client_id.clone(), None);
        let unfinished = |what: &str| Problem::Unfinished(what.to_owned());
        let tokens = client
            .exchange_refresh_token(&RefreshToken::new(refresh.to_owned()))
            .map_err(|_| unfinished("the provider has no token endpoint"))?
            .request(&|request| self.ask(request))
            .map_err(|_| unfinished("the provider wants you to log in again"))?;
        let Tokens { id_token, refresh: newer } = given(&tokens)?;
        // Where it does not change, the provider does not say it again.
        Ok(Tokens { id_token, refresh: newer.or_else(|| Some(refresh.to_owned())) })
    }
}

fn given(tokens: &CoreTokenResponse) -> Result<Tokens, Problem> {
    let token = tokens.id_token().ok_or_else(|| Problem::Unfinished("there is no ID token".to_owned()))?;
    Ok(Tokens { id_token: token.to_string(), refresh: tokens.refresh_token().map(|t| t.secret().clone()) })
}

/// Waits for the browser; other connections are answered and forgotten.
fn come_back(listener: &TcpListener, state: &str) -> Result<String, Problem> {
    listener.set_nonblocking(true)?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(found) = hear(stream, state) {
                    return found;
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Err(Problem::Unfinished("nobody came back from the browser in five minutes".to_owned()))
}

/// Hears one request of a browser; `None` where it is not the one that is waited for.
fn hear(mut stream: TcpStream, state: &str) -> Option<Result<String, Problem>> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < LONGEST {
        match stream.read(&mut piece) {
            Ok(count @ 1..) => head.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
    let head = String::from_utf8(head).ok()?;
    let path = head.strip_prefix("GET ")?.split(' ').next()?;
    let found = read_answer(path, state);
    let said = match &found {
        Some(Ok(_)) => "You are logged in. You can close this page and go back to the terminal.",
        Some(Err(_)) => "You are not logged in. The terminal says why.",
        None => "This is not the page that is waited for.",
    };
    let body = format!("<!doctype html><html lang=\"en\"><title>Ringfence</title><p>{said}</p></html>");
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Security-Policy: default-src 'none'\r\nCache-Control: no-store\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    found
}

/// The code in a path that a provider sent a browser to.
fn read_answer(path: &str, state: &str) -> Option<Result<String, Problem>> {
    let url = openidconnect::url::Url::parse(&format!("http://127.0.0.1{path}")).ok()?;
    let one = |name: &str| url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
    let (code, said) = (one("code"), one("error"));
    if code.is_none() && said.is_none() {
        return None;
    }
    if one("state").as_deref() != Some(state) {
        return Some(Err(Problem::Unfinished("what came back belongs to another login".to_owned())));
    }
    let refused = || Problem::Unfinished("the identity provider has refused".to_owned());
    Some(code.ok_or_else(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_this_login_is_taken() {
        let code = |path: &str| read_answer(path, "s1").map(|found| found.map_err(|e| e.to_string()));
        assert_eq!(code("/?code=abc&state=s1"), Some(Ok("abc".to_owned())));
        assert!(code("/?code=abc&state=s2").is_some_and(|found| found.is_err()));
        assert!(code("/?code=abc").is_some_and(|found| found.is_err()));
        assert!(code("/?error=access_denied&state=s1").is_some_and(|found| found.is_err()));
        assert_eq!(code("/favicon.ico"), None);
    }
}
