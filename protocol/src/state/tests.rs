//! The machine, case by case, and under random histories.

use proptest::prelude::*;

use super::*;
use crate::output::{ResourceUsage, StreamSummary};

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
    }
}

fn reason() -> Reason {
    Reason::new(ReasonCode::PodGone, "gone")
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
    let cancel = || Event::Cancel {
        by: "ada".to_owned(),
    };
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

fn any_event() -> impl Strategy<Value = Event> {
    let pods = 1..3_u128;
    prop_oneof![
        Just(Event::Claim { runner: runner() }),
        Just(Event::PodCreated { runner: runner() }),
        pods.clone().prop_map(permit),
        Just(Event::Cancel {
            by: "ada".to_owned()
        }),
        (
            pods.clone(),
            0..3_u8,
            prop_oneof![
                Just(EndCause::Itself),
                Just(EndCause::Cancelled),
                Just(EndCause::RunTimeout)
            ]
        )
            .prop_map(|(number, code, cause)| ended(
                number,
                ExitStatus::Exited(code),
                cause
            )),
        Just(Event::Reject { reason: reason() }),
        prop::option::of(pods).prop_map(|number| Event::PodFailed {
            pod: number.map(pod),
            reason: reason()
        }),
        Just(Event::StartDeadline { reason: reason() }),
        Just(Event::Silence),
        Just(Event::Contact),
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
        for (event, second) in events {
            let asked = match &event { Event::Permit { pod, .. } => Some(*pod), _ => None };
            let before = state.clone();
            let Ok(after) = state.clone().on(event, at(second)) else { continue };
            if let Some(asked) = asked {
                prop_assert_eq!(*holder.get_or_insert(asked), asked, "a second pod was permitted");
            }
            prop_assert!(!before.is_terminal() || after == before, "a terminal state changed");
            prop_assert!(after.is_terminal() == after.output_complete().is_some());
            prop_assert!(after.is_terminal() == after.ended_at().is_some());
            if after.is_terminal() && after.started() == Started::No {
                prop_assert!(holder.is_none(), "permitted, yet said never to have started");
            }
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
