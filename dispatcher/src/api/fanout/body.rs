//! The body of a submission, read with our own words for what is wrong with it.

use invoke_protocol::fanout::{FailureBudget, FanOutSpec, Share};
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::selector::Selector;
use serde_json::{Map, Value, json};

use crate::api::submit;
use crate::problem::Refusal;

/// What was asked for.
///
/// # Errors
/// A [`Refusal`] that says what to write instead, and has nothing of a secret in it: a parser quotes what it does
/// not understand, so that the job is read as a single one is, and the rest without it.
pub(super) fn read(body: &[u8]) -> Result<FanOutSpec, Refusal> {
    let Ok(spec) = serde_json::from_slice::<FanOutSpec>(body) else {
        return Err(unreadable(body));
    };
    submit::check_environment(&spec.job)?;
    match spec.check() {
        Ok(()) => Ok(spec),
        Err(invalid @ invoke_protocol::fanout::InvalidFanOut::CanaryTwice(_)) => Err(Refusal::new(
            ProblemCode::InvalidCanary,
            invalid.to_string(),
        )),
        Err(invalid) => Err(Refusal::invalid(invalid.to_string())),
    }
}

fn unreadable(body: &[u8]) -> Refusal {
    let mut fields = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Refusal::invalid("the body is not what is expected here: no JSON object"),
        // Of what is no JSON a parser quotes nothing.
        Err(error) => return not_expected(&error),
    };
    if let Some(job) = fields.get("job")
        && let Err(refusal) = submit::read(job.to_string().as_bytes())
    {
        return refusal;
    }
    if let Some(refusal) = invalid_field(&fields) {
        return refusal;
    }
    // One that is good, so that what is wrong must be elsewhere.
    if let Some(job) = fields.get_mut("job") {
        *job = json!({ "command": { "argv": ["true"] } });
    }
    match serde_json::from_value::<FanOutSpec>(Value::Object(fields)) {
        Err(error) => not_expected(&error),
        // Each field is good by itself.
        Ok(_) => Refusal::invalid(
            "the body is not what is expected here: a field is there more than once",
        ),
    }
}

