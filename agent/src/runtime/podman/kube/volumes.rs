//! The two volumes of an instance, which remember its pods. All is in their labels.

use std::collections::BTreeMap;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use fifogate::state::Instance;
use serde::Deserialize;

use super::super::{
    RUN_DIR_LABEL,
    command::{self, PodmanError},
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

    /// Whether it is of the agent with this run directory, or of an agent of Ankaios.
    fn is_of(&self, run_dir: &str) -> bool {
        self.label(RUN_DIR_LABEL).is_none_or(|own| own == run_dir)
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

/// podman takes a name as a regular expression, so all names are compared here.
async fn list() -> Result<Vec<Volume>, PodmanError> {
    let text = command::run(["volume", "ls", "--format=json"]).await?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let read: Result<Option<Vec<Volume>>, _> = serde_json::from_str(&text);
    read.map(Option::unwrap_or_default).map_err(PodmanError::because)
}

async fn volume(instance: &Instance, kind: &str) -> Result<Option<Volume>, PodmanError> {
    let name = format!("{instance}{kind}");
    Ok(list().await?.into_iter().find(|own| own.name == name))
}

/// The instances of an agent that have a volume.
pub(super) async fn instances(agent: &str, run_dir: &str) -> Result<Vec<Instance>, PodmanError> {
    let all = list().await?;
    let own = all.iter().filter(|own| own.is_of(run_dir));
    Ok(own.filter_map(|own| instance_in(&own.name, agent)).collect())
}

fn instance_in(name: &str, agent: &str) -> Option<Instance> {
    let mut parts = name.strip_suffix(CONFIG)?.split('.').map(str::to_owned);
    let (workload, id, own) = (parts.next()?, parts.next()?, parts.next()?);
    let instance = Instance { workload, id, agent: own };
    (parts.next().is_none() && instance.agent == agent).then_some(instance)
}

/// Whether an instance has a volume, and it is not of an agent with another run directory.
pub(super) async fn is_of(instance: &Instance, run_dir: &str) -> Result<bool, PodmanError> {
    Ok(volume(instance, CONFIG).await?.is_some_and(|own| own.is_of(run_dir)))
}

/// The `runtimeConfig` that was played.
pub(super) async fn config(instance: &Instance) -> Result<Option<String>, PodmanError> {
    Ok(volume(instance, CONFIG).await?.as_ref().and_then(content))
}

/// The ids of the pods that were made.
pub(super) async fn pods(instance: &Instance) -> Result<Option<Vec<String>>, PodmanError> {
    let text = volume(instance, PODS).await?.as_ref().and_then(content);
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

fn content(volume: &Volume) -> Option<String> {
    String::from_utf8(BASE64.decode(volume.label(DATA_LABEL)?).ok()?).ok()
}

pub(super) async fn keep_config(
    instance: &Instance,
    run_dir: &str,
    config: &str,
) -> Result<(), PodmanError> {
    keep(format!("{instance}{CONFIG}"), run_dir, config).await
}

pub(super) async fn keep_pods(
    instance: &Instance,
    run_dir: &str,
    pods: &[String],
) -> Result<(), PodmanError> {
    let text = serde_json::Value::from(pods).to_string();
    keep(format!("{instance}{PODS}"), run_dir, &text).await
}

async fn keep(name: String, run_dir: &str, content: &str) -> Result<(), PodmanError> {
    let data = format!("--label={DATA_LABEL}={}", BASE64.encode(content));
    let run_dir = format!("--label={RUN_DIR_LABEL}={run_dir}");
    command::run(["volume", "create", &data, &run_dir, &name]).await.map(drop)
}

/// Removes both; the one that leads to the instance comes last.
pub(super) async fn remove(instance: &Instance) -> Result<(), PodmanError> {
    for kind in [PODS, CONFIG] {
        if volume(instance, kind).await?.is_some() {
            command::run(["volume", "rm", &format!("{instance}{kind}")]).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_of_an_agent_whose_name_ends_alike_is_not_ours() {
        let found = instance_in("w.0123.agent_A.config", "agent_A").unwrap();
        assert_eq!(found.to_string(), "w.0123.agent_A");
        for name in
            ["w.0123.my_agent_A.config", "w.0123.agent_A.pods", "x.w.0123.agent_A.config", ""]
        {
            assert!(instance_in(name, "agent_A").is_none(), "{name}");
        }
        assert!(instance_in("w.0123.agent_A.config", "A").is_none());
    }
}
