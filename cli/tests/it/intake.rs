//! What a dispatcher takes up before and during a job: archives, and what commands read. By the rules of the
//! real one, as far as lengths and digests go.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use invoke_protocol::api::{StdinAck, UploadedFiles};
use invoke_protocol::digest::Sha256;
use invoke_protocol::problem::ProblemCode;

use crate::stub::{Answer, Seen};

#[derive(Default)]
pub(crate) struct Intake {
    archives: HashMap<String, Vec<u8>>,
    /// What commands read.
    pub(crate) stdin: Vec<u8>,
    pub(crate) stdin_ended: bool,
}

impl Intake {
    /// The bytes of an archive, as far as they are there.
    pub(crate) fn archive(&self, sha256: &str) -> Option<&[u8]> {
        self.archives.get(sha256).map(Vec::as_slice)
    }

    pub(crate) fn answer(&mut self, seen: &Seen) -> Answer {
        let (method, path) = seen.route.split_once(' ').unwrap();
        match (method, path.strip_prefix("/v1/files/")) {
            ("GET", Some(sha256)) => match self.archive(sha256) {
                Some(stored) => uploaded(sha256, stored.len(), stored),
                None => Answer::problem(ProblemCode::FilesNotFound, "nothing of it is there"),
            },
            ("PUT", Some(sha256)) => {
                let stored = self.archives.entry(sha256.to_owned()).or_default();
                match append(stored, seen) {
                    Ok(()) => uploaded(sha256, seen.number("bytes"), stored),
                    Err(gap) => gap,
                }
            }
            _ => match append(&mut self.stdin, seen) {
                Ok(()) => {
                    self.stdin_ended |= seen.asked("end") == Some("true");
                    let ack = StdinAck {
                        bytes: self.stdin.len() as u64,
                        ended: self.stdin_ended,
                    };
                    Answer::json(200, &ack)
                }
                Err(gap) => gap,
            },
        }
    }
}

fn append(stored: &mut Vec<u8>, seen: &Seen) -> Result<(), Answer> {
    let from = seen.number("from");
    if from > stored.len() {
        let detail = format!("{} bytes are stored, not {from}", stored.len());
        return Err(Answer::problem(ProblemCode::UploadGap, &detail));
    }
    let known = (stored.len() - from).min(seen.body.len());
    stored.extend_from_slice(&seen.body[known..]);
    Ok(())
}

fn uploaded(sha256: &str, total: usize, stored: &[u8]) -> Answer {
    let digest = digest(&SHA256, stored);
    let stated: Sha256 = sha256.parse().unwrap();
    let complete = stated.as_bytes() == digest.as_ref();
    let uploaded = UploadedFiles {
        sha256: stated,
        bytes: total as u64,
        stored_bytes: stored.len() as u64,
        complete,
    };
    Answer::json(200, &uploaded)
}
