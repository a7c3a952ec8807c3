//! Output and files on a disk that is full, and on one that has failed. The disk is a file system of the test's own,
//! so these tests need root.

use std::path::{Path, PathBuf};
use std::process::Command;

use invoke_dispatcher::signing::sha256;
use invoke_protocol::api::UploadedFiles;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::OutputAck;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::bed::{AWAY, Dispatcher, expect, problem};
use crate::runner::log;

/// A file system of one megabyte, in memory.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        system(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=1m,mode=700", "none"])
                .arg(folder.path()),
        );
        Self(folder)
    }

    fn remount(&self, mode: &str) {
        let option = format!("remount,{mode}");
        system(
            Command::new("mount")
                .args(["-o", &option])
                .arg(self.0.path()),
        );
    }

    fn url(&self) -> String {
        format!("file://{}", self.0.path().join("blobs").display())
    }

    /// Uses up the room; as much of it as there is.
    fn fill(&self) -> PathBuf {
        let file = self.0.path().join("filler");
        let full = std::fs::write(&file, vec![0; 2 * 1024 * 1024]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        file
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(self.0.path());
    }
}

fn unmount(path: &Path) {
    // Lazily: a dispatcher of a test that failed may still have a file open. What fails here stays until the
    // machine is started again, and harms nobody.
    let _unmounted = Command::new("umount").arg("--lazy").arg(path).status();
}

fn system(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(
        done.status.success(),
        "{command:?} failed, and this test needs root: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

async fn stored(response: Response) -> u64 {
    expect::<OutputAck>(response, StatusCode::OK)
        .await
        .log_bytes
}

/// Nothing is acknowledged that found no room, nothing that was is lost, and when there is room it goes on.
#[tokio::test]
async fn output_that_finds_no_room_is_not_acknowledged() {
    let disk = Disk::mount();
    let url = disk.url();
    let arguments = [AWAY.as_slice(), &["--blob-url", &url]].concat();
    let dispatcher = Dispatcher::start_with(&arguments).await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let pod = runner.start(&job).await;
    let whole = log(&[[7_u8; 60_000].as_slice(); 4]);
    let (first, second) = whole.split_at(whole.len() / 2);
    let half = first.len() as u64;
    assert_eq!(stored(runner.upload(&job, pod, 0, first).await).await, half);

    let filler = disk.fill();
    for _ in 0..2 {
        let response = runner.upload(&job, pod, half, second).await;
        assert_eq!(response.headers()["retry-after"], "10");
        problem(response, ProblemCode::StorageFull).await;
    }
    let nothing = runner.upload(&job, pod, half, &[]).await;
    assert_eq!(stored(nothing).await, half, "no more than was stored");
    assert_eq!(dispatcher.job(&job).await.log_bytes, half);

    std::fs::remove_file(filler).unwrap();
    let again = runner.upload(&job, pod, half, second).await;
    assert_eq!(stored(again).await, 2 * half);
    let path = format!("/v1/jobs/{}/output", job.id);
    let read = dispatcher.request(Method::GET, &path).send().await.unwrap();
    assert!(read.bytes().await.unwrap() == whole, "as it was written");
}

/// The same of an archive: its upload goes on where it ended when there was no more room.
#[tokio::test]
async fn an_archive_that_finds_no_room_is_not_acknowledged() {
    let disk = Disk::mount();
    let url = disk.url();
    let arguments = [AWAY.as_slice(), &["--blob-url", &url]].concat();
    let dispatcher = Dispatcher::start_with(&arguments).await;
    let whole = [7_u8; 200_000];
    let name = sha256(&whole)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let put = async |from: usize, end: usize| {
        let path = format!("/v1/files/{name}?from={from}&bytes={}", whole.len());
        let request = dispatcher.request(Method::PUT, &path);
        let request = request.body(whole[from..end].to_vec());
        request.send().await.unwrap()
    };
    let state = async |response| {
        let answer: UploadedFiles = expect(response, StatusCode::OK).await;
        (answer.stored_bytes, answer.complete)
    };
    assert_eq!(state(put(0, 100_000).await).await, (100_000, false));
    let filler = disk.fill();
    let response = put(100_000, 200_000).await;
    assert_eq!(response.headers()["retry-after"], "10");
    problem(response, ProblemCode::StorageFull).await;
    assert_eq!(state(put(0, 0).await).await, (100_000, false));
    std::fs::remove_file(filler).unwrap();
    assert_eq!(state(put(100_000, 200_000).await).await, (200_000, true));
}

/// Once a disk has failed, no later success on it is believed, until a person has seen to it.
#[tokio::test]
async fn a_disk_that_has_failed_is_not_written_to_again() {
    let disk = Disk::mount();
    let url = disk.url();
    let arguments = [AWAY.as_slice(), &["--blob-url", &url]].concat();
    let dispatcher = Dispatcher::start_with(&arguments).await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let pod = runner.start(&job).await;
    let whole = log(&[b"one\n", b"two\n"]);
    let (first, second) = whole.split_at(17);
    assert_eq!(stored(runner.upload(&job, pod, 0, first).await).await, 17);
    let ready = async |dispatcher: &Dispatcher| {
        let asked = dispatcher.anonymous(Method::GET, "/readyz").send().await;
        let response = asked.unwrap();
        let (status, body): (_, Value) = (response.status(), response.json().await.unwrap());
        (status, body["blobs"].as_bool().unwrap())
    };
    assert_eq!(ready(&dispatcher).await, (StatusCode::OK, true));

    // What the kernel does to a file system in which it finds damage.
    disk.remount("ro");
    let refused = runner.upload(&job, pod, 17, second).await;
    problem(refused, ProblemCode::Unavailable).await;
    assert_eq!(
        ready(&dispatcher).await,
        (StatusCode::SERVICE_UNAVAILABLE, false)
    );
    disk.remount("rw");
    let response = runner.upload(&job, pod, 17, second).await;
    assert!(response.headers().contains_key("retry-after"));
    let refused = problem(response, ProblemCode::Unavailable).await;
    assert!(refused.detail.contains("restarted"), "{}", refused.detail);
    assert_eq!(stored(runner.upload(&job, pod, 17, &[]).await).await, 17);
    let path = format!("/v1/jobs/{}/output", job.id);
    let read = dispatcher.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(read.bytes().await.unwrap(), first, "what is there is shown");

    let dispatcher = dispatcher.restart(&arguments).await;
    let runner = runner.at(&dispatcher);
    assert_eq!(ready(&dispatcher).await, (StatusCode::OK, true));
    let again = runner.upload(&job, pod, 17, second).await;
    assert_eq!(stored(again).await, 34);
}
