//! The two steps of an update: masks put a state together, and validation accepts it. Between the two, a
//! caller can check the rights that depend on the result.

use std::collections::BTreeSet;

use super::{UpdateError, Updated};
use crate::state::{
    AGENTS, API_VERSION, DESIRED_STATE, EFFECTIVE_STATE, Key, Map, Mask, Node, Segment, Tree,
    WORKLOAD_STATES,
    schema::{AGENT, Kind, Record, STATE, WORKLOAD},
    validate,
};

/// `current` after the result of [`propose`], if it keeps the rules.
///
/// # Errors
/// The first fault; `current` stays valid.
pub(crate) fn accept(current: &Tree, proposed: &Map<Node>) -> Result<Updated, UpdateError> {
    let desired = proposed.get(DESIRED_STATE).cloned();
    let valid = validate::validate(current.get(&[DESIRED_STATE]), desired)?;
    // Only this part and the tags below can be set: the rest of the proposal is dropped here
    // (docs/protocol.md#updates).
    let mut tree = current.with(DESIRED_STATE, Some(valid.desired));
    if let Some(wanted) = proposed.get(AGENTS).and_then(Node::as_map) {
        let agents = current.entries(&[AGENTS]);
        // Most updates leave the agents alone, and then nothing is walked.
        if !agents.ptr_eq(wanted) {
            tree = tree.with(AGENTS, Some(Node::Map(take_tags(agents.clone(), wanted))));
        }
    }
    Ok(Updated { tree, changes: valid.changes })
}

/// The desired state and the agents as put together by the masks, unchecked, beside read-only parts.
///
/// # Errors
/// A mask that leads nowhere.
pub fn propose(current: &Tree, new_state: &Tree, masks: &[Mask]) -> Result<Map<Node>, UpdateError> {
    if masks.is_empty() {
        let missing = |what: &str| UpdateError::Shape(format!("Missing field '{what}'"));
        let desired = new_state.get(&[DESIRED_STATE]).ok_or_else(|| missing(DESIRED_STATE))?;
        // Has to be there, also if empty (docs/protocol.md#empty-update-mask).
        desired.get("workloads").ok_or_else(|| missing("desiredState.workloads"))?;
        // The whole desired state is replaced; validation compares it with the current one.
        return Ok(new_state.root().clone());
    }
    let mut draft = Draft::of(current);
    masks.iter().try_for_each(|mask| draft.take(new_state, mask))?;
    Ok(draft.root)
}

/// `agents` with the tags of the agents listed in `wanted`. An update adds no agent, removes none, and
/// changes nothing else of one.
fn take_tags(mut agents: Map<Node>, wanted: &Map<Node>) -> Map<Node> {
    for (name, wanted) in wanted {
        let Some(agent) = agents.get(name.as_str()) else { continue };
        let filled = |node: &Node| !node.is_empty_collection();
        let tags = wanted.get("tags").filter(|tags| filled(tags));
        // An empty mapping that an agent left behind is no difference either.
        if agent.get("tags").filter(|tags| filled(tags)) == tags {
            continue;
        }
        let mut agent = agent.as_map().cloned().unwrap_or_default();
        match tags {
            Some(tags) => agent.insert("tags", tags.clone()),
            None => {
                agent.remove("tags");
            }
        }
        agents.insert(name.clone(), Node::Map(agent));
    }
    agents
}

/// A copy of the settable parts, in the making.
///
/// Masks are applied to a form of the state in which an existing workload has all its collections, also
/// empty ones. So an update can set or remove a tag in a workload without tags.
struct Draft {
    root: Map<Node>,
    /// Paths of workloads and agents in this form, or set by a mask.
    spelled_out: BTreeSet<Vec<Key>>,
    /// All workloads were set by one mask; none is to be spelled out.
    replaced: bool,
}

impl Draft {
    fn of(current: &Tree) -> Self {
        let mut desired = current.entries(&[DESIRED_STATE]).clone();
        // Workloads get theirs one by one: masks address few of them (`expand_defaults`).
        add_collections(&STATE, &mut desired);
        let agents = current.entries(&[AGENTS]).clone();
        let root = [(AGENTS, agents), (DESIRED_STATE, desired)];
        Self {
            root: root.into_iter().map(|(name, part)| (name.into(), Node::Map(part))).collect(),
            spelled_out: BTreeSet::new(),
            replaced: false,
        }
    }

    /// Read-only parts are empty here: a mask has to lead somewhere, but without an effect.
    fn ensure_part(&mut self, path: &[Key]) {
        let empty = || Node::Map(Map::new());
        match path.first().map(Key::as_str) {
            Some(WORKLOAD_STATES) => ensure(&mut self.root, WORKLOAD_STATES, empty()),
            Some(EFFECTIVE_STATE) => {
                let state = [(API_VERSION, Node::text("v1")), ("workloads", empty())];
                ensure(&mut self.root, EFFECTIVE_STATE, Node::map(state));
            }
            _ => {}
        }
    }

