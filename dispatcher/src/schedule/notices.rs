//! Who is told of what became of a tick: notes for webhooks, and jobs of the commands that tell.

use invoke_protocol::command::Command;
use invoke_protocol::environment::Environment;
use invoke_protocol::job::JobSpec;
use invoke_protocol::schedule::{Notification, NotifyBy, NotifyOn};

use super::launch::key_beside;
use super::look::Look;
use crate::acceptance;
use crate::access::Principal;
use crate::problem::Refusal;
use crate::store;
use crate::store::jobs::{self, NewJob};
use crate::store::notifications::{self, NewNotification};
use crate::store::ticks::StoredTick;

impl Look<'_> {
    /// Tells of an event whoever wants to know of such.
    pub(super) async fn notify(
        &mut self,
        event: NotifyOn,
        tick: &StoredTick,
    ) -> Result<(), store::Error> {
        let wanted = self.schedule.spec.notify.clone().into_iter().enumerate();
        let wanted =
            wanted.filter(|(_, notify)| notify.on.is_empty() || notify.on.contains(&event));
        for (number, notify) in wanted {
            match notify.by {
                NotifyBy::Webhook(url) => self.note(event, tick, url).await?,
                NotifyBy::Command(command) => {
                    if let Err(refusal) = self.tell_by(event, tick, command, number).await {
                        tracing::warn!(
                            schedule.id = %self.schedule.id,
                            "schedule {}: the command that tells of {} was not accepted: {}",
                            self.schedule.name,
                            event.as_str(),
                            refusal.detail()
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes it for a webhook, once for each tick, event and address.
    async fn note(
        &mut self,
        event: NotifyOn,
        tick: &StoredTick,
        url: String,
    ) -> Result<(), store::Error> {
        let body = Notification {
            kind: format!("schedule.{}", event.as_str()),
            timestamp: self.now,
            data: tick.view(&self.schedule.name),
        };
        let notification = NewNotification {
            schedule: self.schedule.id,
            dedup: format!(
                "{} {} {} {} {url}",
                self.schedule.id,
                tick.revision,
                tick.instant.as_microsecond(),
                event.as_str()
            ),
            url,
            body: serde_json::to_string(&body).map_err(store::Error::Encode)?,
        };
        notifications::add(&mut self.session, &notification, self.now).await
    }

    /// Makes the job of a command that tells, with the owner's rights and in the schedule's own cluster.
    async fn tell_by(
        &mut self,
        event: NotifyOn,
        tick: &StoredTick,
        command: Command,
        number: usize,
    ) -> Result<(), Refusal> {
        let run = self.schedule.spec.run.job().clone();
        let owner = self.schedule.owner.clone();
        let principal = Principal::absent(&mut self.session, &owner)
            .await?
            .ok_or_else(|| {
                Refusal::unauthenticated("the owner has no valid credential any more")
            })?;
        let cluster = self.cluster.clone().ok_or_else(|| {
            Refusal::invalid("the schedule has no cluster of its own to run it in")
        })?;
        let spec = JobSpec {
            command,
            environment: self.variables(event, tick)?,
            files: None,
            run_timeout_seconds: None,
            ..run
        };
        let deadline = acceptance::check(
            self.app,
            &mut self.session,
            &principal,
            &spec,
            &cluster,
            self.now,
        )
        .await?;
        let what = format!("{} {number} {}", event.as_str(), tick.attempts);
        let key = key_beside(self.schedule.id, tick.instant, &what);
        let job = NewJob {
            id: acceptance::new_job_id(self.now),
            cluster: cluster.id,
            start_deadline: deadline,
            profile: spec.profile,
            command: spec.command,
            submitted_by: principal.name,
            run_timeout_seconds: None,
            idempotency_key: key,
            request_digest: key.as_bytes().to_vec(),
            files: None,
            environment: spec.environment,
            secrets: None,
            stdin: false,
            tick: None,
            fanout: None,
        };
        // `false`: it was told before.
        jobs::add(&mut self.session, &job, self.now).await?;
        Ok(())
    }

    fn variables(&self, event: NotifyOn, tick: &StoredTick) -> Result<Environment, Refusal> {
        let run = tick
            .job
            .map(|job| job.to_string())
            .or(tick.fanout.map(|fanout| fanout.to_string()));
        let variables = [
            ("SCHEDULE", self.schedule.name.to_string()),
            ("SCHEDULE_EVENT", event.as_str().to_owned()),
            ("SCHEDULE_TICK", tick.instant.to_string()),
            ("SCHEDULE_RUN", run.unwrap_or_default()),
            ("SCHEDULE_MESSAGE", tick.message.replace('\0', "")),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        Environment::try_from(std::collections::BTreeMap::from(variables))
            .map_err(|error| Refusal::invalid(error.to_string()))
    }
}
