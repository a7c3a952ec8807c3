//! `…/v1/calendars`: when schedules may run, and when not.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use invoke_protocol::api::{CALENDAR, CALENDARS};
use invoke_protocol::id::CalendarName;
use invoke_protocol::problem::{Problem, ProblemCode};
use invoke_protocol::schedule::{
    Calendar as Shown, CalendarList, CalendarSpan, CalendarSpec, MAX_CALENDAR_BYTES,
};
use jiff::{SignedDuration, Timestamp};

use super::path::{CalendarPath, json};
use crate::access::Person;
use crate::clock;
use crate::problem::Refusal;
use crate::store::calendars::{self, StoredCalendar};
use crate::store::{Session, audit, schedules};
use crate::timing::calendar::Calendar;

/// How many coming events are shown.
const COMING: usize = 20;

/// How far ahead they are looked for.
const AHEAD: SignedDuration = SignedDuration::from_hours(24 * 366);

/// Lists the calendars, by name.
#[utoipa::path(
    get, path = CALENDARS, tag = "schedules", security(("api_token" = [])), operation_id = "list_calendars",
    responses(
        (status = 200, description = "All calendars", body = CalendarList),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(person: Person) -> Result<Json<CalendarList>, Refusal> {
    let mut session = person.app.store.read().await?;
    let now = clock::now();
    let stored = calendars::all(&mut session).await?;
    let calendars = stored.iter().map(|calendar| shown(calendar, now));
    Ok(Json(CalendarList {
        calendars: calendars.collect::<Result<_, _>>()?,
    }))
}

/// Shows a calendar.
#[utoipa::path(
    get, path = CALENDAR, tag = "schedules", security(("api_token" = [])), operation_id = "show_calendar",
    params(("name" = String, Path, description = "The calendar")),
    responses(
        (status = 200, description = "The calendar", body = Shown),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(
    person: Person,
    CalendarPath(name): CalendarPath,
) -> Result<Json<Shown>, Refusal> {
    let mut session = person.app.store.read().await?;
    let stored = calendars::by_name(&mut session, &name).await?;
    let stored = stored.ok_or_else(|| unknown(&name))?;
    Ok(Json(shown(&stored, clock::now())?))
}

/// Keeps a calendar, in place of the one of its name if there is one.
#[utoipa::path(
    put, path = CALENDAR, tag = "schedules", security(("api_token" = [])), operation_id = "put_calendar",
    params(("name" = String, Path, description = "The calendar")), request_body = CalendarSpec,
    responses(
        (status = 201, description = "Kept", body = Shown),
        (status = 200, description = "Kept in place of another", body = Shown),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn put(
    person: Person,
    CalendarPath(name): CalendarPath,
    body: Bytes,
) -> Result<(StatusCode, Json<Shown>), Refusal> {
    let CalendarSpec {
        kind,
        ics,
        time_zone,
    } = json(&body)?;
    if ics.len() > MAX_CALENDAR_BYTES {
        let detail = format!(
            "a calendar has at most {MAX_CALENDAR_BYTES} bytes, and this one {}: leave out what is past",
            ics.len()
        );
        return Err(Refusal::new(ProblemCode::InvalidCalendar, detail));
    }
    let now = clock::now();
    let calendar = StoredCalendar {
        name,
        kind,
        ics,
        time_zone,
        imported_by: person.principal.name.clone(),
        imported_at: now,
    };
    let shown = shown(&calendar, now)?;
    let mut session = person.app.store.write().await?;
    let is_new = calendars::put(&mut session, &calendar).await?;
    record(
        &mut session,
        &person,
        &calendar.name,
        "calendar.import",
        now,
    )
    .await?;
    session.commit().await?;
    tracing::info!(
        "calendar {} was imported by {}",
        calendar.name,
        person.principal.name
    );
    let status = match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(shown)))
}

/// Removes a calendar. One that schedules name stays, for what they would do without it is not what was wanted.
#[utoipa::path(
    delete, path = CALENDAR, tag = "schedules", security(("api_token" = [])), operation_id = "delete_calendar",
    params(("name" = String, Path, description = "The calendar")),
    responses(
        (status = 204, description = "Removed"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn delete(
    person: Person,
    CalendarPath(name): CalendarPath,
) -> Result<StatusCode, Refusal> {
    let now = clock::now();
    let mut session = person.app.store.write().await?;
    let all = schedules::all(&mut session).await?;
    let user = all.iter().find(|schedule| {
        let spec = &schedule.spec;
        spec.open_calendars.contains(&name) || spec.ignored_calendars.contains(&name)
    });
    if let Some(user) = user {
        let detail = format!(
            "schedule {} names calendar {name}: change it first",
            user.name
        );
        return Err(Refusal::new(ProblemCode::InvalidCalendar, detail));
    }
    if !calendars::remove(&mut session, &name).await? {
        return Err(unknown(&name));
    }
    record(&mut session, &person, &name, "calendar.delete", now).await?;
    session.commit().await?;
    tracing::info!("calendar {name} was removed by {}", person.principal.name);
    Ok(StatusCode::NO_CONTENT)
}

async fn record(
    session: &mut Session,
    person: &Person,
    name: &CalendarName,
    action: &str,
    now: Timestamp,
) -> Result<(), Refusal> {
    let object = format!("calendar {name}");
    let entry = audit::Entry {
        who: &person.principal.name,
        action,
        object: &object,
        outcome: "done",
    };
    Ok(audit::add(session, entry, now).await?)
}

fn unknown(name: &CalendarName) -> Refusal {
    let detail =
        format!("there is no calendar {name}; `invoke calendar list` shows those that there are");
    Refusal::new(ProblemCode::CalendarNotFound, detail)
}

fn shown(stored: &StoredCalendar, now: Timestamp) -> Result<Shown, Refusal> {
    let calendar = Calendar::parse(stored.name.as_str(), &stored.ics, stored.time_zone.as_ref());
    let calendar =
        calendar.map_err(|error| Refusal::new(ProblemCode::InvalidCalendar, error.to_string()))?;
    let until = now.saturating_add(AHEAD).unwrap_or(Timestamp::MAX);
    let coming = calendar.spans(now, until).into_iter().take(COMING);
    Ok(Shown {
        name: stored.name.clone(),
        kind: stored.kind,
        imported_by: stored.imported_by.clone(),
        imported: stored.imported_at,
        coming: coming
            .map(|span| CalendarSpan {
                from: span.start,
                until: span.end,
                summary: span.summary,
            })
            .collect(),
    })
}
