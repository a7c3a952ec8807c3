//! `PUT /v1/schedules/{name}`: a schedule is made or changed, or refused with a sentence.

use axum::Json;
use axum::body::Bytes;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use invoke_protocol::api::SCHEDULE;
use invoke_protocol::environment::SecretEnvironment;
use invoke_protocol::id::{ScheduleId, ScheduleName};
use invoke_protocol::job::{IfOffline, JobSpec};
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::schedule::{
    CalendarKind, CatchUp, MAX_CAUGHT_UP, MAX_RETRIES, NotifyBy, PutQuery, Run, Schedule,
    ScheduleSpec, ScheduleState,
};
use invoke_protocol::timing::Timing;
use jiff::Timestamp;
use uuid::Uuid;

use super::{changed, find, shown};
use crate::acceptance;
use crate::access::Person;
use crate::api::path::SchedulePath;
use crate::api::{cluster_choice, secret_body, submit};
use crate::clock;
use crate::fanout::resolution::resolve;
use crate::problem::Refusal;
use crate::schedule::{Look, webhooks};
use crate::sealing::Owner;
use crate::store::schedules::{self, StoredSchedule};
use crate::store::{self, Session, calendars};
use crate::timing::Plan;

/// The most webhooks and commands that are told.
const MAX_NOTIFY: usize = 10;

/// Makes a schedule, or changes the caller's own. The same again changes nothing.
#[utoipa::path(
    put, path = SCHEDULE, tag = "schedules", security(("api_token" = [])), operation_id = "put_schedule",
    params(("name" = String, Path, description = "The schedule"), PutQuery),
    request_body = ScheduleSpec,
    responses(
        (status = 201, description = "Made", body = Schedule),
        (status = 200, description = "Changed, or as it was", body = Schedule),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::api) async fn put(
    person: Person,
    SchedulePath(name): SchedulePath,
    query: Result<Query<PutQuery>, QueryRejection>,
    body: Bytes,
) -> Result<(StatusCode, Json<Schedule>), Refusal> {
    let Query(query) = query.map_err(|rejection| Refusal::invalid(rejection.body_text()))?;
    let spec = read(&body)?;
    let now = clock::now();
    let mut session = person.app.store.write().await?;
    let before = schedules::by_name_held(&mut session, &name).await?;
    check_before(&person, &name, before.as_ref(), query)?;
    let wanted = plan(
        &mut session,
        &person,
        name.clone(),
        spec,
        before.as_ref(),
        query,
        now,
    )
    .await?;
    let status = match before {
        None => {
            schedules::keep_files(&mut session, &wanted, now).await?;
            if !schedules::add(&mut session, &wanted).await? {
                return Err(exists(&name));
            }
            schedules::record(
                &mut session,
                &wanted,
                &person.principal.name,
                "schedule.create",
                now,
            )
            .await?;
            session.commit().await?;
            tracing::info!("schedule {name} was made by {}", person.principal.name);
            StatusCode::CREATED
        }
        Some(before) if before.request_digest == wanted.request_digest => StatusCode::OK,
        Some(_) => {
            schedules::keep_files(&mut session, &wanted, now).await?;
            let mut look = Look::of(&person.app, session, wanted, now).await?;
            look.record(&person.principal.name, "schedule.change")
                .await?;
            look.finish().await?.map_err(|_lost| changed(&name))?;
            tracing::info!("schedule {name} was changed by {}", person.principal.name);
            StatusCode::OK
        }
    };
    let mut session = person.app.store.read().await?;
    let schedule = find(&mut session, &name).await?;
    Ok((
        status,
        Json(shown(&person.app, &mut session, schedule, now).await?),
    ))
}

