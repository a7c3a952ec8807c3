//! `GET /v1/jobs/{id}/events`: a job followed to its end, as server-sent events.
//!
//! The job's state and its output come from one place, the store, in one order: what is printed comes
//! before the end, and the end is sent only when every stored byte was. A stream that is cut is taken
//! up again at the last event's id, which is a position in the output log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Query;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::Stream;
use invoke_protocol::api::{EventsQuery, JOB_EVENTS, JobEvent};
use invoke_protocol::id::JobId;
use invoke_protocol::output::{FRAME_HEADER_BYTES, MAX_FRAME_PAYLOAD_BYTES, frames};
use invoke_protocol::problem::Problem;
use invoke_protocol::state::ReasonCode;

use jiff::SignedDuration;

use super::path::JobPath;
use super::view::{view, view_with_place};
use crate::access::Person;
use crate::app::App;
use crate::events::Subscription;
use crate::problem::{Refusal, chain};
use crate::store::jobs::{self, StoredJob};
use crate::{clock, output, waiting};

/// A comment this often keeps proxies from taking silence for death.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What lies this close together may bear one time.
const SAME_TIME: SignedDuration = SignedDuration::from_millis(10);

/// More output than this, at once, is announced to who has asked for that: it is of a command that prints faster
/// than anybody reads, and who is behind reads it cheaper as it is stored.
const ANNOUNCED_BYTES: u64 = 256 * 1024;

/// Follows a job: its changes and its output, to its end.
///
/// Take a stream that was cut up again with `Last-Event-ID`.
#[utoipa::path(
    get, path = JOB_EVENTS, tag = "jobs", security(("api_token" = [])),
    params(
        ("id" = String, Path, description = "The job"),
        EventsQuery,
        ("last-event-id" = Option<u64>, Header, description = "The id of the last event that was received"),
    ),
    responses(
        (status = 200, description = "JobEvents: `job`, `output` or `stored`, and one `end`", body = JobEvent, content_type = "text/event-stream"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn events(
    person: Person,
    JobPath(id): JobPath,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Cut>>>, Refusal> {
    let position = last_event_id(&headers)?.unwrap_or(query.from);
    let app = person.app;
    let follower = Follower {
        // Subscribe before read: see `crate::events`.
        subscription: app.store.events().of_job(id),
        app,
        id,
        position,
        announce: query.announce,
        shown: None,
        ready: VecDeque::new(),
        ended: false,
    };
    // While it is still an answer and not a stream: is there such a job, such a position?
    let job = follower.load().await?.ok_or_else(|| Refusal::no_job(id))?;
    output::read(&follower.app.store, &follower.app.blobs, &job, position)
        .await
        .map_err(|error| Refusal::of_output(id, error))?;
    let stream = futures::stream::unfold(follower, Follower::next);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let position = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    position.map(Some).ok_or_else(|| {
        Refusal::invalid("the header last-event-id is not the id of one of our events")
    })
}

/// One reader of a job. It holds one part of the log at most.
struct Follower {
    app: Arc<App>,
    id: JobId,
    subscription: Subscription,
    /// Up to where the log was sent or announced, or is ready to be.
    position: u64,
    announce: bool,
    /// What the reader was shown of the job last.
    shown: Option<(i64, Option<ReasonCode>)>,
    ready: VecDeque<Event>,
    ended: bool,
}

/// Why a stream stops before its end. The reader takes it up again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("the store has no answer")]
    Store(#[from] crate::store::Error),
    #[error("the output cannot be read")]
    Output(#[from] output::Error),
    #[error("an event cannot be written")]
    Write(#[from] axum::Error),
}

impl Follower {
    async fn next(mut self) -> Option<(Result<Event, Cut>, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            if self.ended || self.app.stopping.is_cancelled() {
                return None;
            }
            if let Err(cut) = self.look().await {
                tracing::warn!(job.id = %self.id, "the events of job {} are cut off: {}", self.id, chain(&cut));
                self.ended = true;
                return Some((Err(cut), self));
            }
            if self.ready.is_empty() {
                let stopping = self.app.stopping.clone();
                tokio::select! {
                    () = self.subscription.news_or_poll() => {}
                    () = stopping.cancelled() => {}
                }
            }
        }
    }

    /// Makes ready what there is to send: the job if it has changed, then a part of its output, then,
    /// when there is no more of it, the end.
    async fn look(&mut self) -> Result<(), Cut> {
        let Some(job) = self.load().await? else {
            self.ended = true;
            return Ok(());
        };
        let now = clock::now();
        let waiting =
            waiting::reason(&job, &self.app.broker.health(), now).map(|reason| reason.code);
        let shown = Some((job.version, waiting));
        // The last change is shown by the end itself; and to who comes late, by the first event too.
        if self.shown.is_none() || (self.shown != shown && !job.state.is_terminal()) {
            self.shown = shown;
            let mut session = self.app.store.read().await?;
            let job = Box::new(view_with_place(&self.app, &mut session, &job, now).await?);
            drop(session);
            self.ready
                .push_back(event(&JobEvent::Job { job }, self.position)?);
        }
        if self.announce && job.log_bytes.saturating_sub(self.position) > ANNOUNCED_BYTES {
            let log_bytes = job.log_bytes;
            self.ready
                .push_back(event(&JobEvent::Stored { log_bytes }, self.position)?);
            self.position = log_bytes;
            return Ok(());
        }
        match output::read(&self.app.store, &self.app.blobs, &job, self.position).await? {
            Some(log) => self.make_ready(&log)?,
            None if job.state.is_terminal() => {
                let job = Box::new(view(&self.app, &job, now));
                self.ready
                    .push_back(event(&JobEvent::End { job }, self.position)?);
                self.ended = true;
            }
            None => {}
        }
        Ok(())
    }

    async fn load(&self) -> Result<Option<StoredJob>, crate::store::Error> {
        let mut session = self.app.store.read().await?;
        jobs::find(&mut session, self.id).await
    }

    /// Frames as events. Neighbours of one stream that were read at nearly the same time are put together,
    /// up to the longest frame: a command that prints letter by letter would otherwise cost an event for
    /// each.
    fn make_ready(&mut self, log: &[u8]) -> Result<(), Cut> {
        let mut frames = frames(log).peekable();
        while let Some(frame) = frames.next() {
            let frame = frame.map_err(output::Error::Invalid)?;
            let mut data = frame.payload.to_vec();
            let mut end = self.position + (FRAME_HEADER_BYTES + frame.payload.len()) as u64;
            while let Some(more) = frames.next_if(|next| {
                next.as_ref().is_ok_and(|next| {
                    next.stream == frame.stream
                        && next.at.duration_since(frame.at) <= SAME_TIME
                        && data.len() + next.payload.len() <= MAX_FRAME_PAYLOAD_BYTES
                })
            }) {
                let more = more.map_err(output::Error::Invalid)?;
                data.extend_from_slice(more.payload);
                end += (FRAME_HEADER_BYTES + more.payload.len()) as u64;
            }
            self.position = end;
            self.ready.push_back(event(
                &JobEvent::Output {
                    stream: frame.stream,
                    at: frame.at,
                    data,
                },
                end,
            )?);
        }
        Ok(())
    }
}

fn event(content: &JobEvent, position: u64) -> Result<Event, axum::Error> {
    let name = match content {
        JobEvent::Job { .. } => "job",
        JobEvent::Output { .. } => "output",
        JobEvent::Stored { .. } => "stored",
        JobEvent::End { .. } => "end",
    };
    Event::default()
        .event(name)
        .id(position.to_string())
        .json_data(content)
}
