//! Attached files: uploaded, resumed, refused, used by a job, and fetched by its pod.

use aws_lc_rs::digest::{SHA256, digest};
use futures::stream::{FuturesUnordered, StreamExt as _};
use invoke_dispatcher::store::uploads::{self, Key};
use invoke_protocol::api::{Limits, UploadedFiles};
use invoke_protocol::digest::Sha256;
use invoke_protocol::envelope::Order;
use invoke_protocol::files::{Files, MAX_FILES_CHUNK_BYTES, longest_archive};
use invoke_protocol::id::PodUid;
use invoke_protocol::job::Job;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::{self, Permit};
use reqwest::{Method, Response, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::bed::{AWAY, Dispatcher, eventually, expect, problem};
use crate::runner::{Runner, exit, pod};

/// Bytes that no compressor would make shorter, the same each time.
fn archive(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

fn files(archive: &[u8]) -> Files {
    Files {
        sha256: sha256(archive),
        bytes: archive.len() as u64,
        content_bytes: 1000,
        entries: 3,
    }
}

/// Somebody who uploads.
struct Person<'a> {
    dispatcher: &'a Dispatcher,
    token: String,
}

impl Person<'_> {
    async fn put(&self, name: Sha256, from: usize, total: usize, piece: &[u8]) -> Response {
        let path = format!("/v1/files/{name}?from={from}&bytes={total}");
        let request = self.dispatcher.anonymous(Method::PUT, &path);
        let request = request.bearer_auth(&self.token).body(piece.to_vec());
        request.send().await.unwrap()
    }

    async fn look(&self, name: Sha256) -> Response {
        let path = format!("/v1/files/{name}");
        let request = self.dispatcher.anonymous(Method::GET, &path);
        request.bearer_auth(&self.token).send().await.unwrap()
    }

    /// How much is stored, and whether it is complete, by both doors.
    async fn stored(&self, response: Response) -> (u64, bool) {
        let answer: UploadedFiles = expect(response, StatusCode::OK).await;
        let look: UploadedFiles = expect(self.look(answer.sha256).await, StatusCode::OK).await;
        assert_eq!(answer, look);
        (answer.stored_bytes, answer.complete)
    }

    async fn upload(&self, archive: &[u8]) {
        let response = self.put(sha256(archive), 0, archive.len(), archive).await;
        assert_eq!(self.stored(response).await, (archive.len() as u64, true));
    }

    async fn submit(&self, files: &Files) -> Response {
        let request = self.dispatcher.anonymous(Method::POST, "/v1/jobs");
        let body = json!({ "command": { "shell": "ls" }, "files": files });
        let request = request.bearer_auth(&self.token).json(&body);
        let request = request.header("idempotency-key", Uuid::now_v7().to_string());
        request.send().await.unwrap()
    }
}

async fn person<'a>(dispatcher: &'a Dispatcher, name: &str) -> Person<'a> {
    Person {
        dispatcher,
        token: dispatcher.token_of(name).await,
    }
}

async fn fetch(runner: &Runner, job: &Job, pod: PodUid, from: u64) -> Response {
    let path = runner::path(runner::FILES, job.id);
    let query = [("pod", pod.to_string()), ("from", from.to_string())];
    let request = runner.request(Method::GET, &path).query(&query);
    request.send().await.unwrap()
}

#[tokio::test]
async fn an_upload_is_resumed_and_complete_when_all_of_it_is_there() {
    let dispatcher = Dispatcher::start().await;
    let ada = person(&dispatcher, "ada").await;
    let whole = archive(1000);
    let name = sha256(&whole);
    problem(ada.look(name).await, ProblemCode::FilesNotFound).await;
    let first = ada.put(name, 0, 1000, &whole[..400]).await;
    assert_eq!(ada.stored(first).await, (400, false));
    let again = ada.put(name, 0, 1000, &whole[..400]).await;
    assert_eq!(ada.stored(again).await, (400, false));
    let gap = ada.put(name, 401, 1000, &whole[401..]).await;
    problem(gap, ProblemCode::UploadGap).await;
    let longer = ada.put(name, 400, 1001, &whole[400..]).await;
    problem(longer, ProblemCode::UploadContradiction).await;
    let too_much = ada.put(name, 400, 1000, &archive(601)).await;
    problem(too_much, ProblemCode::UploadContradiction).await;
    let overlapping = ada.put(name, 300, 1000, &whole[300..700]).await;
    assert_eq!(ada.stored(overlapping).await, (700, false));
    let last = ada.put(name, 700, 1000, &whole[700..]).await;
    assert_eq!(ada.stored(last).await, (1000, true));
    for (from, piece) in [(0, &whole[..]), (1000, &[]), (3, &whole[3..9])] {
        let after = ada.put(name, from, 1000, piece).await;
        assert_eq!(ada.stored(after).await, (1000, true));
    }
}

