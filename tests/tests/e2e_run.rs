//! What a user sees: a command, its bytes, its exit code.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use invoke_tests::bed::bed;

/// The sentence of the README's first line.
#[test]
fn the_pods_of_a_closed_cluster_are_listed() {
    let ran = bed().ran(&["kubectl get pods -A"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = ran.stdout_text();
    assert!(
        text.starts_with("NAMESPACE "),
        "nothing but the command's own bytes on stdout: {ran:?}"
    );
    assert!(text.contains("invoke-system"), "{ran:?}");
    assert_eq!(ran.stderr_of_command(), "", "{ran:?}");
}

/// After `--` there is no shell: what would be syntax in one is only text.
#[test]
fn an_argv_reaches_the_program_as_it_is() {
    let ran = bed().ran(&["--", "kubectl", "get", "nodes", "-o", "wide"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout_text().contains("INTERNAL-IP"), "{ran:?}");

    let ran = bed().ran(&[
        "--", "printf", "%s|", "a b", "$HOME", "*", "", "'\"", "ä日本",
    ]);
    assert_eq!(ran.stdout_text(), "a b|$HOME|*||'\"|ä日本|", "{ran:?}");
}

#[test]
fn a_shell_line_is_a_shell_line() {
    let cases: &[(&str, &str)] = &[
        ("kubectl get ns -o name | grep kube | wc -l", "3\n"),
        ("X='a  b'; echo \"$X\" $X", "a  b a b\n"),
        ("touch b.txt a.txt; echo *.txt", "a.txt b.txt\n"),
        ("cat <<END\none $((1+1))\nEND", "one 2\n"),
        ("echo Grüße, 日本 🦀 | tr -d ','", "Grüße 日本 🦀\n"),
        ("[[ abc == a* ]] && echo bash", "bash\n"),
        ("pwd; echo $HOME; id -u", "/work\n/home/invoke\n65532\n"),
        ("cat", ""),
        ("true", ""),
    ];
    for (line, expected) in cases {
        let ran = bed().ran(&[line]);
        assert_eq!(
            (ran.code, ran.stdout_text().as_str()),
            (0, *expected),
            "{line}: {ran:?}"
        );
    }
}

/// All that the job image promises is there and starts under a read-only root.
#[test]
fn the_tools_that_people_reach_for_are_there() {
    let line = "kubectl version --client >k && helm version --short >h && jq --version >j && yq --version >y \
                && curl --version >c && tar --version >t && echo a b | awk '{print $2}' | sed s/b/c/ | grep c | xargs echo";
    let ran = bed().ran(&[line]);
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (0, "c\n"),
        "{ran:?}"
    );
}

#[test]
fn the_exit_code_is_the_commands_own() {
    let cases = [
        ("kubectl get nosuchthing", 1),
        ("sh -c 'exit 37'", 37),
        ("kill -9 $$", 137),
        ("exec /nosuchprogram", 127),
        ("exit 255", 255),
    ];
    for (line, code) in cases {
        let ran = bed().ran(&[line]);
        assert_eq!(ran.code, code, "{line}: {ran:?}");
        assert_eq!(ran.stdout_text(), "", "{line}: {ran:?}");
    }
    let ran = bed().ran(&["kubectl get nosuchthing"]);
    assert!(
        ran.stderr_text().contains("nosuchthing"),
        "Kubernetes' own message: {ran:?}"
    );
    let ran = bed().ran(&["--", "nosuchprogram", "--flag"]);
    assert_eq!(ran.code, 127, "{ran:?}");
    assert!(ran.stderr_text().contains("nosuchprogram"), "{ran:?}");
}

/// The two streams stay apart, and every byte value passes.
#[test]
fn bytes_are_bytes() {
    let line =
        "for i in $(seq 0 255); do printf \"\\\\x$(printf %02x $i)\"; done; echo problem >&2";
    let ran = bed().ran(&[line]);
    assert_eq!(ran.stdout, (0..=255).collect::<Vec<u8>>(), "{ran:?}");
    assert_eq!(ran.stderr_of_command(), "problem\n");

    let ran = bed().ran(&["head -c 3000000 /dev/zero | tr '\\0' x; printf end"]);
    assert_eq!((ran.code, ran.stdout.len()), (0, 3_000_003));
}

#[test]
fn a_command_that_closes_its_stdout_runs_on() {
    let ran = bed().ran(&["echo before; exec >&-; sleep 1; echo after >&2; exit 3"]);
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (3, "before\n"),
        "{ran:?}"
    );
    assert_eq!(ran.stderr_of_command(), "after\n");
}

/// A line is seen when it is printed, not when the command ends.
#[test]
fn lines_appear_as_they_are_printed() {
    let mut child = bed()
        .invoke()
        .arg("for i in 1 2 3; do echo $i; sleep 1; done")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let seen: Vec<(String, Instant)> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| (line.unwrap(), Instant::now()))
        .collect();
    let ended = Instant::now();
    assert!(child.wait().unwrap().success());
    assert_eq!(
        seen.iter()
            .map(|(line, _)| line.as_str())
            .collect::<Vec<_>>(),
        ["1", "2", "3"]
    );
    // The command sleeps for three seconds after the first line: a late delivery shows here.
    assert!(
        ended - seen[0].1 > Duration::from_secs(2),
        "line 1 came {:?} before the end",
        ended - seen[0].1
    );
    assert!(
        seen[2].1 - seen[0].1 > Duration::from_secs(1),
        "lines 1 and 3 came together"
    );
}

/// `default` reads; what it may not do, Kubernetes itself refuses in its own words.
#[test]
fn a_refused_right_is_kubernetes_own_message() {
    let ran = bed().ran(&["kubectl create namespace not-mine"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr_text().contains("(Forbidden)"), "{ran:?}");
    assert!(
        ran.stderr_text()
            .contains("system:serviceaccount:invoke-jobs:"),
        "{ran:?}"
    );

    let ran = bed().ran(&["kubectl get secrets -A"]);
    assert!(
        ran.stderr_text().contains("(Forbidden)"),
        "a reader does not read secrets: {ran:?}"
    );
}

/// kubectl means the namespace that it means everywhere, not the one where the pod happens to be.
#[test]
fn the_default_namespace_is_default() {
    let ran =
        bed().ran(&["kubectl get configmap kube-root-ca.crt -o jsonpath={.metadata.namespace}"]);
    assert_eq!(ran.stdout_text(), "default", "{ran:?}");
}

#[test]
fn another_profile_has_other_rights() {
    let ran = bed().ran(&["--profile", "deploy", "helm list -A"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.stdout_text().contains("invoke-runner"),
        "the runner itself was installed with helm: {ran:?}"
    );

    let line = "kubectl create namespace made-by-deploy && kubectl delete namespace made-by-deploy";
    let ran = bed().ran(&["--profile", "deploy", line]);
    assert_eq!(ran.code, 0, "{ran:?}");
}
