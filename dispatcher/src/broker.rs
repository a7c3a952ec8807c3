//! The connection to RabbitMQ, and the one task that owns it.
//!
//! ```text
//!  connect (time-out) ─▶ declare everything ─▶ doubt earlier confirms ─▶ relay the outbox ──┐
//!    ▲                                                                                     │ any doubt:
//!    └──────────── back-off 100 ms … 30 s with jitter ◀── drop everything ◀────────────────┘
//! ```
//!
//! The client library could reconnect by itself. It does not here: a recovery that nobody sees hides
//! the moment at which confirms are in doubt. **Any doubt ends the session**: a connection error, a
//! channel error, a confirm that does not come. The next session begins from nothing, and what was
//! not confirmed is still in the outbox.
//!
//! A broker that blocks publishers (`connection.blocked`: its memory or disk is full) is not a broken
//! one: the session stays, takes nothing from the outbox, and says so.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{Stream, StreamExt as _};
use invoke_protocol::id::ClusterName;
use invoke_protocol::topology::{
    COMMAND_EXCHANGE, DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, command_queue,
};
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::broker_admin::BrokerAdmin;
use crate::clock;
use crate::options::{Amqp, QueueType};
use crate::outbox::Relay;
use crate::problem::chain;
use crate::store::{self, clusters};

/// Which RabbitMQ, checked.
#[derive(Debug, Clone)]
pub struct Target {
    pub(crate) uri: AMQPUri,
    pub(crate) management_url: Url,
    pub(crate) public_url: String,
    pub(crate) ca_pem: Option<String>,
    queue_type: QueueType,
}

/// How it stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Messages go out.
    Connected,
    /// Connected, but the broker takes nothing.
    Blocked {
        /// In its own words.
        why: String,
    },
    /// Not connected.
    Disconnected {
        /// In the library's words.
        why: String,
    },
}

/// What other parts may know and ask of the connection.
#[derive(Debug)]
pub struct Broker {
    health: watch::Sender<Health>,
    unsent: Notify,
    clusters: Notify,
}

