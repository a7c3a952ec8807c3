//! The way to the cluster over a real RabbitMQ: down and up again, without its queue, and as a runner
//! sees it.

use std::collections::BTreeSet;

use invoke_dispatcher::store::jobs::NewJob;
use invoke_protocol::envelope::Order;
use invoke_protocol::job::{Job, StepName};
use invoke_protocol::runner::AmqpCredential;
use invoke_protocol::state::{ReasonCode, Started, StateName};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ErrorKind};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bed::{Dispatcher, eventually, expect};
use crate::broker_bed::Broker;
use crate::store::new_job;

/// A name that no other test has: the broker's users know no virtual hosts.
fn cluster_name() -> String {
    format!("t{}", uuid::Uuid::new_v4().simple())
}

async fn sent(dispatcher: &Dispatcher, job: &Job) {
    eventually("the job has left the outbox", async || {
        let unsent = dispatcher.running.app().store.unsent().await.unwrap();
        (unsent == 0).then_some(())
    })
    .await;
    let waiting = dispatcher.job(job).await.waiting.unwrap().message;
    assert!(waiting.contains("in the queue of cluster"), "{waiting}");
}

fn job_of(envelope: &invoke_protocol::envelope::Envelope) -> invoke_protocol::id::JobId {
    let Order::V1(order) = Order::from_payload(&envelope.payload).unwrap();
    order.job
}

/// Jobs are taken while the broker is away, and sent when it is back.
#[tokio::test]
async fn what_was_accepted_without_a_broker_is_sent_when_it_is_back() {
    let (broker, name) = (Broker::new().await, cluster_name());
    broker.shut();
    let dispatcher = broker.dispatcher().await;
    dispatcher.cluster(&name).await;
    let job = dispatcher.submit("date").await;
    let waiting = dispatcher.job(&job).await.waiting.unwrap().message;
    assert!(waiting.contains("no connection to RabbitMQ"), "{waiting}");
    broker.open();
    assert_eq!(job_of(&broker.next_message(&name).await), job.id);
    sent(&dispatcher, &job).await;

    broker.shut();
    eventually("the cut is noticed", async || {
        let ready: Value = dispatcher.get("/readyz").await;
        (ready["broker"] == false).then_some(())
    })
    .await;
    let second = dispatcher.submit("date").await;
    broker.open();
    // The first was taken from the queue without a claim, so it may be sent again before the second.
    eventually("the second is sent", async || {
        (job_of(&broker.next_message(&name).await) == second.id).then_some(())
    })
    .await;
    broker.remove(&[]).await;
}

/// The broker confirms what it cannot deliver. Without `mandatory` this job would be marked as sent,
/// and be nowhere.
#[tokio::test]
async fn a_message_without_a_way_is_not_sent_until_it_has_one() {
    let (broker, name) = (Broker::new().await, cluster_name());
    let dispatcher = broker.dispatcher().await;
    dispatcher.cluster(&name).await;
    broker.unbind_queue(&name).await;
    let job = dispatcher.submit("date").await;
    assert_eq!(job_of(&broker.next_message(&name).await), job.id);
    sent(&dispatcher, &job).await;
    broker.remove(&[]).await;
}

#[tokio::test]
async fn a_deleted_queue_is_declared_again() {
    let (broker, name) = (Broker::new().await, cluster_name());
    let dispatcher = broker.dispatcher_with("classic").await;
    dispatcher.cluster(&name).await;
    broker.await_queue(&name).await;
    broker.delete_queue(&name).await;
    let job = dispatcher.submit("date").await;
    assert_eq!(job_of(&broker.next_message(&name).await), job.id);
    sent(&dispatcher, &job).await;
    broker.remove(&[]).await;
}

