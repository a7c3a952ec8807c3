//! Which RabbitMQ it is, by the options; checked.

use std::path::PathBuf;

use lapin::uri::{AMQPScheme, AMQPUri};
use url::Url;

use super::Error;
use crate::options::{Amqp, QueueType};

/// Which RabbitMQ, checked.
#[derive(Debug, Clone)]
pub struct Target {
    pub(crate) uri: AMQPUri,
    pub(crate) management_url: Url,
    pub(crate) public_url: String,
    pub(crate) ca_pem: Option<String>,
    pub(crate) queue_type: QueueType,
}

/// A frozen broker is known after twice this.
const HEARTBEAT_SECONDS: u16 = 10;

impl Target {
    /// Checks the options. Without TLS only to this machine.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Plain`], [`Error::Ca`].
    pub fn new(options: &Amqp) -> Result<Self, Error> {
        let mut uri: AMQPUri = options.amqp_url.parse().map_err(Error::Url)?;
        if uri.scheme == AMQPScheme::AMQP && !is_loopback(&uri.authority.host) {
            return Err(Error::Plain(
                format!("RabbitMQ at {}", uri.authority.host),
                "amqps://",
            ));
        }
        let management = options.amqp_management_url.host_str().unwrap_or_default();
        if options.amqp_management_url.scheme() == "http" && !is_loopback(management) {
            return Err(Error::Plain(
                format!("RabbitMQ's management API at {management}"),
                "https://",
            ));
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| Error::Ca(path.clone(), error))
        };
        Ok(Self {
            management_url: options.amqp_management_url.clone(),
            public_url: public_url(options)?,
            ca_pem: options.amqp_ca.as_ref().map(read).transpose()?,
            queue_type: options.amqp_queue_type,
            uri,
        })
    }
}

/// What runners dial: as it is given, or as we dial it; never with a user.
fn public_url(options: &Amqp) -> Result<String, Error> {
    let parsed = options
        .amqp_public_url
        .clone()
        .map_or_else(|| options.amqp_url.parse::<Url>(), Ok);
    let mut url = parsed.map_err(|error| Error::Url(error.to_string()))?;
    let without_user = url.set_username("").and_then(|()| url.set_password(None));
    without_user.map_err(|()| Error::Url("it has no host".to_owned()))?;
    Ok(url.into())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amqp(url: &str, management: &str) -> Amqp {
        Amqp {
            amqp_url: url.to_owned(),
            amqp_public_url: None,
            amqp_management_url: management.parse().unwrap(),
            amqp_ca: None,
            amqp_queue_type: QueueType::Quorum,
        }
    }

    #[test]
    fn clear_text_stays_on_this_machine() {
        let local = "http://localhost:15672";
        for url in [
            "amqp://localhost:5672/%2f",
            "amqp://127.0.0.1/%2f",
            "amqp://[::1]/%2f",
            "amqps://rabbit.example/%2f",
        ] {
            assert!(Target::new(&amqp(url, local)).is_ok(), "{url}");
        }
        for url in [
            "amqp://rabbit.example/%2f",
            "amqp://10.0.0.1/%2f",
            "amqp://localhost.example/%2f",
        ] {
            assert!(
                matches!(Target::new(&amqp(url, local)), Err(Error::Plain(..))),
                "{url}"
            );
        }
        let remote = amqp("amqps://rabbit.example/%2f", "http://rabbit.example:15672");
        assert!(matches!(Target::new(&remote), Err(Error::Plain(..))));
    }

    /// Runners have a user of their own.
    #[test]
    fn runners_are_not_given_our_password() {
        let target = Target::new(&amqp(
            "amqps://admin:secret@rabbit.example:5671/%2f",
            "https://rabbit.example",
        ))
        .unwrap();
        assert_eq!(target.public_url, "amqps://rabbit.example:5671/%2f");
    }
}
