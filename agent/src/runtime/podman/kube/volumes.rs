//! The two volumes of an instance, which remember its pods. All is in their labels.

use std::collections::BTreeMap;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use fifogate::state::Instance;
use serde::Deserialize;

use super::super::{
    RUN_DIR_LABEL, Shared,
    command::{self, PodmanError},
    instance_in,
};

/// Label with the content, in base64.
const DATA_LABEL: &str = "data";
const CONFIG: &str = ".config";
const PODS: &str = ".pods";
/// The longest content of a label: Linux gives a program no argument of 128 KiB.
const MOST_BYTES: usize = 96 * 1024 - 64;

/// Written without padding, as Ankaios does, and read with or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volume {
    name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Volume {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }
}

/// A `runtimeConfig` has to fit into a label.
pub(super) fn check_size(config: &str) -> Result<(), String> {
    match config.len() > MOST_BYTES {
        true => Err(format!(
            "runtimeConfig has more than {MOST_BYTES} bytes: podman keeps it in a label"
        )),
        false => Ok(()),
    }
}

/// All volumes at one time.
#[derive(Debug)]
pub(super) struct Volumes<'a> {
    shared: &'a Shared,
    all: Vec<Volume>,
}

/// What the volumes of an instance hold.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The `runtimeConfig` that was played.
    pub(super) config: Option<String>,
    /// The ids of the pods that were made.
    pub(super) pods: Option<Vec<String>>,
    /// The names of the volumes; the one that leads to the instance comes last.
    names: Vec<String>,
}

impl<'a> Volumes<'a> {
    /// Asks podman. It takes a name as a regular expression, so all names are compared here.
    pub(super) async fn list(shared: &'a Shared) -> Result<Self, PodmanError> {
        let text = command::ask(["volume", "ls", "--format=json"]).await?;
        let all: Option<Vec<Volume>> = match text.trim() {
            "" => None,
            text => serde_json::from_str(text).map_err(PodmanError::because)?,
        };
        Ok(Self { shared, all: all.unwrap_or_default() })
    }

    /// All instances of the agent.
    pub(super) fn instances(&self) -> Vec<(Instance, Kept)> {
        let found = |own: &Volume| {
            let instance = instance_in(own.name.strip_suffix(CONFIG)?, &self.shared.agent)?;
            let kept = self.of(&instance)?;
            Some((instance, kept))
        };
        self.all.iter().filter_map(found).collect()
    }

    /// What is kept of an instance, unless it is of an agent with another run directory.
    pub(super) fn of(&self, instance: &Instance) -> Option<Kept> {
        let named = |name: &str| self.all.iter().find(|own| own.name == name);
        let names = Names::of(instance);
        let config = named(&names.config)?;
        if !self.shared.made(config.label(RUN_DIR_LABEL)) {
            return None;
        }
        let pods = named(&names.pods);
        Some(Kept {
            config: content(config),
            pods: pods.and_then(content).and_then(|text| serde_json::from_str(&text).ok()),
            names: pods.into_iter().chain([config]).map(|own| own.name.clone()).collect(),
        })
    }
}

fn content(volume: &Volume) -> Option<String> {
    String::from_utf8(BASE64.decode(volume.label(DATA_LABEL)?).ok()?).ok()
}

/// The names of the volumes of an instance.
#[derive(Debug)]
pub(super) struct Names {
    config: String,
    pods: String,
}

impl Names {
    pub(super) fn of(instance: &Instance) -> Self {
        Self { config: format!("{instance}{CONFIG}"), pods: format!("{instance}{PODS}") }
    }

    pub(super) async fn keep_config(&self, by: &Shared, config: &str) -> Result<(), PodmanError> {
        keep(&self.config, by, config).await
    }

    pub(super) async fn keep_pods(&self, by: &Shared, pods: &[String]) -> Result<(), PodmanError> {
        keep(&self.pods, by, &serde_json::Value::from(pods).to_string()).await
    }
}

async fn keep(name: &str, by: &Shared, content: &str) -> Result<(), PodmanError> {
    let data = format!("--label={DATA_LABEL}={}", BASE64.encode(content));
    let run_dir = format!("--label={RUN_DIR_LABEL}={}", by.run_dir);
    command::run(["volume", "create", &data, &run_dir, name]).await.map(drop)
}

/// Removes the volumes of an instance.
pub(super) async fn remove(kept: &Kept) -> Result<(), PodmanError> {
    for name in &kept.names {
        command::run(["volume", "rm", name]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;

    #[test]
    fn volumes_are_found_by_whole_names_and_only_of_this_agent_and_run_directory() {
        let shared = Shared {
            agent: "agent_A".to_owned(),
            run_dir: "/run/own".to_owned(),
            watch: OnceLock::new(),
        };
        let volume = |name: &str, run_dir: Option<&str>| Volume {
            name: name.to_owned(),
            labels: run_dir.map(|own| [(RUN_DIR_LABEL.to_owned(), own.to_owned())].into()),
        };
        let mut all: Vec<_> = ["w.0123.my_agent_A", "x.w.0123.agent_A", "w.0123.agent_B", "", "w."]
            .map(|name| volume(&format!("{name}{CONFIG}"), None))
            .into();
        all.push(volume("alone.0123.agent_A.pods", None));
        all.push(volume("other.0123.agent_A.config", Some("/run/other")));
        all.push(volume("own.0123.agent_A.config", Some("/run/own")));
        all.push(volume("ankaios.0123.agent_A.config", None));
        all.push(volume("ankaios.0123.agent_A.pods", None));
        let found = Volumes { shared: &shared, all }.instances();
        let found: Vec<_> =
            found.iter().map(|(own, kept)| (own.to_string(), kept.names.len())).collect();
        let expected = [("own.0123.agent_A".to_owned(), 1), ("ankaios.0123.agent_A".to_owned(), 2)];
        assert_eq!(found, expected);
    }
}
