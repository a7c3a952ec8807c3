//! One suite, two engines: uploads, and the jobs that use them.

use invoke_dispatcher::blobs::job_prefix;
use invoke_dispatcher::sealing::SealedSecrets;
use invoke_dispatcher::store::job_output::Part;
use invoke_dispatcher::store::jobs::{self, NewFiles, NewJob, StoredJob};
use invoke_dispatcher::store::uploads::{self, Growth, Key, StoredUpload};
use invoke_dispatcher::store::{Error, Store, clusters, garbage};
use invoke_protocol::digest::Sha256;
use invoke_protocol::environment::Environment;
use invoke_protocol::files::{FILES_WITHIN_SECONDS, Files};
use invoke_protocol::id::JobId;
use invoke_protocol::state::{Reason, ReasonCode};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::store::{
    Database, after, cancel, change, cluster, found, new_job, now, on_both_engines, permit, pod,
};

on_both_engines! {
    an_upload_grows_where_it_ends_or_not_at_all
    of_two_writers_exactly_one_is_first
    one_key_is_one_upload
    what_was_taken_is_forgotten
    what_is_complete_is_not_given_up
    what_was_asked_for_beside_the_command_is_read_back
    idle_files_are_given_up_when_no_job_needs_them
    a_job_whose_files_are_gone_is_not_accepted
    of_acceptance_and_removal_exactly_one_wins
    a_job_that_ends_lets_go_of_secrets_and_stdin
    a_job_with_files_has_time_to_fetch_them
}

fn files_of(owner: &str) -> Key {
    Key::Files {
        owner: owner.to_owned(),
        sha256: Sha256::from_bytes([7; 32]),
    }
}

async fn begun(store: &Store, key: &Key, total: Option<u64>) -> StoredUpload {
    let mut session = store.write().await.unwrap();
    uploads::begin(&mut session, key, total, now())
        .await
        .unwrap();
    session.commit().await.unwrap();
    stored(store, key).await.unwrap()
}

async fn stored(store: &Store, key: &Key) -> Option<StoredUpload> {
    let mut session = store.read().await.unwrap();
    uploads::find(&mut session, key).await.unwrap()
}

/// Grows by so much, as if a blob of that length were there.
async fn grow(store: &Store, seen: &StoredUpload, by: u64, complete: bool) -> bool {
    let part = (by > 0).then(|| Part {
        from: seen.stored,
        to: seen.stored + by,
        blob: uploads::blob(seen.id, seen.stored),
    });
    let total = seen.total.or(complete.then_some(seen.stored + by));
    let growth = Growth {
        part,
        total,
        complete,
    };
    let mut session = store.write().await.unwrap();
    let grown = uploads::append(&mut session, seen, &growth, now())
        .await
        .unwrap();
    session.commit().await.unwrap();
    grown
}

async fn garbage(store: &Store) -> Vec<String> {
    let mut session = store.read().await.unwrap();
    garbage::list(&mut session, 100).await.unwrap()
}

/// An archive of 20 bytes, whole.
async fn whole_files(store: &Store, owner: &str) -> NewFiles {
    let upload = begun(store, &files_of(owner), Some(20)).await;
    assert!(grow(store, &upload, 20, false).await);
    let mut session = store.write().await.unwrap();
    assert!(
        uploads::complete(&mut session, upload.id, now())
            .await
            .unwrap()
    );
    session.commit().await.unwrap();
    NewFiles {
        files: Files {
            sha256: Sha256::from_bytes([7; 32]),
            bytes: 20,
            content_bytes: 100,
            entries: 3,
        },
        upload: upload.id,
    }
}