/// The body. What is wrong with it is said without its secrets.
fn read(body: &[u8]) -> Result<ScheduleSpec, Refusal> {
    let jobs = ["/run/job", "/run/fanout/job"];
    let spec: ScheduleSpec = serde_json::from_slice(body)
        .map_err(|_| secret_body::unreadable::<ScheduleSpec>(body, &jobs))?;
    submit::check_environment(spec.run.job())?;
    Ok(spec)
}

fn check_before(
    person: &Person,
    name: &ScheduleName,
    before: Option<&StoredSchedule>,
    query: PutQuery,
) -> Result<(), Refusal> {
    let Some(before) = before else {
        return match (query.revision, query.keep_secrets) {
            (None, false) => Ok(()),
            _ => Err(Refusal::new(
                ProblemCode::ScheduleNotFound,
                format!("there is no schedule {name} that could be changed"),
            )),
        };
    };
    if query.create {
        return Err(exists(name));
    }
    if before.owner != person.principal.name {
        let detail = format!(
            "schedule {name} is {}'s and runs with their rights, so only they can change what it does: \
             `invoke schedule take-over {name}` makes it yours",
            before.owner
        );
        return Err(Refusal::new(ProblemCode::Forbidden, detail));
    }
    match query.revision {
        Some(revision) if revision != before.revision => Err(changed(name)),
        _ => Ok(()),
    }
}

fn exists(name: &ScheduleName) -> Refusal {
    let detail = format!(
        "there is a schedule {name} already: `invoke schedule edit {name}` changes it, `invoke schedule delete {name}` removes it"
    );
    Refusal::new(ProblemCode::ScheduleExists, detail)
}

/// The schedule as it is to be stored.
async fn plan(
    session: &mut Session,
    person: &Person,
    name: ScheduleName,
    mut spec: ScheduleSpec,
    before: Option<&StoredSchedule>,
    query: PutQuery,
    now: Timestamp,
) -> Result<StoredSchedule, Refusal> {
    check_shape(&spec)?;
    let timing_before = before.map(|before| &before.spec.timing);
    check_timing(session, person, &spec, timing_before, now).await?;
    check_notify(&spec, person)?;
    let files_upload = check_run(session, person, &mut spec, now).await?;
    let id = before.map_or_else(
        || ScheduleId::from_uuid(acceptance::new_uuid(now)),
        |before| before.id,
    );
    let given = std::mem::take(&mut spec.run.job_mut().secrets);
    let secrets = match (
        before.and_then(|before| before.sealed_secrets.as_ref()),
        query.keep_secrets,
    ) {
        (_, true) if !given.is_empty() => {
            return Err(invalid(
                "keep_secrets is for a change without secrets, and there are some",
            ));
        }
        (Some(sealed), true) => person
            .app
            .sealer
            .open_variables(Owner::schedule(id), sealed)?,
        _ => given,
    };
    let request_digest = digest(person, &spec, &secrets)?;
    let sealed = person.app.sealer.seal(Owner::schedule(id), secrets)?;
    let fresh = StoredSchedule {
        id,
        name,
        revision: 1,
        version: 1,
        owner: person.principal.name.clone(),
        spec,
        secret_names: sealed
            .as_ref()
            .map_or_else(Vec::new, |sealed| sealed.names.clone()),
        sealed_secrets: sealed.map(|sealed| sealed.sealed),
        request_digest,
        files_upload,
        state: ScheduleState::Active,
        decided_until: now,
        due_at: Some(now),
        skip_next: false,
        failures: 0,
        created_at: now,
        changed_at: now,
        deleted_at: None,
    };
    Ok(match before {
        None => fresh,
        Some(before) => StoredSchedule {
            revision: before.revision + 1,
            version: before.version,
            state: before.state.clone(),
            skip_next: before.skip_next,
            failures: before.failures,
            created_at: before.created_at,
            // What was due before is the old one's; what was decided is decided.
            decided_until: before.decided_until.max(now),
            ..fresh
        },
    })
}

