//! What the cluster's owner configured: profiles and limits. Nobody outside can change it.

mod secrets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use invoke_protocol::id::ProfileName;
use invoke_protocol::output::DEFAULT_OUTPUT_CAP_BYTES;
use invoke_protocol::runner::ProfileSummary;
use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use serde::Deserialize;

pub(crate) use secrets::{InvalidSecrets, SecretFolder, SecretVariable};

/// The configuration file, as the chart writes it. A field that is not known is an error: a typing
/// error must not quietly mean a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Config {
    /// Where job pods are made.
    pub(crate) jobs_namespace: String,
    /// How many job pods may exist at once.
    pub(crate) max_jobs: usize,
    /// By name.
    pub(crate) profiles: BTreeMap<ProfileName, Profile>,
}

/// A way to run commands.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Profile {
    /// Whose rights its commands have: a ServiceAccount of the jobs namespace.
    pub(crate) service_account: String,
    /// What they run in. It must have the shim at [`crate::pod::SHIM`].
    pub(crate) image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub(crate) image_pull_policy: PullPolicy,
    /// What kubectl and helm take for the namespace when a command names none.
    pub(crate) namespace: String,
    /// For how long a command may run, in seconds.
    pub(crate) max_run_seconds: u64,
    /// For how long a job may wait for its start, in seconds; the dispatcher's own maximum if silent.
    #[serde(default)]
    pub(crate) max_start_within_seconds: Option<u64>,
    /// For how long a command may go on by itself after Kubernetes told its pod to stop, in seconds.
    #[serde(default = "default_drain_seconds")]
    pub(crate) drain_seconds: u64,
    /// How much output of a command is kept, in bytes of log.
    #[serde(default = "default_output_cap_bytes")]
    pub(crate) output_cap_bytes: u64,
    /// Variables that its commands have from Secrets of the jobs namespace.
    #[serde(default)]
    pub(crate) secret_variables: Vec<SecretVariable>,
    /// Folders that its commands have from Secrets of the jobs namespace.
    #[serde(default)]
    pub(crate) secret_folders: Vec<SecretFolder>,
    /// Requests and limits of the pod's one container.
    pub(crate) resources: ResourceRequirements,
    /// Which nodes may take the pod.
    #[serde(default)]
    pub(crate) node_selector: BTreeMap<String, String>,
    /// Which taints it tolerates.
    #[serde(default)]
    pub(crate) tolerations: Vec<Toleration>,
}

/// Long enough for most commands to end by themselves, and what most drains wait for anyway.
const fn default_drain_seconds() -> u64 {
    60
}

/// More would be kept by nobody.
const fn default_output_cap_bytes() -> u64 {
    DEFAULT_OUTPUT_CAP_BYTES
}

