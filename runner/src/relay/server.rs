//! The listener: TLS and HTTP/1.1, nothing else.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// For a TLS handshake, and for a request's headers.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is read, or waits to be written, of one connection: a shim that is slow costs no more.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long shims are still let in after a stop: until every node knows that this replica is gone.
const LINGER: Duration = Duration::from_secs(3);

/// How long requests may take to finish after that.
const FINISH_WITHIN: Duration = Duration::from_secs(15);

/// The certificate in the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidCertificate {
    #[error("the door's certificate or key cannot be read")]
    Pem(#[source] rustls::pki_types::pem::Error),
    #[error("the door's certificate and key are not usable together")]
    Unusable(#[source] rustls::Error),
}

/// The door's TLS, from PEM.
pub(crate) fn tls(certificate: &str, key: &str) -> Result<Arc<ServerConfig>, InvalidCertificate> {
    let certificate =
        CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(InvalidCertificate::Pem)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(InvalidCertificate::Pem)?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    config.map(Arc::new).map_err(InvalidCertificate::Unusable)
}

/// Serves until a little after `stop`, then lets the requests that are under way finish.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    routes: Router,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = GracefulShutdown::new();
    let closing = async {
        stop.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::pin!(closing);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut closing => break,
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
                tracing::warn!("a shim cannot be let in: {error}");
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
            "some requests did not finish within {} s; their shims ask another replica",
            FINISH_WITHIN.as_secs()
        );
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, routes: Router, watcher: Watcher) {
    // Small answers go out at once. Where it cannot be set, they are slower.
    let _slower = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!("a TLS handshake failed: {error}"),
        Err(_elapsed) => return tracing::debug!("a TLS handshake took too long"),
    };
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(BUFFER_BYTES);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    if let Err(error) = watcher.watch(serving.into_owned()).await {
        tracing::debug!("a shim's connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;

    #[test]
    fn what_is_made_at_enrolment_opens_the_door() {
        let (one, other) = (identity(), identity());
        assert!(tls(&one.door_certificate, &one.door_key).is_ok());
        assert!(tls(&one.door_certificate, &other.door_key).is_err());
    }
}
