//! Takes connections, by TLS where there is a certificate.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::{Desk, pages};

/// How long somebody may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that have shaken hands and are not served yet.
const WAITING: usize = 64;

/// Serves until the process ends.
pub(crate) async fn serve(listener: std::net::TcpListener, desk: Arc<Desk>) {
    let served = async {
        let listener = TcpListener::from_std(listener)?;
        let tls = desk.config.tls.clone();
        let router = pages::router(desk);
        match tls {
            None => axum::serve(listener, router).await,
            Some(tls) => {
                let address = listener.local_addr()?;
                let (send, receive) = mpsc::channel(WAITING);
                tokio::spawn(shake_hands(listener, TlsAcceptor::from(tls), send));
                axum::serve(Shaken { receive, address }, router).await
            }
        }
    };
    if let Err(problem) = served.await {
        tracing::error!(%problem, "the console has ended");
    }
}

/// Each handshake in a task of its own: somebody who is slow holds nobody up.
async fn shake_hands(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    send: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await; // no file descriptors, for the moment
            continue;
        };
        let (acceptor, send) = (acceptor.clone(), send.clone());
        tokio::spawn(async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                let _ = send.send((stream, from)).await;
            }
        });
    }
}

struct Shaken {
    receive: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl Listener for Shaken {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.receive.recv().await {
            Some((stream, from)) => (Stream(stream), from),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

/// A connection.
struct Stream(TlsStream<TcpStream>);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
