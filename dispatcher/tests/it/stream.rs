//! One stream of the output alone: whole, in ranges, from its end; and what is kept no more.

use invoke_protocol::job::Job;
use invoke_protocol::output::{Frame, Stream};
use invoke_protocol::problem::ProblemCode;
use jiff::Timestamp;
use reqwest::{Method, Response, StatusCode};

use crate::bed::{Dispatcher, problem};
use crate::runner::exit;

fn log(pieces: &[(Stream, &[u8])]) -> Vec<u8> {
    let mut log = Vec::new();
    for (stream, payload) in pieces {
        Frame {
            stream: *stream,
            at: Timestamp::UNIX_EPOCH,
            payload,
        }
        .encode(&mut log);
    }
    log
}

/// A job with output of both streams, in three parts: `one two three four` on stdout, `ERR OR` on stderr.
async fn printed(dispatcher: &Dispatcher) -> Job {
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let pod = runner.start(&job).await;
    let (out, err) = (Stream::Stdout, Stream::Stderr);
    let parts = [
        log(&[(out, b"one "), (err, b"ERR ")]),
        log(&[(err, b"OR")]),
        log(&[(out, b"two three "), (out, b"four")]),
    ];
    let mut position = 0;
    for part in parts {
        let answer = runner.upload(&job, pod, position, &part).await;
        assert_eq!(answer.status(), StatusCode::OK);
        position += part.len() as u64;
    }
    let end = runner.complete(&job, pod, &exit(0, position)).await;
    assert_eq!(end.status(), StatusCode::NO_CONTENT);
    job
}

async fn get(dispatcher: &Dispatcher, job: &Job, rest: &str, range: Option<&str>) -> Response {
    let path = format!("/v1/jobs/{}/{rest}", job.id);
    let mut request = dispatcher.request(Method::GET, &path);
    if let Some(range) = range {
        request = request.header("range", range);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_stream_is_read_whole_or_in_ranges() {
    let dispatcher = Dispatcher::start().await;
    let job = printed(&dispatcher).await;
    for (stream, range, status, content_range, body) in [
        ("stdout", None, 200, None, "one two three four"),
        ("stderr", None, 200, None, "ERR OR"),
        (
            "stdout",
            Some("bytes=2-5"),
            206,
            Some("bytes 2-5/18"),
            "e tw",
        ),
        (
            "stdout",
            Some("bytes=4-"),
            206,
            Some("bytes 4-17/18"),
            "two three four",
        ),
        (
            "stdout",
            Some("bytes=-4"),
            206,
            Some("bytes 14-17/18"),
            "four",
        ),
        ("stderr", Some("bytes=3-4"), 206, Some("bytes 3-4/6"), " O"),
    ] {
        let answer = get(&dispatcher, &job, stream, range).await;
        assert_eq!(answer.status().as_u16(), status, "{stream} {range:?}");
        let found = answer.headers().get("content-range");
        assert_eq!(found.map(|found| found.to_str().unwrap()), content_range);
        assert_eq!(answer.text().await.unwrap(), body, "{stream} {range:?}");
    }
    let beyond = get(&dispatcher, &job, "stdout", Some("bytes=18-")).await;
    assert_eq!(beyond.headers()["content-range"], "bytes */18");
    problem(beyond, ProblemCode::RangeNotSatisfiable).await;
}

/// Who wants the last lines need not read the rest.
#[tokio::test]
async fn the_end_of_the_log_is_read_without_the_rest() {
    let dispatcher = Dispatcher::start().await;
    let job = printed(&dispatcher).await;
    let whole = get(&dispatcher, &job, "output", None)
        .await
        .bytes()
        .await
        .unwrap();
    let last = get(&dispatcher, &job, "output?last_bytes=1", None).await;
    let start: usize = last.headers()["invoke-output-start"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(start > 0 && start < whole.len() - 1, "{start}");
    assert_eq!(last.bytes().await.unwrap(), whole[start..]);
    let all = get(&dispatcher, &job, "output?last_bytes=100000", None).await;
    assert_eq!(all.headers()["invoke-output-start"], "0");
    assert_eq!(all.bytes().await.unwrap(), whole);
}

/// What was kept long enough is said to have expired, not to be unknown; and its blobs are gone.
#[tokio::test]
async fn what_has_expired_says_so() {
    let dispatcher = Dispatcher::start().await;
    let job = printed(&dispatcher).await;
    let app = dispatcher.running.app();
    assert!(
        app.store
            .expire_output(job.id, Timestamp::now())
            .await
            .unwrap()
    );
    assert!(
        !app.store
            .expire_output(job.id, Timestamp::now())
            .await
            .unwrap()
    );
    for rest in ["output", "events", "stdout", "stderr", "artifacts"] {
        let refused = problem(
            get(&dispatcher, &job, rest, None).await,
            ProblemCode::OutputExpired,
        )
        .await;
        assert!(
            refused.detail.contains("expired on 20"),
            "{}",
            refused.detail
        );
    }
    assert!(dispatcher.job(&job).await.output_expired.is_some());
}
