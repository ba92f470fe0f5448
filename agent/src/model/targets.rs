//! Which items an update means, as far as its masks name them one by one.

use std::collections::BTreeMap;

use fifogate::state::{AGENTS, DESIRED_STATE};

use crate::store::Change;

/// An item that an update can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item<'a> {
    /// An agent, by name.
    Agent(&'a str),
    /// A config, by name.
    Config(&'a str),
    /// A workload, by name.
    Workload(&'a str),
}

/// What the masks of an update that can be done name; so no `*` is in them.
#[derive(Debug)]
pub struct UpdateTargets<'a> {
    /// Each item that a mask names or leads into, and whether one names it whole.
    items: BTreeMap<Item<'a>, bool>,
    /// Whether all configs are named as a whole.
    all_configs: bool,
}

impl<'a> UpdateTargets<'a> {
    /// What these masks name.
    #[must_use]
    pub fn by(masks: &'a [String]) -> Self {
        let mut named = Self { items: BTreeMap::new(), all_configs: masks.is_empty() };
        for mask in masks {
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

    /// Whether a change that the update makes is what it is whatever the item was before: so is a
    /// config of which it says all. That one goes is not, as it may be gone already; nor is a workload,
    /// as who asks is told which instance ended.
    #[must_use]
    pub fn overwrites(&self, change: &Change) -> bool {
        let Change::Config(name, Some(_)) = change else { return false };
        self.all_configs || self.items.get(&Item::Config(name)) == Some(&true)
    }
}