/// A torn upload must not be what a command is given, and must not be in the way of the right one.
#[tokio::test]
async fn what_has_another_digest_is_never_complete() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let ada = person(&dispatcher, "ada").await;
    let (whole, mut torn) = (archive(1000), archive(1000));
    torn[999] ^= 1;
    let name = sha256(&whole);
    let first = ada.put(name, 0, 1000, &torn[..900]).await;
    assert_eq!(ada.stored(first).await, (900, false));
    let refused = ada.put(name, 900, 1000, &torn[900..]).await;
    let refused = problem(refused, ProblemCode::DigestMismatch).await;
    for word in ["1000 bytes", &sha256(&torn).to_string(), &name.to_string()] {
        assert!(refused.detail.contains(word), "{}", refused.detail);
    }
    problem(ada.look(name).await, ProblemCode::FilesNotFound).await;
    problem(ada.submit(&files(&whole)).await, ProblemCode::FilesMissing).await;
    ada.upload(&whole).await;
}

/// An upload that was begun with the wrong length is begun anew with the right one.
#[tokio::test]
async fn a_wrong_length_is_no_dead_end() {
    let dispatcher = Dispatcher::start().await;
    let ada = person(&dispatcher, "ada").await;
    let whole = archive(1000);
    let name = sha256(&whole);
    let wrong = ada.put(name, 0, 2000, &whole[..500]).await;
    assert_eq!(ada.stored(wrong).await, (500, false));
    ada.upload(&whole).await;
    let other = ada.put(name, 0, 2000, &whole).await;
    problem(other, ProblemCode::UploadContradiction).await;
    assert_eq!(
        ada.stored(ada.look(name).await).await,
        (1000, true),
        "what was compared stays"
    );
}

/// Several programs of one person may upload the same archive at once, each cut elsewhere.
#[tokio::test]
async fn uploads_of_the_same_at_the_same_time_make_one() {
    let dispatcher = Dispatcher::start().await;
    let ada = person(&dispatcher, "ada").await;
    let whole = archive(50_000);
    let (ada, whole, name) = (&ada, &whole, sha256(&whole));
    let uploading: FuturesUnordered<_> = [1000, 1700, 9999, 50_000]
        .map(|step| async move {
            let mut from = 0;
            loop {
                let end = (from + step).min(whole.len());
                let response = ada.put(name, from, whole.len(), &whole[from..end]).await;
                if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                    continue;
                }
                let answer: UploadedFiles = expect(response, StatusCode::OK).await;
                if answer.complete {
                    break;
                }
                from = usize::try_from(answer.stored_bytes).unwrap();
            }
        })
        .into_iter()
        .collect();
    uploading.collect::<Vec<()>>().await;
    assert_eq!(ada.stored(ada.look(name).await).await, (50_000, true));
}

/// The crash between blob and row: the next piece finds the blob, and loses and doubles nothing.
#[tokio::test]
async fn a_blob_without_its_row_is_taken_up() {
    let dispatcher = Dispatcher::start().await;
    let ada = person(&dispatcher, "ada").await;
    let whole = archive(1000);
    let name = sha256(&whole);
    let first = ada.put(name, 0, 1000, &whole[..100]).await;
    assert_eq!(ada.stored(first).await, (100, false));
    let app = dispatcher.running.app();
    let key = Key::Files {
        owner: "ada".to_owned(),
        sha256: name,
    };
    let mut session = app.store.read().await.unwrap();
    let upload = uploads::find(&mut session, &key).await.unwrap().unwrap();
    drop(session);
    let blob = uploads::blob(upload.id, 100);
    let left = whole[100..600].to_vec().into();
    assert_eq!(app.blobs.put(&blob, left).await.unwrap(), 500);
    let next = ada.put(name, 100, 1000, &whole[100..200]).await;
    assert_eq!(ada.stored(next).await, (600, false));
    let last = ada.put(name, 200, 1000, &whole[200..]).await;
    assert_eq!(ada.stored(last).await, (1000, true));
}

