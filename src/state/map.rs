//! A persistent ordered map: a changed map shares all untouched nodes with the old one.
//!
//! Cloning is one reference count. Changing one of n entries copies O(log n) nodes of at most [`WIDTH`]
//! entries, and only nodes shared with another version. [`Map::diff`] skips shared nodes, so comparing
//! two versions costs as much as their difference. The map does not look at the values.

mod cursor;

use std::{fmt, sync::Arc};

use super::Key;

use cursor::{Cursor, Iter};

/// Most entries or children of a node. Nearly all maps of a state are small: one node of exactly their
/// size.
const WIDTH: usize = 32;

/// A node with fewer entries is joined with a neighbour.
const NARROW: usize = WIDTH / 4;

/// Most entries for a linear search. Different names mostly differ in length, and the length stands in
/// the entry, while the text is in other memory.
const FEW: usize = 8;

/// An ordered map from [`Key`] to `V` with cheap snapshots.
pub struct Map<V> {
    root: Option<Link<V>>,
}

/// A node of entries, in their order.
pub(super) type Leaf<V> = Arc<[(Key, V)]>;

enum Link<V> {
    Leaf(Leaf<V>),
    Branch(Arc<Branch<V>>),
}

#[derive(Clone)]
struct Branch<V> {
    /// Leaves are 0; all children of a branch are equally high.
    height: u8,
    len: usize,
    /// Never empty.
    children: Vec<Link<V>>,
}

/// Result of a change in a node: nothing, one node, or two.
enum Grown<V> {
    One(Link<V>),
    Two(Link<V>, Link<V>),
}

impl<V> Map<V> {
    /// The map without entries.
    #[must_use]
    pub const fn new() -> Self {
        Self { root: None }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.root.as_ref().map_or(0, Link::len)
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&V> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The entry of `key`, with the key as it is stored.
    #[must_use]
    pub fn get_key_value(&self, key: &str) -> Option<(&Key, &V)> {
        let mut link = self.root.as_ref()?;
        loop {
            match link {
                Link::Leaf(entries) => {
                    let (key, value) = &entries[position(entries, key)?];
                    return Some((key, value));
                }
                Link::Branch(branch) => link = &branch.children[branch.child_for(key)],
            }
        }
    }

    /// All entries in the order of their keys.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, V> {
        Iter(Cursor::new(self))
    }

    /// Calls `each` for every entry, the last first.
    pub(super) fn for_each_reversed<'a>(&'a self, each: &mut impl FnMut(&'a Key, &'a V)) {
        self.for_each_leaf_reversed(&mut |leaf| {
            leaf.iter().rev().for_each(|(key, value)| each(key, value));
        });
    }

    /// Whether it has more than one leaf.
    pub(super) fn is_large(&self) -> bool {
        matches!(self.root, Some(Link::Branch(_)))
    }

    /// Calls `each` for every leaf, the last first. Versions share the leaves without a difference.
    pub(super) fn for_each_leaf_reversed<'a>(&'a self, each: &mut impl FnMut(&'a Leaf<V>)) {
        if let Some(root) = &self.root {
            root.for_each_leaf_reversed(each);
        }
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.iter().map(|(key, _)| key)
    }

    /// Whether both are the same version, told in O(1). Equal contents may still differ here.
    #[must_use]
    pub fn ptr_eq(&self, other: &Self) -> bool {
        match (&self.root, &other.root) {
            (None, None) => true,
            (Some(a), Some(b)) => a.ptr_eq(b),
            _ => false,
        }
    }

    /// Calls `each` in key order for every key with an entry outside of the shared nodes: with the old
    /// value, the new one, or both. Both may be equal; the caller compares.
    pub fn diff<'a>(
        &'a self,
        new: &'a Self,
        each: impl FnMut(&'a Key, Option<&'a V>, Option<&'a V>),
    ) {
        match (&self.root, &new.root) {
            _ if self.ptr_eq(new) => {}
            // As nearly always: nothing has to be remembered.
            (Some(Link::Leaf(old)), Some(Link::Leaf(new))) => cursor::diff_leaves(old, new, each),
            _ => Cursor::new(self).diff(Cursor::new(new), each),
        }
    }
}

impl<V: Clone> Map<V> {
    /// Sets the value of `key`. The key is made only where it was not there.
    pub fn insert(&mut self, key: impl AsRef<str> + Into<Key>, value: V) {
        if let Some(place) = self.get_mut(key.as_ref()) {
            *place = value;
            return;
        }
        self.root = Some(match &self.root {
            None => Link::Leaf(Arc::new([(key.into(), value)])),
            Some(root) => match root.insert(key.into(), value) {
                Grown::One(link) => link,
                Grown::Two(left, right) => Link::branch(vec![left, right]),
            },
        });
    }

