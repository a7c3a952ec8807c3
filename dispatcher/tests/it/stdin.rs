//! What a command reads: sent, resumed, held back while there is much of it, and given to one pod.

use std::time::Duration;

use invoke_dispatcher::store::uploads::{self, Key};
use invoke_protocol::api::StdinAck;
use invoke_protocol::envelope::Order;
use invoke_protocol::id::PodUid;
use invoke_protocol::job::Job;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::{self, Permit};
use reqwest::{Method, Response, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::bed::{Dispatcher, expect, problem};
use crate::runner::{Runner, exit, pod};

async fn submit(dispatcher: &Dispatcher) -> Job {
    let body = json!({ "command": { "shell": "cat" }, "stdin": true });
    let response = dispatcher.submit_as(Uuid::now_v7(), &body).await;
    expect(response, StatusCode::ACCEPTED).await
}

async fn send(dispatcher: &Dispatcher, job: &Job, from: u64, bytes: &[u8], end: bool) -> Response {
    let path = format!("/v1/jobs/{}/stdin?from={from}&end={end}", job.id);
    let request = dispatcher.request(Method::PUT, &path);
    request.body(bytes.to_vec()).send().await.unwrap()
}

async fn sent(response: Response) -> (u64, bool) {
    let StdinAck { bytes, ended } = expect(response, StatusCode::OK).await;
    (bytes, ended)
}

async fn ask(runner: &Runner, job: &Job, pod: PodUid, from: u64, wait: u64) -> Response {
    let path = runner::path(runner::STDIN, job.id);
    let query = [
        ("pod", pod.to_string()),
        ("from", from.to_string()),
        ("wait_seconds", wait.to_string()),
    ];
    let request = runner.request(Method::GET, &path).query(&query);
    request.send().await.unwrap()
}

async fn read(response: Response) -> (Vec<u8>, bool) {
    assert_eq!(response.status(), StatusCode::OK);
    let end = response.headers()["invoke-stdin-end"] == "true";
    (response.bytes().await.unwrap().to_vec(), end)
}

#[tokio::test]
async fn what_is_sent_is_read_by_the_permitted_pod_once_and_in_order() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = submit(&dispatcher).await;
    assert!(job.stdin);
    // Before there is anybody to read it.
    let first = send(&dispatcher, &job, 0, b"one\n", false).await;
    assert_eq!(sent(first).await, (4, false));
    let again = send(&dispatcher, &job, 0, b"one\n", false).await;
    assert_eq!(sent(again).await, (4, false));
    let gap = send(&dispatcher, &job, 5, b"x", false).await;
    problem(gap, ProblemCode::UploadGap).await;
    let early = ask(&runner, &job, pod(), 0, 0).await;
    problem(early, ProblemCode::NotStarted).await;

    let holder = pod();
    let Permit::Granted { envelope, .. } = runner.permit(&job, holder).await else {
        panic!("it is not permitted to start");
    };
    let Order::V1(order) = Order::from_payload(&envelope.payload).unwrap();
    assert!(order.stdin);
    problem(ask(&runner, &job, pod(), 0, 0).await, ProblemCode::OtherPod).await;
    let got = read(ask(&runner, &job, holder, 0, 0).await).await;
    assert_eq!(got, (b"one\n".to_vec(), false));
    let got = read(ask(&runner, &job, holder, 2, 0).await).await;
    assert_eq!(got, (b"e\n".to_vec(), false), "a read that was cut off");
    let nothing = read(ask(&runner, &job, holder, 4, 0).await).await;
    assert_eq!(nothing, (vec![], false));
    let back = ask(&runner, &job, holder, 0, 0).await;
    problem(back, ProblemCode::RangeNotSatisfiable).await;
    let ahead = ask(&runner, &job, holder, 5, 0).await;
    problem(ahead, ProblemCode::UploadGap).await;

    let last = send(&dispatcher, &job, 2, b"e\ntwo", true).await;
    assert_eq!(sent(last).await, (7, true));
    let again = send(&dispatcher, &job, 4, b"two", true).await;
    assert_eq!(sent(again).await, (7, true));
    let after = send(&dispatcher, &job, 7, b"x", false).await;
    problem(after, ProblemCode::UploadContradiction).await;
    let got = read(ask(&runner, &job, holder, 4, 0).await).await;
    assert_eq!(got, (b"two".to_vec(), true));
    let got = read(ask(&runner, &job, holder, 7, 15).await).await;
    assert_eq!(got, (vec![], true), "the end is not waited for");

    let ended = runner.complete(&job, holder, &exit(0, 0)).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    let late = send(&dispatcher, &job, 7, b"", true).await;
    problem(late, ProblemCode::JobOver).await;
    let late = ask(&runner, &job, holder, 7, 0).await;
    problem(late, ProblemCode::JobOver).await;
}