fn digest(
    person: &Person,
    spec: &ScheduleSpec,
    secrets: &SecretEnvironment,
) -> Result<Vec<u8>, Refusal> {
    let text = serde_json::to_vec(&(spec, secrets)).map_err(store::Error::Encode)?;
    Ok(person.app.sealer.submission_digest(&text))
}

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::new(ProblemCode::InvalidSchedule, detail)
}

fn check_shape(spec: &ScheduleSpec) -> Result<(), Refusal> {
    let within = |what: &str, number: u32, most: u32| match (1..=most).contains(&number) {
        true => Ok(()),
        false => Err(invalid(format!("{what}: 1 to {most}, not {number}"))),
    };
    if spec.run.job().stdin {
        return Err(invalid(
            "a schedule has no stdin, as nobody is there to be read: attach what the command reads as a file",
        ));
    }
    if let CatchUp::All(number) = spec.catch_up {
        within("ticks that are caught up", number, MAX_CAUGHT_UP)?;
    }
    if let Some(retry) = &spec.retry {
        within("attempts after the first", retry.times.get(), MAX_RETRIES)?;
        if retry.on.is_empty() {
            return Err(invalid(
                "say after which failures a run is tried again: never-started is safe for any command, exit=CODE for \
                 those that mean it",
            ));
        }
    }
    match spec.long_running_seconds {
        Some(0) => Err(invalid(
            "a run is never long after no time at all: say at least 1s",
        )),
        _ => Ok(()),
    }
}

async fn check_timing(
    session: &mut Session,
    person: &Person,
    spec: &ScheduleSpec,
    before: Option<&Timing>,
    now: Timestamp,
) -> Result<(), Refusal> {
    for (names, kind) in [
        (&spec.open_calendars, CalendarKind::Open),
        (&spec.ignored_calendars, CalendarKind::Closed),
    ] {
        for name in names {
            match calendars::by_name(session, name).await? {
                Some(calendar) if calendar.kind == kind => {}
                Some(calendar) => {
                    return Err(invalid(format!(
                        "calendar {name} is one that {}, and the schedule names it as one that {}",
                        meaning(calendar.kind),
                        meaning(kind)
                    )));
                }
                None => {
                    return Err(invalid(format!(
                        "there is no calendar {name}: `invoke calendar list` shows those that there are"
                    )));
                }
            }
        }
    }
    let calendars = person.app.calendars.of(session, spec).await?;
    let plan = Plan::new(&spec.timing, calendars).map_err(|error| invalid(error.to_string()))?;
    // What was to run once, and did, is as good as it was.
    if before == Some(&spec.timing) {
        return Ok(());
    }
    plan.check_future(now)
        .map_err(|error| invalid(error.to_string()))
}

const fn meaning(kind: CalendarKind) -> &'static str {
    match kind {
        CalendarKind::Closed => "closes",
        CalendarKind::Open => "opens",
    }
}

fn check_notify(spec: &ScheduleSpec, person: &Person) -> Result<(), Refusal> {
    if spec.notify.len() > MAX_NOTIFY {
        let number = spec.notify.len();
        return Err(invalid(format!(
            "at most {MAX_NOTIFY} can be told, not {number}"
        )));
    }
    for notify in &spec.notify {
        match &notify.by {
            NotifyBy::Webhook(url) => {
                let parsed = webhooks::parse(url, person.app.private_webhooks);
                parsed.map_err(|failure| invalid(failure.to_string()))?;
            }
            NotifyBy::Command(_) if matches!(spec.run, Run::FanOut(_)) => {
                return Err(invalid(
                    "a command that tells runs in the schedule's own cluster, and this one has many: use a webhook",
                ));
            }
            NotifyBy::Command(_) => {}
        }
    }
    Ok(())
}

