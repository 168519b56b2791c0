//! What is set on the socket of a connection.

use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// So many file descriptors are kept for the log, the stores, and what else the process opens.
const KEPT: u64 = 256;

/// Raises the limit of open files to what the system allows, and says what it is.
pub(crate) fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.unwrap_or(u64::MAX)
}

/// Whether a new connection of a client leaves room for the log's own files. The kernel gives the lowest number
/// that is free, so a high number says that all below it are in use.
pub(crate) fn leaves_room(descriptor: &impl AsRawFd, limit: u64) -> bool {
    let number = u64::try_from(descriptor.as_raw_fd()).unwrap_or_default();
    number < limit.saturating_sub(KEPT).max(limit / 2)
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