/// A pipe may be closed long after the last byte, or with none at all.
#[tokio::test]
async fn an_end_may_come_alone() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    for bytes in [b"".as_slice(), b"x"] {
        let job = submit(&dispatcher).await;
        let length = bytes.len() as u64;
        if length > 0 {
            sent(send(&dispatcher, &job, 0, bytes, false).await).await;
        }
        let end = send(&dispatcher, &job, length, b"", true).await;
        assert_eq!(sent(end).await, (length, true));
        let pod = runner.start(&job).await;
        let got = read(ask(&runner, &job, pod, 0, 15).await).await;
        assert_eq!(got, (bytes.to_vec(), true));
    }
}

/// A piece that nobody was told is stored goes on after the end that another states: then the two are not of one
/// stream, and neither is taken for the other.
#[tokio::test]
async fn an_end_before_what_is_there_is_refused() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let job = submit(&dispatcher).await;
    sent(send(&dispatcher, &job, 0, b"", false).await).await;
    let app = dispatcher.running.app();
    let mut session = app.store.read().await.unwrap();
    let upload = uploads::find(&mut session, &Key::Stdin(job.id)).await;
    let blob = uploads::blob(upload.unwrap().unwrap().id, 0);
    drop(session);
    app.blobs.put(&blob, "longer".into()).await.unwrap();
    let refused = send(&dispatcher, &job, 0, b"short", true).await;
    problem(refused, ProblemCode::UploadContradiction).await;
    let longer = send(&dispatcher, &job, 0, b"longer", true).await;
    assert_eq!(sent(longer).await, (6, true));
}

/// Somebody types; the command must not wait for a poll.
#[tokio::test]
async fn who_waits_for_input_is_told_at_once() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = submit(&dispatcher).await;
    let pod = runner.start(&job).await;
    let began = std::time::Instant::now();
    let (got, _) = tokio::join!(
        async { read(ask(&runner, &job, pod, 0, 20).await).await },
        send(&dispatcher, &job, 0, b"yes\n", false)
    );
    assert_eq!(got, (b"yes\n".to_vec(), false));
    let end = exit(0, 0);
    let (refused, ended) = tokio::join!(
        ask(&runner, &job, pod, 4, 20),
        runner.complete(&job, pod, &end)
    );
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    problem(refused, ProblemCode::JobOver).await;
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_command_that_reads_nothing_is_sent_nothing() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("date").await;
    let refused = send(&dispatcher, &job, 0, b"x", false).await;
    problem(refused, ProblemCode::NoStdin).await;
    let pod = runner.start(&job).await;
    let refused = ask(&runner, &job, pod, 0, 0).await;
    problem(refused, ProblemCode::NoStdin).await;
    let stranger = Job {
        id: "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10".parse().unwrap(),
        ..job
    };
    let refused = send(&dispatcher, &stranger, 0, b"x", false).await;
    problem(refused, ProblemCode::JobNotFound).await;
}

/// What a shell reads, it does: nobody else's word may get in.
#[tokio::test]
async fn only_who_submitted_a_job_sends_it_what_it_reads() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let job = submit(&dispatcher).await;
    let token = dispatcher.token_of("bob").await;
    let path = format!("/v1/jobs/{}/stdin", job.id);
    let request = dispatcher.anonymous(Method::PUT, &path).bearer_auth(token);
    let refused = request.body("rm -rf /\n").send().await.unwrap();
    problem(refused, ProblemCode::Forbidden).await;
}

/// A file of any size is piped through a command without being here as a whole; and what was read is gone.
#[tokio::test]
async fn who_sends_faster_than_is_read_waits() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = submit(&dispatcher).await;
    let pod = runner.start(&job).await;
    let piece = vec![7; 1024 * 1024];
    for number in 0..64 {
        let response = send(&dispatcher, &job, number << 20, &piece, false).await;
        assert_eq!(sent(response).await.0, (number + 1) << 20);
    }
    let held_back = send(&dispatcher, &job, 64 << 20, &piece, false).await;
    assert_eq!(held_back.headers()["retry-after"], "1");
    let refused = problem(held_back, ProblemCode::Unavailable).await;
    assert!(refused.detail.contains("67108864"), "{}", refused.detail);
    let overlapping = send(&dispatcher, &job, (63 << 20) + 1, &piece, false).await;
    problem(overlapping, ProblemCode::Unavailable).await;
    let again = send(&dispatcher, &job, 63 << 20, &piece, false).await;
    assert_eq!(
        sent(again).await,
        (64 << 20, false),
        "what is stored is said to be stored"
    );
    let blobs = || count(&dispatcher.file("blobs"));
    assert_eq!(blobs(), 64);
    let (got, _) = read(ask(&runner, &job, pod, 10 << 20, 0).await).await;
    assert_eq!(got, piece);
    assert_eq!(blobs(), 54, "what was read is removed");
    let more = send(&dispatcher, &job, 64 << 20, &piece, false).await;
    assert_eq!(sent(more).await, (65 << 20, false));
}

/// How many files there are in a folder and below.
fn count(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap();
    let counted = entries.map(|entry| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => count(&entry.path()),
            false => 1,
        }
    });
    counted.sum()
}
