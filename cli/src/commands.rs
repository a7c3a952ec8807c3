//! What each subcommand does: one file each, named after it.

use jiff::Timestamp;

use crate::args::{Args, Format, PrintingArgs, Verb};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::input::Input;
use crate::output::Output;
use crate::printer::Printer;
use crate::settings::{Places, Settings};

pub mod run;
pub mod fanout;
pub mod result;
pub mod logs;
pub mod artifacts;
pub mod jobs;
pub mod why;
pub mod cancel;
pub mod fanouts;
pub mod schedule;
pub mod calendar;
pub mod clusters;
pub mod version;

/// What every command needs.
pub struct Session<'a> {
    /// The dispatcher.
    pub client: Client,
    /// What was configured.
    pub settings: Settings,
    /// How to print results.
    pub format: Format,
    /// Whether a terminal obeys the command's escape codes.
    pub raw: bool,
    /// Where to print them.
    pub printer: &'a Printer,
    /// What to read.
    pub input: Input,
    /// When the program was started, by this machine's clock.
    pub now: Timestamp,
}

impl<'a> Session<'a> {
    /// What takes the output of a job: for a document memory, and else our own streams.
    fn output(&self) -> Output<'a> {
        match self.format {
            Format::Text => Output::to_streams(self.printer, self.raw),
            Format::Json => Output::to_memory(),
        }
    }
}

/// Does what the arguments say.
///
/// # Errors
/// [`Failure`], to be said before the program ends.
pub async fn dispatch(
    args: Args,
    line: &[std::ffi::OsString],
    printer: &Printer,
    now: Timestamp,
) -> Result<Exit, Failure> {
    let PrintingArgs {
        output: format,
        raw,
    } = args.printing;
    if matches!(args.verb, Some(Verb::Version)) {
        return version::version(format, printer);
    }
    // Before the settings: a command that makes no sense does so with every dispatcher.
    let flags = args.layer();
    let Args {
        verb,
        run: run_args,
        ..
    } = args;
    let task = match verb {
        None => match run_args.many.selector.clone() {
            Some(selector) => Task::FanOut(fanout::Request::understand(run_args, selector, line)?),
            None => Task::Run(run::Request::understand(run_args, line)?),
        },
        Some(verb) => Task::Verb(verb),
    };
    let settings = Settings::resolve(flags, &Places::of_process())?;
    let client = Client::new(&settings)?;
    let session = Session {
        client,
        settings,
        format,
        raw,
        printer,
        input: Input::default(),
        now,
    };
    match task {
        Task::Run(request) => run::run(request, &session).await,
        Task::FanOut(request) => fanout::run(request, &session).await,
        Task::Verb(Verb::Result { id }) => result::result(id, &session).await,
        Task::Verb(Verb::Logs(args)) => {
            fanouts::explained(args.id, logs::logs(args, &session), &session).await
        }
        Task::Verb(Verb::Artifacts { id, verb: None }) => {
            fanouts::explained(id, artifacts::list(id, &session), &session).await
        }
        Task::Verb(Verb::Artifacts {
            id,
            verb: Some(verb),
        }) => fanouts::explained(id, artifacts::get(id, verb, &session), &session).await,
        Task::Verb(Verb::Jobs { id: Some(id), .. }) => {
            fanouts::explained(id, jobs::one(id, &session), &session).await
        }
        Task::Verb(Verb::Jobs {
            id: None,
            cluster,
            limit,
        }) => jobs::list(cluster, limit, &session).await,
        Task::Verb(Verb::Why { id }) => {
            fanouts::explained(id, why::why(id, &session), &session).await
        }
        Task::Verb(Verb::Cancel { id, grace }) => cancel::cancel(id, grace, &session).await,
        Task::Verb(Verb::Fanouts { id, verb, limit }) => {
            fanouts::fanouts(id, verb, limit, &session).await
        }
        Task::Verb(Verb::Schedule { verb }) => schedule::schedule(verb, &session).await,
        Task::Verb(Verb::Calendar { verb }) => calendar::calendar(verb, &session).await,
        Task::Verb(Verb::Clusters { verb }) => clusters::clusters(verb, &session).await,
        Task::Verb(Verb::Version) => version::version(format, printer),
    }
}

enum Task {
    Run(run::Request),
    FanOut(fanout::Request),
    Verb(Verb),
}
