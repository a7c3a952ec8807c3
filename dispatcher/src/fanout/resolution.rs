//! Which clusters a fan-out is for, and what is known about each before anything starts. They are looked up
//! once, when it is submitted: labels that change later change nothing of it.

use std::collections::BTreeSet;

use invoke_protocol::fanout::{
    ChildRefusal, FanOutLimits, FanOutPlan, FanOutSpec, PlannedChild, RoundsToNone,
};
use invoke_protocol::id::ClusterName;
use invoke_protocol::problem::ProblemCode;
use jiff::Timestamp;

use crate::acceptance;
use crate::access::Principal;
use crate::api::cluster_choice;
use crate::app::App;
use crate::problem::Refusal;
use crate::store::Session;
use crate::store::clusters::{self, StoredCluster};
use crate::waiting;

/// How many names a refusal lists at most.
const MAX_LISTED: usize = 10;

/// The clusters of a fan-out, in the order in which they start, and its limits in numbers.
#[derive(Debug)]
pub(crate) struct Resolution {
    pub(crate) limits: FanOutLimits,
    pub(crate) clusters: Vec<Resolved>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) cluster: StoredCluster,
    pub(crate) canary: bool,
    /// That its runner does not speak, in words, if it does not.
    offline: Option<String>,
    /// Why its job would be refused, if it would.
    refusal: Option<ChildRefusal>,
}

impl Resolution {
    /// As people see it.
    pub(crate) fn into_plan(self) -> FanOutPlan {
        let planned = |resolved: Resolved| PlannedChild {
            cluster: resolved.cluster.name,
            canary: resolved.canary,
            offline: resolved.offline,
            refusal: resolved.refusal,
        };
        FanOutPlan {
            limits: self.limits,
            clusters: self.clusters.into_iter().map(planned).collect(),
        }
    }

    /// Refuses what cannot become anything: a fan-out whose job every cluster would refuse, and one whose canary
    /// is away and not to be waited for.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub(crate) fn check(&self, spec: &FanOutSpec) -> Result<(), Refusal> {
        let mut refusals = self
            .clusters
            .iter()
            .map(|resolved| resolved.refusal.as_ref());
        if let Some(Some(first)) = refusals.next()
            && refusals.all(|refusal| refusal.is_some())
        {
            let detail = match self.clusters.len() {
                1 => first.message.clone(),
                many => format!(
                    "each of {many} clusters would refuse it; the first: {}",
                    first.message
                ),
            };
            return Err(Refusal::new(first.code, detail));
        }
        if spec.if_offline.is_wait() {
            return Ok(());
        }
        match self.clusters.iter().find_map(Resolved::absent_canary) {
            None => Ok(()),
            Some(absence) => {
                let detail = format!(
                    "{absence}, and it is a canary that was not to be waited for: choose another, or if_offline \"wait\""
                );
                Err(Refusal::new(ProblemCode::ClusterOffline, detail))
            }
        }
    }
}

impl Resolved {
    fn absent_canary(&self) -> Option<&str> {
        self.offline.as_deref().filter(|_| self.canary)
    }
}

/// Looks up the clusters, and what is known of each.
///
/// # Errors
/// A [`Refusal`]: the selector matches none, or others than its submitter was shown; a canary is not among them;
/// a percentage is less than one; or the principal may not run this on one of them.
pub(crate) async fn resolve(
    app: &App,
    session: &mut Session,
    principal: &Principal,
    spec: &FanOutSpec,
    now: Timestamp,
) -> Result<Resolution, Refusal> {
    let all = clusters::all(session).await?;
    if all.is_empty() {
        return Err(cluster_choice::none_yet());
    }
    let (mut selected, others): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|cluster| spec.selector.matches(&cluster.labels));
    if selected.is_empty() {
        return Err(none_selected(spec, &others));
    }
    if let Some(expected) = &spec.expected {
        check_expected(spec, &selected, expected)?;
    }
    let mut ordered = Vec::new();
    for name in &spec.canary {
        let place = selected.iter().position(|cluster| cluster.name == *name);
        let place = place.ok_or_else(|| no_canary(spec, name, &selected, &others))?;
        ordered.push((selected.remove(place), true));
    }
    ordered.extend(selected.into_iter().map(|cluster| (cluster, false)));
    let limits = limits(spec, ordered.len())?;
    let mut resolved = Vec::new();
    for (cluster, canary) in ordered {
        resolved.push(look_at(app, session, principal, spec, cluster, canary, now).await?);
    }
    Ok(Resolution {
        limits,
        clusters: resolved,
    })
}

