//! Many clusters at once: runners that speak the runners' protocol and run nothing, in one loop, and what they saw.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use invoke_dispatcher::clock;
use invoke_dispatcher::store::clusters;
use invoke_protocol::api::JoinInvitation;
use invoke_protocol::fanout::{
    Child, ChildStateName, FanOut, FanOutSpec, FanOutStateName, FanOutStepName,
};
use invoke_protocol::id::{FanOutId, JobId, PodUid};
use invoke_protocol::output::{EndCause, ExitRecord};
use invoke_protocol::runner::{self, Claim, ContactResponse, Permit};
use jiff::SignedDuration;
use reqwest::{Client, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::bed::{Dispatcher, expect};
use crate::runner::{Runner, exit, pod, words};

/// For how long a fan-out may take to come where a test wants it.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long a command takes, so that commands overlap.
const WORK: Duration = Duration::from_millis(30);

/// What a command does on a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// It exits by itself.
    Exit(u8),
    /// It runs until it is cancelled.
    Hang,
}

/// What the commands do: by cluster, and by how often it has run there.
pub(crate) type Acts = Arc<dyn Fn(usize, usize) -> Act + Send + Sync>;

/// A dispatcher as its callers see it.
#[derive(Clone)]
pub(crate) struct Place {
    client: Client,
    url: String,
    token: String,
}

impl Place {
    pub(crate) fn of(dispatcher: &Dispatcher) -> Self {
        Self {
            client: crate::bed::client(&dispatcher.ca_pem),
            url: dispatcher.url.clone(),
            token: dispatcher.token().to_owned(),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> reqwest::Result<T> {
        let request = self.client.get(format!("{}{path}", self.url));
        let response = request.bearer_auth(&self.token).send().await?;
        response.error_for_status()?.json().await
    }

    async fn post(&self, path: &str, key: Option<Uuid>, body: &Value) -> Response {
        let mut request = self.client.post(format!("{}{path}", self.url));
        if let Some(key) = key {
            request = request.header("idempotency-key", key.to_string());
        }
        request
            .bearer_auth(&self.token)
            .json(body)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn submit(&self, spec: &Value) -> FanOut {
        let response = self.post("/v1/fanouts", Some(Uuid::now_v7()), spec).await;
        expect(response, StatusCode::ACCEPTED).await
    }

    pub(crate) async fn order(&self, fanout: FanOutId, what: &str, body: &Value) -> Response {
        self.post(&format!("/v1/fanouts/{fanout}/{what}"), None, body)
            .await
    }
}

/// Clusters `c000`, `c001`, …, labelled `env=test`, and the runners of those that are not away.
pub(crate) struct Fleet {
    runners: Vec<Arc<Runner>>,
    away: Arc<Mutex<HashSet<usize>>>,
    places: watch::Sender<Vec<Place>>,
    speaking: JoinSet<()>,
}

impl Fleet {
    pub(crate) async fn enrol(dispatcher: &Dispatcher, count: usize) -> Self {
        let mut runners = Vec::new();
        for index in 0..count {
            let body = json!({ "name": name(index), "labels": { "env": "test" } });
            let response = dispatcher.post("/v1/clusters", &body).await;
            let invitation: JoinInvitation = expect(response, StatusCode::CREATED).await;
            let runner = Runner::enrol(dispatcher, &invitation).await;
            runner.contact().await;
            runners.push(Arc::new(runner));
        }
        let mut fleet = Self {
            runners,
            away: Arc::default(),
            places: watch::Sender::new(vec![Place::of(dispatcher)]),
            speaking: JoinSet::new(),
        };
        fleet.speak();
        fleet
    }

    /// From now on they speak to these.
    pub(crate) fn move_to(&self, places: Vec<Place>) {
        self.places.send_replace(places);
    }

    pub(crate) fn place(&self) -> Place {
        self.places.borrow()[0].clone()
    }

    /// Some fall silent, long enough ago that everybody knows.
    pub(crate) async fn fall_silent(
        &self,
        dispatcher: &Dispatcher,
        away: impl Iterator<Item = usize>,
    ) {
        let long_ago = clock::now() - SignedDuration::from_mins(2);
        let profiles = words().profiles;
        for index in away {
            locked(&self.away).insert(index);
            let contact = clusters::Contact {
                runner_version: "0.1.0",
                profiles: &profiles,
                clock_skew_seconds: None,
            };
            let mut session = dispatcher.running.app().store.write().await.unwrap();
            let cluster = self.runners[index].cluster;
            clusters::record_contact(&mut session, cluster, contact, long_ago)
                .await
                .unwrap();
            session.commit().await.unwrap();
        }
    }

    /// Some of those speak again.
    pub(crate) async fn come_back(&self, back: impl Iterator<Item = usize>) {
        for index in back {
            locked(&self.away).remove(&index);
            self.voice(index).contact().await;
        }
    }

    /// Who is not away says so every few seconds.
    fn speak(&mut self) {
        let (voices, away) = (self.voices(), Arc::clone(&self.away));
        self.speaking.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                for (index, voice) in voices.iter().enumerate() {
                    if !locked(&away).contains(&index) {
                        voice.contact().await;
                    }
                }
            }
        });
    }

