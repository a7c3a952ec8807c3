//! What is sent, and what is refused.

use std::os::unix::net::UnixListener;

use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo, setfsuid};

use super::*;
use crate::exit::Exit;
use crate::failure::Failure;

#[test]
fn files_and_folders_keep_their_paths_and_folders_come_first() {
    let here = Here::with(&["values.yaml", "charts/web/a.yaml", "charts.txt", "x"]);
    assert_eq!(
        here.names(&["values.yaml", "charts/", "charts.txt"]),
        [
            "charts/",
            "charts/web/",
            "charts/web/a.yaml",
            "charts.txt",
            "values.yaml"
        ]
    );
    assert_eq!(here.names(&["charts/web/a.yaml"]).len(), 3);
    assert_eq!(here.names(&["."]).len(), 6);
    assert_eq!(here.names(&["charts/web:."]), ["a.yaml"]);
    assert_eq!(here.names(&["charts/web:c"]), ["c/", "c/a.yaml"]);
    assert_eq!(here.names(&["x:d/", "x:."]), ["d/", "d/x", "x"]);
    assert_eq!(here.names(&["x:d"]), ["d"]);
}

#[test]
fn empty_folders_and_hidden_files_are_sent() {
    let here = Here::with(&["a/empty/", ".hidden", "a/.gitignore"]);
    assert_eq!(
        here.names(&["."]),
        [".hidden", "a/", "a/.gitignore", "a/empty/"]
    );
    assert_eq!(Here::with(&[]).names(&["."]), Vec::<String>::new());
}

/// History is large, and may hold what was deleted for good reasons.
#[test]
fn git_is_left_out_unless_it_is_named() {
    let here = Here::with(&[".git/config", "module/.git", "module/a", ".github/b"]);
    assert_eq!(
        here.names(&["."]),
        [".github/", ".github/b", "module/", "module/a"]
    );
    assert_eq!(here.names(&[".git"]), [".git/", ".git/config"]);
}

#[test]
fn what_lands_elsewhere_is_told() {
    let here = Here::with(&["../up/x", "y"]);
    let plan = here.plan(&["../up", "y"]).unwrap();
    assert_eq!(plan.notices(), ["../up is sent as up"]);
    assert_eq!(here.names(&["../up", "y"]), ["up/", "up/x", "y"]);
}

#[test]
fn invokeignore_has_the_syntax_of_gitignore() {
    let here = Here::with(&[
        "a.log",
        "keep.log",
        "build/x",
        "src/build/x",
        "src/a.log",
        "src/b.tmp",
        "top",
        "src/top",
        "deep/a/b/skip",
    ]);
    here.write(
        ".invokeignore",
        "\u{feff}# comment\n*.log\n!keep.log\r\nbuild/\n/top\ndeep/**/skip\n",
    );
    here.write("src/.invokeignore", "!a.log\n*.tmp\n");
    assert_eq!(
        here.names(&["."]),
        [
            "deep/",
            "deep/a/",
            "deep/a/b/",
            "keep.log",
            "src/",
            "src/a.log",
            "src/top"
        ]
    );
}

/// It counts for a part of the tree as for the whole; what is named is meant.
#[test]
fn invokeignore_counts_below_its_folder_for_what_is_not_named() {
    let here = Here::with(&["a/b/x.log", "a/b/y", "../up/x.log", "a/b/node_modules/m"]);
    here.write(".invokeignore", "*.log\nnode_modules/\n");
    assert_eq!(here.names(&["a/b"]), ["a/", "a/b/", "a/b/y"]);
    assert_eq!(
        here.names(&["a/b/x.log", ".invokeignore"]),
        [".invokeignore", "a/", "a/b/", "a/b/x.log"]
    );
    assert_eq!(here.names(&["a/b/node_modules:m"]), ["m/", "m/m"]);
    assert_eq!(
        here.names(&["../up"]),
        ["up/", "up/x.log"],
        "it is not below"
    );
}

#[test]
fn nobody_elses_ignore_files_count() {
    let here = Here::with(&["a.log", "b", ".git/info/"]);
    for file in [
        ".gitignore",
        ".ignore",
        ".git/info/exclude",
        "../.invokeignore",
    ] {
        here.write(file, "*.log\n");
    }
    assert_eq!(here.names(&["."]), [".gitignore", ".ignore", "a.log", "b"]);
}

/// A pattern that was not understood may be the one that keeps a key at home.
#[test]
fn a_wrong_invokeignore_is_an_error() {
    let here = Here::with(&["a"]);
    here.write(".invokeignore", "a\n{b\n");
    let error = here.refusal(&["."]);
    assert!(error.starts_with(".invokeignore, line 2: "), "{error}");
    here.write(".invokeignore", b"\xff\n");
    assert_eq!(here.refusal(&["."]), ".invokeignore cannot be read");
    fs::remove_file(here.at(".invokeignore")).unwrap();
    here.link(".invokeignore", "missing");
    assert_eq!(here.refusal(&["."]), ".invokeignore cannot be read");
}

