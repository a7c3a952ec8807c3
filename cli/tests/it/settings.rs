//! Whom to ask, and as whom.

use insta::assert_snapshot;

use crate::fixtures::{Printed, queued, route, whole_stream};
use crate::program::{Bed, bare, run};
use crate::stub::Answer;

#[test]
fn without_settings_the_next_step_is_named() {
    let bed = Bed::new();
    assert_snapshot!(bed.show(&run(bare(&["ls"]))), @"");
    let mut command = bare(&["ls"]);
    command.env("INVOKE_URL", bed.url());
    assert_snapshot!(bed.show(&run(command)), @"");
}

#[test]
fn an_address_that_would_give_the_token_away_is_refused() {
    let bed = Bed::new();
    assert_snapshot!(bed.transcript(&["--url", "http://example.com", "ls"]), @"");
    assert_snapshot!(bed.transcript(&["--url", "https://me:secret@example.com", "ls"]), @"");
}

#[test]
fn a_broken_configuration_file_names_itself_and_the_key() {
    let bed = Bed::new();
    let folder = bed.home.path().join(".config/invoke");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config.toml");
    std::fs::write(&file, "cluster = \"demo\"\ntokn_file = \"x\"\n").unwrap();
    assert_snapshot!(bed.transcript(&["ls"]), @"");
    std::fs::write(&file, "token = \"secret\"\n").unwrap();
    assert_snapshot!(bed.transcript(&["ls"]), @"");
    std::fs::write(&file, "cluster = \"Not A Name\"\n").unwrap();
    assert_snapshot!(bed.transcript(&["ls"]), @"");
}

#[test]
fn files_that_are_missing_or_empty_are_named() {
    let bed = Bed::new();
    assert_snapshot!(bed.transcript(&["--token-file", "/nonexistent/token", "ls"]), @"");
    let empty = bed.home.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    assert_snapshot!(bed.transcript(&["--token-file", empty.to_str().unwrap(), "ls"]), @"");
    assert_snapshot!(bed.transcript(&["--ca-file", empty.to_str().unwrap(), "ls"]), @"");
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
