//! `invoke logs [-f] ID`

use invoke_protocol::id::JobId;

use super::Session;
use super::run::{catch, follow, following_patience};
use crate::args::Format;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::follow::Follow;
use crate::notices::Notices;

/// Prints the output of a job so far. Following, it goes on to the end, and exits as the command did.
///
/// # Errors
/// [`Failure`], also for `-o json`: a document has an end.
pub async fn logs(id: JobId, to_end: bool, session: &Session<'_>) -> Result<Exit, Failure> {
    if session.format == Format::Json {
        let message = "logs prints the command's output as it is, and has no JSON form";
        return Err(Failure::new(Exit::BAD_INPUT, message)
            .with_hint(format!("`invoke result -o json {id}` prints one document")));
    }
    if to_end {
        return follow(id, None, catch(session)?, session).await;
    }
    let notices = Notices::new(session.printer);
    let patience = following_patience(session);
    Follow::new(&session.client, id, session.output(), notices, patience)
        .so_far()
        .await?;
    Ok(Exit::SUCCESS)
}
