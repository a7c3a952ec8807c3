//! The job of one cluster of a fan-out: whether it is taken is decided as for a single one.

use invoke_protocol::fanout::{StopCode, StopReason};
use invoke_protocol::id::{ClusterId, FanOutId, JobId};
use invoke_protocol::problem::ProblemCode;
use jiff::Timestamp;
use uuid::{Builder, Uuid};

use super::Error;
use crate::acceptance;
use crate::access::Principal;
use crate::app::App;
use crate::problem::Refusal;
use crate::sealing::{Owner, SealedSecrets};
use crate::signing::sha256;
use crate::store::Session;
use crate::store::clusters::{self, StoredCluster};
use crate::store::fanout_clusters::StoredChild;
use crate::store::fanout_transition::NotTaken;
use crate::store::fanouts::{self, StoredFanOut};
use crate::store::jobs::{NewFiles, NewJob};

/// What becomes of a cluster whose turn has come.
pub(super) enum Verdict {
    /// This is its job.
    Start(Box<NewJob>),
    /// Not now: what is in the way may pass, and is the dispatcher's own.
    Later,
    /// A single job would be refused.
    Refused { code: ProblemCode, message: String },
    /// Whose fan-out it is may not do this any more.
    NotAllowed(StopReason),
}

/// Decides about the clusters of one fan-out, in one transaction.
pub(super) struct Child<'a> {
    app: &'a App,
    fanout: StoredFanOut,
    /// What the last attempt to write said.
    not_taken: Option<(u32, NotTaken)>,
    /// Whose fan-out it is, once somebody has asked.
    principal: Option<Principal>,
}

impl<'a> Child<'a> {
    pub(super) const fn new(
        app: &'a App,
        fanout: StoredFanOut,
        not_taken: Option<(u32, NotTaken)>,
    ) -> Self {
        Self {
            app,
            fanout,
            not_taken,
            principal: None,
        }
    }

    pub(super) async fn decide(
        &mut self,
        session: &mut Session,
        children: &[StoredChild],
        position: u32,
        now: Timestamp,
    ) -> Result<Verdict, Error> {
        if let Some((_, why)) = self.not_taken.filter(|(at, _)| *at == position) {
            return Ok(refused_as(why));
        }
        let Some(child) = children.get(position as usize) else {
            return Ok(Verdict::Later);
        };
        let Some(principal) = self.principal(session).await? else {
            return Ok(self.not_allowed("no credential of theirs is good any more"));
        };
        // No cluster is ever removed.
        let Some(cluster) = clusters::by_id(session, child.cluster).await? else {
            return Ok(Verdict::Later);
        };
        let spec = &self.fanout.spec.job;
        let checked = acceptance::check(self.app, session, &principal, spec, &cluster, now).await;
        match checked {
            Ok(start_deadline) => {
                self.job(session, child, &cluster, start_deadline, now)
                    .await
            }
            Err(refusal) if refusal.code() == ProblemCode::Forbidden => {
                Ok(self.not_allowed(refusal.detail()))
            }
            Err(refusal) if refusal.is_passing() => Ok(Verdict::Later),
            Err(refusal) => Ok(refused(&refusal)),
        }
    }

    async fn principal(&mut self, session: &mut Session) -> Result<Option<Principal>, Error> {
        if self.principal.is_none() {
            self.principal = Principal::absent(session, &self.fanout.submitted_by).await?;
        }
        Ok(self.principal.clone())
    }

    fn not_allowed(&self, why: &str) -> Verdict {
        let message = format!(
            "{}, who submitted it, may not do so any more: {why}",
            self.fanout.submitted_by
        );
        Verdict::NotAllowed(StopReason {
            code: StopCode::NotAllowed,
            message,
        })
    }

    async fn job(
        &self,
        session: &mut Session,
        child: &StoredChild,
        cluster: &StoredCluster,
        start_deadline: Timestamp,
        now: Timestamp,
    ) -> Result<Verdict, Error> {
        let spec = &self.fanout.spec.job;
        let files = match (spec.files, self.fanout.files_upload) {
            (None, _) => None,
            (Some(files), Some(upload)) => Some(NewFiles { files, upload }),
            (Some(_), None) => return Ok(refused_as(NotTaken::FilesGone)),
        };
        let id = acceptance::new_job_id(now);
        let idempotency_key = key(self.fanout.id, cluster.id, child.attempt);
        let digest = self
            .app
            .sealer
            .submission_digest(idempotency_key.as_bytes());
        Ok(Verdict::Start(Box::new(NewJob {
            id,
            cluster: cluster.id,
            profile: spec.profile.clone(),
            command: spec.command.clone(),
            submitted_by: self.fanout.submitted_by.clone(),
            start_deadline,
            run_timeout_seconds: spec.run_timeout_seconds,
            idempotency_key,
            request_digest: digest,
            files,
            environment: spec.environment.clone(),
            secrets: self.secrets(session, id).await?,
            stdin: false,
            tick: None,
            fanout: Some(self.fanout.id),
        })))
    }

    /// The secret variables, sealed again for this job alone.
    async fn secrets(
        &self,
        session: &mut Session,
        job: JobId,
    ) -> Result<Option<SealedSecrets>, Error> {
        if self.fanout.secret_names.is_empty() {
            return Ok(None);
        }
        let owner = Owner::fanout(self.fanout.id);
        let sealed = fanouts::sealed_secrets(session, self.fanout.id).await?;
        let sealed = sealed.ok_or(crate::sealing::Error::Open(owner))?;
        let variables = self.app.sealer.open_variables(owner, &sealed)?;
        Ok(self.app.sealer.seal(Owner::job(job), variables)?)
    }
}

/// The key of a cluster's job: the same for the same attempt, so that no crash and no second dispatcher makes two.
fn key(fanout: FanOutId, cluster: ClusterId, attempt: u32) -> Uuid {
    let name = format!("fan-out {fanout}, cluster {cluster}, attempt {attempt}");
    let mut bytes = [0; 16];
    for (byte, hashed) in bytes.iter_mut().zip(sha256(name.as_bytes())) {
        *byte = hashed;
    }
    Builder::from_custom_bytes(bytes).into_uuid()
}

fn refused(refusal: &Refusal) -> Verdict {
    Verdict::Refused {
        code: refusal.code(),
        message: refusal.detail().to_owned(),
    }
}

fn refused_as(why: NotTaken) -> Verdict {
    let (code, message) = match why {
        NotTaken::KeyUsed => (
            ProblemCode::IdempotencyKeyReused,
            "the key of its job was used by its submitter for another job",
        ),
        NotTaken::FilesGone => (
            ProblemCode::FilesMissing,
            "the files of its job are not kept any more: submit it again",
        ),
    };
    Verdict::Refused {
        code,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attempt has one key, for ever and in every dispatcher, and no other attempt has it.
    #[test]
    fn an_attempt_has_a_key_of_its_own() {
        let [one, other] = [1, 2].map(Uuid::from_u128);
        let (fanout, cluster) = (FanOutId::from_uuid, ClusterId::from_uuid);
        let first = key(fanout(one), cluster(one), 1);
        assert_eq!(
            first.to_string(),
            key(fanout(one), cluster(one), 1).to_string()
        );
        for others in [
            key(fanout(other), cluster(one), 1),
            key(fanout(one), cluster(other), 1),
            key(fanout(one), cluster(one), 2),
        ] {
            assert_ne!(first, others);
        }
        insta::assert_snapshot!(first, @r"
        a1725e3f-60e8-8463-9b31-8af55eef7ec3
        ");
    }
}
