//! Brings one order from the queue to its start: claim, slot, pod, and then the wait for the permit.
//!
//! ```text
//!  judged ──▶ claim ──▶ slot ──▶ pod ──▶ reported ──▶ wait ── permit granted, by any replica ──▶ Ack
//!               │                 └─ refused by Kubernetes ──▶ reported ──────────────────────▶ Ack
//!               └─ over, or started elsewhere ────────────────────────────────────────────────▶ Ack
//! ```
//!
//! The message is held until the permit, so that a runner that dies before has it redelivered to
//! another one; and no longer, because the broker takes back what is held for half an hour.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use invoke_protocol::id::JobId;
use invoke_protocol::runner::{Claim, Report};
use invoke_protocol::state::{Reason, ReasonCode};
use invoke_protocol::topology::pod_name;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::clock;
use crate::config::Config;
use crate::job_pod::JobPod;
use crate::order::{Accepted, Trust, Verdict};
use crate::pool::{self, Pool};
use crate::report::chain;
use crate::slots::Slots;
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

/// How long a message is held: well under the half hour after which RabbitMQ closes the channel, with
/// everything else that is held on it.
const HOLD: Duration = Duration::from_secs(20 * 60);

/// How often to ask whether another replica has seen the permit, or the job is over.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// For how long to try to reach the dispatcher before another replica may.
const REACH: Duration = Duration::from_secs(60);

/// What starting takes.
pub(crate) struct Starter {
    pub(crate) trust: Trust,
    pub(crate) config: Arc<Config>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) slots: Slots,
    pub(crate) pool: Pool,
    /// Jobs whose permit this replica has handed on.
    pub(crate) granted: broadcast::Sender<JobId>,
}

impl Starter {
    /// Does all there is to do about one message.
    pub(crate) async fn handle(&self, message: &[u8]) -> Disposition {
        let offers = |profile: &_| self.config.profiles.contains_key(profile);
        match self.trust.judge(message, offers, clock::now()) {
            Verdict::Accepted(accepted) => self.start(&accepted).await,
            Verdict::Expired(job) => {
                tracing::info!(job.id = %job, "order for job {job} has expired and is forgotten");
                Disposition::Ack
            }
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

    async fn start(&self, accepted: &Accepted) -> Disposition {
        let job = accepted.order.job;
        let held = tokio::time::timeout(HOLD, self.bring_to_start(accepted)).await;
        held.unwrap_or_else(|_elapsed| {
            tracing::info!(job.id = %job, "job {job} still waits for its start; its message goes round once more");
            Disposition::Requeue
        })
    }

    async fn bring_to_start(&self, accepted: &Accepted) -> Disposition {
        let job = accepted.order.job;
        // Before there is a pod that could ask for its permit: a grant must not be missed.
        let granted = self.granted.subscribe();
        match self.persist(|| self.upstream.claim(job)).await {
            Ok(Claim::Yours) => tracing::info!(job.id = %job, "job {job} is claimed"),
            Ok(done) => return self.give_up(job, done).await,
            Err(error) => return undecided(job, &error),
        }
        tokio::select! {
            disposition = self.until_decided(job, granted) => disposition,
            disposition = self.make_pod(accepted) => disposition,
        }
    }

    /// Waits for this replica to hand the permit on, or for the dispatcher to say that another has, or
    /// that the job is over.
    async fn until_decided(
        &self,
        job: JobId,
        mut granted: broadcast::Receiver<JobId>,
    ) -> Disposition {
        loop {
            tokio::select! {
                () = grant_of(job, &mut granted) => return Disposition::Ack,
                () = tokio::time::sleep(ASK_AGAIN) => {}
            }
            match self.upstream.claim(job).await {
                Ok(Claim::Yours) => {}
                Ok(done) => return self.give_up(job, done).await,
                Err(error) => tracing::warn!(job.id = %job, "job {job} waits: {}", chain(&error)),
            }
        }
    }

    /// Makes the pod. Returns only when it must not be waited for.
    async fn make_pod(&self, accepted: &Accepted) -> Disposition {
        let job = accepted.order.job;
        let slot = match self.slots.try_take(job) {
            Some(slot) => slot,
            None => {
                let words = format!(
                    "the cluster runs {} jobs, as many as its runner takes at once",
                    self.config.max_jobs
                );
                self.tell(
                    job,
                    &Report::Waiting {
                        reason: Reason::new(ReasonCode::RunnerBusy, words),
                    },
                )
                .await;
                self.slots.take(job).await
            }
        };
        match self.provide(accepted).await {
            Ok(()) => self.tell(job, &Report::PodCreated).await,
            Err(reason) => {
                tracing::warn!(job.id = %job, "job {job} gets no pod: {}", reason.message);
                return self
                    .tell_last(job, &Report::PodFailed { pod: None, reason })
                    .await;
            }
        }
        // Kept until the message is done with: by then the pod counts by itself.
        let _slot = slot;
        std::future::pending().await
    }

    async fn provide(&self, accepted: &Accepted) -> Result<(), Reason> {
        let job = accepted.order.job;
        let mut waits = waits();
        loop {
            match self.pool.provide(accepted).await {
                Ok(uid) => {
                    tracing::info!(job.id = %job, pod.uid = %uid, "job {job} has its pod");
                    return Ok(());
                }
                Err(pool::Error::Refused(reason)) => return Err(reason),
                Err(error) => {
                    let words = chain(&error);
                    tracing::warn!(job.id = %job, "job {job} has no pod yet: {words}");
                    self.tell(
                        job,
                        &Report::Waiting {
                            reason: Reason::new(ReasonCode::PodRefused, words),
                        },
                    )
                    .await;
                }
            }
            tokio::time::sleep(waits.next().unwrap_or(LONGEST_WAIT)).await;
        }
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

/// Waits until this replica hands on the permit of a job. Grants that are missed because there are too
/// many at once are found out by asking.
async fn grant_of(job: JobId, granted: &mut broadcast::Receiver<JobId>) {
    loop {
        match granted.recv().await {
            Ok(other) if other != job => {}
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
            granted: broadcast::channel(4).0,
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

    /// Hands the permit on once the dispatcher was told of the pod.
    async fn grant_when_created(world: &World, starter: &Starter) {
        while !world.script().reports.contains(&Report::PodCreated) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        starter.granted.send(job()).unwrap();
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
            refuse_pod: Some((403, "exceeded quota: few")),
            ..yours()
        })
        .await;
        assert_eq!(disposition, Disposition::Ack);
        let reason = Reason::new(ReasonCode::PodRefused, "exceeded quota: few");
        assert_eq!(
            world.script().reports,
            [Report::PodFailed { pod: None, reason }]
        );
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
