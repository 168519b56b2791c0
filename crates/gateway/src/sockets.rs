//! What is set on the socket of a connection.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Has the kernel close a connection whose other side is gone without a word: after half a minute in which
/// nothing was said and three probes, or a minute in which nothing was taken.
pub(crate) fn notice_loss(stream: &TcpStream) {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    let socket = SockRef::from(stream);
    let set = socket
        .set_tcp_keepalive(&probes)
        .and_then(|()| socket.set_tcp_user_timeout(Some(Duration::from_secs(60))));
    if let Err(error) = set {
        tracing::debug!(%error, "a connection cannot be probed");
    }
}
