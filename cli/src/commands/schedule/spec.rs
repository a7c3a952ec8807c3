//! What a schedule is to do, made of arguments: from nothing (`create`), or from what it is to do so far (`edit`).

use std::ffi::OsString;

use invoke_protocol::command::Command;
use invoke_protocol::fanout::OfflineClusters;
use invoke_protocol::id::{ClusterName, ProfileName};
use invoke_protocol::job::{IfOffline, JobSpec};
use invoke_protocol::schedule::{
    CatchUp, Notify, NotifyBy, NotifyOn, Overlap, Retry, RetryOn, Run, ScheduleSpec,
};
use invoke_protocol::timing::{AtWindowEnd, TimeZoneName, Timing, When};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::args::{
    JobArgs, ManyArgs, NotifyArgs, Offline, ScheduleArgs, TimingArgs, TroubleArgs, WhenArgs,
};
use crate::commands::fanout::fanout_spec;
use crate::commands::run::only_for_many;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::request;

/// A schedule that runs a command, with everything else as it is if nobody says otherwise.
pub(super) fn plain(run: Run, when: When, time_zone: TimeZoneName) -> ScheduleSpec {
    ScheduleSpec {
        run,
        timing: Timing {
            when,
            time_zone,
            offset: None,
            window_seconds: None,
            cutoff_seconds: None,
            at_window_end: AtWindowEnd::default(),
            jitter_seconds: None,
        },
        overlap: Overlap::default(),
        catch_up: CatchUp::default(),
        retry: None,
        pause_after_failures: None,
        open_calendars: Vec::new(),
        ignored_calendars: Vec::new(),
        notify: Vec::new(),
        long_running_seconds: None,
    }
}

/// What makes its times; `None` if nothing was said. An interval that only becomes another keeps its beat.
pub(super) fn when(
    args: WhenArgs,
    zone: &TimeZoneName,
    before: Option<&When>,
    now: Timestamp,
) -> Result<Option<When>, Failure> {
    let WhenArgs { cron, every, at } = args;
    if let Some(expression) = cron {
        return Ok(Some(When::Cron { expression }));
    }
    if let Some(seconds) = every {
        let from = match before {
            Some(When::Every { from, .. }) => *from,
            _ => Timestamp::from_second(now.as_second()).unwrap_or(now),
        };
        return Ok(Some(When::Every { seconds, from }));
    }
    let at = at.map(|text| instant(&text, zone));
    Ok(at.transpose()?.map(|time| When::At { time }))
}

/// A moment: RFC 3339, or a time on the wall that is there once.
fn instant(text: &str, zone: &TimeZoneName) -> Result<Timestamp, Failure> {
    if let Ok(instant) = text.parse() {
        return Ok(instant);
    }
    let refused = |why: String| {
        Failure::new(Exit::BAD_INPUT, format!("--at {text}: {why}")).with_hint(
            "write RFC 3339, such as 2026-11-22T02:30:00+01:00, which is the same everywhere",
        )
    };
    let wall: DateTime = text.parse().map_err(|_| {
        refused("this is no time: write it as 2026-11-22T02:30, in the zone of --tz".to_owned())
    })?;
    let wall = time_zone(zone)?.to_ambiguous_timestamp(wall);
    match wall.offset() {
        AmbiguousOffset::Unambiguous { .. } => wall
            .compatible()
            .map_err(|error| refused(format!("this is out of reach: {error}"))),
        AmbiguousOffset::Gap { .. } => Err(refused(format!(
            "clocks in {zone} are set forward over this time, so it never comes"
        ))),
        AmbiguousOffset::Fold { .. } => Err(refused(format!(
            "clocks in {zone} are set back over this time, so it comes twice"
        ))),
    }
}

/// The rules of a zone, of which this program has its own copy.
pub(super) fn time_zone(name: &TimeZoneName) -> Result<TimeZone, Failure> {
    TimeZone::get(name.as_str()).map_err(|_| {
        Failure::new(
            Exit::BAD_INPUT,
            format!("{name} is no time zone that is known here"),
        )
        .with_hint("write it as in the IANA database, such as Europe/Berlin, or a time in RFC 3339")
    })
}

/// Lets everything that was given replace what there is; but for what makes its times, its command, its files
/// and its secrets.
pub(super) fn apply(spec: &mut ScheduleSpec, args: &ScheduleArgs) -> Result<(), Failure> {
    let ScheduleArgs {
        timing,
        trouble,
        notify,
        job,
        many,
    } = args;
    apply_timing(spec, timing);
    apply_trouble(spec, trouble)?;
    apply_notify(spec, notify)?;
    apply_clusters(&mut spec.run, job, many)?;
    apply_job(spec.run.job_mut(), job)
}

