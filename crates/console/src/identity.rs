//! Who somebody is: OpenID Connect Core 1.0, authorization code flow with PKCE (RFC 7636), by a provider that the configuration names.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreGenderClaim, CoreIdToken, CoreIdTokenVerifier,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreUserInfoClaims,
};
use openidconnect::{
    AdditionalClaims, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndUserEmail, EndUserUsername,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdToken, IssuerUrl,
    JsonWebTokenType, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    Scope, TokenResponse as _,
};

/// How long the provider may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const LONGEST: u64 = 1 << 20;

/// Which claim of the ID token is somebody's name in the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameClaim {
    /// The name that people log in by.
    #[default]
    PreferredUsername,
    /// The e-mail address, which the provider must have verified.
    Email,
    /// The provider's own number for them.
    Sub,
}

/// A provider.
#[derive(Clone)]
pub struct Provider {
    /// Its name: the URL before `/.well-known/openid-configuration`.
    pub issuer: String,
    /// What it calls the console.
    pub client_id: String,
    /// What it calls `ringfence login`, a public client (RFC 8252).
    pub cli_client_id: Option<String>,
    /// The secret that the console shows it.
    pub client_secret: String,
    /// Who somebody is.
    pub claim: NameClaim,
    /// Makes the connections to it.
    pub agent: ureq::Agent,
    /// What it said of itself last.
    pub known: Known,
}

/// What a provider says of itself and its keys, for a while: anybody may begin a login, and each would ask for it.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<Option<Asked>>>);

/// When it was asked, and what it said, if anything.
type Asked = (Instant, Option<CoreProviderMetadata>);

/// How long that is: a key that the provider has changed is known after it.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long one that does not answer is not asked again.
const AWAY_FOR: Duration = Duration::from_secs(3);

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} as {}", self.issuer, self.client_id)
    }
}

/// A login that goes on at the provider.
#[derive(Debug)]
pub struct Begun {
    state: CsrfToken,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
    /// Where the person wanted to go: a path of ours.
    pub next: String,
}

/// Whom a token names.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The name in the registry, if the registry has it.
    pub name: String,
    /// What the provider calls them.
    pub subject: String,
    /// When the token was made, in milliseconds since 1970.
    pub since: u64,
}

/// What a logout token is about.
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// What a logout token has besides the claims of an ID token.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
struct Events {
    events: serde_json::Map<String, serde_json::Value>,
}

impl AdditionalClaims for Events {}

type LogoutToken =
    IdToken<Events, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