async fn an_upload_grows_where_it_ends_or_not_at_all(database: Database) {
    let store = database.open().await;
    let key = files_of("ada");
    assert_eq!(stored(&store, &key).await, None);
    let fresh = begun(&store, &key, Some(20)).await;
    assert_eq!(
        (fresh.stored, fresh.total, fresh.taken, fresh.complete),
        (0, Some(20), 0, false)
    );
    assert_eq!(stored(&store, &files_of("bob")).await, None, "not bob's");
    assert!(grow(&store, &fresh, 12, false).await);
    assert!(
        !grow(&store, &fresh, 12, false).await,
        "it ends elsewhere now"
    );
    let grown = stored(&store, &key).await.unwrap();
    assert!(grow(&store, &grown, 8, false).await);
    let mut session = store.read().await.unwrap();
    let all = uploads::parts(&mut session, fresh.id, 0, 9).await.unwrap();
    let bounds: Vec<_> = all.iter().map(|part| (part.from, part.to)).collect();
    assert_eq!(bounds, [(0, 12), (12, 20)]);
    for (position, from) in [(0, 0), (11, 0), (12, 12), (19, 12)] {
        let parts = uploads::parts(&mut session, fresh.id, position, 1)
            .await
            .unwrap();
        assert_eq!(parts[0].from, from, "{position}");
    }
    let beyond = uploads::parts(&mut session, fresh.id, 20, 1).await.unwrap();
    assert!(beyond.is_empty());
    drop(session);
    let whole = stored(&store, &key).await.unwrap();
    let mut session = store.write().await.unwrap();
    assert!(
        uploads::complete(&mut session, fresh.id, now())
            .await
            .unwrap()
    );
    session.commit().await.unwrap();
    assert!(!grow(&store, &whole, 1, false).await, "nothing follows");
    store.close().await;
    let read_back = stored(&database.open().await, &key).await.unwrap();
    assert_eq!((read_back.stored, read_back.complete), (20, true));
}

async fn of_two_writers_exactly_one_is_first(database: Database) {
    let store = database.open().await;
    for number in 0..20 {
        let fresh = begun(&store, &files_of(&number.to_string()), None).await;
        let (one, other) = tokio::join!(
            grow(&store, &fresh, 5, false),
            grow(&store, &fresh, 7, false)
        );
        assert!(one ^ other, "{one} {other}");
        let mut session = store.read().await.unwrap();
        let parts = uploads::parts(&mut session, fresh.id, 0, 9).await.unwrap();
        let lengths: Vec<_> = parts.iter().map(|part| part.to).collect();
        assert_eq!(lengths, [if one { 5 } else { 7 }]);
    }
}

/// Also when both begin at the same moment.
async fn one_key_is_one_upload(database: Database) {
    let store = database.open().await;
    let job = JobId::from_uuid(Uuid::now_v7());
    for key in [files_of("ada"), Key::Stdin(job), Key::Artifacts(job)] {
        let (one, other) = tokio::join!(begun(&store, &key, None), begun(&store, &key, None));
        assert_eq!(one.id, other.id, "{key}");
    }
    let mut session = store.read().await.unwrap();
    let stdin = uploads::find(&mut session, &Key::Stdin(job)).await.unwrap();
    let artifacts = uploads::find(&mut session, &Key::Artifacts(job))
        .await
        .unwrap();
    assert_ne!(stdin.unwrap().id, artifacts.unwrap().id);
}

async fn what_was_taken_is_forgotten(database: Database) {
    let store = database.open().await;
    let key = Key::Stdin(JobId::from_uuid(Uuid::now_v7()));
    let mut upload = begun(&store, &key, None).await;
    for _ in 0..3 {
        assert!(grow(&store, &upload, 10, false).await);
        upload = stored(&store, &key).await.unwrap();
    }
    let mut session = store.write().await.unwrap();
    let mut take = async |position| {
        let moved = uploads::take(&mut session, upload.id, position)
            .await
            .unwrap();
        let parts = uploads::taken_parts(&mut session, upload.id, 9)
            .await
            .unwrap();
        (moved, parts.iter().map(|part| part.to).collect::<Vec<_>>())
    };
    assert_eq!(take(9).await, (true, vec![]));
    assert_eq!(take(15).await, (true, vec![10]));
    assert_eq!(take(5).await, (false, vec![10]), "it does not go back");
    assert_eq!(take(31).await, (false, vec![10]), "there is no such byte");
    uploads::forget_parts(&mut session, upload.id, 10)
        .await
        .unwrap();
    let left = uploads::parts(&mut session, upload.id, 15, 9)
        .await
        .unwrap();
    let bounds: Vec<_> = left.iter().map(|part| part.from).collect();
    assert_eq!(bounds, [10, 20]);
    session.commit().await.unwrap();
    assert_eq!(stored(&store, &key).await.unwrap().taken, 15);
}

