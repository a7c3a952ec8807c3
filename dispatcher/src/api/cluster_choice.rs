//! Which cluster somebody means.

use invoke_protocol::id::ClusterName;
use invoke_protocol::problem::ProblemCode;

use crate::problem::Refusal;
use crate::store::Session;
use crate::store::clusters::{self, StoredCluster};

/// How many names a refusal lists at most.
const MAX_LISTED: usize = 10;

/// How many letters a name may differ in to be suggested.
const MAX_DISTANCE: usize = 2;

/// The cluster of this name, or the only one.
///
/// # Errors
/// A [`Refusal`] that helps to find the right name.
pub(super) async fn choose(
    session: &mut Session,
    name: Option<&ClusterName>,
) -> Result<StoredCluster, Refusal> {
    let Some(name) = name else {
        return the_only_one(clusters::all(session).await?);
    };
    match clusters::by_name(session, name).await? {
        Some(cluster) => Ok(cluster),
        None => Err(unknown(name, &clusters::all(session).await?)),
    }
}

fn the_only_one(mut all: Vec<StoredCluster>) -> Result<StoredCluster, Refusal> {
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(none_yet()),
        (Some(last), false) => {
            all.push(last);
            let detail = format!(
                "there is more than one cluster, so say which: {}",
                listed(&all)
            );
            Err(Refusal::new(ProblemCode::ClusterRequired, detail))
        }
    }
}

/// There is nothing to run on.
pub(crate) fn none_yet() -> Refusal {
    Refusal::new(
        ProblemCode::NoClusters,
        "there is no cluster yet: add one with `invoke clusters add NAME`",
    )
}

fn unknown(name: &ClusterName, all: &[StoredCluster]) -> Refusal {
    let near = near(
        name.as_str(),
        all.iter().map(|cluster| cluster.name.as_str()),
    );
    let hint = match (near, all.is_empty()) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, true) => "there is none yet: add one with `invoke clusters add NAME`".to_owned(),
        (None, false) => format!("there are: {}", listed(all)),
    };
    Refusal::new(
        ProblemCode::UnknownCluster,
        format!("there is no cluster {name}; {hint}"),
    )
}

pub(super) fn near<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let by_distance = all.map(|other| (strsim::osa_distance(name, other), other));
    by_distance
        .filter(|(distance, other)| *distance <= MAX_DISTANCE && *distance < other.len())
        .min()
        .map(|(_, other)| other)
}

fn listed(all: &[StoredCluster]) -> String {
    let names: Vec<_> = all
        .iter()
        .take(MAX_LISTED)
        .map(|cluster| cluster.name.as_str())
        .collect();
    let more = all.len().saturating_sub(MAX_LISTED);
    names.join(", ")
        + &if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        }
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let names = ["edge-7", "edge-17", "prod-eu", "a"];
        for (typed, meant) in [
            ("egde-7", Some("edge-7")),
            ("prod-uk", Some("prod-eu")),
            ("staging", None),
            ("b", None),
        ] {
            assert_eq!(near(typed, names.into_iter()), meant, "{typed}");
        }
    }
}
