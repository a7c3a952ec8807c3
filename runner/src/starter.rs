//! Brings one order from the queue to its start: claim, slot, pod, and then the wait for the permit.
//!
//! ```text
//!  judged ──▶ claim ──▶ slot ──▶ pod ──▶ reported ──▶ wait ── permit granted, by any replica ──▶ Ack
//!               │                 │                     └─ pod lost, and that is on record ────▶ Ack
//!               │                 └─ refused by Kubernetes ──▶ reported ──────────────────────▶ Ack
//!               └─ over, or started elsewhere ────────────────────────────────────────────────▶ Ack
//! ```
//!
//! The message is held until the permit, so that a runner that dies before has it redelivered to
//! another one; and no longer, because the broker takes back what is held for half an hour. What is let
//! go of before is put off with the dispatcher, which sends it anew: what comes back to the queue by
//! itself counts as a crash.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use invoke_protocol::id::{JobId, PodUid};
use invoke_protocol::runner::{Claim, Report};
use invoke_protocol::state::{Reason, ReasonCode};
use invoke_protocol::topology::pod_name;
use jiff::SignedDuration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::Config;
use crate::job_pod::JobPod;
use crate::order::{Accepted, Trust, Verdict};
use crate::pool::{self, Pool};
use crate::recovery::Recovery;
use crate::report::chain;
use crate::slots::{Slot, Slots};
use crate::upstream::{self, Upstream};

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// It is done with.
    Ack,
    /// Not now: back to the queue.
    Requeue,
    /// Never: to the dead letters.
    DeadLetter,
}

/// What decides a message that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// This replica has handed a job's permit on.
    Granted(JobId),
    /// A pod has failed, and that is on record. If its job is to be tried again, it is ordered again.
    Lost(PodUid),
}

/// How long a message is held: well under the half hour after which RabbitMQ closes the channel, with
/// everything else that is held on it.
const HOLD: Duration = Duration::from_secs(20 * 60);

/// How often to ask whether another replica has seen the permit, or the job is over.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// For how long to try to reach the dispatcher before another replica may.
const REACH: Duration = Duration::from_secs(60);

/// For how long to try to put a job off.
const PUT_OFF: Duration = Duration::from_secs(5);

/// A clock that is further ahead than this is worth a word.
const SKEW: SignedDuration = SignedDuration::from_secs(30);

/// What starting takes.
pub(crate) struct Starter {
    pub(crate) trust: Trust,
    pub(crate) config: Arc<Config>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) slots: Slots,
    pub(crate) pool: Pool,
    pub(crate) recovery: Recovery,
    pub(crate) decided: broadcast::Sender<Decision>,
    /// What is held is put off with it.
    pub(crate) stop: CancellationToken,
}

impl Starter {
    /// Does all there is to do about one message.
    pub(crate) async fn handle(&self, message: &[u8]) -> Disposition {
        invoke_hooks::point("runner.after-receive");
        let offers = |profile: &_| self.config.profiles.contains_key(profile);
        match self.trust.judge(message, offers, clock::now()) {
            Verdict::Accepted(accepted) => self.start(&accepted).await,
            Verdict::Expired(job) => self.forget_expired(job).await,
            Verdict::Refused(job, reason) => {
                tracing::warn!(job.id = %job, "order for job {job} is refused: {}", reason.message);
                self.tell_last(job, &Report::Rejected { reason }).await
            }
            Verdict::Forged(why) => {
                tracing::error!(
                    alarm = true,
                    "a message that no dispatcher of ours has sent was thrown away: {why}"
                );
                Disposition::DeadLetter
            }
        }
    }

    /// What looks expired is not run, whatever the reason; but a clock that is wrong must not be a riddle.
    async fn forget_expired(&self, job: JobId) -> Disposition {
        let ahead = -self.upstream.behind();
        if ahead <= SKEW {
            tracing::info!(job.id = %job, "order for job {job} has expired and is forgotten");
            return Disposition::Ack;
        }
        let words = format!(
            "the order looks expired to the runner, whose node's clock is {} s ahead of the dispatcher's: \
             set that clock right",
            ahead.as_secs()
        );
        tracing::error!(job.id = %job, "order for job {job} is not followed: {words}");
        let reason = Reason::new(ReasonCode::ClockSkew, words);
        self.tell_last(job, &Report::Waiting { reason }).await
    }

