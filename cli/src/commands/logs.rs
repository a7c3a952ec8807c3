//! `invoke logs [-f] ID`

use invoke_protocol::id::JobId;
use invoke_protocol::output::Stream;

use super::Session;
use super::run::{catch, follow, following_patience};
use crate::args::{Format, LogsArgs};
use crate::client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::Follow;
use crate::notices::Notices;
use crate::output::Output;
use crate::view::{Count, Selection, View};

/// How far from the end the last lines are looked for at first, in bytes of log; then each time so many
/// times as far.
const FIRST_LOOK_BYTES: u64 = 64 * 1024;
const LOOK_FURTHER: u64 = 16;

/// Prints the output of a job so far, or a part of it. Following, it goes on to the end, and exits as the
/// command did.
///
/// # Errors
/// [`Failure`], also for `-o json`: a document has an end.
pub async fn logs(args: LogsArgs, session: &Session<'_>) -> Result<Exit, Failure> {
    let id = args.id;
    if session.format == Format::Json {
        let message = "logs prints the command's output as it is, and has no JSON form";
        return Err(Failure::new(Exit::BAD_INPUT, message)
            .with_hint(format!("`invoke result -o json {id}` prints one document")));
    }
    let output = part(&args, session).await?;
    if args.follow {
        return follow(id, None, output, catch(session)?, session).await;
    }
    let notices = Notices::new(session.printer);
    let patience = following_patience(session);
    Follow::new(&session.client, id, output, notices, patience)
        .so_far()
        .await?;
    Ok(Exit::SUCCESS)
}

/// What takes the part that is asked for.
async fn part<'a>(args: &LogsArgs, session: &Session<'a>) -> Result<Output<'a>, client::Error> {
    let output = session.output();
    let selection = match (args.stdout, args.stderr) {
        (true, _) => Selection::Only(Stream::Stdout),
        (_, true) => Selection::Only(Stream::Stderr),
        _ => Selection::Both,
    };
    let view = |skip| View::new(selection, skip, args.timestamps);
    match (args.tail, args.since_line) {
        (Some(lines), _) => {
            let tail = find_tail(&session.client, args.id, selection, lines).await?;
            let view = view(tail.skip);
            Ok(match tail.from {
                0 => output.seen_through(view),
                from => output
                    .seen_through(view.from_the_middle())
                    .from_position(from),
            })
        }
        (None, Some(line)) => Ok(output.seen_through(view(line - 1))),
        (None, None) if selection == Selection::Both && !args.timestamps => Ok(output),
        (None, None) => Ok(output.seen_through(view(0))),
    }
}

/// Where the last lines begin.
struct Tail {
    /// A position in the log before them.
    from: u64,
    /// How many lines begin between there and them.
    skip: u64,
}

/// Looks for the last lines from the end of the log on, without reading what is far before them.
async fn find_tail(
    client: &client::Client,
    id: JobId,
    selection: Selection,
    lines: u64,
) -> Result<Tail, client::Error> {
    let mut distance = FIRST_LOOK_BYTES;
    loop {
        let (from, mut log) = client.last_output(id, distance).await?;
        let mut count = Count::new(selection, from > 0);
        let mut position = from;
        while !log.is_empty() {
            position += log.len() as u64;
            count
                .look_at(&log)
                .map_err(|error| client.nonsense(error.to_string()))?;
            log = client.output(id, position).await?;
        }
        if count.lines() >= lines || from == 0 {
            let skip = count.lines().saturating_sub(lines);
            return Ok(Tail { from, skip });
        }
        distance = distance.saturating_mul(LOOK_FURTHER);
    }
}
