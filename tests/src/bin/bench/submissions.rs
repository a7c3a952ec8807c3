//! How fast jobs are accepted, durably: at a steady pace, and as fast as it goes.

use std::sync::Arc;
use std::time::Duration;

use invoke_tests::bed::Bed;
use reqwest::{Certificate, Client, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use uuid::Uuid;

use crate::dispatcher::{Dispatcher, Engine};
use crate::peers;
use crate::table::{Bound, Figure, percentile};

/// How many connections submit as fast as they can.
pub(crate) const CONNECTIONS: usize = 48;

/// Submissions a second at the steady pace: a busy day, far below what is possible.
const STEADY: u32 = 100;

/// For how long each measurement lasts.
const LASTS: Duration = Duration::from_secs(10);

/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

const CLUSTER: &str = "bench";

/// Measures one engine.
///
/// # Panics
/// If the dispatcher does not start.
pub(crate) fn measure(bed: &Bed, engine: Engine) -> Vec<Figure> {
    let (beside, throughput) = {
        let dispatcher = Dispatcher::start(bed, engine);
        let beside = match engine {
            Engine::Postgres => format!(
                "PostgreSQL alone, one-row inserts on {CONNECTIONS} connections: {}",
                peers::postgres_inserts(CONNECTIONS)
            ),
            Engine::Sqlite => format!("4 KiB appended and synced: {}", peers::synced_appends()),
        };
        (beside, load(&dispatcher))
    };
    let Load {
        mut steady,
        flat_out,
        seconds,
    } = throughput;
    let (rate, percentiles) = match engine {
        Engine::Postgres => ("accepted on PostgreSQL", "202 on PostgreSQL, p99 at 100/s"),
        Engine::Sqlite => ("accepted on SQLite", "202 on SQLite, p99 at 100/s"),
    };
    let must = match engine {
        Engine::Postgres => 1000.0,
        Engine::Sqlite => 300.0,
    };
    let mut taken = flat_out.taken;
    #[expect(clippy::cast_precision_loss, reason = "a rate of some thousands")]
    let per_second = taken.len() as f64 / seconds;
    let told = format!(
        "p50 {:.1?}, {} refused",
        percentile(&mut steady.taken, 50),
        steady.refused
    );
    let flat = format!(
        "{beside}; p99 {:.0?}, {} refused",
        percentile(&mut taken, 99),
        flat_out.refused
    );
    vec![
        Figure::time(
            percentiles,
            Bound::Under(50.0),
            percentile(&mut steady.taken, 99),
            told,
        ),
        Figure::count(rate, Bound::AtLeast(must), per_second, "jobs/s", flat),
    ]
}

/// What came of the submissions.
#[derive(Default)]
struct Answers {
    /// How long each took that was accepted.
    taken: Vec<Duration>,
    /// How many were not: the protection against overload, mostly.
    refused: usize,
}

struct Load {
    steady: Answers,
    flat_out: Answers,
    seconds: f64,
}

#[tokio::main]
async fn load(dispatcher: &Dispatcher) -> Load {
    let submitters: Vec<_> = (0..CONNECTIONS)
        .map(|_| Arc::new(Submitter::new(dispatcher)))
        .collect();
    submitters[0].add_cluster().await;
    flat_out(&submitters, WARM_UP).await;
    let steady = steady(&submitters).await;
    let begin = Instant::now();
    let flat_out = flat_out(&submitters, LASTS).await;
    Load {
        steady,
        flat_out,
        seconds: begin.elapsed().as_secs_f64(),
    }
}

/// Open loop: a submission is sent when it is due, however the earlier ones fare, and its time counts
/// from when it was due.
async fn steady(submitters: &[Arc<Submitter>]) -> Answers {
    let mut ticks = interval(Duration::from_secs(1) / STEADY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let total = STEADY * u32::try_from(LASTS.as_secs()).unwrap_or(1);
    let mut under_way = JoinSet::new();
    for submitter in submitters.iter().cycle().take(total as usize) {
        let due = ticks.tick().await;
        let submitter = Arc::clone(submitter);
        under_way.spawn(async move { submitter.submit().await.then(|| due.elapsed()) });
    }
    count(under_way.join_all().await)
}

/// Closed loop: each connection sends its next submission when it has the answer to the last.
async fn flat_out(submitters: &[Arc<Submitter>], lasts: Duration) -> Answers {
    let end = Instant::now() + lasts;
    let mut under_way = JoinSet::new();
    for submitter in submitters {
        let submitter = Arc::clone(submitter);
        under_way.spawn(async move {
            let mut answers = Vec::new();
            while Instant::now() < end {
                let begin = Instant::now();
                let taken = submitter.submit().await;
                answers.push(taken.then(|| begin.elapsed()));
            }
            sleep_until(end).await;
            answers
        });
    }
    count(under_way.join_all().await.into_iter().flatten())
}

fn count(answers: impl IntoIterator<Item = Option<Duration>>) -> Answers {
    let mut counted = Answers::default();
    for answer in answers {
        match answer {
            Some(taken) => counted.taken.push(taken),
            None => counted.refused += 1,
        }
    }
    counted
}

/// One connection.
struct Submitter {
    http: Client,
    url: String,
    token: String,
}

impl Submitter {
    fn new(dispatcher: &Dispatcher) -> Self {
        let ca = std::fs::read(dispatcher.ca()).expect("the dispatcher has an authority");
        let ca = Certificate::from_pem_bundle(&ca).expect("it is a certificate");
        let http = Client::builder().no_proxy().tls_certs_only(ca).build();
        Self {
            http: http.expect("the settings are right"),
            url: dispatcher.url.clone(),
            token: dispatcher.token(),
        }
    }

    async fn add_cluster(&self) {
        let answer = self.post("/v1/clusters").json(&json!({"name": CLUSTER}));
        let answer = answer.send().await.expect("the dispatcher is ready");
        assert_eq!(answer.status(), StatusCode::CREATED);
    }

    /// Whether the job was accepted.
    async fn submit(&self) -> bool {
        let request = self
            .post("/v1/jobs")
            .header("idempotency-key", Uuid::new_v4().to_string())
            .json(&json!({"cluster": CLUSTER, "command": {"shell": "true"}}));
        match request.send().await {
            // To the end of the body: that is when the submitter has its answer.
            Ok(answer) if answer.status() == StatusCode::ACCEPTED => answer.bytes().await.is_ok(),
            _ => false,
        }
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.url);
        self.http.post(url).bearer_auth(&self.token)
    }
}