    async fn start(&self, accepted: &Accepted) -> Disposition {
        let job = accepted.order.job;
        let held = tokio::time::timeout(HOLD, self.bring_to_start(accepted));
        let disposition = tokio::select! {
            held = held => held.ok(),
            () = self.stop.cancelled() => None,
        };
        match disposition {
            Some(disposition) => disposition,
            None => self.put_off(job).await,
        }
    }

    /// Lets go of a message whose job has not started: the dispatcher sends another one.
    async fn put_off(&self, job: JobId) -> Disposition {
        let report = self.upstream.report(job, &Report::Postponed);
        match tokio::time::timeout(PUT_OFF, report).await {
            Ok(Ok(())) => {
                tracing::info!(job.id = %job, "job {job} still waits for its start; it is put off and ordered again");
                Disposition::Ack
            }
            // It has started in the meantime, or is over.
            Ok(Err(error)) if error.is_final() => Disposition::Ack,
            Ok(Err(_)) | Err(_) => {
                tracing::info!(job.id = %job, "job {job} still waits for its start; its message goes round once more");
                Disposition::Requeue
            }
        }
    }

    async fn bring_to_start(&self, accepted: &Accepted) -> Disposition {
        let job = accepted.order.job;
        // Before there is a pod that could ask for its permit, or be lost: a decision must not be missed.
        let (granted, lost) = (self.decided.subscribe(), self.decided.subscribe());
        match self.persist(|| self.claim(job)).await {
            Ok(Claim::Yours) => tracing::info!(job.id = %job, "job {job} is claimed"),
            Ok(done) => return self.give_up(job, done).await,
            Err(error) => return undecided(job, &error),
        }
        invoke_hooks::point("runner.after-claim");
        tokio::select! {
            disposition = self.until_decided(job, granted) => disposition,
            disposition = self.make_pod(accepted, lost) => disposition,
        }
    }

    async fn claim(&self, job: JobId) -> Result<Claim, upstream::Error> {
        let claim = self.upstream.claim(job).await?;
        if invoke_hooks::sabotaged("no-claim") {
            return Ok(Claim::Yours);
        }
        Ok(claim)
    }

    /// Waits for this replica to hand the permit on, or for the dispatcher to say that another has, or
    /// that the job is over.
    async fn until_decided(
        &self,
        job: JobId,
        mut granted: broadcast::Receiver<Decision>,
    ) -> Disposition {
        loop {
            tokio::select! {
                () = decision(Decision::Granted(job), &mut granted) => return Disposition::Ack,
                () = tokio::time::sleep(ASK_AGAIN) => {}
            }
            match self.claim(job).await {
                Ok(Claim::Yours) => {}
                Ok(done) => return self.give_up(job, done).await,
                Err(error) => tracing::warn!(job.id = %job, "job {job} waits: {}", chain(&error)),
            }
        }
    }

    /// Makes the pod. Returns only when it must not be waited for.
    async fn make_pod(
        &self,
        accepted: &Accepted,
        mut lost: broadcast::Receiver<Decision>,
    ) -> Disposition {
        let job = accepted.order.job;
        // Kept until the message is done with: by then the pod counts by itself.
        let _slot = self.slot(job).await;
        match self.provide(accepted).await {
            Ok(Provided::Pod(uid)) => {
                invoke_hooks::point("runner.after-pod");
                self.tell(job, &Report::PodCreated).await;
                decision(Decision::Lost(uid), &mut lost).await;
                tracing::info!(job.id = %job, pod.uid = %uid, "job {job} has lost its pod before its start");
                Disposition::Ack
            }
            Ok(Provided::StartedBefore) => Disposition::Ack,
            Err(reason) => {
                tracing::warn!(job.id = %job, "job {job} gets no pod: {}", reason.message);
                self.tell_last(job, &Report::PodFailed { pod: None, reason })
                    .await
            }
        }
    }

