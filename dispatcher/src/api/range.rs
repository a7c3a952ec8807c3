//! `Range` (RFC 9110, section 14): one range of the bytes of something whose length is known.

use std::convert::Infallible;
use std::ops::Range;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, RANGE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};

use crate::problem::Refusal;

/// What a request says of the bytes that it wants.
///
/// What the RFC lets a server overlook is answered with the whole: another unit, several ranges, what is no
/// range, any method but `GET`, and a condition (`If-Range`), since no answer here bears anything to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// All of them.
    Whole,
    /// Those from `first` on, at most to `last`, which is one of them.
    From { first: u64, last: u64 },
    /// So many at the end.
    Last(u64),
}

/// The bytes that are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    /// Where they are.
    pub(crate) range: Range<u64>,
    /// How long the whole is.
    length: u64,
    status: StatusCode,
}

impl Asked {
    fn new(method: &Method, headers: &HeaderMap) -> Self {
        let mut ranges = headers.get_all(RANGE).iter();
        let text = match (ranges.next(), ranges.next()) {
            (Some(only), None) if method == Method::GET && !headers.contains_key(IF_RANGE) => only,
            _ => return Self::Whole,
        };
        text.to_str().ok().and_then(parse).unwrap_or(Self::Whole)
    }

    /// Which bytes these are of a whole that has `length`.
    ///
    /// # Errors
    /// [`Refusal::range_not_satisfiable`] if it has none of them.
    pub(crate) fn of(self, length: u64) -> Result<Selected, Refusal> {
        let range = match self {
            Self::Whole => None,
            // No part of nothing can be named in an answer, so nothing is answered whole.
            Self::Last(1..) if length == 0 => None,
            Self::Last(count) => Some(length.saturating_sub(count)..length),
            Self::From { first, last } => Some(first..last.saturating_add(1).min(length)),
        };
        match range {
            None => Ok(Selected {
                range: 0..length,
                length,
                status: StatusCode::OK,
            }),
            Some(range) if range.start < range.end => Ok(Selected {
                range,
                length,
                status: StatusCode::PARTIAL_CONTENT,
            }),
            Some(_) => Err(Refusal::range_not_satisfiable(length)),
        }
    }
}

/// `None` for what is no range of bytes, or several.
fn parse(text: &str) -> Option<Asked> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (first, last) {
        ("", count) => position(count).map(Asked::Last),
        (first, "") => Some(Asked::From {
            first: position(first)?,
            last: u64::MAX,
        }),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(Asked::From { first, last })
        }
    }
}