/// Checks what is run as if it were submitted now, but for a cluster that is offline at this moment. Answers
/// which upload its files are.
async fn check_run(
    session: &mut Session,
    person: &Person,
    spec: &mut ScheduleSpec,
    now: Timestamp,
) -> Result<Option<Uuid>, Refusal> {
    let (app, principal) = (&person.app, &person.principal);
    let files = submit::files(app, session, principal, spec.run.job()).await?;
    match &mut spec.run {
        Run::Job(job) => {
            let cluster = cluster_choice::choose(session, job.cluster.as_ref()).await?;
            job.cluster = Some(cluster.name.clone());
            let connected = JobSpec {
                if_offline: IfOffline::Wait,
                ..job.clone()
            };
            acceptance::check(app, session, principal, &connected, &cluster, now).await?;
        }
        Run::FanOut(fanout) => {
            fanout.check().map_err(|error| invalid(error.to_string()))?;
            if fanout.expected.is_some() {
                return Err(invalid(
                    "a schedule chooses its clusters anew at each tick, so none can be expected: leave expected out",
                ));
            }
            // As it would be now: what it matches at a tick is known then.
            resolve(app, session, principal, fanout, now).await?;
        }
    }
    Ok(files.map(|files| files.upload))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As at the door for jobs: whatever is wrong, its secrets are not in the words.
    #[test]
    fn what_is_wrong_is_said_without_the_secrets() {
        let timing =
            json!({ "when": { "type": "every", "seconds": 60, "from": "2026-11-22T10:00:00Z" } });
        let run = |secrets: serde_json::Value| json!({ "job": { "command": { "shell": "date" }, "secrets": secrets } });
        let bodies = [
            json!({ "run": run(json!("hunter2")), "timing": timing }),
            json!({ "run": run(json!({ "A B": "hunter2" })), "timing": timing }),
            json!({ "run": run(json!({ "A": "hunter2" })) }),
            json!({ "run": { "fanout": { "job": { "secrets": ["hunter2"] } } }, "timing": timing }),
        ];
        let words = bodies.map(|body| {
            read(body.to_string().as_bytes())
                .unwrap_err()
                .detail()
                .to_owned()
        });
        let words = words.join("\n");
        assert!(!words.contains("hunter2"), "{words}");
        insta::assert_snapshot!(words, @r#"
        secrets: expected an object whose values are strings
        secrets: "A B" is no name of a variable: use letters, digits and _, and do not begin with a digit
        the body is not what is expected here: missing field `timing`
        secrets: expected an object whose values are strings
        "#);
    }

    #[test]
    fn numbers_have_their_limits() {
        let spec = |rest: serde_json::Value| {
            let mut body = json!({
                "run": { "job": { "command": { "shell": "date" } } },
                "timing": { "when": { "type": "every", "seconds": 60, "from": "2026-11-22T10:00:00Z" } },
            });
            for (name, value) in rest.as_object().unwrap() {
                body[name] = value.clone();
            }
            serde_json::from_value::<ScheduleSpec>(body).unwrap()
        };
        assert!(check_shape(&spec(json!({}))).is_ok());
        let wrong = [
            json!({ "catch_up": { "all": 101 } }),
            json!({ "catch_up": { "all": 0 } }),
            json!({ "retry": { "times": 11, "on": ["never_started"] } }),
            json!({ "retry": { "times": 1, "on": [] } }),
            json!({ "long_running_seconds": 0 }),
            json!({ "run": { "job": { "command": { "shell": "date" }, "stdin": true } } }),
        ];
        let words = wrong.map(|rest| check_shape(&spec(rest)).unwrap_err().detail().to_owned());
        insta::assert_snapshot!(words.join("\n"), @r"
        ticks that are caught up: 1 to 100, not 101
        ticks that are caught up: 1 to 100, not 0
        attempts after the first: 1 to 10, not 11
        say after which failures a run is tried again: never-started is safe for any command, exit=CODE for those that mean it
        a run is never long after no time at all: say at least 1s
        a schedule has no stdin, as nobody is there to be read: attach what the command reads as a file
        ");
    }
}
