//! The naive model of the state: whole trees as JSON, walked from end to end each time.
//!
//! Reads, differences and their three lists are written down as the protocol's text defines them
//! (docs/protocol.md#masks, docs/protocol.md#events, docs/differences.md#7-altered-fields-are-sorted,
//! docs/differences.md#8-no-mask-means-everything, docs/differences.md#9-no-missed-events,
//! docs/differences.md#10-paths-lead-somewhere), without any thought of cost.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

pub(crate) type Path = Vec<String>;

/// The segments of a mask or path; none for the empty text.
pub(crate) fn split(text: &str) -> Path {
    match text {
        "" => Path::new(),
        _ => text.split('.').map(str::to_owned).collect(),
    }
}

pub(crate) fn join(path: &[String]) -> String {
    path.join(".")
}

pub(crate) fn at<'a, S: AsRef<str>>(tree: &'a Value, path: &[S]) -> Option<&'a Value> {
    path.iter().try_fold(tree, |node, name| node.as_object()?.get(name.as_ref()))
}

/// Puts `value` at `path`, making its parents.
pub(crate) fn put(tree: &mut Value, path: &[String], value: Value) {
    let Some((last, parents)) = path.split_last() else {
        *tree = value;
        return;
    };
    let mut node = tree;
    for name in parents {
        let map = as_map(node);
        node = map.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
    }
    as_map(node).insert(last.clone(), value);
}

fn as_map(node: &mut Value) -> &mut Map<String, Value> {
    if !node.is_object() {
        *node = Value::Object(Map::new());
    }
    node.as_object_mut().unwrap()
}

pub(crate) fn remove(tree: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut node = tree;
    for name in parents {
        let Some(below) = node.as_object_mut().and_then(|map| map.get_mut(name)) else { return };
        node = below;
    }
    if let Some(map) = node.as_object_mut() {
        map.shift_remove(last);
    }
}

/// Every node of the tree but the root, parents first.
fn nodes(tree: &Value) -> Vec<(Path, &Value)> {
    let mut found = Vec::new();
    walk(tree, &mut Vec::new(), &mut found);
    found
}

fn walk<'a>(node: &'a Value, path: &mut Path, found: &mut Vec<(Path, &'a Value)>) {
    let Some(map) = node.as_object() else { return };
    for (key, below) in map {
        path.push(key.clone());
        found.push((path.clone(), below));
        walk(below, path, found);
        path.pop();
    }
}

/// Scalars and sequences. An empty mapping is no value that a reader could hold.
pub(crate) fn leaves(tree: &Value) -> Vec<(Path, &Value)> {
    nodes(tree).into_iter().filter(|(_, node)| !node.is_object()).collect()
}

/// Whether the mask is the path, name by name.
fn is(mask: &[String], path: &[String]) -> bool {
    mask.len() == path.len() && begins(mask, path)
}

/// Whether the path lies at or below what the mask names.
pub(crate) fn begins(mask: &[String], path: &[String]) -> bool {
    mask.len() <= path.len()
        && mask.iter().zip(path).all(|(mask, name)| mask == "*" || mask == name)
}

/// What a list of masks means.
#[derive(Clone, Debug)]
pub(crate) struct Masks {
    pub(crate) texts: Vec<String>,
    paths: Vec<Path>,
}

impl Masks {
    pub(crate) fn new(texts: &[String]) -> Self {
        Self { texts: texts.to_vec(), paths: texts.iter().map(|text| split(text)).collect() }
    }

    /// No mask, or an empty one, means everything.
    pub(crate) fn everything(&self) -> bool {
        self.paths.is_empty() || self.paths.iter().any(Vec::is_empty)
    }

    /// Whether a mask names this path or something above it.
    pub(crate) fn name(&self, path: &[String]) -> bool {
        self.everything() || self.paths.iter().any(|mask| begins(mask, path))
    }

    /// Whether a mask goes on below this place.
    pub(crate) fn look_below(&self, place: &[String]) -> bool {
        let mut longer = self.paths.iter().filter(|mask| mask.len() > place.len());
        longer.any(|mask| begins(&mask[..place.len()], place))
    }

    fn list(&self) -> Vec<Path> {
        if self.everything() { vec![Path::new()] } else { self.paths.clone() }
    }
}

/// What a read of these masks gives.
pub(crate) fn read(tree: &Value, masks: &Masks) -> Value {
    if masks.everything() {
        return tree.clone();
    }
    let mut found = Value::Object(Map::new());
    for (path, node) in nodes(tree) {
        if masks.paths.iter().any(|mask| is(mask, &path)) {
            put(&mut found, &path, node.clone());
        }
    }
    complete(tree, &mut found, &masks.texts);
    found
}

