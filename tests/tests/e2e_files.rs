//! Files in: a tree, stdin, variables and secrets, as they were; and nothing that is not what it claims.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use invoke_tests::bed::{Bed, bed, variable};
use invoke_tests::process::{Ran, run};
use invoke_tests::row::alone;

fn write(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    let parent = path.parent().expect("it is below the folder");
    std::fs::create_dir_all(parent).expect("there is room");
    std::fs::write(path, content).expect("there is room");
}

/// The CLI in a folder.
fn ran_in(bed: &Bed, folder: &Path, arguments: &[&str]) -> Ran {
    run(bed.invoke().current_dir(folder).args(arguments))
}

#[test]
fn a_tree_is_there_as_it_was() {
    let place = tempfile::tempdir().expect("there is room");
    let (here, beside) = (place.path().join("here"), place.path().join("beside"));
    write(&here, "values.yaml", "replicas: 3\n");
    write(&here, "charts/web/Chart.yaml", "name: web\n");
    write(&here, "charts/.hidden", "seen\n");
    write(&here, "charts/.git/config", "not sent\n");
    write(&here, "charts/.invokeignore", "*.log\n");
    write(&here, "charts/debug.log", "not sent\n");
    write(&here, "charts/run.sh", "#!/bin/sh\necho ran with $1\n");
    let script = here.join("charts/run.sh");
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    std::fs::create_dir(here.join("charts/empty")).expect("there is room");
    symlink("web/Chart.yaml", here.join("charts/link")).expect("there is room");
    write(&beside, "ca.pem", "trust\n");
    let line =
        "find . -mindepth 1 | sort; cat values.yaml charts/link ca.pem; charts/run.sh 'a b'; pwd";
    let files = [
        "-f",
        "values.yaml",
        "-f",
        "charts/",
        "-f",
        "../beside/ca.pem",
    ];
    let ran = ran_in(&bed(), &here, &[files.as_slice(), &[line]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.stdout_text(),
        "./ca.pem\n./charts\n./charts/.hidden\n./charts/empty\n./charts/link\n./charts/run.sh\n./charts/web\n\
         ./charts/web/Chart.yaml\n./values.yaml\nreplicas: 3\nname: web\ntrust\nran with a b\n/work\n"
    );
    assert!(
        ran.stderr_text().contains("ca.pem"),
        "where it went is said: {ran:?}"
    );
    let ran = ran_in(
        &bed(),
        &here.join("charts"),
        &[
            "-f",
            ".",
            "-f",
            "../values.yaml:conf/v.yaml",
            "cat link conf/v.yaml",
        ],
    );
    assert_eq!(ran.stdout_text(), "name: web\nreplicas: 3\n", "{ran:?}");
}

#[test]
fn ten_thousand_files_are_there() {
    let place = tempfile::tempdir().expect("there is room");
    for number in 0..10_000 {
        write(
            place.path(),
            &format!("many/{}/{number}", number % 100),
            &number.to_string(),
        );
    }
    let line = "find many -type f | wc -l; cat many/*/* | md5sum | cut -c1-8; cat many/99/9999";
    let ran = ran_in(&bed(), place.path(), &["-f", "many", line]);
    let here = run(Command::new("sh")
        .current_dir(place.path())
        .args(["-c", line]));
    assert_eq!(
        (ran.code, ran.stdout_text()),
        (0, here.stdout_text()),
        "{ran:?}"
    );
}

fn piped(bed: &Bed, arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = bed
        .invoke()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("invoke runs");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let input = input.to_vec();
    // What the command does not read breaks the pipe.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("invoke ends");
    writer.join().expect("it does not panic");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: output.stderr,
    }
}

#[test]
fn what_is_piped_in_is_read() {
    let bed = bed();
    let mut random = fastrand::Rng::with_seed(3);
    let input: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take(5_000_000)
        .collect();
    let ran = piped(&bed, &["-f", "-", "cat"], &input);
    assert_eq!(ran.code, 0, "{}", ran.stderr_text());
    assert!(ran.stdout == input, "{} bytes came back", ran.stdout.len());
    let ran = piped(
        &bed,
        &["--stdin", "read first; echo got $first"],
        b"one\ntwo\n",
    );
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (0, "got one\n"),
        "{ran:?}"
    );
    // Without the option a command reads nothing, whatever is piped in.
    let ran = piped(&bed, &["cat; echo end"], b"not sent");
    assert_eq!(ran.stdout_text(), "end\n", "{ran:?}");
}