/// What was compared stays; what was not is forgotten, and its blobs are noted.
async fn what_is_complete_is_not_given_up(database: Database) {
    let store = database.open().await;
    let whole = whole_files(&store, "ada").await.upload;
    let torn = begun(&store, &files_of("bob"), Some(20)).await;
    assert!(grow(&store, &torn, 12, false).await);
    for id in [whole, torn.id] {
        let mut session = store.write().await.unwrap();
        uploads::give_up(&mut session, id, now()).await.unwrap();
        session.commit().await.unwrap();
    }
    assert!(stored(&store, &files_of("ada")).await.is_some());
    assert!(stored(&store, &files_of("bob")).await.is_none());
    assert_eq!(garbage(&store).await, [uploads::prefix(torn.id)]);
    assert_ne!(
        begun(&store, &files_of("bob"), None).await.id,
        torn.id,
        "what is begun anew has blobs of its own"
    );
}

fn sealed() -> SealedSecrets {
    SealedSecrets {
        names: vec!["TOKEN".to_owned()],
        sha256: Sha256::from_bytes([9; 32]),
        sealed: b"sealed".to_vec(),
    }
}

async fn sealed_of(store: &Store, job: JobId) -> Option<Vec<u8>> {
    let mut session = store.read().await.unwrap();
    jobs::sealed_secrets(&mut session, job).await.unwrap()
}

async fn what_was_asked_for_beside_the_command_is_read_back(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    let files = whole_files(&store, "local").await;
    let variables = BTreeMap::from([("A".to_owned(), "ä\n".to_owned())]);
    let job = NewJob {
        files: Some(files),
        environment: Environment::try_from(variables).unwrap(),
        secrets: Some(sealed()),
        stdin: true,
        ..new_job(cluster)
    };
    assert!(store.accept(&job, now()).await.unwrap());
    let read = found(&store, job.id).await;
    assert_eq!(
        (read.files, read.files_upload, read.stdin),
        (Some(files.files), Some(files.upload), true)
    );
    assert_eq!(read.environment, job.environment);
    assert_eq!(
        (read.secret_names.as_slice(), read.secrets_sha256),
        (["TOKEN".to_owned()].as_slice(), Some(sealed().sha256))
    );
    assert_eq!(sealed_of(&store, job.id).await.unwrap(), b"sealed");
    let mut session = store.read().await.unwrap();
    let place = clusters::by_id(&mut session, cluster).await.unwrap();
    let shown = StoredJob::accepted(job, place.unwrap(), now());
    assert_eq!(format!("{shown:#?}"), format!("{read:#?}"));
}

/// Kept for as long as everything of a job that has them; what two jobs share goes with the last of them.
async fn idle_files_are_given_up_when_no_job_needs_them(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    let files = whole_files(&store, "local").await;
    let with_files = || NewJob {
        files: Some(files),
        ..new_job(cluster)
    };
    let give_up = async |idle_since| {
        let given_up = store.give_up_idle_files(idle_since, 10, after(99_999));
        given_up.await.unwrap()
    };
    assert_eq!(give_up(now()).await, 0, "just uploaded");
    let (one, other) = (with_files(), with_files());
    assert!(store.accept(&one, after(100)).await.unwrap());
    assert!(store.accept(&other, after(200)).await.unwrap());
    change(&store, one.id, cancel(), after(300)).await.unwrap();
    assert!(store.expire_output(one.id, after(350)).await.unwrap());
    assert_eq!(give_up(after(9999)).await, 0, "the other job needs them");
    change(&store, other.id, cancel(), after(400))
        .await
        .unwrap();
    assert_eq!(give_up(after(9999)).await, 0, "the other job is kept");
    assert!(store.expire_output(other.id, after(500)).await.unwrap());
    assert_eq!(give_up(after(400)).await, 0, "used until now");
    assert_eq!(give_up(after(401)).await, 1);
    let given_up = [
        job_prefix(one.id),
        job_prefix(other.id),
        uploads::prefix(files.upload),
    ];
    assert_eq!(garbage(&store).await, given_up);
    let over = found(&store, other.id).await;
    assert_eq!(
        (over.files, over.files_upload),
        (Some(files.files), None),
        "what it was is still told"
    );
    let torn = begun(&store, &files_of("bob"), Some(20)).await;
    assert!(grow(&store, &torn, 12, false).await);
    assert_eq!(give_up(after(1)).await, 1, "and what nobody goes on with");
}

