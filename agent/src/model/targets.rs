//! Targets of an update: the items named by its masks.
//!
//! Input is the list of masks of an accepted update; output is the set of items, and whether a mask
//! names one as a whole. `etcd` uses it to choose the keys compared in a transaction.

use std::collections::BTreeMap;

use fifogate::internal::state::{AGENTS, DESIRED_STATE};

use crate::store::Change;

/// An item changeable by an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item<'a> {
    /// An agent, by name.
    Agent(&'a str),
    /// A config, by name.
    Config(&'a str),
    /// A workload, by name.
    Workload(&'a str),
}

/// The targets of a valid update; its masks contain no `*`.
#[derive(Debug)]
pub struct UpdateTargets<'a> {
    /// Each item named or entered by a mask, and whether one mask names it as a whole.
    items: BTreeMap<Item<'a>, bool>,
    /// True if a mask names all configs as a whole.
    all_configs: bool,
}

impl<'a> UpdateTargets<'a> {
    /// The targets of these masks.
    #[must_use]
    pub fn by(masks: &'a [String]) -> Self {
        let mut named = Self { items: BTreeMap::new(), all_configs: masks.is_empty() };
        for mask in masks {
            // Four parts at most: deeper names do not change the item.
            let segments: Vec<_> = mask.splitn(4, '.').collect();
            let (item, is_whole) = match *segments {
                ["" | DESIRED_STATE] | [DESIRED_STATE, "configs"] => {
                    named.all_configs = true;
                    continue;
                }
                [DESIRED_STATE, "configs", name] => (Item::Config(name), true),
                [DESIRED_STATE, "configs", name, _] => (Item::Config(name), false),
                [DESIRED_STATE, "workloads", name, ..] => (Item::Workload(name), false),
                [AGENTS, name, ..] => (Item::Agent(name), false),
                _ => continue,
            };
            *named.items.entry(item).or_default() |= is_whole;
        }
        named
    }

    /// The items, each once.
    pub fn items(&self) -> impl Iterator<Item = Item<'a>> {
        self.items.keys().copied()
    }

    /// True if the change has the same result for every previous value of its item, as has a config set
    /// as a whole. Removing a config does not: it may be gone already. Nor does a workload: the answer
    /// lists the ended instance.
    #[must_use]
    pub fn overwrites(&self, change: &Change) -> bool {
        let Change::Config(name, Some(_)) = change else { return false };
        self.all_configs || self.items.get(&Item::Config(name)) == Some(&true)
    }
}
