//! Schedules and calendars.

use invoke_protocol::api;
use invoke_protocol::id::{CalendarName, ScheduleName};
use invoke_protocol::schedule::{
    Calendar, CalendarList, CalendarSpec, ComingTicks, NextQuery, PauseRequest, PutQuery, Schedule,
    ScheduleList, ScheduleSpec, Tick, TickList, TicksQuery, WebhookKey,
};
use reqwest::{Method, RequestBuilder};
use uuid::Uuid;

use super::{Client, Error};

impl Client {
    /// The schedules, by name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn schedules(&self) -> Result<ScheduleList, Error> {
        self.answer(self.request(Method::GET, api::SCHEDULES)).await
    }

    /// One schedule.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn schedule(&self, name: &ScheduleName) -> Result<Schedule, Error> {
        self.answer(schedule_request(self, Method::GET, api::SCHEDULE, name))
            .await
    }

    /// The same; `None` if there is none of this name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn find_schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>, Error> {
        match self.schedule(name).await {
            Ok(schedule) => Ok(Some(schedule)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a schedule, or replaces what one is to do.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_schedule(
        &self,
        name: &ScheduleName,
        how: &PutQuery,
        spec: &ScheduleSpec,
    ) -> Result<Schedule, Error> {
        let request = schedule_request(self, Method::PUT, api::SCHEDULE, name);
        self.answer(request.query(how).json(spec)).await
    }

    /// Deletes a schedule; its ledger stays.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_schedule(&self, name: &ScheduleName) -> Result<(), Error> {
        let request = schedule_request(self, Method::DELETE, api::SCHEDULE, name);
        self.send(request).await.map(drop)
    }

    /// When it runs next.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn coming_ticks(
        &self,
        name: &ScheduleName,
        query: &NextQuery,
    ) -> Result<ComingTicks, Error> {
        let request = schedule_request(self, Method::GET, api::SCHEDULE_NEXT, name);
        self.answer(request.query(query)).await
    }

    /// A page of its ledger, the newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ticks(&self, name: &ScheduleName, query: &TicksQuery) -> Result<TickList, Error> {
        let request = schedule_request(self, Method::GET, api::SCHEDULE_TICKS, name);
        self.answer(request.query(query)).await
    }

    /// Lets its ticks be skipped from now on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pause_schedule(
        &self,
        name: &ScheduleName,
        reason: String,
    ) -> Result<Schedule, Error> {
        let request = schedule_request(self, Method::POST, api::SCHEDULE_PAUSE, name);
        self.answer(request.json(&PauseRequest { reason })).await
    }

    /// Ends a pause, or a suspension.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn resume_schedule(&self, name: &ScheduleName) -> Result<Schedule, Error> {
        let request = schedule_request(self, Method::POST, api::SCHEDULE_RESUME, name);
        self.answer(request).await
    }

    /// Runs it at once. The same key is the same run, however often it is sent.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run_schedule(&self, name: &ScheduleName, key: Uuid) -> Result<Tick, Error> {
        let request = schedule_request(self, Method::POST, api::SCHEDULE_RUN, name)
            .header(api::IDEMPOTENCY_KEY, key.hyphenated().to_string());
        self.answer(request).await
    }

    /// Lets its next tick be skipped.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn skip_next_tick(&self, name: &ScheduleName) -> Result<Schedule, Error> {
        let request = schedule_request(self, Method::POST, api::SCHEDULE_SKIP, name);
        self.answer(request).await
    }

    /// Makes it the caller's.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn take_schedule_over(&self, name: &ScheduleName) -> Result<Schedule, Error> {
        let request = schedule_request(self, Method::POST, api::SCHEDULE_TAKE_OVER, name);
        self.answer(request).await
    }

    /// The key that its webhooks are signed with.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn webhook_key(&self, name: &ScheduleName) -> Result<WebhookKey, Error> {
        let request = schedule_request(self, Method::GET, api::SCHEDULE_WEBHOOK_KEY, name);
        self.answer(request).await
    }

    /// The calendars, by name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn calendars(&self) -> Result<CalendarList, Error> {
        self.answer(self.request(Method::GET, api::CALENDARS)).await
    }

    /// One calendar.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn calendar(&self, name: &CalendarName) -> Result<Calendar, Error> {
        self.answer(calendar_request(self, Method::GET, name)).await
    }

    /// Keeps a calendar, in place of an earlier one of this name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_calendar(
        &self,
        name: &CalendarName,
        spec: &CalendarSpec,
    ) -> Result<Calendar, Error> {
        self.answer(calendar_request(self, Method::PUT, name).json(spec))
            .await
    }

    /// Deletes a calendar.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_calendar(&self, name: &CalendarName) -> Result<(), Error> {
        self.send(calendar_request(self, Method::DELETE, name))
            .await
            .map(drop)
    }
}

fn schedule_request(
    client: &Client,
    method: Method,
    path: &str,
    name: &ScheduleName,
) -> RequestBuilder {
    client.request(method, &path.replace("{name}", name.as_str()))
}

fn calendar_request(client: &Client, method: Method, name: &CalendarName) -> RequestBuilder {
    client.request(method, &api::CALENDAR.replace("{name}", name.as_str()))
}
