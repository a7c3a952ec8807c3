//! `invoke schedule export`, `invoke schedule apply -f FILE`: schedules as YAML documents, one each.
//!
//! What is exported is what a schedule is to do, in the words of the API, defaults left out: the same schedule is
//! the same text, and two can be compared. Secrets are no part of it; a comment says which there are.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use invoke_protocol::id::ScheduleName;
use invoke_protocol::schedule::{PutQuery, Schedule, ScheduleSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::put::put;
use crate::args::Format;
use crate::commands::Session;
use crate::exit::Exit;
use crate::failure::Failure;

/// The longest file that is read.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A schedule in a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "a schedule: its name and its spec")]
struct Document {
    name: ScheduleName,
    spec: ScheduleSpec,
}

/// Prints schedules that `apply` reads.
pub(super) async fn export(names: &[ScheduleName], session: &Session<'_>) -> Result<Exit, Failure> {
    let mut schedules = Vec::new();
    for name in names {
        schedules.push(session.client.schedule(name).await?);
    }
    if names.is_empty() {
        schedules = session.client.schedules().await?.schedules;
    }
    let printer = session.printer;
    match session.format {
        Format::Json => {
            let documents: Vec<_> = schedules.into_iter().map(Document::of).collect();
            printer.print_json(&documents)?;
        }
        Format::Text => {
            let written: Result<Vec<_>, _> = schedules.into_iter().map(written).collect();
            let written = written.map_err(|error| {
                Failure::new(Exit::INTERNAL, format!("cannot write YAML: {error}"))
            })?;
            printer.print(&written.join("---\n"))?;
        }
    }
    Ok(Exit::SUCCESS)
}

impl Document {
    fn of(schedule: Schedule) -> Self {
        Self {
            name: schedule.name,
            spec: schedule.spec,
        }
    }
}

fn written(schedule: Schedule) -> Result<String, serde_saphyr::ser_error::Error> {
    let secrets = match schedule.secrets.is_empty() {
        true => String::new(),
        // Names are made of letters, digits and _.
        false => format!(
            "# Not in here: the values of its secrets {}\n",
            schedule.secrets.join(", ")
        ),
    };
    let document = serde_saphyr::to_string(&Document::of(schedule))?;
    Ok(secrets + &document)
}

/// Makes or changes the schedules of a file. All of it is read before anything is sent.
pub(super) async fn apply(file: &Path, session: &Session<'_>) -> Result<Exit, Failure> {
    let documents = read(file)
        .and_then(|text| documents(&text))
        .map_err(|why| {
            let place = match file == Path::new("-") {
                true => "stdin".to_owned(),
                false => file.display().to_string(),
            };
            Failure::new(Exit::BAD_INPUT, format!("{place}: {why}"))
                .with_hint("nothing was applied; `invoke schedule export` shows how it is written")
        })?;
    let mut applied = Vec::new();
    for Document { name, spec } in documents {
        let change = apply_one(&name, spec, session).await;
        let change = change.map_err(|failure| named(failure, &name))?;
        if session.format == Format::Text {
            session
                .printer
                .print(&format!("{name} {}\n", change.as_str()))?;
        }
        applied.push(Applied { name, change });
    }
    if session.format == Format::Json {
        session.printer.print_json(&applied)?;
    }
    Ok(Exit::SUCCESS)
}

/// What became of a document. Stable: names are added, never changed.
#[derive(Serialize)]
struct Applied {
    name: ScheduleName,
    change: Change,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Created,
    Changed,
    Unchanged,
}

impl Change {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

async fn apply_one(
    name: &ScheduleName,
    spec: ScheduleSpec,
    session: &Session<'_>,
) -> Result<Change, Failure> {
    let Some(before) = session.client.find_schedule(name).await? else {
        let how = PutQuery {
            create: true,
            ..PutQuery::default()
        };
        put(name, how, spec, Vec::new(), session).await?;
        return Ok(Change::Created);
    };
    let has_secrets = !spec.run.job().secrets.is_empty();
    let how = PutQuery {
        create: false,
        revision: Some(before.revision),
        keep_secrets: !before.secrets.is_empty() && !has_secrets,
    };
    let after = put(name, how, spec, Vec::new(), session).await?;
    Ok(match after.revision == before.revision {
        true => Change::Unchanged,
        false => Change::Changed,
    })
}

fn named(failure: Failure, name: &ScheduleName) -> Failure {
    let message = failure.message.map(|why| format!("schedule {name}: {why}"));
    Failure { message, ..failure }
}

fn read(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin()
            .take(MAX_BYTES + 1)
            .read_to_string(&mut text),
        false => std::fs::File::open(file)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text)),
    };
    read.map_err(|error| error.to_string())?;
    match text.len() as u64 > MAX_BYTES {
        true => Err(format!("it is longer than {MAX_BYTES} bytes")),
        false => Ok(text),
    }
}

