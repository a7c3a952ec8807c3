//! The command line as it is written.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use invoke_protocol::id::{ClusterName, FanOutId, JobId};
use invoke_protocol::job::MAX_GRACE_SECONDS;

use crate::exit::{self, Exit};
use crate::failure::Failure;
use crate::settings::{Layer, Origin, Sourced, parse_duration};

mod run;
mod clusters;
mod fanouts;
mod schedule;
mod calendar;
mod complaint;

pub use calendar::CalendarVerb;
pub use clusters::ClustersVerb;
pub use complaint::words_of;
pub use fanouts::FanOutsVerb;
pub use run::{JobArgs, ManyArgs, Offline, RunArgs};
pub use schedule::{
    CreateArgs, EditArgs, NotifyArgs, ScheduleArgs, ScheduleVerb, TimingArgs, TroubleArgs, WhenArgs,
};

use complaint::{command_without_quotes, usage};

const EXAMPLES: &str = "\
Examples:
  invoke \"kubectl get pods -A\"               a shell line
  invoke -- kubectl get nodes -o wide        a program and its arguments, no shell between
  invoke -c edge-7 --profile deploy \"helm list -A\"
  invoke --profile deploy -f values.yaml -f charts/ \\
    \"helm upgrade --install web charts/web -f values.yaml\"
  kubectl get cm x -o yaml | invoke -f - \"kubectl apply -f -\"
  invoke -o json \"kubectl version\"           one JSON document: state, exit_code, stdout, stderr
  invoke --no-wait \"./long-job.sh\"           the job's id; `invoke logs -f ID` follows it
  invoke -l env=prod \"kubectl version\"       on all clusters with this label";

const SETTINGS: &str = "\
Settings:
  A flag comes before its environment variable, that before ~/.config/invoke/config.toml, and that
  before a dispatcher of yours on this machine, which needs no settings.
  Keys of the file: url, token_file, ca_file, cluster, profile, retry_for.
  INVOKE_TOKEN holds a token itself; it has no flag, because other users can read command lines.";

/// `invoke`: run a command inside a private Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(
    name = "invoke",
    version,
    about = "Run a command inside a private Kubernetes cluster",
    long_about = "Run a command inside a private Kubernetes cluster, print what it prints, exit with its code.\n\n\
                  The command runs in a short-lived pod; the cluster opens no port. A job outlives this \
                  program: Ctrl-C asks whether to leave it running or to cancel it.",
    override_usage = "invoke [OPTIONS] \"SHELL LINE\"\n       invoke [OPTIONS] -- PROGRAM [ARGUMENT]...\n       invoke SUBCOMMAND …",
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}{all-args}{after-help}",
    before_help = EXAMPLES,
    after_help = "`invoke --help` tells more; `invoke help SUBCOMMAND` explains one.",
    after_long_help = format!("{SETTINGS}\n\n{}", exit::HELP),
    max_term_width = 100,
    subcommand_value_name = "SUBCOMMAND",
    subcommand_help_heading = "Subcommands"
)]
pub struct Args {
    /// What to do instead of running a command.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// What to run.
    #[command(flatten)]
    pub run: RunArgs,
    /// How to print.
    #[command(flatten)]
    pub printing: PrintingArgs,
    /// Whom to talk to.
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// How to print.
#[derive(Debug, clap::Args)]
pub struct PrintingArgs {
    /// text, or json: one document with the output in it [default: text]
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        global = true,
        default_value = "text",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub output: Format,

    /// Let a terminal obey the command's escape codes; else they are shown
    ///
    /// Colours are obeyed in any case. Into a pipe or a file the command's bytes go as they are, always.
    #[arg(long, global = true)]
    pub raw: bool,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; of a command, its own bytes
    Text,
    /// One JSON document
    Json,
}

/// Whom to talk to.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// The dispatcher's address [env: INVOKE_URL]
    #[arg(long, value_name = "URL", global = true, hide_short_help = true)]
    pub url: Option<String>,

    /// The file with the token to show [env: INVOKE_TOKEN_FILE, or INVOKE_TOKEN]
    #[arg(long, value_name = "FILE", global = true, hide_short_help = true)]
    pub token_file: Option<std::path::PathBuf>,

    /// Trust only the certificate authorities in this PEM file [env: INVOKE_CA_FILE]
    #[arg(long, value_name = "FILE", global = true, hide_short_help = true)]
    pub ca_file: Option<std::path::PathBuf>,

