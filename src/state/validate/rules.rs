//! Whether access rules are ones that can mean something (docs/protocol.md#rule-validation).

use super::{has_name_characters, workload_name_fault};
use crate::state::Node;

/// Longest pattern of workload names with a `*`.
const MAX_PATTERN: usize = 64;

/// Checks the access rules of a workload.
pub(super) fn check(workload: &Node) -> Result<(), String> {
    workload.get("controlInterfaceAccess").map_or(Ok(()), check_access)
}

/// Checks the rules of one `controlInterfaceAccess`.
///
/// # Errors
/// What is wrong with the first rule that is, in the reference's words.
pub fn check_access(access: &Node) -> Result<(), String> {
    for list in ["allowRules", "denyRules"] {
        for rule in access.get(list).and_then(Node::as_seq).unwrap_or_default() {
            if rule.str_at("type").is_none() {
                return Err(format!("A rule of {list} is neither a StateRule nor a LogRule"));
            }
            let texts = |name| {
                let texts = rule.get(name).and_then(Node::as_seq).unwrap_or_default();
                texts.iter().filter_map(Node::as_str)
            };
            texts("filterMasks").try_for_each(filter_mask)?;
            texts("workloadNames").try_for_each(name_pattern)?;
        }
    }
    Ok(())
}

pub(crate) fn filter_mask(mask: &str) -> Result<(), String> {
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

pub(crate) fn name_pattern(pattern: &str) -> Result<(), String> {
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
