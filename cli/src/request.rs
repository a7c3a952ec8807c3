//! A job as the command line asks for it: what to run, and what it gets. Its cluster and its profile are
//! settings, and its files are not uploaded yet.

use std::ffi::OsString;

use invoke_protocol::command::Command;
use invoke_protocol::id::ProfileName;
use invoke_protocol::job::{IfOffline, JobSpec};

use crate::args::JobArgs;
use crate::environment::{Environment, Options};
use crate::failure::Failure;
use crate::settings::Settings;

/// What to run, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRequest {
    command: Command,
    start_within_seconds: Option<u64>,
    run_timeout_seconds: Option<u64>,
    environment: Environment,
    /// The values of `-f`.
    pub files: Vec<OsString>,
}

impl JobRequest {
    /// Makes sense of the arguments. What becomes of stdin and of offline clusters is for others to say.
    ///
    /// # Errors
    /// [`Failure`] for variables that are none.
    pub fn understand(command: Command, args: JobArgs) -> Result<Self, Failure> {
        let environment = environment(&args)?;
        let JobArgs {
            start_within,
            run_timeout,
            files,
            ..
        } = args;
        Ok(Self {
            command,
            start_within_seconds: start_within,
            run_timeout_seconds: run_timeout,
            environment,
            files,
        })
    }

    /// What the person should know.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.environment.notices
    }

    /// The job, without its files, in the cluster and the profile that the settings name.
    #[must_use]
    pub fn spec(&self, settings: &Settings) -> JobSpec {
        JobSpec {
            command: self.command.clone(),
            cluster: settings.cluster.clone(),
            profile: settings
                .profile
                .clone()
                .unwrap_or_else(ProfileName::default_profile),
            start_within_seconds: self.start_within_seconds,
            run_timeout_seconds: self.run_timeout_seconds,
            if_offline: IfOffline::Wait,
            files: None,
            environment: self.environment.variables.clone(),
            secrets: self.environment.secrets.clone(),
            stdin: false,
        }
    }
}

/// What `--env`, `--env-file` and `--secret` say.
///
/// # Errors
/// [`Failure`] for variables that are none.
pub fn environment(args: &JobArgs) -> Result<Environment, Failure> {
    let options = Options {
        variables: &args.variables,
        files: &args.variable_files,
        secrets: &args.secrets,
    };
    Ok(Environment::gather(options, |name| std::env::var_os(name))?)
}
