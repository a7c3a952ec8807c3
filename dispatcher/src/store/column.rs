//! From columns to types. A value that does not fit was not written by us.

use invoke_protocol::digest::Sha256;
use invoke_protocol::id::JobId;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;

/// Names a column's row, to say where a contradiction was found.
pub(super) struct Row {
    pub(super) table: &'static str,
    pub(super) key: String,
}

impl Row {
    pub(super) fn of_job(id: JobId) -> Self {
        Self {
            table: "jobs",
            key: id.to_string(),
        }
    }

    pub(super) fn contradiction(
        &self,
        column: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Contradiction {
            table: self.table,
            column,
            row: self.key.clone(),
            source: source.into(),
        }
    }

    pub(super) fn time(&self, column: &'static str, micros: i64) -> Result<Timestamp, Error> {
        // "Never" is the last time that there is, which jiff does not make of its own microseconds.
        if micros == Timestamp::MAX.as_microsecond() {
            return Ok(Timestamp::MAX);
        }
        Timestamp::from_microsecond(micros).map_err(|error| self.contradiction(column, error))
    }

    pub(super) fn optional_time(
        &self,
        column: &'static str,
        micros: Option<i64>,
    ) -> Result<Option<Timestamp>, Error> {
        micros.map(|micros| self.time(column, micros)).transpose()
    }

    pub(super) fn json<T: DeserializeOwned>(
        &self,
        column: &'static str,
        text: &str,
    ) -> Result<T, Error> {
        serde_json::from_str(text).map_err(|error| self.contradiction(column, error))
    }

    pub(super) fn parsed<T>(&self, column: &'static str, text: &str) -> Result<T, Error>
    where
        T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
    {
        text.parse()
            .map_err(|error: T::Err| self.contradiction(column, error))
    }

    pub(super) fn digest(&self, column: &'static str, bytes: &[u8]) -> Result<Sha256, Error> {
        let bytes = bytes.try_into();
        bytes
            .map(Sha256::from_bytes)
            .map_err(|error: std::array::TryFromSliceError| self.contradiction(column, error))
    }

    /// A small number, which is never negative.
    pub(super) fn number(&self, column: &'static str, number: i64) -> Result<u32, Error> {
        u32::try_from(number).map_err(|error| self.contradiction(column, error))
    }

    /// A count or a length, which is never negative.
    pub(super) fn count(&self, column: &'static str, number: i64) -> Result<u64, Error> {
        u64::try_from(number).map_err(|error| self.contradiction(column, error))
    }
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(Error::Encode)
}

/// A length as a column holds it. One above 2^63 cannot be: the disk is smaller.
pub(super) fn to_column(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// A time as it is read back: columns hold microseconds.
pub(super) fn as_stored(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
