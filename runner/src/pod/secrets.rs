//! What a profile gives its commands of the namespace's Secrets: names only, Kubernetes fetches the rest.
//! The shim is told what of it to mask in the output.

use invoke_protocol::shim::{ENV_SECRET_FOLDERS, ENV_SECRET_VARIABLES};
use k8s_openapi::api::core::v1::{
    EnvVar, EnvVarSource, SecretKeySelector, SecretVolumeSource, Volume, VolumeMount,
};

use super::{mount, variable};
use crate::config::{Profile, SecretFolder, SecretVariable};

pub(super) fn variables(profile: &Profile) -> Vec<EnvVar> {
    let given = profile.secret_variables.iter().map(from_secret);
    let names = profile.secret_variables.iter().map(|given| &*given.name);
    let paths = profile
        .secret_folders
        .iter()
        .map(|given| &*given.mount_path);
    given
        .chain(list(ENV_SECRET_VARIABLES, names, ","))
        .chain(list(ENV_SECRET_FOLDERS, paths, ":"))
        .collect()
}

fn from_secret(given: &SecretVariable) -> EnvVar {
    let SecretVariable { name, secret, key } = given;
    EnvVar {
        name: name.clone(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.clone(),
                key: key.clone(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// Nothing, if there is nothing to list.
fn list<'a>(name: &str, items: impl Iterator<Item = &'a str>, separator: &str) -> Option<EnvVar> {
    let items: Vec<_> = items.collect();
    (!items.is_empty()).then(|| variable(name, &items.join(separator)))
}

pub(super) fn mounts(profile: &Profile) -> impl Iterator<Item = VolumeMount> {
    let folders = profile.secret_folders.iter().enumerate();
    folders.map(|(index, folder)| mount(&name(index), &folder.mount_path, true))
}

pub(super) fn volumes(profile: &Profile) -> impl Iterator<Item = Volume> {
    let volume = |(index, folder): (usize, &SecretFolder)| Volume {
        name: name(index),
        secret: Some(SecretVolumeSource {
            secret_name: Some(folder.secret.clone()),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    profile.secret_folders.iter().enumerate().map(volume)
}

fn name(index: usize) -> String {
    format!("secret-{index}")
}
