//! Ids and names are types: a job's id cannot be passed where a cluster's is asked for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text that is no id or no name of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a UUID in its hyphenated form (RFC 9562).
    #[error(
        "{text:?} is not a {kind} id: expected a UUID such as 0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10"
    )]
    Id {
        /// What was asked for, such as `job`.
        kind: &'static str,
        /// What came.
        text: String,
    },
    /// Not a DNS label (RFC 1123): the form that Kubernetes, AMQP names and file names all accept.
    #[error(
        "{text:?} is not a {kind} name: use 1 to 63 characters of a-z, 0-9 and -, and begin and end with a letter or digit"
    )]
    Name {
        /// What was asked for, such as `cluster`.
        kind: &'static str,
        /// What came, cut to its first 80 characters.
        text: String,
    },
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes a UUID that the caller made, or read from where one was stored.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself, for storage.
            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                // `Uuid::parse_str` also takes braces, URNs and bare hex: one form is enough.
                match Uuid::try_parse(text) {
                    Ok(uuid) if text.len() == 36 => Ok(Self(uuid)),
                    _ => Err(ParseError::Id { kind: $kind, text: text.chars().take(80).collect() }),
                }
            }
        }
    };
}

uuid_id! {
    /// A job, for ever. UUIDv7, so ids sort by the time of submission.
    JobId, "job"
}
uuid_id! {
    /// One command on many clusters, for ever. UUIDv7, as a job's.
    FanOutId, "fan-out"
}
uuid_id! {
    /// A cluster, made when it is added; a cluster that is added again under an old name has a new one.
    ClusterId, "cluster"
}
uuid_id! {
    /// A pod's `metadata.uid`, given by the API server: two pods of one name differ in it.
    PodUid, "pod"
}

uuid_id! {
    /// A schedule, made when it is created; one that is made again under an old name has a new one.
    ScheduleId, "schedule"
}

macro_rules! dns_label {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                if is_dns_label(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(ParseError::Name { kind: $kind, text: text.chars().take(80).collect() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseError;

            fn try_from(text: String) -> Result<Self, ParseError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

dns_label! {
    /// What people call a cluster: `prod-eu`, `edge-7`.
    ClusterName, "cluster"
}
dns_label! {
    /// What the cluster's owner calls a way to run commands: `default`, `deploy`.
    ProfileName, "profile"
}

dns_label! {
    /// What people call a schedule: `nightly-vacuum`.
    ScheduleName, "schedule"
}
dns_label! {
    /// What people call a calendar: `freeze`.
    CalendarName, "calendar"
}

impl ProfileName {
    /// The profile of a job that names none.
    #[must_use]
    pub fn default_profile() -> Self {
        Self("default".to_owned())
    }
}

/// One replica of a runner: the name of its pod. For people and logs; it grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct RunnerId(pub String);

impl fmt::Display for RunnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_written_form() {
        let text = "0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10";
        assert_eq!(text.parse::<JobId>().unwrap().to_string(), text);
        for other in [
            "",
            "42",
            "0197c1f05a3e7c229d1b3f2a9c8e4b10",
            "{0197c1f0-5a3e-7c22-9d1b-3f2a9c8e4b10}",
        ] {
            assert!(other.parse::<JobId>().is_err(), "{other}");
        }
    }

    #[test]
    fn a_name_is_safe_in_queues_paths_and_labels() {
        for good in ["a", "edge-7", "0", &"x".repeat(63)] {
            assert!(good.parse::<ClusterName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a/b",
            "../a",
            "a b",
            "é",
            "a\n",
            "a%2f",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
            assert!(
                serde_json::from_value::<ClusterName>(bad.into()).is_err(),
                "{bad}"
            );
        }
    }
}
