//! Reuse of old values for equal new ones: equal values stand in memory once. So a later comparison of
//! the versions costs as much as the difference.

use super::{Map, Node};

/// Replaces parts of `new` by equal parts of `old`.
pub(super) fn reused(old: Option<&Node>, new: &Node) -> Node {
    match (old, new) {
        (Some(Node::Map(old)), Node::Map(new)) => {
            let mut new = new.clone();
            reuse(old, &mut new);
            Node::Map(new)
        }
        (Some(old), new) if old == new => old.clone(),
        _ => new.clone(),
    }
}

/// Makes `new` of the nodes of `old` wherever they are equal.
pub(super) fn reuse(old: &Map<Node>, new: &mut Map<Node>) {
    let (mut changed, mut moved) = (Vec::new(), false);
    old.diff(new, |key, was, is| match (was, is) {
        (Some(was), Some(is)) if was.ptr_eq(is) => {}
        (Some(Node::Map(was)), Some(Node::Map(is))) => {
            let mut below = is.clone();
            reuse(was, &mut below);
            // Entries came back to their old place, and `new` still has the other copy of them.
            moved |= !below.ptr_eq(is);
            if !below.ptr_eq(was) {
                changed.push((key.clone(), Some(Node::Map(below))));
            }
        }
        (Some(was), Some(is)) if was == is => moved = true,
        (_, is) => changed.push((key.clone(), is.cloned())),
    });
    // What was made of `old` shares with it already.
    if changed.is_empty() || moved {
        let mut shared = old.clone();
        for (key, value) in changed {
            match value {
                Some(value) => shared.insert(key, value),
                None => drop(shared.remove(key.as_str())),
            }
        }
        *new = shared;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> Map<Node> {
        entries.iter().map(|(key, value)| ((*key).into(), Node::text(value))).collect()
    }

    #[test]
    fn what_is_equal_is_the_old_one_and_what_differs_is_the_new_one() {
        let old = map(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let mut same = map(&[("a", "1"), ("b", "2"), ("c", "3")]);
        assert!(!same.ptr_eq(&old));
        reuse(&old, &mut same);
        assert!(same.ptr_eq(&old));
        let wanted = map(&[("a", "1"), ("b", "other"), ("d", "4")]);
        let mut new = wanted.clone();
        reuse(&old, &mut new);
        assert_eq!(new, wanted);
        assert!(new.get("a").unwrap().ptr_eq(old.get("a").unwrap()));
        assert!(!new.get("b").unwrap().ptr_eq(old.get("b").unwrap()));
    }

    #[test]
    fn what_was_made_of_the_old_one_stays_as_it_is() {
        let old = map(&[("a", "1"), ("b", "2")]);
        let mut new = old.clone();
        new.insert("b", Node::text("3"));
        let before = new.clone();
        reuse(&old, &mut new);
        assert!(new.ptr_eq(&before));
    }
}