#[test]
fn a_link_inside_of_its_folder_stays_a_link() {
    let here = Here::with(&["a/x", "a/b/"]);
    here.link("a/b/link", "../x");
    here.link("a/folder", "b");
    here.link("a/dangling", "nothing");
    let packed = here.plan(&["a"]).unwrap().pack(|_| {}).unwrap();
    let links: Vec<_> = unpack(&packed)
        .into_iter()
        .filter_map(|entry| Some((entry.name, entry.kind, entry.target?)))
        .collect();
    let link = |name: &str, target: &str| {
        (
            name.to_owned(),
            tar::EntryType::Symlink,
            PathBuf::from(target),
        )
    };
    assert_eq!(
        links,
        [
            link("a/b/link", "../x"),
            link("a/dangling", "nothing"),
            link("a/folder", "b")
        ],
        "and folders behind links are not walked"
    );
}

#[test]
fn a_link_out_of_its_folder_is_refused_by_name() {
    for target in ["../x", "/etc/passwd", "b/../../x"] {
        let here = Here::with(&["a/b/", "x"]);
        here.link("a/link", target);
        let expected = format!(
            "a/link is a symbolic link to {target}, which leads out of the folder that is sent"
        );
        assert_eq!(here.refusal(&["a"]), expected);
        assert_eq!(here.refusal(&["a:renamed"]), expected);
        here.write(".invokeignore", "link");
        assert_eq!(here.names(&["a"]), ["a/", "a/b/"], "as the hint says");
    }
}

#[test]
fn a_link_between_two_attached_folders_needs_both_in_one() {
    let here = Here::with(&["a/x", "b/"]);
    here.link("b/link", "../a/x");
    assert!(here.plan(&["a", "b"]).is_err());
    assert_eq!(here.names(&["."]).len(), 4);
    assert_eq!(here.names(&["b", "."]).len(), 4, "it is at home in `.`");
    assert_eq!(here.names(&[".", "b"]).len(), 4);
}

/// As `cp` and `tar` do with what stands on their command line and `-H`.
#[test]
fn a_named_link_stands_for_what_it_points_to() {
    let here = Here::with(&["../outside/x", "../file"]);
    here.link("folder", "../outside");
    here.link("file", "../file");
    here.link("dangling", "nothing");
    assert_eq!(
        here.names(&["folder", "file"]),
        ["file", "folder/", "folder/x"]
    );
    assert_eq!(
        here.refusal(&["dangling"]),
        "-f names dangling, a symbolic link to nothing, which does not exist"
    );
}

#[test]
fn what_is_neither_file_nor_folder_is_refused_by_name() {
    let here = Here::with(&["a/x"]);
    mkfifo(&here.at("a/pipe"), Mode::S_IRWXU).unwrap();
    assert_eq!(
        here.refusal(&["."]),
        "a/pipe is a named pipe, which cannot be sent"
    );
    fs::remove_file(here.at("a/pipe")).unwrap();
    let _socket = UnixListener::bind(here.at("a/socket")).unwrap();
    assert_eq!(
        here.refusal(&["a"]),
        "a/socket is a socket, which cannot be sent"
    );
    assert_eq!(
        here.refusal(&["/dev/null"]),
        "/dev/null is a device, which cannot be sent"
    );
    here.write(".invokeignore", "socket");
    assert_eq!(here.names(&["a"]), ["a/", "a/x"]);
}

#[test]
fn two_files_for_one_path_are_refused_by_both_names() {
    let here = Here::with(&["a/x", "b/x", "x"]);
    assert_eq!(
        here.refusal(&["a:c", "b:c"]),
        "a/x and b/x would both be c/x in the work folder"
    );
    assert_eq!(
        here.refusal(&["x", "b/x:x"]),
        "x and b/x would both be x in the work folder"
    );
    here.link("a/link", "x");
    here.write("b/link", "");
    fs::remove_file(here.at("b/x")).unwrap();
    assert_eq!(
        here.refusal(&["a:c", "b:c"]),
        "a/link and b/link would both be c/link in the work folder"
    );
    fs::remove_file(here.at("b/link")).unwrap();
    here.link("b/link", "y");
    assert_eq!(
        here.refusal(&["a:c", "b:c"]),
        "a/link and b/link would both be c/link in the work folder"
    );
}

#[test]
fn one_file_named_twice_is_one_file() {
    let here = Here::with(&["a/x", "a/y"]);
    here.link("a/link", "x");
    assert_eq!(here.names(&["a/x", ".", "a", "./a/x"]).len(), 4);
    let plan = here.plan(&["a/x", "a"]).unwrap();
    assert_eq!(plan.content_bytes(), 6, "and counts once");
}

