//! What to run, where and how: `invoke COMMAND`.

use std::ffi::OsString;

use clap::ValueEnum;
use invoke_protocol::job::IfOffline;

use super::whole_seconds;

const GIVEN: &str = "What the command gets";

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

    /// Print the job's id and leave
    #[arg(long)]
    pub no_wait: bool,
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

    /// While its cluster is offline: wait for it, or fail [default: wait]
    ///
    /// A job that waits does so until its start deadline. `fail` exits with 244, and there is no job.
    #[arg(long, value_name = "wait|fail", hide_possible_values = true)]
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

impl RunArgs {
    /// The first option that was given; before a subcommand it would do nothing.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let Self {
            words: _,
            argv: _,
            job,
            no_wait,
        } = self;
        job.first_given().or(no_wait.then_some("--no-wait"))
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
            stdin,
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
            ("--stdin", *stdin),
            ("--env", !variables.is_empty()),
            ("--env-file", !variable_files.is_empty()),
            ("--secret", !secrets.is_empty()),
        ];
        let first = options.into_iter().find(|(_, given)| *given);
        first.map(|(name, _)| name)
    }

    /// Whether the command is to read this program's stdin; the rest of the files stays.
    #[must_use]
    pub fn take_stdin(&mut self) -> bool {
        let named = self.files.len();
        self.files.retain(|file| file != "-");
        self.stdin || self.files.len() < named
    }
}
