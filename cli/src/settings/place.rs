//! Where the machine keeps settings: its environment and the XDG base directories.

use std::ffi::OsString;
use std::path::PathBuf;

use etcetera::BaseStrategy as _;

use super::{LOCAL_URL, Layer, Origin, Sourced};

/// The places outside the command line that may say something. Not `Debug`: there is a token in it.
#[derive(Clone, Default)]
pub struct Places {
    config: Option<PathBuf>,
    local: Option<PathBuf>,
    variables: Vec<(String, OsString)>,
}

impl Places {
    /// Those of this process. A machine without a home has an environment only.
    #[must_use]
    pub fn of_process() -> Self {
        let folders = etcetera::choose_base_strategy().ok();
        Self {
            config: folders
                .as_ref()
                .map(|xdg| xdg.config_dir().join("invoke/config.toml")),
            local: folders
                .as_ref()
                .map(|xdg| xdg.data_dir().join("invoke-dispatcher")),
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .filter(|(name, _)| name.starts_with("INVOKE_"))
                .collect(),
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<OsString> {
        let found = self.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }

    pub(super) fn config_file(&self) -> Option<PathBuf> {
        self.config.clone()
    }

    /// A dispatcher of the same user on this machine: it leaves its token and its certificate
    /// authority in its folder.
    pub(super) fn local_dispatcher(&self) -> Layer {
        let Some(folder) = self.local.as_ref().filter(|folder| folder.is_dir()) else {
            return Layer::default();
        };
        let file = |name: &str| {
            let value = Some(folder.join(name)).filter(|path| path.exists())?;
            Some(Sourced {
                value,
                origin: Origin::Local,
            })
        };
        Layer {
            url: Some(Sourced {
                value: LOCAL_URL.to_owned(),
                origin: Origin::Local,
            }),
            token_file: file("local-token"),
            ca_file: file("ca.pem"),
            ..Layer::default()
        }
    }

    #[cfg(test)]
    pub(super) fn for_test(
        config: Option<PathBuf>,
        local: Option<PathBuf>,
        variables: &[(&str, &str)],
    ) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(*value));
        Self {
            config,
            local,
            variables: variables.iter().map(owned).collect(),
        }
    }
}
