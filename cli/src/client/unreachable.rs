//! Why nothing came back, in words that name what to correct.
//!
//! The HTTP client's errors are chains of other libraries' errors. They are walked down to the ones
//! that say what happened: rustls's, the system's and our resolver's.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

use super::names::NameUnknown;

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// No such host.
    #[error("{0}")]
    Name(String),
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No way there.
    #[error("{0}")]
    NoRoute(String),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut {
        /// Whether a connection had come about.
        connected: bool,
    },
    /// The certificate is of an authority that is not trusted.
    #[error("its certificate is not signed by an authority that is trusted here")]
    UnknownAuthority,
    /// The certificate has ended.
    #[error("its certificate has expired")]
    Expired,
    /// The certificate begins later.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// The certificate is for other names.
    #[error("its certificate is for {0}")]
    WrongName(String),
    /// The certificate is wrong in another way.
    #[error("its certificate is not accepted: {0}")]
    Certificate(String),
    /// What answers does not speak TLS.
    #[error("what answers there does not speak TLS")]
    NotTls,
    /// Another failure of TLS.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The connection broke.
    #[error("the connection was cut")]
    Cut,
    /// Anything else, in the words of the innermost error.
    #[error("{0}")]
    Other(String),
}

impl Cause {
    /// Walks an error down to its cause.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        let specific = chain(error).find_map(Self::of_link);
        let connected = !error.is_connect();
        match specific {
            Some(cause) => cause,
            None if error.is_timeout() => Self::TimedOut { connected },
            None if connected => Self::Cut,
            None => Self::Other(innermost(error)),
        }
    }

    fn of_link(link: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(unknown) = link.downcast_ref::<NameUnknown>() {
            Some(Self::Name(unknown.to_string()))
        } else if let Some(tls) = link.downcast_ref::<rustls::Error>() {
            Some(Self::of_tls(tls))
        } else {
            link.downcast_ref::<io::Error>().and_then(Self::of_io)
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(certificate) => Self::of_certificate(certificate),
            // What comes back from a server that took our first message for plain text.
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            other => Self::Tls(other.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            // The signature is wrong where the trusted authority has the right name and another key:
            // a dispatcher that was set up anew, for example.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::UnknownAuthority
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::NotValidForName => Self::WrongName("another name".to_owned()),
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::WrongName(presented_names(presented))
            }
            other => Self::Certificate(other.to_string()),
        }
    }

    fn of_io(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::Refused),
            io::ErrorKind::TimedOut => Some(Self::TimedOut { connected: false }),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Some(Self::NoRoute("no route to the host".to_owned()))
            }
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Some(Self::Cut),
            _ => None,
        }
    }

    /// Whether it may be otherwise a little later.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Refused | Self::NoRoute(_) | Self::TimedOut { .. } | Self::Cut => true,
            Self::Other(_) => true,
            // A name that is unknown is mostly misspelt, and a certificate does not change by waiting.
            Self::Name(_)
            | Self::UnknownAuthority
            | Self::Expired
            | Self::NotYetValid
            | Self::WrongName(_)
            | Self::Certificate(_)
            | Self::NotTls
            | Self::Tls(_) => false,
        }
    }

    /// Whether the request may have arrived all the same.
    #[must_use]
    pub const fn may_have_arrived(&self) -> bool {
        matches!(
            self,
            Self::TimedOut { connected: true } | Self::Cut | Self::Other(_)
        )
    }

    /// What to do now.
    #[must_use]
    pub fn hint(&self, origin: &str) -> Option<String> {
        match self {
            Self::Name(_) => Some(format!("the address came from {origin}")),
            Self::Refused => Some(format!("is it running? The address came from {origin}")),
            Self::NoRoute(_) | Self::TimedOut { .. } => Some(format!(
                "does it need a VPN or a proxy? The address came from {origin}"
            )),
            Self::UnknownAuthority => Some(
                "if the dispatcher has its own authority, set INVOKE_CA_FILE to its ca.pem"
                    .to_owned(),
            ),
            Self::Expired => Some("its operator must renew it".to_owned()),
            Self::NotYetValid => Some("is the clock of this machine right?".to_owned()),
            Self::WrongName(_) => Some(format!(
                "use one of its names; the address came from {origin}"
            )),
            Self::NotTls => Some(format!("is the port right? The address came from {origin}")),
            Self::Certificate(_) | Self::Tls(_) | Self::Cut | Self::Other(_) => None,
        }
    }
}

/// An error and everything below it. `io::Error` hides its content from `source()`, which goes
/// straight to what is below that.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    fn below<'a>(link: &&'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
        let link = *link;
        match link.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => link.source(),
        }
    }
    std::iter::successors(Some(error), below)
}

fn innermost(error: &reqwest::Error) -> String {
    chain(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

/// rustls writes them as `DnsName("example.com")` and `IpAddress(127.0.0.1)`.
fn presented_names(presented: &[String]) -> String {
    let inner = |name: &String| {
        let inside = name
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        inside.unwrap_or(name).trim_matches('"').to_owned()
    };
    let names: Vec<_> = presented.iter().take(5).map(inner).collect();
    if names.is_empty() {
        "no name at all".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what cannot have been carried out may be repeated without a key, or called "not accepted".
    #[test]
    fn a_refused_connection_carried_nothing() {
        assert!(!Cause::Refused.may_have_arrived());
        assert!(!Cause::TimedOut { connected: false }.may_have_arrived());
        assert!(Cause::TimedOut { connected: true }.may_have_arrived());
        assert!(Cause::Cut.may_have_arrived());
    }

    #[test]
    fn names_are_read_out_of_the_verifiers_form() {
        let presented = [
            "DnsName(\"a.example\")".to_owned(),
            "IpAddress(127.0.0.1)".to_owned(),
        ];
        assert_eq!(presented_names(&presented), "a.example, 127.0.0.1");
    }
}
