//! Counts starts of commands outside of the system that is tested.
//!
//! A canary command opens one connection to the collector when it starts, and says which job it is of
//! and a number that it drew. What the product's own store believes does not matter here.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

type Marks = Arc<Mutex<HashMap<String, BTreeSet<String>>>>;

/// A listener in the hub, which every pod of the cluster may dial. Cheap to clone.
#[derive(Clone)]
pub struct Collector {
    address: SocketAddr,
    marks: Marks,
}

impl Collector {
    /// Listens at `hub_ip` until the process ends.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn start(hub_ip: &str) -> Self {
        let listener = TcpListener::bind((hub_ip, 0)).expect("the hub's address is this machine's");
        let address = listener.local_addr().expect("it is bound");
        let marks = Marks::default();
        let kept = Arc::clone(&marks);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || drop(take(stream, &kept)));
            }
        });
        Self { address, marks }
    }

    /// The line of shell that marks a start, once, and fails the command if it cannot: a start that
    /// nobody counted would be worth nothing.
    #[must_use]
    pub fn mark(&self) -> String {
        format!(
            "curl -fsS -m 10 --retry 30 --retry-delay 1 --retry-all-errors \
             \"http://{}/$INVOKE_JOB_ID/$$-$RANDOM$RANDOM$RANDOM\" -o /dev/null || exit 99",
            self.address
        )
    }

    /// How often the command of a job has started.
    #[must_use]
    pub fn starts(&self, job: &str) -> usize {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(job).map_or(0, BTreeSet::len)
    }
}

/// `GET /<job>/<number>`: a repetition, after a lost answer, has the same number.
fn take(mut stream: TcpStream, marks: &Marks) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    if let Some((job, number)) = path.trim_start_matches('/').split_once('/') {
        let mut marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks
            .entry(job.to_owned())
            .or_default()
            .insert(number.to_owned());
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
}
