//! `invoke artifacts ID`, `invoke artifacts ID get NAME`

use invoke_protocol::api::ArtifactList;
use invoke_protocol::artifacts::{Artifact, ArtifactsIncomplete, ArtifactsSummary};
use invoke_protocol::id::JobId;

use super::Session;
use super::run::following_patience;
use crate::args::{ArtifactsVerb, Format};
use crate::download::{Download, Folder};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table::columns;

/// Lists what a command left to be sent back.
///
/// # Errors
/// [`Failure`], also for a job that left nothing.
pub async fn list(id: JobId, session: &Session<'_>) -> Result<Exit, Failure> {
    let list = session.client.artifacts(id).await?;
    match session.format {
        Format::Json => session.printer.print_json(&list)?,
        Format::Text => {
            let rows: Vec<_> = list.manifest.files.iter().map(row).collect();
            let table = columns(["NAME", "BYTES", "SHA-256"], &rows);
            session.printer.print(&table)?;
            say_what_is_missing(&list, session);
        }
    }
    Ok(Exit::SUCCESS)
}

/// Writes artifacts below a folder, each whole and compared with its digest, or not at all.
///
/// # Errors
/// [`Failure`]; the files that were written before it stay.
pub async fn get(id: JobId, verb: ArtifactsVerb, session: &Session<'_>) -> Result<Exit, Failure> {
    let ArtifactsVerb::Get {
        names,
        all,
        folder,
        overwrite,
    } = verb;
    let list = session.client.artifacts(id).await?;
    let wanted = if all {
        list.manifest.files.iter().collect()
    } else {
        find(id, &list, &names)?
    };
    let folder = Folder::open(&folder, overwrite)?;
    for artifact in wanted {
        let download = Download {
            client: &session.client,
            job: id,
            artifact,
            patience: following_patience(session),
            printer: session.printer,
        };
        download.to(&folder).await?;
    }
    session.printer.clear_status();
    if all {
        say_what_is_missing(&list, session);
    }
    Ok(Exit::SUCCESS)
}

fn find<'a>(
    id: JobId,
    list: &'a ArtifactList,
    names: &[String],
) -> Result<Vec<&'a Artifact>, Failure> {
    let find = |name: &String| {
        let found = list.manifest.files.iter().find(|file| file.path == *name);
        found.ok_or_else(|| {
            Failure::new(
                Exit::BAD_INPUT,
                format!("job {id} has no artifact named {name}"),
            )
            .with_hint(format!("`invoke artifacts {id}` lists what it has"))
        })
    };
    names.iter().map(find).collect()
}

fn row(artifact: &Artifact) -> [String; 3] {
    [
        artifact.path.clone(),
        artifact.bytes.to_string(),
        artifact.sha256.to_string(),
    ]
}

fn say_what_is_missing(list: &ArtifactList, session: &Session<'_>) {
    for skipped in &list.manifest.skipped {
        let words = format!("{} did not come back: {}", skipped.path, skipped.reason);
        session.printer.say(&words);
    }
    if let Some(sentence) = incomplete(&list.summary) {
        session.printer.say(&sentence);
    }
}

/// What is to be said of artifacts of which some are missing.
pub(crate) fn incomplete(summary: &ArtifactsSummary) -> Option<String> {
    let why = match summary.incomplete? {
        ArtifactsIncomplete::TooLarge => "they come to more bytes than are allowed",
        ArtifactsIncomplete::TooMany => "they are more than are allowed",
        ArtifactsIncomplete::StorageFull => "there was no room for them",
        ArtifactsIncomplete::NotUploaded => "they could not be uploaded",
        ArtifactsIncomplete::Unknown => "nobody here knows why",
    };
    Some(format!("ARTIFACTS ARE MISSING: {why}"))
}
