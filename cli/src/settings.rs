//! Which dispatcher, whose token, which cluster: flags before the environment before the
//! configuration file before a dispatcher on this machine.
//!
//! Every value remembers where it came from, so that an error can say what to correct.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use invoke_protocol::id::{ClusterName, ParseError, ProfileName};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::Url;

mod layer;
mod place;
mod token;

pub use layer::Layer;
pub use place::Places;
pub use token::Token;

/// For how long a call is repeated while the dispatcher cannot be reached, if nobody says otherwise.
pub const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(30);

/// Where a dispatcher on this machine listens.
const LOCAL_URL: &str = "https://localhost:8443";

/// Everything that a call needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The dispatcher.
    pub url: Sourced<Url>,
    /// Who is calling.
    pub token: Token,
    /// The only certificate authorities to trust, PEM; those of the system if `None`.
    pub ca: Option<Sourced<Vec<u8>>>,
    /// Where commands run; the dispatcher knows if there is only one.
    pub cluster: Option<ClusterName>,
    /// How commands run; `default` if silent.
    pub profile: Option<ProfileName>,
    /// For how long to repeat a call while the dispatcher cannot be reached.
    pub retry_for: Duration,
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// What.
    pub value: T,
    /// From where.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An option on the command line.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// A key of the configuration file.
    Key(PathBuf, &'static str),
    /// The dispatcher on this machine.
    Local,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::Key(file, key) => write!(f, "`{key}` in {}", file.display()),
            Self::Local => f.write_str("the dispatcher's folder on this machine"),
        }
    }
}

/// What is wrong with the settings. The person corrects them; nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing says where the dispatcher is.
    #[error("no dispatcher is configured")]
    NoUrl,
    /// Nothing says who is calling.
    #[error("no token is configured for {}", url.as_str().trim_end_matches('/'))]
    NoToken {
        /// Where it would have been shown.
        url: Url,
    },
    /// Not an address that a token may be sent to.
    #[error("{origin}: {text:?} is no dispatcher's address: {why}")]
    Url {
        /// Whose value.
        origin: Origin,
        /// The value.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A name or a duration that is none.
    #[error("{origin}: {why}")]
    Value {
        /// Whose value.
        origin: Origin,
        /// What is wrong with it.
        why: String,
    },
    /// A file that a setting names.
    #[error("{origin} names {}, which cannot be read", path.display())]
    Unreadable {
        /// Whose value.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that should have certificates in it.
    #[error("{origin} names {}, which holds no certificate in PEM", path.display())]
    NoCertificate {
        /// Whose value.
        origin: Origin,
        /// The file.
        path: PathBuf,
    },
    /// A token that no server would be sent.
    #[error("{origin} holds no token: {why}")]
    BadToken {
        /// Whose value.
        origin: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The configuration file.
    #[error("the configuration file {} cannot be read", path.display())]
    ConfigUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file's content.
    #[error("{}: {why}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// What to do now.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoUrl => Some(
                "set INVOKE_URL=https://… (and INVOKE_TOKEN_FILE), or write them as `url` and \
                 `token_file` to ~/.config/invoke/config.toml"
                    .to_owned(),
            ),
            Self::NoToken { .. } => Some(
                "put the token into a file and set INVOKE_TOKEN_FILE to its path, or set INVOKE_TOKEN"
                    .to_owned(),
            ),
            Self::Config { why, .. } if why.contains("unknown field `token`") => Some(
                "a token is not kept here: put it into a file of its own and name that with `token_file`"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl Settings {
    /// Merges what the flags say with what the machine says.
    ///
    /// # Errors
    /// See [`Error`]: a value that is missing or makes no sense.
    pub fn resolve(flags: Layer, places: &Places) -> Result<Self, Error> {
        let environment = Layer::from_variables(|name| places.variable(name));
        let file = places
            .config_file()
            .map_or(Ok(Layer::default()), |path| Layer::read(&path))?;
        let stated = flags.or(environment).or(file);
        // Only where nothing names another dispatcher: the local token is not for strangers.
        let local = if stated.url.is_none() {
            places.local_dispatcher()
        } else {
            Layer::default()
        };
        stated.or(local).check()
    }
}

impl Layer {
    fn check(self) -> Result<Settings, Error> {
        let url = check_url(self.url.ok_or(Error::NoUrl)?)?;
        let token = match (self.token, self.token_file) {
            (Some(token), _) => Token::checked(&token.value, token.origin.to_string())?,
            (None, Some(file)) => Token::read(&file)?,
            (None, None) => return Err(Error::NoToken { url: url.value }),
        };
        Ok(Settings {
            token,
            url,
            ca: self.ca_file.map(read_ca).transpose()?,
            cluster: self.cluster.map(check_name).transpose()?,
            profile: self.profile.map(check_name).transpose()?,
            retry_for: self
                .retry_for
                .map_or(Ok(DEFAULT_RETRY_FOR), check_duration)?,
        })
    }
}

fn check_url(url: Sourced<String>) -> Result<Sourced<Url>, Error> {
    let Sourced {
        value: text,
        origin,
    } = url;
    let parsed = Url::parse(&text)
        .map_err(|error| error.to_string())
        .and_then(|url| {
            if url.scheme() != "https" {
                Err(
                    "it must begin with https://, or the token would be readable on the way"
                        .to_owned(),
                )
            } else if !url.username().is_empty() || url.password().is_some() {
                Err(
                    "it has a user or a password in it; a token is set with INVOKE_TOKEN_FILE"
                        .to_owned(),
                )
            } else if url.query().is_some() || url.fragment().is_some() {
                Err("it has a query or a fragment".to_owned())
            } else {
                Ok(url)
            }
        });
    match parsed {
        Ok(value) => Ok(Sourced { value, origin }),
        // What stands before an @ may be a password.
        Err(why) => Err(Error::Url {
            origin,
            text: without_user(&text),
            why,
        }),
    }
}

fn without_user(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}…{}", &text[..scheme + 3], &text[at..])
        }
        _ => text.to_owned(),
    }
}

