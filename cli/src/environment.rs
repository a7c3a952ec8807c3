//! The command's environment: `--env`, `--env-file` and `--secret`.
//!
//! | option | means |
//! |---|---|
//! | `--env NAME=VALUE` | this value |
//! | `--env NAME` | the value that the variable has here |
//! | `--env-file FILE` | lines of either form (`env_file`) |
//! | `--secret NAME` | the value that the variable has here, masked in the output |
//! | `--secret NAME=@FILE` | the content of a file, without the newline at its end, masked in the output |
//!
//! Of two values for one name the later counts, and all of `--env` is later than any file. A name is
//! either secret or not.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use invoke_protocol::environment::{
    self, InvalidEnvironment, MIN_MASKED_BYTES, RESERVED_PREFIX, SecretEnvironment,
};

mod env_file;

/// The longest `NAME=VALUE`: Linux passes no single string of 128 KiB or more to a program
/// (`MAX_ARG_STRLEN`, execve(2)).
const MAX_BYTES: usize = 128 * 1024 - 1;

/// What a command gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// What everybody may see.
    pub variables: environment::Environment,
    /// What is masked in the output.
    pub secrets: SecretEnvironment,
    /// What the person should know.
    pub notices: Vec<String>,
}

/// What the options say, in their order.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Of `--env`.
    pub variables: &'a [OsString],
    /// Of `--env-file`.
    pub files: &'a [PathBuf],
    /// Of `--secret`.
    pub secrets: &'a [OsString],
}

/// What is wrong with the environment. The person corrects it; nothing was sent. No value is shown, in
/// case it is a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No name that every shell knows.
    #[error("{origin}: {name:?} is no name of a variable: it is made of letters, digits and _")]
    Name {
        /// Who says so.
        origin: String,
        /// The name.
        name: String,
    },
    /// A name of ours.
    #[error(
        "{origin}: {name} cannot be set: names that begin with {RESERVED_PREFIX} belong to invoke"
    )]
    Reserved {
        /// Who says so.
        origin: String,
        /// The name.
        name: String,
    },
    /// A variable that is to be passed on and is not there.
    #[error("{origin}: {name} is not set here")]
    Unset {
        /// Who says so.
        origin: String,
        /// The name.
        name: String,
    },
    /// A value that no program can be given, or that JSON cannot carry.
    #[error("{origin}: the value of {name} {why}")]
    Value {
        /// Who says so.
        origin: String,
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A line of a file that is no variable.
    #[error("{origin}: {why}")]
    Line {
        /// The file and the line.
        origin: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file that cannot be read.
    #[error("{option} names {}, which cannot be read", path.display())]
    Unreadable {
        /// `--env-file`, for example.
        option: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A secret on the command line.
    #[error("--secret {name}=… has its value on the command line, which other users can read")]
    LiteralSecret {
        /// The name.
        name: String,
    },
    /// A name that is secret and not.
    #[error("{name} is both a secret and not: --secret and {origin} name it")]
    BothWays {
        /// The name.
        name: String,
        /// Who says that it is not.
        origin: String,
    },
    /// Too much in all.
    #[error(transparent)]
    Invalid(#[from] InvalidEnvironment),
}

impl Error {
    /// What to do now.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::LiteralSecret { name } => Some(format!(
                "set {name} in the environment and write --secret {name}, or put the value into a file \
                 and write --secret {name}=@FILE"
            )),
            Self::Unset { name, origin } if origin == "--secret" => Some(format!(
                "set it, or put the value into a file and write --secret {name}=@FILE"
            )),
            Self::Unset { name, .. } => Some(format!("set it, or write {name}=VALUE")),
            Self::BothWays { .. } => Some("leave out one of the two".to_owned()),
            _ => None,
        }
    }
}