/// To know a digest is not to have the file.
#[tokio::test]
async fn an_archive_is_its_owners_alone() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let (ada, bob) = (
        person(&dispatcher, "ada").await,
        person(&dispatcher, "bob").await,
    );
    let whole = archive(1000);
    ada.upload(&whole).await;
    problem(bob.look(sha256(&whole)).await, ProblemCode::FilesNotFound).await;
    let refused = problem(bob.submit(&files(&whole)).await, ProblemCode::FilesMissing).await;
    assert!(refused.detail.contains("nothing"), "{}", refused.detail);
    let claimed = bob.put(sha256(&whole), 1000, 1000, &[]).await;
    problem(claimed, ProblemCode::UploadGap).await;
    bob.upload(&whole).await;
    for person in [ada, bob] {
        let response = person.submit(&files(&whole)).await;
        expect::<Job>(response, StatusCode::ACCEPTED).await;
    }
}

#[tokio::test]
async fn what_is_too_much_is_refused_with_the_limit_and_by_how_much() {
    let limited = ["--files-limit", "64KiB", "--files-entries-limit", "5"];
    let retention = ["--retention", "7d"];
    let arguments = [AWAY.as_slice(), &limited, &retention].concat();
    let dispatcher = Dispatcher::start_with(&arguments).await;
    dispatcher.cluster("edge-7").await;
    let limits: Limits = dispatcher.get("/v1/limits").await;
    let stated = Limits {
        files_bytes: 65_536,
        files_entries: 5,
        retention_seconds: 604_800,
    };
    assert_eq!(limits, stated);
    let ada = person(&dispatcher, "ada").await;
    let whole = archive(1000);
    ada.upload(&whole).await;
    let longest = longest_archive(65_536, 5);
    let too_long = usize::try_from(longest).unwrap() + 1;
    let refusals = [
        ada.put(sha256(b"x"), 0, too_long, b"x").await,
        ada.submit(&Files {
            content_bytes: 65_537,
            ..files(&whole)
        })
        .await,
        ada.submit(&Files {
            entries: 6,
            ..files(&whole)
        })
        .await,
    ];
    let words = [
        [longest.to_string(), too_long.to_string()],
        ["65536".to_owned(), "65537".to_owned()],
        ["5 entries".to_owned(), "have 6".to_owned()],
    ];
    for (response, words) in refusals.into_iter().zip(words) {
        let refused = problem(response, ProblemCode::FilesTooLarge).await;
        for word in words {
            assert!(refused.detail.contains(&word), "{}", refused.detail);
        }
    }
    let piece = vec![0; MAX_FILES_CHUNK_BYTES + 1];
    let refused = ada.put(sha256(b"x"), 0, 1000, &piece).await;
    problem(refused, ProblemCode::TooLarge).await;
    let path = "/v1/files/E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";
    let refused = dispatcher.request(Method::GET, path).send().await.unwrap();
    problem(refused, ProblemCode::InvalidRequest).await;
}

#[tokio::test]
async fn a_job_is_accepted_with_files_that_are_all_there() {
    let dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let ada = person(&dispatcher, "ada").await;
    let whole = archive(1000);
    problem(ada.submit(&files(&whole)).await, ProblemCode::FilesMissing).await;
    ada.put(sha256(&whole), 0, 1000, &whole[..999]).await;
    let refused = problem(ada.submit(&files(&whole)).await, ProblemCode::FilesMissing).await;
    assert!(refused.detail.contains("999 of 1000"), "{}", refused.detail);
    ada.upload(&whole).await;
    let other = Files {
        bytes: 999,
        ..files(&whole)
    };
    let refused = problem(ada.submit(&other).await, ProblemCode::InvalidRequest).await;
    assert!(refused.detail.contains("1000"), "{}", refused.detail);
    let job: Job = expect(ada.submit(&files(&whole)).await, StatusCode::ACCEPTED).await;
    assert_eq!(job.files, Some(files(&whole)));
    assert_eq!(dispatcher.job(&job).await.files, Some(files(&whole)));
}

