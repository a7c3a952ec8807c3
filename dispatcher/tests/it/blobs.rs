//! One suite, two stores: what is promised of blobs, is promised in a folder and in a bucket.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use futures::future::join_all;
use invoke_dispatcher::blobs::{Blobs, Environment, Error, job_prefix};
use invoke_dispatcher::problem::chain;
use invoke_protocol::id::JobId;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use url::Url;
use uuid::Uuid;

use crate::bed::{AWAY, eventually, required};

/// What is to be in the environment of who uses the test bed's S3 server.
const SETTINGS: [&str; 5] = [
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_CA_BUNDLE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
];

fn environment() -> Environment {
    let passed_on = |name: &str| (name.to_owned(), required(&format!("INVOKE_TEST_{name}")));
    SETTINGS.map(passed_on).into()
}

/// A part of the test bed's bucket that is one test's own.
fn own_part() -> Url {
    let bucket = required("INVOKE_TEST_S3_URL");
    format!("{bucket}/{}/blobs", Uuid::new_v4())
        .parse()
        .unwrap()
}

/// After a test that failed they stay, to be looked at.
async fn remove_all(blobs: &Blobs) {
    blobs.delete_all("").await.unwrap();
}

fn opened(url: &Url, environment: &Environment) -> Result<Blobs, Error> {
    let _installed_before = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Blobs::at(url, environment)
}

macro_rules! on_both_stores {
    ($($test:ident)*) => {
        mod folder {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                let folder = tempfile::tempdir().unwrap();
                super::$test(super::Blobs::in_folder(folder.path()).unwrap()).await;
            })*
        }
        mod s3 {
            $(#[tokio::test(flavor = "multi_thread")] async fn $test() {
                let blobs = super::opened(&super::own_part(), &super::environment()).unwrap();
                super::$test(blobs.clone()).await;
                super::remove_all(&blobs).await;
            })*
        }
    };
}

on_both_stores! {
    a_blob_that_exists_is_kept_with_its_own_length
    a_large_blob_that_exists_is_kept_too
    a_blob_of_any_size_is_read_back
    a_blob_that_is_missing_is_an_error_that_names_it
    what_is_deleted_is_gone
    what_begins_alike_is_deleted_together
    of_writers_at_once_exactly_one_wins
    a_store_that_works_is_found_to_work
}

fn job() -> JobId {
    Uuid::now_v7().to_string().parse().unwrap()
}

/// Bytes that repeat in no period that a buffer could have.
fn log(length: usize) -> Bytes {
    let mut state = length as u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    noise.take(length).collect()
}

/// The crash between blob and row: the next upload learns how much is there and loses nothing.
async fn a_blob_that_exists_is_kept_with_its_own_length(blobs: Blobs) {
    let job = job();
    let first = blobs.put_output(job, 7, Bytes::from_static(b"first"));
    let (key, length) = first.await.unwrap();
    assert_eq!(
        (key.as_str(), length),
        (
            format!("jobs/{job}/output/00000000000000000007").as_str(),
            5
        )
    );
    for again in ["first and more", "fir", ""] {
        let (same, length) = blobs.put_output(job, 7, again.into()).await.unwrap();
        assert_eq!((&same, length), (&key, 5));
        assert_eq!(blobs.get(&key).await.unwrap(), "first");
    }
}

/// A server that refuses before it has read all of it closes the connection, and its answer may be lost.
async fn a_large_blob_that_exists_is_kept_too(blobs: Blobs) {
    let (job, first, second) = (job(), log(5 << 20), log(8 << 20));
    let (key, _) = blobs.put_output(job, 0, first.clone()).await.unwrap();
    for _ in 0..8 {
        let again = blobs.put_output(job, 0, second.clone()).await;
        let (_, length) = again.unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(length, first.len() as u64);
    }
    assert!(blobs.get(&key).await.unwrap() == first);
}

