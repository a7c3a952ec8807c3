//! Output: resumed, repeated, overlapping, with a gap; read whole, and followed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use invoke_protocol::api::JobEvent;
use invoke_protocol::job::Job;
use invoke_protocol::output::Stream;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::OutputAck;
use invoke_protocol::state::StateName;
use reqwest::{Method, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::bed::{AWAY, Dispatcher, eventually, expect, problem};
use crate::runner::{exit, log};

async fn acked(response: Response) -> u64 {
    expect::<OutputAck>(response, StatusCode::OK)
        .await
        .log_bytes
}

async fn read(dispatcher: &Dispatcher, job: &Job, from: u64) -> (Vec<u8>, u64) {
    let path = format!("/v1/jobs/{}/output?from={from}", job.id);
    let response = dispatcher.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let end = response.headers()["invoke-output-end"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    (response.bytes().await.unwrap().to_vec(), end)
}

#[tokio::test]
async fn an_upload_is_resumed_where_it_ended() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let pod = runner.start(&job).await;
    let whole = log(&[b"one\n", b"two\n", b"three\n"]);
    // A header and four letters each.
    let (first, second) = (17, 34);
    assert_eq!(
        acked(runner.upload(&job, pod, 0, &whole[..first]).await).await,
        17
    );
    assert_eq!(
        acked(runner.upload(&job, pod, 0, &whole[..first]).await).await,
        17,
        "repeated"
    );
    problem(
        runner.upload(&job, pod, 34, &whole[second..]).await,
        ProblemCode::OutputGap,
    )
    .await;
    assert_eq!(
        acked(runner.upload(&job, pod, 0, &whole[..second]).await).await,
        34,
        "overlapping"
    );
    assert_eq!(
        acked(runner.upload(&job, pod, 17, &whole[first..]).await).await,
        53
    );
    assert_eq!(
        acked(runner.upload(&job, pod, 0, &[]).await).await,
        53,
        "how far is it?"
    );
    assert_eq!(read(&dispatcher, &job, 0).await, (whole.clone(), 53));
    assert_eq!(
        read(&dispatcher, &job, 17).await,
        (whole[first..].to_vec(), 53)
    );
    assert_eq!(read(&dispatcher, &job, 53).await, (vec![], 53));
}

#[tokio::test]
async fn what_is_no_log_is_refused() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let pod = runner.start(&job).await;
    let whole = log(&[b"one\n"]);
    for torn in [&whole[..5], &whole[1..], b"hello"] {
        problem(
            runner.upload(&job, pod, 0, torn).await,
            ProblemCode::InvalidOutput,
        )
        .await;
    }
    assert_eq!(acked(runner.upload(&job, pod, 0, &whole).await).await, 17);
    for position in [1, 18, u64::MAX] {
        let path = format!("/v1/jobs/{}/output?from={position}", job.id);
        problem(
            dispatcher.request(Method::GET, &path).send().await.unwrap(),
            ProblemCode::InvalidRequest,
        )
        .await;
        let path = format!("/v1/jobs/{}/events?from={position}", job.id);
        problem(
            dispatcher.request(Method::GET, &path).send().await.unwrap(),
            ProblemCode::InvalidRequest,
        )
        .await;
    }
}

/// The crash between blob and row: the next upload finds the blob, and loses and doubles nothing.
#[tokio::test]
async fn a_blob_without_its_row_is_taken_up() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let pod = runner.start(&job).await;
    let whole = log(&[b"one\n", b"two\n"]);
    let blobs = &dispatcher.running.app().blobs;
    blobs
        .put_output(job.id, 0, whole[..17].to_vec().into())
        .await
        .unwrap();
    assert_eq!(acked(runner.upload(&job, pod, 0, &whole).await).await, 34);
    assert_eq!(read(&dispatcher, &job, 0).await, (whole, 34));
}

/// More than one answer holds, byte for byte, by asking on.
#[tokio::test]
async fn a_long_log_is_read_in_pieces() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let pod = runner.start(&job).await;
    let (mut whole, payload) = (Vec::new(), vec![7_u8; 65_536]);
    for _ in 0..12 {
        let piece = log(&[payload.as_slice(); 15]);
        acked(runner.upload(&job, pod, whole.len() as u64, &piece).await).await;
        whole.extend(piece);
    }
    let (mut found, mut answers) = (Vec::new(), 0);
    loop {
        let (piece, end) = read(&dispatcher, &job, found.len() as u64).await;
        if piece.is_empty() {
            break;
        }
        found.extend(piece);
        answers += 1;
        assert_eq!(end, found.len() as u64);
    }
    assert!(
        found == whole && answers == 2,
        "{} bytes in {answers} answers",
        found.len()
    );
}

