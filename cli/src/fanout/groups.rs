//! The output of many clusters at the end, once for all that printed the same.
//!
//! While a command runs its output is kept aside: in memory as long as it is small, and then in a temporary
//! file without a name. Of what is the same one copy is kept, so memory grows with the number of different
//! outputs, by at most [`MOST_IN_MEMORY_BYTES`] a stream.

use std::io::{self, Read as _, Seek as _, Write as _};

use invoke_protocol::id::ClusterName;
use invoke_protocol::output::Stream;
use tempfile::SpooledTempFile;

use crate::door::Door;
use crate::output::{self, write_now};
use crate::printer::Printer;

/// What of one stream of one cluster is kept in memory.
const MOST_IN_MEMORY_BYTES: usize = 16 * 1024;

/// How much is printed at once.
const PIECE_BYTES: usize = 64 * 1024;

/// The output of one cluster, kept aside.
pub struct Spool {
    stdout: SpooledTempFile,
    stderr: SpooledTempFile,
}

/// What was printed, and by which clusters.
#[derive(Default)]
pub struct Groups(Vec<Group>);

struct Group {
    stream: Stream,
    sha256: Vec<u8>,
    clusters: Vec<ClusterName>,
    output: SpooledTempFile,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            stdout: SpooledTempFile::new(MOST_IN_MEMORY_BYTES),
            stderr: SpooledTempFile::new(MOST_IN_MEMORY_BYTES),
        }
    }
}

impl Spool {
    /// Keeps what came next of a stream.
    ///
    /// # Errors
    /// The system's, if there is no room.
    pub fn take(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            Stream::Stdout => self.stdout.write_all(bytes),
            Stream::Stderr => self.stderr.write_all(bytes),
        }
    }
}

impl Groups {
    /// Adds what a cluster printed, with the digests of stdout and stderr, in place of what it printed before.
    pub fn add(&mut self, cluster: &ClusterName, spool: Spool, sha256: [Vec<u8>; 2]) {
        for group in &mut self.0 {
            group.clusters.retain(|other| other != cluster);
        }
        self.0.retain(|group| !group.clusters.is_empty());
        let Spool { stdout, stderr } = spool;
        let streams = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        for ((stream, mut output), sha256) in streams.into_iter().zip(sha256) {
            if output.stream_position().is_ok_and(|length| length == 0) {
                continue;
            }
            let is_same = |group: &&mut Group| group.stream == stream && group.sha256 == sha256;
            match self.0.iter_mut().find(is_same) {
                Some(group) => group.clusters.push(cluster.clone()),
                None => self.0.push(Group {
                    stream,
                    sha256,
                    clusters: vec![cluster.clone()],
                    output,
                }),
            }
        }
    }

    /// Prints them: what most clusters printed first, and then in the order of `all`.
    ///
    /// # Errors
    /// [`output::Error`].
    pub async fn print(
        mut self,
        all: &[&ClusterName],
        raw: bool,
        printer: &Printer,
    ) -> Result<(), output::Error> {
        let place = |cluster: &ClusterName| all.iter().position(|other| *other == cluster);
        for group in &mut self.0 {
            group.clusters.sort_by_key(place);
        }
        self.0.sort_by_key(|group| {
            let first = group.clusters.first().and_then(place);
            (
                group.stream == Stream::Stderr,
                std::cmp::Reverse(group.clusters.len()),
                first,
            )
        });
        printer.clear_status();
        for group in self.0 {
            let is_guarded = !raw
                && match group.stream {
                    Stream::Stdout => printer.prints_to_terminal(),
                    Stream::Stderr => printer.is_interactive(),
                };
            group.print(Door::of(is_guarded)).await?;
        }
        Ok(())
    }
}

impl Group {
    async fn print(mut self, mut door: Door) -> Result<(), output::Error> {
        let heading = self.heading();
        write_now(self.stream, heading.into_bytes()).await?;
        self.output.rewind().map_err(output::Error::Spool)?;
        let (mut piece, mut last) = (vec![0; PIECE_BYTES], b'\n');
        loop {
            let length = self.output.read(&mut piece).map_err(output::Error::Spool)?;
            let shown = match length {
                0 => door.end(),
                length => door.show(&piece[..length]),
            };
            last = shown.last().copied().unwrap_or(last);
            write_now(self.stream, shown).await?;
            if length == 0 {
                break;
            }
        }
        if last != b'\n' {
            write_now(self.stream, b"\n".to_vec()).await?;
        }
        Ok(())
    }

    fn heading(&self) -> String {
        let names: Vec<_> = self.clusters.iter().map(ClusterName::as_str).collect();
        let clusters = match names.len() {
            1 => String::new(),
            count => format!(" ({count} clusters)"),
        };
        let stream = match self.stream {
            Stream::Stdout => "",
            Stream::Stderr => ", stderr",
        };
        format!("--- {}{clusters}{stream}\n", names.join(" "))
    }
}
