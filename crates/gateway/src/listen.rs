//! Listening: each connection goes to a worker, logs in, and becomes a session, where there is room for one more.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};

use crate::backend::Stream;
use crate::frame::Buffer;
use crate::login::Proven;
use crate::peers::Peer;
use crate::refusal::{Refusal, code};
use crate::server::Shared;
use crate::session::Client;
use crate::strangers::{Origin, Place};
use crate::worker::Workers;
use crate::{console, login, proxy_header, session, sockets};

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
                let Some(stream) = shared.with_room(stream) else { continue };
                let Ok(stream) = stream.into_std() else { continue };
                let Some(place) = shared.strangers.place(shared.origin(address)) else { continue };
                hand_over(&shared, &workers, (Some(address), place), move || {
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

/// Gives a client to a worker, in whose runtime `open` makes its stream. Its address is absent for the Unix socket.
fn hand_over(
    shared: &Arc<Shared>,
    workers: &Workers,
    (address, place): (Option<SocketAddr>, (Place, oneshot::Receiver<()>)),
    open: impl FnOnce() -> std::io::Result<Box<dyn Stream>> + Send + 'static,
) {
    let shared = Arc::clone(shared);
    workers.send(move || {
        tokio::spawn(async move {
            let served = async { client(&shared, open()?, address, place).await };
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
        match accepted {
            Ok((stream, _)) => {
                let Some(stream) = shared.with_room(stream) else { continue };
                let Ok(stream) = stream.into_std() else { continue };
                let Some(place) = shared.strangers.place(Origin::Unix) else { continue };
                let open = move || Ok(Box::new(UnixStream::from_std(stream)?) as Box<dyn Stream>);
                hand_over(&shared, &workers, (None, place), open);
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

/// Counts a client that has logged in, while it is there.
struct Counted<'a>(&'a Shared);

impl<'a> Counted<'a> {
    /// `None` if there are too many.
    fn new(shared: &'a Shared) -> Option<Self> {
        let more = |clients: usize| (clients < shared.config.max_clients).then(|| clients + 1);
        shared.clients.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self(shared))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts a principal's connections.
struct OfPrincipal<'a> {
    shared: &'a Shared,
    name: String,
}

impl<'a> OfPrincipal<'a> {
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

impl Drop for OfPrincipal<'_> {
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

/// Where a client is.
struct From {
    /// Its address, as far as it has one.
    address: Option<SocketAddr>,
    /// What it sends goes over no network.
    is_local: bool,
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// One connection, from its first byte.
async fn client(
    shared: &Arc<Shared>,
    mut stream: Box<dyn Stream>,
    address: Option<SocketAddr>,
    (mut place, ended): (Place, oneshot::Receiver<()>),
) -> std::io::Result<()> {
    let mut buffer = Buffer::default();
    let mut from = From { is_local: address.is_none_or(is_loopback), address };
    let login = async {
        if matches!(place.origin(), Origin::Balancer(_)) {
            let read = proxy_header::read(&mut stream).await;
            let source = read.inspect_err(|_| shared.strangers.has_no_header())?.or(address);
            let Some(source) = source else { return Ok(None) };
            from.address = Some(source);
            from.is_local &= is_loopback(source);
            if !place.is_from(Origin::Network(Peer::new(source.ip()))) {
                return Ok(None);
            }
        }
        login::run(shared, &mut stream, &mut buffer, &place, from.is_local).await
    };
    let login = tokio::time::timeout(shared.config.login_timeout, Box::pin(login));
    let proven = tokio::select! {
        biased;
        proven = login => proven,
        _ = ended => return Ok(()),
    };
    let Ok(proven) = proven else { return Ok(()) };
    let Some(Proven { principal, startup, proof, given, device, shown }) = proven? else { return Ok(()) };
    let Some(_counted) = Counted::new(shared) else {
        let refusal = Refusal::new(code::TOO_MANY_CONNECTIONS, "the gateway has too many clients");
        let hint = "Close some, or have gateway.max_clients raised.";
        return login::refuse(&mut stream, &refusal.hint(hint)).await;
    };
    drop(place);
    let Some(_one) = OfPrincipal::take(shared, &principal.name) else {
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
    let address = from.address.map_or_else(|| "unix".to_owned(), |a| a.to_string());
    let who = Client { principal, startup, proof, given, device, shown, address };
    Box::pin(session::run(shared, stream, buffer, who)).await
}
