//! `clusters`, `clusters add`, `clusters token`.

use insta::assert_snapshot;
use invoke_protocol::api::{Cluster, ClusterList, ClusterState, JoinInvitation};
use invoke_protocol::labels::Labels;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::ProfileSummary;
use jiff::Timestamp;

use crate::program::{Bed, run};
use crate::stub::Answer;

fn cluster(name: &str, state: ClusterState) -> Cluster {
    Cluster {
        clock_skew_seconds: None,
        id: "0197c1f0-0000-7000-8000-000000000001".parse().unwrap(),
        name: name.parse().unwrap(),
        labels: Labels::default(),
        state,
        runner_version: None,
        last_contact: None,
        last_contact_seconds: None,
        profiles: vec![],
        open_jobs: 0,
    }
}

fn invitation() -> JoinInvitation {
    JoinInvitation {
        cluster: "0197c1f0-0000-7000-8000-000000000001".parse().unwrap(),
        name: "edge-7".parse().unwrap(),
        join_token: "ijt_0: #true".into(),
        expires_at: Timestamp::from_second(1_780_000_900).unwrap(),
        dispatcher_url: "https://dispatcher.example:8443".into(),
        dispatcher_ca_pem: Some(
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".into(),
        ),
    }
}

#[test]
fn clusters_are_listed() {
    let bed = Bed::new();
    let profile = |name: &str| ProfileSummary {
        max_start_within_seconds: None,
        output_cap_bytes: None,
        name: name.parse().unwrap(),
        max_run_seconds: 3600,
    };
    let connected = Cluster {
        runner_version: Some("0.1.0\u{1b}[2J".into()),
        last_contact: Some(Timestamp::UNIX_EPOCH),
        last_contact_seconds: Some(3),
        profiles: vec![profile("default"), profile("deploy")],
        ..cluster("demo", ClusterState::Connected)
    };
    let clusters = vec![connected, cluster("edge-7", ClusterState::NeverConnected)];
    bed.stub.on(
        "GET /v1/clusters",
        vec![Answer::json(200, &ClusterList { clusters })],
    );
    assert_snapshot!(bed.transcript(&["clusters"]), @r"
    exit: 0
    --- stdout
    NAME     STATE             RUNNER       LAST CONTACT   PROFILES
    demo     connected         0.1.0^[[2J   3s             default,deploy
    edge-7   never connected   -            -              -
    ");
}

#[test]
fn no_clusters_name_the_next_step() {
    let bed = Bed::new();
    bed.stub.on(
        "GET /v1/clusters",
        vec![Answer::json(200, &ClusterList { clusters: vec![] })],
    );
    assert_snapshot!(bed.transcript(&["clusters"]), @"
    exit: 0
    --- stderr
    invoke: no clusters yet
    invoke: hint: `invoke clusters add NAME` adds one
    ");
}

/// stdout is a values file and nothing else; a token that looks like YAML stays a string.
#[test]
fn a_new_cluster_comes_with_values_and_the_next_commands() {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/clusters", vec![Answer::json(201, &invitation())]);
    bed.stub.on(
        "POST /v1/clusters/edge-7/join-tokens",
        vec![Answer::json(201, &invitation())],
    );
    let shown = bed.transcript(&["clusters", "add", "edge-7"]);
    assert_snapshot!(shown, @r#"
    exit: 0
    --- stdout
    dispatcher:
      url: https://dispatcher.example:8443
      ca: |
        -----BEGIN CERTIFICATE-----
        MIIB
        -----END CERTIFICATE-----
    joinToken: "ijt_0: #true"
    --- stderr
    invoke: cluster edge-7: the join token in these values is good once, until 2026-05-28 20:41:40 UTC
    invoke: next, with that cluster's own kubeconfig:
      helm upgrade --install invoke-runner deploy/charts/runner -n invoke-system --create-namespace -f values.yaml
    "#);
    assert_eq!(bed.transcript(&["clusters", "token", "edge-7"]), shown);
    let values = run(bed.invoke(&["clusters", "add", "edge-7"])).stdout;
    let values: serde_json::Value = serde_saphyr::from_slice(&values).unwrap();
    let invitation = invitation();
    assert_eq!(values["joinToken"], invitation.join_token);
    assert_eq!(values["dispatcher"]["url"], invitation.dispatcher_url);
    assert_eq!(
        values["dispatcher"]["ca"],
        invitation.dispatcher_ca_pem.unwrap()
    );
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let bed = Bed::new();
    let refusal = Answer::problem(
        ProblemCode::ClusterExists,
        "there is a cluster demo already",
    );
    bed.stub.on("POST /v1/clusters", vec![refusal]);
    assert_snapshot!(bed.transcript(&["clusters", "add", "demo"]), @"
    exit: 240
    --- stderr
    invoke: there is a cluster demo already
    ");
}
