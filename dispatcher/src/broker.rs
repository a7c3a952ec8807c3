//! The connection to RabbitMQ, and the one task that owns it.
//!
//! ```text
//!  connect (time-out) ─▶ declare exchanges ─▶ doubt earlier confirms ─┬▶ declare queues ───┐
//!    ▲                                                                ├▶ relay the outbox ─┤
//!    │                                                                └▶ dead letters ─────┤
//!    └────── back-off 100 ms … 30 s with jitter ◀── drop everything ◀── any doubt ─────────┘
//! ```
//!
//! The client library could reconnect by itself. It does not here: a recovery that nobody sees hides
//! the moment at which confirms are in doubt. **Any doubt ends the session**: a connection error, a
//! channel error, a confirm that does not come. The next session begins from nothing, and what was
//! not confirmed is still in the outbox.
//!
//! A broker that blocks publishers (`connection.blocked`: its memory or disk is full) is not a broken
//! one: the session stays, takes nothing from the outbox, and says so.

mod target;
mod session;
mod quarantine;
mod dead_letters;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{Stream, StreamExt as _};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::broker_admin::BrokerAdmin;
use crate::clock;
use crate::outbox::Relay;
use crate::problem::chain;
use crate::store::{self, clusters};

use self::quarantine::Quarantine;
pub use self::session::{Delivery, Message, Session};
pub use self::target::Target;

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
    strange_letters: AtomicU64,
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
    /// The broker would not declare the cluster's queue a moment ago; nothing else is in doubt.
    #[error("RabbitMQ does not declare the queue: {0}")]
    Quarantined(String),
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

/// How long a connection, a declaration or a confirm may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session that lasted so long held.
const HELD: Duration = Duration::from_secs(1);

/// How often every cluster's queue is seen to without a hint.
const DECLARE_EVERY: Duration = Duration::from_secs(30);

impl Default for Broker {
    fn default() -> Self {
        let why = "it has not been tried yet".to_owned();
        Self {
            health: watch::Sender::new(Health::Disconnected { why }),
            unsent: Notify::new(),
            clusters: Notify::new(),
            strange_letters: AtomicU64::new(0),
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

    /// How many dead letters came that were of no job of ours.
    #[must_use]
    pub fn strange_letters(&self) -> u64 {
        self.strange_letters.load(Ordering::Relaxed)
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
    let quarantine = Arc::new(Quarantine::default());
    loop {
        let began = tokio::time::Instant::now();
        let Err(error) = session(&target, &admin, &relay, &quarantine, &stop).await else {
            return;
        };
        // A session that held for a while was no failure to connect: begin with the shortest delay.
        if !matches!(relay.broker.health(), Health::Disconnected { .. }) && began.elapsed() > HELD {
            delays = backoff.build();
        }
        relay
            .broker
            .set(Health::Disconnected { why: chain(&error) });
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
    quarantine: &Arc<Quarantine>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let session = Session::open(target, Arc::clone(quarantine), stop.child_token()).await?;
    // Subscribe before anything can go wrong: what happens to a connection is told once.
    let mut events = Box::pin(session.connection.events_listener());
    if let Err(error) = admin.set_policy().await {
        tracing::warn!(
            "the limits of the command queues are not set: {}",
            chain(&error)
        );
    }
    // The broker may have come back without its memory.
    relay.store.doubt_confirms(clock::now()).await?;
    relay.broker.set(Health::Connected);

    // Whichever ends ends the others, and all are waited for: what is under way is answered or fails,
    // and is taken down. Dropped instead, a publication would rest until its lease is over, and a queue
    // that closes the connection would not be known for it.
    let (declared, watched, relayed, buried) = tokio::join!(
        session.until_it_ends(follow_clusters(&session, relay)),
        session.until_it_ends(watch_connection(&mut events, &session, &relay.broker)),
        session.until_it_ends(relay.run(&session)),
        session.until_it_ends(dead_letters::bury(&session, relay)),
    );
    let close = session.connection.close(200, "bye".into());
    let _closed_already = tokio::time::timeout(PATIENCE, close).await;
    declared.and(watched).and(relayed).and(buried)
}

/// Takes down how the broker stands, until the session has ended.
async fn watch_connection(
    events: &mut (impl Stream<Item = lapin::Event> + Unpin),
    session: &Session,
    broker: &Broker,
) -> Result<(), Error> {
    loop {
        let event = tokio::select! {
            event = events.next() => event.ok_or(Error::Ended)?,
            () = session.ended().cancelled() => return Ok(()),
        };
        match event {
            lapin::Event::ConnectionBlocked(why) => broker.set(Health::Blocked { why }),
            lapin::Event::ConnectionUnblocked => {
                broker.set(Health::Connected);
                broker.wake();
            }
            // A declaration was refused, on a channel of its own.
            lapin::Event::Error(_) if session.is_sound() => {}
            lapin::Event::Error(error) => return Err(error.into()),
            _ => {}
        }
    }
}

/// Gives every cluster its queue, and every new one, until the session has ended. Beside the relay: a
/// message declares its own queue, and need not wait for a thousand others.
async fn follow_clusters(session: &Session, relay: &Relay) -> Result<(), Error> {
    while !session.ended().is_cancelled() {
        declare_all(session, relay).await?;
        tokio::select! {
            () = relay.broker.clusters.notified() => {}
            // Without a hint too: a queue that was left alone may be put right by now.
            () = tokio::time::sleep(DECLARE_EVERY) => {}
            () = session.ended().cancelled() => {}
        }
    }
    Ok(())
}

async fn declare_all(session: &Session, relay: &Relay) -> Result<(), Error> {
    let mut read = relay.store.read().await?;
    let clusters = clusters::all(&mut read).await?;
    drop(read);
    for cluster in clusters {
        match session.ensure_queue(&cluster.name).await {
            Ok(()) | Err(Error::Quarantined(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
