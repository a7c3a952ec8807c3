//! Command lines that make no sense. Nothing is configured here: nothing may be sent.

use std::os::unix::ffi::OsStrExt as _;

use insta::assert_snapshot;

use crate::program::{bare, run, transcript};

fn shown(arguments: &[&str]) -> String {
    transcript(&run(bare(arguments)))
}

#[test]
fn several_words_are_answered_with_both_right_forms() {
    assert_snapshot!(shown(&["-c", "demo", "kubectl", "get", "pods"]), @r#"
    exit: 240
    --- stderr
    invoke: a command is one word in quotes, or stands behind --
    invoke: hint: write `invoke -c demo "kubectl get pods"` or `invoke -c demo -- kubectl get pods`
    "#);
    assert_snapshot!(shown(&["kubectl", "get", "pods", "-A"]), @r#"
    exit: 240
    --- stderr
    invoke: a command is one word in quotes, or stands behind --
    invoke: hint: write `invoke "kubectl get pods -A"` or `invoke -- kubectl get pods -A`
    "#);
    assert_snapshot!(shown(&["kubectl", "get", "nodes", "-o", "wide"]), @r#"
    exit: 240
    --- stderr
    invoke: a command is one word in quotes, or stands behind --
    invoke: hint: write `invoke "kubectl get nodes -o wide"` or `invoke -- kubectl get nodes -o wide`
    "#);
    assert_snapshot!(shown(&["kubectl", "--", "get", "pods"]), @r#"
    exit: 240
    --- stderr
    invoke: a command is one word in quotes, or stands behind --
    invoke: hint: write `invoke "kubectl get pods"` or `invoke -- kubectl get pods`
    "#);
    assert_snapshot!(shown(&["kubectl get pods", "-A"]), @"
    exit: 240
    --- stderr
    invoke: -A stands behind the command, and is no option of invoke
    invoke: hint: put it inside the quotes
    ");
}

#[test]
fn a_word_near_a_subcommand_is_asked_about() {
    assert_snapshot!(shown(&["job"]), @"
    exit: 240
    --- stderr
    invoke: `job` is no subcommand of invoke; there is `jobs`
    invoke: hint: write `invoke jobs` for that, or `invoke -- job` to run job in the cluster
    ");
    assert_snapshot!(shown(&["clustre", "add", "x"]), @"
    exit: 240
    --- stderr
    invoke: `clustre` is no subcommand of invoke; there is `clusters`
    invoke: hint: write `invoke clusters add x` for that, or `invoke -- clustre add x` to run clustre in the cluster
    ");
}

#[test]
fn what_is_no_command_is_refused_in_the_contracts_words() {
    assert_snapshot!(shown(&[" "]), @r#"
    exit: 240
    --- stderr
    invoke: the command is empty: say what to run, for example "kubectl get pods"
    "#);
    assert_snapshot!(shown(&["--", ""]), @r#"
    exit: 240
    --- stderr
    invoke: the command is empty: say what to run, for example "kubectl get pods"
    "#);
    assert!(shown(&["--"]).starts_with("exit: 240\n--- stderr\n"));
    let long = "x".repeat(128 * 1024 - 40);
    assert_snapshot!(shown(&["--", "echo", &long, &long]), @"
    exit: 240
    --- stderr
    invoke: the command has 262070 bytes; at most 131071 (128 KiB) fit: put it into a file
    ");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let mut command = bare(&["--"]);
    command.args(["printf".as_ref(), std::ffi::OsStr::from_bytes(b"a\xffb")]);
    assert_snapshot!(transcript(&run(command)), @"
    exit: 240
    --- stderr
    invoke: the command is not valid UTF-8: a�b
    invoke: hint: put such bytes into a file, or write them as escapes
    ");
}

#[test]
fn options_that_make_no_sense_say_so() {
    assert_snapshot!(shown(&["--frobnicate", "ls"]), @"
    exit: 240
    --- stderr
    invoke: unexpected argument '--frobnicate' found
    invoke: hint: `invoke --help` shows how it is written
    ");
    assert_snapshot!(shown(&["--start-within", "15", "ls"]), @r#"
    exit: 240
    --- stderr
    invoke: invalid value '15' for '--start-within <TIME>': "15" is no duration: write it as 90s, 15m or 1h30m
    invoke: hint: `invoke --help` shows how it is written
    "#);
    assert_snapshot!(shown(&["--run-timeout", "0s", "ls"]), @"
    exit: 240
    --- stderr
    invoke: invalid value '0s' for '--run-timeout <TIME>': at least one second
    invoke: hint: `invoke --help` shows how it is written
    ");
    assert_snapshot!(shown(&["-o", "yaml", "ls"]), @"
    exit: 240
    --- stderr
    invoke: invalid value 'yaml' for '--output <FORMAT>' [possible values: text, json]
    invoke: hint: `invoke --help` shows how it is written
    ");
    assert_snapshot!(shown(&["--no-wait", "jobs"]), @"
    exit: 240
    --- stderr
    invoke: --no-wait before a subcommand means nothing
    invoke: hint: `invoke help SUBCOMMAND` shows whether it has --no-wait of its own
    ");
    for option in [
        &["-f", "a"][..],
        &["--stdin"],
        &["--env", "A=b"],
        &["--env-file", "a"],
        &["--secret", "A"],
    ] {
        let shown = shown(&[option, &["jobs"]].concat());
        let complaint = "before a subcommand means nothing";
        assert!(
            shown.starts_with("exit: 240\n") && shown.contains(complaint),
            "{shown}"
        );
    }
    assert_snapshot!(shown(&["-f", "jobs", "jobs"]), @"
    exit: 240
    --- stderr
    invoke: --file before a subcommand means nothing
    invoke: hint: `invoke help SUBCOMMAND` shows whether it has --file of its own
    ");
    assert_snapshot!(shown(&["kubectl", "apply", "-f", "x.yaml"]), @r#"
    exit: 240
    --- stderr
    invoke: a command is one word in quotes, or stands behind --
    invoke: hint: write `invoke "kubectl apply -f x.yaml"` or `invoke -- kubectl apply -f x.yaml`
    "#);
    assert_snapshot!(shown(&["result"]), @"
    exit: 240
    --- stderr
    invoke: the following required arguments were not provided: <ID>
    invoke: hint: `invoke result --help` shows how it is written
    ");
    assert_snapshot!(shown(&["result", "42"]), @r#"
    exit: 240
    --- stderr
    invoke: invalid value '42' for '<ID>': "42" is not a job id: expected a UUID such as 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10
    invoke: hint: `invoke result --help` shows how it is written
    "#);
    assert_snapshot!(shown(&["clusters", "add", "Not A Name"]), @r#"
    exit: 240
    --- stderr
    invoke: invalid value 'Not A Name' for '<NAME>': "Not A Name" is not a cluster name: use 1 to 63 characters of a-z, 0-9 and -, and begin and end with a letter or digit
    invoke: hint: `invoke clusters add --help` shows how it is written
    "#);
    assert_snapshot!(shown(&["jobs", "--limit", "0"]), @"
    exit: 240
    --- stderr
    invoke: invalid value '0' for '--limit <COUNT>': 0 is not in 1..=500
    invoke: hint: `invoke jobs --help` shows how it is written
    ");
}