/// What ended a session, or kept one from beginning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is none.
    #[error("--amqp-url is no AMQP URL: {0}")]
    Url(String),
    /// Without TLS, to another machine: passwords and commands in clear text.
    #[error("{0} is not on this machine, so it must be reached by TLS: use {1}")]
    Plain(String, &'static str),
    /// The file with the authority cannot be read.
    #[error("cannot read {0}")]
    Ca(std::path::PathBuf, #[source] std::io::Error),
    /// It took too long.
    #[error("{0} took longer than {patience} s", patience = PATIENCE.as_secs())]
    Slow(&'static str),
    /// The broker or the connection failed.
    #[error(transparent)]
    Amqp(#[from] lapin::Error),
    /// The broker took a message and said no.
    #[error("the broker refused a message")]
    Nacked,
    /// The connection ended and nobody said why.
    #[error("the connection ended")]
    Ended,
    /// The store has no answer.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The broker has it, and answers for it.
    Taken,
    /// There is no queue for it. The broker confirms such a message too, and forgets it.
    Unroutable(String),
}

/// How long a connection, a declaration or a confirm may take.
const PATIENCE: Duration = Duration::from_secs(10);

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
        let read = |path: &std::path::PathBuf| {
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

impl Default for Broker {
    fn default() -> Self {
        let why = "it has not been tried yet".to_owned();
        Self {
            health: watch::Sender::new(Health::Disconnected { why }),
            unsent: Notify::new(),
            clusters: Notify::new(),
        }
    }
}

impl Broker {
    /// How it stands now.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// There is something in the outbox. A hint: the relay looks by itself too.
    pub fn wake(&self) {
        self.unsent.notify_one();
    }

    /// There is a cluster that may have no queue yet. A hint: every connection declares all of them,
    /// and every message its own.
    pub fn clusters_changed(&self) {
        self.clusters.notify_one();
    }

    pub(crate) async fn awoken(&self) {
        self.unsent.notified().await;
    }

    fn set(&self, health: Health) {
        match &health {
            Health::Connected => tracing::info!("connected to RabbitMQ"),
            Health::Blocked { why } => tracing::warn!("RabbitMQ takes no messages: {why}"),
            Health::Disconnected { why } => tracing::warn!("no connection to RabbitMQ: {why}"),
        }
        self.health.send_replace(health);
    }
}

/// Keeps a session up, for ever, until `stop`.
pub async fn supervise(target: Target, admin: BrokerAdmin, relay: Relay, stop: CancellationToken) {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times();
    let mut delays = backoff.build();
    loop {
        let connected_before = tokio::time::Instant::now();
        let Err(error) = session(&target, &admin, &relay, &stop).await else {
            return;
        };
        relay
            .broker
            .set(Health::Disconnected { why: chain(&error) });
        // A session that held was no failure to connect: begin with the shortest delay again.
        if connected_before.elapsed() > 2 * PATIENCE {
            delays = backoff.build();
        }
        let delay = delays.next().unwrap_or(PATIENCE);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One session, from connect to the first doubt; `Ok` if it was told to stop.
async fn session(
    target: &Target,
    admin: &BrokerAdmin,
    relay: &Relay,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let session = Session::open(target, stop.child_token()).await?;
    // Subscribe before anything can go wrong: what happens to a connection is told once.
    let mut events = Box::pin(session.connection.events_listener());
    declare_all(&session, relay).await?;
    if let Err(error) = admin.set_policy().await {
        tracing::warn!(
            "the limits of the command queues are not set: {}",
            chain(&error)
        );
    }
    // The broker may have come back without its memory.
    relay.store.doubt_confirms(clock::now()).await?;
    relay.broker.set(Health::Connected);

    // Whichever side ends ends the other, and both are waited for: publications that are under way are
    // confirmed or fail, and give their jobs back. Dropped, those would rest until their lease is over.
    let relaying = async {
        let verdict = relay.run(&session).await;
        session.ended.cancel();
        verdict
    };
    let watching = async {
        let verdict = tokio::select! {
            error = watch_connection(&mut events, &relay.broker) => Err(error),
            error = follow_clusters(&session, relay) => Err(error),
            () = session.ended.cancelled() => Ok(()),
        };
        session.ended.cancel();
        verdict
    };
    let (relayed, watched) = tokio::join!(relaying, watching);
    let close = session.connection.close(200, "bye".into());
    let _closed_already = tokio::time::timeout(PATIENCE, close).await;
    watched.and(relayed)
}

/// Returns when the connection is no more.
async fn watch_connection(
    events: &mut (impl Stream<Item = lapin::Event> + Unpin),
    broker: &Broker,
) -> Error {
    while let Some(event) = events.next().await {
        match event {
            lapin::Event::ConnectionBlocked(why) => broker.set(Health::Blocked { why }),
            lapin::Event::ConnectionUnblocked => {
                broker.set(Health::Connected);
                broker.wake();
            }
            lapin::Event::Error(error) => return error.into(),
            _ => {}
        }
    }
    Error::Ended
}

/// Gives every new cluster its queue; returns when that fails.
async fn follow_clusters(session: &Session, relay: &Relay) -> Error {
    loop {
        relay.broker.clusters.notified().await;
        if let Err(error) = declare_all(session, relay).await {
            return error;
        }
    }
}

async fn declare_all(session: &Session, relay: &Relay) -> Result<(), Error> {
    let mut read = relay.store.read().await?;
    let clusters = clusters::all(&mut read).await?;
    drop(read);
    for cluster in clusters {
        session.ensure_queue(&cluster.name).await?;
    }
    Ok(())
}

/// A connection with everything declared, ready to publish.
pub struct Session {
    connection: Connection,
    channel: Channel,
    queue_type: QueueType,
    declared: Mutex<HashSet<ClusterName>>,
    ended: CancellationToken,
}

impl Session {
    async fn open(target: &Target, ended: CancellationToken) -> Result<Self, Error> {
        let properties =
            ConnectionProperties::default().with_connection_name("invoke-dispatcher".into());
        let tls = OwnedTLSConfig {
            identity: None,
            cert_chain: target.ca_pem.clone(),
        };
        let open = async {
            let runtime = lapin::runtime::default_runtime()?;
            let connection =
                Connection::connect_uri_with_config(target.uri.clone(), properties, tls, runtime)
                    .await?;
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            let session = Self {
                connection,
                channel,
                queue_type: target.queue_type,
                declared: Mutex::default(),
                ended,
            };
            session.declare_exchanges().await?;
            Ok(session)
        };
        tokio::time::timeout(PATIENCE, open)
            .await
            .map_err(|_| Error::Slow("connecting"))?
    }

    /// Whether the broker takes nothing at the moment.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Cancelled when no more is to be published: the connection is in doubt, or the program stops.
    #[must_use]
    pub const fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Publishes one message to a cluster's queue and waits until the broker answers for it.
    ///
    /// # Errors
    /// [`Error`]: whether the broker has it is unknown, and the session must end.
    pub async fn publish(
        &self,
        cluster: &ClusterName,
        id: &str,
        message: &[u8],
    ) -> Result<Delivery, Error> {
        self.ensure_queue(cluster).await?;
        // `mandatory`: without it the broker confirms a message that no queue takes, and drops it.
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let properties = BasicProperties::default()
            // 2, persistent: it outlives a restart of the broker.
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(id.into());
        let key = command_queue(cluster).into();
        let confirm = self
            .channel
            .basic_publish(COMMAND_EXCHANGE.into(), key, options, message, properties)
            .await?;
        match self.confirmed(confirm).await? {
            Confirmation::Ack(None) => Ok(Delivery::Taken),
            Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
                // Somebody deleted the queue or its binding: declare it before the next message.
                self.declared().remove(cluster);
                Ok(Delivery::Unroutable(returned.reply_text.to_string()))
            }
            Confirmation::Nack(None) | Confirmation::NotRequested => Err(Error::Nacked),
        }
    }

    /// Waits for a confirm; not long, unless the broker has said that it will be.
    async fn confirmed(&self, mut confirm: lapin::PublisherConfirm) -> Result<Confirmation, Error> {
        loop {
            match tokio::time::timeout(PATIENCE, &mut confirm).await {
                Ok(confirmation) => return Ok(confirmation?),
                Err(_elapsed) if self.is_blocked() && !self.ended.is_cancelled() => {}
                Err(_elapsed) => return Err(Error::Slow("a confirm")),
            }
        }
    }

    /// All exchanges, and where dead letters go.
    async fn declare_exchanges(&self) -> Result<(), Error> {
        // Durable: a restart of the broker must not unbind every cluster.
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let plain = FieldTable::default;
        // Direct: one cluster, one key. Fanout: whatever is dead goes to the one place.
        let kinds = [
            (COMMAND_EXCHANGE, ExchangeKind::Direct),
            (DEAD_LETTER_EXCHANGE, ExchangeKind::Fanout),
        ];
        for (exchange, kind) in kinds {
            self.channel
                .exchange_declare(exchange.into(), kind, durable, plain())
                .await?;
        }
        self.declare_queue(DEAD_LETTER_QUEUE, plain()).await?;
        let (queue, exchange) = (DEAD_LETTER_QUEUE.into(), DEAD_LETTER_EXCHANGE.into());
        self.channel
            .queue_bind(
                queue,
                exchange,
                "".into(),
                QueueBindOptions::default(),
                plain(),
            )
            .await?;
        Ok(())
    }

    /// A cluster's queue with its binding, once a session.
    async fn ensure_queue(&self, cluster: &ClusterName) -> Result<(), Error> {
        if self.declared().contains(cluster) {
            return Ok(());
        }
        let queue = command_queue(cluster);
        let mut arguments = FieldTable::default();
        // What a runner rejects, or fails on again and again, is kept for people to look at.
        let exchange = AMQPValue::LongString(DEAD_LETTER_EXCHANGE.into());
        arguments.insert("x-dead-letter-exchange".into(), exchange);
        self.declare_queue(&queue, arguments).await?;
        let (name, key) = (queue.as_str().into(), queue.as_str().into());
        let bind = self.channel.queue_bind(
            name,
            COMMAND_EXCHANGE.into(),
            key,
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        tokio::time::timeout(PATIENCE, bind)
            .await
            .map_err(|_| Error::Slow("binding a queue"))??;
        self.declared().insert(cluster.clone());
        Ok(())
    }

    async fn declare_queue(&self, name: &str, mut arguments: FieldTable) -> Result<(), Error> {
        // Quorum: written to disk on most nodes before the confirm. Given always, because a broker's
        // default may be another, and one that differs later is refused.
        let queue_type = AMQPValue::LongString(self.queue_type.as_str().into());
        arguments.insert("x-queue-type".into(), queue_type);
        let options = QueueDeclareOptions {
            // Orders wait through a restart of the broker.
            durable: true,
            // Several replicas of a runner consume it, and it waits when there is none.
            exclusive: false,
            // A cluster that is offline has no consumer, and its orders must not go with it.
            auto_delete: false,
            passive: false,
            nowait: false,
        };
        let declare = self.channel.queue_declare(name.into(), options, arguments);
        tokio::time::timeout(PATIENCE, declare)
            .await
            .map_err(|_| Error::Slow("declaring a queue"))??;
        Ok(())
    }

    fn declared(&self) -> std::sync::MutexGuard<'_, HashSet<ClusterName>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
