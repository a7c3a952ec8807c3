//! `invoke clusters`, `invoke clusters add NAME`, `invoke clusters label NAME`, `invoke clusters token NAME`

use std::collections::BTreeMap;

use invoke_protocol::api::{AddClusterRequest, Cluster, ClusterState, JoinInvitation};
use invoke_protocol::id::ClusterName;
use invoke_protocol::labels::{LabelKey, LabelValue, Labels, LabelsPatch};
use serde::Serialize;

use super::Session;
use crate::args::{ClustersVerb, Format};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::printer::neutral;
use crate::table::{moment, table};

/// Values of the runner's chart.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RunnerValues {
    dispatcher: DispatcherValues,
    join_token: String,
}

#[derive(Serialize)]
struct DispatcherValues {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
}

/// Lists clusters, or does something with one.
///
/// # Errors
/// See [`Failure`].
pub async fn clusters(verb: Option<ClustersVerb>, session: &Session<'_>) -> Result<Exit, Failure> {
    match verb {
        None => list(session).await,
        Some(ClustersVerb::Add { name, labels }) => {
            let labels = once_each(labels)?;
            let labels = Labels::try_from(labels)
                .map_err(|error| Failure::new(Exit::BAD_INPUT, error.to_string()))?;
            let cluster = AddClusterRequest { name, labels };
            let invitation = session.client.add_cluster(&cluster).await?;
            invite(&invitation, session)
        }
        Some(ClustersVerb::Label { name, changes }) => label(&name, changes, session).await,
        Some(ClustersVerb::Token { name }) => {
            let invitation = session.client.join_token(&name).await?;
            invite(&invitation, session)
        }
    }
}

async fn list(session: &Session<'_>) -> Result<Exit, Failure> {
    let list = session.client.clusters().await?;
    if session.format == Format::Json {
        session.printer.print_json(&list)?;
    } else if list.clusters.is_empty() {
        session.printer.say("no clusters yet");
        session
            .printer
            .say("hint: `invoke clusters add NAME` adds one");
    } else {
        let rows: Vec<_> = list.clusters.iter().map(row).collect();
        let headings = [
            "NAME",
            "STATE",
            "RUNNER",
            "LAST CONTACT",
            "LABELS",
            "PROFILES",
        ];
        session.printer.print(&table(headings, &rows))?;
    }
    Ok(Exit::SUCCESS)
}

fn row(cluster: &Cluster) -> [String; 6] {
    let state = match cluster.state {
        ClusterState::Connected => "connected",
        ClusterState::Offline => "offline",
        ClusterState::NeverConnected => "never connected",
    };
    let unknown = || "-".to_owned();
    let profiles: Vec<_> = cluster
        .profiles
        .iter()
        .map(|profile| profile.name.as_str())
        .collect();
    [
        cluster.name.to_string(),
        state.to_owned(),
        cluster.runner_version.clone().unwrap_or_else(unknown),
        cluster
            .last_contact_seconds
            .map_or_else(unknown, |seconds| format!("{seconds}s")),
        if cluster.labels.is_empty() {
            unknown()
        } else {
            cluster.labels.to_string()
        },
        if profiles.is_empty() {
            unknown()
        } else {
            profiles.join(",")
        },
    ]
}

/// Changes labels, and prints all that there are then.
async fn label(
    name: &ClusterName,
    changes: Vec<(LabelKey, Option<LabelValue>)>,
    session: &Session<'_>,
) -> Result<Exit, Failure> {
    let patch = LabelsPatch(once_each(changes)?);
    let labels = session.client.label_cluster(name, &patch).await?;
    match session.format {
        Format::Json => session.printer.print_json(&labels)?,
        Format::Text if labels.is_empty() => {
            session
                .printer
                .say(&format!("cluster {name} has no labels now"));
        }
        Format::Text => session.printer.print(&format!("{labels}\n"))?,
    }
    Ok(Exit::SUCCESS)
}

/// Labels by their keys. Of two values for one key it is not guessed which is meant.
fn once_each<V>(labels: Vec<(LabelKey, V)>) -> Result<BTreeMap<LabelKey, V>, Failure> {
    let mut by_key = BTreeMap::new();
    for (key, value) in labels {
        if by_key.contains_key(&key) {
            let message = format!("the label {key} is given twice: once is enough");
            return Err(Failure::new(Exit::BAD_INPUT, message));
        }
        by_key.insert(key, value);
    }
    Ok(by_key)
}

/// Prints the values, and nothing else, to stdout; what to do with them to stderr.
fn invite(invitation: &JoinInvitation, session: &Session<'_>) -> Result<Exit, Failure> {
    let printer = session.printer;
    match session.format {
        Format::Json => printer.print_json(invitation)?,
        Format::Text => {
            let values = values(invitation).map_err(|error| {
                Failure::new(
                    Exit::INTERNAL,
                    format!("cannot write the Helm values: {error}"),
                )
            })?;
            printer.print(&values)?;
        }
    }
    let JoinInvitation {
        name, expires_at, ..
    } = invitation;
    let until = moment(*expires_at);
    printer.say(&format!(
        "cluster {name}: the join token in these values is good once, until {until}"
    ));
    printer.say("next, with that cluster's own kubeconfig:");
    printer.show(&next_commands(
        &neutral(name.as_str()),
        printer.prints_to_terminal(),
    ));
    Ok(Exit::SUCCESS)
}

fn values(invitation: &JoinInvitation) -> Result<String, serde_saphyr::ser_error::Error> {
    serde_saphyr::to_string(&RunnerValues {
        dispatcher: DispatcherValues {
            url: invitation.dispatcher_url.clone(),
            ca: invitation.dispatcher_ca_pem.clone(),
        },
        join_token: invitation.join_token.clone(),
    })
}

/// What to type next. Values that went to a file are there already; for those on a screen, the first
/// command makes them again, with a token that was not shown to anybody.
fn next_commands(name: &str, on_screen: bool) -> String {
    let save = if on_screen {
        format!("  (umask 077; invoke clusters token {name} > values.yaml)\n")
    } else {
        String::new()
    };
    format!(
        "{save}  helm upgrade --install invoke-runner deploy/charts/runner \
         -n invoke-system --create-namespace -f values.yaml\n"
    )
}
