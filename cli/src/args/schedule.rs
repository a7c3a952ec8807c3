//! `invoke schedule …`

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Subcommand, ValueEnum};
use invoke_protocol::id::{CalendarName, ScheduleName};
use invoke_protocol::schedule::{CatchUp, MAX_CAUGHT_UP, MAX_RETRIES, NotifyOn, Overlap, RetryOn};
use invoke_protocol::timing::{AtWindowEnd, Offset, TimeZoneName};

use super::run::{JobArgs, ManyArgs};
use super::whole_seconds;

const TIMES: &str = "When it runs";
const TROUBLE: &str = "What else may happen";
const TOLD: &str = "Who is told";

const CREATE_EXAMPLES: &str = "\
Examples:
  invoke schedule create vacuum -c prod-eu --cron \"30 2 * * *\" --tz Europe/Berlin \"helm test db\"
  invoke schedule create patch -l env=prod --cron \"0 3 * * TUE#2\" --offset 4d --window 2h \\
    --cutoff 30m --jitter 10m --canary edge-1 --max-failures 2 -f patch.sh \"./patch.sh\"
  invoke schedule create report -c prod-eu --every 6h --retry 2 \\
    --retry-on never-started,exit=75 \"./report.sh\"
  invoke schedule create move -c prod-eu --at 2026-11-22T02:30 --tz Europe/Berlin \"./move.sh\"";

/// What to do with schedules.
#[derive(Debug, Subcommand)]
pub enum ScheduleVerb {
    /// Run a command at times of its own
    #[command(
        override_usage = "invoke schedule create NAME [OPTIONS] \"SHELL LINE\"\n       invoke schedule create NAME [OPTIONS] -- PROGRAM [ARGUMENT]...",
        after_help = CREATE_EXAMPLES
    )]
    Create(Box<CreateArgs>),
    /// List schedules
    #[command(after_help = "Example:\n  invoke schedule list")]
    List,
    /// Show a schedule
    #[command(after_help = "Example:\n  invoke schedule show vacuum")]
    Show {
        /// The schedule
        name: ScheduleName,
    },
    /// Show when it runs next, and what will come in between
    #[command(after_help = "Example:\n  invoke schedule next vacuum -n 20")]
    Next {
        /// How many times
        #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10,
              value_parser = clap::value_parser!(u32).range(1..=100))]
        limit: u32,
        /// The schedule
        name: ScheduleName,
    },
    /// Show what became of its times: the ledger, the newest first
    #[command(after_help = "Example:\n  invoke schedule history vacuum -n 20")]
    History {
        /// How many times
        #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50,
              value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// The schedule; one that was deleted still has its ledger
        name: ScheduleName,
    },
    /// Say why it did, or did not, run at a time
    #[command(
        after_help = "Examples:\n  invoke schedule why vacuum tuesday            the last one\n  invoke schedule why vacuum 2026-11-17         all of that day\n  invoke schedule why vacuum 2026-11-17T02:30   that time"
    )]
    Why {
        /// The schedule; one that was deleted still has its ledger
        name: ScheduleName,
        /// A day or a time, in the schedule's zone: today, yesterday, tuesday, 2026-11-17, 2026-11-17T02:30, or RFC 3339
        #[arg(value_name = "TIME")]
        when: String,
    },
    /// Skip its times from now on, until it is resumed
    #[command(
        after_help = "Example:\n  invoke schedule pause vacuum --reason \"the disk is being replaced\""
    )]
    Pause {
        /// Why: for whoever wonders
        #[arg(
            long,
            value_name = "WORDS",
            default_value = "",
            hide_default_value = true
        )]
        reason: String,
        /// The schedule
        name: ScheduleName,
    },
    /// Run it again at its times
    #[command(after_help = "Example:\n  invoke schedule resume vacuum")]
    Resume {
        /// The schedule
        name: ScheduleName,
    },
    /// Run it now, besides its times, and print the job's id
    #[command(after_help = "Example:\n  invoke schedule run-now vacuum --wait")]
    RunNow {
        /// Follow the job to its end, and exit with its code
        #[arg(long)]
        wait: bool,
        /// The schedule
        name: ScheduleName,
    },
    /// Skip its next time, and no more
    #[command(after_help = "Example:\n  invoke schedule skip-next vacuum")]
    SkipNext {
        /// The schedule
        name: ScheduleName,
    },
    /// Change it: what is given replaces what it had, all else stays
    #[command(
        override_usage = "invoke schedule edit NAME [OPTIONS] [\"SHELL LINE\"]\n       invoke schedule edit NAME [OPTIONS] -- PROGRAM [ARGUMENT]...",
        after_help = "Examples:\n  invoke schedule edit vacuum --cron \"0 4 * * *\"\n  invoke schedule edit vacuum \"helm test db --timeout 10m\"\n\nWhat no option takes away, `export`, an editor and `apply` do."
    )]
    Edit(Box<EditArgs>),
    /// Delete it; its ledger stays
    #[command(after_help = "Example:\n  invoke schedule delete vacuum")]
    Delete {
        /// The schedule
        name: ScheduleName,
    },
    /// Become its owner: it runs with your rights from then on
    #[command(after_help = "Example:\n  invoke schedule take-over vacuum")]
    TakeOver {
        /// The schedule
        name: ScheduleName,
    },
    /// Print the key that its webhooks are signed with
    #[command(after_help = "Example:\n  invoke schedule webhook-key vacuum > key")]
    WebhookKey {
        /// The schedule
        name: ScheduleName,
    },
    /// Print schedules as YAML that `apply` reads, without their secrets
    #[command(
        after_help = "Examples:\n  invoke schedule export > schedules.yaml           all of them\n  invoke schedule export vacuum patch > two.yaml\n\nFiles are named by their digest: they are kept where they were uploaded, for who uploaded them."
    )]
    Export {
        /// Which; all of them if silent
        names: Vec<ScheduleName>,
    },
    /// Make or change schedules as YAML says; none if any of it cannot be read
    #[command(
        after_help = "Examples:\n  invoke schedule apply -f schedules.yaml\n  invoke schedule export vacuum | sed 's/30 2/0 4/' | invoke schedule apply -f -\n\nSecrets stay as they are; schedules that the file does not name stay, too."
    )]
    Apply {
        /// The file; - is this program's stdin
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
}

