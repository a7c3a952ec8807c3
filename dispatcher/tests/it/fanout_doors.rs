//! What people are told at the doors to fan-outs and labels, and what a cluster's job has of its fan-out.

use aws_lc_rs::digest::{SHA256, digest};
use insta::assert_snapshot;
use invoke_dispatcher::clock;
use invoke_dispatcher::store::{audit, fanouts, uploads};
use invoke_protocol::api::ClusterList;
use invoke_protocol::digest::Sha256;
use invoke_protocol::environment::SaltedSecrets;
use invoke_protocol::fanout::{
    Child, ChildStateName, FanOut, FanOutList, FanOutPlan, FanOutStateName, StopCode,
};
use invoke_protocol::files::Files;
use invoke_protocol::id::JobId;
use invoke_protocol::job::Job;
use invoke_protocol::labels::Labels;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::runner::Permit;
use invoke_protocol::state::StateName;
use jiff::SignedDuration;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bed::{Dispatcher, eventually, expect, problem};
use crate::runner::{Runner, exit, pod, words};

const SECRET: &str = "canary-7c1e09aa";

fn spec(change: &Value) -> Value {
    let mut spec = json!({ "job": { "command": { "shell": "date" } }, "selector": "env=prod" });
    spec.as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    spec
}

/// A fan-out of one who has read what a job is.
struct Person<'a> {
    dispatcher: &'a Dispatcher,
    token: String,
}

impl Person<'_> {
    async fn submit_as(&self, key: Uuid, spec: &Value) -> Response {
        let request = self.dispatcher.anonymous(Method::POST, "/v1/fanouts");
        let request = request.header("idempotency-key", key.to_string());
        request
            .bearer_auth(&self.token)
            .json(spec)
            .send()
            .await
            .unwrap()
    }

    async fn submit(&self, spec: &Value) -> FanOut {
        expect(
            self.submit_as(Uuid::now_v7(), spec).await,
            StatusCode::ACCEPTED,
        )
        .await
    }

    /// In which words it is refused, at both doors.
    async fn refused(&self, spec: &Value) -> String {
        let response = self.submit_as(Uuid::now_v7(), spec).await;
        let status = response.status();
        let refused: Problem = expect(response, status).await;
        format!("{}: {}", refused.code.as_str(), refused.detail)
    }
}

fn local(dispatcher: &Dispatcher) -> Person<'_> {
    Person {
        dispatcher,
        token: dispatcher.token().to_owned(),
    }
}

/// A cluster that has joined and has spoken, with labels.
async fn cluster(dispatcher: &Dispatcher, name: &str, labels: Value) -> Runner {
    let body = json!({ "name": name, "labels": labels });
    let response = dispatcher.post("/v1/clusters", &body).await;
    let invitation = expect(response, StatusCode::CREATED).await;
    let runner = Runner::enrol(dispatcher, &invitation).await;
    runner.contact().await;
    runner
}

async fn shown(dispatcher: &Dispatcher, fanout: &FanOut) -> FanOut {
    dispatcher.get(&format!("/v1/fanouts/{}", fanout.id)).await
}

/// The fan-out, once it is so.
async fn once(dispatcher: &Dispatcher, fanout: &FanOut, is_so: impl Fn(&FanOut) -> bool) -> FanOut {
    eventually("the fan-out gets on", async || {
        Some(shown(dispatcher, fanout).await).filter(|fanout| is_so(fanout))
    })
    .await
}

fn child<'a>(fanout: &'a FanOut, name: &str) -> &'a Child {
    let mut children = fanout.clusters.iter();
    children
        .find(|child| child.cluster.as_str() == name)
        .unwrap()
}

/// The job of a cluster, once there is one.
async fn job_on(dispatcher: &Dispatcher, fanout: &FanOut, name: &str) -> Job {
    let is_running = |fanout: &FanOut| child(fanout, name).job.is_some();
    let fanout = once(dispatcher, fanout, is_running).await;
    let id: JobId = child(&fanout, name).job.unwrap();
    dispatcher.get(&format!("/v1/jobs/{id}")).await
}

