//! What test builds have.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::{ENV, ENV_LISTEN};

pub(crate) fn start() {
    let set = std::env::var(ENV).unwrap_or_default();
    for pair in set.split(';').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((name, actions)) => say(&configure(name, actions)),
            None => say(&format!("{ENV}: {pair:?} is not NAME=ACTIONS")),
        }
    }
    let Ok(address) = std::env::var(ENV_LISTEN) else {
        return;
    };
    match TcpListener::bind(&address) {
        Ok(listener) => drop(std::thread::spawn(move || serve(&listener))),
        Err(error) => say(&format!("cannot listen on {address}: {error}")),
    }
}

pub(crate) fn is_set(name: &'static str) -> bool {
    fail::eval(name, |_| ()).is_some()
}

pub(crate) fn set_with_prefix(prefix: &'static str) -> Option<String> {
    let set: Vec<_> = fail::list()
        .into_iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, actions)| format!("{name}={actions}"))
        .collect();
    (!set.is_empty()).then(|| set.join(";"))
}

pub(crate) fn die(name: &'static str) -> ! {
    say(&format!("killed at {name}"));
    std::process::abort()
}

fn configure(name: &str, actions: &str) -> String {
    match fail::cfg(name, actions) {
        Ok(()) => format!("{name}={actions}"),
        Err(error) => format!("{name}={actions}: {error}"),
    }
}

/// One question a connection; nobody but a test asks.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        let _ = answer(stream);
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    // Read to the end of the head, or closing would reset the connection under the answer.
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let text = match asked(&request) {
        Some((name, actions)) => configure(&name, &actions),
        None => fail::list()
            .into_iter()
            .map(|(name, actions)| format!("{name}={actions}\n"))
            .collect(),
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    )
}

/// `GET /…?name=NAME&actions=ACTIONS HTTP/1.1`, percent-encoding for `>` and `*` as proxies write them.
fn asked(request: &str) -> Option<(String, String)> {
    let target = request.split(' ').nth(1)?;
    let (_, query) = target.split_once('?')?;
    let value = |key: &str| {
        let pair = query
            .split('&')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))?;
        Some(
            pair.replace("%3E", ">")
                .replace("%3e", ">")
                .replace("%2A", "*")
                .replace("%2a", "*"),
        )
    };
    Some((value("name")?, value("actions")?))
}

#[expect(
    clippy::print_stderr,
    reason = "a test build talks to whoever reads its log"
)]
fn say(words: &str) {
    eprintln!("hooks: {words}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_asked() {
        let set = |name: &str, actions: &str| Some((name.to_owned(), actions.to_owned()));
        assert_eq!(
            asked("GET /?name=a.b&actions=return HTTP/1.1\r\n"),
            set("a.b", "return")
        );
        assert_eq!(
            asked("GET /?name=a&actions=3%2Aoff-%3E1*return HTTP/1.1\r\n"),
            set("a", "3*off->1*return")
        );
        assert_eq!(asked("GET / HTTP/1.1\r\n"), None);
    }
}
