//! `invoke clusters …`

use clap::Subcommand;
use invoke_protocol::id::ClusterName;
use invoke_protocol::labels::{LabelKey, LabelValue};

/// What to do with clusters.
#[derive(Debug, Subcommand)]
pub enum ClustersVerb {
    /// Add a cluster, and print the Helm values that its runner is installed with
    #[command(
        after_help = "Examples:\n  invoke clusters add edge-7 > values.yaml\n  invoke clusters add edge-7 --label env=prod --label tier=edge > values.yaml"
    )]
    Add {
        /// What to call it: a-z, 0-9 and -
        name: ClusterName,
        /// What it can be chosen by, besides its name; may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(LabelKey, LabelValue)>,
    },
    /// Set labels of a cluster, or remove them: KEY=VALUE and KEY-, as of kubectl
    #[command(
        after_help = "Example:\n  invoke clusters label edge-7 env=prod tier-      env is set, tier is removed"
    )]
    Label {
        /// The cluster
        name: ClusterName,
        /// KEY=VALUE sets a label, KEY- removes it; the others stay
        #[arg(value_name = "KEY=VALUE|KEY-", required = true, value_parser = label_change)]
        changes: Vec<(LabelKey, Option<LabelValue>)>,
    },
    /// Print the same Helm values with a fresh join token; earlier ones are void
    #[command(after_help = "Example:\n  invoke clusters token edge-7 > values.yaml")]
    Token {
        /// The cluster
        name: ClusterName,
    },
}

fn label(text: &str) -> Result<(LabelKey, LabelValue), String> {
    match label_change(text)? {
        (key, Some(value)) => Ok((key, value)),
        (key, None) => Err(format!("a new cluster has no label {key} to remove")),
    }
}

/// As kubectl reads it: `KEY=VALUE`, or `KEY-` for none.
fn label_change(text: &str) -> Result<(LabelKey, Option<LabelValue>), String> {
    let words = |error: invoke_protocol::labels::InvalidLabel| error.to_string();
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => Ok((
            key.parse().map_err(words)?,
            Some(value.parse().map_err(words)?),
        )),
        (None, Some(key)) => Ok((key.parse().map_err(words)?, None)),
        (None, None) => Err("write KEY=VALUE to set a label, or KEY- to remove it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_set_or_removed() {
        let read = |text| {
            label_change(text).map(|(key, value)| {
                let value = value.map(|value| value.to_string());
                (key.to_string(), value)
            })
        };
        let set = |key: &str, value: &str| Ok((key.to_owned(), Some(value.to_owned())));
        assert_eq!(read("env=prod"), set("env", "prod"));
        assert_eq!(read("example.com/env="), set("example.com/env", ""));
        assert_eq!(read("env-"), Ok(("env".to_owned(), None)));
        assert_eq!(read("a-b-"), Ok(("a-b".to_owned(), None)));
        for wrong in ["", "env", "-", "=prod", "env=a=b", "env=prod-", "a b="] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
