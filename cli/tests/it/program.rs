//! Runs the real binary in an environment of its own, and shows what came of it.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::stub::Stub;

/// A certificate of an authority of its own.
pub(crate) struct Certificates {
    pub(crate) ca_pem: String,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    /// What is spoken behind TLS: HTTP/2, as dispatchers do.
    pub(crate) protocols: &'static [&'static [u8]],
}

impl Certificates {
    /// A good one for `localhost`.
    pub(crate) fn good() -> Self {
        Self::for_name("localhost", 4096)
    }

    /// One for a name, that ends in a year.
    pub(crate) fn for_name(name: &str, until_year: i32) -> Self {
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new([name.to_owned()]).unwrap();
        leaf.not_after = date_time_ymd(until_year, 1, 1);
        let certificate = leaf.signed_by(&key, &authority).unwrap().der().clone();
        Self {
            ca_pem: authority.pem(),
            certificate,
            key: key.serialize_der(),
            protocols: &[b"h2"],
        }
    }

    /// The same, with these protocols behind TLS.
    pub(crate) fn speaking(self, protocols: &'static [&'static [u8]]) -> Self {
        Self { protocols, ..self }
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone().into())
    }
}

/// A home of its own, and a dispatcher in it.
pub(crate) struct Bed {
    pub(crate) home: TempDir,
    pub(crate) stub: Stub,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with_certificates(&Certificates::good())
    }

    pub(crate) fn with_certificates(certificates: &Certificates) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("ca.pem"), &certificates.ca_pem).unwrap();
        Self {
            home,
            stub: Stub::start(certificates),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.stub.address.port())
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    /// The program, set up for the dispatcher.
    pub(crate) fn invoke(&self, arguments: &[&str]) -> Command {
        let mut command = bare(arguments);
        command
            .env("HOME", self.home.path())
            .env("INVOKE_URL", self.url())
            .env("INVOKE_TOKEN", "a-token-for-tests")
            .env("INVOKE_CA_FILE", self.ca_file())
            .env("INVOKE_RETRY_FOR", "0s");
        command
    }

    /// What it comes to, with everything that differs from run to run replaced.
    pub(crate) fn transcript(&self, arguments: &[&str]) -> String {
        self.show(&run(self.invoke(arguments)))
    }

    pub(crate) fn show(&self, output: &Output) -> String {
        let home = self.home.path().to_string_lossy().into_owned();
        transcript(output)
            .replace(&self.url(), "[URL]")
            .replace(&home, "[HOME]")
    }
}

/// The program with nothing around it: no configuration, no dispatcher, no terminal.
pub(crate) fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_invoke"));
    command
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    command
}

pub(crate) fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

pub(crate) fn spawn(mut command: Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends a signal to a program that was started here.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// The exit code, and what went where.
pub(crate) fn transcript(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut shown = format!("exit: {}\n", output.status.code().unwrap_or(-1));
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            shown = format!("{shown}--- {name}\n{}", text(bytes));
        }
    }
    shown
}
