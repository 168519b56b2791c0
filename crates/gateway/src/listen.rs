//! Listening: each connection goes to a worker, logs in, and becomes a session, where there is room for one more.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

use crate::backend::Stream;
use crate::frame::Buffer;
use crate::login::Proven;
use crate::refusal::{Refusal, code};
use crate::server::Shared;
use crate::session::Client;
use crate::worker::Workers;
use crate::{console, login, session, sockets};

/// Takes TCP connections and gives each to a worker.
pub async fn accept(
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    listener: TcpListener,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.changed() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let Ok(stream) = stream.into_std() else { continue };
                hand_over(&shared, &workers, Some(address), move || {
                    let stream = TcpStream::from_std(stream)?;
                    stream.set_nodelay(true)?;
                    sockets::notice_loss(&stream);
                    Ok(Box::new(stream))
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Gives a client to a worker, in whose runtime `open` makes its stream. `address` is absent for the Unix socket.
fn hand_over(
    shared: &Arc<Shared>,
    workers: &Workers,
    address: Option<SocketAddr>,
    open: impl FnOnce() -> std::io::Result<Box<dyn Stream>> + Send + 'static,
) {
    let shared = Arc::clone(shared);
    workers.send(move || {
        tokio::spawn(async move {
            let _counted = Counted::new(&shared);
            let served = async { client(&shared, open()?, address).await };
            if let Err(error) = served.await {
                tracing::debug!(?address, %error, "a client's connection ended");
            }
        });
    });
}

/// Where the listeners listen.
pub fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// Takes the place of a socket that a gateway left when it died, but not of one that somebody listens on.
pub fn bind_unix(path: &Path) -> std::io::Result<(UnixListener, PathBuf)> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    // As PostgreSQL's default (unix_socket_permissions): who may connect is decided by the login.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    Ok((listener, path.to_owned()))
}

/// The same for the Unix socket, which goes when the gateway stops.
pub async fn accept_unix(
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    listener: UnixListener,
    path: PathBuf,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.changed() => break,
        };
        match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                hand_over(&shared, &workers, None, move || Ok(Box::new(UnixStream::from_std(stream)?)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    if !shared.is_handed_over.load(Ordering::Acquire) {
        let _ = std::fs::remove_file(path);
    }
}

/// Counts a client while it is there.
struct Counted<'a>(&'a Shared);

impl<'a> Counted<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.clients.fetch_add(1, Ordering::AcqRel);
        Self(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts a principal's connections.
struct Place<'a> {
    shared: &'a Shared,
    name: String,
}

impl<'a> Place<'a> {
    fn take(shared: &'a Shared, name: &str) -> Option<Self> {
        let mut counts = shared.by_principal.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.to_owned()).or_default();
        if *count >= shared.config.max_per_principal {
            return None;
        }
        *count += 1;
        Some(Self { shared, name: name.to_owned() })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = self.shared.by_principal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.name);
            }
        }
    }
}

/// One connection, from its first byte.
async fn client(
    shared: &Arc<Shared>,
    mut stream: Box<dyn Stream>,
    address: Option<SocketAddr>,
) -> std::io::Result<()> {
    let mut buffer = Buffer::default();
    let login = Box::pin(login::run(shared, &mut stream, &mut buffer, address.is_some()));
    let Ok(proven) = tokio::time::timeout(shared.config.login_timeout, login).await else { return Ok(()) };
    let Some(Proven { principal, startup, proof, given, device, shown }) = proven? else { return Ok(()) };
    let Some(_place) = Place::take(shared, &principal.name) else {
        let most = shared.config.max_per_principal;
        let refusal = Refusal::new(
            code::TOO_MANY_CONNECTIONS,
            format!("{} has {most} connections already", principal.name),
        );
        let hint = "Close some, or have max_connections_per_principal raised.";
        return login::refuse(&mut stream, &refusal.hint(hint)).await;
    };
    if startup.database == console::NAME {
        return console::run(shared, stream, buffer, principal, given).await;
    }
    let address = address.map_or_else(|| "unix".to_owned(), |a| a.to_string());
    let who = Client { principal, startup, proof, given, device, shown, address };
    Box::pin(session::run(shared, stream, buffer, who)).await
}
