//! The dispatcher of `invoke`: takes jobs over HTTPS, remembers them, puts them on AMQP, and keeps what
//! they print.
//!
//! The modules are in the order in which a job meets them: it comes in by a person's door ([`access`],
//! [`api`]), is stored ([`store`]), signed and sent ([`outbox`], [`broker`]), taken, permitted and
//! reported on by the runners' doors ([`runners`]), its output is kept ([`output`], [`blobs`]) with what
//! else is uploaded for it ([`upload`]), and what nobody reports in time the [`sweeper`] ends. One command on
//! many clusters is many jobs, which the [`fanout`] engine makes, a few at a time. A [`schedule`] makes jobs
//! and fan-outs when its [`timing`] says. What has been kept long enough, `retention` removes.
//!
//! What is deliberately absent: no state of a job outside the store, no message that carries a
//! credential, no route without an authenticated caller, no plain HTTP.

pub mod options;
pub mod app;
mod data_folder;
mod tls;
mod server;
pub mod access;
pub mod problem;
pub mod api;
pub mod acceptance;
pub mod waiting;
pub mod timing;
pub mod store;
pub mod events;
pub mod signing;
pub mod sealing;
pub mod outbox;
pub mod broker;
pub mod broker_admin;
pub mod runners;
pub mod output;
pub mod upload;
pub mod blobs;
pub mod fanout;
pub mod sweeper;
pub mod schedule;
mod retention;
pub mod clock;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::options::{Log, LogFormat, Options};

/// Serves until a signal: the first lets what is under way finish, the second ends at once.
///
/// # Errors
/// What kept it from starting, or ended it before it was told to stop.
pub async fn serve(options: Options) -> anyhow::Result<()> {
    start_log(&options.log)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut running = app::start(options).await?;
    tokio::select! {
        failure = running.failure() => return Err(failure),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: what is under way may finish; a second signal ends it at once");
    tokio::select! {
        stopped = running.stop() => stopped,
        _ = terminate.recv() => anyhow::bail!("ended by a second signal"),
        _ = interrupt.recv() => anyhow::bail!("ended by a second signal"),
    }
}

/// The OpenAPI document, as JSON.
///
/// # Errors
/// If it has no JSON form, which cannot be.
pub fn openapi() -> serde_json::Result<String> {
    app::openapi().to_pretty_json()
}

/// The library prints a message that the broker returned whole, and in it is the command.
const NEVER_LOGGED: &str = "lapin::returned_messages=off";

fn start_log(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter)
        .with_context(|| format!("--log {:?} is no filter", log.filter))?
        .add_directive(
            NEVER_LOGGED
                .parse()
                .context("cannot keep commands out of the log")?,
        );
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!(error).context("cannot start the log"))
}
