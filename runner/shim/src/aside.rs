//! Work that takes long, on a thread of its own: meanwhile the shim hears what is wanted of it.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Weak};

/// Does something with a file. Dropped before it is done, the work fails at its next read or write and ends:
/// a program cannot end before its threads do.
///
/// # Errors
/// Where the work panics.
pub(crate) async fn aside<F, T>(
    file: F,
    work: impl FnOnce(WhileWanted<F>) -> T + Send + 'static,
) -> io::Result<T>
where
    F: Send + 'static,
    T: Send + 'static,
{
    let waiting = Arc::new(());
    let file = WhileWanted {
        file,
        waiting: Arc::downgrade(&waiting),
    };
    let done = tokio::task::spawn_blocking(move || work(file)).await;
    done.map_err(io::Error::other)
}

/// A file that can be used for as long as somebody waits for what comes of it.
#[derive(Debug)]
pub(crate) struct WhileWanted<F> {
    file: F,
    waiting: Weak<()>,
}

impl<F> WhileWanted<F> {
    fn file(&mut self) -> io::Result<&mut F> {
        match self.waiting.strong_count() {
            0 => Err(io::Error::other("nobody waits for it any more")),
            _ => Ok(&mut self.file),
        }
    }
}

impl<F: Read> Read for WhileWanted<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file()?.read(buffer)
    }
}

impl<F: Write> Write for WhileWanted<F> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file()?.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file()?.flush()
    }
}

impl<F: Seek> Seek for WhileWanted<F> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file()?.seek(position)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_done_aside_comes_back() {
        let read = aside(&b"content"[..], |mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(read.await.unwrap().unwrap(), "content");
    }

    /// Else a pod that is told to stop would wait for an endless archive.
    #[tokio::test]
    async fn what_nobody_waits_for_ends() {
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        let endless = aside(io::repeat(7), |mut file| {
            let _ = ended.send(io::copy(&mut file, &mut io::sink()));
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(50), endless)
                .await
                .is_err()
        );
        let ended = tokio::time::timeout(Duration::from_secs(20), has_ended).await;
        assert!(ended.expect("it goes on").unwrap().is_err());
    }
}
