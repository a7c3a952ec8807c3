//! The environment variables that a submitter gives to a command, and those among them that are secret.
//! An [`Environment`] that exists is valid.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The most that all variables of a job may come to, names and values, in bytes: they travel in the order.
pub const MAX_ENVIRONMENT_BYTES: usize = 128 * 1024;

/// Where the names of our own variables begin.
pub const RESERVED_PREFIX: &str = "INVOKE_";

/// The shortest value that is masked in output, in bytes: a shorter one would be found by accident, and
/// what is masked would tell it.
pub const MIN_MASKED_BYTES: usize = 6;

/// Variables, by name: letters, digits and `_`, not beginning with a digit, nor with [`RESERVED_PREFIX`];
/// values without NUL; at most [`MAX_ENVIRONMENT_BYTES`] in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
#[serde(
    try_from = "BTreeMap<String, String>",
    into = "BTreeMap<String, String>"
)]
pub struct Environment(BTreeMap<String, String>);

/// Why something is no environment. The text names the variable, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnvironment {
    /// A name that a shell could not use.
    #[error(
        "{0:?} is no name of a variable: use letters, digits and _, and do not begin with a digit"
    )]
    Name(String),
    /// A name of ours.
    #[error("variable {0} cannot be set: names that begin with {RESERVED_PREFIX} are invoke's own")]
    Reserved(String),
    /// No operating system can pass it on.
    #[error("the value of variable {0} contains a NUL byte, which no program can be given")]
    Nul(String),
    /// Over [`MAX_ENVIRONMENT_BYTES`].
    #[error(
        "the variables come to {0} bytes; at most {MAX_ENVIRONMENT_BYTES} (128 KiB) fit: put what is large into a file"
    )]
    TooLong(usize),
}

impl Environment {
    /// The variables, sorted by name.
    #[must_use]
    pub const fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for Environment {
    type Error = InvalidEnvironment;

    fn try_from(variables: BTreeMap<String, String>) -> Result<Self, InvalidEnvironment> {
        for (name, value) in &variables {
            check(name, value)?;
        }
        let bytes = variables
            .iter()
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        match bytes {
            0..=MAX_ENVIRONMENT_BYTES => Ok(Self(variables)),
            _ => Err(InvalidEnvironment::TooLong(bytes)),
        }
    }
}

fn check(name: &str, value: &str) -> Result<(), InvalidEnvironment> {
    let short = || name.chars().take(80).collect();
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name
            .bytes()
            .next()
            .is_some_and(|first| !first.is_ascii_digit());
    if !is_name {
        Err(InvalidEnvironment::Name(short()))
    } else if name.starts_with(RESERVED_PREFIX) {
        Err(InvalidEnvironment::Reserved(short()))
    } else if value.contains('\0') {
        Err(InvalidEnvironment::Nul(short()))
    } else {
        Ok(())
    }
}

impl From<Environment> for BTreeMap<String, String> {
    fn from(environment: Environment) -> Self {
        environment.0
    }
}

/// Variables whose values nobody may see: not in an order, a log, a table or the output. `Debug` shows
/// their names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
#[serde(transparent)]
pub struct SecretEnvironment(Environment);

impl SecretEnvironment {
    /// Takes variables that are secret.
    #[must_use]
    pub const fn new(environment: Environment) -> Self {
        Self(environment)
    }

    /// The variables with their values, for the one who passes them on.
    #[must_use]
    pub const fn expose(&self) -> &BTreeMap<String, String> {
        self.0.variables()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.variables().keys().cloned().collect()
    }
}

impl fmt::Debug for SecretEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.variables().keys()).finish()
    }
}

/// The secret variables of a job as they are handed on: the JSON text of this. The salt makes its digest
/// safe to sign and store: without it a short secret could be found from the digest by trying.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaltedSecrets {
    /// 32 random bytes, in base64.
    #[serde(with = "crate::base64_bytes")]
    pub salt: Vec<u8>,
    /// The variables.
    pub variables: SecretEnvironment,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: &str) -> Result<Environment, InvalidEnvironment> {
        BTreeMap::from([(name.to_owned(), value.to_owned())]).try_into()
    }

    #[test]
    fn only_what_a_shell_can_name_is_a_variable() {
        for good in ["A", "_", "a1", "PATH", "X_Y"] {
            assert!(of(good, "ä\nb").is_ok(), "{good}");
        }
        for bad in ["", "1A", "A-B", "A B", "A=B", "Ä", "A\0", "A\n"] {
            assert_eq!(of(bad, ""), Err(InvalidEnvironment::Name(bad.to_owned())));
        }
        assert!(matches!(
            of("INVOKE_JOB_ID", ""),
            Err(InvalidEnvironment::Reserved(_))
        ));
        assert!(matches!(of("A", "b\0"), Err(InvalidEnvironment::Nul(_))));
        assert!(matches!(
            of("A", &"x".repeat(MAX_ENVIRONMENT_BYTES)),
            Err(InvalidEnvironment::TooLong(_))
        ));
    }

    #[test]
    fn json_cannot_go_around_the_checks() {
        assert!(serde_json::from_str::<Environment>(r#"{"A B":"1"}"#).is_err());
        assert!(serde_json::from_str::<SecretEnvironment>(r#"{"INVOKE_X":"1"}"#).is_err());
    }

    #[test]
    fn a_secret_is_not_shown_by_accident() {
        let secret = SecretEnvironment::new(of("TOKEN", "hunter2").unwrap());
        assert_eq!(format!("{secret:?}"), r#"{"TOKEN"}"#);
    }
}
