//! What the dispatcher proves itself with: the operator's certificate, or one that it makes.
//!
//! Its own authority is made at the first start and kept (`ca.pem`, `ca.key`): runners and people are
//! given `ca.pem` once. The server's certificate is made at each start, good for 90 days, and its key
//! is never written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::data_folder::{self, DataFolder};
use crate::options::Web;

/// The server's certificate, and the authority to give to those who must trust it.
pub(crate) struct Identity {
    /// For the listener.
    pub(crate) server: Arc<ServerConfig>,
    /// PEM; `None` if every system knows it.
    pub(crate) ca_pem: Option<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A PEM file cannot be read, or is none.
    #[error("cannot read a certificate or key from {0}")]
    Pem(PathBuf, #[source] rustls::pki_types::pem::Error),
    /// The file with the authority cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// The certificate file has no certificate.
    #[error("{0} has no certificate in it")]
    Empty(PathBuf),
    /// Our authority's files cannot be read or written.
    #[error("cannot keep the certificate authority")]
    Keep(#[from] data_folder::Error),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not fit each other.
    #[error("the certificate and the key are not usable together")]
    Unusable(#[from] rustls::Error),
}

/// The protocols that are offered, the better one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

impl Identity {
    /// The operator's certificate if there is one, else our own.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) fn load_or_make(
        web: &Web,
        folder: &DataFolder,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let (chain, key, ca_pem) = match (&web.tls_cert, &web.tls_key) {
            (Some(chain), Some(key)) => {
                let ca_pem = web.tls_ca.as_deref().map(read).transpose()?;
                (
                    read_chain(chain)?,
                    PrivateKeyDer::from_pem_file(key)
                        .map_err(|error| Error::Pem(key.clone(), error))?,
                    ca_pem,
                )
            }
            _ => {
                let (ca, ca_pem) = authority(folder, now)?;
                let (certificate, key) = server_certificate(&ca, web, now)?;
                (vec![certificate], key, Some(ca_pem))
            }
        };
        let mut server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self {
            server: Arc::new(server),
            ca_pem,
        })
    }
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| Error::Read(path.to_path_buf(), error))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = |error| Error::Pem(path.to_path_buf(), error);
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(pem)?
        .collect::<Result<_, _>>()
        .map_err(pem)?;
    if chain.is_empty() {
        Err(Error::Empty(path.to_path_buf()))
    } else {
        Ok(chain)
    }
}

/// Our own authority: kept, or made and kept.
fn authority(
    folder: &DataFolder,
    now: Timestamp,
) -> Result<(Issuer<'static, KeyPair>, String), Error> {
    if let (Some(key), Some(pem)) = (folder.read("ca.key")?, folder.read("ca.pem")?) {
        return Ok((
            Issuer::new(authority_parameters(now), KeyPair::from_pem(&key)?),
            pem,
        ));
    }
    let key = KeyPair::generate()?;
    let parameters = authority_parameters(now);
    let pem = parameters.self_signed(&key)?.pem();
    folder.write("ca.key", &key.serialize_pem(), 0o600)?;
    folder.write("ca.pem", &pem, 0o644)?;
    Ok((Issuer::new(parameters, key), pem))
}

/// An authority is its name and its key: from these a later start rebuilds the issuer, and chains still
/// verify against the first `ca.pem`.
fn authority_parameters(now: Timestamp) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "invoke dispatcher");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lasts(&mut parameters, now, Span::new().years(10));
    parameters
}

fn server_certificate(
    authority: &Issuer<'_, KeyPair>,
    web: &Web,
    now: Timestamp,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Error> {
    let mut names: Vec<String> = vec!["localhost".into(), "127.0.0.1".into()];
    // An IPv6 address is in brackets in a URL, and not in a certificate.
    let host = web
        .public_url
        .host_str()
        .map(|host| host.trim_matches(['[', ']']).to_owned());
    names.extend(host.filter(|host| !names.contains(host)));
    let mut parameters = CertificateParams::new(names)?;
    parameters
        .distinguished_name
        .push(DnType::CommonName, "invoke dispatcher server");
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    lasts(&mut parameters, now, Span::new().days(90));
    let key = KeyPair::generate()?;
    let certificate = parameters.signed_by(&key, authority)?.der().clone();
    Ok((
        certificate,
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
    ))
}

/// From yesterday, because the clocks of those who verify differ.
fn lasts(parameters: &mut CertificateParams, now: Timestamp, how_long: Span) {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |date: jiff::civil::Date| {
        let number = |part: i8| u8::try_from(part).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), number(date.month()), number(date.day()))
    };
    parameters.not_before = day(today.saturating_sub(Span::new().days(1)));
    parameters.not_after = day(today.saturating_add(how_long));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runners keep the `ca.pem` of the first start: the authority of the second must be the same.
    #[test]
    fn the_authority_survives_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(Some(home.path())).unwrap();
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let (_, first) = authority(&folder, now).unwrap();
        let (_, second) = authority(&folder, now + Span::new().hours(48)).unwrap();
        assert_eq!(first, second);
        let mode = std::fs::metadata(folder.path("ca.key")).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
            0o600
        );
    }
}
