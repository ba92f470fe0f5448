//! The rights of a workload of a manifest, and their rules: the broker's own answer, with a place.

use super::{did_you_mean, names, path};
use crate::{
    broker::{
        Rules,
        access::{covers, meets, pattern_matches},
    },
    foreign::Excerpt,
    manifest::{Fault, places::faults_at},
    state::{
        DESIRED_STATE, Mask, MaskSet, Node, Tree,
        reach::{begins_with_no_part, names_nothing},
    },
};

/// An action of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// To read a mask, or to subscribe to it.
    Read,
    /// To update a mask.
    Write,
    /// To read the logs of a workload.
    Logs,
}

impl Operation {
    /// All of them, by their names on the command line.
    pub(crate) const NAMES: [(&str, Self); 3] =
        [("read", Self::Read), ("write", Self::Write), ("logs", Self::Logs)];

    fn rule_for(self, what: &str) -> String {
        let what = Excerpt(what);
        match self {
            Self::Read => {
                format!("{{ type: StateRule, operation: Read, filterMasks: ['{what}'] }}")
            }
            Self::Write => {
                format!("{{ type: StateRule, operation: Write, filterMasks: ['{what}'] }}")
            }
            Self::Logs => format!("{{ type: LogRule, workloadNames: ['{what}'] }}"),
        }
    }
}

/// Whether the workload `name` may do this, and a sentence with the place of the deciding rule.
///
/// # Errors
/// The manifest has no such workload, or the mask begins with no part of the state.
pub(crate) fn answer(
    (file, text): (&str, &str),
    tree: &Tree,
    (name, operation, what): (&str, Operation, &str),
) -> Result<(bool, Fault), String> {
    let workloads = tree.entries(&[DESIRED_STATE, "workloads"]);
    let Some(workload) = workloads.get(name) else {
        let hint = did_you_mean(name, names(workloads));
        return Err(format!("{file}: the manifest has no workload `{}`{hint}", Excerpt(name)));
    };
    // As `get` does: a rule for such a mask would be of no use, and is not to be proposed.
    if operation != Operation::Logs
        && let Some(why) = begins_with_no_part(&Mask::parse(what))
    {
        return Err(why.to_string());
    }
    let (is_allowed, place, why) = judge(name, workload, operation, what);
    let verb = match operation {
        Operation::Read => "read",
        Operation::Write => "write",
        Operation::Logs => "read the logs of",
    };
    let shown = if what.is_empty() { "everything".into() } else { Excerpt(what).to_string() };
    let not = if is_allowed { "" } else { " not" };
    let sentence = format!("{name} may{not} {verb} {shown}: {why}");
    let mut faults = faults_at(file, text, [(place, sentence)]).faults;
    faults.pop().map(|fault| (is_allowed, fault)).ok_or_else(String::new)
}

type Verdict = (bool, Vec<String>, String);

fn judge(name: &str, workload: &Node, operation: Operation, what: &str) -> Verdict {
    let no_rules = Node::map::<&str>([]);
    let access = workload.get("controlInterfaceAccess").unwrap_or(&no_rules);
    let has =
        |list: &str| access.get(list).and_then(Node::as_seq).is_some_and(|own| !own.is_empty());
    if !has("allowRules") {
        let why = "it has no control interface, as it has no `allowRules`".to_owned();
        return (false, path(name, &[]), why);
    }
    let (rules, mask) = (Rules::compile(access), Mask::parse(what));
    let denial = match operation {
        Operation::Read => rules.deny_read(&MaskSet::parse([what]), false),
        Operation::Write if mask.has_wildcard() => {
            let why = "the masks of an update have no `*`".to_owned();
            return (false, path(name, &["controlInterfaceAccess"]), why);
        }
        Operation::Write => rules.deny_update(std::slice::from_ref(&mask)),
        Operation::Logs => rules.deny_logs([what].into_iter()),
    };
    let allowing = find(name, access, "allowRules", operation, |rule| match operation {
        Operation::Logs => pattern_matches(rule, what),
        _ => covers(Mask::parse(rule).segments(), mask.segments()),
    });
    let denying = find(name, access, "denyRules", operation, |rule| match operation {
        Operation::Logs => pattern_matches(rule, what),
        _ => meets(Mask::parse(rule).segments(), mask.segments()),
    });
    let anywhere = || path(name, &["controlInterfaceAccess"]);
    let Some(denial) = denial else {
        let (place, rule) = allowing.unwrap_or_else(|| (anywhere(), String::new()));
        let mut why = format!("the allow rule '{}' covers it", Excerpt(&rule));
        let own = format!("{DESIRED_STATE}.workloads.{name}.controlInterfaceAccess");
        if operation == Operation::Write && meets(mask.segments(), Mask::parse(&own).segments()) {
            why += "; its own access rules it can never change";
        }
        if operation != Operation::Logs
            && let Some(nothing) = names_nothing(&mask)
        {
            why += &format!("; but it names nothing: {nothing}");
        }
        return (true, place, why);
    };
    match (allowing, denying) {
        (Some(_), Some((place, _))) => (false, place, denial.reason),
        _ => {
            let missing = operation.rule_for(what);
            (false, anywhere(), format!("{}; an allow rule is missing: {missing}", denial.reason))
        }
    }
}

/// The first mask or pattern of a list that `fits`, behind its path.
fn find(
    name: &str,
    access: &Node,
    list: &str,
    operation: Operation,
    fits: impl Fn(&str) -> bool,
) -> Option<(Vec<String>, String)> {
    let (field, rights): (_, &[&str]) = match operation {
        Operation::Read => ("filterMasks", &["Read", "ReadWrite"]),
        Operation::Write => ("filterMasks", &["Write", "ReadWrite"]),
        Operation::Logs => ("workloadNames", &[]),
    };
    let rules = access.get(list).and_then(Node::as_seq).unwrap_or_default();
    rules.iter().enumerate().find_map(|(index, rule)| {
        let has_right = rule.str_at("operation").is_none_or(|own| rights.contains(&own));
        let texts = rule.get(field).and_then(Node::as_seq).filter(|_| has_right)?;
        let mut texts = texts.iter().filter_map(Node::as_str).enumerate();
        let (number, text) = texts.find(|(_, text)| fits(text))?;
        let (index, number) = (index.to_string(), number.to_string());
        let fields = ["controlInterfaceAccess", list, &index, field, &number];
        Some((path(name, &fields), text.to_owned()))
    })
}
