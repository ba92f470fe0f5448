//! Reader of a manifest: YAML nodes in, nodes of the state out, with a list of all faults.
//!
//! A function returns `None` for an unusable node, and has recorded a fault for it then. Reading
//! continues with the next node, so one run finds all faults.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use super::yaml::{Data, ScalarKind, Yaml};
use crate::{
    foreign::{Excerpt, Shortened},
    limits::{MAX_NESTING, MAX_VALUE_BYTES, too_deep, too_large},
    nearest::nearest,
    state::{
        DESIRED_STATE, Key, Map, Node, convert,
        schema::{COMPLETE_STATE, Field, Kind, STATE, WORKLOAD},
        validate,
    },
};

/// Most comparisons of a mistyped name with a known one, for all hints of a manifest: it may have
/// thousands of each.
const MOST_COMPARISONS: usize = 10_000;

/// Most characters of a message. Quoted names are bounded each; this bounds a message of the state.
const MOST_IN_MESSAGE: usize = 1_000;

/// A fault or warning: line, column, message.
pub(super) type Remark = (usize, usize, String);

/// State of the reader for one manifest.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) faults: Vec<Remark>,
    pub(super) warnings: Vec<Remark>,
    /// `apiVersion: v0.1`: tags have the old form.
    old_version: bool,
    /// Name of the current workload, as messages quote it.
    workload: String,
    /// Comparisons of names for hints so far.
    compared: usize,
    /// Texts read so far; equal texts share memory.
    texts: HashSet<Arc<str>>,
}