/// When the kubelet asks a registry for the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Why there is no configuration. The runner does not start without one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read the configuration {0}")]
    Read(PathBuf, #[source] std::io::Error),
    #[error("the configuration is wrong: {0}")]
    Parse(String),
    #[error("the configuration has no profile named \"default\"")]
    NoDefault,
    #[error("the configuration allows no job at all: maxJobs is 0")]
    NoJobs,
    #[error("profile {0} allows commands no time at all: maxRunSeconds is 0")]
    NoTime(ProfileName),
    #[error(
        "profile {profile} has outputCapBytes {bytes}; 1 to {DEFAULT_OUTPUT_CAP_BYTES} (4 GiB) can be kept"
    )]
    OutputCap { profile: ProfileName, bytes: u64 },
    #[error("profile {profile} cannot give its commands these Secrets")]
    Secrets {
        profile: ProfileName,
        #[source]
        source: InvalidSecrets,
    },
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Error`], with the name of the field that is wrong.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|error| Error::Read(path.to_owned(), error))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let config: Self =
            serde_saphyr::from_str(text).map_err(|error| Error::Parse(error.to_string()))?;
        if !config
            .profiles
            .contains_key(&ProfileName::default_profile())
        {
            return Err(Error::NoDefault);
        }
        if config.max_jobs == 0 {
            return Err(Error::NoJobs);
        }
        for (name, profile) in &config.profiles {
            profile.check(name)?;
        }
        Ok(config)
    }

    /// What submitters may know of the profiles.
    pub(crate) fn summaries(&self) -> Vec<ProfileSummary> {
        let summary = |(name, profile): (&ProfileName, &Profile)| ProfileSummary {
            name: name.clone(),
            max_run_seconds: profile.max_run_seconds,
            max_start_within_seconds: profile.max_start_within_seconds,
            output_cap_bytes: Some(profile.output_cap_bytes),
        };
        self.profiles.iter().map(summary).collect()
    }
}

impl Profile {
    fn check(&self, name: &ProfileName) -> Result<(), Error> {
        if self.max_run_seconds == 0 {
            return Err(Error::NoTime(name.clone()));
        }
        if !(1..=DEFAULT_OUTPUT_CAP_BYTES).contains(&self.output_cap_bytes) {
            return Err(Error::OutputCap {
                profile: name.clone(),
                bytes: self.output_cap_bytes,
            });
        }
        secrets::check(&self.secret_variables, &self.secret_folders).map_err(|source| {
            Error::Secrets {
                profile: name.clone(),
                source,
            }
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::chain;

    /// As the chart writes it.
    const CHART: &str = r#"
jobsNamespace: invoke-jobs
maxJobs: 50
profiles:
  default:
    serviceAccount: invoke-profile-default
    image: "localhost/invoke-job:dev"
    imagePullPolicy: IfNotPresent
    namespace: default
    maxRunSeconds: 3600
    resources: {"limits":{"cpu":2,"ephemeral-storage":"8Gi","memory":"1Gi"},"requests":{"cpu":"50m","ephemeral-storage":"64Mi","memory":"64Mi"}}
    nodeSelector: {}
    tolerations: []
  nightly:
    serviceAccount: nightly
    image: "localhost/tools@sha256:0000"
    imagePullPolicy: Never
    namespace: tools
    maxRunSeconds: 60
    maxStartWithinSeconds: 7200
    drainSeconds: 900
    outputCapBytes: 1048576
    secretVariables: [{"key":"token","name":"REGISTRY_TOKEN","secret":"registry"}]
    secretFolders: [{"mountPath":"/etc/registry","secret":"registry"},{"mountPath":"/etc/signing","secret":"signing-keys"}]
    resources: {}
    nodeSelector: {"pool":"jobs"}
    tolerations: [{"key":"jobs","operator":"Exists"}]
"#;

    pub(crate) fn config() -> Config {
        Config::parse(CHART).unwrap()
    }

    #[test]
    fn what_the_chart_writes_is_understood() {
        let config = config();
        let default = &config.profiles[&ProfileName::default_profile()];
        let limits = default.resources.limits.as_ref().unwrap();
        assert_eq!(limits["cpu"].0, "2", "also where somebody wrote a number");
        let nightly = &config.profiles[&"nightly".parse().unwrap()];
        assert_eq!(nightly.tolerations[0].key.as_deref(), Some("jobs"));
        let patience: Vec<_> = config
            .summaries()
            .iter()
            .map(|summary| summary.max_start_within_seconds)
            .collect();
        assert_eq!(patience, [None, Some(7200)]);
        let caps: Vec<_> = config
            .summaries()
            .iter()
            .map(|summary| summary.output_cap_bytes)
            .collect();
        assert_eq!(caps, [Some(DEFAULT_OUTPUT_CAP_BYTES), Some(1 << 20)]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("maxRunSeconds: 60", "maxRunSecond: 60", "maxRunSecond"),
            ("maxJobs: 50", "maxJobs: 0", "maxJobs"),
            ("maxRunSeconds: 60", "maxRunSeconds: 0", "nightly"),
            ("  default:", "  standard:", "default"),
            (
                "imagePullPolicy: Never",
                "imagePullPolicy: Sometimes",
                "Sometimes",
            ),
            ("  nightly:", "  Nightly!:", "Nightly!"),
            ("outputCapBytes: 1048576", "outputCapBytes: 0", "nightly"),
            (
                "outputCapBytes: 1048576",
                "outputCapBytes: 4294967297",
                "4294967297",
            ),
            ("REGISTRY_TOKEN", "INVOKE_TOKEN", "INVOKE_TOKEN"),
            ("/etc/signing", "/work/signing", "nightly"),
            ("/etc/signing", "/work/signing", "/work/signing"),
            (r#""key":"token","#, "", "key"),
        ];
        for (right, wrong, named) in cases {
            let error = Config::parse(&CHART.replace(right, wrong)).unwrap_err();
            let error = chain(&error);
            assert!(error.contains(named), "{wrong}: {error}");
        }
    }
}
