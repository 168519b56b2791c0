//! Takes connections, by TLS where there is a certificate. The console shares a process with the gateway, and so its file descriptors:
//! connections are counted, and whoever is slow is let go.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use ringfence_gateway::peers::Peer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::util::MapRequest;

use crate::{Desk, pages};

/// The most connections at once; who comes later waits.
const MOST: usize = 1024;
/// How long somebody may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long they may take to say what they want, also for the next time on the same connection.
const HEAD: Duration = Duration::from_secs(20);
/// How long a connection lasts at most.
const LONGEST: Duration = Duration::from_secs(600);

/// Serves until the process ends.
pub(crate) async fn serve(listener: std::net::TcpListener, desk: Arc<Desk>) {
    if let Err(problem) = accept(listener, desk).await {
        tracing::error!(%problem, "the console has ended");
    }
}

async fn accept(listener: std::net::TcpListener, desk: Arc<Desk>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let acceptor = desk.config.tls.clone().map(TlsAcceptor::from);
    let router = pages::router(Arc::clone(&desk));
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await; // no file descriptors, for the moment
            continue;
        };
        let peer = Peer::new(from.ip());
        let Some(held) = desk.limits.connection(peer) else { continue };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let _places = (place, held);
            let _ = timeout(LONGEST, async {
                match acceptor {
                    None => talk(stream, router, peer).await,
                    Some(acceptor) => {
                        if let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await {
                            talk(stream, router, peer).await;
                        }
                    }
                }
            })
            .await;
        });
    }
}

/// One connection, to its end. Why it ended is between the two of them.
async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, peer: Peer) {
    let service = MapRequest::new(router, move |mut request: Request<_>| {
        request.extensions_mut().insert(peer);
        request
    });
    let mut http = Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    let _ = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
}
