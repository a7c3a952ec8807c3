//! The machine, case by case, and under random histories.

use proptest::prelude::*;

use super::*;
use crate::output::{Discarded, ResourceUsage, StreamSummary};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(number: u128) -> PodUid {
    PodUid::from_uuid(uuid::Uuid::from_u128(number))
}

fn runner() -> RunnerId {
    RunnerId("runner-0".to_owned())
}

fn exit(status: ExitStatus, cause: EndCause) -> ExitRecord {
    let summary = StreamSummary {
        bytes: 0,
        sha256: "e3b0".to_owned(),
    };
    ExitRecord {
        status,
        cause,
        started_at: at(10),
        finished_at: at(11),
        log_bytes: 7,
        stdout: summary.clone(),
        stderr: summary,
        usage: ResourceUsage::default(),
        out_of_memory: false,
        incomplete: None,
        discarded: Discarded::default(),
        artifacts: None,
    }
}

fn reason() -> Reason {
    Reason::new(ReasonCode::PodGone, "gone")
}

fn silent() -> Reason {
    Reason::new(ReasonCode::NodeLost, "node-1 is silent")
}

fn permit(number: u128) -> Event {
    Event::Permit {
        pod: pod(number),
        start_deadline: at(100),
    }
}

fn ended(number: u128, status: ExitStatus, cause: EndCause) -> Event {
    Event::Exit {
        pod: pod(number),
        exit: exit(status, cause),
        stored: 7,
    }
}

fn refused(number: u128) -> Event {
    Event::StartRefused {
        pod: pod(number),
        reason: Reason::new(ReasonCode::FilesRefused, "a link that leads out"),
    }
}

fn cancel(grace_seconds: Option<u64>) -> Event {
    Event::Cancel {
        by: "ada".to_owned(),
        grace_seconds,
    }
}

fn running() -> JobState {
    JobState::Queued.on(permit(1), at(5)).unwrap()
}

#[test]
fn the_permit_is_given_once_for_one_pod_and_in_time() {
    assert_eq!(
        running().on(permit(1), at(200)),
        Ok(running()),
        "a repeated question, also a late one"
    );
    assert_eq!(running().on(permit(2), at(6)), Err(Refusal::OtherPod));
    assert_eq!(
        JobState::Queued
            .on(permit(1), at(100))
            .map(|state| state.name()),
        Ok(StateName::Running)
    );
    assert_eq!(
        JobState::Queued.on(permit(1), at(101)),
        Err(Refusal::TooLate)
    );
}

#[test]
fn of_a_cancel_and_a_permit_exactly_one_wins() {
    let cancel = || cancel(None);
    let cancelled = JobState::Queued.on(cancel(), at(5)).unwrap();
    assert_eq!(cancelled.started(), Started::No);
    assert_eq!(cancelled.on(permit(1), at(6)), Err(Refusal::Over));

    let cancelling = running().on(cancel(), at(6)).unwrap();
    assert_eq!(cancelling.name(), StateName::Cancelling);
    let over = cancelling
        .clone()
        .on(
            ended(1, ExitStatus::Signalled(15), EndCause::Cancelled),
            at(7),
        )
        .unwrap();
    assert!(matches!(over, JobState::Cancelled { ref by, exit: Some(_), .. } if by == "ada"));
    let natural = cancelling
        .on(ended(1, ExitStatus::Exited(0), EndCause::Itself), at(7))
        .unwrap();
    assert_eq!(
        natural.name(),
        StateName::Succeeded,
        "the command ended before the signal reached it"
    );
}

#[test]
fn only_an_exit_by_itself_with_zero_is_a_success() {
    let end = |status, cause| running().on(ended(1, status, cause), at(9)).unwrap().name();
    assert_eq!(
        end(ExitStatus::Exited(0), EndCause::Itself),
        StateName::Succeeded
    );
    assert_eq!(
        end(ExitStatus::Exited(1), EndCause::Itself),
        StateName::Failed
    );
    assert_eq!(
        end(ExitStatus::Signalled(9), EndCause::Itself),
        StateName::Failed
    );
    assert_eq!(
        end(ExitStatus::Exited(0), EndCause::RunTimeout),
        StateName::TimedOut
    );
    assert_eq!(
        end(ExitStatus::Exited(0), EndCause::PodTerminated),
        StateName::Lost
    );
}

