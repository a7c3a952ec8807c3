//! The composition root: every part is built here, in the order in which a job meets them, started,
//! and stopped in reverse.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::middleware::from_fn;
use invoke_protocol::api::Limits;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use url::Url;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::access::Locked;
use crate::api::turns::Turns;
use crate::blobs::{Blobs, Environment};
use crate::broker::{self, Broker, Target};
use crate::broker_admin::BrokerAdmin;
use crate::data_folder::DataFolder;
use crate::events::Events;
use crate::fanout::Engine;
use crate::options::{Options, Storage};
use crate::outbox::Relay;
use crate::problem::chain;
use crate::retention::Retention;
use crate::schedule::Scheduler;
use crate::schedule::known_calendars::KnownCalendars;
use crate::schedule::webhooks::{WebhookKeys, Webhooks};
use crate::sealing::Sealer;
use crate::signing::Signer;
use crate::store::Store;
use crate::sweeper::Sweeper;
use crate::tls::Identity;
use crate::{api, clock, problem, runners, server};

/// What handlers work with, once somebody has come in.
pub struct App {
    /// The database.
    pub store: Store,
    /// Output, files and artifacts.
    pub blobs: Blobs,
    /// What of them is taken, and for how long it is kept.
    pub limits: Limits,
    /// Who submits waits for one of these.
    pub turns: Turns,
    /// Signs orders.
    pub signer: Arc<Signer>,
    /// Keeps what nobody may see.
    pub sealer: Sealer,
    /// When schedules may run, and when not.
    pub calendars: KnownCalendars,
    /// What webhooks are signed with.
    pub webhook_keys: Arc<WebhookKeys>,
    /// Whether webhooks may be at private addresses.
    pub private_webhooks: bool,
    /// How the broker stands, and how to wake the relay.
    pub broker: Arc<Broker>,
    /// Makes runners' users at the broker.
    pub admin: BrokerAdmin,
    /// What runners are told.
    pub addresses: Addresses,
    /// Requests that are held back end when it does.
    pub stopping: CancellationToken,
}

/// Where runners find us and the broker, and whom to trust there.
pub struct Addresses {
    /// Ours, without a slash at the end.
    pub dispatcher_url: String,
    /// Our authority, PEM; `None` if every system knows it.
    pub dispatcher_ca_pem: Option<String>,
    /// The broker's, without a user.
    pub amqp_url: String,
    /// The broker's authority, PEM; `None` if every system knows it.
    pub amqp_ca_pem: Option<String>,
}

/// A dispatcher that serves.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    app: Arc<App>,
    /// In the order in which they stop.
    serving: JoinSet<()>,
    working: JoinSet<()>,
    stop_working: CancellationToken,
}

/// For how long the relay and the sweeper may take to finish what they are at.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Builds and starts everything.
///
/// # Errors
/// What is missing or wrong, for the operator.
pub async fn start(options: Options) -> anyhow::Result<Running> {
    let Options {
        web,
        storage,
        limits,
        amqp,
        log: _,
    } = options;
    let target = Target::new(&amqp)?;
    let folder = DataFolder::open(storage.data_dir.as_deref())?;
    let identity = Identity::load_or_make(&web, &folder, clock::now())?;
    let store = open_store(&storage, &folder).await?;
    clock::start(&store)
        .await
        .context("cannot read the database's clock")?;
    folder.ensure_local_token(&store, clock::now()).await?;
    let signer = Arc::new(Signer::load_or_make(&store).await?);
    let app = Arc::new(App {
        store: store.clone(),
        blobs: open_blobs(&storage, &folder).await?,
        limits: Limits {
            files_bytes: limits.files_limit,
            files_entries: limits.files_entries_limit,
            retention_seconds: limits.retention.as_secs(),
        },
        turns: Turns::default(),
        signer: Arc::clone(&signer),
        sealer: Sealer::load_or_make(&store).await?,
        calendars: KnownCalendars::default(),
        webhook_keys: Arc::new(WebhookKeys::load_or_make(&store).await?),
        private_webhooks: limits.private_webhooks,
        broker: Arc::new(Broker::default()),
        admin: BrokerAdmin::new(&target)?,
        addresses: Addresses {
            dispatcher_url: web.public_url.as_str().trim_end_matches('/').to_owned(),
            dispatcher_ca_pem: identity.ca_pem,
            amqp_url: target.public_url.clone(),
            amqp_ca_pem: target.ca_pem.clone(),
        },
        stopping: CancellationToken::new(),
    });

    let listener = TcpListener::bind(web.listen)
        .await
        .with_context(|| format!("cannot listen on {}", web.listen))?;
    let address = listener
        .local_addr()
        .context("cannot tell where it listens")?;
    let stop_working = CancellationToken::new();
    let (mut serving, mut working) = (JoinSet::new(), JoinSet::new());
    let relay = Relay {
        store: store.clone(),
        signer,
        broker: Arc::clone(&app.broker),
    };
    working.spawn(broker::supervise(
        target,
        app.admin.clone(),
        relay,
        stop_working.clone(),
    ));
    working.spawn(clock::follow(store.clone(), stop_working.clone()));
    let retention = Retention {
        store: store.clone(),
        blobs: app.blobs.clone(),
        keep: limits.retention,
    };
    working.spawn(retention.run(stop_working.clone()));
    let engine = Engine {
        app: Arc::clone(&app),
        listening_since: clock::now(),
    };
    working.spawn(engine.run(stop_working.clone()));
    let sweeper = Sweeper::new(store, Arc::clone(&app.broker), clock::now());
    working.spawn(sweeper.run(stop_working.clone()));
    let webhooks = Webhooks {
        store: app.store.clone(),
        keys: Arc::clone(&app.webhook_keys),
        private_allowed: limits.private_webhooks,
    };
    working.spawn(webhooks.run(stop_working.clone()));
    let scheduler = Scheduler::new(Arc::clone(&app));
    working.spawn(scheduler.run(stop_working.clone()));
    serving.spawn(server::serve(
        listener,
        identity.server,
        routes(&app),
        app.stopping.clone(),
    ));
    tracing::info!(
        "invoke-dispatcher {} listens on https://{address}",
        env!("CARGO_PKG_VERSION")
    );
    Ok(Running {
        address,
        app,
        serving,
        working,
        stop_working,
    })
}