impl Environment {
    /// Gathers what the options say. `here` is this program's own environment.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn gather(
        options: Options<'_>,
        here: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let mut variables = BTreeMap::new();
        for path in options.files {
            for line in env_file::read(path)? {
                let (name, value) = variable(&line.text, &line.origin, &here)?;
                variables.insert(name, (value, line.origin));
            }
        }
        for option in options.variables {
            let origin = "--env";
            let (name, value) = variable(option, origin, &here)?;
            variables.insert(name, (value, origin.to_owned()));
        }
        let mut secrets = BTreeMap::new();
        for option in options.secrets {
            let (name, value) = secret(option, &here)?;
            if let Some((_, origin)) = variables.get(&name) {
                let origin = origin.clone();
                return Err(Error::BothWays { name, origin });
            }
            secrets.insert(name, value);
        }
        let variables = variables.into_iter();
        let variables = variables.map(|(name, (value, _))| (name, value));
        Ok(Self {
            variables: variables.collect::<BTreeMap<_, _>>().try_into()?,
            notices: secrets.iter().filter_map(unmasked).collect(),
            secrets: SecretEnvironment::new(secrets.try_into()?),
        })
    }
}

/// Reads `NAME=VALUE`, or `NAME` for the value that it has here.
fn variable(
    text: &OsStr,
    origin: &str,
    here: &impl Fn(&str) -> Option<OsString>,
) -> Result<(String, String), Error> {
    let (name, value) = split(text);
    let name = check_name(name, origin)?;
    let value = match value {
        Some(value) => value.to_owned(),
        None => value_here(&name, origin, here)?,
    };
    let value = check_value(&name, value.as_bytes(), origin)?;
    Ok((name, value))
}

fn secret(
    text: &OsStr,
    here: &impl Fn(&str) -> Option<OsString>,
) -> Result<(String, String), Error> {
    let origin = "--secret";
    let (name, value) = split(text);
    let name = check_name(name, origin)?;
    let value = match value.map(OsStr::as_bytes) {
        None => value_here(&name, origin, here)?.into_encoded_bytes(),
        Some([b'@', path @ ..]) => read_secret(&name, Path::new(OsStr::from_bytes(path)))?,
        Some(_) => return Err(Error::LiteralSecret { name }),
    };
    let value = check_value(&name, &value, origin)?;
    Ok((name, value))
}

fn read_secret(name: &str, path: &Path) -> Result<Vec<u8>, Error> {
    let mut value = Vec::new();
    let read = File::open(path).and_then(|file| {
        // Not all of a file that was named by mistake: a byte too many is enough to refuse it.
        let most = MAX_BYTES as u64 + 3;
        file.take(most).read_to_end(&mut value)
    });
    read.map_err(|source| Error::Unreadable {
        option: format!("--secret {name}"),
        path: path.to_owned(),
        source,
    })?;
    if value.ends_with(b"\n") {
        value.pop();
        if value.ends_with(b"\r") {
            value.pop();
        }
    }
    Ok(value)
}

fn split(text: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let bytes = text.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (
            OsStr::from_bytes(&bytes[..at]),
            Some(OsStr::from_bytes(&bytes[at + 1..])),
        ),
        None => (text, None),
    }
}

fn value_here(
    name: &str,
    origin: &str,
    here: &impl Fn(&str) -> Option<OsString>,
) -> Result<OsString, Error> {
    here(name).ok_or_else(|| Error::Unset {
        origin: origin.to_owned(),
        name: name.to_owned(),
    })
}

fn check_name(name: &OsStr, origin: &str) -> Result<String, Error> {
    let (origin, name) = (origin.to_owned(), name.to_string_lossy().into_owned());
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins_well = name
        .bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit());
    if !begins_well || !name.bytes().all(is_part) {
        Err(Error::Name { origin, name })
    } else if name.starts_with(RESERVED_PREFIX) {
        Err(Error::Reserved { origin, name })
    } else {
        Ok(name)
    }
}

fn check_value(name: &str, value: &[u8], origin: &str) -> Result<String, Error> {
    let refused = |why| Error::Value {
        origin: origin.to_owned(),
        name: name.to_owned(),
        why,
    };
    if name.len() + 1 + value.len() > MAX_BYTES {
        return Err(refused("is longer than a program can be given (128 KiB)"));
    }
    if value.contains(&0) {
        return Err(refused(
            "contains a NUL byte, which no program can be given",
        ));
    }
    let text = std::str::from_utf8(value).map_err(|_| refused("is not valid UTF-8"))?;
    Ok(text.to_owned())
}

fn unmasked((name, value): (&String, &String)) -> Option<String> {
    match value.len() {
        0 => Some(format!("the secret {name} is empty")),
        1..MIN_MASKED_BYTES => Some(format!(
            "the secret {name} is shorter than {MIN_MASKED_BYTES} bytes and is not masked in the output"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
