//! Rules about the texts of fields (docs/protocol.md#rule-validation, docs/protocol.md#names-and-versions).
//! The errors are in the reference's words.

use super::{NAME_RULE, has_name_characters, is_name, workload_name_fault};
use crate::state::{
    Node,
    schema::{ACCESS, ACCESS_RULE, Rule},
};

/// Longest pattern of workload names with a `*`.
const MAX_PATTERN: usize = 64;

impl Rule {
    /// Checks a text of a field with this rule.
    pub(crate) fn check(self, text: &str) -> Result<(), String> {
        match self {
            Self::Any => Ok(()),
            // A template is the agent's to render; until then it is no name
            // (docs/differences.md#12-templates-belong-to-the-agent).
            Self::AgentName if text.is_empty() || text.contains("{{") => Ok(()),
            Self::AgentName => name("agent name", text),
            Self::ConfigReference => name("config reference key", text),
            Self::FilterMask => filter_mask(text),
            Self::NamePattern => name_pattern(text),
        }
    }

    /// Checks a key of a mapping with this rule.
    pub(crate) fn check_key(self, key: &str) -> Result<(), String> {
        if self == Self::ConfigReference { name("config alias", key) } else { Ok(()) }
    }
}

fn name(what: &str, name: &str) -> Result<(), String> {
    if is_name(name) {
        return Ok(());
    }
    Err(format!("Unsupported {what} '{name}'. {NAME_RULE}"))
}

/// Checks the rules of one `controlInterfaceAccess`.
///
/// # Errors
/// The fault of the first rule that has one.
pub(crate) fn check_access(access: &Node) -> Result<(), String> {
    for list in ACCESS.fields {
        let name = list.name;
        for rule in access.get(name).and_then(Node::as_seq).unwrap_or_default() {
            let Some((_, _, record)) = ACCESS_RULE.variant(rule) else {
                return Err(format!("A rule of {name} is neither a StateRule nor a LogRule"));
            };
            for field in record.fields {
                let texts = rule.get(field.name).and_then(Node::as_seq).unwrap_or_default();
                texts
                    .iter()
                    .filter_map(Node::as_str)
                    .try_for_each(|text| field.rule.check(text))?;
            }
        }
    }
    Ok(())
}

fn filter_mask(mask: &str) -> Result<(), String> {
    if mask.is_empty() {
        let text = "Empty filter masks are not allowed in Control Interface access rules";
        return Err(text.to_owned());
    }
    let is_part = |part: &str| part == "*" || (!part.is_empty() && has_name_characters(part));
    if mask.split('.').all(is_part) {
        return Ok(());
    }
    Err(format!(
        "Unsupported filter mask '{mask}'. Only \".\" separated sequences allowed where each part \
         is either a wildcard \"*\" or chars in [a-zA-Z0-9_-]"
    ))
}

fn name_pattern(pattern: &str) -> Result<(), String> {
    let prefix = "Log rule validation filed"; // spelled as the reference spells it
    match pattern.matches('*').count() {
        0 => match workload_name_fault(pattern) {
            None => Ok(()),
            Some(why) => Err(format!("{prefix}: Unsupported workload name '{pattern}'. {why}")),
        },
        1 => {
            let len = pattern.len();
            let why = if len > MAX_PATTERN {
                format!(
                    "Filter length {len} exceeds the maximum limit of {MAX_PATTERN} characters."
                )
            } else if !has_name_characters(&pattern.replace('*', "")) {
                "Expected to have characters in [a-zA-Z0-9_-].".to_owned()
            } else {
                return Ok(());
            };
            Err(format!(
                "{prefix}: Unsupported workload name filter with wildcard '{pattern}'. {why}"
            ))
        }
        _ => Err("Expected at most one '*' symbol.".to_owned()),
    }
}
