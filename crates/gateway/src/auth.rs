//! Who are you? SCRAM-SHA-256, for known and unknown names alike; bound to the TLS channel where the client can.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::frame::{Body, Buffer, put, put_str};
use crate::refusal::{Refusal, code};
use crate::scram::{self, Binding, Challenged, PLAIN, PLUS, ScramError, Verifier};

/// The longest SASL message; libpq's are a few hundred bytes.
const MAX_MESSAGE: usize = 4096;

/// Why a client was not let in.
#[derive(Debug)]
pub enum AuthError {
    /// The connection failed.
    Io(std::io::Error),
    /// The exchange failed; the client hears the same whatever it was.
    Failed(ScramError),
}

impl From<std::io::Error> for AuthError {
    fn from(e: std::io::Error) -> Self {
        Self::Io(e)
    }
}

/// What a client whose proof does not fit is told.
pub fn failed(user: &str) -> Refusal {
    Refusal::new(code::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
        .hint("check the name and the password; who has none asks the in-country security team")
}

/// Lets a client in that has proven who it is.
pub async fn welcome<S: AsyncWrite + Unpin>(stream: &mut S) -> std::io::Result<()> {
    let mut out = Vec::with_capacity(9);
    request(&mut out, 0, |_| {});
    stream.write_all(&out).await
}

/// A client's proof that it knows a password, not verified yet.
pub struct Answered {
    state: Challenged,
    last: Vec<u8>,
}

impl Answered {
    /// Verifies the proof, and tells the client if it is right.
    pub async fn verify<S: AsyncWrite + Unpin>(self, stream: &mut S) -> Result<(), AuthError> {
        let verdict = self.state.finish(&self.last).map_err(AuthError::Failed)?;
        let mut out = Vec::with_capacity(128);
        request(&mut out, 12, |out| out.extend_from_slice(verdict.as_bytes()));
        stream.write_all(&out).await?;
        Ok(())
    }
}

/// Asks the client to prove that it knows the password behind `verifier`. It may bind that to
/// `end_point`, where there is one.
pub async fn exchange<S>(
    stream: &mut S,
    buffer: &mut Buffer,
    verifier: Verifier,
    end_point: Option<&[u8]>,
) -> Result<Answered, AuthError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut out = Vec::with_capacity(128);
    request(&mut out, 10, |out| {
        if end_point.is_some() {
            put_str(out, PLUS);
        }
        put_str(out, PLAIN);
        out.push(0);
    });
    stream.write_all(&out).await?;

    let first = message(stream, buffer).await?;
    let mut body = Body(&first);
    let malformed = AuthError::Failed(ScramError::Malformed);
    let binding = match (body.string(), end_point) {
        (Some(PLUS), Some(end_point)) => Binding::Required(end_point),
        (Some(PLAIN), Some(_)) => Binding::Declined,
        (Some(PLAIN), None) => Binding::Impossible,
        _ => return Err(malformed),
    };
    let length = body.i32().and_then(|n| usize::try_from(n).ok());
    let client_first = length.and_then(|n| body.take(n)).ok_or(malformed)?;
    let (state, challenge) = scram::challenge(verifier, binding, client_first).map_err(AuthError::Failed)?;
    out.clear();
    request(&mut out, 11, |out| out.extend_from_slice(challenge.as_bytes()));
    stream.write_all(&out).await?;

    let last = message(stream, buffer).await?;
    Ok(Answered { state, last })
}

/// An authentication request of the given kind.
fn request(out: &mut Vec<u8>, kind: i32, body: impl FnOnce(&mut Vec<u8>)) {
    put(out, b'R', |out| {
        out.extend_from_slice(&kind.to_be_bytes());
        body(out);
    });
}

async fn message<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Buffer) -> Result<Vec<u8>, AuthError> {
    let head = buffer.frame(stream, MAX_MESSAGE).await?;
    // A client without a password leaves here to ask its user for one.
    let head = head.ok_or_else(|| AuthError::Io(std::io::ErrorKind::UnexpectedEof.into()))?;
    if head.tag != b'p' {
        return Err(AuthError::Failed(ScramError::Malformed));
    }
    let body = buffer.data()[crate::frame::HEADER..head.total].to_vec();
    buffer.consume(head.total);
    Ok(body)
}