#[test]
fn a_second_end_is_the_same_or_a_contradiction() {
    let over = running()
        .on(ended(1, ExitStatus::Exited(0), EndCause::Itself), at(9))
        .unwrap();
    assert_eq!(
        over.clone()
            .on(ended(1, ExitStatus::Exited(0), EndCause::Itself), at(10)),
        Ok(over.clone())
    );
    assert_eq!(
        over.on(ended(1, ExitStatus::Exited(1), EndCause::Itself), at(10)),
        Err(Refusal::Contradiction)
    );
    assert_eq!(
        JobState::Queued.on(ended(1, ExitStatus::Exited(0), EndCause::Itself), at(1)),
        Err(Refusal::NotStarted)
    );
    assert_eq!(
        running().on(ended(2, ExitStatus::Exited(0), EndCause::Itself), at(9)),
        Err(Refusal::OtherPod)
    );
}

#[test]
fn output_that_was_not_stored_whole_says_so() {
    let event = Event::Exit {
        pod: pod(1),
        exit: exit(ExitStatus::Exited(0), EndCause::Itself),
        stored: 6,
    };
    let over = running().on(event, at(9)).unwrap();
    assert_eq!(
        over.output_complete(),
        Some(OutputComplete::No(IncompleteReason::NotUploaded))
    );
}

/// A runner asks again every few seconds while it waits: that must not look like news each time.
#[test]
fn a_replica_that_claims_again_changes_nothing() {
    let claim = |name: &str| Event::Claim {
        runner: RunnerId(name.to_owned()),
    };
    let claimed = JobState::Queued.on(claim("a"), at(5)).unwrap();
    assert_eq!(claimed.clone().on(claim("a"), at(9)), Ok(claimed.clone()));
    assert_ne!(claimed.clone().on(claim("b"), at(9)), Ok(claimed));
}

#[test]
fn a_pod_that_is_lost_before_the_start_is_replaced_a_few_times() {
    let lost = |number, code, count, last: Option<u128>| Event::PodFailed {
        pod: Some(pod(number)),
        reason: Reason::new(code, "words"),
        retries: Retries {
            count,
            last: last.map(pod),
        },
    };
    let starting = JobState::Starting {
        runner: runner(),
        since: at(1),
    };
    let name = |event| starting.clone().on(event, at(2)).unwrap().name();
    assert_eq!(
        name(lost(1, ReasonCode::Evicted, 0, None)),
        StateName::Queued
    );
    assert_eq!(
        name(lost(2, ReasonCode::Evicted, 1, Some(1))),
        StateName::Queued
    );
    assert_eq!(
        name(lost(1, ReasonCode::Evicted, 1, Some(1))),
        StateName::Starting,
        "the second replica tells of the same loss; the next pod is under way"
    );
    assert_eq!(
        name(lost(6, ReasonCode::Evicted, MAX_RETRIES, Some(5))),
        StateName::InfraFailed
    );
    assert_eq!(
        name(lost(1, ReasonCode::ImagePull, 0, None)),
        StateName::InfraFailed,
        "the next pod would fare no better"
    );
    assert_eq!(
        running()
            .on(lost(1, ReasonCode::Evicted, 0, None), at(9))
            .unwrap()
            .name(),
        StateName::Lost,
        "never after the start"
    );
}

#[test]
fn what_the_cluster_remembers_of_a_start_is_believed() {
    let recover = |number| Event::Recover {
        pod: pod(number),
        started: at(4),
    };
    let recovered = JobState::Queued.on(recover(1), at(500)).unwrap();
    assert_eq!(
        recovered,
        JobState::Running {
            pod: pod(1),
            since: at(4)
        }
    );
    assert_eq!(recovered.on(recover(2), at(501)), Err(Refusal::OtherPod));
    let expired = JobState::Queued
        .on(Event::StartDeadline { reason: reason() }, at(101))
        .unwrap();
    assert_eq!(expired.on(recover(1), at(102)), Err(Refusal::Over));
}

