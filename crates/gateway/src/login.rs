//! A connection from its first byte to a proven name: TLS, cancel requests, and a password, a certificate, or both.

use std::sync::Arc;
use std::time::Duration;

use ringfence_policy::{Device, Principal, Proof};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::auth::{self, AuthError};
use crate::backend::{Stream, take_stream};
use crate::certificate::{Channel, Shown};
use crate::config::TlsRequired;
use crate::frame::Buffer;
use crate::refusal::{Refusal, code};
use crate::scram::Verifier;
use crate::server::Shared;
use crate::startup::{self, Packet, Startup};
use crate::strangers::{self, Origin, Place, UNKNOWN};

/// How much a wrong guess costs.
const GUESS: Duration = Duration::from_millis(250);

/// Somebody who has proven who they are.
pub struct Proven {
    /// Who.
    pub principal: Principal,
    /// What they want.
    pub startup: Startup,
    /// How they proved it.
    pub proof: Proof,
    /// When they were given the certificate that they proved it by, if a login gave it.
    pub given: Option<u64>,
    /// What they come with.
    pub device: Option<Device>,
    /// The certificates that they showed, where something follows from one.
    pub shown: Option<Shown>,
}

/// Tells a client why it is not let in.
pub async fn refuse(stream: &mut Box<dyn Stream>, refusal: &Refusal) -> std::io::Result<()> {
    stream.write_all(&refusal.fatal()).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// Has a client log in. `None` if there is nothing more to do for it.
pub async fn run(
    shared: &Shared,
    stream: &mut Box<dyn Stream>,
    buffer: &mut Buffer,
    place: &Place,
    is_local: bool,
) -> std::io::Result<Option<Proven>> {
    let origin = place.origin();
    let Some((startup, channel)) = first_packets(shared, stream, place).await? else { return Ok(None) };
    let must_have_tls = match shared.config.tls_required {
        TlsRequired::Always => origin != Origin::Unix,
        TlsRequired::BeyondLoopback => !is_local,
        TlsRequired::Never => false,
    };
    if channel.tls.is_none() && must_have_tls {
        let refusal =
            Refusal::new(code::INVALID_AUTHORIZATION, "this gateway takes connections with TLS only");
        refuse(stream, &refusal.hint("Connect with sslmode=require or stricter.")).await?;
        return Ok(None);
    }
    let mut out = Vec::new();
    startup.negotiate(&mut out);
    stream.write_all(&out).await?;
    let principal = shared.policy().registry().principal(&startup.user).cloned();
    match prove(shared, stream, buffer, principal, (&startup, origin), &channel).await {
        Ok((principal, proof)) => {
            let given = channel.given.filter(|_| proof != Proof::Password);
            if let Err(cut) = shared.people.judge(&principal.name, given) {
                shared.record_refused(&principal.name, &startup.database, &cut.reason());
                refuse(stream, &cut.refusal()).await?;
                return Ok(None);
            }
            auth::welcome(stream).await?;
            let Channel { device, shown, .. } = channel;
            let shown = shown.filter(|_| device.is_some() || proof != Proof::Password);
            Ok(Some(Proven { principal, startup, proof, given, device, shown }))
        }
        Err(Unproven::Io(e)) => Err(e),
        Err(Unproven::Refused { name, refusal, reason }) => {
            tokio::time::sleep(GUESS).await;
            shared.record_stranger(origin, &name, &startup.database, reason);
            refuse(stream, &refusal).await?;
            Ok(None)
        }
    }
}

/// Why a name is not proven.
enum Unproven {
    Io(std::io::Error),
    /// For the ledger: whose name it was, if it is one, and why.
    Refused {
        name: String,
        refusal: Box<Refusal>,
        reason: &'static str,
    },
}

/// A certificate that names the principal does, unless a password is asked for, too. Everybody else goes through the same
/// exchange, so that nothing is learned about who is known, and who has no password.
async fn prove(
    shared: &Shared,
    stream: &mut Box<dyn Stream>,
    buffer: &mut Buffer,
    principal: Option<Principal>,
    (startup, origin): (&Startup, Origin),
    channel: &Channel,
) -> Result<(Principal, Proof), Unproven> {
    let is_named = channel.named.as_deref() == Some(startup.user.as_str());
    let asked = principal.as_ref().map_or(Proof::Either, |p| p.login);
    let principal = match principal {
        Some(principal) if is_named && matches!(asked, Proof::Either | Proof::Certificate) => {
            return Ok((principal, Proof::Certificate));
        }
        other => other,
    };
    let verifier = principal.as_ref().filter(|_| asked != Proof::Certificate);
    let verifier = verifier.and_then(|p| Verifier::parse(p.password.as_deref()?));
    let has_password = verifier.is_some();
    let verifier = verifier.unwrap_or_else(|| Verifier::mock(&shared.config.secret, &startup.user));
    let end_point = channel.tls.as_ref().and_then(|tls| tls.end_point.as_deref());
    let refused = |name: &str, refusal, reason| {
        Err(Unproven::Refused { name: name.to_owned(), refusal: Box::new(refusal), reason })
    };
    let fits = match auth::exchange(stream, buffer, verifier, end_point).await {
        Ok(answered) => {
            // A guess begins with the client's answer: a silent client delays no other one, and
            // answers that come at once wait for each other.
            let (guess, wait) = shared.strangers.guess(&startup.user, origin);
            // The client would give up before, or the login's time would be over.
            if wait >= strangers::MOST_PATIENT.min(shared.config.login_timeout * 2 / 3) {
                let name = principal.as_ref().map_or(UNKNOWN, |p| p.name.as_str());
                return refused(name, strangers::too_many_guesses(wait), "too many wrong passwords");
            }
            guess.wait(wait).await;
            let verified = answered.verify(stream).await;
            let fits = has_password && !matches!(verified, Err(AuthError::Failed(_)));
            if fits {
                guess.was_right();
            } else {
                guess.was_wrong();
            }
            if let Err(AuthError::Io(e)) = verified {
                return Err(Unproven::Io(e));
            }
            fits
        }
        Err(AuthError::Failed(_)) => false,
        Err(AuthError::Io(e)) => return Err(Unproven::Io(e)),
    };
    match principal {
        Some(principal) if fits && asked == Proof::Both && is_named => Ok((principal, Proof::Both)),
        Some(principal) if fits && asked == Proof::Both => {
            let message = format!("{} needs a client certificate besides the password", principal.name);
            let refusal = Refusal::new(code::INVALID_AUTHORIZATION, message).hint(
                "Connect with sslcert and sslkey, and a certificate whose common name is the user name.",
            );
            refused(&principal.name, refusal, "the client certificate is missing")
        }
        Some(principal) if fits => Ok((principal, Proof::Password)),
        known => {
            let name = known.as_ref().map_or(UNKNOWN, |p| p.name.as_str());
            refused(name, auth::failed(&startup.user), "the password does not fit")
        }
    }
}

/// TLS, GSS and cancel requests, then the startup packet. Reads exactly what it needs: a byte that an attacker slipped in
/// before TLS is never taken for one that came through it (CVE-2021-23214).
async fn first_packets(
    shared: &Shared,
    stream: &mut Box<dyn Stream>,
    place: &Place,
) -> std::io::Result<Option<(Startup, Channel)>> {
    let origin = place.origin();
    let mut channel = Channel::default();
    for _ in 0..4 {
        let length = stream.read_u32().await? as usize;
        if !(8..=startup::MAX_PACKET).contains(&length) {
            return Ok(None);
        }
        let mut packet = vec![0; length - 4];
        stream.read_exact(&mut packet).await?;
        match startup::parse(&packet) {
            Ok(Packet::Tls) => match shared.tls() {
                Some(tls) if channel.tls.is_none() => {
                    stream.write_all(b"S").await?;
                    let acceptor = TlsAcceptor::from(Arc::clone(&tls.server));
                    let encrypted = acceptor.accept(take_stream(stream)).await?;
                    channel = tls.channel(encrypted.get_ref().1.peer_certificates());
                    *stream = Box::new(encrypted);
                    place.has_spoken();
                }
                _ => stream.write_all(b"N").await?,
            },
            Ok(Packet::Gss) => stream.write_all(b"N").await?,
            Ok(Packet::Cancel(key)) => {
                let Some(attempt) = shared.strangers.may_cancel(origin) else { return Ok(None) };
                let target = shared.cancels.find(&key);
                // What an older process has cannot be seen from here.
                let is_hit = target.is_some() || shared.older.cancel(&key);
                if is_hit {
                    shared.strangers.cancel_hit(origin, attempt);
                }
                if let Some(target) = target {
                    // A place that is lost does not stop it half-way.
                    let _ = tokio::spawn(async move { target.cancel().await }).await;
                }
                return Ok(None);
            }
            Ok(Packet::Startup(startup)) => {
                place.has_spoken();
                return Ok(Some((startup, channel)));
            }
            Err(e) => {
                refuse(stream, &Refusal::new(code::PROTOCOL_VIOLATION, e.to_string())).await?;
                return Ok(None);
            }
        }
    }
    Ok(None)
}