/// Adds what never is told without: the version of a State, and the halves of an execution state.
fn complete(tree: &Value, found: &mut Value, texts: &[String]) {
    for part in ["desiredState", "effectiveState"] {
        let wanted = texts.iter().any(|text| text.starts_with(part)) || found.get(part).is_some();
        let path = [part.to_owned(), "apiVersion".to_owned()];
        if let Some(version) = at(tree, &path).filter(|_| wanted) {
            put(found, &path, version.clone());
        }
    }
    for (path, _) in nodes(&found.clone()) {
        if is_half(&path) {
            for half in ["state", "subState"] {
                let path = [&path[..4], &[half.to_owned()]].concat();
                put(found, &path, at(tree, &path).unwrap().clone());
            }
        }
    }
}

fn is_half(path: &[String]) -> bool {
    path.len() == 5 && path[0] == "workloadStates" && (path[4] == "state" || path[4] == "subState")
}

/// Whether a message may hold this leaf beside those that were asked for.
pub(crate) fn comes_along(path: &[String], beside: &Value) -> bool {
    let version = path.len() == 2
        && path[1] == "apiVersion"
        && (path[0] == "desiredState" || path[0] == "effectiveState");
    version || (is_half(path) && at(beside, &path[..4]).is_some())
}

/// Which list a path belongs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Added,
    Updated,
    Removed,
}

/// The highest place at which two trees differ.
struct Difference<'a> {
    path: Path,
    kind: Kind,
    /// What came or went as a whole.
    node: &'a Value,
}

fn differences<'a>(old: &'a Value, new: &'a Value) -> Vec<Difference<'a>> {
    let mut found = Vec::new();
    compare(old, new, &mut Vec::new(), &mut found);
    found
}

fn compare<'a>(old: &'a Value, new: &'a Value, path: &mut Path, found: &mut Vec<Difference<'a>>) {
    let (Some(olds), Some(news)) = (old.as_object(), new.as_object()) else { return };
    let keys: BTreeSet<_> = olds.keys().chain(news.keys()).collect();
    for key in keys {
        path.push(key.clone());
        let mut tell = |kind, node| found.push(Difference { path: path.clone(), kind, node });
        match (olds.get(key), news.get(key)) {
            (None, Some(node)) => tell(Kind::Added, node),
            (Some(node), None) => tell(Kind::Removed, node),
            (Some(old), Some(new)) if old.is_object() && new.is_object() => {
                compare(old, new, path, found);
            }
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) if is_empty(old) && new.is_array() => tell(Kind::Added, new),
            (Some(old), Some(new)) if is_empty(new) && old.is_array() => tell(Kind::Removed, old),
            (_, Some(new)) => tell(Kind::Updated, new),
            (None, None) => {}
        }
        path.pop();
    }
}

fn is_empty(node: &Value) -> bool {
    node.as_array().is_some_and(Vec::is_empty)
}

/// What an event tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) added: BTreeSet<String>,
    pub(crate) updated: BTreeSet<String>,
    pub(crate) removed: BTreeSet<String>,
    pub(crate) state: Value,
    /// Places that are told of which not all comes along.
    pub(crate) partial: Vec<Path>,
    /// It tells all that the masks name, whatever differs.
    pub(crate) resync: bool,
}

impl Event {
    /// All that it says is another.
    pub(crate) fn paths(&self) -> impl Iterator<Item = Path> {
        self.added.iter().chain(&self.updated).chain(&self.removed).map(|path| split(path))
    }
}

/// The event that leads a subscriber who knows `old` to `new`; none if it sees no difference.
pub(crate) fn event(old: &Value, new: &Value, masks: &Masks) -> Option<Event> {
    let mut event = Event { state: Value::Object(Map::new()), ..Event::default() };
    for difference in differences(old, new) {
        for mask in masks.list() {
            for path in told(&difference, &mask) {
                event.tell(new, &path, &mask, &difference);
            }
        }
    }
    let texts: Vec<_> =
        [&event.added, &event.updated, &event.removed].into_iter().flatten().cloned().collect();
    if texts.is_empty() {
        return None;
    }
    complete(new, &mut event.state, &texts);
    Some(event)
}

/// The event for a subscriber of whom it is not known any more what it was told: all that its masks
/// name, as updated, each mask up to its first `*`; a `*` in front is each part of the state.
pub(crate) fn resync(new: &Value, masks: &Masks) -> Event {
    let mut updated = BTreeSet::new();
    for mask in masks.list() {
        let firsts: Vec<_> = match mask.first() {
            Some(name) if name != "*" => vec![name.as_str()],
            _ => vec!["agents", "desiredState", "effectiveState", "workloadStates"],
        };
        let names: Vec<_> = mask.iter().skip(1).take_while(|name| *name != "*").cloned().collect();
        updated.extend(
            firsts.iter().map(|first| [&[(*first).to_owned()], &names[..]].concat().join(".")),
        );
    }
    Event { updated, state: read(new, masks), resync: true, ..Event::default() }
}

