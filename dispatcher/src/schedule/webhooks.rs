//! Tells webhooks what they are to be told, until they have heard it or it is too late.
//!
//! A delivery is signed as <https://www.standardwebhooks.com> says, with a key that is made for the schedule:
//! its receiver can tell who sent it, and has seen an id before if it comes again. It goes to public addresses
//! only, unless the operator says otherwise: whoever may make a schedule could else have the dispatcher knock at
//! doors that are open to it alone. The address is looked up once for each attempt, checked, and dialled as it
//! was checked; a redirect is not followed.

mod address;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::future::join_all;
use invoke_protocol::id::ScheduleId;
use jiff::Timestamp;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

use crate::clock;
use crate::problem::chain;
use crate::signing::{self, random_bytes};
use crate::store::notifications::LeasedNotification;
use crate::store::{self, Store, secrets};

/// How often the store is asked for what is to be told.
const ROUND: Duration = Duration::from_secs(1);

/// How many are told at the same time.
const AT_ONCE: u32 = 16;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The rest after a first failure; three times as long after each, up to [`MAX_REST`].
const FIRST_REST: Duration = Duration::from_secs(5);
/// The longest rest.
const MAX_REST: Duration = Duration::from_secs(60 * 60);

/// How often it is tried: for about half a day.
const MAX_ATTEMPTS: u32 = 16;

/// The keys of schedules' webhooks.
#[derive(Debug)]
pub struct WebhookKeys {
    root: hmac::Key,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not give the root.
    #[error("cannot read or write the key of webhooks")]
    Store(#[from] store::Error),
    /// There is no randomness.
    #[error("cannot make a key of webhooks")]
    Random(#[from] signing::Error),
}

impl WebhookKeys {
    /// Loads the root, or makes it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn load_or_make(store: &Store) -> Result<Self, Error> {
        let mut session = store.write().await?;
        let root = secrets::get_or_set(&mut session, "webhook_key", &random_bytes()?).await?;
        session.commit().await?;
        Ok(Self {
            root: hmac::Key::new(hmac::HMAC_SHA256, &root),
        })
    }

    /// The key of a schedule: of no other, and the same for ever.
    fn key(&self, schedule: ScheduleId) -> Vec<u8> {
        let tag = hmac::sign(&self.root, schedule.as_uuid().as_bytes());
        tag.as_ref().to_vec()
    }

    /// The same, as its receiver is given it.
    #[must_use]
    pub fn text(&self, schedule: ScheduleId) -> String {
        format!("whsec_{}", BASE64.encode(self.key(schedule)))
    }

    /// The signature of a delivery.
    fn sign(&self, schedule: ScheduleId, id: &str, seconds: i64, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key(schedule));
        let signed = format!("{id}.{seconds}.{body}");
        let tag = hmac::sign(&key, signed.as_bytes());
        format!("v1,{}", BASE64.encode(tag.as_ref()))
    }
}

