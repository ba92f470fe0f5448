//! What the worlds exercised, so that they cannot rot silently.

use std::collections::BTreeMap;

/// Everything that has to happen at least once in an ordinary run.
const ALL: [&str; 42] = [
    "steps",
    "sessions begun",
    "sessions begun anew",
    "sessions begun behind what nobody read",
    "sessions closed",
    "requests",
    "reads answered",
    "subscriptions",
    "subscriptions replaced",
    "subscriptions cancelled",
    "subscriptions lost with their rules",
    "requests for logs lost with their rules",
    "denied",
    "over a limit",
    "undecodable",
    "updates accepted",
    "updates that change nothing",
    "updates refused",
    "updates refused for access rules",
    "updates refused for a reference",
    "events at once",
    "events after others",
    "events merged",
    "events that resynchronise",
    "events with added",
    "events with updated",
    "events with removed",
    "subscriptions by wildcard",
    "told the same as others",
    "events taken back",
    "pairs opened",
    "pairs failed",
    "last messages of a pair",
    "pairs closed",
    "reading stopped",
    "broken streams",
    "ends of file",
    "restarts",
    "views compared",
    "agent's commands",
    "agent's changes",
    "requests forwarded",
];

#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub(crate) fn one(&mut self, what: &'static str) {
        self.many(what, 1);
    }

    pub(crate) fn many(&mut self, what: &'static str, count: u64) {
        debug_assert!(ALL.contains(&what), "{what} is not on the list");
        *self.0.entry(what).or_default() += count;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            self.many(what, *count);
        }
    }

    pub(crate) fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    #[allow(clippy::print_stdout)] // the counts are part of what the test is for
    pub(crate) fn print(&self) {
        for what in ALL {
            println!("{:>10}  {what}", self.get(what));
        }
    }

    /// What never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        ALL.into_iter().filter(|what| self.get(what) == 0).collect()
    }
}
