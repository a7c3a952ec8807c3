//! The whole program on one page: its parts in the order in which a job meets them, and their end.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use invoke_protocol::artifacts::ArtifactsLimits;
use invoke_protocol::id::RunnerId;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::contact::Cancellations;
use crate::identity::{Identity, Keeper};
use crate::inbox::Inbox;
use crate::options::{Doors, Log, LogFormat, Options};
use crate::order::Trust;
use crate::pool::{DoorName, Pool};
use crate::recovery::Recovery;
use crate::relay::{Porter, Relay, Room};
use crate::report::chain;
use crate::slots::Slots;
use crate::start_record::StartRecords;
use crate::starter::Starter;
use crate::upstream::{Upstream, Wire};
use crate::watch::Watch;
use crate::{clock, contact, enrolment, health, janitor, relay, watch as pod_watch};

/// Runs until SIGTERM or SIGINT. The first one stops in order, the second one at once.
///
/// The exit code is 0 after a stop that was asked for, 1 if the runner could not start.
#[must_use]
pub fn run(options: Options) -> ExitCode {
    let ran = start_logging(&options.log).and_then(|()| {
        let runtime = tokio::runtime::Runtime::new().context("failed to start the runtime")?;
        let ran = runtime.block_on(until_stopped(options));
        // What is still under way is repeated by another replica.
        runtime.shutdown_timeout(Duration::from_secs(1));
        ran
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the runner cannot run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter).context("--log is no log filter")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

async fn until_stopped(options: Options) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("failed to listen for signals")?;
    let stop = CancellationToken::new();
    let mut living = std::pin::pin!(live(options, stop.clone()));
    tokio::select! {
        ended = &mut living => return ended,
        () = signals.next() => {}
    }
    tracing::info!("stopping: no new orders are taken, requests under way finish");
    stop.cancel();
    tokio::select! {
        ended = living => ended,
        () = signals.next() => Ok(()),
    }
}

async fn live(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let Options {
        dispatcher,
        replica,
        doors,
        log: _,
    } = options;
    let config = Arc::new(Config::load(&replica.config_file)?);
    let wire = Wire::new(
        dispatcher.dispatcher_url,
        dispatcher.dispatcher_ca_file.as_deref(),
    )?;
    let Doors {
        shim_listen,
        shim_door,
        health_listen,
    } = doors;
    let shims = listen(shim_listen).await?;
    let (ready, readiness) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(health::answer(listen(health_listen).await?, readiness));

    // Who we are, and whose orders we follow.
    let client = Client::try_default()
        .await
        .context("this program runs in a pod, with a ServiceAccount")?;
    let keeper = Keeper::new(
        Api::namespaced(client.clone(), &replica.pod_namespace),
        replica.identity_secret,
    );
    let enrolled = async {
        let identity = identity(&keeper).await;
        let enrolment = enrolment::enrol(
            &wire,
            &keeper,
            &identity,
            dispatcher.join_token_file.as_deref(),
        )
        .await;
        (identity, enrolment)
    };
    let (identity, enrolment) = tokio::select! {
        enrolled = enrolled => enrolled,
        () = stop.cancelled() => return Ok(()),
    };
    let runner = RunnerId(replica.pod_name.clone());
    let upstream = Arc::new(Upstream::new(
        wire,
        enrolment.cluster,
        runner,
        &identity.cluster_key,
    ));
    let trust = Trust::new(&enrolment);

    // What the parts tell each other.
    let (cancelling_sender, cancelling) = watch::channel(Cancellations::new());
    // Until the first contact, those of a dispatcher that was not told otherwise.
    let (artifacts_sender, artifacts) = watch::channel(ArtifactsLimits::default());
    let (live_sender, live) = watch::channel(BTreeSet::new());
    let (decided, _) = broadcast::channel(256);
    let reconnected = Arc::new(Notify::new());

    // Pods: made, watched, cleaned up.
    let pods: Api<Pod> = Api::namespaced(client.clone(), &config.jobs_namespace);
    let door = DoorName {
        service: shim_door,
        ca: identity.door_certificate.clone(),
    };
    let pool = Pool::new(client.clone(), Arc::clone(&config), door, artifacts);
    let recovery = Recovery {
        upstream: Arc::clone(&upstream),
        records: StartRecords::new(Api::namespaced(client.clone(), &config.jobs_namespace)),
        pool: pool.clone(),
    };
    let watch = Watch {
        recovery: recovery.clone(),
        decided: decided.clone(),
    };
    tasks.spawn(pod_watch::keep(pods, watch, live_sender));
    tasks.spawn(janitor::keep(recovery.clone(), Arc::clone(&reconnected)));
    tasks.spawn(contact::keep(
        Arc::clone(&upstream),
        config.summaries(),
        cancelling_sender,
        artifacts_sender,
        reconnected,
    ));

    // Shims: let in before there are orders that could make one.
    let relay = Relay {
        porter: Porter::new(Api::all(client), pool.clone(), &config.jobs_namespace),
        upstream: Arc::clone(&upstream),
        trust: trust.clone(),
        config: Arc::clone(&config),
        cluster: enrolment.name,
        pool: pool.clone(),
        recovery: recovery.clone(),
        room: Room::default(),
        decided: decided.clone(),
        cancelling,
        stop: stop.clone(),
    };
    let tls = relay::tls(&identity.door_certificate, &identity.door_key)?;
    let serving = tokio::spawn(relay::serve(
        shims,
        tls,
        relay::routes(Arc::new(relay)),
        stop.clone(),
    ));
    ready.send_replace(true);

    // Orders, from the queue to their start.
    let at_once = config.max_jobs;
    let slots = Slots::new(at_once, live);
    let starter = Starter {
        trust,
        config,
        upstream: Arc::clone(&upstream),
        slots,
        pool,
        recovery,
        decided,
        stop: stop.clone(),
    };
    let inbox = Inbox {
        at_once,
        upstream,
        starter: Arc::new(starter),
        name: replica.pod_name,
    };
    inbox.run(stop).await;
    // In reverse: what is held goes back to the queue above, then the shims are seen off.
    serving.await.context("the door for shims broke")
}

async fn listen(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

/// The Secret is Kubernetes' to give: without it nothing can be done, so it is waited for.
async fn identity(keeper: &Keeper) -> Identity {
    loop {
        match keeper.load_or_make(clock::now()).await {
            Ok(identity) => return identity,
            Err(error) => tracing::error!("{}", chain(&error)),
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