#[test]
fn a_second_cancel_shortens_the_grace_and_never_lengthens_it() {
    let state = running().on(cancel(Some(30)), at(6)).unwrap();
    let delivered = state
        .on(Event::CancelDelivered { pod: pod(1) }, at(7))
        .unwrap();
    assert_eq!(
        delivered.clone().on(cancel(Some(60)), at(8)),
        Ok(delivered.clone())
    );
    assert_eq!(
        delivered.clone().on(cancel(None), at(8)),
        Ok(delivered.clone())
    );
    let JobState::Cancelling {
        grace_seconds,
        delivered,
        since,
        ..
    } = delivered.on(cancel(Some(0)), at(8)).unwrap()
    else {
        panic!()
    };
    assert_eq!(
        (grace_seconds, delivered, since),
        (Some(0), None, at(6)),
        "the new order is yet to be delivered"
    );
}

#[test]
fn one_silence_is_not_ended_by_another_ones_word() {
    let lost = running()
        .on(Event::Silence { reason: silent() }, at(6))
        .unwrap();
    let cluster_back = Event::Contact {
        ends: ReasonCode::ClusterOffline,
    };
    assert_eq!(lost.clone().on(cluster_back, at(7)), Ok(lost.clone()));
    let node_back = Event::Contact {
        ends: ReasonCode::NodeLost,
    };
    assert_eq!(lost.on(node_back, at(7)), Ok(running()));
}

/// What the shim could not prepare for has not started, whatever the permit said; a cancel that came
/// before is what it ends as, and a command that has ended cannot be denied.
#[test]
fn a_start_that_was_refused_never_was() {
    let failed = running().on(refused(1), at(6)).unwrap();
    assert_eq!(failed.name(), StateName::InfraFailed);
    assert_eq!(failed.started(), Started::No);
    assert_eq!(failed.clone().on(refused(1), at(7)), Ok(failed));
    assert_eq!(running().on(refused(2), at(6)), Err(Refusal::OtherPod));
    let cancelling = running().on(cancel(None), at(6)).unwrap();
    let cancelled = cancelling.on(refused(1), at(7)).unwrap();
    assert_eq!(
        (cancelled.name(), cancelled.started()),
        (StateName::Cancelled, Started::No)
    );
    let over = running()
        .on(ended(1, ExitStatus::Exited(0), EndCause::Itself), at(6))
        .unwrap();
    assert_eq!(over.on(refused(1), at(7)), Err(Refusal::Contradiction));
}

/// What was thrown away on purpose is missing too, and says so.
#[test]
fn output_beyond_the_cap_is_missing() {
    let Event::Exit { pod, exit, stored } = ended(1, ExitStatus::Exited(0), EndCause::Itself)
    else {
        unreachable!()
    };
    let discarded = Discarded {
        stdout_bytes: 1,
        stderr_bytes: 0,
    };
    let event = Event::Exit {
        pod,
        exit: ExitRecord { discarded, ..exit },
        stored,
    };
    let over = running().on(event, at(6)).unwrap();
    assert_eq!(over.name(), StateName::Succeeded);
    assert_eq!(
        over.output_complete(),
        Some(OutputComplete::No(IncompleteReason::Cap))
    );
}

fn any_event() -> impl Strategy<Value = Event> {
    let pods = 1..3_u128;
    prop_oneof![
        Just(Event::Claim { runner: runner() }),
        Just(Event::PodCreated { runner: runner() }),
        pods.clone().prop_map(permit),
        prop::option::of(0..3_u64).prop_map(cancel),
        pods.clone()
            .prop_map(|number| Event::CancelDelivered { pod: pod(number) }),
        pods.clone().prop_map(|number| Event::Recover {
            pod: pod(number),
            started: at(1)
        }),
        Just(Event::Postpone),
        (
            pods.clone(),
            0..3_u8,
            prop_oneof![
                Just(EndCause::Itself),
                Just(EndCause::Cancelled),
                Just(EndCause::RunTimeout),
                Just(EndCause::PodTerminated)
            ]
        )
            .prop_map(|(number, code, cause)| ended(
                number,
                ExitStatus::Exited(code),
                cause
            )),
        Just(Event::Reject { reason: reason() }),
        pods.clone().prop_map(refused),
        (prop::option::of(pods), any::<bool>(), 0..7_u32).prop_map(|(number, passing, count)| {
            Event::PodFailed {
                pod: number.map(pod),
                reason: if passing {
                    reason()
                } else {
                    Reason::new(ReasonCode::ImagePull, "no such image")
                },
                retries: Retries { count, last: None },
            }
        }),
        Just(Event::StartDeadline { reason: reason() }),
        Just(Event::Silence { reason: silent() }),
        Just(Event::Contact {
            ends: ReasonCode::NodeLost
        }),
        Just(Event::GiveUp { reason: reason() }),
    ]
}