/// Who reads while a command prints gets as much as was claimed: an answer that ends before looks like a cut.
/// On PostgreSQL, where each query sees its own moment.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_as_long_as_it_claims_while_output_grows() {
    let database = crate::store::Database::postgres().await;
    let arguments = [&AWAY[..], &["--database-url", &database.url]].concat();
    let mut dispatcher = Dispatcher::start_with(&arguments).await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let pod = runner.start(&job).await;
    let piece = log(&[[7_u8; 1000].as_slice(); 4]);
    let grow = async {
        for number in 0..150 {
            acked(
                runner
                    .upload(&job, pod, (number * piece.len()) as u64, &piece)
                    .await,
            )
            .await;
        }
    };
    let follow = async {
        let mut position = 0;
        while position < (150 * piece.len()) as u64 {
            let (read, end) = read(&dispatcher, &job, position).await;
            assert_eq!(position + read.len() as u64, end);
            position = end;
        }
    };
    tokio::join!(grow, follow);
    dispatcher.running.stop().await.unwrap();
    database.remove().await;
}

/// One event: its name, its id, its content.
#[derive(Debug)]
struct Seen {
    name: String,
    id: u64,
    content: JobEvent,
}

/// The events of a stream until `enough`, or its end.
async fn events(response: Response, enough: impl Fn(&Seen) -> bool) -> Vec<Seen> {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let reading = async {
        let (mut chunks, mut text, mut seen) = (response.bytes_stream(), String::new(), Vec::new());
        while let Some(chunk) = chunks.next().await {
            text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
            while let Some((event, rest)) = text.split_once("\n\n") {
                let (event, rest) = (parse(event), rest.to_owned());
                text = rest;
                seen.extend(event);
                if seen.last().is_some_and(&enough) {
                    return seen;
                }
            }
        }
        seen
    };
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("the stream does not come to its end")
}

fn parse(event: &str) -> Option<Seen> {
    let field = |name: &str| {
        event
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let content = serde_json::from_str(field("data:")?).unwrap();
    Some(Seen {
        name: field("event:")?.to_owned(),
        id: field("id:")?.parse().unwrap(),
        content,
    })
}

fn printed(seen: &[Seen]) -> String {
    let data = seen.iter().filter_map(|event| match &event.content {
        JobEvent::Output {
            stream: Stream::Stdout,
            data,
            ..
        } => Some(data.clone()),
        _ => None,
    });
    String::from_utf8(data.flatten().collect()).unwrap()
}

#[tokio::test]
async fn a_job_is_followed_to_its_end_and_a_cut_stream_taken_up() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let path = format!("/v1/jobs/{}/events", job.id);
    let follow = async || dispatcher.request(Method::GET, &path).send().await.unwrap();
    let stream = follow().await;
    let pod = runner.start(&job).await;
    acked(runner.upload(&job, pod, 0, &log(&[b"one\n"])).await).await;
    // A first reader is cut off after what it has seen so far.
    let seen = events(stream, |event| event.name == "output").await;
    assert_eq!(seen[0].name, "job", "{seen:?}");
    assert_eq!(
        (printed(&seen).as_str(), seen.last().unwrap().id),
        ("one\n", 17)
    );

    let rest = log(&[b"t", b"w", b"o\n"]);
    acked(runner.upload(&job, pod, 17, &rest).await).await;
    let resumed = dispatcher
        .request(Method::GET, &path)
        .header("last-event-id", "17")
        .send()
        .await
        .unwrap();
    let end = exit(0, 17 + rest.len() as u64);
    let (seen, _) = tokio::join!(events(resumed, |_| false), runner.complete(&job, pod, &end));
    assert_eq!(printed(&seen), "two\n");
    assert_eq!(
        seen.iter().filter(|event| event.name == "output").count(),
        1,
        "neighbours are put together"
    );
    let last = seen.last().unwrap();
    let JobEvent::End { job: ended } = &last.content else {
        panic!("{last:?}")
    };
    assert_eq!((ended.state, last.id), (StateName::Succeeded, 60));

    // Who comes when all is over is told all of it, once.
    let seen = events(follow().await, |_| false).await;
    let names: Vec<_> = seen.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(
        (names, printed(&seen).as_str()),
        (vec!["job", "output", "output", "end"], "one\ntwo\n")
    );
    let nonsense = dispatcher
        .request(Method::GET, &path)
        .header("last-event-id", "nine")
        .send()
        .await
        .unwrap();
    problem(nonsense, ProblemCode::InvalidRequest).await;
}

