//! The rights of the runner in its cluster. More than this, and a stolen runner is a stolen cluster.

use invoke_tests::bed::bed;

const RUNNER: &str = "--as=system:serviceaccount:invoke-system:invoke-runner";

/// What `kubectl auth can-i --list` says, without what Kubernetes grants to everybody.
fn rights(namespace: &str) -> String {
    let ran = bed().kubectl(&["auth", "can-i", "--list", "-n", namespace, RUNNER]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let granted_to_all = ["selfsubject", "[/", "Resources"];
    let text = ran.stdout_text();
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !granted_to_all.iter().any(|part| line.contains(part)))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    lines.join("\n")
}

#[test]
fn in_the_jobs_namespace_it_handles_pods() {
    insta::assert_snapshot!(rights("invoke-jobs"), @"");
}

#[test]
fn in_its_own_namespace_it_keeps_its_identity() {
    insta::assert_snapshot!(rights("invoke-system"), @"");
}

#[test]
fn elsewhere_it_only_asks_whose_token_it_was_shown() {
    insta::assert_snapshot!(rights("default"), @"");
}

/// The ways by which a stolen runner would become the cluster's admin.
#[test]
fn what_would_let_it_escalate_is_refused() {
    let attempts = [
        ["create", "pods/exec"], ["create", "pods/attach"], ["get", "pods/log"], ["create", "pods/ephemeralcontainers"],
        ["get", "secrets"], ["list", "secrets"], ["create", "secrets"], ["create", "serviceaccounts/token"],
        ["impersonate", "users"], ["impersonate", "serviceaccounts"], ["escalate", "roles"], ["bind", "clusterroles"],
        ["create", "rolebindings"], ["update", "configmaps"], ["patch", "namespaces"], ["get", "nodes/proxy"],
        ["update", "pods"], ["patch", "pods"], ["deletecollection", "pods"],
    ];
    for namespace in ["invoke-jobs", "invoke-system", "kube-system"] {
        for [verb, resource] in attempts {
            let ran = bed().kubectl(&["auth", "can-i", verb, resource, "-n", namespace, RUNNER]);
            assert_eq!(ran.stdout_text().trim(), "no", "{verb} {resource} in {namespace}: {ran:?}");
        }
    }
    let ran = bed().kubectl(&["auth", "can-i", "create", "pods", "-n", "invoke-jobs", RUNNER]);
    assert_eq!(ran.stdout_text().trim(), "yes", "else the test above proves nothing: {ran:?}");
    let ran = bed().kubectl(&["auth", "can-i", "create", "pods", "-n", "invoke-system", RUNNER]);
    assert_eq!(ran.stdout_text().trim(), "no", "{ran:?}");
}
