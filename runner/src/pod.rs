//! Profile, order and the dispatcher's limits make a pod. Pure.
//!
//! The pod fits Pod Security `restricted`. It bears no credential of the runner's; the two tokens in it
//! are its own, made and renewed by the kubelet, and die with it. The command is **not** in it, nor are its
//! variables and secrets: they are handed over once the pod has a permit, so that whoever may read pods
//! reads no commands.

mod folders;
mod secrets;

use std::collections::BTreeMap;

use invoke_protocol::artifacts::ArtifactsLimits;
use invoke_protocol::envelope::OrderV1;
use invoke_protocol::files::FILES_WITHIN_SECONDS;
use invoke_protocol::shim::{
    ENV_ARTIFACTS_BYTES, ENV_ARTIFACTS_ENTRIES, ENV_RUNNER_ADDRESS, ENV_RUNNER_CA, HOME_DIR,
    WORK_DIR,
};
use invoke_protocol::topology::{
    JOB_LABEL, ORDER_ANNOTATION, PROFILE_LABEL, RESULT_FINALIZER, SHIM_TOKEN_AUDIENCE, pod_name,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile,
    EnvVar, KeyToPath, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec,
    ProjectedVolumeSource, SeccompProfile, SecurityContext, ServiceAccountTokenProjection, Volume,
    VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::config::Profile;
use crate::job_pod::MANAGED_BY;
use crate::order::Accepted;

pub(crate) use folders::TMP_DIR;

/// Where every job image has the shim.
pub(crate) const SHIM: &str = "/usr/local/bin/invoke-shim";

/// From SIGTERM to SIGKILL, in seconds, when a command is stopped.
pub(crate) const GRACE_SECONDS: u64 = 30;

/// What the shim has after that for the last output and the exit record.
const FAREWELL_SECONDS: u64 = 10;

/// Everyone's nobody: Pod Security wants a number that is not zero.
const USER: i64 = 65532;

/// For how long a projected token is good; the kubelet renews it when four fifths are over.
const TOKEN_SECONDS: i64 = 3600;

/// Annotation from which kubectl's default namespace is made.
const NAMESPACE_ANNOTATION: &str = "invoke.dev/default-namespace";

/// Where a shim finds its runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShimDoor {
    /// IP and port: the shim asks no resolver.
    pub(crate) address: std::net::SocketAddr,
    /// The one certificate authority that it trusts, PEM.
    pub(crate) ca: String,
}

/// For how long an order's command may run, in seconds: what was asked for, but never more than the
/// cluster's owner allows.
pub(crate) fn run_seconds(order: &OrderV1, profile: &Profile) -> u64 {
    order
        .run_timeout_seconds
        .unwrap_or(profile.max_run_seconds)
        .min(profile.max_run_seconds)
}