/// A queue that cannot be declared closes the connection each time. It must not take the orders of
/// every other cluster with it.
#[tokio::test]
async fn one_bad_queue_does_not_stop_the_others() {
    let (broker, good, bad) = (Broker::new().await, cluster_name(), cluster_name());
    broker.declare_other_queue(&bad).await;
    let dispatcher = broker.dispatcher().await;
    dispatcher.cluster(&bad).await;
    dispatcher.cluster(&good).await;
    let submit = async |cluster: &str| {
        let body = json!({ "command": { "shell": "date" }, "cluster": cluster });
        expect::<Job>(
            dispatcher.submit_as(uuid::Uuid::now_v7(), &body).await,
            StatusCode::ACCEPTED,
        )
        .await
    };
    let stuck = submit(&bad).await;
    for _ in 0..3 {
        let job = submit(&good).await;
        assert_eq!(job_of(&broker.next_message(&good).await), job.id);
        // Taken, as a runner does, so that it is not sent again when the connection is made anew.
        dispatcher
            .post(&format!("/v1/jobs/{}/cancel", job.id), &json!({}))
            .await;
    }
    let ready: Value = dispatcher.get("/readyz").await;
    assert_eq!(ready["broker"], true, "the connection holds");
    eventually("the job says what is wrong with its queue", async || {
        let waiting = dispatcher.job(&stuck).await.waiting?.message;
        waiting.contains("PRECONDITION").then_some(())
    })
    .await;
    // Put right, it is used again.
    broker.delete_queue(&bad).await;
    assert_eq!(job_of(&broker.next_message(&bad).await), stuck.id);
    broker.remove(&[]).await;
}

/// Of many messages that are under way at once, the ones without a queue are told from the others:
/// confirms come in any order.
#[tokio::test]
async fn a_returned_message_is_not_taken_for_another() {
    let (broker, good, gone) = (Broker::new().await, cluster_name(), cluster_name());
    let dispatcher = broker.dispatcher().await;
    let (to_good, to_gone) = (
        dispatcher.cluster(&good).await,
        dispatcher.cluster(&gone).await,
    );
    broker.await_queue(&good).await;
    broker.unbind_queue(&gone).await;
    // Put into the store by hand, and told of once: so they are sent as one batch.
    let app = dispatcher.running.app();
    let mut submitted = Vec::new();
    for number in 0..60 {
        let cluster = if number % 2 == 0 {
            to_good.cluster
        } else {
            to_gone.cluster
        };
        let job = NewJob {
            start_deadline: jiff::Timestamp::now() + jiff::SignedDuration::from_mins(15),
            ..new_job(cluster)
        };
        app.store
            .accept(&job, jiff::Timestamp::now())
            .await
            .unwrap();
        submitted.push(job.id);
    }
    app.broker.wake();
    let mut missing: BTreeSet<_> = submitted.into_iter().skip(1).step_by(2).collect();
    // One that was taken for another would come with the next round of the sweeper, a minute later.
    while !missing.is_empty() {
        missing.remove(&job_of(&broker.next_message(&gone).await));
    }
    broker.remove(&[]).await;
}

/// A message that kills every runner that takes it would go round for ever, and its job would wait for
/// nothing until its deadline. The other jobs of the queue go on.
#[tokio::test]
async fn a_message_that_nobody_deals_with_ends_its_job_and_no_other() {
    let (broker, name) = (Broker::new().await, cluster_name());
    let dispatcher = broker.dispatcher().await;
    let runner = dispatcher.cluster(&name).await;
    let poison = dispatcher.submit("date").await;
    runner.claim(&poison).await;
    broker.await_queue(&name).await;
    broker.crash_on(&name, poison.id).await;
    let failed = eventually("the job is over", async || {
        let job = dispatcher.job(&poison).await;
        job.state.is_terminal().then_some(job)
    })
    .await;
    assert_eq!(
        (failed.state, failed.started),
        (StateName::InfraFailed, Started::No)
    );
    let reason = failed.reason.unwrap();
    assert_eq!(reason.code, ReasonCode::PoisonMessage);
    assert!(
        reason.message.contains("delivery_limit"),
        "{}",
        reason.message
    );
    let last = failed.story.last().unwrap();
    assert_eq!(
        (last.step, last.by.as_str()),
        (StepName::Ended, "dispatcher")
    );
    let other = dispatcher.submit("date").await;
    assert_eq!(job_of(&broker.next_message(&name).await), other.id);
    assert_eq!(dispatcher.job(&other).await.state, StateName::Queued);
    assert_eq!(dispatcher.running.app().broker.strange_letters(), 0);
    broker.remove(&[]).await;
}

