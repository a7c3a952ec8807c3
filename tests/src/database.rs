//! PostgreSQL as its owner sees it, and may break it. What lasts is undone when its guard is dropped.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bed::{Bed, variable};
use crate::faults;
use crate::process::{Ran, run};
use crate::wait;

/// What a query of the dispatcher's database answers, one row a line.
///
/// # Panics
/// If PostgreSQL refuses.
#[must_use]
pub fn rows(query: &str) -> Vec<String> {
    let ran = client("psql", &["-X", "-q", "-A", "-t", "-c", query]);
    ran.stdout_text().lines().map(str::to_owned).collect()
}

/// The ids of all jobs.
#[must_use]
pub fn all_jobs() -> BTreeSet<String> {
    rows("SELECT id FROM jobs").into_iter().collect()
}

/// A lock that somebody holds in the database, until the end.
pub struct Locked(Child);

impl Locked {
    /// Has a statement take it.
    ///
    /// # Panics
    /// If it cannot be had.
    #[must_use]
    pub fn new(statement: &str) -> Self {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        command.arg(variable("INVOKE_TEST_POSTGRES_URL"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("psql runs");
        let script = format!("BEGIN;\n{statement};\n\\echo locked\n");
        let stdin = child.stdin.as_mut().expect("it is a pipe");
        stdin.write_all(script.as_bytes()).expect("psql reads");
        let stdout = child.stdout.as_mut().expect("it is a pipe");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "locked"), "{statement}");
        Self(child)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // What it had begun ends with its connection.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A copy of the dispatcher's database as it is now.
pub struct Backup(tempfile::NamedTempFile);

impl Backup {
    /// As it is now.
    ///
    /// # Panics
    /// If PostgreSQL refuses.
    #[must_use]
    pub fn take() -> Self {
        let file = tempfile::NamedTempFile::new().expect("there is room for a small file");
        let path = file.path().to_str().expect("its name is plain");
        client("pg_dump", &["--no-owner", "--file", path, "--dbname"]);
        Self(file)
    }

    /// Puts it in the place of what is there, while no dispatcher runs.
    ///
    /// # Panics
    /// If PostgreSQL refuses.
    pub fn restore(&self) {
        let path = self.0.path().to_str().expect("its name is plain");
        let empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
        let options = ["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1"];
        let steps = ["-o", "/dev/null", "-c", empty, "-f", path];
        client("psql", &[options.as_slice(), &steps].concat());
    }
}

/// A PostgreSQL that says that something is committed some time before it writes it, until the end.
pub struct Lazy {
    writer: Option<String>,
}

impl Lazy {
    /// From now on.
    #[must_use]
    pub fn begin() -> Self {
        as_administrator("ALTER SYSTEM SET synchronous_commit = off");
        as_administrator("ALTER SYSTEM SET wal_writer_delay = '10s'");
        as_administrator("SELECT pg_reload_conf()");
        Self { writer: None }
    }

    /// And nobody writes it: whoever commits next wakes the writer.
    ///
    /// # Panics
    /// If PostgreSQL has nobody who would.
    pub fn freeze_writer(&mut self) {
        let who = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'";
        let writer = as_administrator(who);
        shell(&format!("kill -s STOP {writer}"));
        self.writer = Some(writer);
    }

    /// Frozen, it has not even noticed that its PostgreSQL is dead, and no other can be started.
    pub fn kill_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            let _ = shell_may_fail(&format!("kill -s KILL {writer}"));
        }
    }
}

impl Drop for Lazy {
    fn drop(&mut self) {
        self.kill_writer();
        reset_settings();
    }
}

/// A PostgreSQL that leaves it to the kernel when what it wrote is on the disk, until the end.
pub struct Unsynced;

impl Unsynced {
    /// From now on.
    #[must_use]
    pub fn begin() -> Self {
        as_administrator("ALTER SYSTEM SET fsync = off");
        as_administrator("SELECT pg_reload_conf()");
        wait::until("fsync to be off", Duration::from_secs(10), || {
            (as_administrator("SHOW fsync") == "off").then_some(())
        });
        Self
    }
}

impl Drop for Unsynced {
    fn drop(&mut self) {
        reset_settings();
    }
}

fn reset_settings() {
    let reset = try_as_administrator("ALTER SYSTEM RESET ALL");
    let _ = try_as_administrator("SELECT pg_reload_conf()");
    if reset.code != 0 && !std::thread::panicking() {
        panic!("PostgreSQL still has a test's settings: {reset:?}");
    }
}

/// A disk of its own under PostgreSQL's data, until the end: its power can fail.
pub struct OwnDisk<'a> {
    bed: &'a Bed,
    folder: PathBuf,
    image: PathBuf,
}

impl<'a> OwnDisk<'a> {
    /// Moves the data there.
    ///
    /// # Panics
    /// If this machine cannot mount it, or PostgreSQL does not come back from the move.
    #[must_use]
    pub fn new(bed: &'a Bed) -> Self {
        let postgres = PathBuf::from(variable("INVOKE_TESTBED_STATE")).join("postgres");
        let (folder, image) = (postgres.join("data"), postgres.join("disk"));
        faults::kill(bed, "postgres");
        let aside = copy(&folder);
        let disk = image.display();
        shell(&format!("truncate -s 2G {disk} && mkfs.ext4 -q -F {disk}"));
        let own = Self { bed, folder, image };
        own.mount();
        fill(&own.folder, &aside);
        // What was there before is not what the power is to take away.
        shell(&format!("sync --file-system {}", own.folder.display()));
        faults::restart(bed, "postgres");
        own
    }

