//! `clusters`, `clusters add`, `clusters label`, `clusters token`.

use insta::assert_snapshot;
use invoke_protocol::api::{Cluster, ClusterList, ClusterState, JoinInvitation};
use invoke_protocol::labels::Labels;
use invoke_protocol::problem::ProblemCode;
use invoke_protocol::runner::ProfileSummary;
use jiff::Timestamp;
use serde_json::{Value, json};

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

fn labels(of: Value) -> Labels {
    serde_json::from_value(of).unwrap()
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
        labels: labels(json!({ "tier": "edge", "env": "prod" })),
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
    NAME     STATE             RUNNER       LAST CONTACT   LABELS               PROFILES
    demo     connected         0.1.0^[[2J   3s             env=prod,tier=edge   default,deploy
    edge-7   never connected   -            -              -                    -
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

#[test]
fn a_new_cluster_may_have_labels() {
    let bed = Bed::new();
    bed.stub
        .on("POST /v1/clusters", vec![Answer::json(201, &invitation())]);
    let line = [
        "clusters",
        "add",
        "edge-7",
        "--label",
        "env=prod",
        "--label",
        "example.com/tier=",
    ];
    assert!(bed.transcript(&line).starts_with("exit: 0\n"));
    let body: Value = serde_json::from_slice(&bed.stub.seen("POST /v1/clusters")[0].body).unwrap();
    insta::assert_json_snapshot!(body, @r#"
    {
      "labels": {
        "env": "prod",
        "example.com/tier": ""
      },
      "name": "edge-7"
    }
    "#);
}

/// As of kubectl: what has a value is set, what ends in - is removed, and the rest stays.
#[test]
fn labels_are_set_and_removed() {
    let bed = Bed::new();
    let door = "PATCH /v1/clusters/edge-7/labels";
    let after = labels(json!({ "env": "prod", "zone": "b" }));
    bed.stub.on(door, vec![Answer::json(200, &after)]);
    assert_snapshot!(bed.transcript(&["clusters", "label", "edge-7", "env=prod", "tier-"]), @"
    exit: 0
    --- stdout
    env=prod,zone=b
    ");
    let body: Value = serde_json::from_slice(&bed.stub.seen(door)[0].body).unwrap();
    insta::assert_json_snapshot!(body, @r#"
    {
      "env": "prod",
      "tier": null
    }
    "#);
    bed.stub
        .on(door, vec![Answer::json(200, &Labels::default())]);
    assert_snapshot!(bed.transcript(&["clusters", "label", "edge-7", "env-", "zone-"]), @"
    exit: 0
    --- stderr
    invoke: cluster edge-7 has no labels now
    ");
}

#[test]
fn labels_that_make_no_sense_are_not_sent() {
    let bed = Bed::new();
    let refused = [
        &["clusters", "label", "edge-7", "env"][..],
        &["clusters", "label", "edge-7", "env=a b"],
        &["clusters", "label", "edge-7", "-env=a"],
        &["clusters", "label", "edge-7"],
        &["clusters", "label", "edge-7", "env=prod", "env-"],
        &["clusters", "add", "edge-7", "--label", "env-"],
    ];
    let shown = refused.map(|line| bed.transcript(line));
    assert_snapshot!(shown.join(""), @r#"
    exit: 240
    --- stderr
    invoke: invalid value 'env' for '<KEY=VALUE|KEY->...': write KEY=VALUE to set a label, or KEY- to remove it
    invoke: hint: `invoke clusters label --help` shows how it is written
    exit: 240
    --- stderr
    invoke: invalid value 'env=a b' for '<KEY=VALUE|KEY->...': "a b" is no label value: use at most 63 letters, digits, -, _ and ., and begin and end with a letter or digit; it may be empty
    invoke: hint: `invoke clusters label --help` shows how it is written
    exit: 240
    --- stderr
    invoke: unexpected argument '-e' found
    invoke: hint: `invoke clusters label --help` shows how it is written
    exit: 240
    --- stderr
    invoke: the following required arguments were not provided: <KEY=VALUE|KEY->...
    invoke: hint: `invoke clusters label --help` shows how it is written
    exit: 240
    --- stderr
    invoke: the label env is given twice: once is enough
    exit: 240
    --- stderr
    invoke: invalid value 'env-' for '--label <KEY=VALUE>': a new cluster has no label env to remove
    invoke: hint: `invoke clusters add --help` shows how it is written
    "#);
    assert!(bed.stub.seen("PATCH*").is_empty());
}
