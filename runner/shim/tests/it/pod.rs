//! A pod's folders, and the shim as a process in it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use invoke_protocol::command::Command;
use invoke_protocol::environment::SecretEnvironment;
use invoke_protocol::output::DEFAULT_OUTPUT_CAP_BYTES;
use invoke_protocol::shim::Assignment;
use invoke_shim::config::Config;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::process::{Child, Command as Process};

use crate::door::{Door, Script, TOKEN};

const FOLDER: &str = "SHIM_TEST_FOLDER";
const SPOOL_LIMIT: &str = "SHIM_TEST_SPOOL_LIMIT";
const STORAGE_FULL: &str = "SHIM_TEST_STORAGE_FULL_MILLIS";
const FAREWELL: &str = "SHIM_TEST_FAREWELL_MILLIS";
const FILES_WITHIN: &str = "SHIM_TEST_FILES_WITHIN_MILLIS";

/// An assignment as a runner would make it.
pub(crate) fn assignment(command: Command) -> Assignment {
    Assignment {
        job: "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10".parse().unwrap(),
        command,
        environment: vec![("INVOKE_JOB_ID".to_owned(), "the-job".to_owned())],
        start_within_seconds: 60,
        run_timeout_seconds: 60,
        grace_seconds: 10,
        drain_seconds: 0,
        files: None,
        secrets: SecretEnvironment::default(),
        stdin: false,
        output_cap_bytes: DEFAULT_OUTPUT_CAP_BYTES,
    }
}

/// A door that hands out one shell line.
pub(crate) fn shell(line: &str) -> Script {
    Script {
        assignment: Some(assignment(Command::shell(line).unwrap())),
        ..Script::default()
    }
}

/// A pod whose shim can be started.
pub(crate) struct Pod {
    folder: TempDir,
    spool_limit: u64,
    storage_full: Duration,
    farewell: Duration,
    files_within: Duration,
    own_process_namespace: bool,
    environment: Vec<(&'static str, String)>,
}

impl Pod {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["state", "work", "artifacts", "cgroup"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
        Self {
            folder,
            spool_limit: 256 << 20,
            storage_full: Duration::from_secs(60),
            farewell: Duration::from_secs(3600),
            files_within: Duration::from_secs(3600),
            own_process_namespace: false,
            environment: Vec::new(),
        }
    }

    pub(crate) fn spool_limit(mut self, bytes: u64) -> Self {
        self.spool_limit = bytes;
        self
    }

    /// How long there may be no room for output, and no progress at all, after the end.
    pub(crate) fn impatient(mut self, storage_full: Duration, farewell: Duration) -> Self {
        self.storage_full = storage_full;
        self.farewell = farewell;
        self
    }

    /// How long it may take to bring the files.
    pub(crate) fn files_within(mut self, within: Duration) -> Self {
        self.files_within = within;
        self
    }

    /// The word in the termination message; `None` while there is none of this kind.
    pub(crate) fn last_words<T: DeserializeOwned>(&self) -> Option<T> {
        let text = std::fs::read(self.path("termination-log")).ok()?;
        assert!(text.len() <= 4096, "Kubernetes would cut it off");
        serde_json::from_slice(&text).ok()
    }

    /// The shim as PID 1, as in a real pod.
    pub(crate) fn own_process_namespace(mut self) -> Self {
        self.own_process_namespace = true;
        self
    }

    /// One more variable in the environment of the shim.
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn start(&self, door: &Door) -> Shim {
        let program = std::env::current_exe().unwrap();
        let mut process = if self.own_process_namespace {
            let mut process = Process::new("unshare");
            process
                .args(["--pid", "--fork", "--kill-child"])
                .arg(program);
            process
        } else {
            Process::new(program)
        };
        process
            .args([
                "--exact",
                "pod::shim_process",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(FOLDER, self.folder.path())
            .env(SPOOL_LIMIT, self.spool_limit.to_string())
            .env(STORAGE_FULL, self.storage_full.as_millis().to_string())
            .env(FILES_WITHIN, self.files_within.as_millis().to_string())
            .env(FAREWELL, self.farewell.as_millis().to_string())
            .env("INVOKE_RUNNER_ADDRESS", door.address.to_string())
            .env("INVOKE_RUNNER_CA", &door.ca_pem)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        Shim(process.spawn().unwrap())
    }

    /// Runs the shim to its end, and says its exit code.
    pub(crate) async fn run(&self, door: &Door) -> i32 {
        self.start(door).exit_code().await
    }
}

/// A shim that runs.
pub(crate) struct Shim(Child);

impl Shim {
    pub(crate) async fn exit_code(mut self) -> i32 {
        let waited = tokio::time::timeout(Duration::from_secs(60), self.0.wait()).await;
        waited
            .expect("the shim does not end")
            .unwrap()
            .code()
            .expect("the shim was killed")
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id().unwrap().try_into().unwrap()
    }

    pub(crate) fn terminate(&self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).unwrap();
    }
}

/// The process that [`Pod::start`] starts; as one of the tests it has nothing to do.
#[test]
fn shim_process() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    invoke_hooks::start();
    let number = |name| -> u64 { std::env::var(name).unwrap().parse().unwrap() };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // As PID 1 is: the parent of all orphans.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let config = Config {
        token_file: folder.join("token"),
        state_dir: folder.join("state"),
        work_dir: folder.join("work"),
        artifacts_dir: folder.join("artifacts"),
        termination_log: folder.join("termination-log"),
        cgroup_dir: folder.join("cgroup"),
        spool_limit_bytes: number(SPOOL_LIMIT),
        storage_full_within: Duration::from_millis(number(STORAGE_FULL)),
        farewell_within: Duration::from_millis(number(FAREWELL)),
        files_within: Duration::from_millis(number(FILES_WITHIN)),
        cancelling_within: Duration::from_secs(5),
        ..Config::from_environment().unwrap()
    };
    let code = invoke_shim::run(&config);
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS) * 125);
}
