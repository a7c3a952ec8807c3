//! What to say about a command line that is not understood.

use std::ffi::OsString;

use clap::CommandFactory as _;

use super::{Args, verb_names};
use crate::command_line;
use crate::exit::Exit;
use crate::failure::Failure;

/// The words that a command line has where options end: from its first word on, options of the
/// command included. `invoke -c demo kubectl get -A` has `kubectl get -A`.
#[must_use]
pub fn words_of(line: &[OsString]) -> Vec<OsString> {
    let lenient = clap::Command::new("invoke").disable_help_flag(true).args(
        Args::command()
            .get_arguments()
            .filter(|arg| arg.get_id() != "argv")
            .map(|arg| match arg.get_id().as_str() {
                "words" => arg.clone().trailing_var_arg(true).allow_hyphen_values(true),
                _ => arg.clone(),
            }),
    );
    let matches = lenient.ignore_errors(true).try_get_matches_from(line);
    let words = matches
        .ok()
        .and_then(|mut matches| matches.remove_many("words"));
    words.map(Iterator::collect).unwrap_or_default()
}

/// An option that clap does not know is probably one of the command, which lacks its quotes.
pub(super) fn command_without_quotes(line: &[OsString]) -> Option<Failure> {
    let words = words_of(line);
    let first = words
        .first()
        .map(|word| word.to_string_lossy().into_owned())?;
    if words.len() < 2 || first.starts_with('-') || verb_names().contains(&first) {
        None
    } else if first.contains(char::is_whitespace) {
        let second = words.get(1)?.to_string_lossy().into_owned();
        let message = format!("{second} stands behind the command, and is no option of invoke");
        Some(Failure::new(Exit::BAD_INPUT, message).with_hint("put it inside the quotes"))
    } else {
        Some(command_line::several_words(line, &verb_names()).into())
    }
}

/// clap's words as ours: its first line says what is wrong, a line with `tip:` what to do.
pub(super) fn usage(error: &clap::Error, line: &[OsString]) -> Failure {
    let text = error.to_string();
    let mut message = Vec::new();
    let mut hint = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            // How to pass it as a value is no help here: values stand in quotes.
            hint = Some(tip.to_owned())
                .filter(|tip| !tip.starts_with("to pass "))
                .or(hint);
        } else if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        } else {
            message.push(line.strip_prefix("error: ").unwrap_or(line).to_owned());
        }
    }
    let help = || format!("`invoke{} --help` shows how it is written", verbs_of(line));
    Failure::new(Exit::BAD_INPUT, message.join(" ")).with_hint(hint.unwrap_or_else(help))
}

/// The subcommands that a command line begins with, each after a space.
fn verbs_of(line: &[OsString]) -> String {
    let (mut command, mut verbs) = (Args::command(), String::new());
    for word in line.iter().skip(1) {
        let Some(verb) = command.find_subcommand(word).cloned() else {
            break;
        };
        verbs = format!("{verbs} {}", verb.get_name());
        command = verb;
    }
    verbs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_with_their_own_options() {
        let line = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        for (given, words) in [
            ("invoke kubectl get pods -A", "kubectl get pods -A"),
            (
                "invoke -c demo kubectl get pods -o wide",
                "kubectl get pods -o wide",
            ),
            (
                "invoke --no-wait kubectl -c web logs",
                "kubectl -c web logs",
            ),
            ("invoke kubectl --help", "kubectl --help"),
        ] {
            assert_eq!(words_of(&line(given)), line(words), "{given}");
        }
    }
}
