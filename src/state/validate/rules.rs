//! Rules about the texts of fields (docs/protocol.md#rule-validation, docs/protocol.md#names-and-versions).
//! The errors are in the reference's words.

use super::{
    fault::{MAX_PATTERN, RuleFault},
    has_name_characters, is_name, workload_name_fault,
};
use crate::state::{
    Node,
    schema::{ACCESS, ACCESS_RULE, Rule},
};

impl Rule {
    /// Checks a text of a field with this rule.
    pub(crate) fn check(self, text: &str) -> Result<(), RuleFault> {
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
    pub(crate) fn check_key(self, key: &str) -> Result<(), RuleFault> {
        if self == Self::ConfigReference { name("config alias", key) } else { Ok(()) }
    }
}

fn name(what: &'static str, name: &str) -> Result<(), RuleFault> {
    if is_name(name) { Ok(()) } else { Err(RuleFault::Name(what, name.to_owned())) }
}

/// Checks the rules of one `controlInterfaceAccess`.
///
/// # Errors
/// The fault of the first rule that has one.
pub(crate) fn check_access(access: &Node) -> Result<(), RuleFault> {
    for list in ACCESS.fields {
        let name = list.name;
        for rule in access.get(name).and_then(Node::as_seq).unwrap_or_default() {
            let Some((_, _, record)) = ACCESS_RULE.variant(rule) else {
                return Err(RuleFault::UnknownRule(name));
            };
            for field in record.fields {
                // Empty for `operation`: the decoder knows its spellings already.
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

fn filter_mask(mask: &str) -> Result<(), RuleFault> {
    if mask.is_empty() {
        return Err(RuleFault::EmptyMask);
    }
    let is_part = |part: &str| part == "*" || (!part.is_empty() && has_name_characters(part));
    if mask.split('.').all(is_part) { Ok(()) } else { Err(RuleFault::Mask(mask.to_owned())) }
}

fn name_pattern(pattern: &str) -> Result<(), RuleFault> {
    let own = || pattern.to_owned();
    match pattern.matches('*').count() {
        0 => match workload_name_fault(pattern) {
            None => Ok(()),
            Some(why) => Err(RuleFault::LogName(own(), why)),
        },
        1 if pattern.len() > MAX_PATTERN => Err(RuleFault::LongPattern(own(), pattern.len())),
        1 if has_name_characters(&pattern.replace('*', "")) => Ok(()),
        1 => Err(RuleFault::PatternCharacters(own())),
        _ => Err(RuleFault::TwoStars),
    }
}
