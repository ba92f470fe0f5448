//! Manifests, as JSON, which is YAML as well.

use serde_json::{Map, Value, json};

/// A script that lives until it is ended.
pub(crate) const LIVES: &str = "exec sleep 100000";

/// Every right at the control interface.
pub(crate) fn all_rights() -> Value {
    json!({"allowRules": [
        {"type": "StateRule", "operation": "ReadWrite", "filterMasks": ["*"]},
        {"type": "LogRule", "workloadNames": ["*"]},
    ]})
}

/// A workload in the making.
#[derive(Clone)]
pub(crate) struct Workload(Map<String, Value>);

impl Workload {
    /// A process that runs a script. An agent without this runtime says that it does not know it.
    pub(crate) fn process(agent: &str, script: &str) -> Self {
        let config = json!({"command": "sh", "args": ["-c", script]});
        Self::new(agent, "process", &config)
    }

    /// A container that runs a script, and that podman does not have to wait for when it is to end.
    pub(crate) fn container(agent: &str, script: &str) -> Self {
        let config = json!({
            "image": testkit::IMAGE,
            "commandOptions": ["--stop-signal=KILL"],
            "commandArgs": ["sh", "-c", script],
        });
        Self::new(agent, "podman", &config)
    }

    /// Waits for its end, with every right: a test speaks for it.
    pub(crate) fn spoken_for(self) -> Self {
        self.with("controlInterfaceAccess", all_rights())
    }

    fn new(agent: &str, runtime: &str, config: &Value) -> Self {
        Self(Map::new())
            .with("agent", agent)
            .with("runtime", runtime)
            .with("runtimeConfig", config.to_string())
            .with("restartPolicy", "NEVER")
    }

    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// Starts when another one is in a state, such as `ADD_COND_RUNNING`.
    pub(crate) fn after(self, name: &str, condition: &str) -> Self {
        self.with("dependencies", json!({ name: condition }))
    }

    /// The text of one of its fields.
    pub(crate) fn text(&self, field: &str) -> String {
        self.0[field].as_str().unwrap().to_owned()
    }
}

/// The manifest of these workloads.
pub(crate) fn manifest<'a>(
    workloads: impl IntoIterator<Item = (&'a str, Workload)>,
    configs: &Value,
) -> String {
    let workloads: Map<_, _> =
        workloads.into_iter().map(|(name, own)| (name.to_owned(), Value::Object(own.0))).collect();
    json!({"apiVersion": "v1", "workloads": workloads, "configs": configs}).to_string()
}