    /// From this moment on nothing gets to the disk, not even what the kernel was about to write; then there is
    /// power again. PostgreSQL is dead.
    ///
    /// # Panics
    /// If the file system does not do it, or cannot be mounted afterwards.
    pub fn lose_power(&self) {
        let folder = self.folder.display();
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH.
        let shutdown = r#"open(my $disk, "<", shift) or die $!; my $how = pack("L", 2); ioctl($disk, 0x8004587d, $how) or die $!"#;
        shell(&format!("perl -e '{shutdown}' {folder}"));
        self.take_out();
        self.mount();
    }

    fn mount(&self) {
        let (disk, folder) = (self.image.display(), self.folder.display());
        shell(&format!("mount -o loop {disk} {folder}"));
    }

    fn take_out(&self) {
        // It may have died of its disk already.
        let _ = self.bed.testbed(&["kill", "postgres"]);
        let unmount = format!("umount {}", self.folder.display());
        wait::until(
            "PostgreSQL to let go of its disk",
            Duration::from_secs(30),
            || (shell_may_fail(&unmount).code == 0).then_some(()),
        );
    }
}

impl Drop for OwnDisk<'_> {
    fn drop(&mut self) {
        let _ = self.bed.testbed(&["kill", "postgres"]);
        let aside = copy(&self.folder);
        self.take_out();
        shell(&format!(
            "find {} -mindepth 1 -delete; rm {}",
            self.folder.display(),
            self.image.display()
        ));
        fill(&self.folder, &aside);
        faults::restart(self.bed, "postgres");
    }
}

/// A file system of its own, without room, under PostgreSQL's log of what it writes (WAL), until the end.
pub struct FullWal<'a> {
    bed: &'a Bed,
    folder: PathBuf,
}

impl<'a> FullWal<'a> {
    /// Moves the log there, and writes until its next segment has no room.
    ///
    /// # Panics
    /// If PostgreSQL does not come back from the move.
    #[must_use]
    pub fn new(bed: &'a Bed) -> Self {
        let folder = PathBuf::from(variable("INVOKE_TESTBED_STATE")).join("postgres/data/pg_wal");
        faults::kill(bed, "postgres");
        let aside = copy(&folder);
        // Recovery needs some segments of 16 MB.
        let size = "size=200m,mode=700,uid=postgres,gid=postgres";
        shell(&format!(
            "mount -t tmpfs -o {size} tmpfs {}",
            folder.display()
        ));
        let full = Self { bed, folder };
        fill(&full.folder, &aside);
        faults::restart(bed, "postgres");
        let _ = shell_may_fail(&format!("cat /dev/zero >{}", full.filler().display()));
        full.use_up();
        full
    }

    /// Until the segment that is to be written next does not exist, and nothing can make it; or until
    /// somebody wanted it already, which PostgreSQL dies of.
    fn use_up(&self) {
        let begin = "SELECT pg_logical_emit_message(true, 'row', 'eleven'); SELECT pg_switch_wal()";
        let next = "SELECT pg_walfile_name(pg_current_wal_insert_lsn() + 100)";
        wait::until(
            "the last segment to be over",
            Duration::from_secs(30),
            || {
                let _ = try_as_administrator(begin);
                let ran = try_as_administrator(next);
                let is_there = self.folder.join(ran.stdout_text().trim()).exists();
                (ran.code != 0 || !is_there).then_some(())
            },
        );
    }

    /// So that PostgreSQL can be started again.
    ///
    /// # Panics
    /// If there is room already.
    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("it is there");
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for FullWal<'_> {
    fn drop(&mut self) {
        // It may have died of it already.
        let _ = self.bed.testbed(&["kill", "postgres"]);
        let _ = std::fs::remove_file(self.filler());
        let aside = copy(&self.folder);
        let folder = self.folder.display();
        shell(&format!(
            "umount {folder} && find {folder} -mindepth 1 -delete"
        ));
        fill(&self.folder, &aside);
        faults::restart(self.bed, "postgres");
    }
}

fn copy(folder: &Path) -> tempfile::TempDir {
    let aside = tempfile::tempdir().expect("there is room for a folder");
    shell(&format!(
        "cp -a {}/. {}",
        folder.display(),
        aside.path().display()
    ));
    aside
}

fn fill(folder: &Path, from: &tempfile::TempDir) {
    shell(&format!(
        "cp -a {}/. {}",
        from.path().display(),
        folder.display()
    ));
}

fn shell(line: &str) {
    let ran = shell_may_fail(line);
    assert_eq!(ran.code, 0, "{line}: {ran:?}");
}

fn shell_may_fail(line: &str) -> Ran {
    run(Command::new("bash").args(["-c", line]))
}

/// One of PostgreSQL's own programs, for the dispatcher's database.
fn client(program: &str, arguments: &[&str]) -> Ran {
    let url = variable("INVOKE_TEST_POSTGRES_URL");
    let ran = run(Command::new(program).args(arguments).arg(&url));
    assert_eq!(ran.code, 0, "{program} {arguments:?}: {ran:?}");
    ran
}

/// What PostgreSQL's own user may have it do. Answers what it prints.
fn as_administrator(statement: &str) -> String {
    let ran = try_as_administrator(statement);
    assert_eq!(ran.code, 0, "{statement}: {ran:?}");
    ran.stdout_text().trim().to_owned()
}

fn try_as_administrator(statement: &str) -> Ran {
    let socket = format!("{}/postgres/socket", variable("INVOKE_TESTBED_STATE"));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres"]);
    command.args(["--init-groups", "psql", "-X", "-q", "-A", "-t"]);
    command.args(["-v", "ON_ERROR_STOP=1", "-h", &socket, "-d", "postgres"]);
    run(command.args(["-c", statement]))
}
