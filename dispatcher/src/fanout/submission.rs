//! A fan-out as it is asked for becomes one that can be stored.

use invoke_protocol::environment::SecretEnvironment;
use invoke_protocol::fanout::FanOutSpec;
use invoke_protocol::id::FanOutId;
use invoke_protocol::job::JobSpec;
use jiff::Timestamp;
use uuid::Uuid;

use super::resolution::resolve;
use crate::acceptance;
use crate::access::Principal;
use crate::api::submit;
use crate::app::App;
use crate::problem::Refusal;
use crate::sealing::Owner;
use crate::store::Session;
use crate::store::fanouts::NewFanOut;

/// Decides whether a fan-out is taken, as [`acceptance::check`] does for a job, and makes what is stored of it:
/// for one that a person submits at this moment and for one that a schedule makes.
///
/// # Errors
/// A [`Refusal`] that says what to ask for instead.
pub(crate) async fn prepare(
    app: &App,
    session: &mut Session,
    principal: &Principal,
    spec: FanOutSpec,
    (idempotency_key, request_digest): (Uuid, Vec<u8>),
    now: Timestamp,
) -> Result<NewFanOut, Refusal> {
    let resolution = resolve(app, session, principal, &spec, now).await?;
    resolution.check(&spec)?;
    let files = submit::files(app, session, principal, &spec.job).await?;
    let id = FanOutId::from_uuid(acceptance::new_uuid(now));
    let (spec, secrets) = without_secrets(spec);
    let clusters = resolution.clusters.iter();
    Ok(NewFanOut {
        id,
        spec,
        secrets: app.sealer.seal(Owner::fanout(id), secrets)?,
        files_upload: files.map(|files| files.upload),
        limits: resolution.limits,
        clusters: clusters
            .map(|resolved| (resolved.cluster.id, resolved.canary))
            .collect(),
        submitted_by: principal.name.clone(),
        idempotency_key,
        request_digest,
    })
}

/// What is stored and shown, and what nobody may see.
fn without_secrets(spec: FanOutSpec) -> (FanOutSpec, SecretEnvironment) {
    let secrets = spec.job.secrets;
    let job = JobSpec {
        secrets: SecretEnvironment::default(),
        ..spec.job
    };
    let spec = FanOutSpec {
        job,
        // It was good for the submission alone.
        expected: None,
        ..spec
    };
    (spec, secrets)
}
