//! Key layout in etcd: one item per key below a prefix, so that an update writes only the keys it
//! changes.
//!
//! Changes become keys with values, and keys with values become changes; [`Keys::read`] is the inverse
//! of [`Keys::write`]. Pure.

use fifogate::{internal::state::is_name, pb::ank_base as pb};
use prost::Message;

use crate::store::Change;

/// The version of the layout read and written by this agent.
pub(super) const VERSION: &str = "1";

/// The keys below one prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// Ends with a slash.
    prefix: String,
}

/// An operation on a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    pub(super) key: String,
    /// `None` deletes the key.
    pub(super) value: Option<Vec<u8>>,
}

/// The meaning of a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    /// An item of the state with its new value.
    Item(Change),
    /// A key of the layout outside of the state.
    Own,
    /// An unknown key.
    Foreign,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{}/", prefix.trim_end_matches('/')) }
    }

    /// The prefix of all keys.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The marker with the version of the layout.
    pub(super) fn layout(&self) -> String {
        format!("{}layout", self.prefix)
    }

    /// Compared and written by updates with a validity depending on more than the items they write.
    pub(super) fn guard(&self) -> String {
        format!("{}desired/guard", self.prefix)
    }

    /// The head of a large update.
    pub(super) fn large(&self) -> String {
        format!("{}desired/large", self.prefix)
    }

    /// The prefix of its parts.
    pub(super) fn parts(&self) -> String {
        format!("{}desired/large/", self.prefix)
    }

    pub(super) fn part(&self, number: usize) -> String {
        format!("{}{number:06}", self.parts())
    }

    pub(super) fn workload(&self, name: &str) -> String {
        format!("{}desired/workloads/{name}", self.prefix)
    }

    pub(super) fn config(&self, name: &str) -> String {
        format!("{}desired/configs/{name}", self.prefix)
    }

    /// Whether a key is the one of an item of desired state.
    pub(super) fn is_desired_item(&self, key: &str) -> bool {
        let path = key.strip_prefix(&self.prefix).unwrap_or_default();
        let folders = ["desired/workloads/", "desired/configs/"];
        path == "desired/apiVersion" || folders.iter().any(|own| path.starts_with(own))
    }

    /// Whether a key is the one of a workload state.
    pub(super) fn is_state(&self, key: &str) -> bool {
        key.strip_prefix(&self.prefix).is_some_and(|path| path.starts_with("states/"))
    }

    /// The prefix of the states of an agent's workloads.
    pub(super) fn states(&self, agent: &str) -> String {
        format!("{}states/{agent}/", self.prefix)
    }

    pub(super) fn agent(&self, name: &str) -> String {
        format!("{}agents/{name}", self.prefix)
    }

    /// The id of an agent's process, under its lease: it keeps the name unique.
    pub(super) fn owner(&self, agent: &str) -> String {
        format!("{}owners/{agent}", self.prefix)
    }

    /// The last process of an agent, independent of any lease.
    pub(super) fn holder(&self, agent: &str) -> String {
        format!("{}holders/{agent}", self.prefix)
    }

    /// The key and the value of a change.
    pub(super) fn write(&self, change: &Change) -> Write {
        let bytes = |message: &dyn Encode| message.bytes();
        let prefix = &self.prefix;
        match change {
            Change::ApiVersion(version) => Write {
                key: format!("{prefix}desired/apiVersion"),
                value: Some(version.clone().into_bytes()),
            },
            Change::Workload(name, workload) => {
                Write { key: self.workload(name), value: workload.as_deref().map(|own| bytes(own)) }
            }
            Change::Config(name, config) => {
                Write { key: self.config(name), value: config.as_ref().map(|own| bytes(own)) }
            }
            Change::WorkloadState(name, state) => {
                let pb::WorkloadInstanceName { workload_name, agent_name, id } = name;
                Write {
                    key: format!("{}{workload_name}/{id}", self.states(agent_name)),
                    value: state.as_ref().map(|own| bytes(own)),
                }
            }
            Change::Agent(name, attributes) => {
                Write { key: self.agent(name), value: attributes.as_ref().map(|own| bytes(own)) }
            }
        }
    }

    /// The meaning of a key with this value; without a value it was deleted.
    pub(super) fn read(&self, key: &str, value: Option<&[u8]>) -> Meaning {
        let Some(path) = key.strip_prefix(&self.prefix) else { return Meaning::Foreign };
        let is_ours = |part: &&str| path.starts_with(*part);
        if matches!(path, "layout" | "desired/guard" | "desired/large")
            || ["desired/large/", "owners/", "holders/"].iter().any(is_ours)
        {
            return Meaning::Own;
        }
        item(path, value).map_or(Meaning::Foreign, Meaning::Item)
    }
}

