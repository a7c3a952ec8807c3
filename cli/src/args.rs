//! The command line as it is written.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use invoke_protocol::id::{ClusterName, JobId};
use invoke_protocol::job::{IfOffline, MAX_GRACE_SECONDS};

use crate::exit::{self, Exit};
use crate::failure::Failure;
use crate::settings::{Layer, Origin, Sourced, parse_duration};

mod complaint;

pub use complaint::words_of;

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
  invoke --no-wait \"./long-job.sh\"           the job's id; `invoke logs -f ID` follows it";

const GIVEN: &str = "What the command gets";

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

/// What to run, where and how.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// A line for the pod's shell, in quotes
    #[arg(value_name = "SHELL LINE", hide = true)]
    pub words: Vec<OsString>,

    /// A program and its arguments, with no shell between
    #[arg(value_name = "PROGRAM", last = true, hide = true)]
    pub argv: Vec<OsString>,

    /// Run in this cluster, if there is more than one [env: INVOKE_CLUSTER]
    #[arg(short, long, value_name = "NAME")]
    pub cluster: Option<String>,

    /// Run as this profile, not as `default` [env: INVOKE_PROFILE]
    ///
    /// Profiles are configured by the cluster's owner: image, identity and rights, resources.
    /// `invoke clusters` lists them.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,

    /// Give up if the command has not started by then [default: 15m]
    ///
    /// A job whose cluster is offline or full waits this long, and is never started later.
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    pub start_within: Option<u64>,

    /// Stop the command after this time [default: the profile's maximum]
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    pub run_timeout: Option<u64>,

    /// While its cluster is offline: wait for it, or fail [default: wait]
    ///
    /// A job that waits does so until its start deadline. `fail` exits with 244, and there is no job.
    #[arg(
        long,
        value_name = "wait|fail",
        default_value = "wait",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub if_offline: Offline,

    /// Print the job's id and leave
    #[arg(long)]
    pub no_wait: bool,

    /// Attach a file or folder, which the command finds in its folder
    ///
    /// It keeps its path; ../x and /etc/x are sent as x, PATH:DEST as DEST. Of a folder everything is sent,
    /// also hidden files, empty folders and links that stay inside, but for .git and what .invokeignore
    /// files name (in gitignore's syntax). At most 1 GiB and 100,000 files, folders and links a job, unless
    /// the dispatcher's operator says otherwise. What was uploaded before is not uploaded again. -f - is --stdin.
    #[arg(
        short = 'f',
        long = "file",
        value_name = "PATH[:DEST]",
        help_heading = GIVEN
    )]
    pub files: Vec<OsString>,

    /// Let the command read this program's stdin, as it comes; also: -f -
    ///
    /// Without, the command reads nothing.
    #[arg(long, help_heading = GIVEN)]
    pub stdin: bool,

    /// Set a variable of the command [default value: the one it has here]
    ///
    /// Whoever may read the job may read it. All variables come to at most 128 KiB.
    #[arg(long = "env", value_name = "NAME[=VALUE]", help_heading = GIVEN)]
    pub variables: Vec<OsString>,

    /// Set variables from a file with a NAME=VALUE or NAME on each line
    #[arg(long = "env-file", value_name = "FILE", help_heading = GIVEN)]
    pub variable_files: Vec<std::path::PathBuf>,

    /// Set a variable that nobody sees, and that is masked in the output
    ///
    /// Its value is the one it has here, or a file's content without the newline at its end. There is no
    /// NAME=VALUE: other users can read command lines. A value of less than 6 bytes is not masked.
    #[arg(long = "secret", value_name = "NAME[=@FILE]", help_heading = GIVEN)]
    pub secrets: Vec<OsString>,
}

/// What to do about a cluster whose runner does not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Offline {
    /// Wait for it
    Wait,
    /// Run nothing
    Fail,
}

impl From<Offline> for IfOffline {
    fn from(offline: Offline) -> Self {
        match offline {
            Offline::Wait => Self::Wait,
            Offline::Fail => Self::Fail,
        }
    }
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
    /// List clusters, or add one
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  invoke clusters\n  invoke clusters add edge-7 > values.yaml"
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

/// What to do with clusters.
#[derive(Debug, Subcommand)]
pub enum ClustersVerb {
    /// Add a cluster, and print the Helm values that its runner is installed with
    #[command(after_help = "Example:\n  invoke clusters add edge-7 > values.yaml")]
    Add {
        /// What to call it: a-z, 0-9 and -
        name: ClusterName,
    },
    /// Print the same Helm values with a fresh join token; earlier ones are void
    #[command(after_help = "Example:\n  invoke clusters token edge-7 > values.yaml")]
    Token {
        /// The cluster
        name: ClusterName,
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
        let run = &self.run;
        let options = [
            ("--cluster", run.cluster.is_some()),
            ("--profile", run.profile.is_some()),
            ("--start-within", run.start_within.is_some()),
            ("--run-timeout", run.run_timeout.is_some()),
            ("--if-offline", run.if_offline == Offline::Fail),
            ("--no-wait", run.no_wait),
            ("--file", !run.files.is_empty()),
            ("--stdin", run.stdin),
            ("--env", !run.variables.is_empty()),
            ("--env-file", !run.variable_files.is_empty()),
            ("--secret", !run.secrets.is_empty()),
        ];
        match options
            .into_iter()
            .find(|(_, given)| *given && self.verb.is_some())
        {
            None => Ok(self),
            Some((name, _)) => Err(Failure::new(
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
        Layer {
            url: flag(url.as_ref(), "--url"),
            token: None,
            token_file: flag(token_file.as_ref(), "--token-file"),
            ca_file: flag(ca_file.as_ref(), "--ca-file"),
            cluster: flag(self.run.cluster.as_ref(), "--cluster"),
            profile: flag(self.run.profile.as_ref(), "--profile"),
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