/// A schedule that is to be.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// What to call it: a-z, 0-9 and -
    pub name: ScheduleName,

    /// A line for the pod's shell, in quotes
    #[arg(value_name = "SHELL LINE", hide = true)]
    pub words: Vec<OsString>,

    /// A program and its arguments, with no shell between
    #[arg(value_name = "PROGRAM", last = true, hide = true)]
    pub argv: Vec<OsString>,

    /// When.
    #[command(flatten)]
    pub when: WhenArgs,

    /// All else.
    #[command(flatten)]
    pub options: ScheduleArgs,
}

/// What is to become of a schedule.
#[derive(Debug, clap::Args)]
pub struct EditArgs {
    /// The schedule
    pub name: ScheduleName,

    /// A line for the pod's shell, in quotes
    #[arg(value_name = "SHELL LINE", hide = true)]
    pub words: Vec<OsString>,

    /// A program and its arguments, with no shell between
    #[arg(value_name = "PROGRAM", last = true, hide = true)]
    pub argv: Vec<OsString>,

    /// When.
    #[command(flatten)]
    pub when: WhenArgs,

    /// All else.
    #[command(flatten)]
    pub options: ScheduleArgs,
}

/// What makes its times: one of these.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[group(multiple = false)]
pub struct WhenArgs {
    /// Run when a clock on the wall says so: minute, hour, day of month, month, day of week
    ///
    /// With L (the last), W (the nearest working day) and # (the first to fifth of a month), or @daily and the
    /// like. A time that the clock leaves out in spring comes right after; one that it has twice in autumn, once.
    #[arg(long, value_name = "EXPRESSION", help_heading = TIMES)]
    pub cron: Option<String>,

    /// Run each time when so long has passed, whatever the clock on the wall does
    #[arg(long, value_name = "TIME", value_parser = whole_seconds, help_heading = TIMES)]
    pub every: Option<u64>,

    /// Run once: RFC 3339, or a time on the wall in --tz
    #[arg(long, value_name = "TIME", help_heading = TIMES)]
    pub at: Option<String>,
}

/// What a schedule has besides its command and its times. None of it must be given.
#[derive(Debug, clap::Args)]
pub struct ScheduleArgs {
    /// What moves and limits its times.
    #[command(flatten)]
    pub timing: TimingArgs,
    /// What to do about trouble.
    #[command(flatten)]
    pub trouble: TroubleArgs,
    /// Who is told of it.
    #[command(flatten)]
    pub notify: NotifyArgs,
    /// What each run gets.
    #[command(flatten)]
    pub job: JobArgs,
    /// Over many clusters.
    #[command(flatten)]
    pub many: ManyArgs,
}

