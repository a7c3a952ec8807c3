//! What a command leaves to be sent back: uploaded by its pod, listed and read by people.

use aws_lc_rs::digest::{SHA256, digest};
use invoke_protocol::api::ArtifactList;
use invoke_protocol::artifacts::{Artifact, ArtifactsIncomplete, ArtifactsSummary, Manifest};
use invoke_protocol::digest::Sha256;
use invoke_protocol::id::PodUid;
use invoke_protocol::job::Job;
use invoke_protocol::output::ExitRecord;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::{self, ArtifactsAck};
use reqwest::header::RANGE;
use reqwest::{Method, Response, StatusCode};

use crate::bed::{AWAY, Dispatcher, expect, problem};
use crate::runner::{Runner, exit, pod};

fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

/// A stream as a shim makes it, and what the record says of it.
fn left(files: &[(&str, &[u8])]) -> (Vec<u8>, ArtifactsSummary) {
    let (mut stream, mut manifest) = (Vec::new(), Manifest::default());
    for (path, content) in files {
        manifest.files.push(Artifact {
            path: (*path).to_owned(),
            bytes: content.len() as u64,
            sha256: sha256(content),
            offset: stream.len() as u64,
            executable: false,
        });
        stream.extend_from_slice(content);
    }
    with_manifest(stream, &serde_json::to_vec(&manifest).unwrap())
}

fn with_manifest(mut stream: Vec<u8>, manifest: &[u8]) -> (Vec<u8>, ArtifactsSummary) {
    let summary = ArtifactsSummary {
        files: 1,
        content_bytes: stream.len() as u64,
        manifest_bytes: manifest.len() as u64,
        manifest_sha256: sha256(manifest),
        skipped: 0,
        incomplete: None,
    };
    stream.extend_from_slice(manifest);
    (stream, summary)
}

fn end(summary: &ArtifactsSummary) -> ExitRecord {
    ExitRecord {
        artifacts: Some(summary.clone()),
        ..exit(0, 0)
    }
}

async fn put(runner: &Runner, job: &Job, pod: PodUid, from: u64, bytes: &[u8]) -> Response {
    let path = runner::path(runner::ARTIFACTS, job.id);
    let query = [("pod", pod.to_string()), ("from", from.to_string())];
    let request = runner.request(Method::PUT, &path).query(&query);
    request.body(bytes.to_vec()).send().await.unwrap()
}

async fn acked(response: Response) -> u64 {
    expect::<ArtifactsAck>(response, StatusCode::OK).await.bytes
}

async fn list(dispatcher: &Dispatcher, job: &Job) -> Response {
    let path = format!("/v1/jobs/{}/artifacts", job.id);
    dispatcher.request(Method::GET, &path).send().await.unwrap()
}

async fn content(dispatcher: &Dispatcher, method: Method, job: &Job, range: &str) -> Response {
    let path = format!("/v1/jobs/{}/artifacts/content", job.id);
    let request = dispatcher.request(method, &path);
    let request = match range {
        "" => request,
        range => request.header(RANGE, range),
    };
    request.send().await.unwrap()
}

#[tokio::test]
async fn files_are_listed_and_read_as_they_were_left() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("make").await;
    let early = put(&runner, &job, pod(), 0, b"x").await;
    problem(early, ProblemCode::NotStarted).await;
    let pod = runner.start(&job).await;
    let files: [(&str, &[u8]); 3] = [("a/b.txt", b"hello"), ("empty", b""), ("z", &[0xff; 300])];
    let (stream, summary) = left(&files);
    let (first, second) = stream.split_at(100);
    assert_eq!(acked(put(&runner, &job, pod, 0, first).await).await, 100);
    assert_eq!(acked(put(&runner, &job, pod, 0, first).await).await, 100);
    let gap = put(&runner, &job, pod, 101, b"x").await;
    problem(gap, ProblemCode::UploadGap).await;
    let other = put(&runner, &job, crate::runner::pod(), 100, second).await;
    problem(other, ProblemCode::OtherPod).await;
    let not_yet = problem(
        list(&dispatcher, &job).await,
        ProblemCode::ArtifactsNotFound,
    )
    .await;
    assert!(not_yet.detail.contains("not over"), "{}", not_yet.detail);
    let whole = stream.len() as u64;
    assert_eq!(
        acked(put(&runner, &job, pod, 100, second).await).await,
        whole
    );
    let ended = runner.complete(&job, pod, &end(&summary)).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    let late = put(&runner, &job, pod, whole, b"x").await;
    problem(late, ProblemCode::JobOver).await;

    assert_eq!(dispatcher.job(&job).await.artifacts, Some(summary.clone()));
    let listed: ArtifactList = expect(list(&dispatcher, &job).await, StatusCode::OK).await;
    assert_eq!(listed.summary, summary);
    for (file, (path, bytes)) in listed.manifest.files.iter().zip(files) {
        assert_eq!(file.path, path);
        if bytes.is_empty() {
            continue;
        }
        let range = format!("bytes={}-{}", file.offset, file.offset + file.bytes - 1);
        let response = content(&dispatcher, Method::GET, &job, &range).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        let of = format!("{}/{whole}", range.replace('=', " "));
        assert_eq!(response.headers()["content-range"], of.as_str());
        assert_eq!(response.bytes().await.unwrap(), bytes);
    }
    // Over the seam of two uploads, to the end, and all of it.
    for (range, expected) in [
        ("bytes=90-109", &stream[90..110]),
        ("bytes=200-", &stream[200..]),
        ("bytes=-7", &stream[stream.len() - 7..]),
        ("", &stream),
    ] {
        let response = content(&dispatcher, Method::GET, &job, range).await;
        assert_eq!(response.headers()["accept-ranges"], "bytes");
        assert!(response.bytes().await.unwrap() == expected, "{range}");
    }
    let head = content(&dispatcher, Method::HEAD, &job, "").await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers()["content-length"], whole.to_string().as_str());
    assert!(head.bytes().await.unwrap().is_empty());
    let beyond = content(&dispatcher, Method::GET, &job, &format!("bytes={whole}-")).await;
    let of = format!("bytes */{whole}");
    assert_eq!(beyond.headers()["content-range"], of.as_str());
    problem(beyond, ProblemCode::RangeNotSatisfiable).await;
}

