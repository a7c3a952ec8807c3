//! One look at one schedule, in one transaction.

use std::sync::Arc;

use invoke_protocol::id::{FanOutId, JobId, ScheduleId};
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::schedule::{
    NotifyOn, ScheduleState, Tick as ShownTick, TickCause, TickOutcome, TickResult,
};
use invoke_protocol::state::Event;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::decision::{Choice, Decision, Due, Entry, Situation, choose, decide};
use super::{blackout_words, fire_at, launch, start_deadline, window_deadline};
use crate::access::{Action, Principal};
use crate::app::App;
use crate::fanout::command::{Command, obey};
use crate::problem::Refusal;
use crate::store::clusters::{self, StoredCluster};
use crate::store::schedules::{self, StoredSchedule};
use crate::store::ticks::{self, StoredTick};
use crate::store::transition::Change;
use crate::store::{self, Session};
use crate::timing::{Plan, Tick};
use crate::waiting;

/// How many ticks are decided in one look: the next look goes on.
const AT_ONCE: usize = 500;

/// A look at a schedule. Dropped without [`Look::finish`], it never was.
pub struct Look<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) session: Session,
    pub(super) now: Timestamp,
    /// The schedule, as it will be.
    pub(super) schedule: StoredSchedule,
    /// The cluster of its runs: none of many, or if it is there no more.
    pub(super) cluster: Option<StoredCluster>,
    /// Why calendars allow nothing to start at this moment, if so.
    pub(super) closed: Option<String>,
    /// The ticks that wait or run, the oldest first, as they will be.
    pub(super) open: Vec<StoredTick>,
    /// The jobs to cancel when all this is durable.
    pub(super) to_cancel: Vec<JobId>,
    /// The fan-outs likewise.
    pub(super) fanouts_to_cancel: Vec<FanOutId>,
}

/// Somebody else has the schedule, or had it and changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

impl<'a> Look<'a> {
    /// Looks at a schedule, and does what is due.
    ///
    /// # Errors
    /// [`store::Error`]; then nothing was done.
    pub async fn at(app: &'a Arc<App>, id: ScheduleId, now: Timestamp) -> Result<(), store::Error> {
        let Some(mut look) = Self::begin(app, id, now).await? else {
            return Ok(());
        };
        look.conclude().await?;
        let calendars = &app.calendars;
        let calendars = calendars.of(&mut look.session, &look.schedule.spec).await?;
        match Plan::new(&look.schedule.spec.timing, calendars) {
            Ok(plan) => {
                look.decide_waiting().await?;
                look.decide_due(&plan).await?;
            }
            // It was checked when it was made: the rules of time zones are others now.
            Err(error) => {
                look.suspend(&format!(
                    "it cannot be told any more when it is due: {error}"
                ));
                look.schedule.due_at = None;
            }
        }
        // Whoever was faster did the same.
        look.finish().await.map(drop)
    }

    /// Holds a schedule; `None` if it is gone, or somebody else holds it.
    ///
    /// # Errors
    /// [`store::Error`].
    pub async fn begin(
        app: &'a Arc<App>,
        id: ScheduleId,
        now: Timestamp,
    ) -> Result<Option<Self>, store::Error> {
        let mut session = app.store.write().await?;
        match schedules::for_a_look(&mut session, id).await? {
            Some(schedule) => Ok(Some(Self::of(app, session, schedule, now).await?)),
            None => Ok(None),
        }
    }

    /// A look at a schedule that is held in a session.
    ///
    /// # Errors
    /// [`store::Error`].
    pub async fn of(
        app: &'a Arc<App>,
        mut session: Session,
        schedule: StoredSchedule,
        now: Timestamp,
    ) -> Result<Self, store::Error> {
        let open = ticks::open(&mut session, schedule.id).await?;
        let cluster = match &schedule.spec.run.job().cluster {
            Some(name) => clusters::by_name(&mut session, name).await?,
            None => None,
        };
        let calendars = app.calendars.of(&mut session, &schedule.spec).await?;
        let closed = calendars.blackout(now).as_ref().map(blackout_words);
        Ok(Self {
            app,
            session,
            now,
            schedule,
            cluster,
            closed,
            open,
            to_cancel: Vec::new(),
            fanouts_to_cancel: Vec::new(),
        })
    }

