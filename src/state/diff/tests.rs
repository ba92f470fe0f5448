//! Many masks at once give the union of the results of each.

use std::collections::BTreeSet;

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d.e"];

fn node(rng: &mut ChaCha8Rng, depth: usize) -> Node {
    if depth == 0 || rng.random_bool(0.2) {
        return Node::text(["x", "y"].choose(rng).unwrap());
    }
    let mut map = Map::new();
    for name in NAMES {
        if rng.random_bool(0.6) {
            map.insert(name, node(rng, depth - 1));
        }
    }
    Node::Map(map)
}

/// A node near this one.
fn changed(rng: &mut ChaCha8Rng, old: &Node, depth: usize) -> Node {
    match old {
        Node::Map(map) if rng.random_bool(0.9) => {
            let mut new = map.clone();
            for name in NAMES {
                match map.get(name) {
                    Some(_) if rng.random_bool(0.1) => {
                        new.remove(name);
                    }
                    Some(own) if rng.random_bool(0.4) => {
                        new.insert(name, changed(rng, own, depth - 1));
                    }
                    None if depth > 0 && rng.random_bool(0.2) => {
                        new.insert(name, node(rng, depth - 1));
                    }
                    _ => {}
                }
            }
            Node::Map(new)
        }
        _ => node(rng, depth),
    }
}

fn tree(part: Node) -> Tree {
    Tree::default().with(WORKLOAD_STATES, Some(part))
}

fn mask(rng: &mut ChaCha8Rng) -> String {
    let mut text = (*["workloadStates", "*"].choose(rng).unwrap()).to_owned();
    for _ in 0..rng.random_range(0..6) {
        text.push('.');
        text += ["*", "*", "a", "b", "c"].choose(rng).unwrap();
    }
    text
}

fn leaves(map: &Map<Node>, at: &str, found: &mut BTreeSet<String>) {
    for (key, node) in map {
        let path = format!("{at}/{key}");
        match node {
            Node::Map(below) if !below.is_empty() => leaves(below, &path, found),
            other => {
                found.insert(format!("{path}={other:?}"));
            }
        }
    }
}

fn picked(tree: &Tree, selection: &Selection) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    leaves(tree.select(selection).root(), "", &mut found);
    found
}

#[test]
fn many_masks_say_what_each_of_them_says_alone() {
    let mut several = 0;
    for seed in 0..400 {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let before = node(rng, 5);
        let after = changed(rng, &before, 5);
        let (old, new) = (tree(before), tree(after));
        let masks: Vec<_> = (0..rng.random_range(1..60)).map(|_| mask(rng)).collect();
        let changes = ChangeSet::between(&old, &new);
        let together = changes.altered(&MaskSet::parse(&masks)).unwrap_or_default();

        let mut lists = [const { BTreeSet::new() }; 3];
        let (mut sent, mut read) = (BTreeSet::new(), BTreeSet::new());
        for mask in &masks {
            let own = MaskSet::parse([mask]);
            read.extend(picked(&new, &Selection::of_masks(own.masks())));
            let Some(altered) = changes.altered(&own) else { continue };
            sent.extend(picked(&new, altered.selection()));
            for (all, own) in
                lists.iter_mut().zip([altered.added, altered.updated, altered.removed])
            {
                all.extend(own);
            }
        }
        let told = [&together.added, &together.updated, &together.removed];
        for (told, expected) in told.into_iter().zip(&lists) {
            assert!(told.iter().eq(expected), "seed {seed}: {told:?} {expected:?} by {masks:?}");
        }
        assert_eq!(picked(&new, together.selection()), sent, "seed {seed}, {masks:?}");
        let all = MaskSet::parse(&masks);
        assert_eq!(picked(&new, &Selection::of_masks(all.masks())), read, "seed {seed}, {masks:?}");
        several += usize::from(all.masks().len() > 2 * MOST_APART);
    }
    assert!(several > 100, "{several} with many different masks");
}

#[test]
fn work_of_many_masks_follows_what_they_match_and_not_their_number() {
    let wide = |value: &str| {
        let leaves = |_| Node::map((0..20).map(|n| (format!("x{n}"), Node::text(value))));
        tree(Node::map((0..2_000).map(|n| (format!("k{n}"), leaves(n)))))
    };
    let work = |masks: Vec<String>| {
        let both = [
            ChangeSet::between(&wide("1"), &wide("2")),
            ChangeSet::between(&Tree::default(), &wide("1")),
        ];
        let masks = MaskSet::parse(masks);
        both.map(|changes| changes.altered_at_cost(&masks).1)
    };
    let one = work(vec!["workloadStates.*.absent".to_owned()]);
    let shapes: [fn(usize) -> String; 4] = [
        |n| format!("workloadStates.*.absent{n}"),
        |n| format!("workloadStates.k{n}.absent"),
        |n| format!("*.k7.absent{n}"),
        |n| format!("workloadStates.*.y{n}.*.*"),
    ];
    for shape in shapes {
        let many = work((0..256).map(shape).collect());
        // Each mapping is entered by those that match it; a leaf is found among them by its name.
        for (many, one) in many.into_iter().zip(one) {
            assert!(many < 30 * one.max(40_000), "{}: {many} where one mask takes {one}", shape(0));
        }
    }
}

#[test]
fn event_of_too_much_work_reports_the_masks_instead_of_the_paths() {
    let chain = |name: usize| {
        let leaf = Node::text("1");
        let inner = (0..8).rev().fold(leaf, |below, n| Node::map([(format!("c{n}"), below)]));
        (format!("k{name}"), inner)
    };
    let masks = (0..256).map(|bits| {
        let level = |n| if bits >> n & 1 == 1 { ".*".to_owned() } else { format!(".c{n}") };
        format!("workloadStates.*{}", (0..8).map(level).collect::<String>())
    });
    let masks = MaskSet::parse(masks);
    let altered = |names| {
        let new = tree(Node::map((0..names).map(chain)));
        ChangeSet::between(&Tree::default(), &new).altered(&masks).unwrap()
    };
    let few = altered(2_000);
    assert_eq!((few.added.len(), few.updated.len()), (2_000, 0));
    let many = altered(20_000);
    assert_eq!((many.added.len(), many.updated), (0, vec!["workloadStates".to_owned()]));
}