    /// Submit again for this long while the dispatcher cannot be reached, and follow an accepted job
    /// ten times as long [env: INVOKE_RETRY_FOR] [default: 30s]
    #[arg(long, value_name = "TIME", global = true, hide_short_help = true)]
    pub retry_for: Option<String>,
}

/// What else there is to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print the output of a job that is over, and exit with its code
    #[command(
        after_help = "Example:\n  invoke result 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 > pods.txt"
    )]
    Result {
        /// The job
        id: JobId,
    },
    /// Print the output of a job so far
    #[command(
        after_help = "Examples:\n  invoke logs -f 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10\n  invoke logs --tail 20 --timestamps 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10"
    )]
    Logs(LogsArgs),
    /// List what the command of a job left in $INVOKE_ARTIFACTS, or fetch it
    #[command(
        after_help = "Examples:\n  invoke artifacts 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10\n  invoke artifacts 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 get report.html\n  invoke artifacts 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 get --all -d out"
    )]
    Artifacts {
        /// The job
        id: JobId,
        /// What to do with them; list them if silent
        #[command(subcommand)]
        verb: Option<ArtifactsVerb>,
    },
    /// List jobs, or show one
    #[command(
        after_help = "Examples:\n  invoke jobs -c edge-7 --limit 10\n  invoke jobs 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10"
    )]
    Jobs {
        /// Only jobs of this cluster
        #[arg(short, long, value_name = "NAME", conflicts_with = "id")]
        cluster: Option<ClusterName>,
        /// How many, the newest first
        #[arg(long, value_name = "COUNT", default_value_t = 50, conflicts_with = "id",
              value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Show this job in detail
        id: Option<JobId>,
    },
    /// Say what a job waits for, or what it died of
    #[command(after_help = "Example:\n  invoke why 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10")]
    Why {
        /// The job
        id: JobId,
    },
    /// Cancel a job, and wait until it is over
    #[command(
        after_help = "Examples:\n  invoke cancel 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10\n  invoke cancel --grace 0s 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10    kill it now"
    )]
    Cancel {
        /// From SIGTERM to SIGKILL, at most 1h; 0s kills at once [default: the cluster's own]
        ///
        /// A second cancel with less time shortens the first.
        #[arg(long, value_name = "TIME", value_parser = grace)]
        grace: Option<u64>,
        /// The job
        id: JobId,
    },
    /// List commands that run on many clusters, show one, or let it go on
    #[command(
        after_help = "Examples:\n  invoke fanouts\n  invoke fanouts 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10\n  invoke fanouts 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 retry-failed"
    )]
    Fanouts {
        /// How many, the newest first
        #[arg(long, value_name = "COUNT", default_value_t = 50, conflicts_with = "id",
              value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Show this one, with every cluster and every step
        id: Option<FanOutId>,
        /// What to do with it
        #[command(subcommand)]
        verb: Option<FanOutsVerb>,
    },
    /// Run a command at times of its own
    #[command(
        after_help = "Examples:\n  invoke schedule create vacuum -c prod-eu --cron \"30 2 * * *\" --tz Europe/Berlin \"helm test db\"\n  invoke schedule next vacuum\n  invoke schedule why vacuum tuesday"
    )]
    Schedule {
        /// What to do with schedules
        #[command(subcommand)]
        verb: ScheduleVerb,
    },
    /// Say when schedules may run, and when not, by iCalendar files
    #[command(after_help = "Example:\n  invoke calendar import freeze.ics --closed")]
    Calendar {
        /// What to do with calendars
        #[command(subcommand)]
        verb: CalendarVerb,
    },
    /// List clusters, add one, or label one
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  invoke clusters\n  invoke clusters add edge-7 > values.yaml\n  invoke clusters label edge-7 env=prod"
    )]
    Clusters {
        /// What to do with them; list them if silent
        #[command(subcommand)]
        verb: Option<ClustersVerb>,
    },
    /// Print the version
    #[command(after_help = "Example:\n  invoke version")]
    Version,
}

/// Which part of the output to print, and how.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Follow the job to its end, and exit with its code
    #[arg(short, long)]
    pub follow: bool,
    /// Only stdout
    #[arg(long, conflicts_with = "stderr")]
    pub stdout: bool,
    /// Only stderr
    #[arg(long)]
    pub stderr: bool,
    /// Only the last lines
    ///
    /// Lines of both streams are counted together, in the order in which they begin. With --follow, what
    /// comes after them too.
    #[arg(long, value_name = "LINES", conflicts_with = "since_line")]
    pub tail: Option<u64>,
    /// Begin with this line; the first is 1
    #[arg(long, value_name = "LINE", value_parser = clap::value_parser!(u64).range(1..))]
    pub since_line: Option<u64>,
    /// Say before each line when it was printed (RFC 3339, UTC), by the clock of the pod's node
    #[arg(long)]
    pub timestamps: bool,
    /// The job
    pub id: JobId,
}

