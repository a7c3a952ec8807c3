//! The command line and its environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use invoke_protocol::files::DEFAULT_FILES_ENTRIES;
use jiff::{Span, SpanRelativeTo};
use url::Url;

/// Takes commands over HTTPS, remembers them, puts them on AMQP, and keeps what they print.
///
/// Without any option it keeps everything in one folder, makes its own certificate authority, and
/// expects a RabbitMQ on this machine.
#[derive(Debug, Parser)]
#[command(name = "invoke-dispatcher", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT; a second signal ends at once
    ///
    /// Example: invoke-dispatcher serve --listen 0.0.0.0:8443 --data-dir /var/lib/invoke
    Serve(Box<Options>),
    /// Print the OpenAPI document of the HTTP interface, as JSON
    ///
    /// Example: invoke-dispatcher openapi > openapi.json
    Openapi,
}

/// How to serve.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where people and runners come in.
    #[command(flatten)]
    pub web: Web,
    /// Where everything is kept.
    #[command(flatten)]
    pub storage: Storage,
    /// What is taken, and for how long it is kept.
    #[command(flatten)]
    pub limits: Limits,
    /// How commands reach clusters.
    #[command(flatten)]
    pub amqp: Amqp,
    /// What is logged.
    #[command(flatten)]
    pub log: Log,
}

/// Where people and runners come in.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTPS")]
pub struct Web {
    /// Address and port to listen on. On 127.0.0.1, nobody else can reach it
    #[arg(
        long,
        env = "INVOKE_LISTEN",
        default_value = "127.0.0.1:8443",
        value_name = "ADDRESS:PORT"
    )]
    pub listen: SocketAddr,

    /// The address that people and runners dial. Runners are told this one, and its host is in our own
    /// certificate: a wrong one makes every runner that joins unable to connect
    #[arg(
        long,
        env = "INVOKE_PUBLIC_URL",
        default_value = "https://localhost:8443",
        value_name = "URL"
    )]
    pub public_url: Url,

    /// Certificate chain to serve with, PEM. Without one, a certificate is made at each start, by an
    /// authority of our own in the data folder (ca.pem)
    #[arg(
        long,
        env = "INVOKE_TLS_CERT",
        requires = "tls_key",
        value_name = "FILE"
    )]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, PEM
    #[arg(
        long,
        env = "INVOKE_TLS_KEY",
        requires = "tls_cert",
        value_name = "FILE"
    )]
    pub tls_key: Option<PathBuf>,

    /// Authority that --tls-cert is of, PEM, to be given to runners that join. Leave it out if every
    /// system knows it
    #[arg(
        long,
        env = "INVOKE_TLS_CA",
        requires = "tls_cert",
        value_name = "FILE"
    )]
    pub tls_ca: Option<PathBuf>,
}

/// Where everything is kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct Storage {
    /// Folder for what is kept in files: our authority's key, the local API token, and database and
    /// output unless they are elsewhere. Made if it is missing, for its owner alone
    /// [default: invoke-dispatcher in the user's data folder, such as ~/.local/share/invoke-dispatcher]
    #[arg(long, env = "INVOKE_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,

    /// Database: sqlite://FILE for one dispatcher, postgres://… for one or several
    /// [default: sqlite, invoke.db in the data folder]
    #[arg(
        long,
        env = "INVOKE_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,

    /// Where output is kept: s3://BUCKET/PREFIX, gs://… or az://…, with credentials from the
    /// environment by each cloud's usual names (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION;
    /// for a server of your own AWS_ENDPOINT_URL and AWS_CA_BUNDLE); or file:///FOLDER. Several
    /// dispatchers need one that they share
    /// [default: blobs in the data folder]
    #[arg(long, env = "INVOKE_BLOB_URL", value_name = "URL")]
    pub blob_url: Option<Url>,
}

/// What is taken, and for how long it is kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// What the files of one job may come to unpacked, and as much again what its command sends back:
    /// bytes, or a number with KiB, MiB, GiB or TiB. All of it takes up room where output is kept
    #[arg(
        long,
        env = "INVOKE_FILES_LIMIT",
        default_value = "1GiB",
        value_parser = bytes,
        value_name = "SIZE"
    )]
    pub files_limit: u64,

    /// How many entries the files of one job may have: files, folders, symbolic links; and what its command
    /// sends back, but never more than 100000 of those
    #[arg(
        long,
        env = "INVOKE_FILES_ENTRIES_LIMIT",
        default_value_t = DEFAULT_FILES_ENTRIES,
        value_name = "COUNT"
    )]
    pub files_entries_limit: u64,

    /// For how long output, files and artifacts are kept after the end of their job: 30d, 12h, 1d12h.
    /// Then they are gone, and only the job's record stays
    #[arg(
        long,
        env = "INVOKE_RETENTION",
        default_value = "30d",
        value_parser = duration,
        value_name = "TIME"
    )]
    pub retention: Duration,

    /// Let schedules tell webhooks at private addresses, and without TLS. Whoever may make a schedule can then have
    /// the dispatcher knock at doors in its own network
    #[arg(long, env = "INVOKE_PRIVATE_WEBHOOKS")]
    pub private_webhooks: bool,
}

