//! RabbitMQ's management API: what AMQP itself has no words for, users and their rights and policies.

use std::time::Duration;

use invoke_protocol::id::ClusterName;
use invoke_protocol::topology::{DELIVERY_LIMIT, command_queue, runner_user};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use url::Url;

use crate::broker::Target;

/// The management API, as the user of the AMQP URL.
#[derive(Debug, Clone)]
pub struct BrokerAdmin {
    client: Client,
    url: Url,
    username: String,
    password: String,
    vhost: String,
}

/// Why RabbitMQ did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client cannot be set up.
    #[error("cannot set up the client for RabbitMQ's management API")]
    Client(#[source] reqwest::Error),
    /// The address cannot have a path.
    #[error("{0} is no address of a management API")]
    Address(Url),
    /// There is no answer.
    #[error("RabbitMQ's management API does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// The answer is no.
    #[error("RabbitMQ's management API answered {status} to {path}")]
    Refused {
        /// What it answered.
        status: reqwest::StatusCode,
        /// What it was asked.
        path: String,
    },
}

impl BrokerAdmin {
    /// Sets up the client; connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Client`].
    pub fn new(target: &Target) -> Result<Self, Error> {
        let mut client = Client::builder()
            .timeout(Duration::from_secs(10))
            .no_proxy();
        if let Some(pem) = &target.ca_pem {
            let authorities =
                reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(Error::Client)?;
            client = client.tls_certs_merge(authorities);
        }
        let user = &target.uri.authority.userinfo;
        Ok(Self {
            client: client.build().map_err(Error::Client)?,
            url: target.management_url.clone(),
            username: user.username.clone(),
            password: user.password.clone(),
            vhost: target.uri.vhost.clone(),
        })
    }

    /// Makes the cluster's user, with this password, able to read the cluster's queue and nothing else:
    /// not to declare, not to bind, not to publish.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn grant(&self, cluster: &ClusterName, password: &str) -> Result<(), Error> {
        let user = runner_user(cluster);
        self.put(
            &["users", &user],
            &json!({ "password": password, "tags": "" }),
        )
        .await?;
        let rights = json!({ "configure": "", "write": "", "read": queue_pattern(cluster) });
        self.put(&["permissions", &self.vhost, &user], &rights)
            .await
    }

    /// Sets the limits that all command queues have. An order that was delivered so often and never
    /// acknowledged makes its runner fail: it goes to the dead letters instead of round in circles. The
    /// queues are declared with that limit; the policy is where an operator sees it, and can lower it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_policy(&self) -> Result<(), Error> {
        let policy = json!({
            "pattern": "^cmd\\.",
            "definition": { "delivery-limit": DELIVERY_LIMIT },
            "apply-to": "queues",
            "priority": 0,
        });
        self.put(&["policies", &self.vhost, "invoke-commands"], &policy)
            .await
    }

    async fn put(&self, path: &[&str], body: &Value) -> Result<(), Error> {
        let mut url = self.url.clone();
        // Each part is escaped by itself: the virtual host is called "/" more often than not.
        url.path_segments_mut()
            .map_err(|()| Error::Address(self.url.clone()))?
            .pop_if_empty()
            .push("api")
            .extend(path);
        let request = self
            .client
            .request(Method::PUT, url)
            .basic_auth(&self.username, Some(&self.password));
        let response = request
            .json(body)
            .send()
            .await
            .map_err(|error| Error::Unreachable(error.without_url()))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(Error::Refused {
                status,
                path: path.join("/"),
            }),
        }
    }
}

/// RabbitMQ reads rights as regular expressions: anchored, or `cmd.a` could read `cmd.ab`. A cluster's
/// name is letters, digits and hyphens, none of which means anything here; the one dot is escaped.
fn queue_pattern(cluster: &ClusterName) -> String {
    format!("^{}$", command_queue(cluster).replace('.', "\\."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_reads_its_own_queue_only() {
        assert_eq!(queue_pattern(&"edge-7".parse().unwrap()), r"^cmd\.edge-7$");
    }
}