    fn voices(&self) -> Vec<Voice> {
        (0..self.runners.len())
            .map(|index| self.voice(index))
            .collect()
    }

    fn voice(&self, index: usize) -> Voice {
        Voice {
            index,
            runner: Arc::clone(&self.runners[index]),
            places: self.places.subscribe(),
        }
    }

    /// Runs what a fan-out starts until it is over, or `until` says that it has seen enough. Commands that are
    /// running then go on running, in [`Work`].
    pub(crate) async fn work(
        &self,
        work: &mut Work,
        fanout: FanOutId,
        until: impl Fn(&FanOut) -> bool,
    ) -> FanOut {
        let mut last = None;
        let seen = async {
            loop {
                let seen = self.news(fanout, last.as_ref()).await;
                work.see(&seen);
                for (index, child) in self.to_run(&seen) {
                    work.take(self.voice(index), child);
                }
                if seen.state.is_over() || until(&seen) {
                    return seen;
                }
                last = Some(seen);
            }
        };
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        seen.unwrap_or_else(|_| {
            let counts = last.map(|last| last.counts);
            panic!("it does not get there: {counts:?}")
        })
    }

    /// The fan-out when it has changed, or soon. Whom we ask may be away for a moment.
    async fn news(&self, fanout: FanOutId, last: Option<&FanOut>) -> FanOut {
        let version = last.map_or(0, |last| last.version);
        let path = format!("/v1/fanouts/{fanout}?wait_seconds=1&version={version}");
        loop {
            if let Ok(seen) = self.place().get(&path).await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn to_run<'a>(&self, seen: &'a FanOut) -> Vec<(usize, &'a Child)> {
        let running = seen
            .clusters
            .iter()
            .filter(|child| child.state == ChildStateName::Running);
        let there = running.map(|child| (index_of(child), child));
        there
            .filter(|(index, _)| !locked(&self.away).contains(index))
            .collect()
    }
}

pub(crate) fn name(index: usize) -> String {
    format!("c{index:03}")
}

fn index_of(child: &Child) -> usize {
    child.cluster.as_str()[1..].parse().unwrap()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// A runner that speaks to whichever dispatcher there is.
struct Voice {
    index: usize,
    runner: Arc<Runner>,
    places: watch::Receiver<Vec<Place>>,
}

impl Voice {
    /// Asks until there is an answer.
    async fn ask<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, StatusCode> {
        loop {
            let (client, url) = {
                let places = self.places.borrow();
                let place = &places[self.index % places.len()];
                (place.client.clone(), place.url.clone())
            };
            let request = client
                .post(format!("{url}{path}"))
                .bearer_auth(self.runner.token());
            match request.json(body).send().await {
                Ok(response) if response.status() == StatusCode::NO_CONTENT => {
                    return Ok(serde_json::from_value(Value::Null).unwrap());
                }
                Ok(response) if response.status().is_success() => {
                    if let Ok(answer) = response.json().await {
                        return Ok(answer);
                    }
                }
                Ok(response) if response.status().is_client_error() => {
                    return Err(response.status());
                }
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn contact(&self) -> ContactResponse {
        let words = serde_json::to_value(words()).unwrap();
        self.ask(runner::CONTACT, &words).await.unwrap()
    }

    async fn job<T: DeserializeOwned>(
        &self,
        template: &str,
        job: JobId,
        body: &Value,
    ) -> Result<T, StatusCode> {
        self.ask(&runner::path(template, job), body).await
    }

    /// Takes a job to its end.
    async fn run(self, job: JobId, acts: Acts, seen: Arc<Mutex<Seen>>) {
        let pod = pod();
        if self.job(runner::CLAIM, job, &json!({})).await != Ok(Claim::Yours) {
            return;
        }
        let was_stopped = locked(&seen).stopped;
        let runs = match self.job(runner::PERMIT, job, &json!({ "pod": pod })).await {
            Ok(Permit::Granted { .. }) => locked(&seen).begin(self.index, job, was_stopped),
            Ok(Permit::Refused { .. }) | Err(_) => return,
        };
        let end = match acts(self.index, runs) {
            Act::Exit(code) => {
                tokio::time::sleep(WORK).await;
                exit(code, 0)
            }
            Act::Hang => self.until_cancelled(job).await,
        };
        // The command is over before the report of it.
        locked(&seen).end(self.index, end.status.code() == 0);
        self.complete(job, pod, &end).await;
    }

    async fn until_cancelled(&self, job: JobId) -> ExitRecord {
        while !self
            .contact()
            .await
            .cancelling
            .iter()
            .any(|cancelled| cancelled.job == job)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ExitRecord {
            cause: EndCause::Cancelled,
            ..exit(143, 0)
        }
    }

    async fn complete(&self, job: JobId, pod: PodUid, end: &ExitRecord) {
        let body = json!({ "pod": pod, "exit": end });
        self.job::<()>(runner::COMPLETE, job, &body).await.unwrap();
    }
}

/// What the clusters saw of a fan-out, and the commands that run.
pub(crate) struct Work {
    acts: Acts,
    seen: Arc<Mutex<Seen>>,
    taken: HashSet<JobId>,
    commands: JoinSet<()>,
}

/// What the clusters saw: what is allowed is counted here by what runs, not by what the dispatcher says.
struct Seen {
    spec: FanOutSpec,
    concurrency: usize,
    running: BTreeSet<usize>,
    runs: HashMap<usize, usize>,
    begun: HashSet<JobId>,
    canaries_succeeded: usize,
    others_succeeded: usize,
    most_at_once: usize,
    stopped: bool,
    violations: Vec<String>,
}

impl Seen {
    fn is_canary(&self, index: usize) -> bool {
        let name = name(index);
        self.spec
            .canary
            .iter()
            .any(|canary| canary.as_str() == name)
    }

    /// Answers how often a command has run on this cluster before.
    fn begin(&mut self, index: usize, job: JobId, was_stopped: bool) -> usize {
        let name = name(index);
        let are_canaries_done = self.canaries_succeeded == self.spec.canary.len();
        let allowed = match (are_canaries_done, self.spec.ramp) {
            (false, _) => self.concurrency.min(self.spec.canary.len()),
            (true, true) => self.concurrency.min(1 + self.others_succeeded),
            (true, false) => self.concurrency,
        };
        if self.running.len() >= allowed {
            let running = self.running.len();
            self.violations.push(format!(
                "{name} began beside {running}, and {allowed} may run"
            ));
        }
        if !are_canaries_done && !self.is_canary(index) {
            self.violations
                .push(format!("{name} began before the canaries"));
        }
        if was_stopped {
            self.violations
                .push(format!("{name} was permitted after the stop"));
        }
        if !self.begun.insert(job) || !self.running.insert(index) {
            self.violations.push(format!("{name} began twice"));
        }
        self.most_at_once = self.most_at_once.max(self.running.len());
        let runs = self.runs.entry(index).or_default();
        *runs += 1;
        *runs - 1
    }

    fn end(&mut self, index: usize, has_succeeded: bool) {
        self.running.remove(&index);
        match (has_succeeded, self.is_canary(index)) {
            (true, true) => self.canaries_succeeded += 1,
            (true, false) => self.others_succeeded += 1,
            (false, _) => {}
        }
    }
}

impl Work {
    pub(crate) fn new(
        fanout: &FanOut,
        acts: impl Fn(usize, usize) -> Act + Send + Sync + 'static,
    ) -> Self {
        let seen = Seen {
            spec: fanout.spec.clone(),
            concurrency: fanout.limits.concurrency as usize,
            running: BTreeSet::new(),
            runs: HashMap::new(),
            begun: HashSet::new(),
            canaries_succeeded: 0,
            others_succeeded: 0,
            most_at_once: 0,
            stopped: false,
            violations: Vec::new(),
        };
        Self {
            acts: Arc::new(acts),
            seen: Arc::new(Mutex::new(seen)),
            taken: HashSet::new(),
            commands: JoinSet::new(),
        }
    }

    /// What the store says at this moment.
    fn see(&self, fanout: &FanOut) {
        let mut seen = locked(&self.seen);
        seen.stopped |= fanout.state != FanOutStateName::Running;
        if fanout.counts.running > fanout.allowed {
            let (running, allowed) = (fanout.counts.running, fanout.allowed);
            seen.violations
                .push(format!("{running} run in the store, and {allowed} may"));
        }
        if fanout.counts.all() != fanout.limits.clusters {
            seen.violations
                .push(format!("clusters are missing: {:?}", fanout.counts));
        }
    }

    fn take(&mut self, voice: Voice, child: &Child) {
        let job = child.job.unwrap();
        if !self.taken.insert(job) {
            return;
        }
        let (acts, seen) = (Arc::clone(&self.acts), Arc::clone(&self.seen));
        self.commands.spawn(voice.run(job, acts, seen));
    }

    /// How many commands have begun until now.
    pub(crate) fn begun(&self) -> impl Fn() -> usize + use<> {
        let seen = Arc::clone(&self.seen);
        move || locked(&seen).begun.len()
    }

    /// It goes on by a person's word: what was counted until now counts no more.
    pub(crate) fn go_on(&self) {
        let mut seen = locked(&self.seen);
        (seen.stopped, seen.others_succeeded) = (false, 0);
    }

    /// Nothing runs any more, and nothing was seen that must not be. Answers how many ran at once at most.
    pub(crate) async fn check(&mut self, fanout: &FanOut) -> usize {
        while let Some(ended) = self.commands.join_next().await {
            ended.unwrap();
        }
        check_story(fanout);
        let counts = fanout.counts;
        assert_eq!((counts.running, counts.pending), (0, 0), "{counts:?}");
        assert_eq!(counts.all(), fanout.limits.clusters, "{counts:?}");
        let seen = locked(&self.seen);
        assert!(seen.violations.is_empty(), "{:#?}", seen.violations);
        for child in fanout
            .clusters
            .iter()
            .filter(|child| child.exit_code.is_some())
        {
            let job = child.job.unwrap();
            assert!(seen.begun.contains(&job), "job {job} ended and never began");
        }
        seen.most_at_once
    }
}

/// The story, step by step, in the order in which it was written: at no step more than were allowed, none before
/// the canaries, none after a stop.
pub(crate) fn check_story(fanout: &FanOut) {
    let limits = fanout.limits;
    let is_canary = |name: &str| {
        fanout
            .spec
            .canary
            .iter()
            .any(|canary| canary.as_str() == name)
    };
    let mut running: BTreeSet<&str> = BTreeSet::new();
    let mut canaries: BTreeSet<&str> = BTreeSet::new();
    let (mut succeeded, mut is_stopped) = (0, false);
    for step in &fanout.story {
        let name = step.cluster.as_ref().map_or("", |name| name.as_str());
        match step.step {
            FanOutStepName::ClusterStarted => {
                let are_canaries_done = canaries.len() == limits.canaries as usize;
                let allowed = match (are_canaries_done, fanout.spec.ramp) {
                    (false, _) => limits.concurrency.min(limits.canaries),
                    (true, true) => limits.concurrency.min(1 + succeeded),
                    (true, false) => limits.concurrency,
                };
                assert!(running.insert(name), "{name} started twice");
                assert!(
                    running.len() <= allowed as usize,
                    "{name} is one too many of {allowed}"
                );
                assert!(
                    are_canaries_done || is_canary(name),
                    "{name} before the canaries"
                );
                assert!(!is_stopped, "{name} after the stop");
            }
            FanOutStepName::ClusterEnded => {
                running.remove(name);
                match (step.message == "succeeded", is_canary(name)) {
                    (true, true) => drop(canaries.insert(name)),
                    (true, false) => succeeded += 1,
                    (false, _) => {}
                }
            }
            FanOutStepName::Stopping | FanOutStepName::CancelRequested => is_stopped = true,
            FanOutStepName::Resumed | FanOutStepName::Retried => {
                assert!(running.is_empty(), "it went on while {running:?} ran");
                (succeeded, is_stopped) = (0, false);
            }
            FanOutStepName::Stopped | FanOutStepName::Ended => {
                assert!(running.is_empty(), "it is over, and {running:?} run");
            }
            _ => {}
        }
    }
}
