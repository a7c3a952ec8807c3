//! Whose clock decides. In a process of its own: there is one clock to a process, and this one is wrong
//! by hours.

use invoke_dispatcher::clock;
use invoke_protocol::job::Job;
use invoke_protocol::state::StateName;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::bed::{Dispatcher, expect};
use crate::store::Database;

/// By how much the database's clock is behind this machine's.
const BEHIND: SignedDuration = SignedDuration::from_hours(3);

/// Where the inner test finds its database.
const DATABASE_URL: &str = "INVOKE_TEST_SHIFTED_DATABASE_URL";

/// Deadlines and permits are decided by the database's clock, whatever this machine's says.
#[tokio::test]
async fn a_dispatcher_whose_clock_is_wrong_by_hours_grants_and_expires_the_same() {
    let database = Database::postgres().await;
    let shifted = shift(&database.url).await;
    let inner = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["clock::on_a_shifted_database", "--exact", "--ignored"])
        .env(DATABASE_URL, shifted)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&inner.stdout);
    assert!(
        inner.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&inner.stderr)
    );
    database.remove().await;
}

/// A URL under which the database says that it is three hours ago.
async fn shift(url: &str) -> String {
    let pool = sqlx::PgPool::connect(url).await.unwrap();
    for statement in [
        "CREATE SCHEMA shifted",
        "CREATE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql \
         AS 'SELECT pg_catalog.clock_timestamp() - interval ''3 hours'''",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    pool.close().await;
    format!("{url}?options=-c%20search_path%3Dshifted,pg_catalog")
}

#[tokio::test]
#[ignore = "run by the test above, in a process of its own"]
async fn on_a_shifted_database() {
    let url = crate::bed::required(DATABASE_URL);
    let dispatcher = Dispatcher::start_with(&[
        "--amqp-url",
        "amqp://127.0.0.1:1/%2f",
        "--amqp-management-url",
        "http://127.0.0.1:1",
        "--database-url",
        &url,
    ])
    .await;
    assert_is_shifted(clock::now());
    let runner = dispatcher.cluster("edge-7").await;
    let submit = async |start_within: u64| {
        let body = json!({ "command": { "shell": "date" }, "start_within_seconds": start_within });
        let response = dispatcher.submit_as(uuid::Uuid::now_v7(), &body).await;
        expect::<Job>(response, StatusCode::ACCEPTED).await
    };
    let (granted, late) = (submit(60).await, submit(1).await);
    assert_is_shifted(granted.times.submitted);
    runner.start(&granted).await;
    let path = format!("/v1/jobs/{}?wait_seconds=20", late.id);
    let expired: Job = dispatcher.get(&path).await;
    assert_eq!(expired.state, StateName::Expired);
    let after = expired
        .times
        .ended
        .unwrap()
        .duration_since(late.times.start_deadline);
    assert!(!after.is_negative() && after.as_secs() < 5, "{after:#}");
    assert_eq!(dispatcher.job(&granted).await.state, StateName::Running);

    // Runners sign by the time that answers bear.
    let answer = dispatcher.anonymous(Method::GET, "/healthz");
    let answer = answer.send().await.unwrap();
    let date = answer.headers()["date"].to_str().unwrap();
    assert_is_shifted(DateTimeParser::new().parse_timestamp(date).unwrap());
}

#[track_caller]
fn assert_is_shifted(time: Timestamp) {
    let behind = Timestamp::now().duration_since(time);
    assert!(
        (behind - BEHIND).abs() < SignedDuration::from_secs(20),
        "{behind:#}"
    );
}
