//! Help pages: the first thing that people see.

use crate::program::{bare, run, transcript};

fn page(arguments: &[&str]) -> String {
    transcript(&run(bare(arguments)))
}

#[test]
fn the_short_page_fits_a_screen() {
    insta::assert_snapshot!(page(&["-h"]));
}

#[test]
fn the_long_page_explains_settings_and_exit_codes() {
    insta::assert_snapshot!(page(&["--help"]));
}

#[test]
fn every_subcommand_has_a_page_with_an_example() {
    for verb in [
        "result", "logs", "jobs", "why", "cancel", "fanouts", "schedule", "calendar", "clusters",
        "version",
    ] {
        let shown = page(&[verb, "--help"]);
        assert!(
            shown.starts_with("exit: 0\n") && shown.contains("\nExample"),
            "{shown}"
        );
    }
    for (verb, below) in [
        ("clusters", &["add", "label", "token"][..]),
        ("fanouts", &["follow", "resume", "retry-failed", "cancel"]),
        (
            "schedule",
            &[
                "create",
                "list",
                "show",
                "next",
                "history",
                "why",
                "pause",
                "resume",
                "run-now",
                "skip-next",
                "edit",
                "delete",
                "take-over",
                "webhook-key",
                "export",
                "apply",
            ],
        ),
        ("calendar", &["import", "list", "show", "delete"]),
    ] {
        for below in below {
            let shown = page(&[verb, below, "--help"]);
            assert!(
                shown.starts_with("exit: 0\n") && shown.contains("\nExample"),
                "{shown}"
            );
        }
    }
    insta::assert_snapshot!(page(&["jobs", "-h"]));
}

/// What a schedule is made with: every option, with what is meant if it is not there.
#[test]
fn the_page_of_a_new_schedule_has_every_option() {
    insta::assert_snapshot!(page(&["schedule", "create", "--help"]));
}

#[test]
fn the_version_is_on_stdout() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        page(&["--version"]),
        format!("exit: 0\n--- stdout\ninvoke {version}\n")
    );
    assert_eq!(
        page(&["version"]),
        format!("exit: 0\n--- stdout\ninvoke {version}\n")
    );
    let json = run(bare(&["version", "-o", "json"])).stdout;
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&json).unwrap()["version"],
        version
    );
}

/// `invoke $COMMAND` with an empty variable has run nothing, and must not look as if it had.
#[test]
fn nothing_to_do_is_no_success() {
    let shown = page(&[]);
    assert!(shown.starts_with("exit: 240\n--- stderr\n"), "{shown}");
}
