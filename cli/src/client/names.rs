//! Names to addresses, by the system's resolver, with an error of our own: the one that the HTTP
//! client makes of it cannot be told from other failures to connect.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// No address for a host.
#[derive(Debug, thiserror::Error)]
#[error("the name {host} cannot be resolved")]
pub(super) struct NameUnknown {
    host: String,
    #[source]
    source: std::io::Error,
}

/// The system's resolver.
#[derive(Debug)]
pub(super) struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            // The port is filled in by the client.
            let found = tokio::net::lookup_host((host.as_str(), 0))
                .await
                .map(Iterator::collect);
            match found {
                Ok::<Vec<_>, _>(addresses) => Ok(Box::new(addresses.into_iter()) as Addrs),
                Err(source) => Err(NameUnknown { host, source }.into()),
            }
        })
    }
}