    /// The value of `key` for a change in this version alone: nodes shared with others are copied, all
    /// other nodes are changed in place.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.get(key)?; // or nodes would be copied for nothing
        self.root.as_mut()?.get_mut(key)
    }

    /// Removes the entry of `key`; tells whether there was one.
    pub fn remove(&mut self, key: &str) -> bool {
        // An absent key leaves the version as it is: `Link::remove` would copy nodes all the same.
        if self.get(key).is_none() {
            return false;
        }
        let mut root = self.root.as_ref().and_then(|root| root.remove(key));
        // A branch with one child is that child.
        while let Some(Link::Branch(branch)) = &root {
            let [only] = &branch.children[..] else { break };
            root = Some(only.clone());
        }
        self.root = root;
        true
    }
}

/// Where `key` is among the entries of a leaf.
fn position<V>(entries: &[(Key, V)], key: &str) -> Option<usize> {
    if entries.len() <= FEW {
        return entries.iter().position(|(own, _)| own.as_str() == key);
    }
    entries.binary_search_by(|(own, _)| own.as_str().cmp(key)).ok()
}

impl<V> Branch<V> {
    /// The child for `key`, if it is in the map.
    fn child_for(&self, key: &str) -> usize {
        // `insert` asks for absent keys, too: one in front of all goes to the first child.
        self.children.partition_point(|child| child.first_key().as_str() <= key).saturating_sub(1)
    }
}

impl<V> Link<V> {
    fn branch(children: Vec<Self>) -> Self {
        let height = 1 + children.first().map_or(0, Self::height);
        let len = children.iter().map(Self::len).sum();
        Self::Branch(Arc::new(Branch { height, len, children }))
    }

