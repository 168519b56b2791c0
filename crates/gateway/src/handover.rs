//! Restarting without a moment in which nobody listens: the new process asks the old one for its listening sockets, over a
//! Unix socket that only their user may open, and says when it takes connections. From then on the old one takes none, and
//! its sessions go on until they end. Each process writes a log of its own, so neither waits for the other.
//!
//! A connection that waits in a listening socket belongs to both processes, so none is lost. Cancel requests come to the new
//! process; those for sessions of the old one go on to it over the same connection.
//!
//! The conversation: the old process sends one line of JSON with the sockets beside it (`SCM_RIGHTS`); the new one answers
//! `R` when it is ready, and then sends 8 bytes for each cancel key that it does not know.

use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::server::Shared;
use crate::startup::CancelKey;

/// The most sockets that are handed over.
const MOST: usize = 64;
/// How long the old process has to answer, and how long it waits for the new one to get ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is handed over, in the order of the sockets.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    tcp: usize,
    /// The path of the Unix socket for clients, which is the last of the sockets.
    unix: Option<PathBuf>,
}

/// Listening sockets from an older process.
#[derive(Debug)]
pub struct Inherited {
    /// For TCP.
    pub tcp: Vec<std::net::TcpListener>,
    /// For clients on this machine.
    pub unix: Option<(StdUnixListener, PathBuf)>,
    older: StdUnixStream,
}

/// The way back to an older process, whose sessions may still run.
#[derive(Debug, Default)]
pub struct Older(Mutex<Option<StdUnixStream>>);

impl Older {
    /// Sends on a cancel request for a session that is not ours. It is small and seldom; what does not fit is not sent.
    /// False if there is no older process.
    pub fn cancel(&self, key: &CancelKey) -> bool {
        let mut older = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&key.process.to_be_bytes());
        bytes[4..].copy_from_slice(&key.secret);
        if older.as_mut().is_some_and(|stream| stream.write_all(&bytes).is_err()) {
            *older = None;
        }
        older.is_some()
    }
}

fn broken(problem: impl Into<String>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, problem.into())
}

/// Asks the process that listens at `path` for its sockets.
pub fn ask(path: &Path) -> std::io::Result<Inherited> {
    let older = StdUnixStream::connect(path)?;
    older.set_read_timeout(Some(PATIENCE))?;
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 4096];
    let received = rustix::net::recvmsg(
        &older,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            sockets.extend(fds);
        }
    }
    let line: Line = serde_json::from_slice(&bytes[..received.bytes])
        .map_err(|_| broken("the older process does not hand over as we know it"))?;
    if sockets.len() != line.tcp + usize::from(line.unix.is_some()) {
        return Err(broken("the older process did not hand over all its sockets"));
    }
    let unix = line.unix.and_then(|path| sockets.pop().map(|fd| (StdUnixListener::from(fd), path)));
    let tcp = sockets.into_iter().map(std::net::TcpListener::from).collect();
    Ok(Inherited { tcp, unix, older })
}

impl Inherited {
    /// Tells the older process that this one takes connections, and keeps the way back to it.
    pub(crate) fn ready(mut older: StdUnixStream, into: &Older) -> std::io::Result<()> {
        older.write_all(b"R")?;
        // It answers once it takes no more itself, and its socket's name is free.
        older.read_exact(&mut [0])?;
        older.set_nonblocking(true)?;
        *into.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(older);
        Ok(())
    }

    /// The sockets for the runtime, and the connection to the older process.
    #[allow(clippy::type_complexity, reason = "a tuple of what was asked for, taken apart at once")]
    pub(crate) fn into_parts(
        self,
    ) -> std::io::Result<(Vec<TcpListener>, Option<(UnixListener, PathBuf)>, StdUnixStream)> {
        let tcp = self.tcp.into_iter().map(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let tcp = tcp.collect::<std::io::Result<Vec<_>>>()?;
        let unix = match self.unix {
            Some((listener, path)) => {
                listener.set_nonblocking(true)?;
                Some((UnixListener::from_std(listener)?, path))
            }
            None => None,
        };
        Ok((tcp, unix, self.older))
    }
}

/// Sockets to hand over: copies, so that whoever asks gets them whatever became of ours.
pub(crate) struct Offer {
    sockets: Vec<OwnedFd>,
    line: Line,
}

impl Offer {
    pub(crate) fn new(tcp: &[TcpListener], unix: Option<(&UnixListener, &Path)>) -> std::io::Result<Self> {
        let mut sockets = Vec::new();
        for listener in tcp {
            sockets.push(listener.as_fd().try_clone_to_owned()?);
        }
        if let Some((listener, _)) = unix {
            sockets.push(listener.as_fd().try_clone_to_owned()?);
        }
        if sockets.len() > MOST {
            return Err(broken(format!("more than {MOST} sockets cannot be handed over")));
        }
        let line = Line { tcp: tcp.len(), unix: unix.map(|(_, path)| path.to_owned()) };
        Ok(Self { sockets, line })
    }

    fn send(&self, stream: &UnixStream) -> std::io::Result<()> {
        let line = serde_json::to_vec(&self.line).map_err(|e| broken(e.to_string()))?;
        let fds: Vec<BorrowedFd<'_>> = self.sockets.iter().map(OwnedFd::as_fd).collect();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(broken("too many sockets"));
        }
        let sent = rustix::net::sendmsg(stream, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)?;
        if sent == line.len() { Ok(()) } else { Err(broken("the line was cut")) }
    }
}

/// Listens for a successor. Only the same user may connect.
pub(crate) fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if StdUnixStream::connect(path).is_ok() {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    let _ = std::fs::remove_file(path);
    // Nobody can connect between the two: a new file has the rights that the folder and the mask give it.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Waits for a successor, hands over, and says so by `handed_over`; then cancels what the successor passes on, until it is
/// gone.
pub(crate) async fn serve(
    listener: UnixListener,
    path: PathBuf,
    offer: Offer,
    shared: Arc<Shared>,
    handed_over: impl FnOnce(),
) {
    let mut successor = loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot hear a successor");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        match tokio::time::timeout(PATIENCE, hand_over(stream, &offer)).await {
            Ok(Ok(stream)) => break stream,
            Ok(Err(error)) => tracing::warn!(%error, "a successor did not get ready; this process goes on"),
            Err(_) => tracing::warn!("a successor did not get ready in time; this process goes on"),
        }
    };
    handed_over();
    drop(offer);
    drop(listener);
    let _ = std::fs::remove_file(path);
    if successor.write_all(b"K").await.is_err() {
        return;
    }
    let mut bytes = [0; 8];
    while successor.read_exact(&mut bytes).await.is_ok() {
        let (process, secret) = bytes.split_at(4);
        let (Ok(process), Ok(secret)) = (process.try_into(), secret.try_into()) else { return };
        let key = CancelKey { process: i32::from_be_bytes(process), secret };
        if let Some(target) = shared.cancels.find(&key) {
            target.cancel().await;
        } else {
            shared.older.cancel(&key);
        }
    }
}

async fn hand_over(mut stream: UnixStream, offer: &Offer) -> std::io::Result<UnixStream> {
    stream.writable().await?;
    offer.send(&stream)?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    if answer == *b"R" { Ok(stream) } else { Err(broken("it says something else than that it is ready")) }
}