impl Running {
    /// The parts, for tests that look behind the doors.
    #[must_use]
    pub const fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Returns when a part ended that should not have: a program that lives on without it would take
    /// jobs and do nothing with them.
    pub async fn failure(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(ended) = self.serving.join_next() => ended,
            Some(ended) = self.working.join_next() => ended,
        };
        match ended {
            Err(panic) => failed(panic),
            Ok(()) => anyhow::anyhow!("a part of the dispatcher ended without being told to"),
        }
    }

    /// Stops: first no new requests, then no new work, at last the store.
    ///
    /// # Errors
    /// If a part did not end by itself.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.app.stopping.cancel();
        let served = all_end(&mut self.serving).await;
        self.stop_working.cancel();
        let worked = tokio::time::timeout(STOP_WITHIN, all_end(&mut self.working)).await;
        self.app.store.close().await;
        let late = || {
            let seconds = STOP_WITHIN.as_secs();
            anyhow::anyhow!(
                "some work did not finish within {seconds} s; it is begun again at the next start"
            )
        };
        served.and(worked.map_err(|_| late())?)
    }
}

async fn all_end(parts: &mut JoinSet<()>) -> anyhow::Result<()> {
    let mut verdict = Ok(());
    while let Some(ended) = parts.join_next().await {
        verdict = verdict.and(ended.map_err(failed));
    }
    verdict
}

fn failed(panic: JoinError) -> anyhow::Error {
    anyhow::Error::new(panic).context("a part of the dispatcher failed")
}

async fn open_store(storage: &Storage, folder: &DataFolder) -> anyhow::Result<Store> {
    let url = match &storage.database_url {
        Some(url) => url.clone(),
        None => sqlite_url(&folder.path("invoke.db"))?,
    };
    // Not the URL: its password does not belong into a log.
    Store::open(&url, Arc::new(Events::default()))
        .await
        .context("cannot open the database")
}

/// Escaped, because a folder may have any character in its name.
fn sqlite_url(file: &Path) -> anyhow::Result<String> {
    let absolute = std::path::absolute(file).context("cannot tell the current folder")?;
    let url = Url::from_file_path(&absolute);
    let url = url.map_err(|()| anyhow::anyhow!("{} has no absolute path", file.display()))?;
    Ok(format!("sqlite://{}", url.path()))
}

/// A store that says no will say it to every job. One that is away may be back before there is output, and
/// until then there is much to do that needs none.
async fn open_blobs(storage: &Storage, folder: &DataFolder) -> anyhow::Result<Blobs> {
    let blobs = match &storage.blob_url {
        Some(url) => Blobs::at(url, &environment())?,
        None => Blobs::in_folder(&folder.path("blobs"))?,
    };
    match blobs.probe().await {
        Ok(()) => {}
        Err(error) if error.is_refusal() => {
            return Err(anyhow::Error::new(error).context(
                "the blob store refuses to have blobs written, read, listed and deleted: check --blob-url, whether \
                 that bucket exists, and its credentials in the environment (AWS_…, GOOGLE_…, AZURE_…)",
            ));
        }
        Err(error) => tracing::error!(
            alarm = true,
            "the blob store does not work, and output and files wait until it does: {}",
            chain(&error)
        ),
    }
    Ok(blobs)
}

/// What is not text is nothing that we would know.
fn environment() -> Environment {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// All doors, with what is around every one of them.
fn routes(app: &Arc<App>) -> Router {
    let (doors, document) = doors().split_for_parts();
    doors
        .with_state(Locked::new(Arc::clone(app)))
        .merge(api::public::routes(app, &document))
        .fallback(problem::no_such_route)
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(from_fn(problem::frame))
}

fn doors() -> OpenApiRouter<Locked> {
    OpenApiRouter::with_openapi(api::document::base())
        .merge(api::routes())
        .merge(runners::routes())
}

/// The document of all doors.
#[must_use]
pub fn openapi() -> OpenApi {
    doors().into_openapi()
}