    /// The schedule, as it will be.
    #[must_use]
    pub const fn schedule(&self) -> &StoredSchedule {
        &self.schedule
    }

    /// The same, to be changed.
    pub const fn schedule_mut(&mut self) -> &mut StoredSchedule {
        // Whatever is changed may change what is due.
        self.schedule.due_at = Some(self.now);
        &mut self.schedule
    }

    /// Takes down who did what, for the audit log.
    ///
    /// # Errors
    /// [`store::Error`].
    pub async fn record(&mut self, who: &str, action: &str) -> Result<(), store::Error> {
        schedules::record(&mut self.session, &self.schedule, who, action, self.now).await
    }

    /// Why the owner may not have the schedule run, if so.
    ///
    /// # Errors
    /// [`Refusal`] if that cannot be told.
    pub async fn owner_may_not(&mut self) -> Result<Option<String>, Refusal> {
        let owner = self.schedule.owner.clone();
        let Some(principal) = Principal::absent(&mut self.session, &owner).await? else {
            return Ok(Some(format!(
                "its owner {owner} has no valid credential any more"
            )));
        };
        match self.check_for(&principal) {
            Ok(()) => Ok(None),
            Err(refusal) if refusal.code() == ProblemCode::Forbidden => {
                Ok(Some(refusal.detail().to_owned()))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether somebody may do what the schedule does.
    ///
    /// # Errors
    /// [`Refusal`] if they may not.
    pub fn check_for(&self, principal: &Principal) -> Result<(), Refusal> {
        // Which clusters a fan-out is for is known at its tick, and decided then.
        if let Some(cluster) = &self.cluster {
            principal.may(Action::Run {
                cluster,
                profile: &self.schedule.spec.run.job().profile,
            })?;
        }
        Ok(())
    }

    /// Writes what has become of the schedule, and makes all of it durable; then cancels what is to be cancelled.
    ///
    /// # Errors
    /// [`store::Error`].
    pub async fn finish(mut self) -> Result<Result<(), Lost>, store::Error> {
        self.schedule.version += 1;
        if !schedules::write(&mut self.session, &self.schedule).await? {
            return Ok(Err(Lost));
        }
        self.session.commit().await?;
        self.app.broker.wake();
        for fanout in self.open.iter().filter_map(|tick| tick.fanout) {
            self.app.store.events().fanout_changed(fanout);
        }
        let by = format!("schedule {}", self.schedule.name);
        for job in self.to_cancel {
            let change = Change {
                job,
                scope: None,
                by: &by,
                now: self.now,
            };
            let cancel = |_: &_| Event::Cancel {
                by: by.clone(),
                grace_seconds: None,
            };
            // A job that is over meanwhile refuses, and is as it was to be.
            self.app.store.change(change, cancel).await?;
        }
        for fanout in self.fanouts_to_cancel {
            let command = Command::Cancel {
                grace_seconds: None,
            };
            let cancelled = obey(&self.app.store, fanout, command, &by, self.now).await;
            if let Err(refusal) = cancelled {
                tracing::info!(fanout.id = %fanout, "fan-out {fanout} is not cancelled: {}", refusal.detail());
            }
        }
        Ok(Ok(()))
    }

    /// Runs the schedule at once, because somebody asked for it. The key is the same for the same request.
    ///
    /// # Errors
    /// [`store::Error`].
    pub async fn run_by_hand(
        &mut self,
        key: Uuid,
    ) -> Result<Result<ShownTick, Entry>, store::Error> {
        let name = self.schedule.name.clone();
        if let Some(tick) = ticks::by_request(&mut self.session, self.schedule.id, key).await? {
            return Ok(Ok(tick.view(&name)));
        }
        self.conclude().await?;
        let mut tick = self.new_tick(self.now, Choice::InTime);
        (tick.by_hand, tick.request_key) = (true, Some(key));
        let decision = self.decision(&tick, Choice::InTime, self.closed.clone());
        if let Decision::Never(entry) = decision {
            return Ok(Err(entry));
        }
        self.carry_out(&mut tick, decision).await?;
        if tick.outcome == TickOutcome::Refused {
            let cause = tick.cause.unwrap_or(TickCause::NotAllowed);
            return Ok(Err(Entry::new(tick.outcome, cause, tick.message)));
        }
        self.enter(tick.clone()).await?;
        Ok(Ok(tick.view(&name)))
    }

    /// Decides again about the ticks that wait.
    async fn decide_waiting(&mut self) -> Result<(), store::Error> {
        for index in 0..self.open.len() {
            let Some(mut tick) = self.open.get(index).cloned() else {
                break;
            };
            if !tick.outcome.is_waiting() {
                continue;
            }
            let decision = match self.given_up(&tick) {
                Some(entry) => Decision::Never(entry),
                None => {
                    let choice = match tick.caught_up {
                        true => Choice::CatchUp,
                        false => Choice::InTime,
                    };
                    self.decision(&tick, choice, self.closed.clone())
                }
            };
            self.carry_out(&mut tick, decision).await?;
            if self.open.get(index) != Some(&tick) {
                ticks::write(&mut self.session, &tick).await?;
                self.told(&tick).await?;
            }
            if let Some(slot) = self.open.get_mut(index) {
                *slot = tick;
            }
        }
        Ok(())
    }

    /// Why a tick waits no longer, if it does not.
    fn given_up(&self, tick: &StoredTick) -> Option<Entry> {
        if tick.revision != self.schedule.revision || self.schedule.deleted_at.is_some() {
            let message = "the schedule was changed or deleted while it waited";
            return Some(Entry::new(TickOutcome::Skipped, TickCause::ByHand, message));
        }
        if self.now <= tick.start_deadline {
            return None;
        }
        let cause = match tick.cause {
            Some(TickCause::ClusterOffline) => TickCause::ClusterOffline,
            _ => TickCause::TooLate,
        };
        let message = match tick.message.as_str() {
            "" => "it was too late to start".to_owned(),
            message => format!("{message}, until it was too late to start"),
        };
        Some(Entry::new(TickOutcome::Missed, cause, message))
    }

    /// Decides about the ticks that are due and were never decided, and says when the next one is.
    async fn decide_due(&mut self, plan: &Plan) -> Result<(), store::Error> {
        if self.schedule.deleted_at.is_some() {
            self.schedule.due_at = None;
            return Ok(());
        }
        let (id, now) = (self.schedule.id, self.now);
        let mut coming = plan.ticks_after(self.schedule.decided_until).peekable();
        let mut due = Vec::new();
        // A few more than are decided: which of them are caught up depends on those that come after.
        let most = AT_ONCE + invoke_protocol::schedule::MAX_CAUGHT_UP as usize;
        let is_due = |tick: &Tick| fire_at(id, &self.schedule.spec, tick.instant) <= now;
        while due.len() < most
            && let Some(tick) = coming.next_if(is_due)
        {
            due.push(tick);
        }
        let next = due.get(AT_ONCE).or_else(|| coming.peek());
        self.schedule.due_at = next.map(|next| fire_at(id, &self.schedule.spec, next.instant));
        let deadlines = due.iter().map(|tick| self.due(tick.instant));
        let choices = choose(
            &deadlines.collect::<Vec<_>>(),
            self.schedule.spec.catch_up,
            now,
        );
        for (tick, choice) in due.into_iter().zip(choices).take(AT_ONCE) {
            self.decide_new(tick, choice).await?;
        }
        Ok(())
    }

    fn due(&self, instant: Timestamp) -> Due {
        Due {
            start_deadline: start_deadline(self.schedule.id, &self.schedule.spec, instant),
            window_deadline: window_deadline(&self.schedule.spec, instant),
        }
    }

    async fn decide_new(&mut self, tick: Tick, choice: Choice) -> Result<(), store::Error> {
        let blackout = tick.blackout.as_ref().map(blackout_words);
        let blackout = blackout.or_else(|| self.closed.clone());
        let mut entry = self.new_tick(tick.instant, choice);
        let decision = self.decision(&entry, choice, blackout);
        if matches!(&decision, Decision::Never(entry) if entry.cause == TickCause::ByHand) {
            self.schedule.skip_next = false;
        }
        self.carry_out(&mut entry, decision).await?;
        self.schedule.decided_until = tick.instant;
        self.enter(entry).await
    }

    fn new_tick(&self, instant: Timestamp, choice: Choice) -> StoredTick {
        StoredTick {
            schedule: self.schedule.id,
            revision: self.schedule.revision,
            instant,
            by_hand: false,
            outcome: TickOutcome::Skipped,
            cause: None,
            message: String::new(),
            decided_at: self.now,
            lateness: None,
            start_deadline: self.now,
            caught_up: choice == Choice::CatchUp,
            attempts: 0,
            job: None,
            fanout: None,
            open: false,
            look_at: self.now,
            told_long: false,
            result: None,
            request_key: None,
        }
    }

    /// Makes the entry of a tick that was decided just now.
    async fn enter(&mut self, tick: StoredTick) -> Result<(), store::Error> {
        if !ticks::add(&mut self.session, &tick).await? {
            // Only a moment that was decided under this revision before, which `decided_until` is to prevent.
            tracing::error!(
                alarm = true,
                "schedule {}: the tick of {} was decided before, and is not again",
                self.schedule.name,
                tick.instant
            );
            return Ok(());
        }
        self.told(&tick).await?;
        if tick.open {
            self.open.push(tick);
        }
        Ok(())
    }

    async fn told(&mut self, tick: &StoredTick) -> Result<(), store::Error> {
        tracing::info!(
            schedule.id = %self.schedule.id,
            "schedule {}: the tick of {} is {}",
            self.schedule.name,
            tick.instant,
            tick.outcome.as_str()
        );
        match tick.outcome {
            TickOutcome::Missed | TickOutcome::Refused => self.notify(NotifyOn::Missed, tick).await,
            _ => Ok(()),
        }
    }

    fn decision(&self, tick: &StoredTick, choice: Choice, blackout: Option<String>) -> Decision {
        let absence = self.absence();
        let waits = tick.outcome.is_waiting();
        let mut others = self
            .open
            .iter()
            .filter(|other| (other.instant, other.revision) != (tick.instant, tick.revision));
        let another_waits = others
            .clone()
            .any(|other| other.outcome.is_waiting() && (!waits || other.instant < tick.instant));
        let situation = Situation {
            state: &self.schedule.state,
            blackout,
            skip_next: self.schedule.skip_next,
            choice,
            by_hand: tick.by_hand,
            waits,
            overlap: self.schedule.spec.overlap,
            run_goes_on: others.any(|other| other.outcome.is_run()),
            another_waits,
            absence,
            if_offline: self.schedule.spec.run.job().if_offline,
        };
        decide(&situation)
    }

    /// Why the cluster of the schedule's runs cannot be reached. Many clusters are the fan-out's to ask for.
    fn absence(&self) -> Option<String> {
        let cluster = self.cluster.as_ref()?;
        let absence = waiting::absence(&cluster.name, cluster.last_contact, self.now)?;
        Some(absence.message)
    }

    /// Does what was decided about a tick, and has it say so.
    async fn carry_out(
        &mut self,
        tick: &mut StoredTick,
        decision: Decision,
    ) -> Result<(), store::Error> {
        match decision {
            Decision::Run => {
                tick.start_deadline = self.run_deadline(tick);
                launch::launch(self, tick).await?;
            }
            Decision::Wait(entry) => self.wait(tick, entry),
            Decision::CancelAndWait(entry) => {
                let running = self.open.iter().filter(|other| other.outcome.is_run());
                for other in running {
                    self.to_cancel.extend(other.job);
                    self.fanouts_to_cancel.extend(other.fanout);
                }
                self.wait(tick, entry);
            }
            Decision::Never(entry) => {
                tick.open = false;
                self.say(tick, entry);
            }
        }
        Ok(())
    }

    fn wait(&mut self, tick: &mut StoredTick, entry: Entry) {
        if !tick.open || tick.outcome != entry.outcome {
            let due = self.due(tick.instant);
            // Who waits for a run has as long as that takes; who waits for a cluster, as long as a job would.
            tick.start_deadline = match entry.outcome {
                TickOutcome::Queued => due.window_deadline.unwrap_or(Timestamp::MAX),
                _ if tick.open || tick.caught_up || tick.by_hand => self.run_deadline(tick),
                _ => due.start_deadline,
            };
        }
        (tick.open, tick.look_at) = (true, self.now);
        self.say(tick, entry);
    }

    fn say(&self, tick: &mut StoredTick, entry: Entry) {
        let cause = Some(entry.cause);
        let is_new = (tick.outcome, tick.cause) != (entry.outcome, cause);
        if is_new || !tick.open {
            tick.decided_at = self.now;
            tick.message = entry.message;
        }
        (tick.outcome, tick.cause) = (entry.outcome, cause);
    }

    /// The last moment at which the run of a tick may start that is run now.
    fn run_deadline(&self, tick: &StoredTick) -> Timestamp {
        let due = self.due(tick.instant);
        let from_now = start_deadline(self.schedule.id, &self.schedule.spec, self.now);
        let window = due.window_deadline.unwrap_or(Timestamp::MAX);
        let in_time = tick.outcome != TickOutcome::Queued && !tick.caught_up && !tick.by_hand;
        match in_time {
            true => due.start_deadline,
            false => from_now.min(window),
        }
    }

    /// Suspends the schedule: its owner has to see to it.
    pub(super) fn suspend(&mut self, reason: &str) {
        if matches!(self.schedule.state, ScheduleState::Suspended { .. }) {
            return;
        }
        tracing::error!(
            alarm = true,
            schedule.id = %self.schedule.id,
            "schedule {} is suspended: {reason}",
            self.schedule.name
        );
        self.schedule.state = ScheduleState::Suspended {
            since: self.now,
            reason: reason.to_owned(),
        };
    }

    /// How long after its moment and its jitter a tick is run now.
    pub(super) fn lateness(&self, tick: &StoredTick) -> SignedDuration {
        let due = match tick.by_hand {
            true => tick.instant,
            false => fire_at(self.schedule.id, &self.schedule.spec, tick.instant),
        };
        self.now.duration_since(due).max(SignedDuration::ZERO)
    }

    /// Counts a run that is over.
    pub(super) fn count(&mut self, result: TickResult) {
        match result {
            TickResult::Succeeded => self.schedule.failures = 0,
            TickResult::Failed => self.schedule.failures = self.schedule.failures.saturating_add(1),
            TickResult::Cancelled => {}
        }
        let limit = self.schedule.spec.pause_after_failures;
        let is_enough = limit.is_some_and(|limit| self.schedule.failures >= limit.get());
        if is_enough && self.schedule.state == ScheduleState::Active {
            self.schedule.state = ScheduleState::Paused {
                by: "dispatcher".to_owned(),
                since: self.now,
                reason: format!(
                    "{} runs failed, one after the other",
                    self.schedule.failures
                ),
            };
        }
    }
}