/// A number of any length: beyond every end is beyond every end.
fn position(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

impl Selected {
    /// The answer, whose body is to be exactly these bytes.
    pub(crate) fn answer(self, body: Body) -> Response {
        let Range { start, end } = self.range;
        let headers = [
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
            // With a length, a reader can tell an answer that was cut off.
            (CONTENT_LENGTH, (end - start).to_string()),
            (ACCEPT_RANGES, "bytes".to_owned()),
        ];
        let mut response = (self.status, headers, body).into_response();
        if self.status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {start}-{}/{}", end - 1, self.length);
            // Digits and signs: it has the form of a header.
            let range = range.parse().ok().map(|range| (CONTENT_RANGE, range));
            response.headers_mut().extend(range);
        }
        response
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::new(&parts.method, &parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: &str) -> Asked {
        let headers = HeaderMap::from_iter([(RANGE, range.parse().unwrap())]);
        Asked::new(&Method::GET, &headers)
    }

    /// What is answered of a whole that has `length` bytes, as the answer's headers say it.
    fn answered(range: &str, length: u64) -> String {
        match asked(range).of(length) {
            Err(refusal) => refusal.detail().to_owned(),
            Ok(selected) => {
                let response = selected.answer(Body::empty());
                let header = |name| {
                    let value = response.headers().get(name);
                    value
                        .map_or("-", |value| value.to_str().unwrap())
                        .to_owned()
                };
                let (status, headers) = (
                    response.status().as_u16(),
                    [CONTENT_RANGE, CONTENT_LENGTH, ACCEPT_RANGES].map(header),
                );
                format!("{status} {}", headers.join(", "))
            }
        }
    }

    #[test]
    fn a_range_is_answered_as_the_rfc_says() {
        let cases = [
            ("bytes=0-0", 10),
            ("bytes=2-5", 10),
            ("bytes=2-", 10),
            ("bytes=9-", 10),
            ("bytes=0-99", 10),
            ("Bytes = 2-5", 10),
            ("bytes=-3", 10),
            ("bytes=-99", 10),
            ("bytes=2-99999999999999999999999", 10),
            ("bytes=0-18446744073709551615", 10),
            // There are no such bytes.
            ("bytes=10-", 10),
            ("bytes=99999999999999999999999-", 10),
            ("bytes=-0", 10),
            ("bytes=0-", 0),
            // No range, or none that must be answered.
            ("bytes=-3", 0),
            ("bytes=5-2", 10),
            ("bytes=0-1,4-5", 10),
            ("bytes=-", 10),
            ("bytes=", 10),
            ("bytes", 10),
            ("bytes=+1-2", 10),
            ("bytes=a-b", 10),
            ("lines=0-1", 10),
        ];
        let answers = cases.map(|(range, length)| {
            format!("{range:<32} of {length:>2}: {}", answered(range, length))
        });
        insta::assert_snapshot!(answers.join("\n"), @r"
        bytes=0-0                        of 10: 206 bytes 0-0/10, 1, bytes
        bytes=2-5                        of 10: 206 bytes 2-5/10, 4, bytes
        bytes=2-                         of 10: 206 bytes 2-9/10, 8, bytes
        bytes=9-                         of 10: 206 bytes 9-9/10, 1, bytes
        bytes=0-99                       of 10: 206 bytes 0-9/10, 10, bytes
        Bytes = 2-5                      of 10: 206 bytes 2-5/10, 4, bytes
        bytes=-3                         of 10: 206 bytes 7-9/10, 3, bytes
        bytes=-99                        of 10: 206 bytes 0-9/10, 10, bytes
        bytes=2-99999999999999999999999  of 10: 206 bytes 2-9/10, 8, bytes
        bytes=0-18446744073709551615     of 10: 206 bytes 0-9/10, 10, bytes
        bytes=10-                        of 10: there are 10 bytes, and the range has none of them
        bytes=99999999999999999999999-   of 10: there are 10 bytes, and the range has none of them
        bytes=-0                         of 10: there are 10 bytes, and the range has none of them
        bytes=0-                         of  0: there are 0 bytes, and the range has none of them
        bytes=-3                         of  0: 200 -, 0, bytes
        bytes=5-2                        of 10: 200 -, 10, bytes
        bytes=0-1,4-5                    of 10: 200 -, 10, bytes
        bytes=-                          of 10: 200 -, 10, bytes
        bytes=                           of 10: 200 -, 10, bytes
        bytes                            of 10: 200 -, 10, bytes
        bytes=+1-2                       of 10: 200 -, 10, bytes
        bytes=a-b                        of 10: 200 -, 10, bytes
        lines=0-1                        of 10: 200 -, 10, bytes
        ");
    }

    /// A range is of a `GET`, and of what the caller knows to be the same thing.
    #[test]
    fn what_may_not_be_answered_in_part_is_answered_whole() {
        let range = || (RANGE, "bytes=2-5".parse().unwrap());
        let headers = HeaderMap::from_iter([range()]);
        assert_ne!(Asked::new(&Method::GET, &headers), Asked::Whole);
        assert_eq!(Asked::new(&Method::HEAD, &headers), Asked::Whole);
        let conditional = HeaderMap::from_iter([range(), (IF_RANGE, "\"x\"".parse().unwrap())]);
        assert_eq!(Asked::new(&Method::GET, &conditional), Asked::Whole);
        let mut two = HeaderMap::from_iter([range()]);
        two.append(RANGE, "bytes=0-1".parse().unwrap());
        assert_eq!(Asked::new(&Method::GET, &two), Asked::Whole);
    }
}