    fn take(&mut self, new_state: &Tree, mask: &Mask) -> Result<(), UpdateError> {
        let path = concrete(mask)?;
        self.ensure_part(&path);
        self.expand_defaults(&path);
        // A mask without a value in the new state removes the path.
        let done = match find(new_state.root(), &path) {
            Some(value) => set(&mut self.root, &path, value.clone()),
            None => unset(&mut self.root, &path),
        };
        done.then_some(()).ok_or_else(|| UpdateError::FieldNotFound(mask.text().to_owned()))
    }

    /// Before a mask reaches into a workload or an agent for the first time, gives it all its
    /// collections.
    fn expand_defaults(&mut self, path: &[Key]) {
        let names: Vec<_> = path.iter().map(Key::as_str).collect();
        let (item, record) = match names[..] {
            [DESIRED_STATE] | [DESIRED_STATE, "workloads"] => {
                // Set by this update, they are as given: only existing ones are spelled out
                // (docs/protocol.md#update-masks).
                self.replaced = true;
                return;
            }
            [DESIRED_STATE, "workloads", ..] if self.replaced => return,
            [DESIRED_STATE, "workloads", _, ..] => (3, &WORKLOAD),
            [AGENTS, _, ..] => (2, &AGENT),
            _ => return,
        };
        let (item, below) = path.split_at(item);
        // Noted also if the mask sets the item itself: then a later mask finds it as given.
        if !self.spelled_out.insert(item.to_vec()) || below.is_empty() {
            return;
        }
        if let Some(Node::Map(found)) = find(&self.root, item) {
            let mut whole = found.clone();
            add_collections(record, &mut whole);
            set(&mut self.root, item, Node::Map(whole));
        }
    }
}

/// Adds the missing settable collections of a record, empty, and those of the records in it.
fn add_collections(record: &Record, fields: &mut Map<Node>) {
    for field in record.fields.iter().filter(|field| !field.read_only) {
        match field.kind {
            Kind::Map(_) | Kind::LargeMap(_) => ensure(fields, field.name, Node::Map(Map::new())),
            Kind::List(_) | Kind::Repeated(_) => ensure(fields, field.name, Node::seq([])),
            Kind::Record(inner) => {
                ensure(fields, field.name, Node::Map(Map::new()));
                if let Some(Node::Map(below)) = fields.get_mut(field.name) {
                    add_collections(inner, below);
                }
            }
            _ => {}
        }
    }
}

fn ensure(map: &mut Map<Node>, name: &str, value: Node) {
    if map.get(name).is_none() {
        map.insert(name, value);
    }
}

/// The path of a mask without wildcards.
fn concrete(mask: &Mask) -> Result<Vec<Key>, UpdateError> {
    let key = |segment: &Segment| match segment {
        Segment::Key(key) => Ok(key.clone()),
        Segment::Any => Err(UpdateError::Wildcard(mask.text().to_owned())),
    };
    mask.segments().iter().map(key).collect()
}

/// The value at `path`. Only here, a decimal name reaches into a sequence
/// (docs/protocol.md#update-masks).
pub(in crate::state) fn find<'a>(root: &'a Map<Node>, path: &[Key]) -> Option<&'a Node> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(root.get(first.as_str())?, |node, name| match node {
        Node::Map(map) => map.get(name.as_str()),
        Node::Seq(values) => values.get(name.as_str().parse::<usize>().ok()?),
        _ => None,
    })
}

/// Puts `value` at `path`, making missing parents; false if a parent is no mapping.
pub(in crate::state) fn set<K>(map: &mut Map<Node>, path: &[K], value: Node) -> bool
where
    K: AsRef<str> + Clone + Into<Key>,
{
    let Some((first, rest)) = path.split_first() else { return false };
    if rest.is_empty() {
        map.insert(first.clone(), value);
        return true;
    }
    match map.get_mut(first.as_ref()) {
        Some(Node::Map(below)) => set(below, rest, value),
        Some(_) => false,
        None => {
            let mut below = Map::new();
            set(&mut below, rest, value);
            map.insert(first.clone(), Node::Map(below));
            true
        }
    }
}

/// Removes the value at `path`, if there is one; false if its parent is no mapping.
pub(in crate::state) fn unset(map: &mut Map<Node>, path: &[impl AsRef<str>]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    if rest.is_empty() {
        map.remove(first.as_ref());
        return true;
    }
    match map.get_mut(first.as_ref()) {
        Some(Node::Map(below)) => unset(below, rest),
        _ => false,
    }
}
