//! Masks that can name nothing, in any state: their first name is no part of the state, or a later one is
//! no field of its parent.
//!
//! A mask of nothing is no error on the control interface, and a rule with it is valid: it allows and
//! denies nothing. So only those who write masks by hand are told, with the names that there are.

use std::fmt;

use super::{
    Mask, Segment,
    schema::{COMPLETE_STATE, Kind, Record, STATE},
};
#[cfg(feature = "printed")]
use super::{Node, Tree};
use crate::nearest::nearest;

/// The reason why a mask can name nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamesNothing {
    /// It begins with no part of the state.
    UnknownPart(Mask),
    /// A place, a name that is no field of it, and its fields.
    NoField(String, String, String),
    /// A path through a value without names below it.
    BelowValue(String),
}

impl fmt::Display for NamesNothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPart(mask) => {
                let parts = names(&COMPLETE_STATE);
                write!(f, "unknown mask '{mask}': a mask begins with one of {parts}")
            }
            Self::NoField(place, name, fields) => {
                write!(f, "{place} has no field `{name}`, only {fields}")
            }
            Self::BelowValue(place) => write!(f, "there is never anything below {place}"),
        }
    }
}

/// A kind of value on the way of a mask.
#[derive(Clone, Copy)]
enum Place {
    Fields(&'static Record),
    /// An execution state; its fields are in no record.
    Execution,
    /// Any names, with values of this kind.
    Names(&'static Kind),
    /// Any names, to any depth.
    Config,
    Leaf,
}

/// The fields of an execution state in the tree.
const EXECUTION: [&str; 3] = ["additionalInfo", "state", "subState"];

impl Place {
    fn of(kind: &'static Kind) -> Self {
        match kind {
            Kind::Record(record) => Self::Fields(record),
            Kind::Map(value) | Kind::LargeMap(value) => Self::Names(value),
            Kind::Config => Self::Config,
            Kind::Execution(_) => Self::Execution,
            // No mask reaches into a sequence.
            Kind::Text
            | Kind::Choice(_)
            | Kind::Number(_)
            | Kind::List(_)
            | Kind::Repeated(_)
            | Kind::OneOf(_) => Self::Leaf,
        }
    }

    /// The places of this name below it. The error is the names that there are, if there are any.
    fn below(self, name: &Segment) -> Result<Vec<Self>, Option<String>> {
        let key = match name {
            Segment::Any => None,
            Segment::Key(key) => Some(key.as_str()),
        };
        match self {
            Self::Leaf => Err(None),
            Self::Config => Ok(vec![Self::Config]),
            Self::Names(value) => Ok(vec![Self::of(value)]),
            Self::Execution => match key {
                Some(key) if !EXECUTION.contains(&key) => Err(Some(EXECUTION.join(", "))),
                _ => Ok(vec![Self::Leaf]),
            },
            Self::Fields(record) => {
                let fields =
                    record.fields.iter().filter(|own| key.is_none_or(|key| own.name == key));
                let found: Vec<_> = fields.map(|own| Self::of(&own.kind)).collect();
                if found.is_empty() { Err(Some(names(record))) } else { Ok(found) }
            }
        }
    }
}

fn names(record: &Record) -> String {
    record.fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ")
}

/// The reason why `mask` names nothing in any state; `None` if it can name something.
#[must_use]
pub(crate) fn names_nothing(mask: &Mask) -> Option<NamesNothing> {
    let mut places = vec![Place::Fields(&COMPLETE_STATE)];
    let names: Vec<_> = mask.text().split('.').collect();
    for (depth, segment) in mask.segments().iter().enumerate() {
        let below: Vec<_> = places.iter().map(|place| place.below(segment)).collect();
        if let Some(Err(known)) = below.first()
            && below.iter().all(Result::is_err)
        {
            let place = names[..depth].join(".");
            return Some(match known {
                _ if depth == 0 => NamesNothing::UnknownPart(mask.clone()),
                Some(known) => NamesNothing::NoField(place, names[depth].to_owned(), known.clone()),
                None => NamesNothing::BelowValue(place),
            });
        }
        places = below.into_iter().flatten().flatten().collect();
    }
    None
}

/// As `names_nothing`, for the first name of `mask` alone.
#[must_use]
#[cfg(feature = "printed")]
pub(crate) fn begins_with_no_part(mask: &Mask) -> Option<NamesNothing> {
    names_nothing(mask).filter(|why| matches!(why, NamesNothing::UnknownPart(_)))
}

/// The faults of those masks that begin with no part of the state.
#[must_use]
#[cfg(feature = "printed")]
pub fn unknown_parts(masks: &[String]) -> Vec<String> {
    let faults = masks.iter().filter_map(|mask| begins_with_no_part(&Mask::parse(mask)));
    faults.map(|why| why.to_string()).collect()
}

/// A line for each mask without a match in a state.
#[must_use]
#[cfg(feature = "printed")]
pub fn without_match(masks: &[String], tree: &Tree) -> Vec<String> {
    let masks = masks.iter().map(|mask| Mask::parse(mask));
    let missing = masks.filter(|mask| !mask.text().is_empty() && !has_match(tree, mask));
    missing
        .map(|mask| match names_nothing(&mask) {
            Some(why) => format!("nothing is at {mask}: {why}"),
            None => format!("nothing is at {mask}"),
        })
        .collect()
}

/// The reason why a path names nothing in any state.
#[must_use]
#[cfg(feature = "printed")]
pub fn why_nothing(path: &str) -> Option<String> {
    names_nothing(&Mask::parse(path)).map(|why| why.to_string())
}

/// A path, and another one inside of it or equal to it. An update of both has no order.
#[must_use]
#[cfg(feature = "printed")]
pub fn overlap(paths: &[impl AsRef<str>]) -> Option<(String, String)> {
    let paths = paths.iter().map(|path| path.as_ref().split('.').collect::<Vec<_>>());
    let mut paths: Vec<_> = paths.collect();
    paths.sort();
    // Sorted by names, a path is followed directly by the paths inside it.
    let pair = paths.windows(2).find(|pair| pair[1].starts_with(&pair[0]))?;
    Some((pair[0].join("."), pair[1].join(".")))
}

/// Whether `mask` names something in `tree`.
#[cfg(feature = "printed")]
fn has_match(tree: &Tree, mask: &Mask) -> bool {
    fn walk(node: Option<&Node>, names: &[&str]) -> bool {
        match (node, names) {
            (None, _) => false,
            (Some(_), []) => true,
            (Some(node), ["*", rest @ ..]) => {
                node.entries().iter().any(|(_, below)| walk(Some(below), rest))
            }
            (Some(node), [name, rest @ ..]) => walk(node.get(name), rest),
        }
    }
    let names: Vec<_> = mask.text().split('.').collect();
    walk(Some(&Node::Map(tree.root().clone())), &names)
}

/// As `names_nothing`, for a first name that is surely a mistake: a part, or a field of the desired state without
/// its part, in another case or with one letter wrong. Rules with other unknown names are taken, as Ankaios does.
#[must_use]
pub fn begins_with_a_mistake(mask: &Mask) -> Option<NamesNothing> {
    let first = mask.text().split('.').next().unwrap_or_default().to_ascii_lowercase();
    let meant = COMPLETE_STATE.fields.iter().chain(STATE.fields);
    let meant: Vec<_> = meant.map(|field| field.name.to_ascii_lowercase()).collect();
    let is_meant = nearest(&first, meant.iter().map(String::as_str), 1).is_some();
    names_nothing(mask).filter(|why| is_meant && matches!(why, NamesNothing::UnknownPart(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(mask: &str) -> Option<String> {
        names_nothing(&Mask::parse(mask)).map(|why| why.to_string())
    }

    #[test]
    fn masks_that_can_name_something_have_no_fault() {
        for mask in [
            "",
            "*",
            "*.*",
            "*.workloads",
            // An agent may have this name.
            "*.config",
            "*.*.*.*.*.state",
            "desiredState",
            "desiredState.apiVersion",
            "desiredState.workloads.w.tags.k",
            "desiredState.workloads.*.controlInterfaceAccess.allowRules",
            "desiredState.configs.a.b.c.d",
            "desiredState.*.x",
            "effectiveState.workloads.w.files",
            "workloadStates..w.1.subState",
            "agents.a.status.cpuUsage",
            "agents.*.tags.k",
        ] {
            assert_eq!(fault(mask), None, "{mask}");
        }
    }

    #[test]
    fn mistakes_are_told_from_names_that_mean_something_else() {
        let is_mistake = |mask: &str| begins_with_a_mistake(&Mask::parse(mask)).is_some();
        for mask in [
            "desiredstate",
            "desiredStates.configs",
            "desireState",
            "WorkloadStates.*",
            "workloadState",
            "agent",
            "effectiveStare.workloads",
            "workloads.w",
            "configs.k",
            "config.k",
            "Workload.*",
            "apiVersion",
            "apiVersoin",
            "agenst.*",
            "desiredStaet",
            "effectvieState",
        ] {
            assert!(is_mistake(mask), "{mask}");
        }
        for mask in ["", "*", "agents", "desiredState.config", "foo.*", "a.b", ".agents"] {
            assert!(!is_mistake(mask), "{mask}");
        }
        // Of manifests and tests of Ankaios and its SDKs.
        for name in ["state", "agent_B", "some", "other", "matching", "Nginx", "a", "c"] {
            assert!(!is_mistake(name), "{name}");
            assert!(!is_mistake(&format!("{name}.*")), "{name}.*");
        }
    }

    #[test]
    fn every_field_of_the_desired_state_is_taken_for_one_without_its_part() {
        for field in STATE.fields {
            assert!(begins_with_a_mistake(&Mask::parse(field.name)).is_some(), "{}", field.name);
        }
    }

    #[test]
    fn long_names_are_no_mistake_in_a_letter() {
        let mask = "x".repeat(1 << 20);
        assert!(begins_with_a_mistake(&Mask::parse(&mask)).is_none());
    }

    #[test]
    fn fields_of_an_execution_state_are_those_that_the_decoder_makes() {
        use crate::{pb::ank_base as pb, state::convert::parts::execution_state_from_pb};

        let running = pb::execution_state::ExecutionStateEnum::Running(0);
        let all = pb::ExecutionState {
            additional_info: Some("x".to_owned()),
            execution_state_enum: Some(running),
        };
        let node = execution_state_from_pb(&all).unwrap();
        let names: Vec<_> = node.entries().iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, EXECUTION);
    }

    #[test]
    fn fault_names_the_place_and_what_there_is() {
        let parts = "desiredState, workloadStates, agents, effectiveState";
        for mask in ["desiredstate", "desiredStateX.configs", "foo.*", "a..b", ".desiredState", " "]
        {
            let text = format!("unknown mask '{mask}': a mask begins with one of {parts}");
            assert_eq!(fault(mask), Some(text));
        }
        let state = "apiVersion, workloads, configs";
        for (mask, text) in [
            (
                "desiredState.config.speed",
                format!("desiredState has no field `config`, only {state}"),
            ),
            (
                "desiredState.workloads.*.files.*",
                "there is never anything below desiredState.workloads.*.files".to_owned(),
            ),
            ("effectiveState..x", format!("effectiveState has no field ``, only {state}")),
            (
                "agents.a.status.cpu_usage",
                "agents.a.status has no field `cpu_usage`, only cpuUsage, freeMemory".to_owned(),
            ),
            (
                "workloadStates.a.w.1.status",
                format!(
                    "workloadStates.a.w.1 has no field `status`, only {}",
                    EXECUTION.join(", ")
                ),
            ),
            (
                "desiredState.apiVersion.v1",
                "there is never anything below desiredState.apiVersion".to_owned(),
            ),
            (
                "desiredState.workloads.w.files.0",
                "there is never anything below desiredState.workloads.w.files".to_owned(),
            ),
        ] {
            assert_eq!(fault(mask), Some(text), "{mask}");
        }
    }

    #[test]
    #[cfg(feature = "printed")]
    fn mask_without_a_match_is_missing_also_beside_others_and_with_a_wildcard() {
        let config = Node::map([("a", Node::text("x")), ("l", Node::seq([Node::text("y")]))]);
        let state = Node::map([("apiVersion", Node::text("v1")), ("configs", config)]);
        let tree = Tree::default().with("desiredState", Some(state));
        let missing = |masks: &[&str]| {
            let masks: Vec<_> = masks.iter().map(|mask| (*mask).to_owned()).collect();
            without_match(&masks, &tree)
        };
        for there in
            ["", "*", "desiredState", "desiredState.configs.a", "desiredState.*.l", "*.configs.*"]
        {
            assert_eq!(missing(&[there]), [""; 0], "{there}");
        }
        for absent in [
            "agents",
            "desiredState.workloads.engin",
            "desiredState.configs.l.0",
            "desiredState.configs.*.b",
            "workloadStates.*.w",
        ] {
            let notes = missing(&["desiredState.configs", absent]);
            assert!(notes.len() == 1 && notes[0].starts_with(&format!("nothing is at {absent}")));
        }
        assert!(missing(&["desiredState.config"])[0].contains("has no field `config`, only"));
    }
}
