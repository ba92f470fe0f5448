//! A check at the start: whether any workload of the state is of this agent.
//!
//! A state and the agent's name go in; a line for the log comes out.

use std::collections::BTreeSet;

use fifogate::{internal::state::EFFECTIVE_STATE, state::Tree};

use log::Level;

use crate::log_text::Quoted;

/// Names of other agents shown.
const SHOWN: usize = 5;

/// The source of the first state, for a line if none of its workloads is of this agent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstState {
    /// Name of the source.
    pub(crate) source: &'static str,
    /// Level of the line: in a cluster it is usual that a new agent has no workload yet.
    pub(crate) level: Level,
}

impl FirstState {
    /// Logs that no workload is of this agent, if it is so.
    pub(crate) fn log_if_idle(self, tree: &Tree, agent: &str) {
        if let Some(text) = nothing_to_do(tree, agent, self.source) {
            log::log!(self.level, "{text}");
        }
    }
}

/// Says that no workload is of `agent`, if there are others; `source` has the state. Names of agents are
/// those of the effective state: templates are rendered in it.
#[must_use]
pub(crate) fn nothing_to_do(tree: &Tree, agent: &str, source: &str) -> Option<String> {
    let workloads = tree.entries(&[EFFECTIVE_STATE, "workloads"]);
    let names = workloads.iter().map(|(_, own)| own.str_at("agent").unwrap_or_default());
    let names: BTreeSet<_> = names.collect();
    if names.is_empty() || names.contains(agent) {
        return None;
    }
    let count = workloads.iter().count();
    let others = names.into_iter().filter(|name| !name.is_empty());
    let others: Vec<_> = others.map(|name| Quoted(name).to_string()).collect();
    let named = match others.len() {
        0 => "no agent".to_owned(),
        all if all > SHOWN => {
            format!("{}, and {} more", others[..SHOWN].join(", "), all - SHOWN)
        }
        _ => others.join(", "),
    };
    let agent = Quoted(agent);
    Some(format!("0 of {count} workloads are of {agent}; the {source} names {named}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(agents: &[&str]) -> Option<String> {
        let workload = |(number, agent): (usize, &&str)| {
            let node = Node::map([("agent", Node::text(agent))]);
            (format!("w{number}"), node)
        };
        let workloads = agents.iter().enumerate().map(workload);
        let workloads: Vec<_> = workloads.map(|(name, node)| (Key::from(&*name), node)).collect();
        let state = Node::map([("workloads", Node::map(workloads))]);
        nothing_to_do(&Tree::default().with(EFFECTIVE_STATE, Some(state)), "b", "manifest")
    }

    use fifogate::state::{Key, Node};

    #[test]
    fn workloads_of_other_agents_alone_are_noted_with_the_names_of_these_agents() {
        let text = |named: &str, count: usize| {
            Some(format!("0 of {count} workloads are of b; the manifest names {named}"))
        };
        assert_eq!(note(&[]), None);
        assert_eq!(note(&["a", "b"]), None);
        assert_eq!(note(&["a", "a"]), text("a", 2));
        assert_eq!(note(&["", "c", "a"]), text("a, c", 3));
        assert_eq!(note(&[""]), text("no agent", 1));
        assert_eq!(note(&["c\n\u{1b}[2J"]), text("c\\n\\u{1b}[2J", 1));
        assert_eq!(
            note(&["B", "a1", "a2", "a3", "a4", "a5", "a6"]),
            text("B, a1, a2, a3, a4, and 2 more", 7)
        );
    }
}
