//! Takes orders from the cluster's queue, and gives each message the end that its handling found.
//!
//! One task owns the connection. **Any doubt ends the session**: an error, a consumer that was
//! cancelled, an acknowledgement that was not taken. The next session begins from nothing, with a
//! fresh credential, and the broker redelivers what was held: every handler can be repeated.
//!
//! The client library could reconnect by itself. It does not here: it would hide the moment at which
//! what is held is held no more.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::BackoffBuilder as _;
use futures::{FutureExt as _, StreamExt as _};
use invoke_protocol::runner::AmqpCredential;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    BasicRejectOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Acker, Channel, Connection, ConnectionProperties, Consumer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::report::chain;
use crate::starter::{Disposition, Starter};
use crate::upstream::{self, Upstream};

/// The most orders that are held at once, whatever the configuration says.
const MOST_HELD: usize = 256;

/// How long a connection or a declaration may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long what is held may take to be put off at a stop.
const LET_GO: Duration = Duration::from_secs(8);

/// A frozen broker is known after twice this.
const HEARTBEAT_SECONDS: u16 = 10;

/// A session that lasted this long was a good one: the next failure is a new one.
const GOOD_SESSION: Duration = Duration::from_secs(60);

/// What ended a session, or kept one from beginning.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no credential for the broker")]
    Credential(#[source] upstream::Error),
    #[error("the dispatcher named {0:?}, which is no AMQP address")]
    Url(String),
    #[error("the dispatcher named a broker without TLS: nothing is sent there")]
    Plain,
    #[error("{0} took longer than {seconds} s", seconds = PATIENCE.as_secs())]
    Slow(&'static str),
    #[error(transparent)]
    Amqp(#[from] lapin::Error),
    #[error("the broker took the queue away")]
    Cancelled,
    #[error("the channel was gone before a message could be acknowledged")]
    NotAcknowledged,
}

/// The queue's one reader in this replica.
pub(crate) struct Inbox {
    /// How many orders may be held until their start. As many as may have a pod: fewer would let some
    /// pods that cannot be scheduled keep everybody else's orders in the queue, and more would only
    /// take orders away from other replicas.
    pub(crate) at_once: usize,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) starter: Arc<Starter>,
    pub(crate) name: String,
}

impl Inbox {
    /// Reads until `stop`. What is held then is put off, or goes back to the queue with the connection.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut waits = waits();
        loop {
            let begun = Instant::now();
            let Some(error) = self.session(&stop).await.err() else {
                return;
            };
            tracing::warn!("orders do not come in now: {}", chain(&error));
            if begun.elapsed() > GOOD_SESSION {
                waits = self::waits();
            }
            tokio::select! {
                () = tokio::time::sleep(waits.next().unwrap_or(LONGEST_WAIT)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn session(&self, stop: &CancellationToken) -> Result<(), Error> {
        let credential = self
            .upstream
            .amqp_credential()
            .await
            .map_err(Error::Credential)?;
        let connection = in_time("the connection", connect(&credential, &self.name)).await?;
        let (channel, consumer) = in_time(
            "the subscription",
            self.consume(&connection, &credential.queue),
        )
        .await?;
        tracing::info!("orders come in from queue {}", credential.queue);
        let ended = self.take_orders(&channel, consumer, stop).await;
        // The broker gives what was held to somebody else at once, not when it misses a heartbeat.
        let _ = tokio::time::timeout(PATIENCE, connection.close(200, "done".into())).await;
        ended
    }

    async fn take_orders(
        &self,
        channel: &Channel,
        mut consumer: Consumer,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        // Dropped with the session: what it was doing is redelivered and done again.
        let mut handling = JoinSet::new();
        loop {
            tokio::select! {
                delivery = consumer.next() => {
                    let delivery = delivery.ok_or(Error::Cancelled)??;
                    handling.spawn(handle(Arc::clone(&self.starter), delivery));
                }
                Some(Ok((acker, disposition))) = handling.join_next() => settle(&acker, disposition).await?,
                () = stop.cancelled() => break,
            }
        }
        // Its handlers put off what they hold. What is not done in time goes back with the connection.
        let let_go = async {
            // First, or what is let go of would come straight back.
            channel
                .basic_cancel(consumer.tag(), BasicCancelOptions::default())
                .await?;
            while let Some(Ok((acker, disposition))) = handling.join_next().await {
                settle(&acker, disposition).await?;
            }
            Ok(())
        };
        tokio::time::timeout(LET_GO, let_go).await.unwrap_or(Ok(()))
    }

    /// Subscribes. Nothing is declared: the queue is the dispatcher's, and the runner's user may only read.
    async fn consume(
        &self,
        connection: &Connection,
        queue: &str,
    ) -> Result<(Channel, Consumer), Error> {
        let channel = connection.create_channel().await?;
        let held = u16::try_from(self.at_once.min(MOST_HELD)).unwrap_or(u16::MAX);
        channel.basic_qos(held, BasicQosOptions::default()).await?;
        // Acknowledged by hand, at the permit. Not exclusive: every replica reads the same queue.
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(queue.into(), "".into(), options, FieldTable::default())
            .await?;
        Ok((channel, consumer))
    }
}

async fn handle(starter: Arc<Starter>, delivery: Delivery) -> (Acker, Disposition) {
    // One order that breaks its handler must not be taken up again and again, and not end the others.
    let handled = AssertUnwindSafe(starter.handle(&delivery.data))
        .catch_unwind()
        .await;
    let disposition = handled.unwrap_or_else(|_panic| {
        tracing::error!(alarm = true, "handling a message panicked; it is set aside");
        Disposition::DeadLetter
    });
    (delivery.acker, disposition)
}

async fn settle(acker: &Acker, disposition: Disposition) -> Result<(), Error> {
    let taken = match disposition {
        Disposition::Ack => {
            invoke_hooks::point("runner.before-ack");
            acker.ack(BasicAckOptions::default()).await?
        }
        Disposition::Requeue => {
            acker
                .nack(BasicNackOptions {
                    requeue: true,
                    ..BasicNackOptions::default()
                })
                .await?
        }
        Disposition::DeadLetter => acker.reject(BasicRejectOptions { requeue: false }).await?,
    };
    if taken {
        Ok(())
    } else {
        Err(Error::NotAcknowledged)
    }
}

async fn connect(credential: &AmqpCredential, name: &str) -> Result<Connection, Error> {
    let mut uri: AMQPUri = credential
        .url
        .parse()
        .map_err(|_| Error::Url(credential.url.clone()))?;
    if uri.scheme != AMQPScheme::AMQPS {
        return Err(Error::Plain);
    }
    uri.authority
        .userinfo
        .username
        .clone_from(&credential.username);
    uri.authority
        .userinfo
        .password
        .clone_from(&credential.password);
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    let tls = OwnedTLSConfig {
        identity: None,
        cert_chain: credential.ca_pem.clone(),
    };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = lapin::runtime::default_runtime()?;
    Ok(Connection::connect_uri_with_config(uri, properties, tls, runtime).await?)
}

async fn in_time<T>(
    what: &'static str,
    step: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(PATIENCE, step)
        .await
        .unwrap_or(Err(Error::Slow(what)))
}

const LONGEST_WAIT: Duration = Duration::from_secs(30);

fn waits() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(LONGEST_WAIT)
        .without_max_times()
        .with_jitter()
        .build()
}
