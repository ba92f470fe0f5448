//! Paths with wildcards, by which a request names parts of the state (docs/protocol.md#masks).
//!
//! Texts of a workload go in. Masks for matching come out, and selections that pick the parts of a list
//! of masks from a tree. No mask is rejected: a mask of nothing finds nothing.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{Key, Map, Node, tree};

/// One segment of a mask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Segment {
    /// `*`: any one name.
    Any,
    /// This name, may be empty.
    Key(Key),
}

impl Segment {
    /// Whether the segment stands for `key`.
    #[must_use]
    pub(crate) fn matches(&self, key: &Key) -> bool {
        match self {
            Self::Any => true,
            Self::Key(own) => own == key,
        }
    }
}

/// A path in which `*` stands for any one name.
///
/// The empty text is the path without segments and means everything; otherwise the text is cut at every
/// `.`, so segments may be empty (`workloadStates..un`).
///
/// Masks are ordered by their segments, so masks with a common beginning are neighbours.
#[derive(Clone, PartialOrd, Ord)]
pub struct Mask {
    segments: Arc<[Segment]>,
    text: Arc<str>,
}

/// By the text alone: different texts have different segments.
impl PartialEq for Mask {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Mask {}

/// As [`PartialEq`]: each read looks its masks up.
impl Hash for Mask {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Mask {
    /// Parses a mask. Every text is one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let segment = |name| if name == "*" { Segment::Any } else { Segment::Key(Key::from(name)) };
        let segments = match text {
            // A split would make one empty name of it (docs/protocol.md#masks).
            "" => Arc::default(),
            _ => {
                // Of known length, so they are not collected twice.
                let count = text.bytes().filter(|byte| *byte == b'.').count() + 1;
                let mut names = text.split('.');
                (0..count).map(|_| segment(names.next().unwrap_or_default())).collect()
            }
        };
        Self { segments, text: text.into() }
    }

    /// The mask as it was sent.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The segments; none if the mask means everything.
    #[must_use]
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether a segment is `*`.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.segments.contains(&Segment::Any)
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

/// The masks of one request, in order and without duplicates.
///
/// An empty list, or an empty mask, means everything (docs/differences.md#8-no-mask-means-everything).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MaskSet {
    masks: Arc<[Mask]>,
}

impl MaskSet {
    /// Parses a set of masks.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut masks: Vec<_> = texts.into_iter().map(|text| Mask::parse(text.as_ref())).collect();
        // A mask of everything makes all others redundant.
        if masks.iter().any(|mask| mask.segments().is_empty()) {
            masks.clear();
        }
        // Equal sets have equal lists: subscribers with the same masks form one group.
        masks.sort();
        masks.dedup();
        Self { masks: masks.into() }
    }

    /// Whether the set means everything; [`MaskSet::masks`] is empty then.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.masks.is_empty()
    }

    /// The masks, sorted by their segments.
    #[must_use]
    pub fn masks(&self) -> &[Mask] {
        &self.masks
    }
}

/// The parts to pick from a tree: a set of masks and paths, merged by their common beginnings.
#[derive(Debug, Default)]
pub struct Selection {
    ends: bool,
    any: Option<Box<Selection>>,
    keys: BTreeMap<Key, Selection>,
    /// Parts with their version requested by the mere beginning of a mask's text; root only.
    versions: Vec<&'static str>,
}

impl Selection {
    /// The selection of `masks`, with the additions of every answer (docs/protocol.md#additions).
    #[must_use]
    pub fn of_masks(masks: &[Mask]) -> Self {
        let mut selection = Self::default();
        for mask in masks {
            selection.add(mask.segments());
            selection.ask_version(mask.text());
        }
        selection
    }

    /// Adds a concrete path. Its keys are taken literally, also keys without a spelling as a mask.
    pub(super) fn add_path(&mut self, path: &[Key]) {
        // All others have no partner (see `add`).
        if path.len() == STATE_FIELD {
            let segments: Vec<_> = path.iter().cloned().map(Segment::Key).collect();
            return self.add(&segments);
        }
        path.iter().fold(self, Self::below).ends = true;
    }

    /// Adds the version of the part at the beginning of `text`, with anything behind
    /// (docs/protocol.md#additions: even `desiredStateX`).
    pub(super) fn ask_version(&mut self, text: &str) {
        for part in [tree::DESIRED_STATE, tree::EFFECTIVE_STATE] {
            if text.starts_with(part) && !self.versions.contains(&part) {
                self.versions.push(part);
            }
        }
    }

    pub(super) fn wants_version_of(&self, part: &str) -> bool {
        self.versions.contains(&part)
    }

    fn add(&mut self, segments: &[Segment]) {
        self.insert(segments);
        if let Some(partner) = state_partner(segments) {
            self.insert(&partner);
        }
    }

    fn insert(&mut self, segments: &[Segment]) {
        let end = segments.iter().fold(self, |at, segment| match segment {
            Segment::Any => at.any.get_or_insert_default(),
            Segment::Key(key) => at.below(key),
        });
        end.ends = true;
    }

    /// The union of these selections.
    fn union(all: &[&Self]) -> Self {
        let mut union = Self::default();
        all.iter().for_each(|own| union.take_in(own));
        union
    }