fn item(path: &str, value: Option<&[u8]>) -> Option<Change> {
    let parts: Vec<_> = path.split('/').collect();
    Some(match parts.as_slice() {
        ["desired", "apiVersion"] => {
            let version = std::str::from_utf8(value.unwrap_or_default()).ok()?;
            Change::ApiVersion(version.to_owned())
        }
        // Other programs can write any key, so each name is checked.
        ["desired", "workloads", name] if is_name(name) => {
            let workload = decode::<pb::Workload>(value)?.map(Box::new);
            Change::Workload((*name).to_owned(), workload)
        }
        ["desired", "configs", name] if is_name(name) => {
            Change::Config((*name).to_owned(), decode(value)?)
        }
        // The name of the agent may be empty: a workload without an agent has a state too.
        ["states", agent, workload, id] if !workload.is_empty() && !id.is_empty() => {
            let name = pb::WorkloadInstanceName {
                workload_name: (*workload).to_owned(),
                agent_name: (*agent).to_owned(),
                id: (*id).to_owned(),
            };
            Change::WorkloadState(name, decode(value)?)
        }
        ["agents", name] if is_name(name) => Change::Agent((*name).to_owned(), decode(value)?),
        _ => return None,
    })
}

/// `None` if the value is no such message.
fn decode<M: Message + Default>(value: Option<&[u8]>) -> Option<Option<M>> {
    value.map(M::decode).transpose().ok()
}

/// Encodes messages of any type.
trait Encode {
    fn bytes(&self) -> Vec<u8>;
}

impl<M: Message> Encode for M {
    fn bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Vec<Change> {
        let text = pb::config_item::ConfigItemEnum::String("value".to_owned());
        let config = pb::ConfigItem { config_item_enum: Some(text) };
        let workload = pb::Workload { runtime: Some("process".to_owned()), ..Default::default() };
        let name = |agent: &str| pb::WorkloadInstanceName {
            workload_name: "w".to_owned(),
            agent_name: agent.to_owned(),
            id: "1234".to_owned(),
        };
        let state = pb::ExecutionState { additional_info: Some("x".into()), ..Default::default() };
        vec![
            Change::ApiVersion("v1".to_owned()),
            Change::Workload("w".to_owned(), Some(Box::new(workload))),
            Change::Workload("w".to_owned(), None),
            Change::Config("c".to_owned(), Some(config)),
            Change::Config("c".to_owned(), None),
            Change::WorkloadState(name("agent_A"), Some(state.clone())),
            Change::WorkloadState(name(""), Some(state)),
            Change::WorkloadState(name("agent_A"), None),
            Change::Agent("agent_A".to_owned(), Some(pb::AgentAttributes::default())),
            Change::Agent("agent_A".to_owned(), None),
        ]
    }

    #[test]
    fn every_change_comes_back_from_its_key_and_value() {
        let keys = Keys::new("/fleet/");
        for change in changes() {
            let Write { key, value } = keys.write(&change);
            assert!(key.starts_with("/fleet/"), "{key}");
            assert_eq!(keys.read(&key, value.as_deref()), Meaning::Item(change), "{key}");
        }
    }

    #[test]
    fn a_prefix_means_the_same_with_and_without_a_slash_at_its_end() {
        assert_eq!(Keys::new("fleet").layout(), "fleet/layout");
        assert_eq!(Keys::new("fleet/").layout(), "fleet/layout");
    }

    #[test]
    fn what_is_no_item_is_told_apart() {
        let keys = Keys::new("p");
        let own = [keys.layout(), keys.guard(), keys.large(), keys.part(1)];
        for own in own.into_iter().chain([keys.owner("agent_A"), keys.holder("agent_A")]) {
            assert_eq!(keys.read(&own, Some(b"1")), Meaning::Own, "{own}");
        }
        for foreign in ["p/desired/workloads/", "p/desired/workloads/a/b", "p/x", "q/layout"] {
            assert_eq!(keys.read(foreign, None), Meaning::Foreign, "{foreign}");
        }
        assert_eq!(keys.read("p/states/a/w", None), Meaning::Foreign);
        assert_eq!(keys.read("p/desired/workloads/w", Some(b"\xff\xff")), Meaning::Foreign);
    }
}