/// An entry of a mapping: name, key node, value node.
pub(super) type Entry<'n, 'i> = (&'n str, &'n Yaml<'i>, &'n Yaml<'i>);

impl Reader {
    pub(super) fn fault_at<T>(
        &mut self,
        line: usize,
        column: usize,
        message: impl Into<String>,
    ) -> Option<T> {
        self.faults.push((line, column, bounded(message.into())));
        None
    }

    /// Records a fault at `node`, and returns no value.
    pub(super) fn fault<T>(&mut self, node: &Yaml<'_>, message: impl Into<String>) -> Option<T> {
        self.fault_at(node.line(), node.column(), message)
    }

    pub(super) fn warn(&mut self, node: &Yaml<'_>, message: impl Into<String>) {
        self.warnings.push((node.line(), node.column(), bounded(message.into())));
    }

    fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(found) = self.texts.get(text) {
            return Arc::clone(found);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }

    pub(super) fn key(&mut self, text: &str) -> Key {
        self.shared(text).into()
    }

    pub(super) fn leaf(&mut self, text: &str) -> Node {
        Node::Str(self.shared(text))
    }

    /// The desired state in the document: a manifest, or the part `desiredState` of a state.
    pub(super) fn manifest(&mut self, document: &Yaml<'_>) -> Option<Node> {
        let entries = self.entries(document, "the manifest")?;
        match entries.iter().find(|(name, ..)| *name == DESIRED_STATE) {
            None => self.desired_state(document, &entries, "the manifest"),
            Some((.., desired)) => {
                // The other parts of a state are facts, not wishes: a printed one has them.
                let known = COMPLETE_STATE.names();
                for (name, key, _) in entries.iter().filter(|(name, ..)| !known.contains(name)) {
                    self.unknown_key::<()>(key, name, "the state", &known);
                }
                let entries = self.entries(desired, DESIRED_STATE)?;
                self.desired_state(desired, &entries, DESIRED_STATE)
            }
        }
    }

    fn desired_state(
        &mut self,
        document: &Yaml<'_>,
        entries: &[Entry<'_, '_>],
        what: &str,
    ) -> Option<Node> {
        let version = self.version(document, entries);
        // Known before the workloads are read: the form of their tags depends on it.
        self.old_version = version.as_deref() == Some("v0.1");
        let mut state = Map::new();
        if let Some(version) = version {
            state.insert("apiVersion", Node::text(&version));
        }
        for (name, key, value) in entries {
            let node = match *name {
                "apiVersion" => continue,
                "workloads" => self.workloads(value),
                "configs" => self.configs(value),
                _ => self.unknown_key(key, name, what, &STATE.names()),
            };
            if let Some(node) = node {
                state.insert(*name, node);
            }
        }
        // An update without masks needs them, also if empty (docs/protocol.md#empty-update-mask).
        if state.get("workloads").is_none() {
            state.insert("workloads", Node::Map(Map::new()));
        }
        // On the YAML nodes, not on `state`: they have places, and include faulty workloads.
        self.references(entries);
        Some(Node::Map(state))
    }

    fn version(&mut self, document: &Yaml<'_>, entries: &[Entry<'_, '_>]) -> Option<String> {
        let Some((_, _, value)) = entries.iter().find(|(name, ..)| *name == "apiVersion") else {
            return self.fault(document, "`apiVersion` is missing: add `apiVersion: v1`");
        };
        let version = self.text(value, "apiVersion")?;
        match version.as_str() {
            "v1" => {}
            "v0.1" => self.warn(value, "`apiVersion: v0.1` is deprecated: use v1"),
            other => {
                let other = Excerpt(other);
                let text = format!("Unsupported API version. Received '{other}', expected 'v1'");
                return self.fault(value, text);
            }
        }
        Some(version)
    }

    fn workloads(&mut self, node: &Yaml<'_>) -> Option<Node> {
        let mut workloads = Map::new();
        for (name, key, value) in self.entries(node, "workloads")? {
            if let Some(why) = validate::workload_name_fault(name) {
                let text = format!("Unsupported workload name '{}'. {why}", Excerpt(name));
                self.fault::<()>(key, text);
            }
            self.workload = Excerpt(name).to_string();
            let what = format!("workload `{}`", self.workload);
            if let Some(workload) = self.record(value, &what, key, &WORKLOAD) {
                self.check_size(value, &what, &workload);
                workloads.insert(name, workload);
            }
        }
        Some(Node::Map(workloads))
    }

    /// Reads tags: a mapping in v1, and only a list of pairs in v0.1.
    pub(super) fn tags(&mut self, field: &Field, node: &Yaml<'_>) -> Option<Node> {
        let workload = &self.workload;
        match (&node.data, self.old_version) {
            (Data::Sequence(_), false) => self.fault(
                node,
                format!(
                    "For API version 'v1', tags must be specified as a mapping (key-value pairs). \
                     Found tags as sequence for workload '{workload}'."
                ),
            ),
            (Data::Mapping(_), true) => self.fault(
                node,
                format!(
                    "For API version 'v0.1', tags must be specified as a sequence (list of key-value \
                     entries). Found tags as mapping for workload '{workload}'."
                ),
            ),
            (Data::Sequence(items), true) => {
                let mut tags = Map::new();
                for item in items {
                    let Some(entries) = self.entries(item, "a tag") else { continue };
                    let mut field = |wanted: &str| {
                        let found = entries.iter().find(|(name, ..)| *name == wanted);
                        match found {
                            Some((_, _, value)) => self.text(value, wanted),
                            None => self.fault(item, format!("a tag has no `{wanted}`")),
                        }
                    };
                    let (key, value) = (field("key"), field("value"));
                    for (name, key, _) in &entries {
                        if !["key", "value"].contains(name) {
                            self.unknown_key::<()>(key, name, "a tag", &["key", "value"]);
                        }
                    }
                    if let (Some(key), Some(value)) = (key, value) {
                        tags.insert(self.key(&key), self.leaf(&value));
                    }
                }
                Some(Node::Map(tags))
            }
            // Also for a scalar: `map` reports the wrong kind.
            _ => self.map(field, &Kind::Text, node),
        }
    }

    fn configs(&mut self, node: &Yaml<'_>) -> Option<Node> {
        self.config_map(node, "configs", (0, true))
    }

    fn config_map(
        &mut self,
        node: &Yaml<'_>,
        what: &str,
        (depth, checks_keys): (usize, bool),
    ) -> Option<Node> {
        let mut map = Map::new();
        for (name, key, value) in self.entries(node, what)? {
            if checks_keys && !validate::is_name(name) {
                let (name, rule) = (Excerpt(name), validate::NAME_RULE);
                let text = format!("Unsupported config item key '{name}'. {rule}");
                self.fault::<()>(key, text);
            }
            if let Some(item) = self.config(value, depth + 1, checks_keys) {
                if depth == 0 {
                    self.check_size(value, &format!("config `{}`", Excerpt(name)), &item);
                }
                map.insert(self.key(name), item);
            }
        }
        Some(Node::Map(map))
    }

    /// Reports a config or a workload over the bound of its size.
    fn check_size(&mut self, at: &Yaml<'_>, what: &str, value: &Node) {
        let bytes = convert::encoded_len(value);
        if bytes > MAX_VALUE_BYTES {
            self.fault::<()>(at, too_large(what, bytes));
        }
    }

    /// Reads a config, or a value inside one. A collection at `node` has the level `depth`.
    pub(super) fn config(
        &mut self,
        node: &Yaml<'_>,
        depth: usize,
        checks_keys: bool,
    ) -> Option<Node> {
        match &node.data {
            Data::Mapping(_) | Data::Sequence(_) if depth > MAX_NESTING => {
                self.fault(node, too_deep("this config"))
            }
            Data::Mapping(_) => self.config_map(node, "a config", (depth, checks_keys)),
            Data::Sequence(items) => {
                // Faulty items are left out: the manifest is refused for them anyway.
                let values = items.iter().filter_map(|item| {
                    // As for an update (docs/protocol.md#names-and-versions).
                    let checks_keys = checks_keys && !matches!(item.data, Data::Sequence(_));
                    self.config(item, depth + 1, checks_keys)
                });
                Some(Node::seq(values.collect::<Vec<_>>()))
            }
            _ => self.text(node, "a config").map(|text| self.leaf(&text)),
        }
    }

    /// Reports references to missing configs, and cycles of dependencies.
    fn references(&mut self, entries: &[Entry<'_, '_>]) {
        let section = |wanted| {
            let found = entries.iter().find(|(name, ..)| *name == wanted);
            found.map(|(_, _, value)| children(value)).unwrap_or_default()
        };
        let configs = section("configs");
        let known: Vec<_> = configs.iter().map(|(name, ..)| *name).collect();
        let is_known: HashSet<_> = known.iter().copied().collect();
        let workloads: BTreeMap<_, _> =
            section("workloads").into_iter().map(|(name, _, value)| (name, value)).collect();
        for (name, workload) in &workloads {
            for (_, _, value) in below(workload, "configs") {
                let Some(key) = value.as_str().filter(|key| !is_known.contains(key)) else {
                    continue;
                };
                let (hint, key) = (self.did_you_mean(key, &known), Excerpt(key));
                let text =
                    format!("Workload references config key '{key}' that does not exist{hint}");
                self.fault::<()>(value, text);
            }
            for (on, key, _) in below(workload, "dependencies") {
                // Asked for each dependency, so the fault stands at each link of the cycle.
                if reaches(on, name, &workloads) {
                    let on = Excerpt(on);
                    let text = format!("workload dependency '{on}' is part of a cycle.");
                    self.fault::<()>(key, text);
                }
            }
        }
    }

    /// The entries of a mapping; every key without a text is a fault.
    pub(super) fn entries<'n, 'i>(
        &mut self,
        node: &'n Yaml<'i>,
        what: &str,
    ) -> Option<Vec<Entry<'n, 'i>>> {
        let Data::Mapping(entries) = &node.data else {
            return self
                .fault(node, format!("{what} is {}, and a mapping belongs here", kind(node)));
        };
        let mut named = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            match key.as_str() {
                Some(name) => named.push((name, key, value)),
                None => {
                    let text = format!("a name in {what} is {}; put it in quotes", kind(key));
                    self.fault::<()>(key, text);
                }
            }
        }
        Some(named)
    }

    pub(super) fn items<'n, 'i>(
        &mut self,
        node: &'n Yaml<'i>,
        what: &str,
    ) -> Option<&'n [Yaml<'i>]> {
        match &node.data {
            Data::Sequence(items) => Some(items),
            _ => self.fault(node, format!("{what} is {}, and a sequence belongs here", kind(node))),
        }
    }

    pub(super) fn text(&mut self, node: &Yaml<'_>, what: &str) -> Option<String> {
        let message = match &node.data {
            Data::Scalar(scalar) if scalar.kind == ScalarKind::Text => {
                return Some(scalar.text.to_string());
            }
            // As written: the text 3.10 is not the number 3.1.
            Data::Scalar(scalar) if scalar.kind != ScalarKind::Null => {
                format!("{what} is {}; quote it: \"{}\"", kind(node), Excerpt(&scalar.text))
            }
            _ => format!("{what} is {}, and a string belongs here", kind(node)),
        };
        self.fault(node, message)
    }

    pub(super) fn one_of(&mut self, node: &Yaml<'_>, what: &str, known: &[&str]) -> Option<Node> {
        let text = self.text(node, what)?;
        if known.contains(&text.as_str()) {
            return Some(self.leaf(&text));
        }
        let (hint, text) = (self.did_you_mean(&text, known), Excerpt(&text));
        self.fault(node, format!("{what} is `{text}`{hint}; it can be {}", known.join(", ")))
    }

    /// A hint at the nearest known name, if it is near enough.
    fn did_you_mean(&mut self, name: &str, known: &[&str]) -> String {
        self.compared += known.len();
        // No reader of a thousand faults waits for the hint of the last.
        let near = (self.compared <= MOST_COMPARISONS)
            .then(|| nearest(name, known.iter().copied(), 1 + name.len() / 3));
        match near.flatten() {
            Some(best) => format!(" (did you mean `{best}`?)"),
            None => String::new(),
        }
    }

    pub(super) fn unknown_key<T>(
        &mut self,
        key: &Yaml<'_>,
        name: &str,
        what: &str,
        known: &[&str],
    ) -> Option<T> {
        let (hint, name) = (self.did_you_mean(name, known), Excerpt(name));
        let known = known.join(", ");
        self.fault(key, format!("unknown key `{name}` in {what}{hint}; known are {known}"))
    }
}

