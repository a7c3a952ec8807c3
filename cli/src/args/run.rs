//! What to run, where and how: `invoke COMMAND`, and what a schedule has of that.

use std::ffi::OsString;

use clap::ValueEnum;
use invoke_protocol::fanout::{FailureBudget, OfflineClusters, OnStop, Share};
use invoke_protocol::id::ClusterName;
use invoke_protocol::job::IfOffline;
use invoke_protocol::selector::Selector;

use super::whole_seconds;

const GIVEN: &str = "What the command gets";
const MANY: &str = "Many clusters";

/// What to run, where and how.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// A line for the pod's shell, in quotes
    #[arg(value_name = "SHELL LINE", hide = true)]
    pub words: Vec<OsString>,

    /// A program and its arguments, with no shell between
    #[arg(value_name = "PROGRAM", last = true, hide = true)]
    pub argv: Vec<OsString>,

    /// The job.
    #[command(flatten)]
    pub job: JobArgs,

    /// Let the command read this program's stdin, as it comes; also: -f -
    ///
    /// Without, the command reads nothing.
    #[arg(long, help_heading = GIVEN)]
    pub stdin: bool,

    /// Print the job's id and leave
    #[arg(long)]
    pub no_wait: bool,

    /// Over many clusters.
    #[command(flatten)]
    pub many: ManyArgs,

    /// Do not ask, also if it runs on more than one cluster and does not only read
    #[arg(short, long, help_heading = MANY, hide_short_help = true)]
    pub yes: bool,

    /// Print which clusters it would run on, and in which order; run nothing
    #[arg(long, help_heading = MANY, hide_short_help = true)]
    pub dry_run: bool,

    /// Print at the end what they printed, once for all clusters that printed the same
    ///
    /// Meanwhile a terminal is shown how far it is. Until then output is kept in temporary files.
    #[arg(long, help_heading = MANY, hide_short_help = true)]
    pub group: bool,
}

/// What a job gets.
#[derive(Debug, clap::Args)]
pub struct JobArgs {
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

    /// If a cluster is offline: wait, fail or, with -l, skip [default: wait]
    ///
    /// A job that waits does so until its start deadline. `fail` exits with 244, and there is no job. With -l,
    /// a cluster that waits does so when its turn comes, while others overtake it; one that is skipped is no
    /// failure.
    #[arg(long, value_name = "HOW", hide_possible_values = true)]
    pub if_offline: Option<Offline>,

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

/// Which clusters, how many at once, and when to stop.
#[derive(Debug, Clone, clap::Args)]
pub struct ManyArgs {
    /// Run on all clusters with these labels, as in -l env=prod,tier!=edge
    ///
    /// As of kubectl: KEY=VALUE, KEY!=VALUE, KEY, !KEY, KEY in (A,B), KEY notin (A,B); all of them must be true.
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "cluster", help_heading = MANY)]
    pub selector: Option<Selector>,

    /// Run on this cluster first, and on others only when it has succeeded; may be repeated
    #[arg(long, value_name = "NAME", help_heading = MANY, hide_short_help = true)]
    pub canary: Vec<ClusterName>,

    /// Run on so many at once, or on so many per cent of them [default: on all]
    #[arg(long, value_name = "COUNT|PERCENT%", help_heading = MANY, hide_short_help = true)]
    pub concurrency: Option<Share>,

    /// Begin with one, and allow one more with each success, up to --concurrency
    #[arg(long, help_heading = MANY, hide_short_help = true)]
    pub ramp: bool,

    /// Stop when more than so many have failed, or so many per cent [default: only after a canary]
    #[arg(long, value_name = "COUNT|PERCENT%", help_heading = MANY, hide_short_help = true)]
    pub max_failures: Option<FailureBudget>,

    /// When it stops, let those that are running finish, or cancel them [default: finish]
    #[arg(
        long,
        value_name = "finish|cancel",
        hide_possible_values = true,
        help_heading = MANY,
        hide_short_help = true
    )]
    pub on_stop: Option<AtStop>,
}

/// What to do about a cluster whose runner does not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Offline {
    /// Wait for it
    Wait,
    /// Leave it out
    Skip,
    /// Run nothing
    Fail,
}

impl From<Offline> for OfflineClusters {
    fn from(offline: Offline) -> Self {
        match offline {
            Offline::Wait => Self::Wait,
            Offline::Skip => Self::Skip,
            Offline::Fail => Self::Fail,
        }
    }
}

impl Offline {
    /// What a single job does; `None` for what makes sense of many clusters only.
    #[must_use]
    pub const fn of_one(self) -> Option<IfOffline> {
        match self {
            Self::Wait => Some(IfOffline::Wait),
            Self::Skip => None,
            Self::Fail => Some(IfOffline::Fail),
        }
    }
}

/// What to do with clusters that are running when it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AtStop {
    /// Let them finish
    Finish,
    /// Cancel them
    Cancel,
}

impl From<AtStop> for OnStop {
    fn from(stop: AtStop) -> Self {
        match stop {
            AtStop::Finish => Self::Finish,
            AtStop::Cancel => Self::Cancel,
        }
    }
}

impl RunArgs {
    /// The first option that was given; before a subcommand it would do nothing.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let Self {
            words: _,
            argv: _,
            job,
            stdin,
            no_wait,
            many,
            yes,
            dry_run,
            group,
        } = self;
        let own = [
            ("--stdin", *stdin),
            ("--no-wait", *no_wait),
            ("--yes", *yes),
            ("--dry-run", *dry_run),
            ("--group", *group),
        ];
        let own = own.into_iter().find(|(_, given)| *given);
        job.first_given()
            .or_else(|| own.map(|(name, _)| name))
            .or_else(|| many.selector.as_ref().map(|_| "--selector"))
            .or_else(|| many.first_given())
    }
}

impl JobArgs {
    fn first_given(&self) -> Option<&'static str> {
        let Self {
            cluster,
            profile,
            start_within,
            run_timeout,
            if_offline,
            files,
            variables,
            variable_files,
            secrets,
        } = self;
        let options = [
            ("--cluster", cluster.is_some()),
            ("--profile", profile.is_some()),
            ("--start-within", start_within.is_some()),
            ("--run-timeout", run_timeout.is_some()),
            ("--if-offline", if_offline.is_some()),
            ("--file", !files.is_empty()),
            ("--env", !variables.is_empty()),
            ("--env-file", !variable_files.is_empty()),
            ("--secret", !secrets.is_empty()),
        ];
        let first = options.into_iter().find(|(_, given)| *given);
        first.map(|(name, _)| name)
    }

    /// Takes `-f -`, which means stdin, out of the files; whether it was there.
    #[must_use]
    pub fn take_stdin(&mut self) -> bool {
        let named = self.files.len();
        self.files.retain(|file| file != "-");
        self.files.len() < named
    }
}

impl ManyArgs {
    /// The first option besides the selector that was given; it means nothing without one.
    #[must_use]
    pub fn first_given(&self) -> Option<&'static str> {
        let Self {
            selector: _,
            canary,
            concurrency,
            ramp,
            max_failures,
            on_stop,
        } = self;
        let options = [
            ("--canary", !canary.is_empty()),
            ("--concurrency", concurrency.is_some()),
            ("--ramp", *ramp),
            ("--max-failures", max_failures.is_some()),
            ("--on-stop", on_stop.is_some()),
        ];
        let first = options.into_iter().find(|(_, given)| *given);
        first.map(|(name, _)| name)
    }
}
