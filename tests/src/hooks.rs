//! Sets fail points and sabotage switches of the programs of a test build (crate `invoke-hooks`).

use std::process::Command;

use crate::bed::Bed;
use crate::process::run;

/// Where the test bed's dispatcher listens for them.
const DISPATCHER: &str = "127.0.0.1:9999";

/// In which program. What is set lasts until the program ends; see [`crate::row::Without`] for what is
/// to last longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The dispatcher.
    Dispatcher,
    /// Every replica of the runner; names that begin with `shim.` are passed on to the pods that it
    /// makes from then on.
    Runner,
}

/// Sets a hook in a running program: see the `fail` crate for the words, such as `return`, `1*return`,
/// `off`.
///
/// # Panics
/// If the program does not take it: it is no test build, or does not run.
pub fn set(bed: &Bed, program: Program, name: &str, actions: &str) {
    match program {
        Program::Dispatcher => {
            let url = format!("http://{DISPATCHER}/?name={name}&actions={actions}");
            let ran = run(Command::new("curl").args(["-gsS", "--fail", "-m", "5", &url]));
            assert_eq!(ran.code, 0, "the dispatcher takes no hooks: {ran:?}");
        }
        Program::Runner => {
            let pods = bed.runner_pods();
            assert!(!pods.is_empty(), "there is no runner to set {name} in");
            for pod in pods {
                set_in_pod(bed, &pod, name, actions);
            }
        }
    }
}

/// Sets a hook in one replica of the runner.
///
/// # Panics
/// If it does not take it.
pub fn set_in_pod(bed: &Bed, pod: &str, name: &str, actions: &str) {
    let actions = actions.replace('>', "%3E").replace('*', "%2A");
    let path = format!(
        "/api/v1/namespaces/invoke-system/pods/{pod}:9999/proxy/?name={name}&actions={actions}"
    );
    let ran = bed.kubectl(&["get", "--raw", &path]);
    assert_eq!(ran.code, 0, "runner {pod} takes no hooks: {ran:?}");
}
