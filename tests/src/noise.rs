//! Bytes that nothing can guess, compared at both ends by their digest.

use std::io::{self, Read as _, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::bed::Bed;
use crate::process::run;

/// Has a command print so many MiB of noise, with a pause after each, and compares what the CLI prints with
/// what the command says of it. `seen` is told whenever more has come. Answers what the CLI said besides.
///
/// # Panics
/// If it is not the same, or if nothing comes for two minutes.
pub fn printed(bed: &Bed, mebibytes: u32, pause_ms: u32, mut seen: impl FnMut(u64)) -> String {
    let pause = f64::from(pause_ms) / 1000.0;
    let mut command = bed.invoke();
    command.arg(format!(
        "mkfifo sum; sha256sum < sum >&2 & \
         for i in $(seq {mebibytes}); do head -c 1M /dev/urandom; sleep {pause}; done | tee sum; wait"
    ));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("invoke runs");
    let pieces = pieces(child.stdout.take().expect("it is a pipe"));
    let (mut sum, mut bytes) = (Sha256::begin(), 0);
    loop {
        match pieces.recv_timeout(Duration::from_secs(120)) {
            Ok(piece) => {
                sum.write_all(&piece).expect("sha256sum reads");
                bytes += piece.len() as u64;
                seen(bytes);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill().expect("it runs");
                panic!("after {bytes} bytes nothing comes any more");
            }
        }
    }
    let output = child.wait_with_output().expect("invoke ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let (own, of_command): (Vec<_>, Vec<_>) =
        said.lines().partition(|line| line.starts_with("invoke: "));
    let stated = digest(&of_command.concat());
    let whole = (Some(0), u64::from(mebibytes) << 20, stated);
    assert_eq!((output.status.code(), bytes, sum.finish()), whole, "{said}");
    own.join("\n")
}

/// What comes through a pipe; few of it waits to be taken.
fn pieces(mut pipe: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(16);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Writes so many MiB of noise to a file, and answers their digest.
///
/// # Panics
/// If there is no room.
#[must_use]
pub fn written(file: &Path, mebibytes: u32) -> String {
    let script = format!("head -c {mebibytes}M /dev/urandom | tee \"$0\" | sha256sum");
    let ran = run(Command::new("bash")
        .args(["-o", "pipefail", "-c", &script])
        .arg(file));
    assert_eq!(ran.code, 0, "{ran:?}");
    digest(&ran.stdout_text())
}

/// The digest in what sha256sum prints.
#[must_use]
pub fn digest(line: &str) -> String {
    line.chars().take_while(char::is_ascii_hexdigit).collect()
}

/// The digest of what is written to it.
pub struct Sha256(Child);

impl Sha256 {
    /// Of nothing yet.
    ///
    /// # Panics
    /// Without sha256sum.
    #[must_use]
    pub fn begin() -> Self {
        let mut command = Command::new("sha256sum");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("sha256sum runs"))
    }

    /// The digest.
    ///
    /// # Panics
    /// If sha256sum fails.
    #[must_use]
    pub fn finish(self) -> String {
        // Its stdin is closed by that.
        let output = self.0.wait_with_output().expect("sha256sum ends");
        digest(&String::from_utf8_lossy(&output.stdout))
    }
}

impl Write for Sha256 {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.stdin.as_mut().map_or(Ok(0), |it| it.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