/// What moves and limits the times of a schedule.
#[derive(Debug, Clone, clap::Args)]
pub struct TimingArgs {
    /// The zone of all times on the wall, as in Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", help_heading = TIMES)]
    pub tz: Option<TimeZoneName>,

    /// Move each time by days and hours, as in 4d, 1d 12h or -30m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = TIMES)]
    pub offset: Option<Offset>,

    /// Run only within so long after each time
    #[arg(long, value_name = "TIME", value_parser = whole_seconds, help_heading = TIMES)]
    pub window: Option<u64>,

    /// Start nothing so shortly before the end of the window
    #[arg(long, value_name = "TIME", value_parser = whole_seconds, help_heading = TIMES)]
    pub cutoff: Option<u64>,

    /// What to do with a command that still runs at the end of the window [default: finish]
    #[arg(long, value_name = "cancel|finish", hide_possible_values = true, help_heading = TIMES)]
    pub at_window_end: Option<WindowEnd>,

    /// Start up to so much later, at random, so that not everything starts at once
    #[arg(long, value_name = "TIME", value_parser = whole_seconds, help_heading = TIMES)]
    pub jitter: Option<u64>,

    /// Run only during the events of this calendar; may be repeated
    #[arg(long = "calendar", value_name = "NAME", help_heading = TIMES)]
    pub calendars: Vec<CalendarName>,

    /// Run also during the events of this calendar, which close it else; may be repeated
    #[arg(long = "ignore-calendar", value_name = "NAME", help_heading = TIMES)]
    pub ignored_calendars: Vec<CalendarName>,
}

/// What to do about trouble.
#[derive(Debug, Clone, clap::Args)]
pub struct TroubleArgs {
    /// What to do while the run before goes on [default: skip]
    #[arg(
        long,
        value_name = "skip|queue-one|cancel-running|allow",
        hide_possible_values = true,
        help_heading = TROUBLE
    )]
    pub overlap: Option<AtOverlap>,

    /// Which times to make up for that nobody was there for [default: none]
    #[arg(long, value_name = "none|last|all=COUNT", value_parser = catch_up, help_heading = TROUBLE)]
    pub catch_up: Option<CatchUp>,

    /// Pause it when so many runs in a row have failed [default: go on]
    #[arg(long, value_name = "pause-after=COUNT", value_parser = on_failure, help_heading = TROUBLE)]
    pub on_failure: Option<NonZeroU32>,

    /// Run again what has failed, so many times at most
    #[arg(long, value_name = "COUNT", value_parser = retries, help_heading = TROUBLE)]
    pub retry: Option<NonZeroU32>,

    /// After which failures, with commas between [default: never-started]
    #[arg(long, value_name = "never-started|exit=CODE", value_delimiter = ',', value_parser = retry_on, help_heading = TROUBLE)]
    pub retry_on: Vec<RetryOn>,
}

/// Who is told of what.
#[derive(Debug, Clone, clap::Args)]
pub struct NotifyArgs {
    /// Tell this address, with a signed POST; may be repeated
    #[arg(long = "notify-webhook", value_name = "URL", help_heading = TOLD)]
    pub webhooks: Vec<String>,

    /// Tell by a shell line in the cluster, with the profile's rights; may be repeated
    #[arg(long = "notify-command", value_name = "SHELL LINE", help_heading = TOLD)]
    pub commands: Vec<String>,

    /// Of what, with commas between [default: of all]
    #[arg(
        long = "notify-on",
        value_name = "failed|missed|long-running|recovered",
        value_delimiter = ',',
        hide_possible_values = true,
        help_heading = TOLD
    )]
    pub on: Vec<Occasion>,

    /// What is a long run
    #[arg(long, value_name = "TIME", value_parser = whole_seconds, help_heading = TOLD)]
    pub long_running: Option<u64>,
}

/// What to do with a command that still runs at the end of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WindowEnd {
    /// Cancel it
    Cancel,
    /// Let it finish
    Finish,
}

impl From<WindowEnd> for AtWindowEnd {
    fn from(end: WindowEnd) -> Self {
        match end {
            WindowEnd::Cancel => Self::Cancel,
            WindowEnd::Finish => Self::Finish,
        }
    }
}

/// What to do while the run before goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AtOverlap {
    /// Skip it
    Skip,
    /// Run it after that
    QueueOne,
    /// Cancel that
    CancelRunning,
    /// Run both
    Allow,
}

