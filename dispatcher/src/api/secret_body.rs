//! What is said of a body that cannot be read and may have secrets in it. Words go to logs and into bug reports,
//! and a parser quotes what it does not understand.

use std::collections::BTreeMap;

use invoke_protocol::environment::Environment;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::Refusal;

/// What is wrong with a body, in words that have nothing of its secrets in them: these are the fields `secrets`
/// of the objects at `jobs`, which are JSON pointers (RFC 6901).
pub(super) fn unreadable<T: DeserializeOwned>(body: &[u8], jobs: &[&str]) -> Refusal {
    let mut rest: Value = match serde_json::from_slice(body) {
        Ok(rest @ Value::Object(_)) => rest,
        Ok(_) => return Refusal::invalid("the body is not what is expected here: no JSON object"),
        // Of what is no JSON a parser quotes nothing.
        Err(error) => return not_expected(&error),
    };
    let mut has_secrets = false;
    for pointer in jobs {
        let job = rest.pointer_mut(pointer).and_then(Value::as_object_mut);
        let secrets = job.and_then(|job| job.remove("secrets"));
        has_secrets |= secrets.is_some();
        if let Some(Err(words)) = secrets.map(secret_variables) {
            return Refusal::invalid(format!("secrets: {words}"));
        }
    }
    let read = match has_secrets {
        true => serde_json::from_value::<T>(rest),
        // With the place of what is wrong.
        false => serde_json::from_slice(body),
    };
    match read {
        Err(error) => not_expected(&error),
        // Readable without a field that is good by itself: the field is there twice.
        Ok(_) => Refusal::invalid("secrets: the field is there more than once"),
    }
}

fn not_expected(error: &serde_json::Error) -> Refusal {
    Refusal::invalid(format!("the body is not what is expected here: {error}"))
}

fn secret_variables(secrets: Value) -> Result<(), String> {
    let variables: BTreeMap<String, String> = serde_json::from_value(secrets)
        .map_err(|_| "expected an object whose values are strings".to_owned())?;
    let checked = Environment::try_from(variables);
    checked.map(drop).map_err(|invalid| invalid.to_string())
}