/// What to do with artifacts.
#[derive(Debug, Subcommand)]
pub enum ArtifactsVerb {
    /// Write them below a folder; a file that is there already stays as it is
    #[command(
        after_help = "Example:\n  invoke artifacts 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10 get --all -d out"
    )]
    Get {
        /// Which, by the names that the list shows
        #[arg(value_name = "NAME", required_unless_present = "all")]
        names: Vec<String>,
        /// All of them
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Below this folder, which is made if it is missing
        #[arg(short = 'd', long = "dir", value_name = "FOLDER", default_value = ".")]
        folder: std::path::PathBuf,
        /// Replace files that are there already
        #[arg(long)]
        overwrite: bool,
    },
}

/// Why there are no arguments to go on with.
#[derive(Debug)]
pub enum Stop {
    /// Help or the version was asked for: print it, and that is all.
    Asked(clap::Error),
    /// Nothing was asked for.
    Nothing,
    /// Not understood.
    Usage(Failure),
}

impl Args {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// [`Stop`]: there is nothing to do, or nothing that makes sense.
    pub fn parse_from_line(line: &[OsString]) -> Result<Self, Stop> {
        let matches = Self::command().try_get_matches_from(line);
        match matches.and_then(|matches| Self::from_arg_matches(&matches)) {
            Ok(args) if args.says_nothing() => Err(Stop::Nothing),
            Ok(args) => args.without_misplaced_options().map_err(Stop::Usage),
            Err(error) => Err(match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Asked(error),
                _ => {
                    Stop::Usage(command_without_quotes(line).unwrap_or_else(|| usage(&error, line)))
                }
            }),
        }
    }

    fn says_nothing(&self) -> bool {
        self.verb.is_none() && self.run.words.is_empty() && self.run.argv.is_empty()
    }

    /// clap takes the options of a command also before a subcommand, where they would do nothing.
    fn without_misplaced_options(self) -> Result<Self, Failure> {
        match self.run.first_given().filter(|_| self.verb.is_some()) {
            None => Ok(self),
            Some(name) => Err(Failure::new(
                Exit::BAD_INPUT,
                format!("{name} before a subcommand means nothing"),
            )
            .with_hint(format!(
                "`invoke help SUBCOMMAND` shows whether it has {name} of its own"
            ))),
        }
    }

    /// What the flags say of the settings.
    #[must_use]
    pub fn layer(&self) -> Layer {
        fn flag<T: Clone>(value: Option<&T>, name: &'static str) -> Option<Sourced<T>> {
            value.map(|value| Sourced {
                value: value.clone(),
                origin: Origin::Flag(name),
            })
        }
        let ConnectionArgs {
            url,
            token_file,
            ca_file,
            retry_for,
        } = &self.connection;
        let job = match &self.verb {
            Some(Verb::Schedule {
                verb: ScheduleVerb::Create(args),
            }) => &args.options.job,
            _ => &self.run.job,
        };
        Layer {
            url: flag(url.as_ref(), "--url"),
            token: None,
            token_file: flag(token_file.as_ref(), "--token-file"),
            ca_file: flag(ca_file.as_ref(), "--ca-file"),
            cluster: flag(job.cluster.as_ref(), "--cluster"),
            profile: flag(job.profile.as_ref(), "--profile"),
            retry_for: flag(retry_for.as_ref(), "--retry-for"),
        }
    }
}

/// The names that mean something in the first place.
#[must_use]
pub fn verb_names() -> Vec<String> {
    Args::command()
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect()
}

/// The short help page.
#[must_use]
pub fn help() -> String {
    Args::command().render_help().to_string()
}

fn whole_seconds(text: &str) -> Result<u64, String> {
    match parse_duration(text)?.as_secs() {
        0 => Err("at least one second".to_owned()),
        seconds => Ok(seconds),
    }
}

fn grace(text: &str) -> Result<u64, String> {
    match parse_duration(text)?.as_secs() {
        seconds @ 0..=MAX_GRACE_SECONDS => Ok(seconds),
        _ => Err(format!("at most {MAX_GRACE_SECONDS} seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }
}
