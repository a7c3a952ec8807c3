//! The listener: TLS, HTTP/1.1 and HTTP/2, and nothing without TLS.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A peer that has not finished its TLS handshake by then is let go: connections of strangers would use
/// up our file descriptors.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// The same for a request's headers on HTTP/1.1. Between two requests this is how long a connection may
/// rest: longer than clients usually keep one they do not use, so that it is they who close it.
const HEADERS_WITHIN: Duration = Duration::from_secs(100);

/// When nothing is heard from an HTTP/2 peer for so long, it is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A peer that does not answer that by then is gone.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// How long requests may take to finish after a stop. Long ones were told to end and need not.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// Serves until `stop`, then lets the requests that are under way finish.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    routes: Router,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(connection(
                    stream,
                    acceptor.clone(),
                    routes.clone(),
                    connections.watcher(),
                ));
            }
            Err(error) => {
                // Mostly "too many open files": a connection that ends gives one back.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(FINISH_WITHIN, connections.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            "some requests did not finish within {} s and are cut off",
            FINISH_WITHIN.as_secs()
        );
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, routes: Router, watcher: Watcher) {
    // Small answers go out at once. Where it cannot be set, they are slower.
    let _slower = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!("a TLS handshake failed: {error}"),
        Err(_elapsed) => return tracing::debug!("a TLS handshake took too long"),
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    if let Err(error) = watcher.watch(serving.into_owned()).await {
        tracing::debug!("a connection ended: {error}");
    }
}