/// The end is told though the files did not come; and what is missing is not promised.
#[tokio::test]
async fn what_is_not_stored_is_not_promised() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("make").await;
    let pod = runner.start(&job).await;
    let (stream, summary) = left(&[("a", b"hello")]);
    let short = &stream[..stream.len() - 1];
    acked(put(&runner, &job, pod, 0, short).await).await;
    for _ in 0..2 {
        // Again, as after an answer that was lost: it is the same record, and no contradiction.
        let ended = runner.complete(&job, pod, &end(&summary)).await;
        assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    }
    let told = dispatcher.job(&job).await.artifacts.unwrap();
    assert_eq!(told.incomplete, Some(ArtifactsIncomplete::NotUploaded));
    let refused = problem(
        list(&dispatcher, &job).await,
        ProblemCode::ArtifactsNotFound,
    )
    .await;
    let counted = format!("{} of {} bytes", short.len(), stream.len());
    assert!(refused.detail.contains(&counted), "{}", refused.detail);
    let stored = content(&dispatcher, Method::GET, &job, "").await;
    assert_eq!(
        stored.bytes().await.unwrap(),
        short,
        "what is there is shown"
    );

    let nothing = dispatcher.submit("make").await;
    let pod = runner.start(&nothing).await;
    runner.complete(&nothing, pod, &end(&summary)).await;
    let told = dispatcher.job(&nothing).await.artifacts.unwrap();
    assert_eq!(told.incomplete, Some(ArtifactsIncomplete::NotUploaded));
    let stored = content(&dispatcher, Method::GET, &nothing, "").await;
    assert!(stored.bytes().await.unwrap().is_empty());

    let none = dispatcher.submit("date").await;
    let pod = runner.start(&none).await;
    runner.complete(&none, pod, &exit(0, 0)).await;
    for response in [
        list(&dispatcher, &none).await,
        content(&dispatcher, Method::GET, &none, "").await,
    ] {
        let refused = problem(response, ProblemCode::ArtifactsNotFound).await;
        assert!(refused.detail.contains("left no"), "{}", refused.detail);
    }
}

/// The list comes from where the command ran. Who goes by it must not be led astray.
#[tokio::test]
async fn a_list_that_the_stream_does_not_bear_out_is_not_shown() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let file = |offset: u64, bytes: u64| {
        let zeros = "0".repeat(64);
        format!(
            r#"{{"files":[{{"path":"a","bytes":{bytes},"sha256":"{zeros}","offset":{offset}}}]}}"#
        )
    };
    let (good, beyond, overflowing) = (file(0, 5), file(1, 5), file(u64::MAX, 5));
    let lie = |mut of: (Vec<u8>, ArtifactsSummary)| {
        of.1.manifest_sha256 = sha256(b"another");
        of
    };
    let cases = [
        (with_manifest(b"hello".to_vec(), good.as_bytes()), None),
        (
            with_manifest(b"hello".to_vec(), beyond.as_bytes()),
            Some("not in the stream"),
        ),
        (
            with_manifest(b"hello".to_vec(), overflowing.as_bytes()),
            Some("not in the stream"),
        ),
        (with_manifest(b"hello".to_vec(), b"{}"), Some("not written")),
        (
            lie(with_manifest(b"hello".to_vec(), good.as_bytes())),
            Some("digest"),
        ),
    ];
    for ((stream, summary), why) in cases {
        let job = dispatcher.submit("make").await;
        let pod = runner.start(&job).await;
        acked(put(&runner, &job, pod, 0, &stream).await).await;
        let ended = runner.complete(&job, pod, &end(&summary)).await;
        assert_eq!(ended.status(), StatusCode::NO_CONTENT);
        let response = list(&dispatcher, &job).await;
        let Some(why) = why else {
            expect::<ArtifactList>(response, StatusCode::OK).await;
            continue;
        };
        let refused = problem(response, ProblemCode::ArtifactsNotFound).await;
        assert!(refused.detail.contains(why), "{}", refused.detail);
    }
}

#[tokio::test]
async fn artifacts_are_as_many_as_is_allowed_and_no_more() {
    let limits = ["--files-limit", "1KiB", "--files-entries-limit", "9"];
    let arguments = [AWAY.as_slice(), &limits].concat();
    let dispatcher = Dispatcher::start_with(&arguments).await;
    let runner = dispatcher.cluster("edge-7").await;
    let told = runner.contact().await.artifacts;
    assert_eq!((told.content_bytes, told.entries), (1024, 9), "to the pods");
    let job = dispatcher.submit("make").await;
    let pod = runner.start(&job).await;
    let limit = 1024 + (64 << 20);
    for (from, bytes) in [(limit, 1), (limit - 1, 2), (u64::MAX, 1)] {
        let refused = put(&runner, &job, pod, from, &vec![0; bytes]).await;
        let refused = problem(refused, ProblemCode::TooLarge).await;
        assert!(refused.detail.contains("1024"), "{}", refused.detail);
    }
    // Within the limit; what is wrong with it is something else.
    let gap = put(&runner, &job, pod, limit - 1, b"x").await;
    problem(gap, ProblemCode::UploadGap).await;
}