#[test]
fn folders_merge_and_a_named_one_decides_the_mode() {
    let here = Here::with(&["a/x", "b/y", "b/z/"]);
    here.set_mode("a", 0o750);
    here.set_mode("b", 0o711);
    let mode = |values: &[&str]| {
        let packed = here.plan(values).unwrap().pack(|_| {}).unwrap();
        let entries = unpack(&packed);
        (entries[0].mode, entries.len())
    };
    assert_eq!(mode(&["a:c", "b:c"]), (0o750, 4));
    assert_eq!(mode(&["b:c", "a:c"]), (0o711, 4));
    assert_eq!(
        mode(&["b/y:c/w", "a:c"]),
        (0o750, 3),
        "around w is nobody's"
    );
    assert_eq!(mode(&["b/y:c/w"]), (0o755, 2));
}

#[test]
fn a_file_where_a_folder_must_be_is_refused_by_both_names() {
    let here = Here::with(&["file", "folder/y", "z"]);
    for (values, folder) in [
        (["file:c", "folder:c"], "folder"),
        (["folder:c", "file:c"], "folder"),
        (["file:c", "z:c/z"], "z"),
        (["z:c/z", "file:c"], "z"),
        (["file:c", "folder:c/deeper"], "folder"),
    ] {
        let expected =
            format!("file would be a file at c in the work folder, where {folder} needs a folder");
        assert_eq!(here.refusal(&values), expected, "{values:?}");
    }
}

/// What is below a link would be written to where it points.
#[test]
fn nothing_is_sent_to_below_a_link() {
    let here = Here::with(&["a/x", "y"]);
    here.link("a/link", ".");
    assert_eq!(
        here.refusal(&["a", "y:a/link/y"]),
        "a/link would be a file at a/link in the work folder, where y needs a folder"
    );
}

/// What a user without special rights can do. The file system's user is each thread's own.
fn as_nobody<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let nobody = Uid::from_raw(65534);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setfsuid(nobody);
            act()
        });
        thread.join().unwrap()
    })
}

#[test]
fn what_cannot_be_read_is_refused_by_name_before_anything_is_read() {
    let here = Here::with(&["a/b/x", "a/b/y"]);
    fs::set_permissions(here.outside.path(), Permissions::from_mode(0o755)).unwrap();
    let refusal = || {
        let failure: Failure = as_nobody(|| here.plan(&["a"])).unwrap_err().into();
        assert_eq!(failure.exit, Exit::BAD_INPUT);
        failure.message.unwrap()
    };
    here.set_mode("a/b/y", 0);
    assert_eq!(
        refusal(),
        "a/b/y cannot be read: Permission denied (os error 13)"
    );
    here.set_mode("a/b", 0);
    assert_eq!(
        refusal(),
        "a/b cannot be read: Permission denied (os error 13)"
    );
    here.write("a/.invokeignore", "b");
    assert!(as_nobody(|| here.plan(&["a"])).is_ok(), "as the hint says");
    here.set_mode("a/b", 0o700);
}

#[test]
fn too_much_says_how_much_and_of_what() {
    let here = Here::with(&["a/", "b"]);
    for (name, megabytes) in [("a/x", 5), ("a/y", 3), ("z", 1), ("w", 0)] {
        let file = fs::File::create(here.at(name)).unwrap();
        file.set_len(megabytes << 20).unwrap();
    }
    let limits = Limits {
        content_bytes: 9 << 20,
        ..Limits::default()
    };
    let failure: Failure = here.plan_within(&limits, &["."]).unwrap_err().into();
    assert_eq!(
        failure.message.unwrap(),
        "the files come to 9 MiB (9,437,185 bytes); this dispatcher takes at most 9 MiB (9,437,184 bytes)"
    );
    assert_eq!(
        failure.hint.unwrap(),
        "name in .invokeignore what the command does not need; the largest: a/x (5 MiB), a/y (3 MiB), \
         z (1 MiB)"
    );
    fs::remove_file(here.at("b")).unwrap();
    assert!(
        here.plan_within(&limits, &["."]).is_ok(),
        "exactly the limit"
    );
}

#[test]
fn too_many_say_how_many_and_where() {
    let here = Here::with(&["a/1", "a/2", "b/1", "c"]);
    let within = |entries| {
        let limits = Limits {
            entries,
            ..Limits::default()
        };
        here.plan_within(&limits, &["."])
    };
    assert!(within(6).is_ok(), "exactly the limit");
    let failure: Failure = within(5).unwrap_err().into();
    assert_eq!(
        failure.message.unwrap(),
        "the files come to 6 files, folders and links; this dispatcher takes at most 5"
    );
    assert_eq!(
        failure.hint.unwrap(),
        "name in .invokeignore what the command does not need; most are in: a (3), b (2), c (1)"
    );
}

/// A whole disk by mistake takes neither for ever nor all memory.
#[test]
fn counting_ends() {
    let paths: Vec<_> = (0..30).map(|number| format!("a/{number}")).collect();
    let paths: Vec<_> = paths.iter().map(String::as_str).collect();
    let here = Here::with(&paths);
    let limits = Limits {
        entries: 2,
        ..Limits::default()
    };
    assert_eq!(
        here.plan_within(&limits, &["."]).unwrap_err().to_string(),
        "the files come to more than 21 files, folders and links; this dispatcher takes at most 2"
    );
}