proptest! {
    /// Whatever comes in whatever order: one pod at most is ever permitted, a job that says "never
    /// started" was never permitted, nothing follows a terminal state, and success has a record.
    #[test]
    fn the_promises_hold_for_every_history(events in prop::collection::vec((any_event(), 0..200_i64), 0..40)) {
        let mut state = JobState::Queued;
        let mut holder = None;
        let mut has_refused = false;
        for (event, second) in events {
            let is_refusal = matches!(event, Event::StartRefused { .. });
            let asked = match &event { Event::Permit { pod, .. } | Event::Recover { pod, .. } => Some(*pod), _ => None };
            let before = state.clone();
            let Ok(after) = state.clone().on(event, at(second)) else { continue };
            if let Some(asked) = asked {
                prop_assert_eq!(*holder.get_or_insert(asked), asked, "a second pod was permitted");
            }
            prop_assert!(!before.is_terminal() || after == before, "a terminal state changed");
            prop_assert!(after.is_terminal() == after.output_complete().is_some());
            prop_assert!(after.is_terminal() == after.ended_at().is_some());
            prop_assert!(!after.is_terminal() || after.reason().is_some(), "an end without a reason");
            has_refused |= is_refusal;
            let may_deny = holder.is_none() || has_refused && after.is_terminal();
            prop_assert!(may_deny || after.started() != Started::No, "permitted, yet said never to have started");
            if after.name() == StateName::Succeeded {
                prop_assert!(after.exit_record().is_some_and(|exit| exit.status == ExitStatus::Exited(0)));
            }
            // What is stored is read back as it was.
            let stored = serde_json::to_string(&after).unwrap();
            prop_assert_eq!(&serde_json::from_str::<JobState>(&stored).unwrap(), &after);
            state = after;
        }
    }
}

/// What the design says in its own words, without any of the machine's code: three phases, and what
/// each kind of event means in them.
#[derive(Debug, Clone, PartialEq)]
enum Model {
    /// No pod was ever permitted.
    Before,
    /// One was, and the command may run.
    During {
        pod: PodUid,
        silent: bool,
        cancelling: bool,
    },
    /// Nothing can happen any more.
    Over(StateName),
}

impl Model {
    /// The phase after an event; `None` if it must be refused.
    fn after(&self, event: &Event, now: Timestamp) -> Option<Self> {
        match self {
            Self::Before => Self::before(event, now),
            Self::During {
                pod,
                silent,
                cancelling,
            } => Self::during(*pod, *silent, *cancelling, event),
            Self::Over(name) => Self::over(*name, event),
        }
    }

    fn before(event: &Event, now: Timestamp) -> Option<Self> {
        Some(match event {
            Event::Claim { .. } | Event::PodCreated { .. } | Event::Postpone => Self::Before,
            Event::Permit { start_deadline, .. } if now > *start_deadline => return None,
            Event::Permit { pod, .. } | Event::Recover { pod, .. } => Self::During {
                pod: *pod,
                silent: false,
                cancelling: false,
            },
            Event::Cancel { .. } => Self::Over(StateName::Cancelled),
            Event::Reject { .. } => Self::Over(StateName::Rejected),
            Event::StartDeadline { .. } => Self::Over(StateName::Expired),
            Event::PodFailed {
                reason, retries, ..
            } => {
                let again = reason.code == ReasonCode::PodGone && retries.count < MAX_RETRIES;
                if again {
                    Self::Before
                } else {
                    Self::Over(StateName::InfraFailed)
                }
            }
            Event::CancelDelivered { .. }
            | Event::Exit { .. }
            | Event::StartRefused { .. }
            | Event::Silence { .. }
            | Event::Contact { .. }
            | Event::GiveUp { .. } => return None,
        })
    }

