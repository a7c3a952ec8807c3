//! Command lines that make no sense. Nothing is configured here: nothing may be sent.

use std::os::unix::ffi::OsStrExt as _;

use insta::assert_snapshot;

use crate::program::{bare, run, transcript};

fn shown(arguments: &[&str]) -> String {
    transcript(&run(bare(arguments)))
}

#[test]
fn several_words_are_answered_with_both_right_forms() {
    assert_snapshot!(shown(&["-c", "demo", "kubectl", "get", "pods"]), @"");
    assert_snapshot!(shown(&["kubectl", "get", "pods", "-A"]), @"");
    assert_snapshot!(shown(&["kubectl", "get", "nodes", "-o", "wide"]), @"");
    assert_snapshot!(shown(&["kubectl", "--", "get", "pods"]), @"");
    assert_snapshot!(shown(&["kubectl get pods", "-A"]), @"");
}

#[test]
fn a_word_near_a_subcommand_is_asked_about() {
    assert_snapshot!(shown(&["job"]), @"");
    assert_snapshot!(shown(&["clustre", "add", "x"]), @"");
}

#[test]
fn what_is_no_command_is_refused_in_the_contracts_words() {
    assert_snapshot!(shown(&[" "]), @"");
    assert_snapshot!(shown(&["--", ""]), @"");
    assert_snapshot!(shown(&["--"]), @"");
    let long = "x".repeat(128 * 1024 - 40);
    assert_snapshot!(shown(&["--", "echo", &long, &long]), @"");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let mut command = bare(&["--"]);
    command.args(["printf".as_ref(), std::ffi::OsStr::from_bytes(b"a\xffb")]);
    assert_snapshot!(transcript(&run(command)), @"");
}

#[test]
fn options_that_make_no_sense_say_so() {
    assert_snapshot!(shown(&["--frobnicate", "ls"]), @"");
    assert_snapshot!(shown(&["--start-within", "15", "ls"]), @"");
    assert_snapshot!(shown(&["--run-timeout", "0s", "ls"]), @"");
    assert_snapshot!(shown(&["-o", "yaml", "ls"]), @"");
    assert_snapshot!(shown(&["--no-wait", "jobs"]), @"");
    assert_snapshot!(shown(&["result"]), @"");
    assert_snapshot!(shown(&["result", "42"]), @"");
    assert_snapshot!(shown(&["clusters", "add", "Not A Name"]), @"");
    assert_snapshot!(shown(&["jobs", "--limit", "0"]), @"");
}