/// None is longer than an upload may be, 8 MiB.
async fn a_blob_of_any_size_is_read_back(blobs: Blobs) {
    let job = job();
    for (from, length) in [(0, 0), (1, 1), (2, 65_537), (3, 1 << 20), (4, 8 << 20)] {
        let whole = log(length);
        let (key, stored) = blobs.put_output(job, from, whole.clone()).await.unwrap();
        assert_eq!(stored, length as u64);
        let read = blobs.get(&key).await.unwrap();
        assert!(read == whole, "{} of {length} bytes", read.len());
    }
}

async fn a_blob_that_is_missing_is_an_error_that_names_it(blobs: Blobs) {
    let error = blobs.get("jobs/none/output/0").await.unwrap_err();
    let Error::Get(key, object_store::Error::NotFound { .. }) = &error else {
        panic!("{}", chain(&error))
    };
    assert_eq!(key, "jobs/none/output/0");
}

/// Deleted twice is deleted: who crashes after the first time does it again.
async fn what_is_deleted_is_gone(blobs: Blobs) {
    let job = job();
    let (kept, _) = blobs.put_output(job, 0, log(3)).await.unwrap();
    let (key, _) = blobs.put_output(job, 3, log(4)).await.unwrap();
    for _ in 0..2 {
        blobs.delete(&key).await.unwrap();
        assert!(matches!(
            blobs.get(&key).await,
            Err(Error::Get(_, object_store::Error::NotFound { .. }))
        ));
    }
    assert_eq!(blobs.get(&kept).await.unwrap(), log(3));
    let (_, length) = blobs.put_output(job, 3, log(5)).await.unwrap();
    assert_eq!(length, 5, "its key is free again");
}

/// Everything of one job, and nothing of another; and again, as after a round that was cut off.
async fn what_begins_alike_is_deleted_together(blobs: Blobs) {
    let (one, other) = (job(), job());
    let mut keys = Vec::new();
    for (job, from) in [(one, 0), (one, 9), (other, 0)] {
        keys.push(blobs.put_output(job, from, log(1)).await.unwrap().0);
    }
    for _ in 0..2 {
        blobs.delete_all(&job_prefix(one)).await.unwrap();
        assert!(blobs.get(&keys[0]).await.is_err());
        assert!(blobs.get(&keys[1]).await.is_err());
        assert_eq!(blobs.get(&keys[2]).await.unwrap(), log(1));
    }
}

/// Two uploads of one log that race, as when a runner was thought dead: all are told of the one that stands.
async fn of_writers_at_once_exactly_one_wins(blobs: Blobs) {
    let job = job();
    for from in 0..8 {
        let lengths = 1..=16;
        let writers = lengths.map(|length| {
            let blobs = blobs.clone();
            tokio::spawn(async move { blobs.put_output(job, from, log(length * 1000)).await })
        });
        let told = join_all(writers).await;
        let told: Vec<_> = told
            .into_iter()
            .map(|told| told.unwrap().unwrap())
            .collect();
        let (key, length) = &told[0];
        assert!(told.iter().all(|other| other == &told[0]), "{told:?}");
        let stands = blobs.get(key).await.unwrap();
        assert!(stands == log(usize::try_from(*length).unwrap()));
    }
}

async fn a_store_that_works_is_found_to_work(blobs: Blobs) {
    let (key, _) = blobs.put_output(job(), 0, log(3)).await.unwrap();
    let probed = blobs.probe().await;
    probed.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(blobs.get(&key).await.unwrap(), log(3));
}

/// The program, on a bucket of the test bed's server, with one setting changed; and what it says first.
async fn started_with(name: &str, value: &str, bucket: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_invoke-dispatcher"));
    program
        .args(["serve", "--listen", "127.0.0.1:0", "--blob-url", bucket])
        .args(AWAY)
        .arg("--data-dir")
        .arg(folder.path())
        .envs(environment())
        .env(name, value)
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut program = program.spawn().unwrap();
    let mut lines = BufReader::new(program.stderr.take().unwrap()).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said += &line;
        if line.contains("listens on") {
            return (None, said);
        }
    }
    (program.wait().await.unwrap().code(), said)
}

