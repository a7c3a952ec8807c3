//! Where the shim finds its runner and its folders.

use std::env::VarError;
use std::net::{AddrParseError, SocketAddr};
use std::num::ParseIntError;
use std::path::PathBuf;
use std::time::Duration;

use invoke_protocol::artifacts::ArtifactsLimits;
use invoke_protocol::files::FILES_WITHIN_SECONDS;
use invoke_protocol::shim::{
    ARTIFACTS_DIR, ENV_ARTIFACTS_BYTES, ENV_ARTIFACTS_ENTRIES, ENV_RUNNER_ADDRESS, ENV_RUNNER_CA,
    ENV_SECRET_FOLDERS, ENV_SECRET_VARIABLES, STATE_DIR, TOKEN_FILE, WORK_DIR,
};

/// The most output that may wait on disk for its acknowledgement, in bytes. Beyond it the pipes are
/// not read, so the command waits in its write(2). The pod's state folder must be larger than this.
const SPOOL_LIMIT_BYTES: u64 = 256 * 1024 * 1024;

/// How long the dispatcher may have no room for the output of a command that has ended.
const STORAGE_FULL_WITHIN: Duration = Duration::from_secs(60);

/// How long the output of a command that has ended may make no progress, and then its record. Longer than
/// the pod may live with any common profile: an absence of the dispatcher is outlasted, and what ends it
/// earlier is the dispatcher's word that the job is over, or the pod's own deadline.
const FAREWELL_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it may take to fetch and unpack the attached files.
const FILES_WITHIN: Duration = Duration::from_secs(FILES_WITHIN_SECONDS);

/// How long a runner may take no notice that the command was told to stop.
const CANCELLING_WITHIN: Duration = Duration::from_secs(10);

/// Everything that differs between a pod and a test.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the runner's door is.
    pub runner_address: SocketAddr,
    /// The only certificate authority that the door may show, PEM.
    pub runner_ca: String,
    /// The pod's token for its runner; read anew for each call, because the kubelet renews it.
    pub token_file: PathBuf,
    /// Where the marker and the spool are kept.
    pub state_dir: PathBuf,
    /// The command's current folder.
    pub work_dir: PathBuf,
    /// Where the command leaves what is to come back.
    pub artifacts_dir: PathBuf,
    /// How much of that there may be.
    pub artifacts_limits: ArtifactsLimits,
    /// The names of variables of this process whose values are masked in the output.
    pub secret_variables: Vec<String>,
    /// Folders with files whose contents are masked in the output.
    pub secret_folders: Vec<PathBuf>,
    /// Where Kubernetes looks for a container's last words.
    pub termination_log: PathBuf,
    /// Where the kernel shows the container's cgroup.
    pub cgroup_dir: PathBuf,
    /// The most output that may wait on disk, in bytes.
    pub spool_limit_bytes: u64,
    /// How long the output of a command that has ended may be refused for want of room.
    pub storage_full_within: Duration,
    /// How long a command that has ended may keep its pod without progress: its output, then its record.
    pub farewell_within: Duration,
    /// How long it may take to fetch and unpack the attached files.
    pub files_within: Duration,
    /// How long to tell the runner that the command was told to stop.
    pub cancelling_within: Duration,
}

/// An environment that no runner makes: the shim was started by something else.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable is not set.
    #[error("{0} is not set: this program is started by the invoke runner, in a pod that it made")]
    Missing(&'static str),
    /// A variable is no text.
    #[error("{0} is no UTF-8 text")]
    NotText(&'static str),
    /// The address is none.
    #[error("{ENV_RUNNER_ADDRESS} is {0:?}, which is no IP address with a port")]
    Address(String, #[source] AddrParseError),
    /// A limit is none.
    #[error("{0} is {1:?}, which is no number")]
    Number(&'static str, String, #[source] ParseIntError),
}

impl Config {
    /// The configuration of a pod.
    ///
    /// # Errors
    /// [`Error`], where a variable is missing or means nothing.
    pub fn from_environment() -> Result<Self, Error> {
        let variable = |name| std::env::var(name).map_err(|_| Error::Missing(name));
        let address = variable(ENV_RUNNER_ADDRESS)?;
        Ok(Self {
            runner_address: address.parse().map_err(|e| Error::Address(address, e))?,
            runner_ca: variable(ENV_RUNNER_CA)?,
            token_file: TOKEN_FILE.into(),
            state_dir: STATE_DIR.into(),
            work_dir: WORK_DIR.into(),
            artifacts_dir: ARTIFACTS_DIR.into(),
            artifacts_limits: artifacts_limits()?,
            secret_variables: list(ENV_SECRET_VARIABLES, ',')?,
            secret_folders: list(ENV_SECRET_FOLDERS, ':')?
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            termination_log: "/dev/termination-log".into(),
            cgroup_dir: "/sys/fs/cgroup".into(),
            spool_limit_bytes: SPOOL_LIMIT_BYTES,
            storage_full_within: STORAGE_FULL_WITHIN,
            farewell_within: FAREWELL_WITHIN,
            files_within: FILES_WITHIN,
            cancelling_within: CANCELLING_WITHIN,
        })
    }
}

/// What the pod has room for. A runner that is older than this says nothing, and makes room for the default.
fn artifacts_limits() -> Result<ArtifactsLimits, Error> {
    let usual = ArtifactsLimits::default();
    Ok(ArtifactsLimits {
        content_bytes: number(ENV_ARTIFACTS_BYTES, usual.content_bytes)?,
        entries: number(ENV_ARTIFACTS_ENTRIES, usual.entries)?,
    })
}

fn number(name: &'static str, usual: u64) -> Result<u64, Error> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|error| Error::Number(name, text, error)),
        Err(VarError::NotPresent) => Ok(usual),
        Err(VarError::NotUnicode(_)) => Err(Error::NotText(name)),
    }
}

/// What a variable lists; nothing if it is not set.
fn list(name: &'static str, separator: char) -> Result<Vec<String>, Error> {
    match std::env::var(name) {
        Ok(text) => Ok(text
            .split(separator)
            .filter(|part| !part.is_empty())
            .map(ToOwned::to_owned)
            .collect()),
        Err(VarError::NotPresent) => Ok(Vec::new()),
        // To mask less than was asked for would be to print secrets.
        Err(VarError::NotUnicode(_)) => Err(Error::NotText(name)),
    }
}
