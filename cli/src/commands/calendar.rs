//! `invoke calendar import FILE`, `list`, `show NAME`, `delete NAME`

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use invoke_protocol::id::CalendarName;
use invoke_protocol::schedule::{
    Calendar, CalendarKind, CalendarSpan, CalendarSpec, MAX_CALENDAR_BYTES,
};

use super::Session;
use crate::args::{CalendarVerb, Format};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::neutral;
use crate::table::{columns, moment, table};

/// Does something with calendars.
///
/// # Errors
/// See [`Failure`].
pub async fn calendar(verb: CalendarVerb, session: &Session<'_>) -> Result<Exit, Failure> {
    match verb {
        CalendarVerb::Import {
            file,
            closed,
            open: _,
            name,
            tz,
        } => {
            let name = match name {
                Some(name) => name,
                None => name_of(&file)?,
            };
            let kind = match closed {
                true => CalendarKind::Closed,
                false => CalendarKind::Open,
            };
            let spec = CalendarSpec {
                kind,
                ics: read(&file)?,
                time_zone: tz,
            };
            let calendar = session.client.put_calendar(&name, &spec).await?;
            if session.format == Format::Text {
                let kind = calendar.kind.as_str();
                session
                    .printer
                    .say(&format!("calendar {name} is imported: {kind}"));
            }
            show(&calendar, session)
        }
        CalendarVerb::List => list(session).await,
        CalendarVerb::Show { name } => show(&session.client.calendar(&name).await?, session),
        CalendarVerb::Delete { name } => {
            session.client.delete_calendar(&name).await?;
            session.printer.say(&format!("calendar {name} is deleted"));
            Ok(Exit::SUCCESS)
        }
    }
}

async fn list(session: &Session<'_>) -> Result<Exit, Failure> {
    let list = session.client.calendars().await?;
    if session.format == Format::Json {
        session.printer.print_json(&list)?;
    } else if list.calendars.is_empty() {
        session.printer.say("no calendars yet");
        session
            .printer
            .say("hint: `invoke calendar import FILE.ics --closed` keeps one");
    } else {
        let rows: Vec<_> = list.calendars.iter().map(row).collect();
        let headings = ["NAME", "KIND", "NEXT", "EVENT", "IMPORTED", "BY"];
        session.printer.print(&table(headings, &rows))?;
    }
    Ok(Exit::SUCCESS)
}

fn row(calendar: &Calendar) -> [String; 6] {
    let none = || "-".to_owned();
    let next = calendar.coming.first();
    [
        calendar.name.to_string(),
        calendar.kind.as_str().to_owned(),
        next.map_or_else(none, |span| moment(span.from)),
        next.map_or_else(none, |span| span.summary.clone()),
        moment(calendar.imported),
        calendar.imported_by.clone(),
    ]
}

fn show(calendar: &Calendar, session: &Session<'_>) -> Result<Exit, Failure> {
    if session.format == Format::Json {
        session.printer.print_json(calendar)?;
        return Ok(Exit::SUCCESS);
    }
    let mut text = String::new();
    let meaning = match calendar.kind {
        CalendarKind::Closed => "closed: meanwhile nothing is run, but by schedules that ignore it",
        CalendarKind::Open => "open: only meanwhile something is run, by schedules that name it",
    };
    for (name, value) in [
        ("name", calendar.name.to_string()),
        ("kind", meaning.to_owned()),
        ("imported by", calendar.imported_by.clone()),
        ("imported", moment(calendar.imported)),
    ] {
        let _ = writeln!(text, "{name:<14}{}", neutral(&value));
    }
    text.push('\n');
    match calendar.coming.is_empty() {
        true => text.push_str("no events within a year\n"),
        false => {
            let rows: Vec<_> = calendar.coming.iter().map(span).collect();
            text.push_str(&columns(["FROM", "UNTIL", "EVENT"], &rows));
        }
    }
    session.printer.print(&text)?;
    Ok(Exit::SUCCESS)
}

fn span(span: &CalendarSpan) -> [String; 3] {
    [moment(span.from), moment(span.until), span.summary.clone()]
}

/// What the file is called, without its folder and its ending.
fn name_of(file: &Path) -> Result<CalendarName, Failure> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let refused =
        |why: String| Failure::new(Exit::BAD_INPUT, why).with_hint("name it: --name NAME");
    if file == Path::new("-") {
        return Err(refused(
            "stdin has no name to call a calendar by".to_owned(),
        ));
    }
    stem.parse()
        .map_err(|error| refused(format!("{}: {error}", file.display())))
}

fn read(file: &Path) -> Result<String, Failure> {
    let refused = |why: String| {
        let message = format!("the calendar {} {why}", file.display());
        Failure::new(Exit::BAD_INPUT, message)
    };
    let mut bytes = Vec::new();
    let most = MAX_CALENDAR_BYTES as u64 + 1;
    let read = match file == Path::new("-") {
        true => std::io::stdin().take(most).read_to_end(&mut bytes),
        false => std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes)),
    };
    read.map_err(|error| refused(format!("cannot be read: {error}")))?;
    if bytes.len() > MAX_CALENDAR_BYTES {
        return Err(refused(format!(
            "is longer than {MAX_CALENDAR_BYTES} bytes"
        )));
    }
    String::from_utf8(bytes).map_err(|_| refused("is not valid UTF-8".to_owned()))
}
