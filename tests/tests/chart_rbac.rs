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
fn in_the_jobs_namespace_it_handles_pods_and_remembers_starts() {
    insta::assert_snapshot!(rights("invoke-jobs"), @r"
    configmaps [] [] [create get list delete]
    namespaces [] [invoke-jobs] [get]
    pods [] [] [create get list watch delete patch]
    tokenreviews.authentication.k8s.io [] [] [create]
    ");
}

#[test]
fn in_its_own_namespace_it_keeps_its_identity() {
    insta::assert_snapshot!(rights("invoke-system"), @r"
    secrets [] [invoke-runner-identity] [get update]
    tokenreviews.authentication.k8s.io [] [] [create]
    ");
}

#[test]
fn elsewhere_it_only_asks_whose_token_it_was_shown() {
    insta::assert_snapshot!(rights("default"), @"tokenreviews.authentication.k8s.io [] [] [create]");
}

/// The ways by which a stolen runner would become the cluster's admin.
#[test]
fn what_would_let_it_escalate_is_refused() {
    let attempts = [
        "create pods --subresource=exec",
        "create pods --subresource=attach",
        "create pods --subresource=portforward",
        "get pods --subresource=log",
        "update pods --subresource=ephemeralcontainers",
        "patch pods --subresource=ephemeralcontainers",
        "patch pods --subresource=status",
        "update pods",
        "deletecollection pods",
        "get secrets",
        "list secrets",
        "create secrets",
        "create serviceaccounts --subresource=token",
        "impersonate users",
        "impersonate serviceaccounts",
        "escalate roles",
        "bind clusterroles",
        "create rolebindings",
        "update configmaps",
        "patch configmaps",
        "deletecollection configmaps",
        "list namespaces",
        "patch namespaces",
        "get nodes --subresource=proxy",
    ];
    for namespace in ["invoke-jobs", "invoke-system", "kube-system"] {
        for attempt in attempts {
            assert_eq!(can_i(attempt, namespace), "no", "{attempt} in {namespace}");
        }
    }
    assert_eq!(
        can_i("create pods", "invoke-jobs"),
        "yes",
        "else the attempts above prove nothing"
    );
    for elsewhere in ["create pods", "patch pods", "get configmaps"] {
        assert_eq!(can_i(elsewhere, "invoke-system"), "no", "{elsewhere}");
    }
}

fn can_i(attempt: &str, namespace: &str) -> String {
    let mut arguments = vec!["auth", "can-i", "-n", namespace, RUNNER];
    arguments.extend(attempt.split(' '));
    bed().kubectl(&arguments).stdout_text().trim().to_owned()
}