async fn look_at(
    app: &App,
    session: &mut Session,
    principal: &Principal,
    spec: &FanOutSpec,
    cluster: StoredCluster,
    canary: bool,
    now: Timestamp,
) -> Result<Resolved, Refusal> {
    let checked = acceptance::check(app, session, principal, &spec.job, &cluster, now).await;
    let refusal = match checked {
        Ok(_) => None,
        // Who may not is told so, at once and for all of it.
        Err(refusal) if refusal.code() == ProblemCode::Forbidden => return Err(refusal),
        // That is no word about the job, and may be over when its turn comes.
        Err(refusal) if refusal.is_passing() => None,
        Err(refusal) => Some(ChildRefusal {
            code: refusal.code(),
            message: refusal.detail().to_owned(),
        }),
    };
    let offline = waiting::absence(&cluster.name, cluster.last_contact, now);
    Ok(Resolved {
        cluster,
        canary,
        offline: offline.map(|reason| reason.message),
        refusal,
    })
}

fn limits(spec: &FanOutSpec, clusters: usize) -> Result<FanOutLimits, Refusal> {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let clusters = count(clusters);
    let refused = |field: &str| {
        let field = field.to_owned();
        move |error: RoundsToNone| {
            Refusal::new(ProblemCode::InvalidShare, format!("{field}: {error}"))
        }
    };
    let concurrency = spec.concurrency.map(|share| share.of(clusters));
    let max_failures = spec.max_failures.map(|budget| budget.of(clusters));
    Ok(FanOutLimits {
        clusters,
        canaries: count(spec.canary.len()),
        concurrency: concurrency
            .transpose()
            .map_err(refused("concurrency"))?
            .unwrap_or(clusters),
        max_failures: max_failures.transpose().map_err(refused("max_failures"))?,
    })
}

fn none_selected(spec: &FanOutSpec, others: &[StoredCluster]) -> Refusal {
    let labelled: Vec<_> = others
        .iter()
        .filter(|cluster| !cluster.labels.is_empty())
        .map(|cluster| format!("{} ({})", cluster.name, cluster.labels))
        .collect();
    let hint = if labelled.is_empty() {
        "no cluster has labels yet: set them with `invoke clusters label NAME KEY=VALUE`".to_owned()
    } else {
        format!("clusters and their labels: {}", listed(&labelled))
    };
    Refusal::new(
        ProblemCode::NoClusterSelected,
        format!("no cluster matches {}; {hint}", spec.selector),
    )
}

fn check_expected(
    spec: &FanOutSpec,
    selected: &[StoredCluster],
    expected: &[ClusterName],
) -> Result<(), Refusal> {
    let selected: BTreeSet<_> = selected.iter().map(|cluster| &cluster.name).collect();
    let expected: BTreeSet<_> = expected.iter().collect();
    let names = |names: Vec<&&ClusterName>| -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    };
    let more = names(selected.difference(&expected).collect());
    let fewer = names(expected.difference(&selected).collect());
    let difference: Vec<_> = [("new", more), ("gone", fewer)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(word, names)| format!("{word}: {}", listed(&names)))
        .collect();
    if difference.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "{} matches other clusters now than those that you were shown ({}): look at the list again, then submit with it",
        spec.selector,
        difference.join("; ")
    );
    Err(Refusal::new(ProblemCode::ClustersChanged, detail))
}

fn no_canary(
    spec: &FanOutSpec,
    name: &ClusterName,
    selected: &[StoredCluster],
    others: &[StoredCluster],
) -> Refusal {
    let why = if others.iter().any(|cluster| cluster.name == *name) {
        format!("is not among the clusters that {} matches", spec.selector)
    } else {
        "does not exist".to_owned()
    };
    let names: Vec<_> = selected
        .iter()
        .map(|cluster| cluster.name.to_string())
        .collect();
    let detail = format!(
        "canary {name} {why}; a canary is one of: {}",
        listed(&names)
    );
    Refusal::new(ProblemCode::InvalidCanary, detail)
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(MAX_LISTED);
    let listed = names[..names.len() - more].join(", ");
    match more {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}