    fn height(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Branch(branch) => branch.height,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Branch(branch) => branch.len,
        }
    }

    /// Entries of a leaf, children of a branch.
    fn width(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Branch(branch) => branch.children.len(),
        }
    }

    fn first_key(&self) -> &Key {
        let mut link = self;
        loop {
            match link {
                // No node is empty: a map without entries has no root.
                Self::Leaf(entries) => return &entries[0].0,
                Self::Branch(branch) => link = &branch.children[0],
            }
        }
    }

    fn for_each_leaf_reversed<'a>(&'a self, each: &mut impl FnMut(&'a Leaf<V>)) {
        match self {
            Self::Leaf(entries) => each(entries),
            Self::Branch(branch) => {
                branch.children.iter().rev().for_each(|child| child.for_each_leaf_reversed(each));
            }
        }
    }

    fn ptr_eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leaf(a), Self::Leaf(b)) => Arc::ptr_eq(a, b),
            (Self::Branch(a), Self::Branch(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl<V: Clone> Link<V> {
    fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        match self {
            Self::Leaf(entries) => {
                let at = position(entries, key)?;
                Arc::make_mut(entries).get_mut(at).map(|(_, value)| value)
            }
            Self::Branch(branch) => {
                let at = branch.child_for(key);
                Arc::make_mut(branch).children[at].get_mut(key)
            }
        }
    }

    /// Adds the absent `key`.
    fn insert(&self, key: Key, value: V) -> Grown<V> {
        match self {
            Self::Leaf(entries) => {
                let (before, after) = entries.split_at(entries.partition_point(|(k, _)| *k < key));
                let (before, after) = (before.iter().cloned(), after.iter().cloned());
                // One exact allocation: a leaf is an `Arc<[_]>` without room to grow.
                let entries = before.chain([(key, value)]).chain(after);
                if self.width() < WIDTH {
                    return Grown::One(Self::Leaf(entries.collect()));
                }
                Self::grown(entries.collect(), |part| Self::Leaf(part.into()))
            }
            Self::Branch(branch) => {
                let at = branch.child_for(key.as_str());
                // Copies links, not entries: the other children stay shared with the old version.
                let mut children = branch.children.clone();
                match children[at].insert(key, value) {
                    Grown::One(child) => children[at] = child,
                    Grown::Two(left, right) => {
                        children[at] = left;
                        children.insert(at + 1, right);
                    }
                }
                Self::grown(children, Self::branch)
            }
        }
    }

    /// A node of `parts`, or two if they are too many for one.
    fn grown<T>(mut parts: Vec<T>, node: impl Fn(Vec<T>) -> Self) -> Grown<V> {
        if parts.len() <= WIDTH {
            return Grown::One(node(parts));
        }
        // Halves, so that both have room for further keys on either side.
        let right = parts.split_off(parts.len() / 2);
        Grown::Two(node(parts), node(right))
    }

    /// Removes the present `key`; `None` if it was the last.
    fn remove(&self, key: &str) -> Option<Self> {
        match self {
            Self::Leaf(entries) => {
                let rest: Vec<_> =
                    entries.iter().filter(|(k, _)| k.as_str() != key).cloned().collect();
                (!rest.is_empty()).then(|| Self::Leaf(rest.into()))
            }
            Self::Branch(branch) => {
                let at = branch.child_for(key);
                let mut children = branch.children.clone();
                match children[at].remove(key) {
                    None => {
                        children.remove(at);
                    }
                    Some(child) => {
                        // A narrow child is joined with a neighbour, or removals would leave a
                        // tree of tiny leaves.
                        let narrow = child.width() < NARROW;
                        children[at] = child;
                        if narrow && children.len() > 1 {
                            // The last child has a neighbour on its left alone.
                            let left = at.min(children.len() - 2);
                            let right = children.remove(left + 1);
                            match children[left].join(&right) {
                                Grown::One(both) => children[left] = both,
                                Grown::Two(a, b) => {
                                    children[left] = a;
                                    children.insert(left + 1, b);
                                }
                            }
                        }
                    }
                }
                (!children.is_empty()).then(|| Self::branch(children))
            }
        }
    }

    /// Two neighbours of the same height as one node, or as two of about the same width.
    fn join(&self, right: &Self) -> Grown<V> {
        match (self, right) {
            (Self::Leaf(a), Self::Leaf(b)) => {
                let entries = a.iter().chain(b.iter()).cloned().collect();
                Self::grown(entries, |part| Self::Leaf(part.into()))
            }
            (Self::Branch(a), Self::Branch(b)) => {
                let children = a.children.iter().chain(&b.children).cloned().collect();
                Self::grown(children, Self::branch)
            }
            // Impossible: all children of a branch are equally high.
            _ => Grown::Two(self.clone(), right.clone()),
        }
    }
}

impl<V: Clone> FromIterator<(Key, V)> for Map<V> {
    /// Later entries of the same key win.
    fn from_iter<I: IntoIterator<Item = (Key, V)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        // Strictly sorted, as from another map: then there are no duplicates either.
        if !entries.is_sorted_by(|(a, _), (b, _)| a < b) {
            // `dedup_by` keeps the first of equals: by the stable sort, the one added last.
            entries.reverse();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            entries.dedup_by(|(a, _), (b, _)| a == b);
        }
        if entries.len() <= WIDTH {
            let root = (!entries.is_empty()).then(|| Link::Leaf(entries.into()));
            return Self { root };
        }
        let mut level: Vec<Link<V>> =
            pack(entries).into_iter().map(|part| Link::Leaf(part.into())).collect();
        while level.len() > 1 {
            level = pack(level).into_iter().map(Link::branch).collect();
        }
        Self { root: level.pop() }
    }
}

/// Cuts `parts` into runs of at most [`WIDTH`], all of about the same length.
fn pack<T>(parts: Vec<T>) -> Vec<Vec<T>> {
    // Full runs would leave a rest, maybe narrower than the tree allows (`NARROW`).
    let runs = parts.len().div_ceil(WIDTH).max(1);
    let each = parts.len().div_ceil(runs).max(1);
    let mut parts = parts.into_iter().peekable();
    let mut packed = Vec::with_capacity(runs);
    while parts.peek().is_some() {
        packed.push(parts.by_ref().take(each).collect());
    }
    packed
}

impl<V> Clone for Map<V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone() }
    }
}

impl<V> Clone for Link<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(entries) => Self::Leaf(Arc::clone(entries)),
            Self::Branch(branch) => Self::Branch(Arc::clone(branch)),
        }
    }
}

impl<V> Default for Map<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: PartialEq> PartialEq for Map<V> {
    fn eq(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        // Skips shared nodes: versions of one map compare at the cost of their difference.
        let mut equal = true;
        self.diff(other, |_, a, b| equal = equal && a == b);
        equal
    }
}

impl<V: Eq> Eq for Map<V> {}

impl<V: fmt::Debug> fmt::Debug for Map<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a, V> IntoIterator for &'a Map<V> {
    type Item = (&'a Key, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests;
