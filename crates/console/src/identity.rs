//! Who somebody is: OpenID Connect Core 1.0, authorization code flow with PKCE (RFC 7636), by a provider that the configuration names.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreIdToken, CoreIdTokenVerifier, CoreProviderMetadata,
    CoreUserInfoClaims,
};
use openidconnect::{
    AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndUserEmail, EndUserUsername, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, Nonce, OAuth2TokenResponse as _,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse as _,
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
        let answer = self.agent.run(request)?;
        let (parts, mut body) = answer.into_parts();
        Ok(HttpResponse::from_parts(parts, body.with_config().limit(LONGEST).read_to_vec()?))
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

    /// Who an ID token names that somebody shows as a bearer token: signature, issuer, time, and an audience that is this console or
    /// its command line. Without a nonce: this login was not begun here. Blocks.
    pub fn bearer(&self, token: &str) -> Result<String, Problem> {
        let metadata = self.metadata()?;
        let token: CoreIdToken = token.parse().map_err(|_| Problem::Forged("the token is no ID token"))?;
        let audiences = [Some(&self.client_id), self.cli_client_id.as_ref()];
        let no_nonce = |_: Option<&Nonce>| Ok(());
        let mut judged =
            Err(Problem::Forged("the token is not for this console, or does not verify, or is over"));
        for audience in audiences.into_iter().flatten() {
            // Of a public client: a token signed with a shared secret is nobody's proof here.
            let (id, issuer) = (ClientId::new(audience.clone()), metadata.issuer().clone());
            let verifier = CoreIdTokenVerifier::new_public_client(id, issuer, metadata.jwks().clone())
                .set_allowed_algs(metadata.id_token_signing_alg_values_supported().clone());
            if let Ok(claims) = token.claims(&verifier, no_nonce) {
                judged = Ok(claims);
                break;
            }
        }
        let claims = judged?;
        match self.claim {
            NameClaim::Sub => Some(claims.subject().as_str().to_owned()),
            NameClaim::PreferredUsername => claims.preferred_username().map(|name| name.as_str().to_owned()),
            NameClaim::Email => claims
                .email()
                .filter(|_| claims.email_verified() == Some(true))
                .map(|e| e.as_str().to_owned()),
        }
        .ok_or(Problem::Nameless("in the ID token"))
    }

    /// Ends it: who it is, by the ID token that the provider gives for the code. Blocks.
    pub fn finish(&self, redirect: &str, begun: Begun, code: String, state: &str) -> Result<String, Problem> {
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
        if let Some(name) = said {
            return Ok(name);
        }
        // Many providers keep such claims for who asks (OpenID Connect Core, 5.3), about the same subject.
        let info: CoreUserInfoClaims = client
            .user_info(answer.access_token().clone(), Some(claims.subject().clone()))
            .map_err(|_| Problem::Nameless("and it has no userinfo endpoint"))?
            .request(&|request| self.ask(request))
            .map_err(|_| Problem::Forged("what it says of you does not verify"))?;
        match self.claim {
            NameClaim::Email => verified(email(info.email()), info.email_verified())
                .ok_or(Problem::Nameless("a verified email")),
            _ => text(info.preferred_username()).ok_or(Problem::Nameless("preferred_username")),
        }
    }
}
