//! What a profile gives its commands of the jobs namespace's Secrets. Kubernetes puts it into the pod: the
//! runner names Secrets, and may read none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use invoke_protocol::environment::{Environment, InvalidEnvironment};
use invoke_protocol::shim::{ARTIFACTS_DIR, HOME_DIR, STATE_DIR, WORK_DIR};
use serde::Deserialize;

use crate::pod::{SHIM, TMP_DIR};

/// A variable of the command whose value is one key of a Secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SecretVariable {
    /// The variable.
    pub(crate) name: String,
    /// The Secret.
    pub(crate) secret: String,
    /// Its key.
    pub(crate) key: String,
}

/// A folder of the command with a file for each key of a Secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SecretFolder {
    /// The Secret.
    pub(crate) secret: String,
    /// Where the folder is.
    pub(crate) mount_path: String,
}

/// Why Secrets cannot be given as a profile says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidSecrets {
    #[error(transparent)]
    Variable(#[from] InvalidEnvironment),
    #[error("secretVariables has {0} twice")]
    SameVariable(String),
    #[error("secretVariables has HOME, which is invoke's own")]
    Home,
    #[error("{0:?} is no name of a Secret")]
    Secret(String),
    #[error(
        "{0:?} is no key of a Secret: use letters, digits, -, _ and ., and do not begin with .."
    )]
    Key(String),
    #[error(
        "the mountPath {0:?} is no absolute path, or has a colon or one of the names . and .. in it"
    )]
    Path(String),
    #[error("the mountPath {path} and {taken} are in each other's way: choose another folder")]
    Taken { path: String, taken: String },
}

/// Where a pod's own things are: a Secret there would hide them, or be hidden.
const OUR_FOLDERS: [&str; 7] = [
    WORK_DIR,
    ARTIFACTS_DIR,
    HOME_DIR,
    TMP_DIR,
    STATE_DIR,
    "/run/secrets",
    SHIM,
];

/// Checks what Kubernetes would refuse with every pod, and what would get in the way of our own.
pub(super) fn check(
    variables: &[SecretVariable],
    folders: &[SecretFolder],
) -> Result<(), InvalidSecrets> {
    let mut names = BTreeSet::new();
    for SecretVariable { name, secret, key } in variables {
        Environment::try_from(BTreeMap::from([(name.clone(), String::new())]))?;
        if name == "HOME" {
            return Err(InvalidSecrets::Home);
        }
        if !names.insert(name) {
            return Err(InvalidSecrets::SameVariable(name.clone()));
        }
        check_secret(secret)?;
        if !is_key(key) {
            return Err(InvalidSecrets::Key(key.clone()));
        }
    }
    let mut taken = OUR_FOLDERS.map(ToOwned::to_owned).to_vec();
    for SecretFolder { secret, mount_path } in folders {
        check_secret(secret)?;
        let path = resolved(mount_path).ok_or_else(|| InvalidSecrets::Path(mount_path.clone()))?;
        if let Some(taken) = taken.iter().find(|taken| are_nested(&path, taken)) {
            let (path, taken) = (mount_path.clone(), taken.clone());
            return Err(InvalidSecrets::Taken { path, taken });
        }
        taken.push(path);
    }
    Ok(())
}

/// A DNS subdomain, as Kubernetes wants it (RFC 1123).
fn check_secret(name: &str) -> Result<(), InvalidSecrets> {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match name.len() <= 253 && name.split('.').all(is_label) {
        true => Ok(()),
        false => Err(InvalidSecrets::Secret(name.to_owned())),
    }
}

fn is_key(key: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_file = key != "." && !key.starts_with("..");
    is_file && (1..=253).contains(&key.len()) && key.bytes().all(is_letter)
}

