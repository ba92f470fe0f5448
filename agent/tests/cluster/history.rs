//! The state at each revision: a watch of the test's own beside those of the agents, read
//! with nothing of theirs but the layout of docs/etcd.md.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use etcd_client::{Client, EventType, KeyValue, WatchOptions};
use fifogate::{
    pb::ank_base::{self as pb, config_item::ConfigItemEnum, execution_state::ExecutionStateEnum},
    state::convert,
};
use prost::Message;

use testkit::wait_for;

use super::{network::Namespace, view::View};

/// Where the agents of these tests keep their keys.
pub(crate) const PREFIX: &str = "test";

/// All that happened up to a revision.
#[derive(Default)]
pub(crate) struct Past {
    pub(crate) revision: i64,
    pub(crate) view: View,
    /// The digests of all states that there were, in their order.
    pub(crate) digests: Vec<u64>,
    /// The values that each config had, in their order.
    pub(crate) configs: HashMap<String, Vec<String>>,
    /// The tags that the workload `same` had, in their order.
    pub(crate) tags: Vec<BTreeMap<String, String>>,
    said: BTreeMap<[String; 3], pb::ExecutionState>,
    present: BTreeSet<String>,
}

#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<Past>>);

impl History {
    /// Follows an etcd from its first revision on, whatever becomes of it meanwhile.
    pub(crate) fn start(hub: Namespace, endpoint: String) -> Self {
        let history = Self::default();
        let own = history.clone();
        thread::spawn(move || {
            hub.enter(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    // It goes with the test.
                    while Arc::strong_count(&own.0) > 1 {
                        let _ = own.follow(&endpoint).await;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                });
            });
        });
        history
    }

    async fn follow(&self, endpoint: &str) -> Result<(), etcd_client::Error> {
        let client = Client::connect([endpoint], None).await?;
        let from = self.now().revision + 1;
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let mut watches = client.watch_client().max_decoding_message_size(1 << 30);
        let mut stream = watches.watch(format!("{PREFIX}/"), Some(options)).await?;
        while let Some(response) = stream.message().await? {
            if Arc::strong_count(&self.0) == 1 {
                break;
            }
            if response.compact_revision() > 0 {
                panic!("the history itself was compacted");
            }
            let mut past = self.now();
            for event in response.events() {
                let gone = event.event_type() == EventType::Delete;
                event.kv().inspect(|kv| past.take(kv, gone));
            }
        }
        Ok(())
    }

    pub(crate) fn now(&self) -> MutexGuard<'_, Past> {
        self.0.lock().unwrap()
    }

    /// Waits until it knows all up to a revision.
    pub(crate) fn until(&self, revision: i64) {
        wait_for(&format!("revision {revision}"), || {
            (self.now().revision >= revision).then_some(())
        });
    }
}

impl Past {
    fn take(&mut self, kv: &KeyValue, gone: bool) {
        let key = kv.key_str().unwrap().strip_prefix(PREFIX).unwrap().to_owned();
        let value = (!gone).then(|| kv.value());
        match key.split('/').skip(1).collect::<Vec<_>>()[..] {
            ["desired", "configs", name] => {
                let item = value.map(|own| pb::ConfigItem::decode(own).unwrap());
                if let Some(ConfigItemEnum::String(text)) =
                    item.as_ref().and_then(|own| own.config_item_enum.clone())
                {
                    self.configs.entry(name.to_owned()).or_default().push(text);
                }
                let configs = item.map(|item| [(name.to_owned(), item)].into());
                let configs = Some(pb::ConfigMap { configs: configs.unwrap_or_default() });
                let desired = pb::State { configs, ..Default::default() };
                self.set(desired_state(desired), &["desiredState", "configs", name]);
            }
            ["desired", "workloads", name] => {
                let own = value.map(|own| pb::Workload::decode(own).unwrap());
                if let ("same", Some(own)) = (name, &own) {
                    self.tags.push(own.tags.clone().unwrap_or_default().tags);
                }
                let workloads = own.map(|own| [(name.to_owned(), own)].into());
                let workloads = Some(pb::WorkloadMap { workloads: workloads.unwrap_or_default() });
                let desired = pb::State { workloads, ..Default::default() };
                self.set(desired_state(desired), &["desiredState", "workloads", name]);
            }
            ["states", agent, workload, id] => {
                let name = [agent, workload, id].map(str::to_owned);
                match value {
                    Some(value) => {
                        self.said.insert(name.clone(), pb::ExecutionState::decode(value).unwrap())
                    }
                    None => self.said.remove(&name),
                };
                self.set_state(&name);
            }
            ["agents", agent] => {
                if gone {
                    self.present.remove(agent);
                } else {
                    self.present.insert(agent.to_owned());
                }
                let all: Vec<_> =
                    self.said.keys().filter(|[own, ..]| own == agent).cloned().collect();
                all.iter().for_each(|name| self.set_state(name));
            }
            _ => {}
        }
        // All changes of one revision are one change.
        if self.revision == kv.mod_revision() {
            self.digests.pop();
        }
        self.revision = kv.mod_revision();
        self.digests.push(self.view.digest());
    }

    /// How an instance is doing: what its agent said of it, or that the agent is not there.
    fn set_state(&mut self, name: &[String; 3]) {
        let [agent, workload, id] = name.each_ref().map(String::as_str);
        let state = self.said.get(name).map(|said| {
            let pending = ExecutionStateEnum::Pending(pb::Pending::Initial.into());
            let began = said.execution_state_enum != Some(pending);
            if began && !agent.is_empty() && !self.present.contains(agent) {
                disconnected()
            } else {
                said.clone()
            }
        });
        let map = state.map(|state| {
            let id_state_map = [(id.to_owned(), state)].into();
            let of_id = pb::ExecutionsStatesForId { id_state_map };
            let of_name = pb::ExecutionsStatesOfWorkload {
                wl_name_state_map: [(workload.to_owned(), of_id)].into(),
            };
            pb::WorkloadStatesMap { agent_state_map: [(agent.to_owned(), of_name)].into() }
        });
        let state = pb::CompleteState { workload_states: map, ..Default::default() };
        self.set(state, &["workloadStates", agent, workload, id]);
    }

    fn set(&mut self, state: pb::CompleteState, path: &[&str]) {
        let tree = convert::from_pb(&state).unwrap();
        self.view.set(path, tree.get(path));
    }
}

fn desired_state(desired: pb::State) -> pb::CompleteState {
    pb::CompleteState { desired_state: Some(desired), ..Default::default() }
}

fn disconnected() -> pb::ExecutionState {
    let state = pb::AgentDisconnected::AgentDisconnected;
    pb::ExecutionState {
        additional_info: Some(String::new()),
        execution_state_enum: Some(ExecutionStateEnum::AgentDisconnected(state.into())),
    }
}