fn read_ca(file: Sourced<PathBuf>) -> Result<Sourced<Vec<u8>>, Error> {
    let Sourced {
        value: path,
        origin,
    } = file;
    match std::fs::read(&path) {
        Ok(pem)
            if CertificateDer::pem_slice_iter(&pem)
                .flatten()
                .next()
                .is_none() =>
        {
            Err(Error::NoCertificate { origin, path })
        }
        Ok(value) => Ok(Sourced { value, origin }),
        Err(source) => Err(Error::Unreadable {
            origin,
            path,
            source,
        }),
    }
}

fn check_name<T: std::str::FromStr<Err = ParseError>>(name: Sourced<String>) -> Result<T, Error> {
    let Sourced { value, origin } = name;
    value.parse().map_err(|error: ParseError| Error::Value {
        origin,
        why: error.to_string(),
    })
}

fn check_duration(text: Sourced<String>) -> Result<Duration, Error> {
    let Sourced { value, origin } = text;
    parse_duration(&value).map_err(|why| Error::Value { origin, why })
}

/// Reads `90s`, `15m`, `1h30m`: whole seconds.
///
/// # Errors
/// A sentence about what is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is no duration: write it as 90s, 15m or 1h30m");
    let parsed = text
        .parse::<jiff::SignedDuration>()
        .map_err(|_| expected())?;
    let duration = Duration::try_from(parsed).map_err(|_| expected())?;
    if duration.subsec_nanos() == 0 {
        Ok(duration)
    } else {
        Err(expected())
    }
}

/// A path of a setting, where people write `~/` and mean their home.
fn expand_home(path: &Path, home: &Path) -> PathBuf {
    path.strip_prefix("~")
        .map_or_else(|_| path.to_owned(), |rest| home.join(rest))
}

#[cfg(test)]
mod tests;
