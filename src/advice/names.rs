//! Names in masks that are not in the manifest.

use super::{Findings, names};
use crate::{
    foreign::Excerpt,
    state::{AGENTS, DESIRED_STATE, EFFECTIVE_STATE, Key, Mask, Node, Segment, WORKLOAD_STATES},
};

/// The first name of the mask that nothing in the manifest has, as a sentence; `None` if all are there, or if
/// only running workloads have them.
pub(super) fn absent(found: &mut Findings<'_>, mask: &Mask) -> Option<String> {
    let names: Vec<_> = mask.segments().iter().map(literal).collect();
    match names[..] {
        [Some(DESIRED_STATE | EFFECTIVE_STATE), Some("workloads"), Some(name), ..] => {
            workload(found, name)
        }
        [Some(DESIRED_STATE), Some("configs"), Some(name), ref below @ ..] => {
            config(found, name, below)
        }
        [Some(AGENTS), Some(agent), ..] => self::agent(found, agent),
        [Some(WORKLOAD_STATES), agent, ref below @ ..] => {
            let absent = agent.and_then(|agent| self::agent(found, agent));
            absent.or_else(|| match below {
                [Some(name), ..] => {
                    workload(found, name).or_else(|| elsewhere(found, agent?, name))
                }
                _ => None,
            })
        }
        _ => None,
    }
}

fn literal(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Any => None,
        Segment::Key(key) => Some(key.as_str()),
    }
}

fn workload(found: &mut Findings<'_>, name: &str) -> Option<String> {
    if found.workloads.get(name).is_some() {
        return None;
    }
    let hint = found.did_you_mean(name, names(found.workloads));
    Some(format!("the manifest has no workload `{}`{hint}", Excerpt(name)))
}

fn config(found: &mut Findings<'_>, name: &str, below: &[Option<&str>]) -> Option<String> {
    let Some(mut value) = found.configs.get(name) else {
        let hint = found.did_you_mean(name, names(found.configs));
        return Some(format!("the manifest has no config `{}`{hint}", Excerpt(name)));
    };
    for inner in below {
        let inner = (*inner)?;
        match value.get(inner) {
            Some(deeper) => value = deeper,
            None => {
                let (name, own) = (Excerpt(name), Excerpt(inner));
                let hint = found.did_you_mean(inner, names(value.entries()));
                return Some(format!("the config `{name}` of the manifest has no `{own}`{hint}"));
            }
        }
    }
    None
}

/// The agents of the workloads; `None` if one of them is a template.
fn agents<'a>(found: &Findings<'a>) -> Option<Vec<&'a str>> {
    let agents = found.workloads.iter().map(|(_, workload)| agent_of(workload));
    let mut agents = agents.collect::<Option<Vec<_>>>()?;
    agents.sort_unstable();
    agents.dedup();
    Some(agents)
}

fn agent_of(workload: &Node) -> Option<&str> {
    workload.str_at("agent").filter(|agent| !agent.contains("{{"))
}

fn agent(found: &mut Findings<'_>, name: &str) -> Option<String> {
    if !found.may_compare(found.workloads.len()) {
        return None;
    }
    let agents = agents(found)?;
    if agents.contains(&name) {
        return None;
    }
    let hint = found.did_you_mean(name, agents.into_iter());
    Some(format!("no workload of the manifest is of the agent `{}`{hint}", Excerpt(name)))
}

/// A workload of another agent.
fn elsewhere(found: &Findings<'_>, agent: &str, name: &str) -> Option<String> {
    let own = found.workloads.get_key_value(name).map(|(_, workload)| agent_of(workload))??;
    (own != agent).then(|| {
        let (own, agent) = (Excerpt(own), Excerpt(agent));
        format!("the workload `{}` is of the agent `{own}`, not of `{agent}`", Excerpt(name))
    })
}

/// Whether a workload has this name.
pub(super) fn any_matches(found: &Findings<'_>, matches: impl Fn(&str) -> bool) -> bool {
    found.workloads.keys().any(|name: &Key| matches(name.as_str()))
}
