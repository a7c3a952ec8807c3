//! `--env-file`: a variable a line, as docker reads them, and with quotes.
//!
//! Blank lines and lines that begin with `#` are passed over, and so is `export ` before a name. White
//! space around a line is not part of it. A value in single or double quotes is what is between them; apart
//! from that everything means itself: there are no escapes, no `$` and no comments behind a value.

use std::ffi::OsString;
use std::path::Path;

use super::Error;

/// A line that says something.
#[derive(Debug)]
pub(super) struct Line {
    /// `NAME=VALUE` or `NAME`.
    pub text: OsString,
    /// The file and the line's number.
    pub origin: String,
}

pub(super) fn read(path: &Path) -> Result<Vec<Line>, Error> {
    let content = std::fs::read(path).map_err(|source| Error::Unreadable {
        option: "--env-file".to_owned(),
        path: path.to_owned(),
        source,
    })?;
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&content);
    let mut lines = Vec::new();
    for (line, number) in content.split(|byte| *byte == b'\n').zip(1..) {
        let origin = format!("{}, line {number}", path.display());
        let line = std::str::from_utf8(line).map_err(|_| Error::Line {
            origin: origin.clone(),
            why: "it is not valid UTF-8",
        })?;
        if let Some(text) = understand(line, &origin)? {
            lines.push(Line { text, origin });
        }
    }
    Ok(lines)
}

fn understand(line: &str, origin: &str) -> Result<Option<OsString>, Error> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => line,
    };
    let Some((name, value)) = line.split_once('=') else {
        return Ok(Some(line.into()));
    };
    let value = unquoted(value).ok_or_else(|| Error::Line {
        origin: origin.to_owned(),
        why: "it opens a quote that it does not close",
    })?;
    Ok(Some(format!("{name}={value}").into()))
}

fn unquoted(value: &str) -> Option<&str> {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote) {
            return inner.strip_suffix(quote);
        }
    }
    Some(value)
}
