//! `GET /v1/limits`, and what a job may ask for: files within what this dispatcher takes, a wait and a run within
//! what its cluster's owner allows, and refused with the limit's name beyond.

use std::time::Duration;

use axum::Json;
use invoke_protocol::api::{LIMITS, Limits};
use invoke_protocol::files::Files;
use invoke_protocol::job::{DEFAULT_START_WITHIN_SECONDS, JobSpec, MAX_START_WITHIN_SECONDS};
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::ProfileSummary;
use jiff::Timestamp;

use crate::access::Person;
use crate::problem::Refusal;
use crate::store::clusters::StoredCluster;

/// Says what this dispatcher takes and keeps.
#[utoipa::path(
    get, path = LIMITS, tag = "files", security(("api_token" = [])),
    responses(
        (status = 200, description = "The limits", body = Limits),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn limits(person: Person) -> Json<Limits> {
    Json(person.app.limits)
}

/// Checks what a job's files are said to come to. The shim holds the archive to it.
///
/// # Errors
/// A [`Refusal`] that names the limit, and by how much it is passed.
pub(crate) fn check_files(files: &Files, limits: &Limits) -> Result<(), Refusal> {
    let detail = if files.content_bytes > limits.files_bytes {
        format!(
            "the files of one job may come to {} bytes unpacked, and these come to {}: {} too many",
            limits.files_bytes,
            files.content_bytes,
            files.content_bytes - limits.files_bytes
        )
    } else if files.entries > limits.files_entries {
        format!(
            "the files of one job may have {} entries (files, folders, symbolic links), and these have {}: {} too many",
            limits.files_entries,
            files.entries,
            files.entries - limits.files_entries
        )
    } else {
        return Ok(());
    };
    Err(Refusal::new(ProblemCode::FilesTooLarge, detail))
}

/// Checks profile and deadlines against what the cluster's runner said that it offers, and answers the
/// last moment at which the job may start. Nothing is refused that is not known.
///
/// # Errors
/// A [`Refusal`] that names the profiles there are, or the limit and whose it is.
pub(crate) fn check(
    spec: &JobSpec,
    cluster: &StoredCluster,
    now: Timestamp,
) -> Result<Timestamp, Refusal> {
    let profile = match cluster.last_contact {
        Some(_) => Some(profile(spec, cluster)?),
        None => None,
    };
    check_run_timeout(spec, cluster, profile)?;
    start_deadline(spec, cluster, profile, now)
}

fn profile<'a>(spec: &JobSpec, cluster: &'a StoredCluster) -> Result<&'a ProfileSummary, Refusal> {
    let (offered, name) = (&cluster.profiles, &spec.profile);
    if let Some(profile) = offered.iter().find(|profile| profile.name == *name) {
        return Ok(profile);
    }
    let names: Vec<_> = offered
        .iter()
        .map(|profile| profile.name.as_str())
        .collect();
    let detail = format!(
        "cluster {} has no profile {name}; it offers: {}",
        cluster.name,
        names.join(", ")
    );
    Err(Refusal::new(ProblemCode::UnknownProfile, detail))
}

fn check_run_timeout(
    spec: &JobSpec,
    cluster: &StoredCluster,
    profile: Option<&ProfileSummary>,
) -> Result<(), Refusal> {
    match (spec.run_timeout_seconds, profile) {
        (Some(0), _) => Err(out_of_range(
            "a command must be allowed to run for at least 1 second".to_owned(),
        )),
        (Some(asked), Some(profile)) if asked > profile.max_run_seconds => {
            Err(out_of_range(format!(
                "profile {} of cluster {} lets a command run for at most {} seconds, not {asked}",
                profile.name, cluster.name, profile.max_run_seconds
            )))
        }
        _ => Ok(()),
    }
}

/// Who does not say how long their job may wait gets the usual, or the profile's maximum if that is
/// less.
fn start_deadline(
    spec: &JobSpec,
    cluster: &StoredCluster,
    profile: Option<&ProfileSummary>,
    now: Timestamp,
) -> Result<Timestamp, Refusal> {
    let limit = profile.and_then(|profile| Some((profile, profile.max_start_within_seconds?)));
    let seconds = match (spec.start_within_seconds, limit) {
        (Some(asked), Some((profile, maximum))) if asked > maximum => {
            return Err(out_of_range(format!(
                "profile {} of cluster {} lets a job wait for its start for at most {maximum} seconds, not {asked}",
                profile.name, cluster.name
            )));
        }
        (Some(asked), _) => asked,
        (None, Some((_, maximum))) => maximum.min(DEFAULT_START_WITHIN_SECONDS),
        (None, None) => DEFAULT_START_WITHIN_SECONDS,
    };
    let deadline = now.checked_add(Duration::from_secs(seconds)).ok();
    let is_allowed = (1..=MAX_START_WITHIN_SECONDS).contains(&seconds);
    deadline.filter(|_| is_allowed).ok_or_else(|| {
        out_of_range(format!(
            "a job may wait for its start for 1 to {MAX_START_WITHIN_SECONDS} seconds (7 days), not {seconds}"
        ))
    })
}