/// Why somebody is not logged in. Nothing of what the provider said is repeated: it may have tokens in it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It does not answer, or not as a provider does.
    #[error("the identity provider cannot be reached, or does not answer as one")]
    Unreachable,
    /// Its answer is not for this console, or not for this login.
    #[error("the identity provider's answer does not fit this login: {0}")]
    Forged(&'static str),
    /// It does not say the name that is asked for.
    #[error("the identity provider does not say your name ({0})")]
    Nameless(&'static str),
}

/// Connections to a provider that verify it against these certificates (PEM); plain HTTP is for the loopback only.
pub fn agent(tls_root: Option<&[u8]>) -> Result<ureq::Agent, String> {
    ringfence_ledger::objects::agent(PATIENCE, tls_root.unwrap_or_default(), tls_root.is_some())
        .map_err(|e| e.to_string())
}

/// A provider's answer. One that says no is an answer, too: the library reads why.
pub(crate) fn answer(agent: &ureq::Agent, request: HttpRequest) -> Result<HttpResponse, ureq::Error> {
    let request = agent.configure_request(request).http_status_as_error(false).build();
    let (parts, mut body) = agent.run(request)?.into_parts();
    Ok(HttpResponse::from_parts(parts, body.with_config().limit(LONGEST).read_to_vec()?))
}

/// What a provider that describes itself has: a place for logins, and perhaps ones for tokens and claims.
type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

impl Provider {
    fn ask(&self, request: HttpRequest) -> Result<HttpResponse, ureq::Error> {
        answer(&self.agent, request)
    }

    fn metadata(&self) -> Result<CoreProviderMetadata, Problem> {
        // Held while it is asked: those who come meanwhile wait for the one answer.
        let mut known = self.known.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_ref() {
            Some((at, Some(metadata))) if at.elapsed() < KNOWN_FOR => return Ok(metadata.clone()),
            Some((at, None)) if at.elapsed() < AWAY_FOR => return Err(Problem::Unreachable),
            _ => {}
        }
        let issuer = IssuerUrl::new(self.issuer.clone()).map_err(|_| Problem::Unreachable)?;
        let metadata = CoreProviderMetadata::discover(&issuer, &|request| self.ask(request)).ok();
        *known = Some((Instant::now(), metadata.clone()));
        metadata.ok_or(Problem::Unreachable)
    }

    fn client(&self, redirect: &str) -> Result<Client, Problem> {
        let redirect = RedirectUrl::new(redirect.to_owned()).map_err(|_| Problem::Unreachable)?;
        let (id, secret) =
            (ClientId::new(self.client_id.clone()), ClientSecret::new(self.client_secret.clone()));
        Ok(CoreClient::from_provider_metadata(self.metadata()?, id, Some(secret)).set_redirect_uri(redirect))
    }

    /// Begins a login: where the browser has to go. Blocks.
    pub fn begin(&self, redirect: &str, next: String) -> Result<(String, Begun), Problem> {
        let client = self.client(redirect)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state, nonce) = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .add_scope(Scope::new("profile".to_owned()))
            .add_scope(Scope::new("email".to_owned()))
            .set_pkce_challenge(challenge)
            .url();
        Ok((url.to_string(), Begun { state, nonce, verifier, next }))
    }

    /// What judges tokens of the provider for this console, and for its command line. As of public clients: a token that is signed with a
    /// shared secret is nobody's proof here.
    fn verifiers(&self, metadata: &CoreProviderMetadata) -> Vec<CoreIdTokenVerifier<'static>> {
        let audiences = [Some(&self.client_id), self.cli_client_id.as_ref()];
        let one = |audience: &String| {
            let (id, issuer) = (ClientId::new(audience.clone()), metadata.issuer().clone());
            CoreIdTokenVerifier::new_public_client(id, issuer, metadata.jwks().clone())
                .set_allowed_algs(metadata.id_token_signing_alg_values_supported().clone())
        };
        audiences.into_iter().flatten().map(one).collect()
    }

    /// Who an ID token names that somebody shows as a bearer token: signature, issuer, time, and an audience that is this console or
    /// its command line. Without a nonce: this login was not begun here. Blocks.
    pub fn bearer(&self, token: &str) -> Result<Shown, Problem> {
        let metadata = self.metadata()?;
        let token: CoreIdToken = token.parse().map_err(|_| Problem::Forged("the token is no ID token"))?;
        let verifiers = self.verifiers(&metadata);
        let claims =
            verifiers.iter().find_map(|verifier| token.claims(verifier, |_: Option<&Nonce>| Ok(())).ok());
        let claims = claims
            .ok_or(Problem::Forged("the token is not for this console, or does not verify, or is over"))?;
        let name = match self.claim {
            NameClaim::Sub => Some(claims.subject().as_str().to_owned()),
            NameClaim::PreferredUsername => claims.preferred_username().map(|name| name.as_str().to_owned()),
            NameClaim::Email => claims
                .email()
                .filter(|_| claims.email_verified() == Some(true))
                .map(|e| e.as_str().to_owned()),
        };
        let name = name.ok_or(Problem::Nameless("in the ID token"))?;
        // A token that was renewed says when somebody was last there (OpenID Connect Core 1.0, 12.2): a sign-out outlives renewals.
        let there = claims.auth_time().unwrap_or_else(|| claims.issue_time());
        let since = u64::try_from(there.timestamp_millis()).unwrap_or(0);
        Ok(Shown { name, subject: claims.subject().as_str().to_owned(), since })
    }

    /// Whom a logout token says is signed out (OpenID Connect Back-Channel Logout 1.0, 2.6): signed by the provider, for this console,
    /// not over, about a logout, and no ID token in disguise. Blocks.
    pub fn signed_out(&self, token: &str) -> Result<String, Problem> {
        let metadata = self.metadata()?;
        let token: LogoutToken =
            token.parse().map_err(|_| Problem::Forged("it is no logout token that names a subject"))?;
        let types = ["logout+jwt", "JWT"].map(|t| JsonWebTokenType::new(t.to_owned()).normalize());
        let types: Vec<_> = types.into_iter().flatten().collect();
        let verifiers =
            self.verifiers(&metadata).into_iter().map(|v| v.set_allowed_jose_types(types.clone()));
        let without_nonce =
            |nonce: Option<&Nonce>| if nonce.is_none() { Ok(()) } else { Err("it has a nonce".to_owned()) };
        let claims = verifiers.into_iter().find_map(|verifier| token.claims(&verifier, without_nonce).ok());
        let claims = claims.ok_or(Problem::Forged("the logout token does not verify"))?;
        if !claims.additional_claims().events.contains_key(LOGOUT_EVENT) {
            return Err(Problem::Forged("the token is not about a logout"));
        }
        Ok(claims.subject().as_str().to_owned())
    }

    /// Ends it: who it is, and what the provider calls them, by the ID token that it gives for the code. Blocks.
    pub fn finish(
        &self,
        redirect: &str,
        begun: Begun,
        code: String,
        state: &str,
    ) -> Result<(String, String), Problem> {
        if begun.state.secret() != state {
            return Err(Problem::Forged("it belongs to another login"));
        }
        let client = self.client(redirect)?;
        let answer = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|_| Problem::Unreachable)?
            .set_pkce_verifier(begun.verifier)
            .request(&|request| self.ask(request))
            .map_err(|_| Problem::Forged("it does not take the code"))?;
        let token = answer.id_token().ok_or(Problem::Forged("it has no ID token"))?;
        // Signature, issuer, audience, time, nonce.
        let claims = token
            .claims(&client.id_token_verifier(), &begun.nonce)
            .map_err(|_| Problem::Forged("its ID token does not verify"))?;
        let verified =
            |email: Option<String>, is_verified: Option<bool>| email.filter(|_| is_verified == Some(true));
        let text = |name: Option<&EndUserUsername>| name.map(|name| name.as_str().to_owned());
        let email = |email: Option<&EndUserEmail>| email.map(|email| email.as_str().to_owned());
        let said = match self.claim {
            NameClaim::Sub => Some(claims.subject().as_str().to_owned()),
            NameClaim::PreferredUsername => text(claims.preferred_username()),
            NameClaim::Email => verified(email(claims.email()), claims.email_verified()),
        };
        let subject = claims.subject().as_str().to_owned();
        if let Some(name) = said {
            return Ok((name, subject));
        }
        // Many providers keep such claims for who asks (OpenID Connect Core, 5.3), about the same subject.
        let info: CoreUserInfoClaims = client
            .user_info(answer.access_token().clone(), Some(claims.subject().clone()))
            .map_err(|_| Problem::Nameless("and it has no userinfo endpoint"))?
            .request(&|request| self.ask(request))
            .map_err(|_| Problem::Forged("what it says of you does not verify"))?;
        let name = match self.claim {
            NameClaim::Email => verified(email(info.email()), info.email_verified())
                .ok_or(Problem::Nameless("a verified email")),
            _ => text(info.preferred_username()).ok_or(Problem::Nameless("preferred_username")),
        }?;
        Ok((name, subject))
    }
}
