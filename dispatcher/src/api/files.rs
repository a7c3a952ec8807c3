//! `GET` and `PUT /v1/files/{sha256}`: an archive of attached files, uploaded piece by piece before the job
//! that needs it is submitted.
//!
//! An archive belongs to whoever uploads it. If it were enough to name a digest, whoever knows one could learn
//! that others have the file, and take it for theirs.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query};
use invoke_protocol::api::{FILES, FilesUploadQuery, Limits, UploadedFiles};
use invoke_protocol::digest::Sha256;
use invoke_protocol::files::longest_archive;
use invoke_protocol::problem::{Problem, ProblemCode};

use crate::access::Person;
use crate::app::App;
use crate::clock;
use crate::problem::Refusal;
use crate::store::uploads::{self, Key, StoredUpload};
use crate::upload::{self, Chunk, Misfit};

/// Says how much of an archive the caller has uploaded.
#[utoipa::path(
    get, path = FILES, tag = "files", security(("api_token" = [])),
    params(("sha256" = String, Path, description = "SHA-256 of the archive: 64 hexadecimal digits, a-f in lower case")),
    responses(
        (status = 200, description = "How much is stored", body = UploadedFiles),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn uploaded(
    person: Person,
    Path(sha256): Path<String>,
) -> Result<Json<UploadedFiles>, Refusal> {
    let sha256 = digest(&sha256)?;
    let key = key(&person, sha256);
    let mut session = person.app.store.read().await?;
    let upload = uploads::find(&mut session, &key).await?;
    let upload = upload.ok_or_else(|| {
        let detail = format!("you have uploaded nothing of the archive {sha256}");
        Refusal::new(ProblemCode::FilesNotFound, detail)
    })?;
    Ok(Json(shown(sha256, &upload)))
}

/// Takes a piece of an archive.
///
/// What is stored already is skipped, so a piece may be sent again; what would leave a gap is refused. The last
/// one is answered when the digest of the whole was compared: if it is another, all of it is removed.
#[utoipa::path(
    put, path = FILES, tag = "files", security(("api_token" = [])),
    params(
        ("sha256" = String, Path, description = "SHA-256 of the archive: 64 hexadecimal digits, a-f in lower case"),
        FilesUploadQuery,
    ),
    request_body(content = [u8], description = "A piece, at most 8 MiB", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "How much is stored, durably", body = UploadedFiles),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not stored, and may be sent again: no room (507), or not now (503)", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn upload(
    person: Person,
    Path(sha256): Path<String>,
    Query(query): Query<FilesUploadQuery>,
    bytes: Bytes,
) -> Result<Json<UploadedFiles>, Refusal> {
    let (app, sha256) = (&person.app, digest(&sha256)?);
    check_length(query.bytes, &app.limits)?;
    let key = key(&person, sha256);
    let chunk = Chunk {
        from: query.from,
        bytes,
        total: Some(query.bytes),
    };
    let mut upload = append(app, &key, &chunk).await?;
    if !upload.complete && upload.stored == query.bytes {
        verify(app, &upload, sha256).await?;
        upload.complete = true;
    }
    Ok(Json(shown(sha256, &upload)))
}

/// The lengths that one digest can have are one. But an upload that was begun with the wrong one must not keep
/// its owner from beginning with the right one.
async fn append(app: &App, key: &Key, chunk: &Chunk) -> Result<StoredUpload, Refusal> {
    let now = clock::now();
    let append = async || upload::append(&app.store, &app.blobs, key, chunk, now).await;
    let mut appended = append().await;
    if let Err(upload::Error::Misfit(Misfit::OtherTotal { .. })) = appended
        && chunk.from == 0
    {
        let mut session = app.store.write().await?;
        if let Some(before) = uploads::find(&mut session, key).await? {
            uploads::give_up(&mut session, before.id, now).await?;
        }
        session.commit().await?;
        appended = append().await;
    }
    appended.map_err(|error| Refusal::of_upload("the archive", error))
}

/// Compares the digest of what is stored with the one that was stated, before anybody is told that it is
/// complete.
async fn verify(app: &App, upload: &StoredUpload, stated: Sha256) -> Result<(), Refusal> {
    let refused = |error| Refusal::of_upload("the archive", error);
    let found = upload::sha256(&app.store, &app.blobs, upload).await;
    let found = found.map_err(refused)?;
    let mut session = app.store.write().await?;
    if found != stated {
        uploads::give_up(&mut session, upload.id, clock::now()).await?;
        session.commit().await?;
        let detail = format!(
            "the {} bytes that were uploaded have SHA-256 {found}, not {stated}: they were removed; make the archive \
             again, and upload it from its beginning",
            upload.stored
        );
        return Err(Refusal::new(ProblemCode::DigestMismatch, detail));
    }
    if !uploads::complete(&mut session, upload.id, clock::now()).await? {
        // Another request removed it meanwhile.
        return Err(refused(upload::Error::Contended));
    }
    Ok(session.commit().await?)
}

fn digest(text: &str) -> Result<Sha256, Refusal> {
    text.parse()
        .map_err(|error: invoke_protocol::digest::InvalidDigest| {
            Refusal::invalid(error.to_string())
        })
}

fn key(person: &Person, sha256: Sha256) -> Key {
    Key::Files {
        owner: person.principal.name.clone(),
        sha256,
    }
}

/// What is longer than any archive of allowed files is refused before it takes up room.
fn check_length(bytes: u64, limits: &Limits) -> Result<(), Refusal> {
    let longest = longest_archive(limits.files_bytes, limits.files_entries);
    if bytes <= longest {
        return Ok(());
    }
    let detail = format!(
        "the archive has {bytes} bytes, and none of allowed files has more than {longest}: the files of one job may \
         come to {} bytes and {} entries",
        limits.files_bytes, limits.files_entries
    );
    Err(Refusal::new(ProblemCode::FilesTooLarge, detail))
}

fn shown(sha256: Sha256, upload: &StoredUpload) -> UploadedFiles {
    UploadedFiles {
        sha256,
        // An archive's length is stated with its first piece.
        bytes: upload.total.unwrap_or(upload.stored),
        stored_bytes: upload.stored,
        complete: upload.complete,
    }
}