/// Dead letters are no way in: only our own order, put aside by the broker, ends a job, and only one
/// that has not started.
#[tokio::test]
async fn a_dead_letter_is_believed_as_far_as_it_can_be_true() {
    let (broker, name) = (Broker::new().await, cluster_name());
    let dispatcher = broker.dispatcher().await;
    let runner = dispatcher.cluster(&name).await;
    let (waiting, running) = (
        dispatcher.submit("date").await,
        dispatcher.submit("date").await,
    );
    let mut orders = Vec::new();
    for _ in 0..2 {
        orders.push(broker.next_message(&name).await);
    }
    orders.sort_by_key(|order| job_of(order) == running.id);
    runner.start(&running).await;
    let app = dispatcher.running.app();
    let strange = async |count| {
        eventually("it is counted", async || {
            (app.broker.strange_letters() == count).then_some(())
        })
        .await;
    };
    broker.forge_dead_letter(b"garbage", died("rejected")).await;
    strange(1).await;
    let order = |index: usize| serde_json::to_vec(&orders[index]).unwrap();
    let mut forged = orders[0].clone();
    forged.signature[0] ^= 1;
    let forged = serde_json::to_vec(&forged).unwrap();
    broker.forge_dead_letter(&forged, died("rejected")).await;
    strange(2).await;
    broker
        .forge_dead_letter(&order(0), FieldTable::default())
        .await;
    strange(3).await;
    broker.forge_dead_letter(&order(0), died("maxlen")).await;
    strange(4).await;
    assert_eq!(dispatcher.job(&waiting).await.state, StateName::Queued);

    broker.forge_dead_letter(&order(1), died("rejected")).await;
    broker.forge_dead_letter(&order(0), died("rejected")).await;
    eventually("the one that waits is over", async || {
        let state = dispatcher.job(&waiting).await.state;
        (state == StateName::InfraFailed).then_some(())
    })
    .await;
    assert_eq!(dispatcher.job(&running).await.state, StateName::Running);
    eventually("none is left", async || {
        (broker.dead_letters().await == 0).then_some(())
    })
    .await;
    assert_eq!(app.broker.strange_letters(), 4);
    broker.remove(&[]).await;
}

/// What the broker writes on what it puts aside.
fn died(reason: &str) -> FieldTable {
    let mut death = FieldTable::default();
    death.insert("reason".into(), AMQPValue::LongString(reason.into()));
    let mut headers = FieldTable::default();
    let deaths = vec![AMQPValue::FieldTable(death)];
    headers.insert("x-death".into(), AMQPValue::FieldArray(deaths.into()));
    headers
}

/// What an operator finds: durable, replicated, with a place for dead letters and a limit.
#[tokio::test]
async fn queues_are_declared_as_documented() {
    let (broker, name) = (Broker::new().await, cluster_name());
    let dispatcher = broker.dispatcher().await;
    dispatcher.invite(&name).await;
    broker.await_queue(&name).await;
    let vhost = broker.vhost().to_owned();
    let queue = format!("cmd.{name}");
    let (_, queue) = broker
        .manage(Method::GET, &["queues", &vhost, &queue], &Value::Null)
        .await;
    assert_eq!(
        (&queue["durable"], &queue["type"]),
        (&true.into(), &"quorum".into())
    );
    assert_eq!(
        queue["arguments"]["x-dead-letter-exchange"],
        "invoke.dead-letter"
    );
    assert_eq!(queue["arguments"]["x-delivery-limit"], 20);
    let policy = eventually("the limits are set", async || {
        let path = ["policies", &vhost, "invoke-commands"];
        let (status, policy) = broker.manage(Method::GET, &path, &Value::Null).await;
        (status == StatusCode::OK).then_some(policy)
    })
    .await;
    assert_eq!(
        (&policy["pattern"], &policy["definition"]["delivery-limit"]),
        (&r"^cmd\.".into(), &20.into())
    );
    broker.remove(&[]).await;
}

