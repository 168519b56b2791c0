//! What is set on the socket of a connection.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

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