async fn audited(dispatcher: &Dispatcher, object: &str) -> Vec<(String, String, String)> {
    let mut session = dispatcher.running.app().store.read().await.unwrap();
    audit::of_object(&mut session, object).await.unwrap()
}

/// RFC 7396: what has a value is set, what is null is removed, what is not there stays.
#[tokio::test]
async fn labels_are_set_and_removed() {
    let dispatcher = Dispatcher::start().await;
    let labels = json!({ "env": "prod", "tier": "edge" });
    cluster(&dispatcher, "edge-1", labels.clone()).await;
    let patch = async |name: &str, body: &Value| {
        let path = format!("/v1/clusters/{name}/labels");
        dispatcher
            .request(Method::PATCH, &path)
            .json(body)
            .send()
            .await
            .unwrap()
    };
    let change = json!({ "tier": null, "example.com/owner": "ada", "gone": null });
    let patched: Labels = expect(patch("edge-1", &change).await, StatusCode::OK).await;
    assert_eq!(patched.to_string(), "env=prod,example.com/owner=ada");
    let same: Labels = expect(patch("edge-1", &json!({})).await, StatusCode::OK).await;
    let list: ClusterList = dispatcher.get("/v1/clusters").await;
    assert_eq!((&same, &list.clusters[0].labels), (&patched, &patched));
    let lines = audited(&dispatcher, "cluster edge-1").await;
    let labelled: Vec<_> = lines
        .iter()
        .filter(|(_, action, _)| action == "cluster.label")
        .collect();
    assert_eq!(
        labelled.len(),
        1,
        "what changes nothing is no act: {lines:?}"
    );
    assert_eq!(labelled[0].2, "env=prod,example.com/owner=ada");

    problem(patch("edge-2", &labels).await, ProblemCode::UnknownCluster).await;
    let mut said = Vec::new();
    for wrong in [
        json!({ "a b": "x" }),
        json!({ "a": "x y" }),
        json!({ "a": 1 }),
        json!("a=b"),
    ] {
        said.push(
            problem(patch("edge-1", &wrong).await, ProblemCode::InvalidRequest)
                .await
                .detail,
        );
    }
    let many: Value = (0..64)
        .map(|number| (format!("k{number}"), json!("")))
        .collect();
    said.push(
        problem(patch("edge-1", &many).await, ProblemCode::InvalidRequest)
            .await
            .detail,
    );
    assert_snapshot!(said.join("\n"), @r#"
    the body is not what is expected here: "a b" is no label key: use 1 to 63 letters, digits, -, _ and ., and begin and end with a letter or digit, such as env; a domain may come before it, such as example.com/env at line 1 column 6
    the body is not what is expected here: "x y" is no label value: use at most 63 letters, digits, -, _ and ., and begin and end with a letter or digit; it may be empty at line 1 column 11
    the body is not what is expected here: invalid type: integer `1`, expected a string at line 1 column 6
    the body is not what is expected here: invalid type: string "a=b", expected a map at line 1 column 5
    a cluster may have 64 labels, and these are 66: remove some
    "#);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_what_to_ask_for_instead() {
    let dispatcher = Dispatcher::start().await;
    let person = local(&dispatcher);
    let mut said = vec![person.refused(&spec(&json!({}))).await];
    dispatcher.cluster("bare").await;
    said.push(person.refused(&spec(&json!({}))).await);
    for number in 1..=5 {
        let tier = if number < 3 { "edge" } else { "core" };
        cluster(
            &dispatcher,
            &format!("c{number}"),
            json!({ "env": "prod", "tier": tier }),
        )
        .await;
    }
    let absent = json!({ "name": "away", "labels": { "env": "prod", "tier": "away" } });
    assert_eq!(
        dispatcher.post("/v1/clusters", &absent).await.status(),
        StatusCode::CREATED
    );
    let digest = "0".repeat(64);
    let files = json!({ "sha256": digest, "bytes": 5, "content_bytes": 5, "entries": 1 });
    for change in [
        json!({ "selector": "env=test" }),
        json!({ "selector": "env in prod" }),
        json!({ "concurrency": "10%" }),
        json!({ "max_failures": "16%" }),
        json!({ "concurrency": "0%" }),
        json!({ "canary": ["bare"] }),
        json!({ "canary": ["c9"] }),
        json!({ "canary": ["c1", "c1"] }),
        json!({ "expected": ["c1", "c2", "c3", "c4", "c7"] }),
        json!({ "canary": ["away"], "if_offline": "skip" }),
        json!({ "job": { "command": { "shell": "date" }, "profile": "deploy" }, "selector": "tier in (edge, core)" }),
        json!({ "job": { "command": { "shell": "date" }, "run_timeout_seconds": 99999 }, "selector": "tier=edge" }),
        json!({ "job": { "command": { "shell": "date" }, "stdin": true } }),
        json!({ "job": { "command": { "shell": "date" }, "cluster": "c1" } }),
        json!({ "job": { "command": { "shell": "date" }, "files": files } }),
    ] {
        said.push(person.refused(&spec(&change)).await);
    }
    assert_snapshot!(said.join("\n"), @r#"
    no_clusters: there is no cluster yet: add one with `invoke clusters add NAME`
    no_cluster_selected: no cluster matches env=prod; no cluster has labels yet: set them with `invoke clusters label NAME KEY=VALUE`
    no_cluster_selected: no cluster matches env=test; clusters and their labels: away (env=prod,tier=away), c1 (env=prod,tier=edge), c2 (env=prod,tier=edge), c3 (env=prod,tier=core), c4 (env=prod,tier=core), c5 (env=prod,tier=core)
    invalid_selector: selector: "env in prod" lacks the list of in: write KEY in (A,B)
    invalid_share: concurrency: 10% of 6 clusters is less than one: write a number, such as 1, or at least 17%
    invalid_share: max_failures: 16% of 6 clusters is less than one: write a number, such as 1, or at least 17%
    invalid_share: concurrency: 0% would let no cluster run: write a number from 1, or a percentage from 1% to 100%
    invalid_canary: canary bare is not among the clusters that env=prod matches; a canary is one of: away, c1, c2, c3, c4, c5
    invalid_canary: canary c9 does not exist; a canary is one of: away, c1, c2, c3, c4, c5
    invalid_canary: cluster c1 is named twice as a canary: once is enough
    clusters_changed: env=prod matches other clusters now than those that you were shown (new: away, c5; gone: c7): look at the list again, then submit with it
    cluster_offline: no runner has ever connected for cluster away, and it is a canary that was not to be waited for: choose another, or if_offline "wait"
    unknown_profile: each of 5 clusters would refuse it; the first: cluster c1 has no profile deploy; it offers: default
    invalid_deadline: each of 2 clusters would refuse it; the first: profile default of cluster c1 lets a command run for at most 3600 seconds, not 99999
    invalid_request: a fan-out has no stdin: it can be read once, and the commands of many clusters start at different times; attach what they are to read as a file
    invalid_request: the job names cluster c1, and a fan-out chooses its clusters by its selector: leave cluster out of the job, or submit it as a single job
    files_missing: you have uploaded nothing of the archive 0000000000000000000000000000000000000000000000000000000000000000: upload it whole, then submit the job again
    "#);
    let list: FanOutList = dispatcher.get("/v1/fanouts").await;
    assert_eq!(
        (list.fanouts, list.next),
        (Vec::new(), None),
        "nothing was stored"
    );
}

/// What would become of it, in the order in which it would.
#[tokio::test]
async fn a_plan_says_what_would_become_of_it_and_stores_nothing() {
    let dispatcher = Dispatcher::start().await;
    for name in ["c1", "c2", "c3"] {
        cluster(&dispatcher, name, json!({ "env": "prod" })).await;
    }
    let odd = cluster(&dispatcher, "odd", json!({ "env": "prod" })).await;
    let mut other = words();
    other.profiles[0].name = "other".parse().unwrap();
    odd.say(&other).await;
    let away = json!({ "name": "away", "labels": { "env": "prod" } });
    dispatcher.post("/v1/clusters", &away).await;
    // Its files need not be there.
    let files = json!({ "sha256": "0".repeat(64), "bytes": 5, "content_bytes": 5, "entries": 1 });
    let body = spec(
        &json!({ "canary": ["c3"], "concurrency": "40%", "max_failures": 1,
        "job": { "command": { "shell": "date" }, "files": files } }),
    );
    let plan: FanOutPlan = expect(
        dispatcher.post("/v1/fanouts/plan", &body).await,
        StatusCode::OK,
    )
    .await;
    assert_snapshot!(serde_json::to_string_pretty(&plan).unwrap(), @r#"
    {
      "limits": {
        "clusters": 5,
        "canaries": 1,
        "concurrency": 2,
        "max_failures": 1
      },
      "clusters": [
        {
          "cluster": "c3",
          "canary": true
        },
        {
          "cluster": "away",
          "offline": "no runner has ever connected for cluster away"
        },
        {
          "cluster": "c1"
        },
        {
          "cluster": "c2"
        },
        {
          "cluster": "odd",
          "refusal": {
            "code": "unknown_profile",
            "message": "cluster odd has no profile default; it offers: other"
          }
        }
      ]
    }
    "#);
    let list: FanOutList = dispatcher.get("/v1/fanouts").await;
    assert!(list.fanouts.is_empty());
    let refused = dispatcher
        .post("/v1/fanouts/plan", &spec(&json!({ "selector": "!env,x" })))
        .await;
    problem(refused, ProblemCode::NoClusterSelected).await;
}

#[tokio::test]
async fn one_key_makes_one_fan_out() {
    let dispatcher = Dispatcher::start().await;
    cluster(&dispatcher, "c1", json!({ "env": "prod" })).await;
    let (person, key) = (local(&dispatcher), Uuid::now_v7());
    let first = person.submit_as(key, &spec(&json!({}))).await;
    let location = first.headers()["location"].to_str().unwrap().to_owned();
    let first: FanOut = expect(first, StatusCode::ACCEPTED).await;
    assert_eq!(location, format!("/v1/fanouts/{}", first.id));
    let again: FanOut = expect(
        person.submit_as(key, &spec(&json!({}))).await,
        StatusCode::OK,
    )
    .await;
    assert_eq!(again.id, first.id);
    let other = person.submit_as(key, &spec(&json!({ "ramp": true }))).await;
    problem(other, ProblemCode::IdempotencyKeyReused).await;
    // Somebody else's keys are their own.
    let ada = Person {
        token: dispatcher.token_of("ada").await,
        ..local(&dispatcher)
    };
    let theirs: FanOut = expect(
        ada.submit_as(key, &spec(&json!({}))).await,
        StatusCode::ACCEPTED,
    )
    .await;
    assert_eq!(
        (theirs.submitted_by.as_str(), theirs.id == first.id),
        ("ada", false)
    );
    let list: FanOutList = dispatcher.get("/v1/fanouts?limit=1").await;
    assert_eq!(
        (list.fanouts[0].id, list.next),
        (theirs.id, Some(theirs.id))
    );
    let path = format!("/v1/fanouts?before={}", theirs.id);
    let list: FanOutList = dispatcher.get(&path).await;
    assert_eq!((list.fanouts[0].id, list.next), (first.id, None));
    assert_eq!(list.fanouts[0].counts.all(), 1);
    assert!(list.fanouts[0].clusters.is_empty());
}

/// Each cluster has a job like any other, with its fan-out's name on it; news of one is news of the other.
#[tokio::test]
async fn a_cluster_has_a_job_and_its_end_is_the_clusters() {
    let dispatcher = Dispatcher::start().await;
    let first = cluster(&dispatcher, "c1", json!({ "env": "prod" })).await;
    let odd = cluster(&dispatcher, "odd", json!({ "env": "prod" })).await;
    let mut other = words();
    other.profiles[0].name = "other".parse().unwrap();
    odd.say(&other).await;
    let other = cluster(&dispatcher, "c2", json!({ "env": "prod" })).await;
    let fanout = local(&dispatcher).submit(&spec(&json!({}))).await;
    let job = job_on(&dispatcher, &fanout, "c1").await;
    assert_eq!(
        (job.fanout, job.submitted_by.as_str()),
        (Some(fanout.id), "local")
    );
    let on_other = job_on(&dispatcher, &fanout, "c2").await;

    let pod = first.start(&job).await;
    let seen = once(&dispatcher, &fanout, |fanout| fanout.counts.refused == 1).await;
    assert_eq!(child(&seen, "c1").job_state, Some(StateName::Running));
    let path = format!(
        "/v1/fanouts/{}?wait_seconds=30&version={}",
        fanout.id, seen.version
    );
    let began = std::time::Instant::now();
    let end = exit(7, 0);
    let (news, ended) = tokio::join!(
        dispatcher.get::<FanOut>(&path),
        first.complete(&job, pod, &end)
    );
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    assert!(
        began.elapsed().as_secs() < 15,
        "told when the wait was over"
    );
    let failed = child(&news, "c1");
    assert_eq!(
        (failed.state, failed.exit_code),
        (ChildStateName::Failed, Some(7))
    );
    assert_eq!(
        failed.reason.as_deref(),
        Some("the command exited with code 7")
    );
    let refused = child(&news, "odd");
    assert_eq!(refused.refusal, Some(ProblemCode::UnknownProfile));
    assert!(refused.job.is_none() && refused.started.is_none());

    // Cancelled by itself, not with its fan-out: that is a failure.
    let cancel = format!("/v1/jobs/{}/cancel", on_other.id);
    assert_eq!(
        dispatcher.post(&cancel, &json!({})).await.status(),
        StatusCode::ACCEPTED
    );
    let ended = once(&dispatcher, &fanout, |fanout| fanout.state.is_over()).await;
    assert_eq!(child(&ended, "c2").state, ChildStateName::Failed);
    assert_eq!(
        (ended.state, ended.counts.failures()),
        (FanOutStateName::Incomplete, 3)
    );
    crate::fleet::check_story(&ended);
    drop(other);
    let acts: Vec<_> = audited(&dispatcher, &format!("fan-out {}", fanout.id)).await;
    let acts: Vec<_> = acts
        .iter()
        .map(|(who, action, outcome)| format!("{who} {action} {outcome}"))
        .collect();
    assert_eq!(
        acts,
        [
            "local fanout.submit running",
            "dispatcher fanout.settle incomplete"
        ]
    );
}

/// Of secrets each job has its own seal, and nothing else has them; they go when it cannot go on any more.
#[tokio::test]
async fn secrets_come_to_each_job_and_go_with_the_fan_out() {
    let dispatcher = Dispatcher::start().await;
    let runner = cluster(&dispatcher, "c1", json!({ "env": "prod" })).await;
    let job = json!({ "command": { "shell": "env" }, "secrets": { "TOKEN": SECRET } });
    let fanout = local(&dispatcher)
        .submit(&spec(&json!({ "canary": ["c1"], "job": job })))
        .await;
    assert_eq!(fanout.secrets, ["TOKEN"]);
    let store = dispatcher.running.app().store.clone();
    let sealed = async || {
        let mut session = store.read().await.unwrap();
        fanouts::sealed_secrets(&mut session, fanout.id)
            .await
            .unwrap()
    };
    for (code, state, is_kept) in [
        (7, FanOutStateName::Stopped, true),
        (0, FanOutStateName::Succeeded, false),
    ] {
        let job = job_on(&dispatcher, &fanout, "c1").await;
        let holder = pod();
        let Permit::Granted {
            secrets: Some(secrets),
            ..
        } = runner.permit(&job, holder).await
        else {
            panic!("the pod is not given its secrets");
        };
        let salted: SaltedSecrets = serde_json::from_slice(&secrets).unwrap();
        assert_eq!(salted.variables.expose()["TOKEN"], SECRET);
        assert!(sealed().await.is_some(), "others may need them");
        runner.complete(&job, holder, &exit(code, 0)).await;
        let ended = once(&dispatcher, &fanout, |fanout| fanout.state.is_over()).await;
        assert_eq!((ended.state, sealed().await.is_some()), (state, is_kept));
        let text = serde_json::to_string(&ended).unwrap();
        assert!(!text.contains(SECRET), "{text}");
        if is_kept {
            let path = format!("/v1/fanouts/{}/retry-failed", fanout.id);
            assert_eq!(
                dispatcher.post(&path, &json!({})).await.status(),
                StatusCode::ACCEPTED
            );
        }
    }
    let mut looked_at = 0;
    for file in ["invoke.db", "invoke.db-wal"] {
        let bytes = std::fs::read(dispatcher.file(file)).unwrap();
        looked_at += bytes.len();
        assert!(
            !bytes
                .windows(SECRET.len())
                .any(|window| window == SECRET.as_bytes()),
            "{file}"
        );
    }
    assert!(looked_at > 0);
}

/// Whoever may not go on any more is not somebody whose commands start.
#[tokio::test]
async fn who_loses_their_rights_starts_nothing_more() {
    let dispatcher = Dispatcher::start().await;
    let first = cluster(&dispatcher, "c1", json!({ "env": "prod" })).await;
    cluster(&dispatcher, "c2", json!({ "env": "prod" })).await;
    let ada = Person {
        token: dispatcher.token_of("ada").await,
        ..local(&dispatcher)
    };
    let fanout = ada.submit(&spec(&json!({ "canary": ["c1"] }))).await;
    let job = job_on(&dispatcher, &fanout, "c1").await;
    let pod = first.start(&job).await;
    let url = format!("sqlite://{}", dispatcher.file("invoke.db").display());
    let database = sqlx::SqlitePool::connect(&url).await.unwrap();
    let revoke = "UPDATE api_tokens SET revoked_at = 1 WHERE name = 'ada'";
    assert_eq!(
        sqlx::query(revoke)
            .execute(&database)
            .await
            .unwrap()
            .rows_affected(),
        1
    );
    first.complete(&job, pod, &exit(0, 0)).await;
    let stopped = once(&dispatcher, &fanout, |fanout| fanout.state.is_over()).await;
    let reason = stopped.reason.clone().unwrap();
    assert_eq!(
        (stopped.state, reason.code),
        (FanOutStateName::Stopped, StopCode::NotAllowed)
    );
    assert_snapshot!(reason.message, @"ada, who submitted it, may not do so any more: no credential of theirs is good any more");
    assert_eq!(
        (stopped.counts.succeeded, stopped.counts.not_started),
        (1, 1)
    );
}

/// An archive is kept for as long as a fan-out may need it, whatever its age, and let go with it.
#[tokio::test]
async fn files_are_kept_for_as_long_as_it_can_go_on() {
    let dispatcher = Dispatcher::start().await;
    let runner = cluster(&dispatcher, "c1", json!({ "env": "prod" })).await;
    let archive = b"an archive, as far as anybody here can tell";
    let files = Files {
        sha256: Sha256::from_bytes(digest(&SHA256, archive).as_ref().try_into().unwrap()),
        bytes: archive.len() as u64,
        content_bytes: 100,
        entries: 1,
    };
    let path = format!("/v1/files/{}?from=0&bytes={}", files.sha256, files.bytes);
    let request = dispatcher
        .request(Method::PUT, &path)
        .body(archive.to_vec());
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    let job = json!({ "command": { "shell": "ls" }, "files": files });
    let body = spec(&json!({ "job": job, "canary": ["c1"] }));
    let fanout = local(&dispatcher).submit(&body).await;
    let store = dispatcher.running.app().store.clone();
    let upload = async || {
        let mut session = store.read().await.unwrap();
        fanouts::find(&mut session, fanout.id)
            .await
            .unwrap()
            .unwrap()
            .files_upload
    };
    let kept = upload().await.unwrap();
    let job = job_on(&dispatcher, &fanout, "c1").await;
    assert_eq!(job.files, Some(files));
    let pod = runner.start(&job).await;
    runner.complete(&job, pod, &exit(7, 0)).await;
    once(&dispatcher, &fanout, |fanout| {
        fanout.state == FanOutStateName::Stopped
    })
    .await;

    // Its job is forgotten, and the archive is old: it is still needed, for another attempt.
    let later = clock::now() + SignedDuration::from_hours(24 * 6);
    assert!(store.expire_output(job.id, later).await.unwrap());
    assert_eq!(store.give_up_idle_files(later, 10, later).await.unwrap(), 0);
    let mut session = store.write().await.unwrap();
    assert_eq!(
        fanouts::forget_overdue(&mut session, later).await.unwrap(),
        0
    );
    let too_late = clock::now() + SignedDuration::from_hours(24 * 8);
    assert_eq!(
        fanouts::forget_overdue(&mut session, too_late)
            .await
            .unwrap(),
        1
    );
    session.commit().await.unwrap();
    assert_eq!(upload().await, None);
    assert_eq!(store.give_up_idle_files(later, 10, later).await.unwrap(), 1);
    let mut session = store.read().await.unwrap();
    assert!(uploads::by_id(&mut session, kept).await.unwrap().is_none());
    drop(session);
    let retry = format!("/v1/fanouts/{}/retry-failed", fanout.id);
    problem(
        dispatcher.post(&retry, &json!({})).await,
        ProblemCode::FanoutCannotGoOn,
    )
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let dispatcher = Dispatcher::start().await;
    let id = "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10";
    for (method, path) in [
        (Method::GET, format!("/v1/fanouts/{id}")),
        (Method::POST, format!("/v1/fanouts/{id}/cancel")),
        (Method::POST, format!("/v1/fanouts/{id}/resume")),
        (Method::POST, format!("/v1/fanouts/{id}/retry-failed")),
    ] {
        let response = dispatcher.request(method, &path).send().await.unwrap();
        problem(response, ProblemCode::FanoutNotFound).await;
    }
    let response = dispatcher
        .request(Method::GET, "/v1/fanouts/42")
        .send()
        .await
        .unwrap();
    let refused = problem(response, ProblemCode::InvalidId).await;
    assert_snapshot!(refused.detail, @r#""42" is not a fan-out id: expected a UUID such as 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10"#);
}

/// A cluster that waits says for whom, and until when.
#[tokio::test]
async fn a_cluster_that_is_away_says_what_it_waits_for() {
    let dispatcher = Dispatcher::start().await;
    let away = json!({ "name": "away", "labels": { "env": "prod" } });
    dispatcher.post("/v1/clusters", &away).await;
    let fanout = local(&dispatcher).submit(&spec(&json!({}))).await;
    let waiting = once(&dispatcher, &fanout, |fanout| fanout.story.len() > 1).await;
    let reason = child(&waiting, "away").reason.clone().unwrap();
    let (words, until) = reason.split_once(" until ").unwrap();
    assert_eq!(
        words,
        "no runner has ever connected for cluster away; it is waited for"
    );
    assert!(until.ends_with(" UTC"), "{until}");
    assert_eq!(waiting.allowed, 1);
}
