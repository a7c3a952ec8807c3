//! The lines of an iCalendar file, and what they are the lines of.

use super::{Error, Problem};

/// How deep components are nested: a calendar, an event, an alarm, and one for those to come.
const MAX_DEPTH: usize = 4;

/// `BEGIN:NAME` to `END:NAME`.
#[derive(Debug)]
pub(super) struct Component {
    pub(super) name: String,
    /// The line of its beginning.
    pub(super) line: usize,
    pub(super) properties: Vec<Line>,
    pub(super) parts: Vec<Component>,
}

/// `NAME;PARAMETER=…:VALUE`. Names are in capitals.
#[derive(Debug)]
pub(super) struct Line {
    /// Counted from one; of a folded line, where it begins.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) value: String,
}

impl Component {
    /// The first property of a name.
    pub(super) fn property(&self, name: &str) -> Option<&Line> {
        self.all(name).next()
    }

    /// All properties of a name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Line> {
        self.properties.iter().filter(move |line| line.name == name)
    }

    /// The property of a name that may be there once.
    pub(super) fn single(&self, name: &'static str) -> Result<Option<&Line>, Error> {
        let mut all = self.all(name);
        let first = all.next();
        match all.next() {
            None => Ok(first),
            Some(second) => Err(second.error(Problem::Twice(name))),
        }
    }

    pub(super) fn error(&self, problem: Problem) -> Error {
        Error::Line {
            line: self.line,
            problem,
        }
    }
}

impl Line {
    /// The value of a parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value as a text, without its escapes. What is no letter on a screen is a space.
    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(self.value.len());
        let mut letters = self.value.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => match letters.next() {
                    Some('n' | 'N') | None => text.push(' '),
                    Some(other) => text.push(other),
                },
                control if control.is_control() => text.push(' '),
                other => text.push(other),
            }
        }
        text
    }
}

/// The calendars of a file, which is one as a rule.
pub(super) fn parse(text: &str) -> Result<Vec<Component>, Error> {
    let mut calendars = Vec::new();
    let mut open: Vec<Component> = Vec::new();
    for (number, text) in unfolded(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let line = Line::parse(number, &text)?;
        match line.name.as_str() {
            "BEGIN" => open.push(begun(&line, open.len())?),
            "END" => {
                let name = line.value.to_ascii_uppercase();
                let Some(ended) = open.pop() else {
                    return Err(line.error(Problem::NotBegun(short(&name))));
                };
                if ended.name != name {
                    return Err(ended.error(Problem::NotEnded(short(&ended.name))));
                }
                match open.last_mut() {
                    Some(outer) => outer.parts.push(ended),
                    None => calendars.push(ended),
                }
            }
            _ => match open.last_mut() {
                Some(component) => component.properties.push(line),
                None => return Err(line.error(Problem::Outside(short(&text)))),
            },
        }
    }
    match open.pop() {
        None => Ok(calendars),
        Some(component) => Err(component.error(Problem::NotEnded(short(&component.name)))),
    }
}

fn begun(line: &Line, depth: usize) -> Result<Component, Error> {
    let name = line.value.to_ascii_uppercase();
    if depth == 0 && name != "VCALENDAR" {
        return Err(line.error(Problem::Outside(format!("BEGIN:{}", short(&name)))));
    }
    if depth >= MAX_DEPTH {
        return Err(line.error(Problem::TooDeep(short(&name))));
    }
    Ok(Component {
        name,
        line: line.number,
        properties: Vec::new(),
        parts: Vec::new(),
    })
}

/// The lines with their numbers; a line that begins with white space goes on with the one before.
fn unfolded(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(rest), Some((_, begun))) => begun.push_str(rest),
            _ if line.trim().is_empty() => {}
            _ => lines.push((index + 1, line.to_owned())),
        }
    }
    lines
}

impl Line {
    fn parse(number: usize, text: &str) -> Result<Self, Error> {
        let wrong = || Error::Line {
            line: number,
            problem: Problem::NoProperty(short(text)),
        };
        let (head, value) = split_outside_quotes(text, ':').ok_or_else(wrong)?;
        let (name, mut rest) = split_outside_quotes(head, ';').unwrap_or((head, ""));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(wrong());
        }
        let mut parameters = Vec::new();
        while !rest.is_empty() {
            let (parameter, others) = split_outside_quotes(rest, ';').unwrap_or((rest, ""));
            let (name, value) = parameter.split_once('=').ok_or_else(wrong)?;
            parameters.push((
                name.to_ascii_uppercase(),
                value.trim_matches('"').to_owned(),
            ));
            rest = others;
        }
        Ok(Self {
            number,
            name: name.to_ascii_uppercase(),
            parameters,
            value: value.trim_end().to_owned(),
        })
    }
}

fn split_outside_quotes(text: &str, separator: char) -> Option<(&str, &str)> {
    let mut is_quoted = false;
    let at = text.find(|letter| {
        is_quoted ^= letter == '"';
        letter == separator && !is_quoted
    })?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// As much of a text as an error shows.
pub(super) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
