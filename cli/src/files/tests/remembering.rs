//! The second time.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use super::*;

fn cache() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("new/archives.json"));
    (folder, cache)
}

fn file_of(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("new/archives.json")
}

#[test]
fn the_archive_of_the_same_files_is_found_again() {
    let here = Here::with(&["a/x", "y"]);
    let (_folder, cache) = cache();
    let plan = here.plan(&["."]).unwrap();
    assert_eq!(cache.find(&plan.fingerprint()), None);
    let packed = plan.pack(|_| {}).unwrap();
    cache.remember(&plan, &packed);
    let again = here.plan(&["."]).unwrap().fingerprint();
    let known = Known {
        sha256: packed.sha256,
        bytes: packed.bytes,
    };
    assert_eq!(cache.find(&again), Some(known));
}

/// Whatever changes the archive changes the fingerprint, and whatever may have changed a file does too.
#[test]
fn every_change_has_another_fingerprint() {
    let here = Here::with(&["a/x", "y", "a/empty/"]);
    here.link("link", "y");
    let fingerprint = || here.plan(&["."]).unwrap().fingerprint();
    let mut known = vec![fingerprint()];
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let changes: [(&str, &dyn Fn()); 9] = [
        ("size", &|| here.write("y", "longer")),
        ("modification time", &|| {
            let file = fs::File::options().write(true).open(here.at("y"));
            file.unwrap().set_modified(old).unwrap();
        }),
        ("file mode", &|| here.set_mode("y", 0o700)),
        ("folder mode", &|| here.set_mode("a/empty", 0o700)),
        ("name", &|| {
            fs::rename(here.at("a/x"), here.at("a/z")).unwrap();
        }),
        ("kind", &|| {
            fs::remove_dir(here.at("a/empty")).unwrap();
            here.write("a/empty", "");
        }),
        ("target", &|| {
            fs::remove_file(here.at("link")).unwrap();
            here.link("link", "a");
        }),
        ("inode", &|| {
            fs::copy(here.at("y"), here.at("copy")).unwrap();
            fs::rename(here.at("copy"), here.at("y")).unwrap();
        }),
        ("one less", &|| fs::remove_file(here.at("a/z")).unwrap()),
    ];
    for (what, change) in changes {
        change();
        let next = fingerprint();
        assert!(!known.contains(&next), "{what}");
        known.push(next);
    }
}

/// A program can set the modification time back, but not the change time.
#[test]
fn a_change_that_hides_itself_has_another_fingerprint() {
    let here = Here::with(&["y"]);
    let before = here.plan(&["."]).unwrap().fingerprint();
    let metadata = fs::metadata(here.at("y")).unwrap();
    loop {
        here.write("y", "z");
        let file = fs::File::options().write(true).open(here.at("y")).unwrap();
        file.set_modified(metadata.modified().unwrap()).unwrap();
        let now = fs::metadata(here.at("y")).unwrap();
        if (now.ctime(), now.ctime_nsec()) != (metadata.ctime(), metadata.ctime_nsec()) {
            break;
        }
    }
    assert_ne!(here.plan(&["."]).unwrap().fingerprint(), before);
}

#[test]
fn the_destination_is_part_of_the_fingerprint() {
    let here = Here::with(&["y"]);
    let of = |value| here.plan(&[value]).unwrap().fingerprint();
    assert_eq!(of("y"), of("."));
    assert_ne!(of("y"), of("y:z"));
    assert_ne!(of("y"), of("y:y/y"));
}

/// Two changes in one tick of the clock look like one, and the modification time tells what somebody wants.
#[test]
fn what_was_changed_just_now_is_not_remembered() {
    let here = Here::with(&["young"]);
    let file = fs::File::open(here.at("young")).unwrap();
    // As tools that unpack do; the change time stays young.
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let metadata = fs::metadata(here.at("young")).unwrap();
    let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
    for (after, is_remembered) in [(0, false), (1_999_999_999, false), (2_000_000_000, true)] {
        let now = Timestamp::from_nanosecond(changed + after).unwrap();
        let plan = Plan::make(&["young".into()], &here.folder(), &Limits::default(), now).unwrap();
        let (_folder, cache) = cache();
        cache.remember(&plan, &plan.pack(|_| {}).unwrap());
        let found = cache.find(&plan.fingerprint());
        assert_eq!(found.is_some(), is_remembered, "{after} ns later");
    }
}

#[test]
fn a_broken_file_is_replaced() {
    let here = Here::with(&["y"]);
    let plan = here.plan(&["."]).unwrap();
    let packed = plan.pack(|_| {}).unwrap();
    let (folder, cache) = cache();
    let bogus = format!(
        r#"{{"archives":[{{"fingerprint":"{}","archive":{{"sha256":"../x","bytes":1}}}}]}}"#,
        plan.fingerprint()
    );
    fs::create_dir(folder.path().join("new")).unwrap();
    for broken in ["", "{", "[]", r#"{"archives":[{}]}"#, &bogus, "\u{0}"] {
        fs::write(file_of(&folder), broken).unwrap();
        assert_eq!(cache.find(&plan.fingerprint()), None, "{broken}");
        cache.remember(&plan, &packed);
        assert!(cache.find(&plan.fingerprint()).is_some(), "{broken}");
    }
    let left: Vec<_> = fs::read_dir(folder.path().join("new")).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary files are left");
}

#[test]
fn a_cache_that_cannot_be_written_is_none() {
    let here = Here::with(&["y"]);
    let plan = here.plan(&["."]).unwrap();
    let packed = plan.pack(|_| {}).unwrap();
    let cache = Cache::at(here.at("y/archives.json"));
    cache.remember(&plan, &packed);
    assert_eq!(cache.find(&plan.fingerprint()), None);
}

#[test]
fn only_the_newest_are_remembered() {
    let here = Here::with(&["y"]);
    let (_folder, cache) = cache();
    let packed = here.plan(&["y"]).unwrap().pack(|_| {}).unwrap();
    let plans: Vec<_> = (0..102)
        .map(|number| here.plan(&[&format!("y:{number}")]).unwrap())
        .collect();
    cache.remember(&plans[0], &packed);
    cache.remember(&plans[1], &packed);
    cache.remember(&plans[0], &packed);
    for plan in &plans[2..] {
        cache.remember(plan, &packed);
    }
    let is_known = |number: usize| cache.find(&plans[number].fingerprint()).is_some();
    assert!(!is_known(1), "the oldest");
    assert!(!is_known(0), "the second, though it came again");
    assert!((2..102).all(is_known));
}