    fn during(holder: PodUid, silent: bool, cancelling: bool, event: &Event) -> Option<Self> {
        let with = |silent, cancelling| Self::During {
            pod: holder,
            silent,
            cancelling,
        };
        let same = with(silent, cancelling);
        Some(match event {
            Event::Permit { pod, .. } | Event::Recover { pod, .. } if *pod == holder => same,
            Event::CancelDelivered { pod } if *pod == holder && cancelling => same,
            Event::Cancel { .. } => with(false, true),
            // Whoever is stopped is not looked for.
            Event::Silence { .. } => with(!cancelling, cancelling),
            Event::Contact { .. } => with(false, cancelling),
            Event::GiveUp { .. } => Self::Over(StateName::Lost),
            Event::PodFailed { pod: Some(pod), .. } if *pod == holder => {
                Self::Over(StateName::Lost)
            }
            Event::StartRefused { pod, .. } if *pod == holder => Self::Over(match cancelling {
                true => StateName::Cancelled,
                false => StateName::InfraFailed,
            }),
            Event::Exit { pod, exit, .. } if *pod == holder => Self::Over(match exit.cause {
                EndCause::Itself if exit.status == ExitStatus::Exited(0) => StateName::Succeeded,
                EndCause::Itself => StateName::Failed,
                EndCause::RunTimeout => StateName::TimedOut,
                EndCause::Cancelled => StateName::Cancelled,
                EndCause::PodTerminated => StateName::Lost,
            }),
            _ => return None,
        })
    }

    /// Only what was said before may be said again.
    fn over(name: StateName, event: &Event) -> Option<Self> {
        let repeats = match event {
            Event::Cancel { .. } => name == StateName::Cancelled,
            Event::Reject { .. } => name == StateName::Rejected,
            Event::StartDeadline { .. } => name == StateName::Expired,
            Event::PodFailed { .. } | Event::StartRefused { .. } => name == StateName::InfraFailed,
            Event::GiveUp { .. } => name == StateName::Lost,
            _ => false,
        };
        repeats.then_some(Self::Over(name))
    }

    fn of(state: &JobState) -> Self {
        match state {
            JobState::Queued | JobState::Claimed { .. } | JobState::Starting { .. } => Self::Before,
            JobState::Running { pod, .. } => Self::During {
                pod: *pod,
                silent: false,
                cancelling: false,
            },
            JobState::ContactLost { pod, .. } => Self::During {
                pod: *pod,
                silent: true,
                cancelling: false,
            },
            JobState::Cancelling { pod, .. } => Self::During {
                pod: *pod,
                silent: false,
                cancelling: true,
            },
            over => Self::Over(over.name()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The machine does what the model says, and refuses what the model refuses. One thing the model does
    /// not know: the very same word of a shim again, which is no event at all.
    #[test]
    fn the_machine_is_the_model(events in prop::collection::vec((any_event(), 0..200_i64), 0..30)) {
        let mut state = JobState::Queued;
        let mut model = Model::Before;
        for (event, second) in events {
            let is_repeated_end = match (&event, &state) {
                (Event::Exit { exit, .. }, over) => over.is_terminal() && over.exit_record() == Some(exit),
                (Event::StartRefused { .. }, JobState::Cancelled { exit: None, .. }) => true,
                _ => false,
            };
            if is_repeated_end {
                prop_assert_eq!(state.clone().on(event, at(second)), Ok(state.clone()));
                continue;
            }
            let expected = model.after(&event, at(second));
            let words = format!("{event:?} at {second} in {state:?}");
            match (state.clone().on(event, at(second)), expected) {
                (Ok(next), Some(expected)) => {
                    prop_assert_eq!(Model::of(&next), expected.clone(), "{}", words);
                    (state, model) = (next, expected);
                }
                (Err(_), None) => {}
                (got, expected) => prop_assert!(false, "{words}: {got:?}, the model says {expected:?}"),
            }
        }
    }
}