/// The pod for an order. The same order makes the same pod, whoever makes it, but for what the command may
/// leave: the pod itself tells its shim how much it has room for, so whoever has made it, the two agree.
pub(crate) fn manifest(
    accepted: &Accepted,
    profile: &Profile,
    door: &ShimDoor,
    artifacts: &ArtifactsLimits,
    now: Timestamp,
) -> Pod {
    let order = &accepted.order;
    Pod {
        metadata: ObjectMeta {
            name: Some(pod_name(order.job)),
            labels: Some(texts([
                (MANAGED_BY.0, MANAGED_BY.1),
                (JOB_LABEL, &order.job.to_string()),
                (PROFILE_LABEL, order.profile.as_str()),
            ])),
            annotations: Some(texts([
                (ORDER_ANNOTATION, &accepted.digest.to_string()),
                (NAMESPACE_ANNOTATION, &profile.namespace),
            ])),
            // Whoever deletes the pod, what Kubernetes knows of its end stays until it is on record.
            finalizers: (!invoke_hooks::sabotaged("no-finalizer"))
                .then(|| vec![RESULT_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container(order, profile, door, artifacts)],
            volumes: Some(volumes(order, profile, artifacts)),
            service_account_name: Some(profile.service_account.clone()),
            // Only the projected tokens below, with the pod's own life and audience.
            automount_service_account_token: Some(false),
            // Else every Service of the namespace would be in the command's environment.
            enable_service_links: Some(false),
            // A command starts at most once: no container of this pod is ever started again.
            restart_policy: Some("Never".to_owned()),
            active_deadline_seconds: Some(active_deadline(order, profile, now)),
            // A drain lets the command go on for a while, then stops it as a cancel would.
            termination_grace_period_seconds: Some(signed(
                profile
                    .drain_seconds
                    .saturating_add(GRACE_SECONDS + FAREWELL_SECONDS),
            )),
            security_context: Some(pod_security()),
            node_selector: Some(profile.node_selector.clone())
                .filter(|selector| !selector.is_empty()),
            tolerations: Some(profile.tolerations.clone())
                .filter(|tolerations| !tolerations.is_empty()),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// The last resort, should shim and dispatcher both fail to end the command: as long as it may wait for
/// its start, fetch its files, run, be stopped and upload what it printed.
fn active_deadline(order: &OrderV1, profile: &Profile, now: Timestamp) -> i64 {
    const SLACK_SECONDS: i64 = 600;
    let patience = order
        .expires_at
        .as_second()
        .saturating_sub(now.as_second())
        .max(0);
    let files = order.files.map_or(0, |_| FILES_WITHIN_SECONDS);
    let run = run_seconds(order, profile).saturating_add(files + GRACE_SECONDS + FAREWELL_SECONDS);
    // Kubernetes keeps it in 32 bits.
    patience
        .saturating_add(signed(run))
        .saturating_add(SLACK_SECONDS)
        .min(i64::from(i32::MAX))
}

fn container(
    order: &OrderV1,
    profile: &Profile,
    door: &ShimDoor,
    artifacts: &ArtifactsLimits,
) -> Container {
    Container {
        name: "command".to_owned(),
        image: Some(profile.image.clone()),
        image_pull_policy: Some(profile.image_pull_policy.as_str().to_owned()),
        command: Some(vec![SHIM.to_owned()]),
        working_dir: Some(WORK_DIR.to_owned()),
        env: Some(environment(profile, door, artifacts)),
        resources: Some(profile.resources.clone()),
        security_context: Some(container_security()),
        volume_mounts: Some(mounts(order, profile, artifacts)),
        ..Container::default()
    }
}

fn environment(profile: &Profile, door: &ShimDoor, artifacts: &ArtifactsLimits) -> Vec<EnvVar> {
    let own = [
        variable("HOME", HOME_DIR),
        variable(ENV_RUNNER_ADDRESS, &door.address.to_string()),
        variable(ENV_RUNNER_CA, &door.ca),
        variable(ENV_ARTIFACTS_BYTES, &artifacts.content_bytes.to_string()),
        variable(ENV_ARTIFACTS_ENTRIES, &artifacts.entries.to_string()),
    ];
    // In test builds only: what a test says about shims, it says to the runner.
    let hooks = invoke_hooks::set_with_prefix("shim.").map(|set| variable(invoke_hooks::ENV, &set));
    let secrets = secrets::variables(profile);
    own.into_iter().chain(secrets).chain(hooks).collect()
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        ..SecurityContext::default()
    }
}

fn mounts(order: &OrderV1, profile: &Profile, artifacts: &ArtifactsLimits) -> Vec<VolumeMount> {
    let folders = folders::folders(order.files.as_ref(), artifacts);
    let folders = folders.iter().map(folders::Folder::mount);
    let tokens = [
        mount(
            "cluster",
            "/var/run/secrets/kubernetes.io/serviceaccount",
            true,
        ),
        mount("runner", "/var/run/secrets/invoke.dev/runner", true),
    ];
    let secrets = secrets::mounts(profile);
    folders.chain(tokens).chain(secrets).collect()
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn volumes(order: &OrderV1, profile: &Profile, artifacts: &ArtifactsLimits) -> Vec<Volume> {
    let folders = folders::folders(order.files.as_ref(), artifacts);
    let folders = folders.iter().map(folders::Folder::volume);
    // What an automounted token would bring, so that kubectl and helm find what they expect; but the
    // namespace is the profile's: "kubectl get pods" must not mean the pods of other commands.
    let cluster = projected(
        "cluster",
        vec![token(None), certificate_authority(), default_namespace()],
    );
    let runner = projected("runner", vec![token(Some(SHIM_TOKEN_AUDIENCE))]);
    let secrets = secrets::volumes(profile);
    folders.chain([cluster, runner]).chain(secrets).collect()
}

fn projected(name: &str, sources: Vec<VolumeProjection>) -> Volume {
    Volume {
        name: name.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: None,
            sources: Some(sources),
        }),
        ..Volume::default()
    }
}

fn token(audience: Option<&str>) -> VolumeProjection {
    VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: audience.map(ToOwned::to_owned),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "token".to_owned(),
        }),
        ..VolumeProjection::default()
    }
}