/// Why an address of a webhook is refused, or was not reached.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No address at all.
    #[error("{0:?} is no address of a webhook: write one such as https://hooks.example.com/invoke")]
    Unreadable(String),
    /// Not over TLS.
    #[error(
        "a webhook is told over https only, not {0}, unless the operator starts the dispatcher with --private-webhooks"
    )]
    Scheme(String),
    /// A user in the address.
    #[error(
        "a webhook's address has no user and no password in it: what is sent is signed, see `invoke schedule webhook-key`"
    )]
    Credentials,
    /// Not to be knocked at.
    #[error(
        "{0} is a private address: no webhook is told there unless the operator starts the dispatcher with \
         --private-webhooks"
    )]
    Private(IpAddr),
    /// It leads to where nobody is to knock.
    #[error(
        "{0} is at {1}, which is a private address: no webhook is told there unless the operator starts the \
         dispatcher with --private-webhooks"
    )]
    AtPrivate(String, IpAddr),
    /// No such host.
    #[error("the address of {0} is not to be had")]
    Lookup(String, #[source] std::io::Error),
    /// It did not answer.
    #[error("{0} does not answer")]
    Call(String, #[source] reqwest::Error),
    /// It answered something else.
    #[error("{0} answered {1}")]
    Answer(String, StatusCode),
    /// It sent us elsewhere.
    #[error("{0} answered {1}: a redirect is not followed, so give the address that it leads to")]
    Redirect(String, StatusCode),
}

/// Reads the address of a webhook.
///
/// # Errors
/// [`Failure`] if none may be told there, as far as that can be said without looking it up.
pub fn parse(text: &str, private_allowed: bool) -> Result<Url, Failure> {
    let unreadable = || Failure::Unreadable(text.chars().take(80).collect());
    let url: Url = text.parse().map_err(|_| unreadable())?;
    match url.scheme() {
        "https" => {}
        "http" if private_allowed => {}
        other => return Err(Failure::Scheme(other.chars().take(20).collect())),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::Credentials);
    }
    let literal = match url.host().ok_or_else(unreadable)? {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
    };
    match literal {
        Some(address) if !private_allowed && !address::is_public(address) => {
            Err(Failure::Private(address))
        }
        _ => Ok(url),
    }
}

/// What tells webhooks.
pub struct Webhooks {
    /// Where it is noted what they are to be told.
    pub store: Store,
    /// To sign with.
    pub keys: Arc<WebhookKeys>,
    /// Whether private addresses may be told.
    pub private_allowed: bool,
}

impl Webhooks {
    /// Tells until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let all = match self.round(clock::now()).await {
                Ok(told) => told < AT_ONCE as usize,
                Err(error) => {
                    tracing::warn!("webhooks are not told: {}", chain(&error));
                    true
                }
            };
            let pause = if all { ROUND } else { Duration::ZERO };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Tells those that are due, once. Answers how many they were.
    ///
    /// # Errors
    /// [`store::Error`].
    pub async fn round(&self, now: Timestamp) -> Result<usize, store::Error> {
        let leased = self.store.lease_notifications(AT_ONCE, now).await?;
        let told = join_all(leased.iter().map(|notification| self.tell(notification))).await;
        told.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(leased.len())
    }

    async fn tell(&self, notification: &LeasedNotification) -> Result<(), store::Error> {
        let (id, attempts) = (notification.id, notification.attempts);
        let Err(failure) = self.deliver(notification).await else {
            return self.store.notified(id, None, clock::now()).await;
        };
        let words = chain(&failure).to_string();
        if attempts >= MAX_ATTEMPTS {
            tracing::error!(
                alarm = true,
                "a webhook was not told after {attempts} attempts: {words}"
            );
            return self.store.notified(id, Some(&words), clock::now()).await;
        }
        tracing::warn!("a webhook was not told, attempt {attempts}: {words}");
        self.store
            .not_notified(id, &words, rest(attempts), clock::now())
            .await
    }

    async fn deliver(&self, notification: &LeasedNotification) -> Result<(), Failure> {
        let url = parse(&notification.url, self.private_allowed)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let addresses = self.addresses(&url, &host).await?;
        // Its whole address may be what admits us there, and this goes to the log.
        let called = |error: reqwest::Error| Failure::Call(host.clone(), error.without_url());
        let client = Client::builder()
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            // A proxy would look the name up itself, and dial what it finds.
            .no_proxy()
            .resolve_to_addrs(&host, &addresses)
            .build()
            .map_err(called)?;
        let id = notification.id.to_string();
        let seconds = clock::now().as_second();
        let body = &notification.body;
        let answer = client
            .post(url)
            .header("content-type", "application/json")
            .header("user-agent", concat!("invoke/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &id)
            .header("webhook-timestamp", seconds.to_string())
            .header(
                "webhook-signature",
                self.keys.sign(notification.schedule, &id, seconds, body),
            )
            .body(body.clone())
            .send()
            .await
            .map_err(called)?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(Failure::Redirect(host, status)),
            status => Err(Failure::Answer(host, status)),
        }
    }

    /// The addresses of a webhook's host, all of which may be dialled.
    async fn addresses(&self, url: &Url, host: &str) -> Result<Vec<SocketAddr>, Failure> {
        let port = url.port_or_known_default().unwrap_or(443);
        // As a host name is looked up: without the brackets that an IPv6 address has in a URL.
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((name, port)).await;
        let found: Vec<_> = found
            .map_err(|error| Failure::Lookup(host.to_owned(), error))?
            .collect();
        let private = found.iter().find(|found| !address::is_public(found.ip()));
        match private {
            Some(private) if !self.private_allowed => {
                Err(Failure::AtPrivate(host.to_owned(), private.ip()))
            }
            _ => Ok(found),
        }
    }
}