fn apply_timing(spec: &mut ScheduleSpec, args: &TimingArgs) {
    let TimingArgs {
        tz,
        offset,
        window,
        cutoff,
        at_window_end,
        jitter,
        calendars,
        ignored_calendars,
    } = args.clone();
    let timing = &mut spec.timing;
    replace(&mut timing.time_zone, tz);
    timing.offset = offset.or(timing.offset);
    timing.window_seconds = window.or(timing.window_seconds);
    timing.cutoff_seconds = cutoff.or(timing.cutoff_seconds);
    timing.jitter_seconds = jitter.or(timing.jitter_seconds);
    replace(&mut timing.at_window_end, at_window_end.map(Into::into));
    replace(&mut spec.open_calendars, given(calendars));
    replace(&mut spec.ignored_calendars, given(ignored_calendars));
}

fn apply_trouble(spec: &mut ScheduleSpec, args: &TroubleArgs) -> Result<(), Failure> {
    let TroubleArgs {
        overlap,
        catch_up,
        on_failure,
        retry,
        retry_on,
    } = args.clone();
    replace(&mut spec.overlap, overlap.map(Into::into));
    replace(&mut spec.catch_up, catch_up);
    spec.pause_after_failures = on_failure.or(spec.pause_after_failures);
    match (retry, &mut spec.retry) {
        (Some(times), Some(before)) => before.times = times,
        (Some(times), none @ None) => {
            let on = vec![RetryOn::NeverStarted];
            *none = Some(Retry { times, on });
        }
        (None, _) => {}
    }
    match (given(retry_on), &mut spec.retry) {
        (None, _) => Ok(()),
        (Some(on), Some(retry)) => {
            retry.on = on;
            Ok(())
        }
        (Some(_), None) => Err(Failure::new(
            Exit::BAD_INPUT,
            "--retry-on says after which failures it is run again, and not how often",
        )
        .with_hint("add --retry COUNT")),
    }
}

fn apply_notify(spec: &mut ScheduleSpec, args: &NotifyArgs) -> Result<(), Failure> {
    let NotifyArgs {
        webhooks,
        commands,
        on,
        long_running,
    } = args.clone();
    let commands: Vec<_> = commands
        .into_iter()
        .map(Command::shell)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::new(Exit::BAD_INPUT, format!("--notify-command: {error}")))?;
    let is_webhook = |notify: &Notify| matches!(notify.by, NotifyBy::Webhook(_));
    if !webhooks.is_empty() {
        spec.notify.retain(|notify| !is_webhook(notify));
    }
    if !commands.is_empty() {
        spec.notify.retain(is_webhook);
    }
    let webhooks = webhooks.into_iter().map(NotifyBy::Webhook);
    let commands = commands.into_iter().map(NotifyBy::Command);
    let new = webhooks.chain(commands);
    spec.notify
        .extend(new.map(|by| Notify { by, on: Vec::new() }));
    if let Some(on) = given(on) {
        if spec.notify.is_empty() {
            let message = "--notify-on says of what somebody is told, and not who";
            return Err(Failure::new(Exit::BAD_INPUT, message)
                .with_hint("add --notify-webhook URL or --notify-command \"SHELL LINE\""));
        }
        let on: Vec<NotifyOn> = on.into_iter().map(Into::into).collect();
        for notify in &mut spec.notify {
            notify.on.clone_from(&on);
        }
    }
    spec.long_running_seconds = long_running.or(spec.long_running_seconds);
    Ok(())
}

/// One cluster or many, which may change.
fn apply_clusters(run: &mut Run, job: &JobArgs, many: &ManyArgs) -> Result<(), Failure> {
    let cluster = job.cluster.as_deref().map(|name| {
        name.parse::<ClusterName>()
            .map_err(|error| Failure::new(Exit::BAD_INPUT, format!("--cluster: {error}")))
    });
    match (cluster.transpose()?, &many.selector, &mut *run) {
        (Some(cluster), ..) => {
            let mut job = run.job().clone();
            job.cluster = Some(cluster);
            *run = Run::Job(job);
        }
        (None, Some(selector), Run::Job(job)) => {
            let mut job = job.clone();
            (job.cluster, job.if_offline) = (None, IfOffline::Wait);
            *run = Run::FanOut(fanout_spec(selector.clone(), job));
        }
        (None, Some(selector), Run::FanOut(fanout)) => fanout.selector = selector.clone(),
        (None, None, _) => {}
    }
    match run {
        Run::FanOut(fanout) => {
            let ManyArgs {
                selector: _,
                canary,
                concurrency,
                ramp,
                max_failures,
                on_stop,
            } = many.clone();
            replace(&mut fanout.canary, given(canary));
            fanout.concurrency = concurrency.or(fanout.concurrency);
            fanout.ramp |= ramp;
            fanout.max_failures = max_failures.or(fanout.max_failures);
            replace(&mut fanout.on_stop, on_stop.map(Into::into));
            replace(
                &mut fanout.if_offline,
                job.if_offline.map(OfflineClusters::from),
            );
            Ok(())
        }
        Run::Job(spec) => {
            if let Some(name) = many.first_given() {
                return Err(only_for_many(name));
            }
            match job.if_offline.map(Offline::of_one) {
                None => Ok(()),
                Some(Some(if_offline)) => {
                    spec.if_offline = if_offline;
                    Ok(())
                }
                Some(None) => Err(only_for_many("--if-offline skip")),
            }
        }
    }
}