fn certificate_authority() -> VolumeProjection {
    VolumeProjection {
        config_map: Some(ConfigMapProjection {
            // Kubernetes puts it into every namespace.
            name: "kube-root-ca.crt".to_owned(),
            items: Some(vec![KeyToPath {
                key: "ca.crt".to_owned(),
                path: "ca.crt".to_owned(),
                mode: None,
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    }
}

fn default_namespace() -> VolumeProjection {
    VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: None,
                    field_path: format!("metadata.annotations['{NAMESPACE_ANNOTATION}']"),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    }
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    }
}

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use invoke_protocol::digest::Sha256;
    use invoke_protocol::files::{DEFAULT_FILES_ENTRIES, Files, longest_archive};
    use invoke_protocol::shim::{ENV_SECRET_FOLDERS, ENV_SECRET_VARIABLES};
    use serde_json::{Value, json};

    use super::*;
    use crate::config::tests::config;
    use crate::order::tests::{NOW, accepted, order};

    fn door() -> ShimDoor {
        ShimDoor {
            address: "10.96.0.7:8443".parse().unwrap(),
            ca: "-----BEGIN CERTIFICATE-----\n".to_owned(),
        }
    }

    fn pod(profile: &str) -> Pod {
        pod_for(&accepted(), profile)
    }

    fn pod_for(accepted: &Accepted, profile: &str) -> Pod {
        pod_with(accepted, profile, &ArtifactsLimits::default())
    }

    fn pod_with(accepted: &Accepted, profile: &str, artifacts: &ArtifactsLimits) -> Pod {
        let config = config();
        let profile = &config.profiles[&profile.parse().unwrap()];
        manifest(accepted, profile, &door(), artifacts, NOW.parse().unwrap())
    }

    fn limits_of_folders(pod: Pod) -> BTreeMap<String, String> {
        let volumes = pod.spec.unwrap().volumes.unwrap().into_iter();
        volumes
            .filter_map(|volume| Some((volume.name, volume.empty_dir?.size_limit?.0)))
            .collect()
    }

    fn with_files(bytes: u64, content_bytes: u64, entries: u64) -> Accepted {
        let files = Files {
            sha256: Sha256::from_bytes([7; 32]),
            bytes,
            content_bytes,
            entries,
        };
        Accepted {
            order: OrderV1 {
                files: Some(files),
                ..order()
            },
            ..accepted()
        }
    }

    #[test]
    fn this_is_what_a_cluster_sees() {
        insta::assert_json_snapshot!("pod", pod("default"));
    }

    /// What was attached and what it unpacks to must fit, also where a file takes up a block for a byte.
    #[test]
    fn there_is_room_for_what_is_attached() {
        let limits = limits_of_folders;
        let (mib, without) = (1 << 20, limits(pod("default")));
        let with = limits(pod_for(&with_files(300 * mib, 500 * mib, 1024), "default"));
        assert_eq!((&*without["work"], &*with["work"]), ("1024Mi", "1528Mi"));
        assert_eq!((&*without["state"], &*with["state"]), ("1408Mi", "1708Mi"));
        for folder in ["artifacts", "home", "tmp"] {
            assert_eq!(without[folder], with[folder], "{folder}");
        }
        let absurd = limits(pod_for(
            &with_files(u64::MAX, u64::MAX, u64::MAX),
            "default",
        ));
        assert_eq!(absurd["work"], "17592186044416Mi");
    }

    /// The operator of the dispatcher says how much; the pod has the room, and its shim keeps to it.
    #[test]
    fn there_is_room_for_what_may_be_left() {
        for (content_bytes, artifacts, state) in [
            (0, "391Mi", "384Mi"),
            (1 << 20, "392Mi", "385Mi"),
            (5 << 30, "5511Mi", "5504Mi"),
            (u64::MAX, "17592186044416Mi", "17592186044416Mi"),
        ] {
            let limits = ArtifactsLimits {
                content_bytes,
                ..ArtifactsLimits::default()
            };
            let pod = pod_with(&accepted(), "default", &limits);
            let text = serde_json::to_value(&pod).unwrap();
            let environment = text["spec"]["containers"][0]["env"].as_array().unwrap();
            let bytes = json!({"name": ENV_ARTIFACTS_BYTES, "value": content_bytes.to_string()});
            assert!(environment.contains(&bytes), "{environment:?}");
            let room = limits_of_folders(pod);
            assert_eq!((&*room["artifacts"], &*room["state"]), (artifacts, state));
        }
    }

    /// The most that may be attached by default, and as much left as artifacts, with every folder full.
    #[test]
    fn the_charts_default_limit_lets_everything_be_used() {
        let (gib, mib) = (1 << 30, 1_u64 << 20);
        let archive = longest_archive(gib, DEFAULT_FILES_ENTRIES);
        let accepted = with_files(archive, gib, DEFAULT_FILES_ENTRIES);
        let pod = serde_json::to_value(pod_for(&accepted, "default")).unwrap();
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        let sizes = volumes.iter().filter_map(|volume| {
            let limit = volume["emptyDir"]["sizeLimit"].as_str()?;
            limit.strip_suffix("Mi")?.parse::<u64>().ok()
        });
        let values = include_str!("../../deploy/charts/runner/values.yaml");
        let values: Value = serde_saphyr::from_str(values).unwrap();
        let limits = &values["profiles"]["default"]["resources"]["limits"];
        let limit = limits["ephemeral-storage"].as_str().unwrap();
        let limit: u64 = limit.strip_suffix("Gi").unwrap().parse().unwrap();
        assert!(sizes.sum::<u64>() * mib <= limit * gib, "{volumes:?}");
    }

    /// Names of Secrets: what is in them the runner never sees, and the shim masks.
    #[test]
    fn a_profiles_secrets_are_mounted_and_named_to_the_shim() {
        let spec = serde_json::to_value(pod("nightly").spec).unwrap();
        let named = |list: &Value, names: &[&str]| -> Vec<Value> {
            let is_meant = |item: &&Value| names.contains(&item["name"].as_str().unwrap());
            let list = list.as_array().unwrap().iter();
            list.filter(is_meant).cloned().collect()
        };
        let (container, folders) = (&spec["containers"][0], ["secret-0", "secret-1"]);
        let variables = ["REGISTRY_TOKEN", ENV_SECRET_VARIABLES, ENV_SECRET_FOLDERS];
        assert_eq!(
            named(&container["env"], &variables),
            [
                json!({"name": "REGISTRY_TOKEN", "valueFrom": {"secretKeyRef": {"name": "registry", "key": "token"}}}),
                json!({"name": ENV_SECRET_VARIABLES, "value": "REGISTRY_TOKEN"}),
                json!({"name": ENV_SECRET_FOLDERS, "value": "/etc/registry:/etc/signing"}),
            ]
        );
        assert_eq!(
            named(&container["volumeMounts"], &folders),
            [
                json!({"name": "secret-0", "mountPath": "/etc/registry", "readOnly": true}),
                json!({"name": "secret-1", "mountPath": "/etc/signing", "readOnly": true}),
            ]
        );
        assert_eq!(
            named(&spec["volumes"], &folders),
            [
                json!({"name": "secret-0", "secret": {"secretName": "registry"}}),
                json!({"name": "secret-1", "secret": {"secretName": "signing-keys"}}),
            ]
        );
    }

    /// A pod waits for its files before the command's own time begins.
    #[test]
    fn fetching_files_has_a_time_of_its_own() {
        let deadline = |pod: Pod| pod.spec.unwrap().active_deadline_seconds.unwrap();
        let with = deadline(pod_for(&with_files(1, 1, 1), "default"));
        assert_eq!(with - deadline(pod("default")), 3600);
    }

    /// A drain gives a command the time that its profile says, and then as long as a cancel.
    #[test]
    fn a_profile_decides_how_long_a_drain_waits() {
        for (profile, seconds) in [("default", 60 + 40), ("nightly", 900 + 40)] {
            let spec = serde_json::to_value(pod(profile).spec).unwrap();
            assert_eq!(spec["terminationGracePeriodSeconds"], seconds, "{profile}");
        }
    }

    #[test]
    fn a_profile_decides_where_it_runs() {
        let spec = serde_json::to_value(pod("nightly").spec).unwrap();
        assert_eq!(spec["nodeSelector"]["pool"], "jobs");
        assert_eq!(spec["tolerations"][0]["key"], "jobs");
        assert_eq!(spec["serviceAccountName"], "nightly");
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "Never");
    }

    /// The rules of the standard, in the order of its page (Pod Security Standards, "Restricted").
    #[test]
    fn every_profiles_pod_fits_pod_security_restricted() {
        for profile in config().profiles.keys() {
            let spec = serde_json::to_value(pod(profile.as_str()).spec).unwrap();
            for absent in [
                "hostNetwork",
                "hostPID",
                "hostIPC",
                "initContainers",
                "ephemeralContainers",
            ] {
                assert_eq!(spec.get(absent), None, "{absent}");
            }
            for volume in spec["volumes"].as_array().unwrap() {
                let kinds: Vec<_> = volume
                    .as_object()
                    .unwrap()
                    .keys()
                    .filter(|key| *key != "name")
                    .collect();
                let allowed = ["emptyDir", "projected", "secret"];
                assert!(
                    matches!(kinds[..], [kind] if allowed.contains(&kind.as_str())),
                    "{kinds:?}"
                );
            }
            let (pod, container) = (
                &spec["securityContext"],
                &spec["containers"][0]["securityContext"],
            );
            assert_eq!(pod["runAsNonRoot"], true);
            assert_ne!(pod["runAsUser"], 0);
            assert_eq!(pod["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(pod.get("sysctls"), None);
            assert_eq!(container["allowPrivilegeEscalation"], false);
            assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}));
            assert_eq!(
                container["readOnlyRootFilesystem"], true,
                "ours, beyond the standard"
            );
            for absent in ["privileged", "procMount", "runAsUser", "seccompProfile"] {
                assert_eq!(container.get(absent), None, "{absent}");
            }
            assert_eq!(spec["containers"][0].get("ports"), None);
        }
    }

    /// Whoever may read pods must not read commands, and a pod must not start one without a permit.
    #[test]
    fn neither_the_command_nor_its_variables_are_in_the_pod() {
        let environment = BTreeMap::from([("COLOUR".to_owned(), "blue".to_owned())]);
        let order = OrderV1 {
            environment: environment.try_into().unwrap(),
            ..order()
        };
        let accepted = Accepted {
            order,
            ..accepted()
        };
        let text = serde_json::to_string(&pod_for(&accepted, "default")).unwrap();
        for secret in ["kubectl get pods", "COLOUR", "blue"] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn nothing_starts_twice_in_a_pod() {
        let spec: Value = serde_json::to_value(pod("default").spec).unwrap();
        assert_eq!(spec["restartPolicy"], "Never");
        for probe in [
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            assert_eq!(spec["containers"][0].get(probe), None, "{probe}");
        }
    }

    #[test]
    fn a_command_never_runs_longer_than_its_profile_allows() {
        let config = config();
        let profile = &config.profiles[&"default".parse().unwrap()];
        for (asked, granted) in [(None, 3600), (Some(60), 60), (Some(86_400), 3600)] {
            assert_eq!(
                run_seconds(
                    &OrderV1 {
                        run_timeout_seconds: asked,
                        ..order()
                    },
                    profile
                ),
                granted
            );
        }
        let patient = OrderV1 {
            expires_at: "9999-01-01T00:00:00Z".parse().unwrap(),
            ..order()
        };
        assert_eq!(
            active_deadline(&patient, profile, NOW.parse().unwrap()),
            i64::from(i32::MAX)
        );
        let late = OrderV1 {
            expires_at: "2020-01-01T00:00:00Z".parse().unwrap(),
            ..order()
        };
        assert_eq!(
            active_deadline(&late, profile, NOW.parse().unwrap()),
            3600 + 40 + 600
        );
    }

    #[test]
    fn the_pod_that_was_made_is_recognised() {
        let mut pod = pod("default");
        pod.metadata.uid = Some("0197c1f0-1111-4c22-9d1b-3f2a9c8e4b10".to_owned());
        let marks = crate::job_pod::JobPod::read(&pod).unwrap();
        assert_eq!(
            (marks.job, marks.order),
            (order().job, accepted().digest.to_string())
        );
        pod.metadata.name = Some("another".to_owned());
        assert_eq!(crate::job_pod::JobPod::read(&pod), None);
    }
}
