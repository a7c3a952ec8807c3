//! A dispatcher of its own, with a database, a folder and a virtual host that nobody else uses.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use invoke_tests::bed::{Bed, program, variable};
use invoke_tests::broker;
use invoke_tests::process::run;
use invoke_tests::wait;
use tempfile::TempDir;

/// Where the dispatcher keeps its jobs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The test bed's PostgreSQL, as it comes: every commit is synced.
    Postgres,
    /// A file on the same disk.
    Sqlite,
}

/// The running dispatcher; it and all that was made for it go when this is dropped.
pub(crate) struct Dispatcher {
    engine: Engine,
    process: Child,
    folder: TempDir,
    /// Where it listens.
    pub(crate) url: String,
}

/// The database and the virtual host.
const NAME: &str = "invoke_bench";

impl Dispatcher {
    /// Starts one, and waits until it takes jobs.
    ///
    /// # Panics
    /// If it does not, with the last lines of its log.
    pub(crate) fn start(bed: &Bed, engine: Engine) -> Self {
        clean_up(engine);
        broker::tell("PUT", &format!("/api/vhosts/{NAME}"), None);
        let folder = TempDir::new_in(variable("INVOKE_TESTBED_STATE"))
            .expect("the test bed's folder can be written");
        let (host, port) = (&bed.hub_ip, 8600);
        let url = format!("https://{host}:{port}");
        let log = std::fs::File::create(folder.path().join("log")).expect("the folder was made");
        let mut command = Command::new(program("invoke-dispatcher"));
        command
            .arg("serve")
            .env_clear()
            .env("INVOKE_LISTEN", format!("{host}:{port}"))
            .env("INVOKE_PUBLIC_URL", &url)
            .env("INVOKE_DATA_DIR", folder.path())
            .env(
                "INVOKE_AMQP_URL",
                variable("INVOKE_TEST_AMQP_URL").replace("/%2f", &format!("/{NAME}")),
            )
            .env(
                "INVOKE_AMQP_MANAGEMENT_URL",
                variable("INVOKE_TEST_AMQP_MANAGEMENT_URL"),
            )
            .env("INVOKE_AMQP_CA", variable("INVOKE_TEST_AMQP_CA"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the file is open"))
            .stderr(log);
        if engine == Engine::Postgres {
            command.env("INVOKE_DATABASE_URL", create_database());
        }
        let process = command.spawn().expect("the dispatcher was built");
        let dispatcher = Self {
            engine,
            process,
            folder,
            url,
        };
        let ready = wait::within(Duration::from_secs(30), || {
            (dispatcher.curl("/readyz") == 0).then_some(())
        });
        let log = std::fs::read_to_string(dispatcher.folder.path().join("log"));
        assert!(
            ready.is_some(),
            "it is not ready: {}",
            log.unwrap_or_default()
        );
        dispatcher
    }

    /// The file with the authority to trust, PEM.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The local API token.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn token(&self) -> String {
        let token = std::fs::read_to_string(self.folder.path().join("local-token"));
        token.expect("it made one").trim().to_owned()
    }

    fn curl(&self, path: &str) -> i32 {
        let mut command = Command::new("curl");
        command.args(["-sf", "-m", "3", "-o", "/dev/null", "--cacert"]);
        run(command.arg(self.ca()).arg(format!("{}{path}", self.url))).code
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
        clean_up(self.engine);
    }
}

/// What an earlier run may have left behind, too.
fn clean_up(engine: Engine) {
    if broker::ask(&format!("/api/vhosts/{NAME}")).is_some() {
        broker::tell("DELETE", &format!("/api/vhosts/{NAME}"), None);
    }
    if engine == Engine::Postgres {
        psql(&format!("DROP DATABASE IF EXISTS {NAME} WITH (FORCE)"));
    }
}

/// Makes the database, and says where it is.
fn create_database() -> String {
    psql(&format!("CREATE DATABASE {NAME}"));
    database_url()
}

/// Where the dispatcher's database is.
///
/// # Panics
/// If the test bed's URL names none.
pub(crate) fn database_url() -> String {
    let url = variable("INVOKE_TEST_POSTGRES_URL");
    let (server, _) = url.rsplit_once('/').expect("the URL names a database");
    format!("{server}/{NAME}")
}

fn psql(statement: &str) {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement]);
    let ran = run(command.arg(variable("INVOKE_TEST_POSTGRES_URL")));
    assert_eq!(ran.code, 0, "{statement}: {ran:?}");
}
