//! Approximate memory of a state, to bound it. An update adjusts it at the cost of the change.

use super::{Map, Node, Tree};

/// Cost of a value beside its name and its text.
const HOLDER: usize = 64;

/// Weight of `new`, given the `weight` of `old`: every name and value in bytes, and 64 for each.
#[must_use]
pub fn weight_after(old: &Tree, weight: usize, new: &Tree) -> usize {
    let mut change = Change::default();
    change.between(old.root(), new.root());
    (weight + change.more).saturating_sub(change.less)
}

#[derive(Default)]
struct Change {
    more: usize,
    less: usize,
}

impl Change {
    /// Adds the differences; shared parts of the two versions are skipped.
    fn between(&mut self, old: &Map<Node>, new: &Map<Node>) {
        if old.ptr_eq(new) {
            return;
        }
        old.diff(new, |key, old, new| match (old, new) {
            (Some(Node::Map(old)), Some(Node::Map(new))) => self.between(old, new),
            (old, new) => {
                let entry = |node| HOLDER + key.as_str().len() + of(node);
                self.less += old.map_or(0, entry);
                self.more += new.map_or(0, entry);
            }
        });
    }
}

fn of(node: &Node) -> usize {
    match node {
        Node::Map(map) => {
            map.iter().map(|(key, node)| HOLDER + key.as_str().len() + of(node)).sum()
        }
        Node::Seq(values) => values.iter().map(|node| HOLDER + of(node)).sum(),
        Node::Str(text) => text.len(),
        Node::Uint(_) | Node::Unset => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(pairs: &[(&str, &str)]) -> Tree {
        let configs = pairs.iter().map(|(key, value)| (*key, Node::text(value)));
        Tree::from_root([("configs".into(), Node::map(configs))].into_iter().collect())
    }

    #[test]
    fn weight_that_follows_changes_is_that_of_the_whole() {
        let empty = Tree::from_root(Map::default());
        let whole = |tree: &Tree| weight_after(&empty, 0, tree);
        let steps: [&[(&str, &str)]; 5] =
            [&[("a", "1")], &[("a", "12"), ("b", "")], &[("b", "xyz")], &[("c", "")], &[]];
        let (mut before, mut weight) = (empty.clone(), 0);
        for step in steps.map(tree) {
            weight = weight_after(&before, weight, &step);
            assert_eq!(weight, whole(&step));
            before = step;
        }
        assert_eq!(whole(&tree(&[("ab", "123")])), (64 + 7) + (64 + 2 + 3));
        assert_eq!(weight_after(&before, weight, &empty), 0);
    }
}