/// A pipe that never ends keeps nobody waiting for a command that has ended.
#[test]
fn an_endless_pipe_ends_with_the_command() {
    let bed = bed();
    let mut endless = Command::new("sh")
        .args(["-c", "while echo tick; do sleep 0.1; done"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh runs");
    let pipe = endless.stdout.take().expect("it is a pipe");
    let output = bed
        .invoke()
        .args(["--stdin", "read a; read b; echo $a $b"])
        .stdin(pipe)
        .output()
        .expect("invoke ends");
    endless.kill().expect("it runs");
    endless.wait().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "tick tick\n");
}

#[test]
fn variables_are_there_and_secrets_are_masked() {
    let bed = bed();
    let secret = "s3cr3t-canary-4711";
    let place = tempfile::tempdir().expect("there is room");
    write(
        place.path(),
        "env",
        "# a comment\nREGION=eu\nQUOTED='a b'\n",
    );
    let line = "echo $REGION $QUOTED $COLOUR; echo token=$TOKEN; printf '%s' ${TOKEN:0:9} >&2; sleep 0.3; \
                printf '%s\\n' ${TOKEN:9} >&2; echo ${#TOKEN}";
    let mut command = bed.invoke();
    command.env("TOKEN", secret).current_dir(place.path());
    let options = [
        "--env-file",
        "env",
        "--env",
        "COLOUR=blue",
        "--secret",
        "TOKEN",
    ];
    let ran = run(command.args(options).arg(line));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.stdout_text(),
        format!("eu a b blue\ntoken=***\n{}\n", secret.len())
    );
    assert_eq!(ran.stderr_of_command(), "***\n", "also in two pieces");
    // It is nowhere where somebody could look: not in the job, the pods, the database, the logs.
    let job = bed
        .json(&["-o", "json", "jobs", "--limit", "20"])
        .to_string();
    assert!(job.contains("TOKEN") && !job.contains(secret));
    let pods = bed.kubectl(&["get", "pods,events,configmaps", "-A", "-o", "yaml"]);
    assert!(!pods.stdout_text().contains(secret));
    let dump = run(Command::new("pg_dump").arg(variable("INVOKE_TEST_POSTGRES_URL")));
    assert_eq!(dump.code, 0, "{}", dump.stderr_text());
    assert!(dump.stdout_text().contains("REGION") && !dump.stdout_text().contains(secret));
    let log = bed.testbed(&["logs", "dispatcher"]).stdout_text();
    let log = std::fs::read_to_string(log.trim()).expect("it has a log");
    assert!(!log.contains(secret));
    let log = bed.kubectl(&[
        "logs",
        "-n",
        "invoke-system",
        "deploy/invoke-runner",
        "--tail=-1",
    ]);
    assert!(!log.stdout_text().contains(secret));
}

/// What a profile mounts is known to the cluster, and its values are masked too.
#[test]
fn the_secrets_of_a_profile_are_masked() {
    let bed = bed();
    let make = [
        "-n",
        "invoke-jobs",
        "create",
        "secret",
        "generic",
        "registry",
        "--from-literal=token=profile-canary-42",
    ];
    let made = bed.kubectl(&make);
    assert!(
        made.code == 0 || made.stderr_text().contains("exists"),
        "{made:?}"
    );
    let ran = bed.ran(&[
        "--profile",
        "with-secret",
        "echo $REGISTRY_TOKEN; cat /secrets/registry/token; echo; echo ${#REGISTRY_TOKEN}",
    ]);
    assert_eq!(
        (ran.code, ran.stdout_text().as_str()),
        (0, "***\n***\n17\n"),
        "{ran:?}"
    );
}

