//! Whom to ask, and as whom.

use insta::assert_snapshot;

use crate::fixtures::{Printed, queued, route, whole_stream};
use crate::program::{Bed, bare, run};
use crate::stub::Answer;

#[test]
fn without_settings_the_next_step_is_named() {
    let bed = Bed::new();
    assert_snapshot!(bed.show(&run(bare(&["ls"]))), @"
    exit: 240
    --- stderr
    invoke: no dispatcher is configured
    invoke: hint: set INVOKE_URL=https://… (and INVOKE_TOKEN_FILE), or write them as `url` and `token_file` to ~/.config/invoke/config.toml
    ");
    let mut command = bare(&["ls"]);
    command.env("INVOKE_URL", bed.url());
    assert_snapshot!(bed.show(&run(command)), @"
    exit: 242
    --- stderr
    invoke: no token is configured for [URL]
    invoke: hint: put the token into a file and set INVOKE_TOKEN_FILE to its path, or set INVOKE_TOKEN
    ");
}

#[test]
fn an_address_that_would_give_the_token_away_is_refused() {
    let bed = Bed::new();
    assert_snapshot!(bed.transcript(&["--url", "http://example.com", "ls"]), @r#"
    exit: 240
    --- stderr
    invoke: --url: "http://example.com" is no dispatcher's address: it must begin with https://, or the token would be readable on the way
    "#);
    assert_snapshot!(bed.transcript(&["--url", "https://me:secret@example.com", "ls"]), @r#"
    exit: 240
    --- stderr
    invoke: --url: "https://…@example.com" is no dispatcher's address: it has a user or a password in it; a token is set with INVOKE_TOKEN_FILE
    "#);
}

#[test]
fn a_broken_configuration_file_names_itself_and_the_key() {
    let bed = Bed::new();
    let folder = bed.home.path().join(".config/invoke");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config.toml");
    std::fs::write(&file, "cluster = \"demo\"\ntokn_file = \"x\"\n").unwrap();
    assert_snapshot!(bed.transcript(&["ls"]), @"
    exit: 240
    --- stderr
    invoke: [HOME]/.config/invoke/config.toml: line 2: unknown field `tokn_file`, expected one of `url`, `token_file`, `ca_file`, `cluster`, `profile`, `retry_for`
    ");
    std::fs::write(&file, "token = \"secret\"\n").unwrap();
    assert_snapshot!(bed.transcript(&["ls"]), @"
    exit: 240
    --- stderr
    invoke: [HOME]/.config/invoke/config.toml: line 1: unknown field `token`, expected one of `url`, `token_file`, `ca_file`, `cluster`, `profile`, `retry_for`
    invoke: hint: a token is not kept here: put it into a file of its own and name that with `token_file`
    ");
    std::fs::write(&file, "cluster = \"Not A Name\"\n").unwrap();
    assert_snapshot!(bed.transcript(&["ls"]), @r#"
    exit: 240
    --- stderr
    invoke: `cluster` in [HOME]/.config/invoke/config.toml: "Not A Name" is not a cluster name: use 1 to 63 characters of a-z, 0-9 and -, and begin and end with a letter or digit
    "#);
}

#[test]
fn files_that_are_missing_or_empty_are_named() {
    let bed = Bed::new();
    assert_snapshot!(bed.transcript(&["--token-file", "/nonexistent/token", "ls"]), @"
    exit: 240
    --- stderr
    invoke: --token-file names /nonexistent/token, which cannot be read: No such file or directory (os error 2)
    ");
    let empty = bed.home.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    assert_snapshot!(bed.transcript(&["--token-file", empty.to_str().unwrap(), "ls"]), @"
    exit: 240
    --- stderr
    invoke: [HOME]/empty (--token-file) holds no token: it is empty
    ");
    assert_snapshot!(bed.transcript(&["--ca-file", empty.to_str().unwrap(), "ls"]), @"
    exit: 240
    --- stderr
    invoke: --ca-file names [HOME]/empty, which holds no certificate in PEM
    ");
}

/// The configuration file alone is enough, and what it says is sent.
#[test]
fn the_file_is_used_and_flags_come_before_it() {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())]);
    bed.stub.on(
        &route("GET", "/events"),
        vec![Answer::events(whole_stream(0, &Printed::nothing()))],
    );
    let folder = bed.home.path().join(".config/invoke");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "from-the-file\n").unwrap();
    let config = format!(
        "url = {:?}\ntoken_file = \"token\"\nca_file = \"~/ca.pem\"\ncluster = \"a\"\nprofile = \"b\"\n",
        bed.url()
    );
    std::fs::write(folder.join("config.toml"), config).unwrap();
    let mut command = bare(&["--profile", "c", "ls"]);
    command.env("HOME", bed.home.path());
    assert_eq!(bed.show(&run(command)), "exit: 0\n");
    let seen = bed.stub.seen("POST /v1/jobs");
    assert_eq!(seen[0].header("authorization"), "Bearer from-the-file");
    let body: serde_json::Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(
        (&body["cluster"], &body["profile"]),
        (&"a".into(), &"c".into())
    );
}
