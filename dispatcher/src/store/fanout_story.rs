//! Table `fanout_story`: what happened to a fan-out, for people. Rows are only ever added, in the transaction of
//! what they tell of.

use invoke_protocol::fanout::{FanOutStep, FanOutStepName};
use invoke_protocol::id::FanOutId;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::StrDeserializer;

use super::column::Row;
use super::{Error, Session, one_row};

/// Adds the step that made the fan-out's version `version`.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn add(
    session: &mut Session,
    fanout: FanOutId,
    version: i64,
    step: &FanOutStep,
) -> Result<(), Error> {
    let added = sql!(
        session,
        execute,
        "INSERT INTO fanout_story (fanout_id, seq, at, who, step, cluster, message) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        *fanout.as_uuid(),
        version,
        step.at.as_microsecond(),
        step.by.as_str(),
        step.step.as_str(),
        step.cluster
            .as_ref()
            .map(invoke_protocol::id::ClusterName::as_str),
        step.message.as_str(),
    )?;
    one_row("fanout_story", fanout, added)
}

/// What happened to a fan-out, oldest first.
///
/// # Errors
/// [`Error`].
pub async fn of_fanout(session: &mut Session, fanout: FanOutId) -> Result<Vec<FanOutStep>, Error> {
    let rows = sql!(
        session,
        fetch_all as (i64, String, String, Option<String>, String),
        "SELECT at, who, step, cluster, message FROM fanout_story WHERE fanout_id = $1 ORDER BY seq",
        *fanout.as_uuid(),
    )?;
    let place = Row {
        table: "fanout_story",
        key: fanout.to_string(),
    };
    rows.into_iter()
        .map(|(at, by, step, cluster, message)| {
            let step: StrDeserializer<'_, serde::de::value::Error> =
                step.as_str().into_deserializer();
            Ok(FanOutStep {
                at: place.time("at", at)?,
                by,
                step: FanOutStepName::deserialize(step)
                    .map_err(|error| place.contradiction("step", error))?,
                cluster: cluster
                    .map(|name| place.parsed("cluster", &name))
                    .transpose()?,
                message,
            })
        })
        .collect()
}
