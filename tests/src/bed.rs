//! The running test bed, found by the environment that `tests/run` sets.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::process::{Ran, run};

/// The test bed that these tests run in.
pub struct Bed {
    /// Name of the instance, and of its cluster.
    pub name: String,
    /// Address of the hub, where the dispatcher and RabbitMQ listen.
    pub hub_ip: String,
    /// Address of the cluster's node and API server.
    pub cluster_ip: String,
}

/// Finds the test bed.
///
/// # Panics
/// Without one, saying how to get it: a test that cannot test must not pass.
#[must_use]
pub fn bed() -> Bed {
    Bed {
        name: variable("INVOKE_TESTBED"),
        hub_ip: variable("INVOKE_TEST_HUB_IP"),
        cluster_ip: variable("INVOKE_TEST_CLUSTER_IP"),
    }
}

/// A variable that the test bed sets.
///
/// # Panics
/// If it is not set.
#[must_use]
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests need a test bed; run `make test`, which starts one")
    })
}

impl Bed {
    /// The CLI, as a user of this test bed has it.
    #[must_use]
    pub fn invoke(&self) -> Command {
        let mut command = Command::new(program("invoke"));
        // Neither a user's configuration file nor a variable of theirs reaches a test.
        command
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("XDG_DATA_HOME", "/nonexistent");
        command
            .env_remove("INVOKE_PROFILE")
            .env_remove("INVOKE_TOKEN");
        // Some tests add clusters; with more than one, a command has to say which it means.
        command.env("INVOKE_CLUSTER", &self.name);
        command
    }

    /// Runs the CLI with these arguments.
    #[must_use]
    pub fn ran(&self, arguments: &[&str]) -> Ran {
        run(self.invoke().args(arguments))
    }

    /// Runs the CLI and reads the one JSON document that it prints.
    ///
    /// # Panics
    /// If it prints anything else.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.ran(arguments);
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    /// Asks the dispatcher itself for a path, with the CLI's own token, by curl with these arguments.
    ///
    /// # Panics
    /// If there is no token.
    #[must_use]
    pub fn api(&self, arguments: &[&str], path: &str) -> Ran {
        let token = std::fs::read_to_string(variable("INVOKE_TOKEN_FILE"));
        let token = token.expect("the test bed has a token");
        let bearer = format!("Authorization: Bearer {}", token.trim());
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--header", &bearer]);
        command.arg("--cacert").arg(variable("INVOKE_CA_FILE"));
        let address = format!("{}{path}", variable("INVOKE_URL"));
        run(command.args(arguments).arg(address))
    }

    /// kubectl with the rights of the cluster's admin, from inside the cluster's network.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> Ran {
        run(self.kubectl_command().args(arguments))
    }

    /// The same, for who does more with it than to await its end.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let kubeconfig = variable("INVOKE_TEST_KUBECONFIG_ADMIN");
        let mut command = self.in_cluster_network(&variable("INVOKE_TEST_KUBECTL"));
        command.arg("--kubeconfig").arg(kubeconfig);
        command
    }

    /// A program in the network of the cluster's node; in this one, if the cluster is no part of the
    /// test bed.
    fn in_cluster_network(&self, program: &str) -> Command {
        match std::env::var("INVOKE_TEST_CLUSTER_NETNS") {
            Ok(namespace) if !namespace.is_empty() => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net=/run/netns/{namespace}"))
                    .arg("--")
                    .arg(program);
                command
            }
            _ => Command::new(program),
        }
    }

    /// The `testbed` command for this instance.
    #[must_use]
    pub fn testbed(&self, arguments: &[&str]) -> Ran {
        let script = workspace().join("tests/testbed/testbed");
        run(Command::new(script).arg(&self.name).args(arguments))
    }

    /// The names of the job pods that exist now.
    #[must_use]
    pub fn job_pods(&self) -> Vec<String> {
        let ran = self.kubectl(&["get", "pods", "-n", "invoke-jobs", "-o", "name"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.stdout_text().lines().map(str::to_owned).collect()
    }
}

/// The checkout.
#[must_use]
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A program that was built here.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("INVOKE_BIN_DIR")
        .map_or_else(|| workspace().join("target/debug"), PathBuf::from);
    folder.join(name)
}