/// The documents of a text, each checked as far as that can be done here.
fn documents(text: &str) -> Result<Vec<Document>, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    let values: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| format!("this is no YAML: {error}"))?;
    let mut documents = Vec::new();
    let mut names = BTreeSet::new();
    for (number, value) in values.into_iter().enumerate() {
        // Of a text that begins or ends with `---`.
        if value.is_null() {
            continue;
        }
        let place = place(number + 1, &value);
        let document = document(&value).map_err(|why| format!("{place}: {why}"))?;
        if !names.insert(document.name.clone()) {
            return Err(format!("{place}: there is a schedule of this name above"));
        }
        documents.push(document);
    }
    match documents.is_empty() {
        true => Err("there is no schedule in it".to_owned()),
        false => Ok(documents),
    }
}

/// `document 2 (vacuum)`
fn place(number: usize, value: &Value) -> String {
    match value.get("name").and_then(Value::as_str) {
        Some(name) => format!("document {number} ({name})"),
        None => format!("document {number}"),
    }
}

fn document(value: &Value) -> Result<Document, String> {
    let document = serde_path_to_error::deserialize(value).map_err(|error| {
        let (path, why) = (error.path().to_string(), error.inner().to_string());
        match path.as_str() {
            "." => why,
            // What is wrong with a secret may have it in its words.
            secret if secret.contains(".secrets") => {
                format!("{path}: secrets are names of variables, each with a text")
            }
            _ => format!("{path}: {why}"),
        }
    })?;
    match unread(value, value, &mut Vec::new()) {
        None => Ok(document),
        Some(path) => Err(format!("{path}: there is no such field")),
    }
}

/// The first field that means nothing. The API passes over fields that it does not know, because they may be of a
/// later version; in a file they are slips. A field that is read does not take just anything, so one that does is
/// not read.
fn unread(whole: &Value, part: &Value, path: &mut Vec<String>) -> Option<String> {
    match part {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            path.push(name.clone());
            let found = match takes_anything(whole, path) {
                true => Some(path.join(".")),
                false => unread(whole, value, path),
            };
            path.pop();
            found
        }),
        Value::Array(items) => items.iter().enumerate().find_map(|(number, item)| {
            path.push(number.to_string());
            let found = unread(whole, item, path);
            path.pop();
            found
        }),
        _ => None,
    }
}

