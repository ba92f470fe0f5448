//! Advice about a valid manifest: parts without effect, and names of missing things.
//!
//! The desired state and its text go in. Warnings come out about certain mistakes, and notes about names
//! for later updates to add. Both have a place, and the right way. All of it is
//! computed by the broker's own judgement of rules.

mod names;
#[cfg(feature = "cli")]
mod question;
mod rules;
mod templates;

#[cfg(feature = "cli")]
pub(crate) use question::{Operation, answer};

use crate::{
    foreign::Excerpt,
    manifest::{Fault, places::faults_at},
    nearest::nearest,
    state::{DESIRED_STATE, Map, Node, Tree},
};

/// Most comparisons of two names or two masks, for all advice about a manifest: it may have thousands of each.
const MOST_COMPARISONS: usize = 1_000_000;

/// Most warnings and most notes.
const MOST: usize = 100;

/// Advice about a manifest, sorted by place.
#[derive(Debug, Default)]
pub struct Advice {
    /// Surely mistakes.
    pub warnings: Vec<Fault>,
    /// Right if an update adds the named things.
    pub notes: Vec<Fault>,
    /// Further warnings and notes, above the most.
    pub left_out: usize,
}

/// The advice about the manifest `text` with this state.
#[must_use]
pub fn advise(file: &str, text: &str, tree: &Tree) -> Advice {
    let mut found = Findings::new(tree);
    let workloads = found.workloads;
    for (name, workload) in workloads {
        let name = name.as_str();
        found.dependencies(name, workload);
        templates::look(&mut found, name, workload);
        if let Some(access) = workload.get("controlInterfaceAccess") {
            rules::look(&mut found, name, access);
        }
    }
    let mut left_out = 0;
    let mut placed = |mut remarks: Vec<Remark>| {
        left_out += remarks.len().saturating_sub(MOST);
        remarks.truncate(MOST);
        if remarks.is_empty() { Vec::new() } else { faults_at(file, text, remarks).faults }
    };
    let (warnings, notes) = (placed(found.warnings), placed(found.notes));
    Advice { warnings, notes, left_out }
}

/// A path in the desired state, and a text about the value there.
type Remark = (Vec<String>, String);

/// The manifest, and the advice so far.
struct Findings<'a> {
    workloads: &'a Map<Node>,
    configs: &'a Map<Node>,
    warnings: Vec<Remark>,
    notes: Vec<Remark>,
    compared: usize,
}

impl<'a> Findings<'a> {
    fn new(tree: &'a Tree) -> Self {
        Self {
            workloads: tree.entries(&[DESIRED_STATE, "workloads"]),
            configs: tree.entries(&[DESIRED_STATE, "configs"]),
            warnings: Vec::new(),
            notes: Vec::new(),
            compared: 0,
        }
    }

    fn warn(&mut self, path: Vec<String>, text: String) {
        self.warnings.push((path, text));
    }

    fn note(&mut self, path: Vec<String>, text: String) {
        self.notes.push((path, text));
    }

    /// Whether so many comparisons more are within the bound; if so, they are counted.
    fn may_compare(&mut self, more: usize) -> bool {
        self.compared = self.compared.saturating_add(more);
        self.compared <= MOST_COMPARISONS
    }

    /// A hint at the nearest of these names, if it is near enough.
    fn did_you_mean<'n>(
        &mut self,
        name: &str,
        known: impl ExactSizeIterator<Item = &'n str>,
    ) -> String {
        // As dear as several comparisons of masks.
        let near = self.may_compare(known.len().saturating_mul(16));
        if near { did_you_mean(name, known) } else { String::new() }
    }

    /// Dependencies on missing workloads: their owners wait until an update adds them.
    fn dependencies(&mut self, name: &str, workload: &Node) {
        let dependencies = workload.get("dependencies").and_then(Node::as_map);
        for (on, _) in dependencies.into_iter().flatten() {
            if self.workloads.get(on.as_str()).is_none() {
                let hint = self.did_you_mean(on.as_str(), names(self.workloads));
                let (on, own) = (on.as_str(), Excerpt(name));
                let path = path(name, &["dependencies", on]);
                let on = Excerpt(on);
                let text =
                    format!("{own} waits for {on}, which is no workload of the manifest{hint}");
                self.warn(path, text);
            }
        }
    }
}

fn did_you_mean<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let near = nearest(name, known, 1 + name.len() / 3);
    near.map(|best| format!(" (did you mean `{best}`?)")).unwrap_or_default()
}

fn names(map: &Map<Node>) -> impl ExactSizeIterator<Item = &str> {
    map.keys().map(|key| key.as_str()).collect::<Vec<_>>().into_iter()
}

fn path(workload: &str, fields: &[&str]) -> Vec<String> {
    ["workloads", workload].iter().chain(fields).map(|own| (*own).to_owned()).collect()
}

#[cfg(test)]
mod tests;
