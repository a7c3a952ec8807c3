//! What is written on a cluster, by its owner, for others to choose it by: labels, as Kubernetes has them.
//! [`Labels`] that exist are valid.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most labels that one cluster may have.
pub const MAX_LABELS: usize = 64;

/// The longest name of a key and the longest value, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// The longest prefix of a key, in bytes.
const MAX_PREFIX_BYTES: usize = 253;

/// Text that is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// No key.
    #[error(
        "{0:?} is no label key: use 1 to 63 letters, digits, -, _ and ., and begin and end with a letter or digit, \
         such as env; a domain may come before it, such as example.com/env"
    )]
    Key(String),
    /// No value.
    #[error(
        "{0:?} is no label value: use at most 63 letters, digits, -, _ and ., and begin and end with a letter or digit; \
         it may be empty"
    )]
    Value(String),
    /// Over [`MAX_LABELS`].
    #[error("a cluster may have {MAX_LABELS} labels, and these are {0}: remove some")]
    TooMany(usize),
}

macro_rules! label_text {
    ($(#[$doc:meta])* $name:ident, $is_valid:ident, $invalid:ident, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String, pattern = $pattern))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// It as text.
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
            type Err = InvalidLabel;

            fn from_str(text: &str) -> Result<Self, InvalidLabel> {
                if $is_valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidLabel::$invalid(text.chars().take(80).collect()))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidLabel;

            fn try_from(text: String) -> Result<Self, InvalidLabel> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }
    };
}

label_text! {
    /// What a label is about: `env`, or with a domain before it `example.com/env`.
    LabelKey, is_key, Key, "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
}
label_text! {
    /// What a label says: `prod`; may be empty.
    LabelValue, is_value, Value, "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
}

/// The labels of a cluster, by key; at most [`MAX_LABELS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
#[serde(
    try_from = "BTreeMap<LabelKey, LabelValue>",
    into = "BTreeMap<LabelKey, LabelValue>"
)]
pub struct Labels(BTreeMap<LabelKey, LabelValue>);

/// What is to become of a cluster's labels, as a JSON merge patch (RFC 7396): those with a value are set,
/// those with `null` are removed, others stay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Option<String>>))]
#[serde(transparent)]
pub struct LabelsPatch(pub BTreeMap<LabelKey, Option<LabelValue>>);

impl Labels {
    /// The value of a label; `None` if there is no such label.
    #[must_use]
    pub fn get(&self, key: &LabelKey) -> Option<&LabelValue> {
        self.0.get(key)
    }

    /// All of them, sorted by key.
    #[must_use]
    pub const fn as_map(&self) -> &BTreeMap<LabelKey, LabelValue> {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels as the patch wants them.
    ///
    /// # Errors
    /// [`InvalidLabel::TooMany`] if there were too many then.
    pub fn patched(&self, patch: &LabelsPatch) -> Result<Self, InvalidLabel> {
        let mut labels = self.0.clone();
        for (key, value) in &patch.0 {
            match value {
                Some(value) => labels.insert(key.clone(), value.clone()),
                None => labels.remove(key),
            };
        }
        labels.try_into()
    }
}

impl fmt::Display for Labels {
    /// As `kubectl get --show-labels` writes them: `env=prod,tier=edge`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (key, value)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl TryFrom<BTreeMap<LabelKey, LabelValue>> for Labels {
    type Error = InvalidLabel;

    fn try_from(labels: BTreeMap<LabelKey, LabelValue>) -> Result<Self, InvalidLabel> {
        match labels.len() {
            0..=MAX_LABELS => Ok(Self(labels)),
            count => Err(InvalidLabel::TooMany(count)),
        }
    }
}

impl From<Labels> for BTreeMap<LabelKey, LabelValue> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_prefix(prefix) && is_name(name),
        None => is_name(text),
    }
}

fn is_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let outer = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= MAX_NAME_BYTES
        && text.bytes().all(inner)
        && outer(text.bytes().next())
        && outer(text.bytes().next_back())
}

/// A DNS subdomain (RFC 1123).
fn is_prefix(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= MAX_PREFIX_BYTES && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_and_values_are_kubernetes_own() {
        for good in [
            "env",
            "a",
            "A_b.c-1",
            "example.com/env",
            "a/b",
            &"x".repeat(63),
        ] {
            assert!(good.parse::<LabelKey>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a/b/c",
            "-a",
            "a-",
            "_a",
            "a b",
            "A.com/a",
            "a..b/c",
            "ä",
            "a=b",
            "a,b",
            "!a",
            &"x".repeat(64),
            &format!("{}/a", "x".repeat(254)),
        ] {
            assert!(bad.parse::<LabelKey>().is_err(), "{bad}");
        }
        for good in ["", "prod", "1", "a.b_c-D", &"x".repeat(63)] {
            assert!(good.parse::<LabelValue>().is_ok(), "{good}");
        }
        for bad in ["-a", "a ", "a/b", "ä", "a,b", "(", &"x".repeat(64)] {
            assert!(bad.parse::<LabelValue>().is_err(), "{bad}");
        }
    }

    /// RFC 7396: what is not mentioned stays, and null removes, whether it was there or not.
    #[test]
    fn a_patch_sets_removes_and_leaves_alone() {
        let labels: Labels =
            serde_json::from_value(json!({ "env": "prod", "tier": "edge" })).unwrap();
        let patch = json!({ "env": "test", "tier": null, "gone": null, "note": "" });
        let patch: LabelsPatch = serde_json::from_value(patch).unwrap();
        let patched = labels.patched(&patch).unwrap();
        assert_eq!(patched.to_string(), "env=test,note=");
        assert_eq!(labels.patched(&LabelsPatch::default()), Ok(labels));
    }

    #[test]
    fn there_is_a_limit_to_labels() {
        let many = |count: usize| {
            let labels = (0..count).map(|number| (format!("k{number}"), Some("v".to_owned())));
            serde_json::to_value(labels.collect::<BTreeMap<_, _>>()).unwrap()
        };
        assert!(serde_json::from_value::<Labels>(many(MAX_LABELS)).is_ok());
        assert!(serde_json::from_value::<Labels>(many(MAX_LABELS + 1)).is_err());
        let patch: LabelsPatch = serde_json::from_value(many(MAX_LABELS + 1)).unwrap();
        let refused = Labels::default().patched(&patch);
        assert_eq!(refused, Err(InvalidLabel::TooMany(MAX_LABELS + 1)));
    }
}
