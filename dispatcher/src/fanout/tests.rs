//! The brakes, without a store: a world of clusters whose runners come and go and whose jobs end as they like, with
//! people who cancel and go on in the middle. What is allowed is counted here once more, in another way.

use std::time::Duration;

use invoke_protocol::fanout::{
    ChildCounts, ChildState, ChildStateName, FanOutLimits, FanOutSpec, FanOutState, FanOutStateName,
};
use invoke_protocol::id::{ClusterId, FanOutId, JobId, PodUid};
use invoke_protocol::output::{
    Discarded, EndCause, ExitRecord, ExitStatus, OutputComplete, ResourceUsage, StreamSummary,
};
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::state::{Event, JobState, Reason, ReasonCode, Started, StateName};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::command::{self, Command};
use super::*;
use crate::store::fanout_clusters::StoredChild;
use crate::store::fanouts::StoredFanOut;
use crate::store::jobs::{NewJob, tests::queued_job};

/// A fan-out with its clusters, and what goes on in these.
#[derive(Debug, Clone)]
struct World {
    fanout: StoredFanOut,
    children: Vec<StoredChild>,
    now: Timestamp,
    /// Since when its dispatcher has been listening.
    listening_since: Timestamp,
    /// How many jobs there were.
    jobs: u128,
    /// How many that were no canaries have succeeded since it began or went on.
    succeeded: u32,
    /// How many have failed since.
    failed: u32,
}

/// What can happen.
#[derive(Debug, Clone)]
enum Happening {
    /// A dispatcher looks at it. The cluster at this place in the plan's starts is refused, if there is one.
    Look {
        refuse: Option<usize>,
    },
    /// A command starts.
    Permit(usize),
    /// A job ends.
    End(usize, Ending),
    /// A runner falls silent, or speaks again.
    Silent(usize),
    Speak(usize),
    /// Time passes.
    Wait(u64),
    /// The dispatcher is started again.
    Restart,
    /// People.
    Cancel,
    Resume,
    Retry {
        lost: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Succeeded,
    Failed,
    Lost,
    Expired,
    Cancelled,
}

fn fanout(rollout: &Value, clusters: u32) -> StoredFanOut {
    let mut spec = json!({ "job": { "command": { "shell": "date" } }, "selector": "env" });
    spec.as_object_mut()
        .unwrap()
        .extend(rollout.as_object().unwrap().clone());
    let spec: FanOutSpec = serde_json::from_value(spec).unwrap();
    StoredFanOut {
        id: FanOutId::from_uuid(Uuid::from_u128(1)),
        limits: FanOutLimits {
            clusters,
            canaries: u32::try_from(spec.canary.len()).unwrap(),
            concurrency: spec
                .concurrency
                .map_or(clusters, |share| share.of(clusters).unwrap()),
            max_failures: spec.max_failures.map(|budget| budget.of(clusters).unwrap()),
        },
        spec,
        secret_names: Vec::new(),
        files_upload: None,
        submitted_by: "ada".to_owned(),
        submitted_at: Timestamp::UNIX_EPOCH,
        request_digest: Vec::new(),
        state: FanOutState::Running,
        round: 0,
        version: 1,
        resumable_until: None,
    }
}

impl World {
    /// Clusters `c0`, `c1`, …, all of which speak. Canaries come first.
    fn new(rollout: &Value, clusters: u32) -> Self {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let fanout = fanout(rollout, clusters);
        let children = (0..clusters).map(|position| StoredChild {
            position,
            cluster: ClusterId::from_uuid(Uuid::from_u128(position.into())),
            cluster_name: format!("c{position}").parse().unwrap(),
            cluster_last_contact: Some(now),
            canary: position < fanout.limits.canaries,
            state: ChildState::new(),
            round: 0,
            attempt: 1,
            job: None,
        });
        Self {
            children: children.collect(),
            fanout,
            now,
            listening_since: Timestamp::UNIX_EPOCH,
            jobs: 0,
            succeeded: 0,
            failed: 0,
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Look { refuse } => self.look(refuse),
            Happening::Permit(index) => {
                if let Some(job) = self
                    .open_job(index)
                    .filter(|job| job.started() == Started::No)
                {
                    *job = JobState::Running {
                        pod: PodUid::from_uuid(Uuid::from_u128(9)),
                        since: Timestamp::UNIX_EPOCH,
                    };
                }
            }
            Happening::End(index, ending) => {
                let now = self.now;
                if let Some(job) = self.open_job(index) {
                    *job = ended(job, ending, now);
                }
            }
            Happening::Silent(index) => self.hear(index, Some(Timestamp::UNIX_EPOCH)),
            Happening::Speak(index) => self.hear(index, None),
            Happening::Wait(seconds) => self.wait(seconds),
            Happening::Restart => self.listening_since = self.now,
            Happening::Cancel => self.obey(Command::Cancel {
                grace_seconds: None,
            }),
            Happening::Resume => self.obey(Command::Resume),
            Happening::Retry { lost } => self.obey(Command::RetryFailed { lost }),
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.now,
            listening_since: self.listening_since,
        }
    }

