//! From the words of a command line to a command, or to a message that shows the right form.
//!
//! One word is a shell line; what stands behind `--` is a program with its arguments. Several words
//! without `--` could mean either, and guessing would run the wrong thing one day.

use std::ffi::OsString;

use invoke_protocol::command::{Command, InvalidCommand};

/// Words that are no command. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The command itself cannot be run.
    #[error(transparent)]
    Invalid(#[from] InvalidCommand),
    /// JSON, and so the way to the cluster, knows text only.
    #[error("the command is not valid UTF-8: {shown}")]
    NotText {
        /// The word, with what is not text replaced.
        shown: String,
    },
    /// Several words without `--`.
    #[error("a command is one word in quotes, or stands behind --")]
    SeveralWords {
        /// Both right forms.
        forms: String,
    },
    /// A first word that looks like a subcommand.
    #[error("`{word}` is no subcommand of invoke; there is `{near}`")]
    NearVerb {
        /// What was written.
        word: String,
        /// What follows it.
        rest: String,
        /// What was probably meant.
        near: String,
    },
}

impl Error {
    /// What to do now.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Invalid(_) => None,
            Self::NotText { .. } => {
                Some("put such bytes into a file, or write them as escapes".to_owned())
            }
            Self::SeveralWords { forms } => Some(forms.clone()),
            Self::NearVerb { word, rest, near } => Some(format!(
                "write `invoke {near}{rest}` for that, or `invoke -- {word}{rest}` to run {word} in the cluster"
            )),
        }
    }
}

/// What to run. `line` is the whole command line as it was given, to be shown again in the right form.
///
/// # Errors
/// See [`Error`].
pub fn command(
    words: Vec<OsString>,
    argv: Vec<OsString>,
    line: &[OsString],
    verbs: &[String],
) -> Result<Command, Error> {
    if words.len() > 1 || (!words.is_empty() && !argv.is_empty()) {
        return Err(several_words(line, verbs));
    }
    match words.into_iter().next() {
        None => Ok(Command::argv(
            argv.into_iter().map(text).collect::<Result<_, _>>()?,
        )?),
        Some(word) => {
            let word = text(word)?;
            match near_verb(&word, verbs) {
                Some(near) => Err(Error::NearVerb {
                    word,
                    rest: String::new(),
                    near,
                }),
                None => Ok(Command::shell(word)?),
            }
        }
    }
}

/// What to run, behind the arguments of a subcommand.
///
/// # Errors
/// See [`Error`].
pub fn after_subcommand(words: Vec<OsString>, argv: Vec<OsString>) -> Result<Command, Error> {
    if words.len() > 1 || (!words.is_empty() && !argv.is_empty()) {
        let words = words.iter().chain(&argv);
        let words: Vec<_> = words.map(|word| quote(&word.to_string_lossy())).collect();
        let words = words.join(" ");
        let forms = format!("write `… {}` or `… -- {words}`", quote_line(&words));
        return Err(Error::SeveralWords { forms });
    }
    // No word is taken for a subcommand here.
    command(words, argv, &[], &[])
}

/// The error for several words: both right forms, with the person's own words and options.
#[must_use]
pub fn several_words(line: &[OsString], verbs: &[String]) -> Error {
    let words = crate::args::words_of(line);
    let options = line
        .get(1..line.len().saturating_sub(words.len()))
        .unwrap_or_default();
    let quoted = |words: &[OsString]| {
        words
            .iter()
            .filter(|word| *word != "--")
            .map(|word| quote(&word.to_string_lossy()))
            .collect()
    };
    let words: Vec<String> = quoted(&words);
    if let Some((word, rest)) = words.split_first()
        && let Some(near) = near_verb(word, verbs)
    {
        let rest = rest.iter().map(|word| format!(" {word}")).collect();
        return Error::NearVerb {
            word: word.clone(),
            rest,
            near,
        };
    }
    let mut prefix = vec!["invoke".to_owned()];
    let options: Vec<String> = quoted(options);
    prefix.extend(options);
    let (prefix, words) = (prefix.join(" "), words.join(" "));
    let forms = format!(
        "write `{prefix} {}` or `{prefix} -- {words}`",
        quote_line(&words)
    );
    Error::SeveralWords { forms }
}

fn text(word: OsString) -> Result<String, Error> {
    word.into_string().map_err(|word| Error::NotText {
        shown: word.to_string_lossy().into_owned(),
    })
}

fn near_verb(word: &str, verbs: &[String]) -> Option<String> {
    // `help` is one letter from `helm`, which people do run.
    let candidates = verbs.iter().filter(|verb| *verb != "help");
    let near = candidates.filter(|verb| {
        let most = if verb.len() > 5 { 2 } else { 1 };
        strsim::osa_distance(word, verb) <= most
    });
    near.min_by_key(|verb| strsim::osa_distance(word, verb))
        .cloned()
}

/// A word as a POSIX shell reads it back.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A shell line as one word: in double quotes, as people write it, where those change nothing.
fn quote_line(line: &str) -> String {
    if line.contains(['"', '$', '`', '\\', '!']) {
        quote(line)
    } else {
        format!("\"{line}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn verbs() -> Vec<String> {
        crate::args::verb_names()
    }

    #[test]
    fn one_word_is_a_shell_line_and_the_rest_is_an_argv() {
        let shell = command(words("kubectl"), vec![], &[], &verbs());
        assert_eq!(shell, Ok(Command::shell("kubectl").unwrap()));
        let argv = command(vec![], words("kubectl get"), &[], &verbs());
        assert_eq!(
            argv,
            Ok(Command::argv(vec!["kubectl".into(), "get".into()]).unwrap())
        );
    }

    #[test]
    fn a_word_near_a_subcommand_is_asked_about() {
        for (word, near) in [
            ("job", Some("jobs")),
            ("jbos", Some("jobs")),
            ("cluster", Some("clusters")),
            ("cancle", Some("cancel")),
            ("helm", None),
            ("ls", None),
            ("kubectl", None),
            ("job --list", None),
        ] {
            assert_eq!(near_verb(word, &verbs()).as_deref(), near, "{word}");
        }
    }

    #[test]
    fn several_words_are_shown_in_both_right_forms() {
        let hint = |line: &[&str]| {
            let line: Vec<OsString> = line.iter().map(OsString::from).collect();
            several_words(&line, &verbs()).hint().unwrap()
        };
        assert_eq!(
            hint(&["invoke", "-c", "demo", "kubectl", "get", "pods", "-A"]),
            "write `invoke -c demo \"kubectl get pods -A\"` or `invoke -c demo -- kubectl get pods -A`"
        );
        assert_eq!(
            hint(&["invoke", "echo", "it's $HOME"]),
            r#"write `invoke 'echo '\''it'\''\'\'''\''s $HOME'\'''` or `invoke -- echo 'it'\''s $HOME'`"#
        );
    }
}