/// The places of one difference that one mask tells.
fn told(difference: &Difference<'_>, mask: &[String]) -> Vec<Path> {
    let here = &difference.path;
    if begins(mask, here) {
        return vec![here.clone()];
    }
    if mask.len() <= here.len() || difference.kind == Kind::Updated {
        return Vec::new();
    }
    let below = nodes(difference.node).into_iter().map(|(path, _)| [&here[..], &path].concat());
    below.filter(|path| is(mask, path)).collect()
}

impl Event {
    /// A key that no path can name is told as its parent, which comes along whole, unless the mask
    /// looks deeper than that key (docs/differences.md#10-paths-lead-somewhere).
    fn tell(&mut self, new: &Value, path: &[String], mask: &[String], of: &Difference<'_>) {
        let odd = path.iter().position(|key| key.contains('.') || key == "*");
        let (told, kind) = match odd {
            Some(odd) if odd < of.path.len() => (&path[..odd], Kind::Updated),
            Some(odd) => (&path[..odd], of.kind),
            None => (path, of.kind),
        };
        let list = match kind {
            Kind::Added => &mut self.added,
            Kind::Updated => &mut self.updated,
            Kind::Removed => &mut self.removed,
        };
        list.insert(join(told));
        let whole = odd.is_none() || mask.len() <= told.len() + 1;
        let carried = if whole { told } else { path };
        if !whole {
            self.partial.push(told.to_vec());
        }
        if let Some(node) = at(new, carried) {
            merge(&mut self.state, carried, node);
        }
    }
}

fn merge(into: &mut Value, path: &[String], node: &Value) {
    match (at(into, path), node.as_object()) {
        (Some(Value::Object(_)), Some(map)) => {
            for (key, below) in map {
                merge(into, &[path, std::slice::from_ref(key)].concat(), below);
            }
        }
        _ => put(into, path, node.clone()),
    }
}

/// Places where a mapping became something else, or the other way round. Whoever looks deeper than
/// such a place is not told (as recorded in the vectors, `server/type-change`).
pub(crate) fn kind_changes(old: &Value, new: &Value) -> Vec<Path> {
    let changed = differences(old, new).into_iter().filter(|own| own.kind == Kind::Updated);
    let mapping = |tree, path: &Path| at(tree, path).is_some_and(Value::is_object);
    changed.map(|own| own.path).filter(|path| mapping(old, path) != mapping(new, path)).collect()
}

/// What a client makes of an event: the view that it had, without what the lists name, and with what
/// came along.
pub(crate) fn follow(view: &mut Value, event: &Event) {
    for path in event.paths() {
        remove(view, &path);
    }
    for (path, leaf) in leaves(&event.state) {
        put(view, &path, leaf.clone());
    }
}

mod tests {
    use serde_json::json;

    use super::*;

    fn masks(texts: &[&str]) -> Masks {
        Masks::new(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    fn lists(old: &Value, new: &Value, texts: &[&str]) -> [Vec<String>; 3] {
        let event = event(old, new, &masks(texts)).unwrap_or_default();
        [event.added, event.updated, event.removed].map(|list| list.into_iter().collect())
    }

    /// The worked examples of docs/protocol.md#event-examples, as
    /// docs/differences.md#7-altered-fields-are-sorted, docs/differences.md#8-no-mask-means-everything,
    /// docs/differences.md#9-no-missed-events, docs/differences.md#10-paths-lead-somewhere want them.
    #[test]
    fn naive_model_tells_the_worked_examples() {
        let with = |workloads: Value| {
            json!({"desiredState": {"apiVersion": "v1",
            "workloads": workloads}})
        };
        let x = json!({"agent": "agent_A", "runtime": "podman", "tags": {"k": "v"}});
        let (none, one) = (with(json!({})), with(json!({ "x": x })));
        let none_of = |list: &str| [vec![list.to_owned()], vec![], vec![]];
        assert_eq!(
            lists(&none, &one, &["desiredState.workloads"]),
            none_of("desiredState.workloads.x")
        );
        let tags = "desiredState.workloads.x.tags";
        assert_eq!(lists(&none, &one, &[tags]), none_of(tags));
        assert_eq!(lists(&one, &none, &[tags])[2], [tags]);
        assert_eq!(
            lists(&none, &one, &["desiredState.workloads.x.*"])[0],
            ["agent", "runtime", "tags"].map(|name| format!("desiredState.workloads.x.{name}"))
        );
        let other = with(json!({"x": {"agent": "agent_A", "runtime": "podman",
            "tags": {"k": "v2", "my.tag": "m"}}}));
        let told = lists(&one, &other, &["desiredState.workloads.x"]);
        assert_eq!(told, [vec![], vec![tags.to_owned(), format!("{tags}.k")], vec![]]);
    }
}