/// The order says which files; the pod that holds the permit gets them, and nobody else.
#[tokio::test]
async fn the_permitted_pod_fetches_the_archive_from_where_it_was_cut_off() {
    let dispatcher = Dispatcher::start().await;
    let (runner, other) = (
        dispatcher.cluster("edge-7").await,
        dispatcher.cluster("edge-8").await,
    );
    let whole = archive(100_000);
    let ada = person(&dispatcher, "ada").await;
    let name = sha256(&whole);
    for (from, end) in [(0, 1000), (1000, 60_000), (60_000, 100_000)] {
        let response = ada.put(name, from, 100_000, &whole[from..end]).await;
        assert_eq!(ada.stored(response).await.0, end as u64);
    }
    let body = json!({ "command": { "shell": "ls" }, "files": files(&whole), "cluster": "edge-7" });
    let request = dispatcher.anonymous(Method::POST, "/v1/jobs");
    let request = request.bearer_auth(&ada.token).json(&body);
    let request = request.header("idempotency-key", Uuid::now_v7().to_string());
    let job: Job = expect(request.send().await.unwrap(), StatusCode::ACCEPTED).await;
    problem(
        fetch(&runner, &job, pod(), 0).await,
        ProblemCode::NotStarted,
    )
    .await;
    let holder = pod();
    let Permit::Granted { envelope, .. } = runner.permit(&job, holder).await else {
        panic!("it is not permitted to start");
    };
    let Order::V1(order) = Order::from_payload(&envelope.payload).unwrap();
    assert_eq!(order.files, Some(files(&whole)));

    for from in [0, 1, 999, 1000, 59_999, 99_999, 100_000] {
        let response = fetch(&runner, &job, holder, from as u64).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/gzip");
        let length = response.content_length();
        assert_eq!(length, Some((whole.len() - from) as u64));
        assert!(response.bytes().await.unwrap() == whole[from..], "{from}");
    }
    let beyond = fetch(&runner, &job, holder, 100_001).await;
    problem(beyond, ProblemCode::RangeNotSatisfiable).await;
    problem(fetch(&runner, &job, pod(), 0).await, ProblemCode::OtherPod).await;
    let elsewhere = fetch(&other, &job, holder, 0).await;
    problem(elsewhere, ProblemCode::JobNotFound).await;
    let ended = runner.complete(&job, holder, &exit(0, 0)).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    let late = fetch(&runner, &job, holder, 0).await;
    problem(late, ProblemCode::JobOver).await;

    let without = expect::<Job>(
        dispatcher
            .submit_as(
                Uuid::now_v7(),
                &json!({ "command": { "shell": "ls" }, "cluster": "edge-7" }),
            )
            .await,
        StatusCode::ACCEPTED,
    )
    .await;
    let pod = runner.start(&without).await;
    let none = fetch(&runner, &without, pod, 0).await;
    problem(none, ProblemCode::FilesNotFound).await;
}

/// All blobs that there are.
fn blobs(dispatcher: &Dispatcher) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.path() {
                path if path.is_dir() => count(&path),
                _ => 1,
            })
            .sum()
    }
    count(&dispatcher.file("blobs"))
}

/// What two jobs share goes with the last of them; and of what has expired nothing is left on the disk.
#[tokio::test]
async fn an_archive_is_kept_for_as_long_as_a_job_that_has_it() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let ada = person(&dispatcher, "ada").await;
    let bytes = archive(1000);
    ada.upload(&bytes).await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let job: Job = expect(ada.submit(&files(&bytes)).await, StatusCode::ACCEPTED).await;
        jobs.push(job);
    }
    let first = runner.start(&jobs[0]).await;
    let printed = crate::runner::log(&[b"one\n"]);
    runner.upload(&jobs[0], first, 0, &printed).await;
    let end = exit(0, printed.len() as u64);
    runner.complete(&jobs[0], first, &end).await;
    assert_eq!(blobs(&dispatcher), 2);

    let over_for_a_second = async |dispatcher: &Dispatcher, job: &Job| {
        let ended = dispatcher.job(job).await.times.ended.unwrap();
        eventually("a second is over", async || {
            let age = jiff::Timestamp::now().duration_since(ended);
            (age > jiff::SignedDuration::from_millis(1100)).then_some(())
        })
        .await;
    };
    over_for_a_second(&dispatcher, &jobs[0]).await;
    let expiring = [&AWAY[..], &["--retention", "1s"]].concat();
    let dispatcher = dispatcher.restart(&expiring).await;
    eventually("the first job's output does not expire", async || {
        dispatcher.job(&jobs[0]).await.output_expired
    })
    .await;
    eventually("its blob is left", async || {
        (blobs(&dispatcher) == 1).then_some(())
    })
    .await;
    // The other one has not run yet, and what it needs is there.
    let runner = runner.at(&dispatcher);
    let second = runner.start(&jobs[1]).await;
    runner.complete(&jobs[1], second, &exit(0, 0)).await;
    over_for_a_second(&dispatcher, &jobs[1]).await;
    let dispatcher = dispatcher.restart(&expiring).await;
    eventually("the archive is left", async || {
        (blobs(&dispatcher) == 0).then_some(())
    })
    .await;
}
