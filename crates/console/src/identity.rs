//! Who somebody is: OpenID Connect Core 1.0, authorization code flow with PKCE (RFC 7636), by a provider that the configuration names.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreGenderClaim, CoreIdTokenVerifier,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata,
};
use openidconnect::{
    AdditionalClaims, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, IdToken, IdTokenClaims, IssuerUrl, JsonWebTokenType, Nonce,
    OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse as _,
    UserInfoClaims,
};
use ringfence_policy::Principal;

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
    /// What it confirms of them.
    pub confirming: Confirming,
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
#[derive(Debug, serde::Deserialize, serde::Serialize)]
pub struct Begun {
    state: CsrfToken,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
    /// Where the person wanted to go: a path of ours.
    pub next: String,
    /// When it was begun, in milliseconds since 1970.
    pub at: u64,
}

/// Whom a token names.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The name in the registry, if the registry has it.
    pub name: String,
    /// What the provider calls them.
    pub subject: String,
    /// Whom the token is for: the console, or its command line.
    pub audience: String,
    /// When they logged in at the provider, in milliseconds since 1970.
    pub since: u64,
    /// What else the provider says of them.
    pub said: Said,
}

/// Which claims say what the registry says, too. Where both do, they must agree: the registry is what the rules are about and is on
/// record, the provider confirms it.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirming {
    /// Where somebody is: an ISO 3166-1 code, as in the registry.
    pub location: Option<String>,
    /// Whom they work for, by the registry's name.
    pub employer: Option<String>,
    /// Their teams: a list, which has at least the registry's.
    pub teams: Option<String>,
}

/// The claims of a token besides those of OpenID Connect.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
pub struct Said {
    #[serde(flatten)]
    claims: serde_json::Map<String, serde_json::Value>,
}

impl AdditionalClaims for Said {}

impl Said {
    fn has(&self, claim: &str, wanted: &str) -> bool {
        match self.claims.get(claim) {
            Some(serde_json::Value::String(text)) => text == wanted,
            Some(serde_json::Value::Array(all)) => all.iter().any(|one| one == wanted),
            _ => false,
        }
    }

    /// Whether it confirms what the registry says of somebody; if not, of what.
    pub fn confirms(&self, by: &Confirming, person: &Principal) -> Result<(), &'static str> {
        let agrees = |claim: &Option<String>, wanted: Option<&str>| match (claim, wanted) {
            (None, _) => true,
            (Some(claim), Some(wanted)) => self.has(claim, wanted),
            (Some(claim), None) => self.claims.get(claim).is_none_or(serde_json::Value::is_null),
        };
        if !agrees(&by.location, person.location.as_deref()) {
            return Err("where you are");
        }
        if !agrees(&by.employer, person.employer.as_deref()) {
            return Err("whom you work for");
        }
        if by.teams.as_ref().is_some_and(|claim| !person.teams.iter().all(|team| self.has(claim, team))) {
            return Err("which teams you are in");
        }
        Ok(())
    }
}

/// An ID token with all that it says.
type Token = IdToken<Said, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;
type Claims = IdTokenClaims<Said, CoreGenderClaim>;