/// How long to rest after so many attempts.
fn rest(attempts: u32) -> Duration {
    let times = 3_u32.saturating_pow(attempts.saturating_sub(1));
    FIRST_REST.saturating_mul(times).min(MAX_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_https_addresses_are_told() {
        for good in ["https://hooks.example.com/invoke?x=1", "https://1.1.1.1/"] {
            assert!(parse(good, false).is_ok(), "{good}");
        }
        let bad = [
            "hooks.example.com",
            "http://hooks.example.com/",
            "file:///etc/passwd",
            "https://ann:secret@hooks.example.com/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://0x7f.1/",
        ];
        let words = bad.map(|text| parse(text, false).unwrap_err().to_string());
        insta::assert_snapshot!(words.join("\n"), @r#"
        "hooks.example.com" is no address of a webhook: write one such as https://hooks.example.com/invoke
        a webhook is told over https only, not http, unless the operator starts the dispatcher with --private-webhooks
        a webhook is told over https only, not file, unless the operator starts the dispatcher with --private-webhooks
        a webhook's address has no user and no password in it: what is sent is signed, see `invoke schedule webhook-key`
        127.0.0.1 is a private address: no webhook is told there unless the operator starts the dispatcher with --private-webhooks
        ::1 is a private address: no webhook is told there unless the operator starts the dispatcher with --private-webhooks
        ::ffff:10.0.0.1 is a private address: no webhook is told there unless the operator starts the dispatcher with --private-webhooks
        169.254.169.254 is a private address: no webhook is told there unless the operator starts the dispatcher with --private-webhooks
        127.0.0.1 is a private address: no webhook is told there unless the operator starts the dispatcher with --private-webhooks
        "#);
        assert!(parse("http://10.0.0.1:8080/hook", true).is_ok());
        assert!(parse("ftp://10.0.0.1/", true).is_err());
    }

    /// The example of the specification's own reference implementation: what a receiver's library verifies.
    #[test]
    fn a_signature_is_the_one_that_receivers_verify() {
        let key = BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signed = "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}";
        let tag = hmac::sign(&key, signed.as_bytes());
        assert_eq!(
            BASE64.encode(tag.as_ref()),
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn each_schedule_has_a_key_of_its_own() {
        let keys = WebhookKeys {
            root: hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]),
        };
        let [one, other] = [1, 2].map(|id| ScheduleId::from_uuid(uuid::Uuid::from_u128(id)));
        assert_ne!(keys.text(one), keys.text(other));
        assert!(keys.text(one).starts_with("whsec_"));
        let signature = keys.sign(one, "id", 1, "{}");
        assert_eq!(signature, keys.sign(one, "id", 1, "{}"));
        for other in [
            keys.sign(other, "id", 1, "{}"),
            keys.sign(one, "other", 1, "{}"),
            keys.sign(one, "id", 2, "{}"),
            keys.sign(one, "id", 1, "{ }"),
        ] {
            assert_ne!(signature, other);
        }
    }

    #[test]
    fn a_rest_grows_up_to_an_hour() {
        assert_eq!(rest(1), Duration::from_secs(5));
        assert_eq!(rest(2), Duration::from_secs(15));
        assert_eq!(rest(MAX_ATTEMPTS), MAX_REST);
    }
}