/// A stolen runner's credential reads one queue, and that is all.
#[tokio::test]
async fn a_runners_user_reads_its_own_queue_and_nothing_else() {
    let (broker, mine, other) = (Broker::new().await, cluster_name(), cluster_name());
    let dispatcher = broker.dispatcher().await;
    let runner = dispatcher.cluster(&mine).await;
    dispatcher.invite(&other).await;
    broker.await_queue(&mine).await;
    broker.await_queue(&other).await;
    let ask = async || {
        let response = runner
            .request(Method::POST, "/v1/runner/amqp-credential")
            .send()
            .await
            .unwrap();
        expect::<AmqpCredential>(response, StatusCode::OK).await
    };
    let credential = ask().await;
    assert_eq!(
        ask().await.password,
        credential.password,
        "asked again, it is the same"
    );
    assert!(!credential.url.contains('@'), "{}", credential.url);
    let user = Some((credential.username.as_str(), credential.password.as_str()));

    let refusal = async |attempt: Attempt| {
        let (_connection, channel) = broker.connect(user).await.unwrap();
        attempt.on(&channel, &mine, &other).await
    };
    assert_eq!(refusal(Attempt::ReadOwn).await, None);
    for attempt in [
        Attempt::ReadOther,
        Attempt::Declare,
        Attempt::Publish,
        Attempt::PublishDefault,
    ] {
        let refused = refusal(attempt).await;
        assert!(
            refused
                .as_deref()
                .is_some_and(|text| text.contains("ACCESS_REFUSED")),
            "{attempt:?}: {refused:?}"
        );
    }
    let wrong = Some((credential.username.as_str(), "guess"));
    assert!(broker.connect(wrong).await.is_err());
    broker.remove(&[&credential.username]).await;
}

#[derive(Debug, Clone, Copy)]
enum Attempt {
    ReadOwn,
    ReadOther,
    Declare,
    Publish,
    PublishDefault,
}

impl Attempt {
    /// What the broker says against it, if it does.
    async fn on(self, channel: &lapin::Channel, mine: &str, other: &str) -> Option<String> {
        let read = async |cluster: &str| {
            let queue = format!("cmd.{cluster}");
            let consume = BasicConsumeOptions::default();
            channel
                .basic_consume(
                    queue.as_str().into(),
                    "".into(),
                    consume,
                    FieldTable::default(),
                )
                .await
                .map(drop)
        };
        let publish = async |exchange: &str| {
            channel
                .confirm_select(lapin::options::ConfirmSelectOptions::default())
                .await?;
            let key = format!("cmd.{mine}").as_str().into();
            let options = BasicPublishOptions::default();
            let confirm = channel
                .basic_publish(
                    exchange.into(),
                    key,
                    options,
                    b"{}",
                    BasicProperties::default(),
                )
                .await?;
            confirm.await.map(drop)
        };
        let result = match self {
            Self::ReadOwn => read(mine).await,
            Self::ReadOther => read(other).await,
            Self::Declare => {
                let (options, arguments) = (QueueDeclareOptions::default(), FieldTable::default());
                channel
                    .queue_declare("cmd.mine".into(), options, arguments)
                    .await
                    .map(drop)
            }
            Self::Publish => publish("invoke.commands").await,
            Self::PublishDefault => publish("").await,
        };
        result.err().map(|error| match error.kind() {
            ErrorKind::ProtocolError(refused) => refused.get_message().to_string(),
            _ => error.to_string(),
        })
    }
}