/// Who asks for it is told where much output is, and sent little: every byte is in one of the two, once.
#[tokio::test]
async fn much_output_is_announced_to_who_asks_for_it() {
    let dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let pod = runner.start(&job).await;
    let piece = [b'x'; 60_000];
    let much = log(&[&piece, &piece, &piece, &piece, &piece]);
    let end = much.len() as u64;
    assert_eq!(acked(runner.upload(&job, pod, 0, &much).await).await, end);
    let path = format!("/v1/jobs/{}/events", job.id);
    let follow = async |query: &str| {
        let path = format!("{path}{query}");
        dispatcher.request(Method::GET, &path).send().await.unwrap()
    };
    let announced = follow("?announce=true").await;
    let seen = events(announced, |event| event.name == "stored").await;
    let last = seen.last().unwrap();
    assert_eq!(last.content, JobEvent::Stored { log_bytes: end });
    assert_eq!((seen.len(), last.id), (2, 0), "{seen:?}");
    assert_eq!(read(&dispatcher, &job, 0).await, (much, end));

    let little = log(&[b"little"]);
    let log_bytes = end + little.len() as u64;
    acked(runner.upload(&job, pod, end, &little).await).await;
    runner.complete(&job, pod, &exit(0, log_bytes)).await;
    let resumed = follow(&format!("?announce=true&from={end}")).await;
    let seen = events(resumed, |_| false).await;
    assert_eq!(printed(&seen), "little");
    let silent = events(follow("").await, |_| false).await;
    assert!(silent.iter().all(|event| event.name != "stored"));
    assert_eq!(printed(&silent).len(), 300_006);
}

/// A dispatcher that stops lets its readers go at once, and does not tell them that the job ended.
#[tokio::test]
async fn a_stop_ends_the_streams() {
    let mut dispatcher = Dispatcher::start().await;
    dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let path = format!("/v1/jobs/{}/events", job.id);
    let stream = dispatcher.request(Method::GET, &path).send().await.unwrap();
    let began = std::time::Instant::now();
    let (seen, stopped) = tokio::join!(events(stream, |_| false), dispatcher.running.stop());
    stopped.unwrap();
    assert!(seen.iter().all(|event| event.name == "job"), "{seen:?}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

/// Who is in the middle of an upload may finish it; who comes after the stop finds nobody, and no answer
/// that could be taken for a failure of their request.
#[tokio::test]
async fn a_stop_lets_an_upload_finish_and_takes_no_new_one() {
    let mut dispatcher = Dispatcher::start().await;
    let runner = dispatcher.cluster("edge-7").await;
    let job = dispatcher.submit("x").await;
    let pod = runner.start(&job).await;
    let whole = log(&[b"one\n", b"two\n"]);
    let address = dispatcher.running.address;
    let mut connection = connect(address, &dispatcher.ca_pem).await;
    let head = format!(
        "PUT {}?pod={pod}&from=0 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        invoke_protocol::runner::path(invoke_protocol::runner::OUTPUT, job.id),
        runner.token(),
        whole.len(),
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    // The answer to this header means that the door waits for the body.
    let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    connection.read_exact(&mut go_on).await.unwrap();
    let upload = async {
        eventually("nobody listens", async || {
            let refused = TcpStream::connect(address).await.err()?;
            (refused.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
        })
        .await;
        connection.write_all(&whole).await.unwrap();
        let mut answer = String::new();
        let _whether_tls_was_closed_too = connection.read_to_string(&mut answer).await;
        answer
    };
    let (stopped, answer) = tokio::join!(dispatcher.running.stop(), upload);
    stopped.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains(r#"{"log_bytes":34}"#), "{answer}");
}

/// A connection on which a test writes its own HTTP/1.1.
async fn connect(address: SocketAddr, ca_pem: &str) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}