/// Fields whose text has rules of its own, in the words of these.
fn invalid_field(fields: &Map<String, Value>) -> Option<Refusal> {
    let text = |field: &str| fields.get(field).and_then(Value::as_str);
    // A number that cannot be one is in the words of what reads texts, too.
    let amount = |field: &str| match fields.get(field)? {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    let words = |field: &str, error: String| format!("{field}: {error}");
    if let Some(Err(invalid)) = text("selector").map(str::parse::<Selector>) {
        let detail = words("selector", invalid.to_string());
        return Some(Refusal::new(ProblemCode::InvalidSelector, detail));
    }
    let concurrency = amount("concurrency").map(|amount| amount.parse::<Share>());
    let max_failures = amount("max_failures").map(|amount| amount.parse::<FailureBudget>());
    let (field, invalid) = match (concurrency, max_failures) {
        (Some(Err(invalid)), _) => ("concurrency", invalid),
        (_, Some(Err(invalid))) => ("max_failures", invalid),
        _ => return None,
    };
    Some(Refusal::new(
        ProblemCode::InvalidShare,
        words(field, invalid.to_string()),
    ))
}

fn not_expected(error: &serde_json::Error) -> Refusal {
    Refusal::invalid(format!("the body is not what is expected here: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(change: &Value) -> String {
        let mut body = json!({ "job": { "command": { "shell": "date" } }, "selector": "env=prod" });
        let change = change.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(change);
        body.to_string()
    }

    #[test]
    fn what_is_wrong_says_what_to_write_and_nothing_of_a_secret() {
        let job = |fields: Value| {
            let mut job =
                json!({ "command": { "shell": "date" }, "secrets": { "TOKEN": "hunter2" } });
            job.as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            json!({ "job": job })
        };
        let mut texts: Vec<String> = [
            json!({ "selector": "" }),
            json!({ "selector": "env=prod,tier" , "concurrency": "0%" }),
            json!({ "selector": 5 }),
            json!({ "concurrency": 0 }),
            json!({ "concurrency": -1 }),
            json!({ "concurrency": "ten" }),
            json!({ "concurrency": ["10%"] }),
            json!({ "max_failures": "101%" }),
            json!({ "max_failures": -1 }),
            json!({ "canary": ["a", "b", "a"] }),
            json!({ "canary": ["A"] }),
            json!({ "on_stop": "panic" }),
            job(json!({ "cluster": "edge-7" })),
            job(json!({ "if_offline": "fail" })),
            job(json!({ "stdin": true })),
            job(json!({ "command": { "shell": "" } })),
            job(json!({ "secrets": "hunter2" })),
            job(json!({ "secrets": { "INVOKE_X": "hunter2" } })),
            job(json!({ "environment": { "TOKEN": "x" } })),
            json!({ "job": null }),
        ]
        .iter()
        .map(body)
        .collect();
        texts.push("[]".to_owned());
        texts.push("{".to_owned());
        texts.push(r#"{"selector":"a"}"#.to_owned());
        texts.push(r#"{"job":{"command":{"shell":"date"},"secrets":{"T":"hunter2"}},"job":{},"selector":"a"}"#.to_owned());
        let words: Vec<String> = texts
            .iter()
            .map(|text| {
                let refusal = read(text.as_bytes()).unwrap_err();
                format!("{}: {}", refusal.code().as_str(), refusal.detail())
            })
            .collect();
        let words = words.join("\n");
        assert!(!words.contains("hunter2"), "{words}");
        insta::assert_snapshot!(words, @r#"
        invalid_selector: selector: the selector is empty, which would be every cluster: say which, such as env=prod; a label that all of them have, such as env, selects all
        invalid_share: concurrency: 0% would let no cluster run: write a number from 1, or a percentage from 1% to 100%
        invalid_request: the body is not what is expected here: invalid type: integer `5`, expected a string
        invalid_share: concurrency: 0 would let no cluster run: write a number from 1, or a percentage from 1% to 100%
        invalid_share: concurrency: "-1" is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%
        invalid_share: concurrency: "ten" is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%
        invalid_request: the body is not what is expected here: invalid type: sequence, expected a number of clusters, such as 10, or a percentage of all of them, such as "10%"
        invalid_share: max_failures: 101% is more than all clusters: write at most 100%
        invalid_share: max_failures: "-1" is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%
        invalid_canary: cluster a is named twice as a canary: once is enough
        invalid_request: the body is not what is expected here: "A" is not a cluster name: use 1 to 63 characters of a-z, 0-9 and -, and begin and end with a letter or digit
        invalid_request: the body is not what is expected here: unknown variant `panic`, expected `finish` or `cancel`
        invalid_request: the job names cluster edge-7, and a fan-out chooses its clusters by its selector: leave cluster out of the job, or submit it as a single job
        invalid_request: say what becomes of offline clusters with if_offline of the fan-out, not of its job
        invalid_request: a fan-out has no stdin: it can be read once, and the commands of many clusters start at different times; attach what they are to read as a file
        invalid_command: the command is empty: say what to run, for example "kubectl get pods"
        invalid_request: secrets: expected an object whose values are strings
        invalid_request: secrets: variable INVOKE_X cannot be set: names that begin with INVOKE_ are invoke's own
        invalid_request: variable TOKEN is in environment and in secrets: say which it is to be
        invalid_request: the body is not what is expected here: no JSON object
        invalid_request: the body is not what is expected here: no JSON object
        invalid_request: the body is not what is expected here: EOF while parsing an object at line 1 column 1
        invalid_request: the body is not what is expected here: missing field `job`
        invalid_request: the body is not what is expected here: missing field `command` at line 1 column 2
        "#);
    }

    #[test]
    fn a_body_is_read_as_it_is_written() {
        let spec = read(
            body(&json!({ "canary": ["edge-1"], "concurrency": "10%", "ramp": true, "max_failures": 0,
                "on_stop": "cancel", "if_offline": "skip", "expected": ["edge-1", "edge-2"] }))
            .as_bytes(),
        )
        .unwrap();
        insta::assert_snapshot!(serde_json::to_string(&spec).unwrap(), @r#"
        {"job":{"command":{"shell":"date"},"profile":"default"},"selector":"env=prod","canary":["edge-1"],"concurrency":"10%","ramp":true,"max_failures":0,"on_stop":"cancel","if_offline":"skip","expected":["edge-1","edge-2"]}
        "#);
    }
}