/// The path as a container sees it: `/var/run` is `/run` there.
fn resolved(path: &str) -> Option<String> {
    let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
    let is_plain = path.starts_with('/')
        && !path.contains(':')
        && !names.iter().any(|name| matches!(*name, "." | ".."));
    let names = match names.as_slice() {
        ["var", "run", rest @ ..] => [&["run"], rest].concat(),
        _ => names,
    };
    is_plain.then(|| format!("/{}", names.join("/")))
}

fn are_nested(one: &str, other: &str) -> bool {
    Path::new(one).starts_with(other) || Path::new(other).starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, secret: &str, key: &str) -> Result<(), InvalidSecrets> {
        let (name, secret, key) = (name.to_owned(), secret.to_owned(), key.to_owned());
        check(&[SecretVariable { name, secret, key }], &[])
    }

    fn folders(paths: &[&str]) -> Result<(), InvalidSecrets> {
        let folder = |path: &&str| SecretFolder {
            secret: "registry".to_owned(),
            mount_path: (*path).to_owned(),
        };
        check(&[], &paths.iter().map(folder).collect::<Vec<_>>())
    }

    #[test]
    fn what_kubernetes_takes_is_taken() {
        for (name, secret, key) in [
            ("TOKEN", "registry", "token"),
            ("_t1", "a.b-c.d0", ".data_KEY-1"),
        ] {
            assert_eq!(variable(name, secret, key), Ok(()), "{name}");
        }
        let good = ["/etc/registry", "/home/other", "/run/registry", "/workshop"];
        assert_eq!(folders(&good), Ok(()));
    }

    /// Kubernetes would refuse every pod of the profile, each time a job asks for one.
    #[test]
    fn what_kubernetes_refuses_is_refused_at_the_start() {
        for name in ["", "A-B", "1A", "A,B", "INVOKE_RUNNER_CA", "HOME"] {
            assert!(variable(name, "registry", "token").is_err(), "{name}");
        }
        for secret in [
            "",
            "Registry",
            "a_b",
            "-a",
            "a-",
            "a..b",
            "a/b",
            &"a".repeat(254),
        ] {
            assert_eq!(
                variable("TOKEN", secret, "token"),
                Err(InvalidSecrets::Secret(secret.to_owned()))
            );
        }
        for key in ["", "a/b", "a b", "ä", ".", "..", "..data"] {
            assert_eq!(
                variable("TOKEN", "registry", key),
                Err(InvalidSecrets::Key(key.to_owned()))
            );
        }
        for path in ["", "registry", "./registry", "/a/../b", "/a/./b", "/a:b"] {
            assert_eq!(folders(&[path]), Err(InvalidSecrets::Path(path.to_owned())));
        }
    }

    #[test]
    fn nothing_is_mounted_over_what_the_pod_needs() {
        let bad = [
            "/",
            "/work",
            "/work/",
            "//work",
            "/work/registry",
            "/artifacts/x",
            "/home",
            "/home/invoke/.docker",
            "/tmp/registry",
            "/run",
            "/run/invoke",
            "/var/run/invoke",
            "/var/run/secrets/registry",
            "/run/secrets/kubernetes.io",
            "/usr/local/bin",
        ];
        for path in bad {
            let refused = folders(&[path]).unwrap_err();
            assert!(
                matches!(refused, InvalidSecrets::Taken { .. }),
                "{path}: {refused}"
            );
        }
        for two in [
            ["/etc/a", "/etc/a"],
            ["/etc/a", "/etc/a/b"],
            ["/etc/a/b", "/etc/a/"],
        ] {
            let refused = folders(&two).unwrap_err();
            assert!(matches!(refused, InvalidSecrets::Taken { .. }), "{two:?}");
        }
    }

    #[test]
    fn a_variable_has_one_value() {
        let one = || SecretVariable {
            name: "TOKEN".to_owned(),
            secret: "registry".to_owned(),
            key: "token".to_owned(),
        };
        let refused = check(&[one(), one()], &[]).unwrap_err();
        assert_eq!(refused, InvalidSecrets::SameVariable("TOKEN".to_owned()));
    }
}
