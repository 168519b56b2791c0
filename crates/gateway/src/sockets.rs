//! What is set on the socket of a connection.

use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// So many file descriptors no client gets: they are for stores, the log, and what else the process opens.
const KEPT: u64 = 256;
/// So many no connection to a store gets.
const KEPT_FOR_LOG: u64 = 64;

/// The limit of open files, raised to what the system allows.
pub(crate) fn limit() -> u64 {
    static LIMIT: OnceLock<u64> = OnceLock::new();
    *LIMIT.get_or_init(raise_limit)
}

/// Warns where the limit of open files does not fit the clients: each may need a connection to a store.
pub(crate) fn check_limit(max_clients: usize) {
    let wanted = (max_clients as u64).saturating_mul(2).saturating_add(KEPT);
    if limit() < wanted {
        tracing::warn!(
            limit = limit(),
            wanted,
            "raise the limit of open files (ulimit -n), or lower max_clients"
        );
    }
}

/// Whether the number of a descriptor is below `most`. The kernel gives the lowest number that is
/// free, so a high number says that all below it are in use.
fn is_below(descriptor: &impl AsRawFd, most: u64) -> bool {
    u64::try_from(descriptor.as_raw_fd()).unwrap_or_default() < most
}

/// A new connection to a store, if it leaves room for the log's own files.
pub(crate) fn with_room<T: AsRawFd>(stream: T) -> std::io::Result<T> {
    if is_below(&stream, limit().saturating_sub(KEPT_FOR_LOG)) {
        Ok(stream)
    } else {
        Err(std::io::Error::other("too many files are open"))
    }
}

/// Whether a new connection of a client leaves room for more.
pub(crate) fn leaves_room(descriptor: &impl AsRawFd) -> bool {
    is_below(descriptor, limit().saturating_sub(KEPT).max(limit() / 2))
}

fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.unwrap_or(u64::MAX)
}

/// Has the kernel close a connection whose other side is gone without a word: after half a minute in which
/// nothing was said, three probes. There is no `TCP_USER_TIMEOUT`: it would also end a client that reads nothing
/// for a while, as a pager does.
pub(crate) fn notice_loss(stream: &TcpStream) {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "a connection cannot be probed");
    }
}