fn bounded(message: String) -> String {
    if message.len() <= MOST_IN_MESSAGE {
        return message;
    }
    Shortened(&message, MOST_IN_MESSAGE).to_string()
}

fn children<'n, 'i>(node: &'n Yaml<'i>) -> Vec<Entry<'n, 'i>> {
    let Data::Mapping(entries) = &node.data else { return Vec::new() };
    entries.iter().filter_map(|(key, value)| Some((key.as_str()?, key, value))).collect()
}

/// The entries of the mapping `field` of a workload.
fn below<'n, 'i>(workload: &'n Yaml<'i>, field: &str) -> Vec<Entry<'n, 'i>> {
    let found = children(workload).into_iter().find(|(name, ..)| *name == field);
    found.map(|(_, _, value)| children(value)).unwrap_or_default()
}

/// Whether the dependencies of `from` lead to `to`.
fn reaches(from: &str, to: &str, workloads: &BTreeMap<&str, &Yaml<'_>>) -> bool {
    // `seen` ends the walk in a cycle without `to`.
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(name) = next.pop() {
        if name == to {
            return true;
        }
        if let Some((name, workload)) = workloads.get_key_value(name)
            && seen.insert(*name)
        {
            next.extend(below(workload, "dependencies").into_iter().map(|(on, ..)| on));
        }
    }
    false
}

fn kind(node: &Yaml<'_>) -> &'static str {
    match &node.data {
        Data::Scalar(scalar) => match scalar.kind {
            ScalarKind::Text => "a string",
            ScalarKind::Null => "empty",
            ScalarKind::Boolean => "true or false",
            ScalarKind::Number => "a number",
        },
        Data::Sequence(_) => "a sequence",
        Data::Mapping(_) => "a mapping",
        Data::Bad => "something that cannot be used here",
    }
}