    /// As a dispatcher that looks until there is nothing to do.
    fn rest(&mut self) {
        while !plan(&self.fanout, &self.children, self.moment()).is_empty() {
            self.look(None);
        }
    }

    /// As a dispatcher that looks once.
    fn look(&mut self, refuse: Option<usize>) {
        let steps = plan(&self.fanout, &self.children, self.moment());
        let mut draft = Draft::of(self.fanout.clone(), self.children.clone());
        let mut starts = 0;
        for step in &steps {
            let Step::Start(position) = step else {
                carry_out(&mut draft, step.clone(), self.now).unwrap();
                continue;
            };
            starts += 1;
            if refuse == Some(starts) {
                let refused = ChildEvent::Refuse {
                    code: ProblemCode::UnknownProfile,
                    message: "no such profile".to_owned(),
                };
                draft.apply_to(*position, &refused, BY, self.now).unwrap();
                break;
            }
            self.check_start(&draft, *position);
            self.jobs += 1;
            let job = new_job(self.jobs);
            draft.start(*position, job, BY, self.now).unwrap();
        }
        self.take(&draft, &steps);
        self.check();
    }

    /// No start but of a canary before all canaries have succeeded, and none that is one too many.
    fn check_start(&self, draft: &Draft, position: u32) {
        assert_eq!(
            draft.fanout().state,
            FanOutState::Running,
            "a start after the stop"
        );
        let children = draft.children();
        let running = children
            .iter()
            .filter(|child| is(child, ChildStateName::Running))
            .count();
        let mut canaries = children.iter().filter(|child| child.canary);
        let are_canaries_done = canaries.all(|child| is(child, ChildStateName::Succeeded));
        let drafted = |is_meant: &dyn Fn(&StoredChild) -> bool| -> usize {
            let both = children.iter().zip(&self.children);
            let changed = both.filter(|(after, before)| after.state != before.state);
            changed.filter(|(after, _)| is_meant(after)).count()
        };
        let succeeded = self.succeeded as usize
            + drafted(&|child| !child.canary && is(child, ChildStateName::Succeeded));
        let failed = self.failed as usize + drafted(&|child| child.state.name().is_failure());
        let most = self.fanout.limits.max_failures.unwrap_or(u32::MAX);
        assert!(failed <= most as usize, "a start after {failed} failures");
        let limits = self.fanout.limits;
        let allowed = match (are_canaries_done, self.fanout.spec.ramp) {
            (false, _) => limits.concurrency.min(limits.canaries) as usize,
            (true, true) => (limits.concurrency as usize).min(1 + succeeded),
            (true, false) => limits.concurrency as usize,
        };
        assert!(running < allowed, "{running} run, and {allowed} may");
        let child = &children[position as usize];
        assert!(
            are_canaries_done || child.canary,
            "{} before the canaries",
            child.cluster_name
        );
        let speaks =
            crate::waiting::absence(&child.cluster_name, child.cluster_last_contact, self.now);
        assert_eq!(speaks, None, "a start on a cluster that is away");
    }

