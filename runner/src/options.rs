//! How the runner is started. Its chart sets all of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};
use url::Url;

/// Takes commands from a queue and runs each in its own pod of this cluster
///
/// The Helm chart starts it. Nothing outside the cluster can reach it.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Options {
    /// Where it dials.
    #[command(flatten)]
    pub dispatcher: Dispatcher,
    /// Who it is in the cluster.
    #[command(flatten)]
    pub replica: Replica,
    /// Where it listens.
    #[command(flatten)]
    pub doors: Doors,
    /// What is logged.
    #[command(flatten)]
    pub log: Log,
}

/// Where it dials.
#[derive(Debug, Args)]
#[command(next_help_heading = "Dispatcher")]
pub struct Dispatcher {
    /// The dispatcher's address, https://host:port
    #[arg(long, env = "INVOKE_DISPATCHER_URL", value_parser = https)]
    pub dispatcher_url: Url,

    /// A PEM file with the one certificate authority that the dispatcher may show; without it, the
    /// system's are trusted
    #[arg(long, env = "INVOKE_DISPATCHER_CA_FILE", value_name = "FILE")]
    pub dispatcher_ca_file: Option<PathBuf>,

    /// A file with a join token; needed until the cluster is enrolled, and to enrol it again
    #[arg(long, env = "INVOKE_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
}

/// Who it is in the cluster.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub struct Replica {
    /// The name of this pod
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: String,

    /// The namespace of this pod
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    pub pod_namespace: String,

    /// The Secret in that namespace that keeps the cluster's key; it must exist, even if empty
    #[arg(
        long,
        env = "INVOKE_IDENTITY_SECRET",
        value_name = "NAME",
        default_value = "invoke-runner-identity"
    )]
    pub identity_secret: String,

    /// The profiles and limits, YAML; read at the start
    #[arg(long, env = "INVOKE_CONFIG_FILE", value_name = "FILE")]
    pub config_file: PathBuf,
}

/// Where it listens, inside the cluster.
#[derive(Debug, Args)]
#[command(next_help_heading = "Doors")]
pub struct Doors {
    /// Where to listen for shims, TLS
    #[arg(
        long,
        env = "INVOKE_SHIM_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8443"
    )]
    pub shim_listen: SocketAddr,

    /// Where shims dial: the name and port of a Service in front of all replicas. With a wrong one, pods
    /// wait for ever
    #[arg(long, env = "INVOKE_SHIM_DOOR", value_name = "HOST:PORT")]
    pub shim_door: String,

    /// Where to answer /healthz and /readyz, without TLS
    #[arg(
        long,
        env = "INVOKE_HEALTH_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080"
    )]
    pub health_listen: SocketAddr,
}

/// What is logged.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct Log {
    /// What to log: a level, or directives such as info,invoke_runner=debug
    #[arg(
        long = "log",
        env = "INVOKE_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub filter: String,

    /// How to write it
    #[arg(long = "log-format", env = "INVOKE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Tokens travel to this address: never in clear text.
fn https(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    if url.scheme() == "https" && url.has_host() {
        Ok(url)
    } else {
        Err("expected https://host:port".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_dispatcher_without_tls_is_refused() {
        assert!(https("https://invoke.example:8443").is_ok());
        for bad in [
            "http://invoke.example",
            "invoke.example:8443",
            "ftp://x",
            "",
        ] {
            assert!(https(bad).is_err(), "{bad}");
        }
    }
}
