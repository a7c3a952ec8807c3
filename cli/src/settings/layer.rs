//! What one source says: flags, the environment, the file, or the machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Error, Origin, Sourced};

/// One source of settings. What it does not say is `None`.
#[derive(Clone, Default)]
#[expect(
    missing_docs,
    reason = "they are the keys of the configuration file, explained by --help"
)]
pub struct Layer {
    pub url: Option<Sourced<String>>,
    pub token: Option<Sourced<String>>,
    pub token_file: Option<Sourced<PathBuf>>,
    pub ca_file: Option<Sourced<PathBuf>>,
    pub cluster: Option<Sourced<String>>,
    pub profile: Option<Sourced<String>>,
    pub retry_for: Option<Sourced<String>>,
}

/// The configuration file. It has no key for a token: files like this one are shown around.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    url: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    cluster: Option<String>,
    profile: Option<String>,
    retry_for: Option<String>,
}

impl Layer {
    /// What the environment says. A variable that is set to nothing says nothing.
    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| {
            let value = variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)?;
            Some(Sourced {
                value,
                origin: Origin::Variable(name),
            })
        };
        let text = |name| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            let value = value.to_string_lossy().into_owned();
            Some(Sourced {
                value,
                origin: Origin::Variable(name),
            })
        };
        Self {
            url: text("INVOKE_URL"),
            token: text("INVOKE_TOKEN"),
            token_file: path("INVOKE_TOKEN_FILE"),
            ca_file: path("INVOKE_CA_FILE"),
            cluster: text("INVOKE_CLUSTER"),
            profile: text("INVOKE_PROFILE"),
            retry_for: text("INVOKE_RETRY_FOR"),
        }
    }

    /// What the configuration file says; nothing if there is none.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_toml(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::ConfigUnreadable {
                path: path.to_owned(),
                source,
            }),
        }
    }

    pub(super) fn from_toml(path: &Path, text: &str) -> Result<Self, Error> {
        let file: ConfigFile = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text
                .get(..start)
                .map_or(1, |before| before.matches('\n').count() + 1);
            let why = format!("line {line}: {}", error.message());
            Error::Config {
                path: path.to_owned(),
                why,
            }
        })?;
        let key = |name| Origin::Key(path.to_owned(), name);
        let text = |value: Option<String>, name| {
            value.map(|value| Sourced {
                value,
                origin: key(name),
            })
        };
        // Relative to the file that says it: the same file means the same everywhere.
        let folder = path.parent().unwrap_or(Path::new("."));
        let home = std::env::home_dir().unwrap_or_default();
        let file_at = |value: Option<PathBuf>, name| {
            let value = folder.join(super::expand_home(&value?, &home));
            Some(Sourced {
                value,
                origin: key(name),
            })
        };
        Ok(Self {
            url: text(file.url, "url"),
            token: None,
            token_file: file_at(file.token_file, "token_file"),
            ca_file: file_at(file.ca_file, "ca_file"),
            cluster: text(file.cluster, "cluster"),
            profile: text(file.profile, "profile"),
            retry_for: text(file.retry_for, "retry_for"),
        })
    }

    /// This layer, and where it is silent, the one below.
    #[must_use]
    pub(super) fn or(self, below: Self) -> Self {
        // A token and a file with one are two ways to say the same: the higher layer's word counts.
        let says_token = self.token.is_some() || self.token_file.is_some();
        let (token, token_file) = if says_token {
            (self.token, self.token_file)
        } else {
            (below.token, below.token_file)
        };
        Self {
            url: self.url.or(below.url),
            token,
            token_file,
            ca_file: self.ca_file.or(below.ca_file),
            cluster: self.cluster.or(below.cluster),
            profile: self.profile.or(below.profile),
            retry_for: self.retry_for.or(below.retry_for),
        }
    }
}
