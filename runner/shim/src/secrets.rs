//! What is known to be secret in this pod: it is masked in what the command prints.
//!
//! It is read once, before the command starts. The kubelet writes a mounted Secret anew some time after
//! somebody has changed it: a value that comes into the pod only then is not known, and not masked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use invoke_protocol::shim::Assignment;

use crate::config::Config;
use crate::log;

/// A Secret of Kubernetes is not larger. What is, was not mounted from one.
const LONGEST_BYTES: u64 = 1024 * 1024;

/// The values: of the job's secret variables, of those of the pod, and the files of mounted Secrets.
pub(crate) fn known(config: &Config, assignment: &Assignment) -> Vec<Vec<u8>> {
    let of_job = assignment.secrets.expose().values();
    let of_job = of_job.map(|value| value.clone().into_bytes());
    let of_pod = config.secret_variables.iter().filter_map(std::env::var_os);
    let mut values: Vec<_> = of_job.chain(of_pod.map(OsStringExt::into_vec)).collect();
    for folder in &config.secret_folders {
        // The command runs as the same user: what cannot be read here, it cannot print either.
        if let Err(error) = add_files(folder, &mut values) {
            log::chain("a folder of secrets cannot be read", &error);
        }
    }
    values
}

/// Adds the contents of all files in a folder, also of those that the kubelet's links lead to: it shows
/// `key` as a link to `..data/key`, and `..data` as one to the folder of the day.
fn add_files(folder: &Path, values: &mut Vec<Vec<u8>>) -> io::Result<()> {
    let root = folder.canonicalize()?;
    let mut seen = BTreeSet::from([root.clone()]);
    let mut folders = vec![root.clone()];
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
                values.extend(content(&path)?);
            }
        }
    }
    Ok(())
}

fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    let mut file = File::open(path)?.take(LONGEST_BYTES + 1);
    file.read_to_end(&mut content)?;
    Ok((content.len() as u64 <= LONGEST_BYTES).then_some(content))
}
