//! `invoke calendar …`

use std::path::PathBuf;

use clap::{ArgGroup, Subcommand};
use invoke_protocol::id::CalendarName;
use invoke_protocol::timing::TimeZoneName;

/// What to do with calendars.
#[derive(Debug, Subcommand)]
pub enum CalendarVerb {
    /// Keep the events of an iCalendar file, in place of those of an earlier one of the same name
    #[command(
        group(ArgGroup::new("kind").required(true).args(["closed", "open"])),
        after_help = "Examples:\n  invoke calendar import freeze.ics --closed\n  invoke calendar import nights.ics --open --name maintenance --tz Europe/Berlin"
    )]
    Import {
        /// The file; - is this program's stdin
        file: PathBuf,
        /// Meanwhile nothing is run, by any schedule that does not ignore it
        #[arg(long)]
        closed: bool,
        /// Only meanwhile something is run, by schedules that name it with --calendar
        #[arg(long)]
        open: bool,
        /// What to call it [default: the file's name, without .ics]
        #[arg(long, value_name = "NAME")]
        name: Option<CalendarName>,
        /// The zone of times in it that have none [default: UTC]
        #[arg(long, value_name = "ZONE")]
        tz: Option<TimeZoneName>,
    },
    /// List calendars
    #[command(after_help = "Example:\n  invoke calendar list")]
    List,
    /// Show a calendar, and what is to come of it
    #[command(after_help = "Example:\n  invoke calendar show freeze")]
    Show {
        /// The calendar
        name: CalendarName,
    },
    /// Delete a calendar
    #[command(after_help = "Example:\n  invoke calendar delete freeze")]
    Delete {
        /// The calendar
        name: CalendarName,
    },
}
