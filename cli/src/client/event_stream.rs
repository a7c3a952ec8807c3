//! Server-sent events, as the HTML standard has them (section 9.2.6), in bounded memory.

use invoke_protocol::api::JobEvent;
use reqwest::Response;

/// The longest event. The largest is a job with the longest command, every byte of it escaped.
const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// The events of a job, as they come.
#[derive(Debug)]
pub struct EventStream {
    response: Response,
    parser: Parser,
}

/// Why an event stream ends early.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection was cut, or said nothing for too long. The caller connects again.
    #[error("the connection was cut")]
    Cut,
    /// What came is not what a dispatcher sends.
    #[error("{0}")]
    Nonsense(String),
}

/// One event of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedEvent {
    /// The position in the output log up to which everything was sent.
    pub position: u64,
    /// What happened.
    pub event: JobEvent,
}

impl EventStream {
    pub(super) fn new(response: Response) -> Self {
        Self {
            response,
            parser: Parser::default(),
        }
    }

    /// The next event; the future may be dropped and asked for again.
    ///
    /// # Errors
    /// See [`StreamError`]. After one, the stream is of no more use.
    pub async fn next(&mut self) -> Result<PlacedEvent, StreamError> {
        loop {
            while let Some(raw) = self.parser.next_event()? {
                if let Some(event) = raw.interpret()? {
                    return Ok(event);
                }
            }
            // Every way for a body to end before the `end` event is a cut: also a clean one.
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.parser.feed(&bytes),
                Ok(None) | Err(_) => return Err(StreamError::Cut),
            }
        }
    }
}

/// An event as it is on the wire.
#[derive(Debug, Default, PartialEq, Eq)]
struct RawEvent {
    kind: String,
    id: String,
    text: String,
}

impl RawEvent {
    /// `None` for a kind of event that was made after this program.
    fn interpret(self) -> Result<Option<PlacedEvent>, StreamError> {
        if !matches!(self.kind.as_str(), "job" | "output" | "stored" | "end") {
            return Ok(None);
        }
        let nonsense = |why: String| StreamError::Nonsense(format!("event `{}`: {why}", self.kind));
        let position = self
            .id
            .parse()
            .map_err(|_| nonsense(format!("its id is {:?}", self.id)))?;
        let event =
            serde_json::from_str(&self.text).map_err(|error| nonsense(error.to_string()))?;
        Ok(Some(PlacedEvent { position, event }))
    }
}

/// From bytes, cut anywhere, to events.
#[derive(Debug, Default)]
struct Parser {
    /// Bytes that are not yet lines.
    pending: Vec<u8>,
    /// How many of them are known to hold no line end, or are used up.
    scanned: usize,
    used: usize,
    /// A CR ended the last line: an LF right behind it belongs to it.
    after_cr: bool,
    /// Whether the first line was seen, before which there may be a byte order mark.
    begun: bool,
    /// The event that is being read. The id stays from event to event, as the standard has it.
    event: RawEvent,
    has_text: bool,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) {
        self.pending.drain(..self.used);
        self.scanned -= self.used;
        self.used = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole event; `None` until more bytes come.
    fn next_event(&mut self) -> Result<Option<RawEvent>, StreamError> {
        while let Some(line) = self.next_line()? {
            if let Some(event) = self.take_line(&line)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// A line without its end: LF, CR, or CR and LF.
    fn next_line(&mut self) -> Result<Option<String>, StreamError> {
        if let (true, Some(next)) = (self.after_cr, self.pending.get(self.used)) {
            self.used += usize::from(*next == b'\n');
            self.scanned = self.scanned.max(self.used);
            self.after_cr = false;
        }
        let unseen = &self.pending[self.scanned..];
        let Some(length) = unseen.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            self.scanned = self.pending.len();
            return self.check_length(self.scanned - self.used).map(|()| None);
        };
        let end = self.scanned + length;
        let line = String::from_utf8_lossy(&self.pending[self.used..end]).into_owned();
        self.after_cr = self.pending[end] == b'\r';
        self.used = end + 1;
        self.scanned = self.used;
        self.check_length(line.len())?;
        let marked = !std::mem::replace(&mut self.begun, true);
        Ok(Some(match line.strip_prefix('\u{feff}') {
            Some(unmarked) if marked => unmarked.to_owned(),
            _ => line,
        }))
    }

    /// Takes a line in; an empty one ends the event.
    fn take_line(&mut self, line: &str) -> Result<Option<RawEvent>, StreamError> {
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.kind),
            "data" => {
                self.check_length(self.event.text.len() + value.len())?;
                if self.has_text {
                    self.event.text.push('\n');
                }
                self.event.text.push_str(value);
                self.has_text = true;
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.event.id),
            // A comment, which keeps the connection alive, or a field that means nothing to us.
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<RawEvent> {
        let id = self.event.id.clone();
        let event = std::mem::replace(
            &mut self.event,
            RawEvent {
                id,
                ..RawEvent::default()
            },
        );
        std::mem::take(&mut self.has_text).then_some(event)
    }

    fn check_length(&self, bytes: usize) -> Result<(), StreamError> {
        if bytes <= MAX_EVENT_BYTES {
            Ok(())
        } else {
            Err(StreamError::Nonsense(format!(
                "an event is longer than {MAX_EVENT_BYTES} bytes"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, id: &str, text: &str) -> RawEvent {
        RawEvent {
            kind: kind.into(),
            id: id.into(),
            text: text.into(),
        }
    }

    fn parse(pieces: &[&[u8]]) -> Vec<RawEvent> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.feed(piece);
            while let Some(event) = parser.next_event().unwrap() {
                events.push(event);
            }
        }
        events
    }

    const STREAM: &[u8] =
        "\u{feff}: keep-alive\r\nevent: output\rid: 7\ndata: {\"ä\":\r\ndata:1}\r\n\r\n\
        data\n\nevent: none\n\nid: 9\n:\ndata:  two\n\ndata: cut"
            .as_bytes();

    /// The network cuts where it likes: between CR and LF, within a character, anywhere.
    #[test]
    fn events_are_the_same_wherever_the_bytes_are_cut() {
        let expected = [
            event("output", "7", "{\"ä\":\n1}"),
            event("", "7", ""),
            event("", "9", " two"),
        ];
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let pieces = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                assert_eq!(parse(&pieces), expected, "cut at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(parse(&bytes), expected);
    }

    /// A server that never ends its line must not fill our memory.
    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let refused = (0..).find(|_| {
            parser.feed(&[b'x'; 65536]);
            parser.next_event().is_err()
        });
        assert_eq!(refused, Some(MAX_EVENT_BYTES / 65536));

        let mut parser = Parser::default();
        let line = [b"data: ".as_slice(), &[b'x'; 65536], b"\n"].concat();
        let refused = (0..100).find(|_| {
            parser.feed(&line);
            parser.next_event().is_err()
        });
        assert!(refused.is_some());
    }

    #[test]
    fn what_is_unknown_is_passed_over_and_what_is_broken_is_not() {
        assert!(
            event("news", "7", "whatever")
                .interpret()
                .unwrap()
                .is_none()
        );
        assert!(event("output", "seven", "{}").interpret().is_err());
        assert!(event("output", "7", "{}").interpret().is_err());
    }
}