    fn take_in(&mut self, other: &Self) {
        // `versions` is of the root alone, and only selections below the root are united.
        self.ends |= other.ends;
        if let Some(any) = &other.any {
            self.any.get_or_insert_default().take_in(any);
        }
        for (key, below) in &other.keys {
            self.below(key).take_in(below);
        }
    }

    fn below(&mut self, key: &Key) -> &mut Self {
        self.keys.entry(key.clone()).or_default()
    }

    /// The selected part of the mapping; `None` if it is empty.
    pub(super) fn pick_map(&self, map: &Map<Node>) -> Option<Node> {
        match pick_map(map, &[self]) {
            Picked::Nothing => None,
            Picked::Whole => Some(Node::Map(map.clone())),
            Picked::Part(part) => Some(Node::Map(part)),
        }
    }
}

/// How many segments lead to a field of an execution state.
const STATE_FIELD: usize = 5;

/// `state` and `subState` of an execution state are halves of one value and never come alone.
fn state_partner(segments: &[Segment]) -> Option<Vec<Segment>> {
    let [part, agent, workload, id, Segment::Key(field)] = segments else { return None };
    let part_key = Key::from(tree::WORKLOAD_STATES);
    let partner = match field.as_str() {
        "state" => "subState",
        "subState" => "state",
        _ => return None,
    };
    // Behind a leading wildcard other parts are named too; only this one is completed.
    part.matches(&part_key).then(|| {
        let (agent, workload, id) = (agent.clone(), workload.clone(), id.clone());
        vec![Segment::Key(part_key), agent, workload, id, Segment::Key(partner.into())]
    })
}

/// Most selections followed side by side. More are merged first: otherwise many wildcard masks with the
/// same path would each be asked at each node below it.
const MOST_APART: usize = 8;

/// How much of a node is named.
enum Picked {
    Nothing,
    /// All of it: the node is shared, with nothing allocated for it.
    Whole,
    /// Some entries of a mapping.
    Part(Map<Node>),
}

fn pick(node: &Node, at: &[&Selection]) -> Picked {
    if at.iter().any(|selection| selection.ends) {
        return Picked::Whole;
    }
    node.as_map().map_or(Picked::Nothing, |map| pick_map(map, at))
}

fn pick_map(map: &Map<Node>, at: &[&Selection]) -> Picked {
    if at.iter().any(|selection| selection.ends) {
        return Picked::Whole;
    }
    if at.len() > MOST_APART {
        return pick_map(map, &[&Selection::union(at)]);
    }
    let names: usize = at.iter().map(|selection| selection.keys.len()).sum();
    // The smaller side is iterated: hundreds of names are not looked up in each small mapping.
    if names > map.len() || at.iter().any(|selection| selection.any.is_some()) {
        return pick_entries(map, at);
    }
    // The names of one selection are sorted and unique as they are.
    if let [only] = at {
        return pick_keys(map, only.keys.iter().map(|(key, below)| (key, [below])));
    }
    let mut wanted = BTreeMap::<_, Vec<_>>::new();
    for (key, below) in at.iter().flat_map(|selection| &selection.keys) {
        wanted.entry(key).or_default().push(below);
    }
    pick_keys(map, wanted.into_iter())
}

/// Picks by looking at each entry of the mapping.
fn pick_entries(map: &Map<Node>, at: &[&Selection]) -> Picked {
    // Entries are copied from the first one on that is not named as a whole.
    let mut part: Option<Vec<(Key, Node)>> = None;
    let mut next = Vec::with_capacity(2 * at.len());
    for (passed, (key, node)) in map.iter().enumerate() {
        next.clear();
        for selection in at {
            next.extend(selection.any.as_deref());
            next.extend(selection.keys.get(key));
        }
        let picked = pick(node, &next);
        if part.is_none() && !matches!(picked, Picked::Whole) {
            let before = map.iter().take(passed);
            part = Some(before.map(|(key, node)| (key.clone(), node.clone())).collect());
        }
        if let Some(part) = &mut part {
            part.extend(picked.of(key, node));
        }
    }
    match part {
        // A wildcard names entries, and here are none (docs/protocol.md#reads).
        None if map.is_empty() => Picked::Nothing,
        None => Picked::Whole,
        Some(part) => Picked::some_of(part),
    }
}

/// Picks by looking up each name; names are sorted.
fn pick_keys<'a, S: AsRef<[&'a Selection]>>(
    map: &Map<Node>,
    wanted: impl ExactSizeIterator<Item = (&'a Key, S)>,
) -> Picked {
    let mut part = Vec::with_capacity(wanted.len());
    for (key, below) in wanted {
        // The key of the state, not of the mask: answers share its text.
        let Some((key, node)) = map.get_key_value(key.as_str()) else { continue };
        part.extend(pick(node, below.as_ref()).of(key, node));
    }
    Picked::some_of(part)
}

impl Picked {
    /// The entry for the selected part of `node`.
    fn of(self, key: &Key, node: &Node) -> Option<(Key, Node)> {
        match self {
            Self::Nothing => None,
            Self::Whole => Some((key.clone(), node.clone())),
            Self::Part(part) => Some((key.clone(), Node::Map(part))),
        }
    }

    fn some_of(part: Vec<(Key, Node)>) -> Self {
        if part.is_empty() { Self::Nothing } else { Self::Part(part.into_iter().collect()) }
    }
}