/// Before anybody's output is to be kept.
#[tokio::test]
async fn a_dispatcher_whose_bucket_refuses_it_does_not_start() {
    let bucket = own_part().to_string();
    for (name, value, bucket, word) in [
        (
            "AWS_SECRET_ACCESS_KEY",
            "hunter2",
            &*bucket,
            "SignatureDoesNotMatch",
        ),
        ("AWS_ACCESS_KEY_ID", "nobody", &*bucket, "No user exists"),
        (
            "AWS_REGION",
            "us-east-1",
            "s3://no-such-bucket",
            "NoSuchBucket",
        ),
    ] {
        let (code, said) = started_with(name, value, bucket).await;
        assert_eq!(code, Some(1), "{name}: {said}");
        for words in [word, "check --blob-url", "credentials"] {
            assert!(said.contains(words), "{name}: {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// It has other things to do, and the bucket may be back before there is output.
#[tokio::test]
async fn a_dispatcher_whose_bucket_is_away_starts_and_says_so() {
    let away = "https://127.0.0.1:1";
    let (code, said) = started_with("AWS_ENDPOINT_URL", away, "s3://invoke").await;
    assert_eq!(code, None, "{said}");
    assert!(said.contains("the blob store does not work"), "{said}");
}

/// An operator's typing error is told from an outage, and no secret is in what is said.
#[tokio::test]
async fn a_wrong_key_is_refused_in_words() {
    let cases = [
        // In its own words, and with 404; S3 says InvalidAccessKeyId, and 403.
        ("AWS_ACCESS_KEY_ID", "nobody", "No user exists", 1),
        (
            "AWS_SECRET_ACCESS_KEY",
            "hunter2",
            "SignatureDoesNotMatch",
            1,
        ),
        (
            "AWS_SECRET_ACCESS_KEY",
            "hunter2",
            "SignatureDoesNotMatch",
            8 << 20,
        ),
    ];
    for (name, wrong, word, length) in cases {
        let mut environment = environment();
        environment.insert(name.to_owned(), wrong.to_owned());
        let blobs = opened(&own_part(), &environment).unwrap();
        let put = blobs.put_output(job(), 0, log(length)).await.unwrap_err();
        let get = blobs.get("some/key").await.unwrap_err();
        let probe = blobs.probe().await.unwrap_err();
        assert!(probe.is_refusal(), "{}", chain(&probe));
        for error in [put, get, probe] {
            let said = chain(&error);
            assert_eq!(said.matches(word).count(), 1, "once: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        assert!(blobs.is_sound(), "and right again as soon as the key is");
    }
}

/// A bucket behind an authority of one's own is trusted by its file, and not without it.
#[tokio::test]
async fn a_server_is_trusted_by_its_authority() {
    let mut environment = environment();
    environment.remove("AWS_CA_BUNDLE").unwrap();
    let blobs = opened(&own_part(), &environment).unwrap();
    let error = blobs.put_output(job(), 0, log(1)).await.unwrap_err();
    let said = chain(&error);
    assert!(said.contains("certificate"), "{said}");
}

#[test]
fn a_file_without_an_authority_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (absent, empty) = (folder.path().join("absent"), folder.path().join("empty"));
    std::fs::write(&empty, "").unwrap();
    for file in [absent, empty] {
        let file = file.to_str().unwrap().to_owned();
        let environment = Environment::from([("AWS_CA_BUNDLE".to_owned(), file.clone())]);
        let error = opened(&"s3://bucket".parse().unwrap(), &environment).unwrap_err();
        let said = chain(&error);
        assert!(matches!(error, Error::Ca(..)), "{said}");
        assert!(said.contains(&file), "{said}");
    }
}

/// An environment has more in it than is meant for us.
#[tokio::test]
async fn what_the_environment_says_to_others_is_not_heeded() {
    let mut environment = environment();
    for name in ["ENDPOINT", "BUCKET", "TOKEN", "REGION", "ACCESS_KEY_ID"] {
        environment.insert(name.to_owned(), "http://127.0.0.1:1".to_owned());
        // The library takes what is set last.
        environment.insert(name.to_lowercase(), "http://127.0.0.1:1".to_owned());
    }
    let blobs = opened(&own_part(), &environment).unwrap();
    let (key, _) = blobs.put_output(job(), 0, log(9)).await.unwrap();
    assert_eq!(blobs.get(&key).await.unwrap(), log(9));
    remove_all(&blobs).await;
}

/// An S3 server of one test's own, which may be killed.
struct Server {
    process: Child,
    address: String,
    folder: TempDir,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["buckets/own", "metadata"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let process = Self::run(&address, &folder);
        let server = Self {
            process,
            address,
            folder,
        };
        server.ready().await;
        server
    }

    fn run(address: &str, folder: &TempDir) -> Child {
        let mut command = Command::new(required("INVOKE_TEST_S3_PROGRAM"));
        command
            .envs([
                ("ROOT_ACCESS_KEY", "own"),
                ("ROOT_SECRET_KEY", "own-secret"),
            ])
            .args(["--port", address, "--quiet", "posix"])
            // Some file systems for temporary files have no extended attributes.
            .arg("--sidecar")
            .arg(folder.path().join("metadata"))
            .arg(folder.path().join("buckets"))
            .stdout(Stdio::null());
        command.spawn().unwrap()
    }

    async fn ready(&self) {
        eventually("the S3 server listens", async || {
            TcpStream::connect(&self.address).await.ok()
        })
        .await;
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    async fn start_again(&mut self) {
        self.process = Self::run(&self.address, &self.folder);
        self.ready().await;
    }

    fn blobs(&self) -> Blobs {
        let settings = [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "own".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "own-secret".to_owned()),
        ];
        let environment = settings.map(|(name, value)| (name.to_owned(), value));
        opened(&"s3://own".parse().unwrap(), &environment.into()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _killed_before = self.process.kill();
        let _waited_before = self.process.wait();
    }
}

/// What was stored stays, what is tried meanwhile is refused, and when the server is back it goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_bucket_passes() {
    let mut server = Server::start().await;
    let blobs = server.blobs();
    let job = job();
    let (key, _) = blobs.put_output(job, 0, log(1000)).await.unwrap();

    server.kill();
    let put = blobs.put_output(job, 1000, log(10)).await.unwrap_err();
    assert!(matches!(put, Error::Put(..)), "{}", chain(&put));
    let get = blobs.get(&key).await.unwrap_err();
    assert!(chain(&get).contains(&key), "{}", chain(&get));
    let probe = blobs.probe().await.unwrap_err();
    assert!(!probe.is_refusal(), "{}", chain(&probe));
    assert!(blobs.is_sound());

    server.start_again().await;
    assert_eq!(blobs.get(&key).await.unwrap(), log(1000));
    let (key, length) = blobs.put_output(job, 1000, log(10)).await.unwrap();
    assert_eq!((length, blobs.get(&key).await.unwrap()), (10, log(10)));
}

/// Killed in the middle of uploads: each was stored, or was refused and can be sent again; none is torn.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_cut_is_sent_again() {
    let mut server = Server::start().await;
    let blobs = server.blobs();
    let (job, whole) = (job(), log(8 << 20));
    let uploads = (0..8).map(|from| {
        let (blobs, whole) = (blobs.clone(), whole.clone());
        tokio::spawn(async move { blobs.put_output(job, from, whole).await })
    });
    let uploads: Vec<_> = uploads.collect();
    eventually("the first is stored", async || {
        uploads.iter().any(JoinHandle::is_finished).then_some(())
    })
    .await;
    server.kill();
    let ended = join_all(uploads).await;
    server.start_again().await;
    for (from, ended) in (0..).zip(ended) {
        let (key, length) = match ended.unwrap() {
            Ok(stored) => stored,
            Err(_) => blobs.put_output(job, from, whole.clone()).await.unwrap(),
        };
        assert_eq!(length, whole.len() as u64);
        assert!(blobs.get(&key).await.unwrap() == whole, "{key} is torn");
    }
}