/// How commands reach clusters.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "RabbitMQ")]
pub struct Amqp {
    /// RabbitMQ, with a user who may do everything in the virtual host. Without TLS (amqp://) only on
    /// this machine
    #[arg(
        long,
        env = "INVOKE_AMQP_URL",
        hide_env_values = true,
        default_value = "amqp://guest:guest@localhost:5672/%2f",
        value_name = "URL"
    )]
    pub amqp_url: String,

    /// RabbitMQ's address as runners dial it [default: --amqp-url without its user]
    #[arg(long, env = "INVOKE_AMQP_PUBLIC_URL", value_name = "URL")]
    pub amqp_public_url: Option<Url>,

    /// RabbitMQ's management API, where each cluster's user and rights are made, as the user of
    /// --amqp-url. Without TLS only on this machine
    #[arg(
        long,
        env = "INVOKE_AMQP_MANAGEMENT_URL",
        default_value = "http://localhost:15672",
        value_name = "URL"
    )]
    pub amqp_management_url: Url,

    /// Authority of RabbitMQ's certificates, PEM, for us and for runners. Leave it out if every system
    /// knows it
    #[arg(long, env = "INVOKE_AMQP_CA", value_name = "FILE")]
    pub amqp_ca: Option<PathBuf>,

    /// Type of the queues. It is fixed when a queue is first declared: with another one later,
    /// RabbitMQ refuses, and nothing is sent until the old queues are deleted
    #[arg(long, env = "INVOKE_AMQP_QUEUE_TYPE", value_enum, default_value_t = QueueType::Quorum)]
    pub amqp_queue_type: QueueType,
}

/// What a queue does with a message before it confirms it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QueueType {
    /// Replicated and synced to disk before the confirm
    Quorum,
    /// On one node, written to disk later: for brokers with more clusters than they can hold quorum
    /// queues (about 10,000). What is lost is sent again
    Classic,
}

/// What is logged.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub struct Log {
    /// What to log: a level, or directives such as info,invoke_dispatcher=debug
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

impl QueueType {
    /// As RabbitMQ calls it (`x-queue-type`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

/// Reads a size: `1073741824`, `1GiB`.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match text[digits.len()..].trim_start() {
        "" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1_u64 << 40),
        _ => None,
    };
    let size = unit.and_then(|unit| digits.parse::<u64>().ok()?.checked_mul(unit));
    size.ok_or_else(|| "write a size in bytes, or as 512MiB, 1GiB, 2TiB".to_owned())
}

/// Reads a time that is longer than nothing: `30d`, `12h`. A day has 24 hours.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<Span>().and_then(|span| {
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours())?;
        Duration::try_from(duration)
    });
    parsed
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "write a time as 30d, 12h or 1d12h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use invoke_protocol::files::DEFAULT_FILES_BYTES;

    use super::*;

    #[test]
    fn a_size_is_a_number_of_bytes_or_has_a_unit() {
        let cases = [
            ("0", Some(0)),
            ("1073741824", Some(1 << 30)),
            ("1GiB", Some(DEFAULT_FILES_BYTES)),
            ("1 GiB", Some(1 << 30)),
            ("512KiB", Some(512 << 10)),
            ("16777215TiB", Some(16_777_215 << 40)),
            ("16777216TiB", None),
            ("1GB", None),
            ("1.5GiB", None),
            ("-1", None),
            ("GiB", None),
            ("", None),
            ("1é", None),
        ];
        for (text, size) in cases {
            assert_eq!(bytes(text).ok(), size, "{text:?}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        let cases = [
            ("30d", Some(30 * 86_400)),
            ("12h", Some(43_200)),
            ("1d12h", Some(129_600)),
            ("90s", Some(90)),
            ("0s", None),
            ("-1d", None),
            ("30", None),
            ("", None),
            ("1month", None),
        ];
        for (text, seconds) in cases {
            let read = duration(text).ok().map(|duration| duration.as_secs());
            assert_eq!(read, seconds, "{text:?}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