fn out_of_range(detail: String) -> Refusal {
    Refusal::new(ProblemCode::InvalidDeadline, detail)
}

#[cfg(test)]
mod tests {
    use invoke_protocol::id::ProfileName;
    use invoke_protocol::labels::Labels;
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn cluster(max_start_within_seconds: Option<u64>) -> StoredCluster {
        StoredCluster {
            id: "0197c1f0-0000-7000-8000-000000000001".parse().unwrap(),
            name: "edge-7".parse().unwrap(),
            public_key: None,
            last_contact: Some(now()),
            runner_version: None,
            clock_skew_seconds: None,
            profiles: vec![ProfileSummary {
                name: ProfileName::default_profile(),
                max_run_seconds: 3600,
                max_start_within_seconds,
                output_cap_bytes: None,
            }],
            labels: Labels::default(),
        }
    }

    fn unknown() -> StoredCluster {
        StoredCluster {
            last_contact: None,
            profiles: Vec::new(),
            ..cluster(None)
        }
    }

    /// For how many seconds it may wait, or why not.
    fn allowed(cluster: &StoredCluster, asked: &Value) -> Result<i64, String> {
        let mut body = json!({ "command": { "shell": "date" } });
        let fields = asked.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(fields);
        let spec: JobSpec = serde_json::from_value(body).unwrap();
        match check(&spec, cluster, now()) {
            Ok(deadline) => Ok(deadline.duration_since(now()).as_secs()),
            Err(refusal) => Err(refusal.detail().to_owned()),
        }
    }

    #[test]
    fn a_job_waits_a_second_to_a_week() {
        for (seconds, fine) in [
            (0, false),
            (1, true),
            (604_800, true),
            (604_801, false),
            (u64::MAX, false),
        ] {
            let asked = json!({ "start_within_seconds": seconds });
            for cluster in [unknown(), cluster(None)] {
                assert_eq!(allowed(&cluster, &asked).is_ok(), fine, "{seconds}");
            }
        }
        assert_eq!(allowed(&unknown(), &json!({})), Ok(900));
    }

    #[test]
    fn no_longer_than_the_profile_allows() {
        let cases = [
            (Some(60), json!({ "start_within_seconds": 60 })),
            (Some(60), json!({ "start_within_seconds": 61 })),
            (Some(60), json!({})),
            (Some(86_400), json!({})),
            (None, json!({ "run_timeout_seconds": 3600 })),
            (None, json!({ "run_timeout_seconds": 3601 })),
            (None, json!({ "run_timeout_seconds": 0 })),
            (None, json!({ "profile": "root" })),
        ];
        let answers = cases.map(
            |(maximum, asked)| match allowed(&cluster(maximum), &asked) {
                Ok(seconds) => format!("{seconds} s"),
                Err(refused) => refused,
            },
        );
        insta::assert_snapshot!(answers.join("\n"), @r"
        60 s
        profile default of cluster edge-7 lets a job wait for its start for at most 60 seconds, not 61
        60 s
        900 s
        900 s
        profile default of cluster edge-7 lets a command run for at most 3600 seconds, not 3601
        a command must be allowed to run for at least 1 second
        cluster edge-7 has no profile root; it offers: default
        ");
    }

    #[test]
    fn files_are_within_both_limits_or_refused_by_name() {
        let limits = Limits {
            files_bytes: 1000,
            files_entries: 10,
            retention_seconds: 1,
        };
        let answers = [(1000, 10), (1001, 10), (1000, 11), (0, 0), (u64::MAX, 11)].map(
            |(content_bytes, entries)| {
                let files = Files {
                    sha256: invoke_protocol::digest::Sha256::from_bytes([0; 32]),
                    bytes: 1,
                    content_bytes,
                    entries,
                };
                match check_files(&files, &limits) {
                    Ok(()) => "taken".to_owned(),
                    Err(refusal) => refusal.detail().to_owned(),
                }
            },
        );
        insta::assert_snapshot!(answers.join("\n"), @r"
        taken
        the files of one job may come to 1000 bytes unpacked, and these come to 1001: 1 too many
        the files of one job may have 10 entries (files, folders, symbolic links), and these have 11: 1 too many
        taken
        the files of one job may come to 1000 bytes unpacked, and these come to 18446744073709551615: 18446744073709550615 too many
        ");
    }

    #[test]
    fn nothing_is_refused_that_is_not_known() {
        let asked = json!({ "profile": "root", "run_timeout_seconds": 1_000_000 });
        assert_eq!(allowed(&unknown(), &asked), Ok(900));
    }
}
