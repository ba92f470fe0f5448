//! Denials: the denied part of a request, and the missing or forbidding rule.
//!
//! The workload hears of a denial without its reason: that would show rules and names of configs to
//! workloads without the right to read them. The reason is for the operator, in the log and the status. Its length
//! is bounded for any request and any rules.

use std::fmt;

use crate::{
    foreign::Shortened,
    state::{DESIRED_STATE, Map, Mask, MaskSet, Node},
};

use super::{Rules, access::Objection};

/// Characters shown of one mask or name.
const SHOWN: usize = 160;
/// Most shown rules with other masks.
const RULES_SHOWN: usize = 4;

/// A denied request of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The kind of request.
    pub request: &'static str,
    /// The first denied part of it: a mask, or the name of a workload.
    pub what: String,
    /// The missing or forbidding rule.
    pub reason: String,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, what, reason } = self;
        write!(f, "{request} of {what}: {reason}")
    }
}

impl Rules {
    /// The denial of a read of `masks`, or of a subscription; `None` if it is allowed.
    #[must_use]
    pub fn deny_read(&self, masks: &MaskSet, subscribe: bool) -> Option<Denial> {
        let (mask, why) = self.check_read(masks).err()?;
        let request = if subscribe { "subscription" } else { "read" };
        Some(Denial::new(request, name_of(mask), READS.because(&why)))
    }

    /// The denial of an update of `masks`; `None` if it is allowed.
    #[must_use]
    pub fn deny_update(&self, masks: &[Mask]) -> Option<Denial> {
        let (mask, why) = self.check_write(masks).err()?;
        Some(Denial::new(UPDATE, name_of(mask), WRITES.because(&why)))
    }

    /// The denial of an update with new references of workloads to configs, where `old` and `new` are the
    /// workloads before and after it; `None` if it is allowed.
    #[must_use]
    pub fn deny_references(&self, old: &Map<Node>, new: &Map<Node>) -> Option<Denial> {
        let (name, config) = self.unreadable_reference(old, new)?;
        let path = [DESIRED_STATE, "configs", &config];
        let why = self.check_read_path(&path).err()?;
        let what = format!("{DESIRED_STATE}.workloads.{name}");
        let path = shortened(&path.join("."));
        let reason = format!("it refers to {path}: {}", READS.because(&why));
        Some(Denial::new(UPDATE, &what, reason))
    }

    /// The denial of an update with other access rules of the workload `changed`; `None` if it is
    /// allowed. `is_own`: the sender is this workload.
    #[must_use]
    pub fn deny_change_of_rules(&self, changed: &str, is_own: bool) -> Option<Denial> {
        let path = [DESIRED_STATE, "workloads", changed, "controlInterfaceAccess"];
        let what = path.join(".");
        if is_own {
            let reason = "a workload cannot change its own access rules";
            return Some(Denial::new(UPDATE, &what, reason));
        }
        let why = self.check_write_path(&path).err()?;
        Some(Denial::new(UPDATE, &what, WRITES.because(&why)))
    }

    /// The denial of the logs of these workloads; `None` if they are allowed.
    pub(crate) fn deny_logs<'a>(&self, workloads: impl Iterator<Item = &'a str>) -> Option<Denial> {
        let (name, why) = self.check_logs(workloads).err()?;
        Some(Denial::new("log request", name, LOGS.because(&why)))
    }
}

impl Denial {
    fn new(request: &'static str, what: &str, reason: impl fmt::Display) -> Self {
        Self { request, what: shortened(what), reason: reason.to_string() }
    }

    /// The denial of a request without a known content: no rule is about it.
    pub(super) fn unknown() -> Self {
        Self::new("request", "an unknown kind", "this version knows no content of it")
    }

    /// The denial of an update by the agent.
    pub(super) fn by_agent() -> Self {
        Self::new(UPDATE, "the state", "the agent denied it, and its log has the reason")
    }
}

/// Kind of a denied request.
const UPDATE: &str = "update";

/// Words about the rules of one right: of a missing rule, and of the existing ones.
struct Words(&'static str, &'static str);

const READS: Words = Words("no rule allows it", "allowed to read");
const WRITES: Words = Words("no rule allows it", "allowed to write");
const LOGS: Words = Words("no log rule allows it", "allowed");

impl Words {
    fn because<T: fmt::Display>(&self, why: &Objection<'_, T>) -> String {
        let rules = match why {
            Objection::Denied(rule) => {
                return format!("the deny rule {} forbids it", shortened(&rule.to_string()));
            }
            Objection::NotAllowed(rules) => rules,
        };
        let shown = rules.iter().take(RULES_SHOWN).map(|rule| shortened(&rule.to_string()));
        let mut shown = shown.collect::<Vec<_>>().join(", ");
        match rules.len().saturating_sub(RULES_SHOWN) {
            0 if rules.is_empty() => shown += "nothing",
            0 => {}
            more => shown += &format!(", and {more} more"),
        }
        format!("{} ({}: {shown})", self.0, self.1)
    }
}

fn shortened(text: &str) -> String {
    Shortened(text, SHOWN).to_string()
}

fn name_of(mask: Option<&Mask>) -> &str {
    mask.map(Mask::text).filter(|text| !text.is_empty()).unwrap_or("everything")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reason of a denied read with this many rules about something else.
    fn reason(rules: usize) -> String {
        let masks = (0..rules).map(|n| Node::text(&format!("agents.a{n}")));
        let rule = Node::map([
            ("operation", Node::text("Read")),
            ("filterMasks", Node::seq(masks.collect::<Vec<_>>())),
        ]);
        let access = Node::map([("allowRules", Node::seq(vec![rule]))]);
        let denial = Rules::compile(&access).deny_read(&MaskSet::parse(["workloadStates"]), false);
        denial.unwrap().reason
    }

    #[test]
    fn rules_are_shown_up_to_their_limit_and_counted_above_it() {
        let shown = |count: usize| {
            (0..count).map(|n| format!("agents.a{n}")).collect::<Vec<_>>().join(", ")
        };
        let told = |rules: &str| format!("no rule allows it (allowed to read: {rules})");
        assert_eq!(reason(0), told("nothing"));
        assert_eq!(reason(RULES_SHOWN), told(&shown(RULES_SHOWN)));
        let above = format!("{}, and 1 more", shown(RULES_SHOWN));
        assert_eq!(reason(RULES_SHOWN + 1), told(&above));
    }

    #[test]
    fn masks_are_shown_up_to_their_limit_and_cut_above_it() {
        let of = |mask: &str| Rules::default().deny_update(&[Mask::parse(mask)]).unwrap().what;
        let most = "x".repeat(SHOWN);
        assert_eq!(of(&most), most);
        assert_eq!(of(&format!("{most}x")), format!("{most}..."));
    }
}
