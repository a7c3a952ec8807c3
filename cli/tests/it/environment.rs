//! `--env`, `--env-file` and `--secret`.

use std::path::Path;
use std::process::Command;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::fixtures::{Printed, queued, route, whole_stream};
use crate::program::{Bed, run};
use crate::stub::Answer;

const SECRET: &str = "correct-horse-battery";

fn bed() -> Bed {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/jobs", vec![Answer::json(202, &queued())])
        .on(
            &route("GET", "/events"),
            vec![Answer::events(whole_stream(0, &Printed::nothing()))],
        );
    bed
}

fn invoke(bed: &Bed, arguments: &[&str]) -> Command {
    let mut command = bed.invoke(arguments);
    command
        .current_dir(bed.home.path())
        .env("REGION", "eu-1")
        .env("TOKEN", SECRET);
    command
}

fn write(bed: &Bed, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(bed.home.path().join(Path::new(name)), content).unwrap();
}

fn shown(bed: &Bed, arguments: &[&str]) -> String {
    bed.show(&run(invoke(bed, arguments)))
}

#[test]
fn variables_and_secrets_are_sent_apart() {
    let bed = bed();
    write(
        &bed,
        "job.env",
        "# of the job\nLEVEL=debug\nREGION\nexport NAME='a b'\n",
    );
    write(&bed, "key", "-----BEGIN KEY-----\nabc\n");
    let arguments = [
        "--env",
        "LEVEL=info",
        "--env-file",
        "job.env",
        "--secret",
        "TOKEN",
        "--secret",
        "KEY=@key",
        "env",
    ];
    assert_eq!(shown(&bed, &arguments), "exit: 0\n");
    let body: Value = serde_json::from_slice(&bed.stub.seen("POST /v1/jobs")[0].body).unwrap();
    assert_eq!(
        body["environment"],
        json!({ "LEVEL": "info", "NAME": "a b", "REGION": "eu-1" })
    );
    assert_eq!(
        body["secrets"],
        json!({ "KEY": "-----BEGIN KEY-----\nabc", "TOKEN": SECRET })
    );
    assert_eq!(body["command"], json!({ "shell": "env" }));
}

/// Not in a document, not in an error, not even where the person has put it into the open themselves.
#[test]
fn a_secret_is_in_nothing_that_is_printed() {
    let bed = bed();
    write(&bed, "nul", format!("{SECRET}\0"));
    write(&bed, "long", SECRET.repeat(10_000));
    let literal = format!("TOKEN={SECRET}");
    for (arguments, code) in [
        (&["--secret", "TOKEN", "ls"][..], 0),
        (&["-o", "json", "--secret", "TOKEN", "ls"], 0),
        (&["--no-wait", "-o", "json", "--secret", "TOKEN", "ls"], 0),
        (&["--secret", &literal, "ls"], 240),
        (&["--secret", "TOKEN", "--env", &literal, "ls"], 240),
        (&["--secret", "A=@nul", "ls"], 240),
        (&["--secret", "A=@long", "ls"], 240),
        (&["--secret", "TOKEN", "--file"], 240),
    ] {
        let output = run(invoke(&bed, arguments));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed).unwrap();
        assert!(!printed.contains(SECRET), "{printed}");
    }
}

#[test]
fn what_is_no_environment_says_where_and_nothing_is_sent() {
    let bed = bed();
    write(&bed, "unset.env", "A=1\nMISSING\n");
    write(&bed, "name.env", "A-B=1\n");
    write(&bed, "quote.env", "\nA='open\n");
    write(&bed, "bytes.env", b"A=\xff\n");
    let large = format!("A={}", "x".repeat(70_000));
    let other = large.replacen('A', "B", 1);
    let refused: String = [
        &["--env", "MISSING", "ls"][..],
        &["--env", "1A=b", "ls"],
        &["--env", "INVOKE_JOB=b", "ls"],
        &["--env", &large, "--env", &other, "ls"],
        &["--env-file", "none.env", "ls"],
        &["--env-file", "unset.env", "ls"],
        &["--env-file", "name.env", "ls"],
        &["--env-file", "quote.env", "ls"],
        &["--env-file", "bytes.env", "ls"],
        &["--secret", "TOKEN=literal", "ls"],
        &["--secret", "TOKEN=@none", "ls"],
        &["--secret", "MISSING", "ls"],
        &["--secret", "TOKEN", "--env", "TOKEN=a", "ls"],
    ]
    .map(|arguments| shown(&bed, arguments))
    .concat();
    assert_snapshot!(refused, @r#"
    exit: 240
    --- stderr
    invoke: --env: MISSING is not set here
    invoke: hint: set it, or write MISSING=VALUE
    exit: 240
    --- stderr
    invoke: --env: "1A" is no name of a variable: it is made of letters, digits and _
    exit: 240
    --- stderr
    invoke: --env: INVOKE_JOB cannot be set: names that begin with INVOKE_ belong to invoke
    exit: 240
    --- stderr
    invoke: the variables come to 140006 bytes; at most 131072 (128 KiB) fit: put what is large into a file
    exit: 240
    --- stderr
    invoke: --env-file names none.env, which cannot be read: No such file or directory (os error 2)
    exit: 240
    --- stderr
    invoke: unset.env, line 2: MISSING is not set here
    invoke: hint: set it, or write MISSING=VALUE
    exit: 240
    --- stderr
    invoke: name.env, line 1: "A-B" is no name of a variable: it is made of letters, digits and _
    exit: 240
    --- stderr
    invoke: quote.env, line 2: it opens a quote that it does not close
    exit: 240
    --- stderr
    invoke: bytes.env, line 1: it is not valid UTF-8
    exit: 240
    --- stderr
    invoke: --secret TOKEN=… has its value on the command line, which other users can read
    invoke: hint: set TOKEN in the environment and write --secret TOKEN, or put the value into a file and write --secret TOKEN=@FILE
    exit: 240
    --- stderr
    invoke: --secret TOKEN names none, which cannot be read: No such file or directory (os error 2)
    exit: 240
    --- stderr
    invoke: --secret: MISSING is not set here
    invoke: hint: set it, or put the value into a file and write --secret MISSING=@FILE
    exit: 240
    --- stderr
    invoke: TOKEN is both a secret and not: --secret and --env name it
    invoke: hint: leave out one of the two
    "#);
    assert!(bed.stub.seen("POST /v1/jobs").is_empty());
}

#[test]
fn a_secret_that_is_not_masked_is_told() {
    let bed = bed();
    write(&bed, "pin", "1234");
    assert_snapshot!(shown(&bed, &["--secret", "PIN=@pin", "ls"]), @"
    exit: 0
    --- stderr
    invoke: the secret PIN is shorter than 6 bytes and is not masked in the output
    ");
}