    /// The right to make one more pod, when there is one.
    async fn slot(&self, job: JobId) -> Slot {
        if let Some(slot) = self.slots.try_take(job) {
            return slot;
        }
        let words = format!(
            "the cluster runs {} jobs, as many as its runner takes at once",
            self.config.max_jobs
        );
        let reason = Reason::new(ReasonCode::RunnerBusy, words);
        self.tell(job, &Report::Waiting { reason }).await;
        self.slots.take(job).await
    }

    async fn provide(&self, accepted: &Accepted) -> Result<Provided, Reason> {
        let job = accepted.order.job;
        let mut waits = waits();
        let mut told = None;
        loop {
            let reason = match self.try_to_provide(accepted).await {
                Ok(provided) => return Ok(provided),
                Err(pool::Error::Refused(reason)) => return Err(reason),
                Err(error) => error.reason(),
            };
            tracing::warn!(job.id = %job, "job {job} has no pod yet: {}", reason.message);
            // Said once: a quota may be used up for hours, and is asked for every few seconds.
            if told.as_ref() != Some(&reason.code) {
                told = Some(reason.code);
                self.tell(job, &Report::Waiting { reason }).await;
            }
            tokio::time::sleep(waits.next().unwrap_or(LONGEST_WAIT)).await;
        }
    }

    async fn try_to_provide(&self, accepted: &Accepted) -> Result<Provided, pool::Error> {
        let job = accepted.order.job;
        // The dispatcher says that it never started. If the cluster knows better, the fence in front of the
        // start would hold; to ask first spares a pod, and the dispatcher a permit that it would regret.
        let record = self.recovery.records.find(job).await;
        if let Some(record) = record.map_err(pool::Error::Later)?
            && self.recovery.remind(&record).await
        {
            return Ok(Provided::StartedBefore);
        }
        let uid = self.pool.provide(accepted).await?;
        tracing::info!(job.id = %job, pod.uid = %uid, "job {job} has its pod");
        Ok(Provided::Pod(uid))
    }

    /// Nothing is left to start.
    async fn give_up(&self, job: JobId, claim: Claim) -> Disposition {
        if claim == Claim::Over {
            self.discard(job).await;
        }
        Disposition::Ack
    }