impl From<AtOverlap> for Overlap {
    fn from(overlap: AtOverlap) -> Self {
        match overlap {
            AtOverlap::Skip => Self::Skip,
            AtOverlap::QueueOne => Self::QueueOne,
            AtOverlap::CancelRunning => Self::CancelRunning,
            AtOverlap::Allow => Self::Allow,
        }
    }
}

/// Of what somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Occasion {
    /// A run failed
    Failed,
    /// A time was missed
    Missed,
    /// A run goes on for long
    LongRunning,
    /// A run ended well after one that did not
    Recovered,
}

impl From<Occasion> for NotifyOn {
    fn from(occasion: Occasion) -> Self {
        match occasion {
            Occasion::Failed => Self::Failed,
            Occasion::Missed => Self::Missed,
            Occasion::LongRunning => Self::LongRunning,
            Occasion::Recovered => Self::Recovered,
        }
    }
}

fn catch_up(text: &str) -> Result<CatchUp, String> {
    match text.split_once('=') {
        None if text == "none" => Ok(CatchUp::None),
        None if text == "last" => Ok(CatchUp::Last),
        Some(("all", number)) => {
            count(number, MAX_CAUGHT_UP).map(|number| CatchUp::All(number.get()))
        }
        None if text == "all" => Err(format!(
            "say how many at most: all=10, up to all={MAX_CAUGHT_UP}"
        )),
        _ => Err("write none, last or all=COUNT".to_owned()),
    }
}

fn on_failure(text: &str) -> Result<NonZeroU32, String> {
    match text.strip_prefix("pause-after") {
        Some(number) => match number.strip_prefix('=') {
            Some(number) => count(number, u32::MAX),
            None => Err("write it with its number, as one word: pause-after=3".to_owned()),
        },
        None => Err("write pause-after=COUNT".to_owned()),
    }
}

fn retries(text: &str) -> Result<NonZeroU32, String> {
    count(text, MAX_RETRIES)
}

fn retry_on(text: &str) -> Result<RetryOn, String> {
    match text.split_once('=') {
        None if text == "never-started" => Ok(RetryOn::NeverStarted),
        Some(("exit", code)) => match u8::from_str(code) {
            Ok(0) => Err("a command that exits with 0 has not failed".to_owned()),
            Ok(code) => Ok(RetryOn::Exit(code)),
            Err(_) => Err(format!(
                "{code:?} is no exit code: write exit=1 to exit=255"
            )),
        },
        _ => Err("write never-started, or exit=CODE".to_owned()),
    }
}

fn count(text: &str, most: u32) -> Result<NonZeroU32, String> {
    match NonZeroU32::from_str(text) {
        Ok(count) if count.get() <= most => Ok(count),
        _ if most == u32::MAX => Err(format!("{text:?} is no number from 1 on")),
        _ => Err(format!("{text:?} is no number from 1 to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_one_word_each() {
        let three = NonZeroU32::new(3).unwrap();
        assert_eq!(catch_up("none"), Ok(CatchUp::None));
        assert_eq!(catch_up("all=3"), Ok(CatchUp::All(3)));
        assert_eq!(on_failure("pause-after=3"), Ok(three));
        assert_eq!(retry_on("never-started"), Ok(RetryOn::NeverStarted));
        assert_eq!(retry_on("exit=75"), Ok(RetryOn::Exit(75)));
        let refused = [
            catch_up("all").unwrap_err(),
            catch_up("all=0").unwrap_err(),
            catch_up("all=101").unwrap_err(),
            catch_up("always").unwrap_err(),
            on_failure("pause-after").unwrap_err(),
            on_failure("pause-after=0").unwrap_err(),
            on_failure("stop").unwrap_err(),
            retries("11").unwrap_err(),
            retry_on("exit=0").unwrap_err(),
            retry_on("exit=256").unwrap_err(),
            retry_on("lost").unwrap_err(),
        ];
        insta::assert_snapshot!(refused.join("\n"), @r#"
        say how many at most: all=10, up to all=100
        "0" is no number from 1 to 100
        "101" is no number from 1 to 100
        write none, last or all=COUNT
        write it with its number, as one word: pause-after=3
        "0" is no number from 1 on
        write pause-after=COUNT
        "11" is no number from 1 to 10
        a command that exits with 0 has not failed
        "256" is no exit code: write exit=1 to exit=255
        write never-started, or exit=CODE
        "#);
    }
}