/// The runner is killed while files are on their way into a pod: they go on where they were.
#[test]
fn files_survive_the_runner() {
    let _alone = alone();
    let bed = bed();
    let place = tempfile::tempdir().expect("there is room");
    let mut random = fastrand::Rng::with_seed(5);
    let blob: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take(60_000_000)
        .collect();
    std::fs::write(place.path().join("blob"), &blob).expect("there is room");
    let mut child = bed.invoke();
    child.current_dir(place.path()).args([
        "-f",
        "blob",
        "--start-within",
        "120s",
        "sha256sum blob | cut -c1-64",
    ]);
    let child = child
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("invoke runs");
    let running = invoke_tests::wait::within(Duration::from_secs(60), || {
        (!bed.job_pods().is_empty()).then_some(())
    });
    assert!(running.is_some(), "no pod is made");
    bed.kill_runners();
    let output = child.wait_with_output().expect("invoke ends");
    let here = run(Command::new("sha256sum").arg(place.path().join("blob")));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        &here.stdout_text()[..64],
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    bed.await_connected();
}

/// Submits an archive that the CLI would never make, as whoever has a token can.
fn submitted_archive(bed: &Bed, archive: &[u8], content_bytes: u64, entries: u64) -> String {
    let place = tempfile::tempdir().expect("there is room");
    let file = place.path().join("archive");
    std::fs::write(&file, archive).expect("there is room");
    let sha256 = run(Command::new("sha256sum").arg(&file)).stdout_text()[..64].to_owned();
    let bytes = archive.len();
    let put = bed.api(
        &["--upload-file", &file.display().to_string()],
        &format!("/v1/files/{sha256}?from=0&bytes={bytes}"),
    );
    assert!(put.stdout_text().contains("\"complete\":true"), "{put:?}");
    let body = format!(
        r#"{{"command":{{"shell":"echo started"}},"cluster":"{}","files":{{"sha256":"{sha256}","bytes":{bytes},"content_bytes":{content_bytes},"entries":{entries}}}}}"#,
        variable("INVOKE_TESTBED")
    );
    let key = format!("idempotency-key: {}", uuid::Uuid::new_v4());
    let posted = bed.api(
        &[
            "--header",
            &key,
            "--header",
            "content-type: application/json",
            "--data",
            &body,
        ],
        "/v1/jobs",
    );
    let posted = posted.stdout_text();
    let id = posted.split_once(r#""id":""#).expect(&posted).1;
    id[..36].to_owned()
}

/// Nothing of an archive that is not what it claims is ever run, and people are told why.
#[test]
fn a_hostile_archive_starts_nothing() {
    let bed = bed();
    let place = tempfile::tempdir().expect("there is room");
    let tar = |script: &str| {
        let made = run(Command::new("sh")
            .current_dir(place.path())
            .args(["-c", script]));
        assert_eq!(made.code, 0, "{made:?}");
        std::fs::read(place.path().join("a.tgz")).expect("it was made")
    };
    let cases = [
        (
            "rm -rf * && echo x > f && tar --transform 's|^|../../|' -P -czf a.tgz f",
            2,
            1,
            "..",
        ),
        (
            "rm -rf * && echo x > f && tar -P --transform 's|^|/tmp/|' -czf a.tgz f",
            2,
            1,
            "/tmp",
        ),
        (
            "rm -rf * && ln -s /etc/passwd l && tar -czf a.tgz l",
            0,
            1,
            "l",
        ),
        ("rm -rf * && mkfifo p && tar -czf a.tgz p", 0, 1, "p"),
        (
            "rm -rf * && echo x > f && ln f g && tar -czf a.tgz f g",
            2,
            2,
            "g",
        ),
        // 300 MB that claim to be 1,000 bytes.
        (
            "rm -rf * && head -c 300000000 /dev/zero > z && tar -czf a.tgz z && rm z",
            1000,
            1,
            "1000 bytes",
        ),
        ("rm -rf * && echo not gzip > a.tgz", 2, 1, ""),
    ];
    for (script, content_bytes, entries, word) in cases {
        let job = submitted_archive(&bed, &tar(script), content_bytes, entries);
        let ran = bed.ran(&["logs", "-f", &job]);
        let said = ran.stderr_text();
        assert_eq!(
            (ran.code, ran.stdout_text().as_str()),
            (244, ""),
            "{script}: {ran:?}"
        );
        assert!(
            said.contains("never started") && said.contains(word),
            "{script}: {said}"
        );
        let document = bed.json(&["-o", "json", "jobs", &job]);
        assert_eq!(document["started"], "no", "{script}: {document}");
        assert_eq!(
            document["reason"]["code"], "files_refused",
            "{script}: {document}"
        );
    }
}
