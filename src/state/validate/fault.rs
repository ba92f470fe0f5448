//! Faults of a desired state. Its author made each of them: the author of a manifest, of a workload's
//! update, or of the agent. The texts are the reference's where the reference has one.

use std::{error::Error, fmt};

use super::{MAX_NAME, NAME_RULE};
use crate::limits::{too_deep, too_large};

/// Longest pattern of workload names with a `*`.
pub(crate) const MAX_PATTERN: usize = 64;

const NAME_CHARACTERS: &str = "Expected to have characters in [a-zA-Z0-9_-].";

/// Fault of a workload's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameFault {
    Empty,
    Characters,
    /// Its length in bytes.
    TooLong(usize),
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Is empty."),
            Self::Characters => f.write_str(NAME_CHARACTERS),
            Self::TooLong(len) => {
                write!(f, "Length {len} exceeds the maximum limit of {MAX_NAME} characters.")
            }
        }
    }
}

impl Error for NameFault {}

/// Fault of a text with a rule of its own: a name, a mask or a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RuleFault {
    /// The noun of the field, and the text.
    Name(&'static str, String),
    /// The list of the rule.
    UnknownRule(&'static str),
    EmptyMask,
    Mask(String),
    LogName(String, NameFault),
    /// A pattern of this length in bytes.
    LongPattern(String, usize),
    PatternCharacters(String),
    TwoStars,
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log_rule = "Log rule validation filed"; // spelled as the reference spells it
        let pattern_of = |pattern| {
            format!("{log_rule}: Unsupported workload name filter with wildcard '{pattern}'.")
        };
        match self {
            Self::Name(what, name) => write!(f, "Unsupported {what} '{name}'. {NAME_RULE}"),
            Self::UnknownRule(list) => {
                write!(f, "A rule of {list} is neither a StateRule nor a LogRule")
            }
            Self::EmptyMask => {
                f.write_str("Empty filter masks are not allowed in Control Interface access rules")
            }
            Self::Mask(mask) => write!(
                f,
                "Unsupported filter mask '{mask}'. Only \".\" separated sequences allowed where \
                 each part is either a wildcard \"*\" or chars in [a-zA-Z0-9_-]"
            ),
            Self::LogName(name, why) => {
                write!(f, "{log_rule}: Unsupported workload name '{name}'. {why}")
            }
            Self::LongPattern(pattern, len) => write!(
                f,
                "{} Filter length {len} exceeds the maximum limit of {MAX_PATTERN} characters.",
                pattern_of(pattern)
            ),
            Self::PatternCharacters(pattern) => {
                write!(f, "{} {NAME_CHARACTERS}", pattern_of(pattern))
            }
            Self::TwoStars => f.write_str("Expected at most one '*' symbol."),
        }
    }
}

impl Error for RuleFault {}

/// A value without the shape that the table of fields gives it. Each has the path of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShapeFault {
    NoMapping(String),
    NoSequence(String),
    NoText(String),
    /// Configs have no numbers.
    Number(String),
    Unset(String),
    TooDeep(String),
    /// Its size in bytes.
    TooLarge(String, usize),
    Missing {
        field: &'static str,
        at: String,
    },
    /// A record without any of these fields.
    NoneOf(String, Vec<&'static str>),
    /// A record of none of these kinds.
    NoKind(String, Vec<&'static str>),
}

impl fmt::Display for ShapeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMapping(at) => write!(f, "{at} is not a mapping"),
            Self::NoSequence(at) => write!(f, "{at} is not a sequence"),
            Self::NoText(at) => write!(f, "{at} is not a string"),
            Self::Number(at) => write!(f, "{at} is a number; configs hold strings"),
            Self::Unset(at) => {
                write!(f, "{at} has no value: neither String, array nor object is set")
            }
            Self::TooDeep(at) => f.write_str(&too_deep(at)),
            Self::TooLarge(at, bytes) => f.write_str(&too_large(at, *bytes)),
            Self::Missing { field, at } => write!(f, "missing field `{field}` in {at}"),
            Self::NoneOf(at, fields) => write!(f, "{at} has neither {}", fields.join(" nor ")),
            Self::NoKind(at, kinds) => {
                write!(f, "{at} is neither a {}", kinds.join(" nor a "))
            }
        }
    }
}

impl Error for ShapeFault {}
