use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Panics unless every node is as the rest of the code takes for granted.
fn check<V>(map: &Map<V>) {
    fn walk<V>(link: &Link<V>) -> usize {
        assert!((1..=WIDTH).contains(&link.width()));
        match link {
            Link::Leaf(entries) => entries.len(),
            Link::Branch(branch) => {
                assert!(branch.children.iter().all(|child| child.height() + 1 == branch.height));
                let len = branch.children.iter().map(walk).sum();
                assert_eq!(len, branch.len);
                len
            }
        }
    }
    assert_eq!(map.root.as_ref().map_or(0, walk), map.len());
    assert!(map.keys().collect::<Vec<_>>().is_sorted_by(|a, b| a < b));
}

fn key(n: u16) -> Key {
    Key::from(format!("k{n}"))
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u16, u8),
    Remove(u16),
}

fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..300_u16, any::<u8>()).prop_map(|(k, v)| Step::Insert(k, v)),
        (0..300_u16).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 0..max)
}

fn apply(map: &mut Map<u8>, model: &mut BTreeMap<String, u8>, steps: &[Step]) {
    for step in steps {
        match *step {
            Step::Insert(k, v) => {
                map.insert(key(k), v);
                model.insert(key(k).as_str().to_owned(), v);
            }
            Step::Remove(k) => {
                let was = model.remove(key(k).as_str()).is_some();
                assert_eq!(map.remove(key(k).as_str()), was);
            }
        }
        check(map);
    }
}

proptest! {
    #[test]
    fn agrees_with_a_sorted_map_and_tells_exactly_what_differs(a in steps(400), b in steps(60)) {
        let (mut map, mut model) = (Map::new(), BTreeMap::new());
        apply(&mut map, &mut model, &a);
        let (old, old_model) = (map.clone(), model.clone());
        apply(&mut map, &mut model, &b);

        let seen: Vec<_> = map.iter().map(|(k, v)| (k.as_str().to_owned(), *v)).collect();
        prop_assert_eq!(seen, model.clone().into_iter().collect::<Vec<_>>());

        let mut told = BTreeMap::new();
        old.diff(&map, |k, x, y| {
            if x != y {
                assert!(told.insert(k.as_str().to_owned(), (x.copied(), y.copied())).is_none());
            }
        });
        let mut expected = BTreeMap::new();
        for k in old_model.keys().chain(model.keys()) {
            let pair = (old_model.get(k).copied(), model.get(k).copied());
            if pair.0 != pair.1 {
                expected.insert(k.clone(), pair);
            }
        }
        prop_assert_eq!(told, expected);
    }

    #[test]
    fn is_built_from_any_order_with_the_last_of_equal_keys(entries in prop::collection::vec((0..80_u16, any::<u8>()), 0..300)) {
        let map: Map<u8> = entries.iter().map(|&(k, v)| (key(k), v)).collect();
        check(&map);
        let model: BTreeMap<_, _> = entries.iter().map(|&(k, v)| (key(k), v)).collect();
        prop_assert_eq!(map.iter().map(|(k, v)| (k.clone(), *v)).collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn one_change_among_many_visits_few_entries() {
    let old: Map<u32> = (0..20_000).map(|n| (Key::from(format!("{n:05}")), n)).collect();
    let mut new = old.clone();
    new.insert(Key::from("12345"), 0);
    new.remove("00007");
    new.insert(Key::from("99999"), 1);
    let mut visited = 0;
    old.diff(&new, |_, _, _| visited += 1);
    assert!(visited <= 4 * WIDTH, "visited {visited}");
}

#[test]
fn equality_does_not_depend_on_how_a_map_came_about() {
    let built: Map<u8> = (0..100).map(|n| (key(n), 1)).collect();
    let mut grown = Map::new();
    for n in (0..120).rev() {
        grown.insert(key(n), 1);
    }
    assert_ne!(built, grown);
    for n in 100..120 {
        grown.remove(key(n).as_str());
    }
    assert_eq!(built, grown);
    assert!(!built.ptr_eq(&grown));
    assert!(built.ptr_eq(&built.clone()));
}