    fn take(&mut self, draft: &Draft, steps: &[Step]) {
        for (after, before) in draft.children().iter().zip(&self.children) {
            if after.state == before.state {
                continue;
            }
            self.succeeded += u32::from(!after.canary && is(after, ChildStateName::Succeeded));
            self.failed += u32::from(after.state.name().is_failure());
        }
        if draft.fanout().round != self.fanout.round {
            (self.succeeded, self.failed) = (0, 0);
        }
        self.fanout = draft.fanout().clone();
        self.children = draft.children().to_vec();
        for child in &mut self.children {
            if child.state.job().is_some() && child.job.is_none() {
                child.job = Some(JobState::Queued);
            }
        }
        for step in steps {
            if let Step::Cancel { job, grace_seconds } = step {
                self.cancel(*job, *grace_seconds);
            }
        }
    }

    fn cancel(&mut self, job: JobId, grace_seconds: Option<u64>) {
        let event = Event::Cancel {
            by: "ada".to_owned(),
            grace_seconds,
        };
        let mut children = self.children.iter_mut();
        let child = children
            .find(|child| child.state.job() == Some(job))
            .unwrap();
        child.job = Some(child.job.clone().unwrap().on(event, self.now).unwrap());
    }

    /// What must be so after every look.
    fn check(&self) {
        let state = self.fanout.state.name();
        if state != FanOutStateName::Running {
            for child in &self.children {
                let unstarted = child.job.as_ref().map(JobState::started) == Some(Started::No);
                let is_open = child.job.as_ref().is_some_and(|job| !job.is_terminal());
                assert!(
                    !(unstarted && is_open),
                    "{} can start after the stop",
                    child.cluster_name
                );
                assert!(
                    !is(child, ChildStateName::Pending),
                    "{} waits",
                    child.cluster_name
                );
            }
        }
        if self.fanout.state.is_over() {
            assert!(plan(&self.fanout, &self.children, self.moment()).is_empty());
            let counts = self.counts();
            assert_eq!(counts.running + counts.pending, 0, "{counts:?}");
            let clusters = self.fanout.limits.clusters;
            assert_eq!(counts.all(), clusters);
            match state {
                FanOutStateName::Succeeded => assert_eq!(counts.succeeded, clusters),
                FanOutStateName::Incomplete => assert!(counts.succeeded < clusters),
                _ => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let mut draft = Draft::of(self.fanout.clone(), self.children.clone());
        let before = self.clone();
        if command::draft(&mut draft, command, "ada", self.now).is_err() {
            return;
        }
        let cancels: Vec<_> = match command {
            Command::Cancel { .. } => plan_of_cancel(&before, draft.fanout()),
            _ => {
                assert_eq!(before.counts().running, 0, "it went on while something ran");
                Vec::new()
            }
        };
        for (after, before) in draft.children().iter().zip(&before.children) {
            let lost = matches!(before.job, Some(JobState::Lost { .. }));
            let is_retried = is(after, ChildStateName::Pending) && after.attempt > before.attempt;
            let says_so = matches!(command, Command::RetryFailed { lost: true });
            assert!(
                !(lost && is_retried) || says_so,
                "a lost one was tried again unasked"
            );
        }
        self.take(&draft, &cancels);
    }

    fn counts(&self) -> ChildCounts {
        let mut counts = ChildCounts::default();
        for child in &self.children {
            counts.add(child.state.name(), 1);
        }
        counts
    }

    fn open_job(&mut self, index: usize) -> Option<&mut JobState> {
        let jobs = self
            .children
            .iter_mut()
            .filter_map(|child| child.job.as_mut());
        let mut open: Vec<_> = jobs.filter(|job| !job.is_terminal()).collect();
        match open.len() {
            0 => None,
            count => Some(open.swap_remove(index % count)),
        }
    }

    fn hear(&mut self, index: usize, last_contact: Option<Timestamp>) {
        let count = self.children.len();
        self.children[index % count].cluster_last_contact = Some(last_contact.unwrap_or(self.now));
    }

    /// Those that spoke speak on.
    fn wait(&mut self, seconds: u64) {
        let before = self.now;
        self.now += Duration::from_secs(seconds);
        for child in &mut self.children {
            if child.cluster_last_contact == Some(before) {
                child.cluster_last_contact = Some(self.now);
            }
        }
    }

    /// Everything comes to its end.
    fn come_to_an_end(&mut self) {
        for _ in 0..200 {
            if self.fanout.state.is_over() {
                return;
            }
            self.look(None);
            while self.open_job(0).is_some() {
                self.happen(&Happening::End(0, Ending::Succeeded));
            }
            self.wait(3600);
        }
        panic!("it never ends: {self:?}");
    }

    /// One letter a cluster.
    fn picture(&self) -> String {
        let letter = |child: &StoredChild| match child.state.name() {
            ChildStateName::Pending => '.',
            ChildStateName::Running => 'R',
            ChildStateName::Succeeded => 'S',
            ChildStateName::Failed => 'F',
            ChildStateName::Refused => 'X',
            ChildStateName::Offline => 'O',
            ChildStateName::Skipped => '-',
            ChildStateName::NotStarted => 'n',
            ChildStateName::Cancelled => 'c',
            ChildStateName::Unknown => '?',
        };
        let letters: String = self.children.iter().map(letter).collect();
        format!("{letters} {}", self.fanout.state.name())
    }
}

fn is(child: &StoredChild, state: ChildStateName) -> bool {
    child.state.name() == state
}

/// The cancels that a command drafts are those that the plan has after it.
fn plan_of_cancel(before: &World, after: &StoredFanOut) -> Vec<Step> {
    let steps = plan(after, &before.children, before.moment());
    steps
        .into_iter()
        .filter(|step| matches!(step, Step::Cancel { .. }))
        .collect()
}

fn new_job(number: u128) -> NewJob {
    let job = queued_job();
    NewJob {
        id: JobId::from_uuid(Uuid::from_u128(number)),
        cluster: job.cluster,
        profile: job.profile,
        command: job.command,
        submitted_by: job.submitted_by,
        start_deadline: job.start_deadline,
        run_timeout_seconds: None,
        idempotency_key: Uuid::from_u128(number),
        request_digest: Vec::new(),
        files: None,
        environment: job.environment,
        secrets: None,
        stdin: false,
        tick: None,
        fanout: None,
    }
}

fn ended(job: &JobState, ending: Ending, at: Timestamp) -> JobState {
    let output = OutputComplete::Yes;
    let reason = || Reason::new(ReasonCode::NoReport, "words");
    let has_started = job.started() != Started::No;
    match ending {
        Ending::Succeeded => JobState::Succeeded {
            exit: exit(0),
            output,
            at,
        },
        Ending::Failed => JobState::Failed {
            exit: exit(7),
            output,
            at,
        },
        Ending::Lost => JobState::Lost {
            reason: reason(),
            exit: None,
            output,
            at,
        },
        Ending::Expired if has_started => JobState::TimedOut {
            exit: exit(143),
            output,
            at,
        },
        Ending::Expired => JobState::Expired {
            reason: reason(),
            at,
        },
        Ending::Cancelled => JobState::Cancelled {
            by: "bob".to_owned(),
            exit: has_started.then(|| exit(143)),
            output,
            at,
        },
    }
}

fn exit(code: u8) -> ExitRecord {
    let nothing = StreamSummary {
        bytes: 0,
        sha256: "e3b0".to_owned(),
    };
    ExitRecord {
        status: ExitStatus::Exited(code),
        cause: EndCause::Itself,
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        log_bytes: 0,
        stdout: nothing.clone(),
        stderr: nothing,
        usage: ResourceUsage::default(),
        out_of_memory: false,
        incomplete: None,
        discarded: Discarded::default(),
        artifacts: None,
    }
}

/// Plays a story: what happens in each line, and the picture when all was done.
fn story(rollout: &Value, clusters: u32, happenings: &[(&str, Happening)]) -> (World, String) {
    let mut world = World::new(rollout, clusters);
    world.rest();
    let mut text = format!("{:<24}{}\n", "", world.picture());
    for (words, happening) in happenings {
        world.happen(happening);
        world.rest();
        text += &format!("{words:<24}{}\n", world.picture());
    }
    (world, text)
}

const SUCCESS: Happening = Happening::End(0, Ending::Succeeded);
const FAILURE: Happening = Happening::End(0, Ending::Failed);

#[test]
fn a_ramp_doubles_behind_its_canary() {
    let rollout = json!({ "canary": ["c0"], "ramp": true, "concurrency": 6 });
    let succeed = ("one succeeds", SUCCESS);
    let (_, text) = story(&rollout, 12, &[(); 12].map(|()| succeed.clone()));
    insta::assert_snapshot!(text, @r"
                            R........... running
    one succeeds            SR.......... running
    one succeeds            SSRR........ running
    one succeeds            SSSRRR...... running
    one succeeds            SSSSRRRR.... running
    one succeeds            SSSSSRRRRR.. running
    one succeeds            SSSSSSRRRRRR running
    one succeeds            SSSSSSSRRRRR running
    one succeeds            SSSSSSSSRRRR running
    one succeeds            SSSSSSSSSRRR running
    one succeeds            SSSSSSSSSSRR running
    one succeeds            SSSSSSSSSSSR running
    one succeeds            SSSSSSSSSSSS succeeded
    ");
}

#[test]
fn a_canary_that_fails_stops_it_before_anything_else_has_started() {
    let rollout = json!({ "canary": ["c0", "c1"], "max_failures": 5 });
    let happenings = [("a canary fails", FAILURE), ("the other succeeds", SUCCESS)];
    let (world, text) = story(&rollout, 4, &happenings);
    insta::assert_snapshot!(text, @r"
                            RR.. running
    a canary fails          Fnnn stopped
    the other succeeds      Fnnn stopped
    ");
    insta::assert_snapshot!(world.fanout.reason().unwrap().message, @r"
    canary c0 did not succeed (failed), so no other cluster is started
    ");
}

#[test]
fn one_failure_too_many_stops_it() {
    let rollout = json!({ "concurrency": 2, "max_failures": 1 });
    let happenings = [
        ("one fails", FAILURE),
        ("one succeeds", SUCCESS),
        ("one fails", FAILURE),
        ("it is to go on", Happening::Resume),
        ("one fails", FAILURE),
        ("one fails", FAILURE),
        ("failed ones are retried", Happening::Retry { lost: false }),
        ("one succeeds", SUCCESS),
    ];
    let (mut world, text) = story(&rollout, 6, &happenings);
    insta::assert_snapshot!(text, @r"
                            RR.... running
    one fails               FRR... running
    one succeeds            FSRR.. running
    one fails               FSFnnn stopped
    it is to go on          FSFRR. running
    one fails               FSFFRR running
    one fails               FSFFFn stopped
    failed ones are retried RSR... running
    one succeeds            SSRR.. running
    ");
    world.come_to_an_end();
    assert_eq!(world.fanout.state.name(), FanOutStateName::Succeeded);
}

/// What has a job and has not started must not start after the stop, and what runs is left to its end, or not.
#[test]
fn a_stop_holds_what_has_not_started_and_leaves_or_cancels_what_runs() {
    for (on_stop, job, ending, expected) in [
        (
            "finish",
            StateName::Running,
            Ending::Succeeded,
            "FnSn stopped",
        ),
        (
            "cancel",
            StateName::Cancelling,
            Ending::Cancelled,
            "Fncn stopped",
        ),
    ] {
        let rollout = json!({ "concurrency": 3, "max_failures": 0, "on_stop": on_stop });
        let happenings = [
            ("the third starts", Happening::Permit(2)),
            ("the first fails", FAILURE),
        ];
        let (mut world, text) = story(&rollout, 4, &happenings);
        assert_eq!(world.picture(), "FnRn stopping", "{text}");
        let third = world.children[2].job.as_ref().map(JobState::name);
        assert_eq!(third, Some(job), "{on_stop}");
        world.happen(&Happening::End(0, ending));
        world.rest();
        assert_eq!(world.picture(), expected, "{on_stop}");
    }
}

#[test]
fn offline_clusters_wait_are_skipped_or_fail() {
    let mut text = String::new();
    for if_offline in ["wait", "skip", "fail"] {
        let rollout = json!({ "concurrency": 1, "if_offline": if_offline });
        let mut world = World::new(&rollout, 4);
        world.happen(&Happening::Silent(0));
        world.happen(&Happening::Silent(2));
        for (words, happening) in [
            ("at first", Happening::Wait(0)),
            ("one succeeds", SUCCESS),
            ("c2 speaks again", Happening::Speak(2)),
            ("one succeeds", SUCCESS),
            ("one succeeds", SUCCESS),
            ("15 minutes are over", Happening::Wait(901)),
        ] {
            world.happen(&happening);
            world.rest();
            text += &format!("{if_offline:<6}{words:<21}{}\n", world.picture());
        }
    }
    insta::assert_snapshot!(text, @r"
    wait  at first             .R.. running
    wait  one succeeds         .S.R running
    wait  c2 speaks again      .S.R running
    wait  one succeeds         .SRS running
    wait  one succeeds         .SSS running
    wait  15 minutes are over  OSSS incomplete
    skip  at first             -R.. running
    skip  one succeeds         -S-R running
    skip  c2 speaks again      -S-R running
    skip  one succeeds         -S-S incomplete
    skip  one succeeds         -S-S incomplete
    skip  15 minutes are over  -S-S incomplete
    fail  at first             ORO. running
    fail  one succeeds         OSOR running
    fail  c2 speaks again      OSOR running
    fail  one succeeds         OSOS incomplete
    fail  one succeeds         OSOS incomplete
    fail  15 minutes are over  OSOS incomplete
    ");
}

/// While no dispatcher was there, nobody could be heard. Nobody fails, or is skipped, for that.
#[test]
fn after_a_restart_nobody_is_away_who_had_no_time_to_speak() {
    for (if_offline, expected) in [("wait", "OS"), ("skip", "-S"), ("fail", "OS")] {
        let mut world = World::new(&json!({ "if_offline": if_offline }), 2);
        // Down for an hour.
        world.now += Duration::from_secs(3600);
        world.listening_since = world.now;
        world.rest();
        assert_eq!(world.picture(), ".. running", "{if_offline}");
        world.wait(20);
        world.happen(&Happening::Speak(1));
        world.rest();
        assert_eq!(world.picture(), ".R running", "{if_offline}");
        world.happen(&SUCCESS);
        world.wait(11);
        world.rest();
        world.wait(901);
        world.rest();
        assert_eq!(
            world.picture(),
            format!("{expected} incomplete"),
            "{if_offline}"
        );
    }
}

#[test]
fn a_canary_that_is_away_is_waited_for_or_fails() {
    for (if_offline, expected) in [
        ("wait", ". running"),
        ("skip", "O stopped"),
        ("fail", "O stopped"),
    ] {
        let mut world = World::new(&json!({ "canary": ["c0"], "if_offline": if_offline }), 1);
        world.happen(&Happening::Silent(0));
        world.rest();
        assert_eq!(world.picture(), expected, "{if_offline}");
    }
}

#[test]
fn a_cancel_ends_all_of_it() {
    let rollout = json!({ "concurrency": 2 });
    let happenings = [
        ("the first starts", Happening::Permit(0)),
        ("it is cancelled", Happening::Cancel),
        ("the command is dead", Happening::End(0, Ending::Cancelled)),
        ("it is to go on", Happening::Resume),
        ("it is to be retried", Happening::Retry { lost: true }),
    ];
    let (_, text) = story(&rollout, 3, &happenings);
    insta::assert_snapshot!(text, @r"
                            RR. running
    the first starts        RR. running
    it is cancelled         Rcc cancelling
    the command is dead     ccc cancelled
    it is to go on          ccc cancelled
    it is to be retried     ccc cancelled
    ");
}

#[test]
fn canaries_do_not_wait_for_each_other() {
    let rollout = json!({ "canary": ["c0", "c1", "c2"], "concurrency": 2, "ramp": true });
    let mut world = World::new(&rollout, 5);
    world.rest();
    assert_eq!(world.picture(), "RR... running");
}

/// Whoever may not go on is told why, and what to do.
#[test]
fn what_cannot_go_on_says_why() {
    let said = |rollout: &Value, happenings: &[Happening], command: Command| {
        let mut world = World::new(rollout, 3);
        world.rest();
        for happening in happenings {
            world.happen(happening);
            world.rest();
        }
        let mut draft = Draft::of(world.fanout, world.children);
        match command::draft(&mut draft, command, "ada", world.now) {
            Ok(()) => "it goes on".to_owned(),
            Err(refusal) => format!("{}: {}", refusal.code().as_str(), refusal.detail()),
        }
    };
    let (resume, retry) = (Command::Resume, |lost| Command::RetryFailed { lost });
    let cancel = Command::Cancel {
        grace_seconds: None,
    };
    let lost = Happening::End(0, Ending::Lost);
    let canary = json!({ "canary": ["c0"] });
    let strict = json!({ "concurrency": 2, "max_failures": 0 });
    let plain = json!({});
    let (too_late, stopped) = (Happening::Wait(8 * 24 * 3600), [FAILURE, SUCCESS]);
    let words = [
        said(&plain, &[], resume),
        said(&plain, &[Happening::Cancel], resume),
        said(&plain, &[Happening::Permit(0), Happening::Cancel], cancel),
        said(&plain, &[SUCCESS, SUCCESS, SUCCESS], cancel),
        said(&plain, &[SUCCESS, SUCCESS, SUCCESS], retry(true)),
        said(&plain, &[SUCCESS, SUCCESS, FAILURE], resume),
        said(&plain, &[SUCCESS, SUCCESS, lost.clone()], retry(false)),
        said(&plain, &[SUCCESS, SUCCESS, lost.clone()], retry(true)),
        said(&canary, &[FAILURE], resume),
        said(&canary, &[FAILURE], retry(false)),
        said(&canary, std::slice::from_ref(&lost), retry(false)),
        said(&canary, &[lost], retry(true)),
        said(&strict, &[Happening::Permit(1), FAILURE], resume),
        said(&strict, &stopped, resume),
        said(&strict, &[&stopped[..], &[too_late]].concat(), resume),
    ];
    insta::assert_snapshot!(words.join("\n"), @r"
    fanout_cannot_go_on: fan-out 00000000-0000-0000-0000-000000000001 cannot go on: it is running
    fanout_cannot_go_on: fan-out 00000000-0000-0000-0000-000000000001 cannot go on: it was cancelled, which is for ever: submit it again
    it goes on
    fanout_over: fan-out 00000000-0000-0000-0000-000000000001 is over: it is succeeded
    fanout_cannot_go_on: fan-out 00000000-0000-0000-0000-000000000001 cannot go on: every cluster has succeeded
    fanout_cannot_go_on: fan-out 00000000-0000-0000-0000-000000000001 cannot go on: it went to its end, and nothing of it is left to start: retry-failed tries again what failed
    fanout_cannot_go_on: fan-out 00000000-0000-0000-0000-000000000001 cannot go on: nobody knows how the command ended on 1 of its clusters (c2), so it may have done its work, or still run: see there, and say lost to try these again
    it goes on
    fanout_cannot_go_on: fan-out 00000000-0000-0000-0000-000000000001 cannot go on: canary c0 did not succeed (failed), and nothing starts before it has: try it again with retry-failed, or submit again with another canary
    it goes on
    fanout_cannot_go_on: fan-out 00000000-0000-0000-0000-000000000001 cannot go on: canary c0 did not succeed (failed), and nothing starts before it has: see whether its command ran, and try it again with retry-failed and lost, or submit again with another canary
    it goes on
    fanout_cannot_go_on: fan-out 00000000-0000-0000-0000-000000000001 cannot go on: some of its clusters are still running: it can go on when they have come to their end
    it goes on
    fanout_cannot_go_on: fan-out 00000000-0000-0000-0000-000000000001 cannot go on: it stopped too long ago, and what it needs is not kept any more: submit it again
    ");
}

fn happening() -> impl Strategy<Value = Happening> {
    let ending = prop_oneof![
        6 => Just(Ending::Succeeded),
        3 => Just(Ending::Failed),
        1 => Just(Ending::Lost),
        1 => Just(Ending::Expired),
        1 => Just(Ending::Cancelled),
    ];
    let index = 0..20_usize;
    prop_oneof![
        10 => prop::option::weighted(0.1, 1..4_usize).prop_map(|refuse| Happening::Look { refuse }),
        4 => index.clone().prop_map(Happening::Permit),
        8 => (index.clone(), ending).prop_map(|(index, ending)| Happening::End(index, ending)),
        1 => index.clone().prop_map(Happening::Silent),
        1 => index.prop_map(Happening::Speak),
        1 => (0..1200_u64).prop_map(Happening::Wait),
        1 => Just(Happening::Restart),
        1 => prop_oneof![
            1 => Just(Happening::Cancel),
            3 => Just(Happening::Resume),
            3 => any::<bool>().prop_map(|lost| Happening::Retry { lost }),
        ],
    ]
}

fn rollout() -> impl Strategy<Value = (Value, u32)> {
    let clusters = 1..12_u32;
    let shape = (
        clusters,
        0..3_u32,
        any::<bool>(),
        prop::option::of(1..6_u32),
        prop::option::of(0..4_u32),
    );
    let choices = (0..2_usize, 0..3_usize);
    (shape, choices).prop_map(
        |((clusters, canaries, ramp, concurrency, max_failures), (on_stop, if_offline))| {
            let canary: Vec<_> = (0..canaries.min(clusters)).map(|number| format!("c{number}")).collect();
            let (on_stop, if_offline) = (["finish", "cancel"][on_stop], ["wait", "skip", "fail"][if_offline]);
            let mut rollout = json!({ "canary": canary, "ramp": ramp, "on_stop": on_stop, "if_offline": if_offline });
            if let Some(concurrency) = concurrency {
                rollout["concurrency"] = json!(concurrency);
            }
            if let Some(max_failures) = max_failures {
                rollout["max_failures"] = json!(max_failures);
            }
            (rollout, clusters)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever happens: never more at once than are allowed, nothing before its canaries, nothing after a stop,
    /// and everything accounted for at the end.
    #[test]
    fn the_brakes_hold_whatever_happens(
        (rollout, clusters) in rollout(),
        happenings in prop::collection::vec(happening(), 0..80),
    ) {
        let mut world = World::new(&rollout, clusters);
        for happening in &happenings {
            world.happen(happening);
        }
        world.come_to_an_end();
    }
}