fn takes_anything(whole: &Value, path: &[String]) -> bool {
    let mut changed = whole.clone();
    let pointer: String = path
        .iter()
        .map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")))
        .collect();
    let Some(place) = changed.pointer_mut(&pointer) else {
        return false;
    };
    // No field of a schedule is like this.
    *place = Value::Array(vec![Value::Array(vec![Value::Null])]);
    Document::deserialize(changed).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: &str = r#"
name: patch
spec:
  run:
    fanout:
      job:
        command:
          shell: ./patch.sh
        profile: deploy
        run_timeout_seconds: 3600
        files:
          sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
          bytes: 1
          content_bytes: 1
          entries: 1
        environment:
          REGION: eu
      selector: env=prod
      canary:
      - edge-1
      concurrency: 10%
      max_failures: 2
  timing:
    when:
      type: cron
      expression: 0 3 * * TUE#2
    time_zone: Europe/Berlin
    offset: 4d
    window_seconds: 7200
  catch_up:
    all: 3
  retry:
    times: 2
    "on":
    - never_started
    - exit: 75
  notify:
  - by:
      webhook: https://example.com/hook
    "on":
    - failed
"#;

    fn refusal(text: &str) -> String {
        documents(text).unwrap_err()
    }

    #[test]
    fn a_document_reads_as_it_was_written() {
        let read = documents(FULL).unwrap();
        let written = serde_saphyr::to_string(&read[0]).unwrap();
        assert_eq!(written, FULL.trim_start());
        assert_eq!(documents(&written).unwrap(), read);
        assert_eq!(documents(&format!("---\n{written}---\n")).unwrap(), read);
    }

    /// Nothing is applied if any of it is wrong, and what is wrong has a name.
    #[test]
    fn what_is_wrong_is_named() {
        let other = FULL.replace("patch\n", "other\n");
        let second = |wrong: &str, right: &str| {
            refusal(&format!("{FULL}---\n{}", other.replacen(right, wrong, 1)))
        };
        let refused = [
            refusal(""),
            refusal("---\n"),
            refusal("name: [\n"),
            refusal("just words"),
            refusal("spec: {}"),
            refusal("name: Not A Name\nspec: {}"),
            second("expresion:", "expression:"),
            second("sometimes", "cron"),
            second("window: 2h\n    window_seconds", "window_seconds"),
            second("window_seconds: 2h", "window_seconds: 7200"),
            second("Europe Berlin", "Europe/Berlin"),
            second("retries:\n  - 1\n  retry", "retry"),
            second("- exit: 75\n      cause: x", "- exit: 75"),
            second("REGION: [eu]", "REGION: eu"),
            second(
                "secrets: {A B: hunter2}\n        environment:",
                "environment:",
            ),
            second("secrets: {PIN: 4711}\n        environment:", "environment:"),
            second("name: patch\n", "name: other\n"),
            refusal(&FULL.replacen("time_zone:", "timezone:", 1)),
            refusal(&FULL.replacen("type: cron", "type: cron\n      zone: x", 1)),
        ];
        assert!(!refused.join("\n").contains("hunter2"));
        insta::assert_snapshot!(refused.join("\n"), @r#"
        there is no schedule in it
        there is no schedule in it
        this is no YAML: unclosed bracket '[' at line 1, column 7
        document 1: invalid type: string "just words", expected a schedule: its name and its spec
        document 1: spec: missing field `run`
        document 1 (Not A Name): name: "Not A Name" is not a schedule name: use 1 to 63 characters of a-z, 0-9 and -, and begin and end with a letter or digit
        document 2 (other): spec.timing.when: missing field `expression`
        document 2 (other): spec.timing.when.type: unknown variant `sometimes`, expected one of `cron`, `every`, `at`
        document 2 (other): spec.timing.window: there is no such field
        document 2 (other): spec.timing.window_seconds: invalid type: string "2h", expected u64
        document 2 (other): spec.timing.time_zone: "Europe Berlin" is no name of a time zone: write it as in the IANA database, for example Europe/Berlin or UTC
        document 2 (other): spec.retries: there is no such field
        document 2 (other): spec.retry.on[1]: invalid value: map, expected map with a single key
        document 2 (other): spec.run.fanout.job.environment.REGION: invalid type: sequence, expected a string
        document 2 (other): spec.run.fanout.job.secrets: secrets are names of variables, each with a text
        document 2 (other): spec.run.fanout.job.secrets.PIN: secrets are names of variables, each with a text
        document 2 (patch): there is a schedule of this name above
        document 1 (patch): spec.timing.timezone: there is no such field
        document 1 (patch): spec.timing.when.zone: there is no such field
        "#);
    }

    proptest! {
        /// YAML takes many a text for something else: a command stays what it is.
        #[test]
        fn a_command_stays_as_it_is(
            line in "[ -~äöü\t\n]{1,60}|yes|no|null|~|0x10|1e3|- a|a: b|#x|'x|\"x|[0-9:.]{1,8}"
        ) {
            prop_assume!(!line.trim().is_empty());
            let mut document = documents(FULL).unwrap().remove(0);
            let command = invoke_protocol::command::Command::shell(line.clone()).unwrap();
            document.spec.run.job_mut().command = command;
            let written = serde_saphyr::to_string(&document).unwrap();
            prop_assert_eq!(documents(&written), Ok(vec![document]), "{}", written);
        }
    }
}
