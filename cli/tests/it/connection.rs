//! Everything that may answer in place of a dispatcher, or not answer.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use insta::assert_snapshot;
use invoke_protocol::problem::ProblemCode;

use crate::program::{Bed, Certificates};
use crate::stub::Answer;

/// What an address that nothing of ours listens at is called in snapshots.
fn transcript_at(bed: &Bed, url: &str) -> String {
    bed.transcript(&["--url", url, "ls"]).replace(url, "[URL]")
}

#[test]
fn a_refused_connection_says_so() {
    let bed = Bed::new();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_snapshot!(transcript_at(&bed, &format!("https://127.0.0.1:{port}")), @"
    exit: 241
    --- stderr
    invoke: cannot reach the dispatcher at [URL]: connection refused
    invoke: hint: is it running? The address came from --url
    ");
}

#[test]
fn an_unknown_name_says_so() {
    let bed = Bed::new();
    assert_snapshot!(transcript_at(&bed, "https://no-such-host.invalid"), @"
    exit: 241
    --- stderr
    invoke: cannot reach the dispatcher at [URL]: the name no-such-host.invalid cannot be resolved
    invoke: hint: the address came from --url
    ");
}

#[test]
fn a_foreign_authority_is_not_trusted() {
    let bed = Bed::new();
    std::fs::write(bed.ca_file(), Certificates::good().ca_pem).unwrap();
    assert_snapshot!(bed.transcript(&["ls"]), @"
    exit: 241
    --- stderr
    invoke: cannot reach the dispatcher at [URL]: its certificate is not signed by an authority that is trusted here
    invoke: hint: if the dispatcher has its own authority, set INVOKE_CA_FILE to its ca.pem
    ");
    assert!(
        bed.stub.seen("POST /v1/jobs").is_empty(),
        "the token went to a stranger"
    );
}

#[test]
fn an_expired_certificate_says_so() {
    let bed = Bed::with_certificates(&Certificates::for_name("localhost", 2001));
    assert_snapshot!(bed.transcript(&["ls"]), @"
    exit: 241
    --- stderr
    invoke: cannot reach the dispatcher at [URL]: its certificate has expired
    invoke: hint: its operator must renew it
    ");
}

#[test]
fn a_certificate_for_another_name_says_whose_it_is() {
    let bed = Bed::with_certificates(&Certificates::for_name("other.example", 4096));
    assert_snapshot!(bed.transcript(&["ls"]), @"
    exit: 241
    --- stderr
    invoke: cannot reach the dispatcher at [URL]: its certificate is for other.example
    invoke: hint: use one of its names; the address came from INVOKE_URL
    ");
}

#[test]
fn a_server_without_tls_says_so() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    assert_snapshot!(transcript_at(&bed, &format!("https://127.0.0.1:{port}")), @"
    exit: 241
    --- stderr
    invoke: cannot reach the dispatcher at [URL]: what answers there does not speak TLS
    invoke: hint: is the port right? The address came from --url
    ");
}

#[test]
fn another_kind_of_server_is_no_dispatcher() {
    let bed = Bed::new();
    for (status, page) in [(200, "<html>"), (404, "not here"), (302, "")] {
        bed.stub
            .on("POST /v1/jobs", vec![Answer::foreign(status, page)]);
        let shown = bed.transcript(&["ls"]);
        assert!(shown.starts_with("exit: 241\n"), "{shown}");
        assert!(
            shown.contains("but it is not an invoke dispatcher"),
            "{shown}"
        );
    }
    assert_snapshot!(bed.transcript(&["ls"]), @"
    exit: 241
    --- stderr
    invoke: [URL] answered (302 Found), but it is not an invoke dispatcher
    invoke: hint: the address came from INVOKE_URL: is it the right one?
    ");
}

#[test]
fn a_wrong_token_says_where_it_came_from() {
    let bed = Bed::new();
    let refusal = Answer::problem(ProblemCode::Unauthenticated, "the token is not known");
    bed.stub.on("POST /v1/jobs", vec![refusal]);
    assert_snapshot!(bed.transcript(&["ls"]), @"
    exit: 242
    --- stderr
    invoke: the token is not known
    invoke: hint: the token came from INVOKE_TOKEN
    ");
    let file = bed.home.path().join("token");
    std::fs::write(&file, "another").unwrap();
    assert_snapshot!(bed.transcript(&["--token-file", file.to_str().unwrap(), "ls"]), @"
    exit: 242
    --- stderr
    invoke: the token is not known
    invoke: hint: the token came from [HOME]/token (--token-file)
    ");
}

#[test]
fn what_the_dispatcher_refuses_is_passed_on() {
    let bed = Bed::new();
    for (code, detail, exit) in [
        (
            ProblemCode::UnknownCluster,
            "there is no cluster dmeo; did you mean demo?",
            240,
        ),
        (
            ProblemCode::UnknownProfile,
            "cluster demo has no profile x; it has default",
            240,
        ),
        (
            ProblemCode::Forbidden,
            "you may not run commands in demo",
            242,
        ),
        (ProblemCode::Unavailable, "the dispatcher is stopping", 241),
        (ProblemCode::Internal, "something went wrong", 249),
    ] {
        bed.stub
            .on("POST /v1/jobs", vec![Answer::problem(code, detail)]);
        let shown = bed.transcript(&["ls"]);
        assert!(shown.starts_with(&format!("exit: {exit}\n")), "{shown}");
        assert!(shown.contains(detail), "{shown}");
    }
}

/// What the dispatcher says must not be able to forge a line, or to move the cursor.
#[test]
fn words_of_others_are_shown_harmless() {
    let bed = Bed::new();
    let detail = "no\ninvoke: all is well\u{1b}[2J";
    bed.stub.on(
        "POST /v1/jobs",
        vec![Answer::problem(ProblemCode::Forbidden, detail)],
    );
    assert_snapshot!(bed.transcript(&["ls"]), @r"
    exit: 242
    --- stderr
    invoke: no\ninvoke: all is well^[[2J
    ");
}

#[test]
fn an_answer_that_makes_no_sense_is_internal() {
    let bed = Bed::new();
    bed.stub.on(
        "POST /v1/jobs",
        vec![Answer::json(202, &serde_json::json!({"id": 42}))],
    );
    assert_snapshot!(bed.transcript(&["ls"]), @"
    exit: 249
    --- stderr
    invoke: it is not known whether the job was accepted: the dispatcher at [URL] gave an answer that makes no sense: invalid type: integer `42`, expected a formatted UUID string at line 1 column 8
    invoke: hint: `invoke jobs` shows whether it was; running it again may run it twice
    ");
}
