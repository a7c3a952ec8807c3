//! `logs`: which lines, of which stream, with which times.

use std::fmt::Write as _;

use crate::fixtures::{ID, Printed, ended, route, whole_stream};
use crate::program::{Bed, run};
use crate::stub::Answer;

fn bed(printed: &Printed) -> Bed {
    let bed = Bed::new();
    let job = ended(0, printed);
    bed.stub
        .on(&route("GET", ""), vec![Answer::json(200, &job)]);
    bed.stub
        .with_log(printed.log())
        .on(&route("GET", "/output"), vec![Answer::log()])
        .on(
            &route("GET", "/events"),
            vec![Answer::events(whole_stream(0, printed))],
        );
    bed
}

fn mixed() -> Printed {
    Printed::nothing()
        .out("one\ntwo\n")
        .err("careful\n")
        .out("three\n")
        .err("done\n")
}

#[test]
fn one_stream_alone() {
    let bed = bed(&mixed());
    for (flag, shown) in [
        ("--stdout", "exit: 0\n--- stdout\none\ntwo\nthree\n"),
        ("--stderr", "exit: 0\n--- stderr\ncareful\ndone\n"),
    ] {
        assert_eq!(bed.transcript(&["logs", flag, ID]), shown);
        assert_eq!(bed.transcript(&["logs", "-f", flag, ID]), shown);
    }
}

#[test]
fn from_a_line_on_and_the_last_lines() {
    let bed = bed(&mixed());
    for (flags, shown) in [
        (
            ["--since-line", "4"],
            "exit: 0\n--- stdout\nthree\n--- stderr\ndone\n",
        ),
        (["--since-line", "9"], "exit: 0\n"),
        (
            ["--tail", "2"],
            "exit: 0\n--- stdout\nthree\n--- stderr\ndone\n",
        ),
        (["--tail", "0"], "exit: 0\n"),
    ] {
        let line = [&["logs"], flags.as_slice(), &[ID]].concat();
        assert_eq!(bed.transcript(&line), shown, "{flags:?}");
    }
    assert_eq!(
        bed.transcript(&["logs", "--tail", "1", "--stdout", "-f", ID]),
        "exit: 0\n--- stdout\nthree\n"
    );
    let all = bed.transcript(&["logs", "--tail", "99", ID]);
    assert_eq!(all, bed.transcript(&["logs", ID]));
}

/// Of a log of megabytes the last line costs no more than a look at its end, and what is shown begins where
/// a line does.
#[test]
fn the_last_lines_are_found_from_the_end() {
    let (mut printed, mut text) = (Printed::nothing(), String::new());
    for number in 0..4000 {
        text.clear();
        writeln!(text, "{number:0200}").unwrap();
        let (begin, end) = text.split_at(100);
        printed = printed.out(begin).out(end);
    }
    let bed = bed(&printed);
    let shown = run(bed.invoke(&["logs", "--tail", "100", ID])).stdout;
    let lines: Vec<_> = std::str::from_utf8(&shown).unwrap().lines().collect();
    assert_eq!(lines.len(), 100);
    assert_eq!(lines[0], format!("{:0200}", 3900));
    assert_eq!(lines[99], format!("{:0200}", 3999));
    let asked = bed.stub.seen(&route("GET", "/output"));
    assert!(asked.iter().all(|seen| seen.query != "from=0"));
}

#[test]
fn times_are_told_before_each_line() {
    let bed = bed(&mixed());
    assert_eq!(
        bed.transcript(&["logs", "--timestamps", "--stderr", ID]),
        "exit: 0\n--- stderr\n1970-01-01T00:00:00.000000Z careful\n1970-01-01T00:00:00.000000Z done\n"
    );
}

#[test]
fn what_excludes_each_other_is_refused() {
    let bed = bed(&mixed());
    for line in [
        ["logs", "--tail", "1", "--since-line", "1", ID].as_slice(),
        &["logs", "--stdout", "--stderr", ID],
        &["logs", "--since-line", "0", ID],
        &["logs", "--tail", "-1", ID],
    ] {
        assert!(bed.transcript(line).starts_with("exit: 240\n"), "{line:?}");
    }
}