async fn a_job_whose_files_are_gone_is_not_accepted(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    let files = whole_files(&store, "local").await;
    assert_eq!(
        store.give_up_idle_files(after(1), 10, now()).await.unwrap(),
        1
    );
    let job = NewJob {
        files: Some(files),
        ..new_job(cluster)
    };
    let refused = store.accept(&job, now()).await;
    assert!(matches!(refused, Err(Error::FilesGone(_))), "{refused:?}");
    let mut session = store.read().await.unwrap();
    assert!(jobs::find(&mut session, job.id).await.unwrap().is_none());
    assert_eq!(store.unsent().await.unwrap(), 0);
}

/// There is never a job that was accepted and has no files.
async fn of_acceptance_and_removal_exactly_one_wins(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    for number in 0..20 {
        let mut files = whole_files(&store, &number.to_string()).await;
        files.files.entries = number;
        let job = NewJob {
            files: Some(files),
            ..new_job(cluster)
        };
        let (accepted, removed) = tokio::join!(
            store.accept(&job, after(100)),
            store.give_up_idle_files(after(50), 10, after(100))
        );
        match accepted {
            Ok(accepted) => {
                assert!(accepted);
                assert_eq!(removed.unwrap(), 0);
                assert_eq!(found(&store, job.id).await.files_upload, Some(files.upload));
            }
            Err(Error::FilesGone(_)) => assert_eq!(removed.unwrap(), 1),
            Err(other) => panic!("{other:?}"),
        }
    }
}

async fn a_job_that_ends_lets_go_of_secrets_and_stdin(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    let job = NewJob {
        secrets: Some(sealed()),
        stdin: true,
        ..new_job(cluster)
    };
    assert!(store.accept(&job, now()).await.unwrap());
    let (stdin, artifacts) = (Key::Stdin(job.id), Key::Artifacts(job.id));
    let upload = begun(&store, &stdin, None).await;
    assert!(grow(&store, &upload, 10, false).await);
    let left = begun(&store, &artifacts, None).await;
    assert!(grow(&store, &left, 10, false).await);
    let pod = pod();
    change(&store, job.id, permit(pod), now()).await.unwrap();
    change(&store, job.id, cancel(), now()).await.unwrap();
    assert!(
        sealed_of(&store, job.id).await.is_some() && stored(&store, &stdin).await.is_some(),
        "it is not over"
    );
    let gone = invoke_protocol::state::Event::GiveUp {
        reason: Reason::new(ReasonCode::NoReport, "silence"),
    };
    change(&store, job.id, gone, after(9)).await.unwrap();
    assert_eq!(sealed_of(&store, job.id).await, None);
    assert_eq!(stored(&store, &stdin).await, None);
    assert_eq!(garbage(&store).await, [uploads::prefix(upload.id)]);
    assert!(stored(&store, &artifacts).await.is_some());
    let over = found(&store, job.id).await;
    assert_eq!(over.secret_names, ["TOKEN"], "which there were is told");
}

/// A gigabyte takes its time, and the command's own time begins after it.
async fn a_job_with_files_has_time_to_fetch_them(database: Database) {
    let store = database.open().await;
    let cluster = cluster(&store, "edge-7").await;
    let files = whole_files(&store, "local").await;
    let (without, with) = (
        new_job(cluster),
        NewJob {
            files: Some(files),
            ..new_job(cluster)
        },
    );
    let mut given_up: Vec<Timestamp> = Vec::new();
    for job in [&without, &with] {
        assert!(store.accept(job, now()).await.unwrap());
        change(&store, job.id, permit(pod()), now()).await.unwrap();
        given_up.push(found(&store, job.id).await.give_up_at.unwrap());
    }
    let more = SignedDuration::from_secs(i64::try_from(FILES_WITHIN_SECONDS).unwrap());
    assert_eq!(given_up[1].duration_since(given_up[0]), more);
}