/// How long ago somebody may have logged in at the provider when a session begins here. Whoever asks for this is told when it was
/// (OpenID Connect Core 1.0, 3.1.2.1).
pub(crate) const MAX_AGE: Duration = Duration::from_secs(12 * 3600);

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
    /// The token does not say when its person logged in.
    #[error(
        "the identity provider's token does not say when you logged in (auth_time), so a sign-out could not end it"
    )]
    Timeless,
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
        self.metadata_of_the_last(KNOWN_FOR)
    }

    /// The same for a token whose key may be newer than what is known: the provider is asked again, at most every few seconds. `None`
    /// where it was asked just now.
    fn newer_metadata(&self) -> Option<CoreProviderMetadata> {
        let asked = self.known.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(at, _)| *at);
        if asked.is_some_and(|at| at.elapsed() < AWAY_FOR) {
            return None;
        }
        self.metadata_of_the_last(AWAY_FOR).ok()
    }

    fn metadata_of_the_last(&self, age: Duration) -> Result<CoreProviderMetadata, Problem> {
        // Held while it is asked: those who come meanwhile wait for the one answer.
        let mut known = self.known.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_ref() {
            Some((at, Some(metadata))) if at.elapsed() < age => return Ok(metadata.clone()),
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
            .set_max_age(MAX_AGE)
            .url();
        let at = ringfence_ledger::now_ms();
        Ok((url.to_string(), Begun { state, nonce, verifier, next, at }))
    }

    /// What judges tokens of the provider for this console, and for its command line. As of public clients: a token that is signed with a
    /// shared secret is nobody's proof here.
    fn verifiers(&self, metadata: &CoreProviderMetadata) -> Vec<(String, CoreIdTokenVerifier<'static>)> {
        let one = |audience: &String| {
            let (id, issuer) = (ClientId::new(audience.clone()), metadata.issuer().clone());
            let verifier = CoreIdTokenVerifier::new_public_client(id, issuer, metadata.jwks().clone())
                .set_allowed_algs(metadata.id_token_signing_alg_values_supported().clone());
            (audience.clone(), verifier)
        };
        self.audiences().map(one).collect()
    }

    fn audiences(&self) -> impl Iterator<Item = &String> {
        [Some(&self.client_id), self.cli_client_id.as_ref()].into_iter().flatten()
    }

    /// Verifies with what is known of the provider's keys, and once more with newer ones.
    fn judged<T>(
        &self,
        judge: impl Fn(&[(String, CoreIdTokenVerifier<'static>)]) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let first = judge(&self.verifiers(&self.metadata()?));
        Ok(first.or_else(|| judge(&self.verifiers(&self.newer_metadata()?))))
    }

    /// A token given to another application of the provider is not ours, whatever its audience says (OpenID Connect Core 1.0, 3.1.3.7).
    fn is_authorized(&self, claims: &Claims) -> bool {
        claims.authorized_party().is_none_or(|party| self.audiences().any(|ours| *ours == **party))
    }

    fn name(&self, claims: &Claims) -> Option<String> {
        match self.claim {
            NameClaim::Sub => Some(claims.subject().as_str().to_owned()),
            NameClaim::PreferredUsername => claims.preferred_username().map(|name| name.as_str().to_owned()),
            NameClaim::Email => claims
                .email()
                .filter(|_| claims.email_verified() == Some(true))
                .map(|e| e.as_str().to_owned()),
        }
    }

    /// Who an ID token names that somebody shows as a bearer token: signature, issuer, time, and an audience that is this console or
    /// its command line. Without a nonce: this login was not begun here. Blocks.
    pub fn bearer(&self, token: &str) -> Result<Shown, Problem> {
        let token: Token = token.parse().map_err(|_| Problem::Forged("the token is no ID token"))?;
        let judged = self.judged(|verifiers| {
            verifiers.iter().find_map(|(audience, verifier)| {
                let claims = token.claims(verifier, |_: Option<&Nonce>| Ok(())).ok()?;
                Some((audience.clone(), claims.clone()))
            })
        })?;
        let (audience, claims) = judged
            .ok_or(Problem::Forged("the token is not for this console, or does not verify, or is over"))?;
        if !self.is_authorized(&claims) {
            return Err(Problem::Forged("the token was given to another application"));
        }
        let name = self.name(&claims).ok_or(Problem::Nameless("in the ID token"))?;
        // A token that was renewed says when somebody was last there (OpenID Connect Core 1.0, 12.2), and a sign-out outlives renewals.
        // When it was made says nothing: whoever holds a refresh token has a new one made.
        let there = claims.auth_time().ok_or(Problem::Timeless)?;
        let since = u64::try_from(there.timestamp_millis()).unwrap_or(0);
        let subject = claims.subject().as_str().to_owned();
        Ok(Shown { name, subject, audience, since, said: claims.additional_claims().clone() })
    }

    /// Whom a logout token says is signed out (OpenID Connect Back-Channel Logout 1.0, 2.6): signed by the provider, for this console,
    /// not over, about a logout, and no ID token in disguise. Blocks.
    pub fn signed_out(&self, token: &str) -> Result<String, Problem> {
        let token: LogoutToken =
            token.parse().map_err(|_| Problem::Forged("it is no logout token that names a subject"))?;
        let types = ["logout+jwt", "JWT"].map(|t| JsonWebTokenType::new(t.to_owned()).normalize());
        let types: Vec<_> = types.into_iter().flatten().collect();
        let without_nonce =
            |nonce: Option<&Nonce>| if nonce.is_none() { Ok(()) } else { Err("it has a nonce".to_owned()) };
        let judged = self.judged(|verifiers| {
            verifiers.iter().find_map(|(_, verifier)| {
                let verifier = verifier.clone().set_allowed_jose_types(types.clone());
                let claims = token.claims(&verifier, without_nonce).ok()?;
                let is_logout = claims.additional_claims().events.contains_key(LOGOUT_EVENT);
                Some((claims.subject().as_str().to_owned(), is_logout))
            })
        })?;
        match judged {
            None => Err(Problem::Forged("the logout token does not verify")),
            Some((_, false)) => Err(Problem::Forged("the token is not about a logout")),
            Some((subject, true)) => Ok(subject),
        }
    }

    /// Ends it: who it is, by the ID token that it gives for the code. Blocks.
    pub fn finish(&self, redirect: &str, begun: Begun, code: String, state: &str) -> Result<Shown, Problem> {
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
        let token: Token =
            token.to_string().parse().map_err(|_| Problem::Forged("its ID token cannot be read"))?;
        // Signature, issuer, audience, time, nonce.
        let claims = token
            .claims(&client.id_token_verifier(), &begun.nonce)
            .map_err(|_| Problem::Forged("its ID token does not verify"))?;
        if !self.is_authorized(claims) {
            return Err(Problem::Forged("its ID token was given to another application"));
        }
        // Of a provider that does not say it, no session counts from later than its login was begun.
        let there = claims.auth_time().map(|at| u64::try_from(at.timestamp_millis()).unwrap_or(0));
        let since = there.unwrap_or(begun.at);
        let oldest = begun.at.saturating_sub(u64::try_from(MAX_AGE.as_millis()).unwrap_or(0) + LEEWAY_MS);
        if since < oldest {
            return Err(Problem::Forged("it has not asked you to log in for too long"));
        }
        let subject = claims.subject().as_str().to_owned();
        let audience = self.client_id.clone();
        let said = claims.additional_claims().clone();
        if let Some(name) = self.name(claims) {
            return Ok(Shown { name, subject, audience, since, said });
        }
        // Many providers keep such claims for who asks (OpenID Connect Core, 5.3), about the same subject.
        let info: UserInfoClaims<Said, CoreGenderClaim> = client
            .user_info(answer.access_token().clone(), Some(claims.subject().clone()))
            .map_err(|_| Problem::Nameless("and it has no userinfo endpoint"))?
            .request(&|request| self.ask(request))
            .map_err(|_| Problem::Forged("what it says of you does not verify"))?;
        let name = match self.claim {
            NameClaim::Email => info
                .email()
                .filter(|_| info.email_verified() == Some(true))
                .map(|email| email.as_str().to_owned())
                .ok_or(Problem::Nameless("a verified email")),
            _ => info
                .preferred_username()
                .map(|name| name.as_str().to_owned())
                .ok_or(Problem::Nameless("preferred_username")),
        }?;
        let mut said = said;
        said.claims.extend(info.additional_claims().claims.clone());
        Ok(Shown { name, subject, audience, since, said })
    }
}

/// How much clocks may differ, in milliseconds.
const LEEWAY_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
    use super::*;

    #[test]
    fn a_token_of_another_application_is_not_ours_though_its_audience_is() {
        let provider = Provider {
            issuer: "https://login.example".to_owned(),
            client_id: "ringfence".to_owned(),
            cli_client_id: Some("ringfence-cli".to_owned()),
            client_secret: String::new(),
            claim: NameClaim::default(),
            confirming: Confirming::default(),
            agent: agent(None).unwrap(),
            known: Known::default(),
        };
        let is_ours = |party: serde_json::Value| {
            let mut claims = serde_json::json!({
                "iss": "https://login.example", "aud": ["ringfence"], "exp": 2, "iat": 1, "sub": "s",
            });
            if !party.is_null() {
                claims["azp"] = party;
            }
            provider.is_authorized(&serde_json::from_value::<Claims>(claims).unwrap())
        };
        assert!(
            is_ours(serde_json::Value::Null)
                && is_ours("ringfence".into())
                && is_ours("ringfence-cli".into())
        );
        assert!(!is_ours("another".into()) && !is_ours("".into()));
    }

    #[test]
    fn the_provider_confirms_the_registry_or_nobody_is_let_in() {
        let by = |l: bool, e: bool, t: bool| Confirming {
            location: l.then(|| "country".to_owned()),
            employer: e.then(|| "org".to_owned()),
            teams: t.then(|| "groups".to_owned()),
        };
        let person: Principal = serde_json::from_value(serde_json::json!({
            "name": "ann", "location": "US", "employer": "usds", "teams": ["security", "oncall"],
        }))
        .unwrap();
        let said = |claims: serde_json::Value| serde_json::from_value::<Said>(claims).unwrap();
        let all = said(
            serde_json::json!({ "country": "US", "org": "usds", "groups": ["oncall", "security", "x"] }),
        );
        assert_eq!(all.confirms(&by(true, true, true), &person), Ok(()));
        assert_eq!(said(serde_json::json!({})).confirms(&by(false, false, false), &person), Ok(()));
        for (claims, what) in [
            (
                serde_json::json!({ "country": "SG", "org": "usds", "groups": ["oncall", "security"] }),
                "where you are",
            ),
            (serde_json::json!({ "org": "usds", "groups": ["oncall", "security"] }), "where you are"),
            (
                serde_json::json!({ "country": "US", "org": "other", "groups": ["oncall", "security"] }),
                "whom you work for",
            ),
            (
                serde_json::json!({ "country": "US", "org": "usds", "groups": ["oncall"] }),
                "which teams you are in",
            ),
            (
                serde_json::json!({ "country": "US", "org": "usds", "groups": "oncall" }),
                "which teams you are in",
            ),
            (serde_json::json!({ "country": ["DE"], "org": "usds", "groups": [7] }), "where you are"),
        ] {
            assert_eq!(said(claims.clone()).confirms(&by(true, true, true), &person), Err(what), "{claims}");
        }
        // Where the registry says nothing, the provider may not either.
        let nowhere: Principal = serde_json::from_value(serde_json::json!({ "name": "bob" })).unwrap();
        assert!(all.confirms(&by(true, false, false), &nowhere).is_err());
    }
}