fn apply_job(spec: &mut JobSpec, args: &JobArgs) -> Result<(), Failure> {
    if let Some(profile) = &args.profile {
        spec.profile = profile
            .parse::<ProfileName>()
            .map_err(|error| Failure::new(Exit::BAD_INPUT, format!("--profile: {error}")))?;
    }
    spec.start_within_seconds = args.start_within.or(spec.start_within_seconds);
    spec.run_timeout_seconds = args.run_timeout.or(spec.run_timeout_seconds);
    let environment = request::environment(args)?;
    if !args.variables.is_empty() || !args.variable_files.is_empty() {
        spec.environment = environment.variables;
    }
    spec.secrets = environment.secrets;
    Ok(())
}

/// The values of `-f`. A schedule has no stdin: nobody is there when it runs.
pub(super) fn files(job: &mut JobArgs) -> Result<Vec<OsString>, Failure> {
    if job.take_stdin() {
        let message = "a schedule's command has no stdin: nobody is there when it runs";
        return Err(Failure::new(Exit::BAD_INPUT, message)
            .with_hint("attach what it reads as a file: -f FILE, and `command < FILE`"));
    }
    Ok(std::mem::take(&mut job.files))
}

fn replace<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn given<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, zone: &str) -> Result<String, String> {
        let zone = zone.parse().unwrap();
        instant(text, &zone)
            .map(|instant| instant.to_string())
            .map_err(|failure| failure.message.unwrap())
    }

    #[test]
    fn a_time_on_the_wall_is_in_its_zone() {
        for (text, zone, expected) in [
            ("2026-11-22T02:30", "Europe/Berlin", "2026-11-22T01:30:00Z"),
            ("2026-11-22 02:30:15", "UTC", "2026-11-22T02:30:15Z"),
            ("2026-11-22", "Asia/Kathmandu", "2026-11-21T18:15:00Z"),
            // Whatever the zone.
            (
                "2026-11-22T02:30:00+02:00",
                "Europe/Berlin",
                "2026-11-22T00:30:00Z",
            ),
            (
                "2026-11-22T02:30:00Z",
                "Europe/Berlin",
                "2026-11-22T02:30:00Z",
            ),
        ] {
            assert_eq!(at(text, zone).as_deref(), Ok(expected), "{text}");
        }
    }

    /// What comes never, or twice, is not guessed.
    #[test]
    fn a_time_that_is_not_there_once_is_refused() {
        let refused = [
            at("2026-03-29T02:30", "Europe/Berlin"),
            at("2026-10-25T02:30", "Europe/Berlin"),
            at("2026-10-25T02:30", "Europe/Berlyn"),
            at("tomorrow", "UTC"),
            at("02:30", "UTC"),
        ];
        let refused: Vec<_> = refused.into_iter().map(Result::unwrap_err).collect();
        insta::assert_snapshot!(refused.join("\n"), @"
        --at 2026-03-29T02:30: clocks in Europe/Berlin are set forward over this time, so it never comes
        --at 2026-10-25T02:30: clocks in Europe/Berlin are set back over this time, so it comes twice
        Europe/Berlyn is no time zone that is known here
        --at tomorrow: this is no time: write it as 2026-11-22T02:30, in the zone of --tz
        --at 02:30: this is no time: write it as 2026-11-22T02:30, in the zone of --tz
        ");
    }

    /// Who asks for another interval does not ask for another time of day.
    #[test]
    fn an_interval_keeps_its_beat() {
        let now: Timestamp = "2026-11-22T10:00:00.5Z".parse().unwrap();
        let every = |seconds| WhenArgs {
            cron: None,
            every: Some(seconds),
            at: None,
        };
        let zone = TimeZoneName::default();
        let first = when(every(3600), &zone, None, now).unwrap().unwrap();
        let from = "2026-11-22T10:00:00Z".parse().unwrap();
        assert_eq!(
            first,
            When::Every {
                seconds: 3600,
                from
            }
        );
        let later = "2026-11-23T11:11:11Z".parse().unwrap();
        let second = when(every(7200), &zone, Some(&first), later).unwrap();
        assert_eq!(
            second,
            Some(When::Every {
                seconds: 7200,
                from
            })
        );
    }
}