    /// Deletes the pod of a job that is over. What fails here, the janitor finds.
    async fn discard(&self, job: JobId) {
        let removed = match self.pool.find(&pod_name(job)).await {
            Ok(pod) => match pod.as_ref().and_then(JobPod::read) {
                Some(marks) => self.pool.remove(job, marks.uid).await,
                None => Ok(()),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(job.id = %job, "the pod of job {job}, which is over, was not deleted yet: {}", chain(&error));
        }
    }

    /// Tells the dispatcher how a job goes on; once, because the next change says more.
    async fn tell(&self, job: JobId, report: &Report) {
        if let Err(error) = self.upstream.report(job, report).await
            && !error.is_final()
        {
            tracing::warn!(job.id = %job, "the dispatcher was not told about job {job}: {}", chain(&error));
        }
    }

    /// Tells the dispatcher the last that there is to say. Only then is the message done with.
    async fn tell_last(&self, job: JobId, report: &Report) -> Disposition {
        match self.persist(|| self.upstream.report(job, report)).await {
            Ok(()) => Disposition::Ack,
            // It knows better: the job is over, or none of this cluster's.
            Err(error) if error.is_final() => Disposition::Ack,
            Err(error) => undecided(job, &error),
        }
    }

    /// Repeats a call for a while.
    async fn persist<T, F: Future<Output = Result<T, upstream::Error>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, upstream::Error> {
        let begun = tokio::time::Instant::now();
        let mut waits = waits();
        loop {
            match call().await {
                Err(error) if !error.is_final() && begun.elapsed() < REACH => {
                    tokio::time::sleep(waits.next().unwrap_or(LONGEST_WAIT)).await;
                }
                answer => return answer,
            }
        }
    }
}

/// What an order got.
enum Provided {
    Pod(PodUid),
    /// The cluster has a record of its start, and the dispatcher knows of it now.
    StartedBefore,
}

/// Waits for one decision. Those that are missed because there are too many at once are found out by
/// asking.
async fn decision(awaited: Decision, decided: &mut broadcast::Receiver<Decision>) {
    loop {
        match decided.recv().await {
            Ok(other) if other != awaited => {}
            Ok(_) => return,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(10);

fn waits() -> impl Iterator<Item = Duration> {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(LONGEST_WAIT)
        .without_max_times()
        .with_jitter()
        .build()
}

fn undecided(job: JobId, error: &upstream::Error) -> Disposition {
    tracing::warn!(job.id = %job, "nothing can be done about job {job} now: {}", chain(error));
    // Where the dispatcher refuses for good, going round again would only repeat it.
    if error.is_final() {
        Disposition::DeadLetter
    } else {
        Disposition::Requeue
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use invoke_protocol::envelope::OrderV1;
    use tokio::sync::watch;

    use super::*;
    use crate::config::tests::config;
    use crate::order::tests::{Dispatcher, order};
    use crate::scripted::{Script, World, job};

    /// An order that is good for as long as these tests run.
    fn fresh() -> OrderV1 {
        OrderV1 {
            expires_at: clock::now() + jiff::SignedDuration::from_mins(15),
            ..order()
        }
    }

    fn starter(world: &World, dispatcher: &Dispatcher, max_jobs: usize) -> Arc<Starter> {
        let (_, live) = watch::channel(BTreeSet::new());
        Arc::new(Starter {
            trust: dispatcher.trust(),
            config: Arc::new(config()),
            upstream: Arc::clone(&world.upstream),
            slots: Slots::new(max_jobs, live),
            pool: world.pool.clone(),
            recovery: world.recovery(),
            decided: broadcast::channel(4).0,
            stop: CancellationToken::new(),
        })
    }

    async fn handled(script: Script) -> (World, Disposition) {
        let (world, dispatcher) = (World::new(script).await, Dispatcher::new());
        let disposition = starter(&world, &dispatcher, 4)
            .handle(&dispatcher.message(fresh()))
            .await;
        (world, disposition)
    }

    fn yours() -> Script {
        Script {
            claim: Some(Claim::Yours),
            ..Script::default()
        }
    }

    async fn until_told(world: &World, is_it: impl Fn(&Report) -> bool) {
        while !world.script().reports.iter().any(&is_it) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_created(world: &World) {
        until_told(world, |report| *report == Report::PodCreated).await;
    }

    /// Hands the permit on once the dispatcher was told of the pod.
    async fn grant_when_created(world: &World, starter: &Starter) {
        until_created(world).await;
        starter.decided.send(Decision::Granted(job())).unwrap();
    }

    /// Before the permit another replica must be able to take over, after it nobody must.
    #[tokio::test]
    async fn a_message_is_held_until_the_permit() {
        let (world, dispatcher) = (World::new(yours()).await, Dispatcher::new());
        let starter = starter(&world, &dispatcher, 4);
        let message = dispatcher.message(fresh());
        let mut handling = std::pin::pin!(starter.handle(&message));
        tokio::select! {
            disposition = &mut handling => panic!("{disposition:?} before the permit"),
            () = grant_when_created(&world, &starter) => {}
        }
        assert_eq!(handling.await, Disposition::Ack);
        assert_eq!(world.script().made, 1);
    }

    /// The API server made the pod and the answer was lost; then the message comes a second time.
    #[tokio::test]
    async fn one_order_makes_one_pod() {
        let (world, dispatcher) = (
            World::new(Script {
                lose_answer: true,
                ..yours()
            })
            .await,
            Dispatcher::new(),
        );
        let starter = starter(&world, &dispatcher, 4);
        let message = dispatcher.message(fresh());
        for _ in 0..2 {
            world.script().reports.clear();
            let (disposition, ()) = tokio::join!(
                starter.handle(&message),
                grant_when_created(&world, &starter)
            );
            assert_eq!(disposition, Disposition::Ack);
        }
        assert_eq!(world.script().made, 1);
    }

    #[tokio::test]
    async fn what_is_over_gets_no_pod_and_keeps_none() {
        let stale: k8s_openapi::api::core::v1::Pod = serde_json::from_value(serde_json::json!({"metadata": {
            "name": pod_name(job()), "uid": crate::scripted::uid(1),
            "labels": {"invoke.dev/job": job().to_string(), "app.kubernetes.io/managed-by": "invoke-runner"},
            "annotations": {"invoke.dev/order-sha256": "x"},
        }}))
        .unwrap();
        let pods = [(pod_name(job()), stale)].into();
        let (world, disposition) = handled(Script {
            claim: Some(Claim::Over),
            pods,
            ..Script::default()
        })
        .await;
        assert_eq!(disposition, Disposition::Ack);
        assert!(world.script().pods.is_empty() && world.script().made == 0);
    }

    #[tokio::test]
    async fn what_was_started_is_left_alone() {
        let (world, disposition) = handled(Script {
            claim: Some(Claim::Started),
            ..Script::default()
        })
        .await;
        assert_eq!((disposition, world.script().made), (Disposition::Ack, 0));
    }

    #[tokio::test]
    async fn what_kubernetes_refuses_is_told_in_its_words() {
        let (world, disposition) = handled(Script {
            refuse_pod: Some((403, "violates PodSecurity: few")),
            ..yours()
        })
        .await;
        assert_eq!(disposition, Disposition::Ack);
        let reason = Reason::new(ReasonCode::AdmissionRefused, "violates PodSecurity: few");
        assert_eq!(
            world.script().reports,
            [Report::PodFailed { pod: None, reason }]
        );
    }

    /// What others give back is taken; until then the job waits, and says for what.
    #[tokio::test]
    async fn a_quota_that_is_used_up_is_waited_for() {
        let script = Script {
            refuse_pod: Some((403, "exceeded quota: few")),
            ..yours()
        };
        let (world, dispatcher) = (World::new(script).await, Dispatcher::new());
        let starter = starter(&world, &dispatcher, 4);
        let message = dispatcher.message(fresh());
        let given_back = async {
            until_told(&world, |report| matches!(report, Report::Waiting { .. })).await;
            world.script().refuse_pod = None;
            grant_when_created(&world, &starter).await;
        };
        let (disposition, ()) = tokio::join!(starter.handle(&message), given_back);
        assert_eq!(disposition, Disposition::Ack);
        let reason = Reason::new(ReasonCode::Quota, "exceeded quota: few");
        assert_eq!(
            world.script().reports,
            [Report::Waiting { reason }, Report::PodCreated]
        );
    }

    /// The dispatcher orders it again; two messages for one job would be held for twenty minutes.
    #[tokio::test]
    async fn the_message_of_a_pod_that_was_lost_is_let_go_of() {
        let (world, dispatcher) = (World::new(yours()).await, Dispatcher::new());
        let starter = starter(&world, &dispatcher, 4);
        let message = dispatcher.message(fresh());
        let lose = async {
            until_created(&world).await;
            for n in [2, 1] {
                let uid = crate::scripted::uid(n).parse().unwrap();
                starter.decided.send(Decision::Lost(uid)).unwrap();
            }
        };
        let (disposition, ()) = tokio::join!(starter.handle(&message), lose);
        assert_eq!(disposition, Disposition::Ack);
    }

    /// The broker counts what comes back as a crash, and gives up on it one day.
    #[tokio::test]
    async fn what_is_held_at_a_stop_is_put_off() {
        use invoke_protocol::problem::ProblemCode;
        for (refused, expected) in [
            (None, Disposition::Ack),
            (Some(ProblemCode::JobOver), Disposition::Ack),
            (Some(ProblemCode::Unavailable), Disposition::Requeue),
        ] {
            let (world, dispatcher) = (World::new(yours()).await, Dispatcher::new());
            let starter = starter(&world, &dispatcher, 4);
            let message = dispatcher.message(fresh());
            let stop = async {
                until_created(&world).await;
                world.script().refuse_reports = match refused {
                    None => None,
                    Some(ProblemCode::JobOver) => Some(|_| Some(ProblemCode::JobOver)),
                    Some(_) => Some(|_| Some(ProblemCode::Unavailable)),
                };
                starter.stop.cancel();
            };
            let (disposition, ()) = tokio::join!(starter.handle(&message), stop);
            assert_eq!(disposition, expected, "{refused:?}");
            let told = world.script().reports.contains(&Report::Postponed);
            assert_eq!(told, refused.is_none());
            assert_eq!(world.script().pods.len(), 1, "whoever is next adopts it");
        }
    }

    /// A restored store orders again what has run: it is reminded, and no pod is made.
    #[tokio::test]
    async fn what_the_cluster_remembers_is_not_started_again() {
        let (world, disposition) = handled(Script {
            forgotten: true,
            ..yours().with_record(1)
        })
        .await;
        let script = world.script();
        assert_eq!((disposition, script.made), (Disposition::Ack, 0));
        assert!(
            matches!(&script.reports[..], [Report::Recovered { .. }, Report::PodFailed { reason, .. }]
                if reason.code == ReasonCode::StartedBefore)
        );
    }

    /// It fails closed, but says why: nobody would look for a clock.
    #[tokio::test]
    async fn an_order_that_a_wrong_clock_calls_expired_is_refused_with_that_reason() {
        for (behind, said) in [(0, false), (7200, true)] {
            let script = Script {
                clock_ahead: -behind,
                ..yours()
            };
            let (world, dispatcher) = (World::new(script).await, Dispatcher::new());
            let starter = starter(&world, &dispatcher, 4);
            let _any_answer_tells_the_time = world.upstream.claim(job()).await.unwrap();
            let disposition = starter.handle(&dispatcher.message(order())).await;
            assert_eq!(disposition, Disposition::Ack);
            let script = world.script();
            let told = script.reports.iter().any(
                |report| matches!(report, Report::Waiting { reason } if reason.code == ReasonCode::ClockSkew),
            );
            assert_eq!((told, script.made), (said, 0));
        }
    }

    /// Not even a question goes out on account of a message that nobody has signed.
    #[tokio::test]
    async fn a_forged_message_has_no_effect() {
        let world = World::new(yours()).await;
        let starter = starter(&world, &Dispatcher::new(), 4);
        let disposition = starter.handle(&Dispatcher::new().message(fresh())).await;
        assert_eq!(disposition, Disposition::DeadLetter);
        let script = world.script();
        assert_eq!(
            (script.claims, script.made, script.reports.len()),
            (0, 0, 0)
        );
    }

    #[tokio::test]
    async fn an_unknown_profile_is_refused_to_the_dispatcher() {
        let (world, dispatcher) = (World::new(yours()).await, Dispatcher::new());
        let message = dispatcher.message(OrderV1 {
            profile: "root".parse().unwrap(),
            ..fresh()
        });
        assert_eq!(
            starter(&world, &dispatcher, 4).handle(&message).await,
            Disposition::Ack
        );
        let script = world.script();
        assert!(
            matches!(&script.reports[..], [Report::Rejected { reason }] if reason.code == ReasonCode::UnknownProfile)
        );
        assert_eq!((script.claims, script.made), (0, 0));
    }

    #[tokio::test]
    async fn what_waits_for_a_slot_says_so() {
        let (world, dispatcher) = (World::new(yours()).await, Dispatcher::new());
        let starter = starter(&world, &dispatcher, 1);
        let _taken = starter
            .slots
            .try_take("0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4bff".parse().unwrap())
            .unwrap();
        let message = dispatcher.message(fresh());
        let told = async {
            while world.script().reports.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            disposition = starter.handle(&message) => panic!("{disposition:?}"),
            () = told => {}
        }
        let script = world.script();
        assert!(
            matches!(&script.reports[..], [Report::Waiting { reason }] if reason.code == ReasonCode::RunnerBusy)
        );
        assert_eq!(script.made, 0);
    }
}
