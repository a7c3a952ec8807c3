//! What is known to be secret in this pod: it is masked in what the command prints.
//!
//! It is read once, before the command starts. The kubelet writes a mounted Secret anew some time after
//! somebody has changed it: a value that comes into the pod only then is not known, and not masked.
//!
//! To mask takes memory, so what a profile gives has a limit. Beyond it the command does not start: one whose
//! secrets are masked in part would be trusted with all of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use invoke_protocol::shim::Assignment;
use invoke_protocol::state::{Reason, ReasonCode};

use crate::config::Config;
use crate::log;

/// What a profile may give of Secrets, all values together. With as much as a job may bring along itself, they
/// take up a third of what a shim may have.
const MOST_BYTES: usize = 64 * 1024;

/// A profile gives more than can be masked.
#[derive(Debug, thiserror::Error)]
#[error(
    "with {0} the Secrets that the job's profile gives come to more than {MOST_BYTES} bytes, which is the most that \
     can be masked in a command's output; the command was not started: the cluster's owner has to let the profile \
     give less, and leave out what is not secret, such as certificates"
)]
pub(crate) struct TooMuch(String);

impl TooMuch {
    /// The same for the submitter.
    pub(crate) fn reason(&self) -> Reason {
        Reason::new(ReasonCode::SecretsTooLarge, self.to_string())
    }
}

/// The values: of the job's secret variables, of those of the pod, and the files of mounted Secrets.
///
/// # Errors
/// [`TooMuch`], by what the pod has.
pub(crate) fn known(config: &Config, assignment: &Assignment) -> Result<Vec<Vec<u8>>, TooMuch> {
    let mut of_pod = OfPod::default();
    for name in &config.secret_variables {
        if let Some(value) = std::env::var_os(name) {
            of_pod.add(value.into_vec(), || format!("the variable {name}"))?;
        }
    }
    for folder in &config.secret_folders {
        of_pod.add_files(folder)?;
    }
    let of_job = assignment.secrets.expose().values();
    let of_job = of_job.map(|value| value.clone().into_bytes());
    Ok(of_job.chain(of_pod.values).collect())
}

/// What the pod has by its profile.
#[derive(Default)]
struct OfPod {
    values: Vec<Vec<u8>>,
    bytes: usize,
}

impl OfPod {
    fn add(&mut self, value: Vec<u8>, what: impl Fn() -> String) -> Result<(), TooMuch> {
        self.bytes += value.len();
        if self.bytes > MOST_BYTES {
            return Err(TooMuch(what()));
        }
        self.values.push(value);
        Ok(())
    }

    fn add_files(&mut self, folder: &Path) -> Result<(), TooMuch> {
        // The command runs as the same user: what cannot be read here, it cannot print either.
        let files = files(folder).unwrap_or_else(|error| {
            log::chain("a folder of secrets cannot be read", &error);
            BTreeSet::new()
        });
        for file in files {
            let what = || {
                let key = file.file_name().unwrap_or_default();
                format!("the file {} in {}", key.display(), folder.display())
            };
            match content(&file) {
                Ok(content) => self.add(content, what)?,
                Err(error) => log::chain("a file of secrets cannot be read", &error),
            }
        }
        Ok(())
    }
}

/// All files in a folder, also those that the kubelet's links lead to: it shows `key` as a link to
/// `..data/key`, and `..data` as one to the folder of the day.
fn files(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let root = folder.canonicalize()?;
    let mut seen = BTreeSet::from([root.clone()]);
    let mut folders = vec![root.clone()];
    let mut files = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir()? {
            // A link that leads nowhere, or out of the folder, is no part of a Secret.
            let Ok(path) = entry?.path().canonicalize() else {
                continue;
            };
            if !path.starts_with(&root) || !seen.insert(path.clone()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                files.insert(path);
            }
        }
    }
    Ok(files)
}

/// As much of it as is needed to find that it is too much.
fn content(file: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut file = File::open(file)?.take(MOST_BYTES as u64 + 1);
    file.read_to_end(&mut content)?;
    Ok(content)
}
