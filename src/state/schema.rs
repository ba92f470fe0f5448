//! Table of the state's fields: the one place that spells the schema (docs/protocol.md#fields).
//!
//! Each row has the name of a field in the tree, its number in protobuf, the kind of its value and its
//! presence. Decoder and encoder (`state/convert`), shape checks (`state/validate`), the manifest's
//! reader and the command line walk the table and name no field themselves, except for a rule about
//! one field. A new field of the protocol is one row. A test compares the table with the compiled
//! `proto/`, so the two cannot drift.

use super::Node;

/// Kind of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A text.
    Text,
    /// An enum; the tree holds the spelling.
    Choice(&'static [Choice]),
    /// A message around one number of at most this value.
    Number(u64),
    /// A message of named fields.
    Record(&'static Record),
    /// A message around a map from texts to values of this kind.
    Map(&'static Kind),
    /// A [`Kind::Map`] with thousands of entries: the encoder caches its leaves.
    LargeMap(&'static Kind),
    /// A message around repeated values of this kind.
    List(&'static Kind),
    /// Repeated values of this kind, without a message around them.
    Repeated(&'static Kind),
    /// A message with a oneof of records; the tree holds the record, and the variant's name as `type`.
    OneOf(&'static [Variant]),
    /// The message `ExecutionState`: in the tree `additionalInfo`, `state` and `subState`.
    Execution(&'static [ExecutionKind]),
    /// A config: a text, or a sequence or mapping of configs. The only recursive kind.
    Config,
}

/// Number and spelling of an enum's value. The first of an enum is its default, 0.
pub(crate) type Choice = (i32, &'static str);

/// Number, name and fields of one member of a [`Kind::OneOf`].
pub(crate) type Variant = (u32, &'static str, &'static Record);

/// Number, `state` and values of `subState` of one member of the oneof in `ExecutionState`.
pub(crate) type ExecutionKind = (u32, &'static str, &'static [Choice]);

/// Presence of a field, on the wire and in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// In the tree exactly if it is on the wire.
    Optional,
    /// Optional on the wire; a desired state without it is rejected.
    Required,
    /// Optional on the wire; validation adds this value to a desired state without it.
    Default(&'static str),
    /// Always in the tree. On the wire the default is left out.
    Always,
    /// Member of the message's oneof: a valid message has exactly one of them.
    Either,
    /// A sub-message in every full answer, even if empty.
    Filled,
    /// As [`Presence::Filled`]; the tree leaves out an empty one.
    Collection,
}

/// Rule for the texts of a field, beyond their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Any text.
    Any,
    /// Name of an agent, or a template.
    AgentName,
    /// Keys are aliases, values are keys of configs.
    ConfigReference,
    /// Mask of a rule about the state.
    FilterMask,
    /// Pattern of a rule about logs.
    NamePattern,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// Number in protobuf.
    pub number: u32,
    /// Name in the tree; in `proto/` the same, or in snake case.
    pub name: &'static str,
    /// Kind of the value.
    pub kind: Kind,
    /// Presence on the wire and in the tree.
    pub presence: Presence,
    /// Workloads can read it, but an update cannot set it.
    pub read_only: bool,
    /// Rule for its texts.
    pub rule: Rule,
    /// Noun for one item of a map or list, for messages.
    #[cfg_attr(
        not(feature = "manifest"),
        allow(dead_code, reason = "only readers of text name fields")
    )]
    pub item: &'static str,
    /// Its meaning for the author of a manifest, shown by editors.
    #[cfg_attr(
        not(feature = "cli"),
        allow(dead_code, reason = "only `fifogate schema` prints it")
    )]
    pub about: &'static str,
}

/// The fields of one message, by number.
#[derive(Debug)]
pub(crate) struct Record {
    /// The rows.
    pub fields: &'static [Field],
}

/// Fields of a record, at most.
// Length of an array in the decoder; a test holds every record to it.
pub(super) const MOST_FIELDS: usize = 16;

impl Kind {
    /// The variant of this node, if this is a [`Kind::OneOf`] with such a variant.
    #[must_use]
    pub(crate) fn variant(&self, node: &Node) -> Option<&'static Variant> {
        let Self::OneOf(variants) = self else { return None };
        let name = node.str_at("type")?;
        variants.iter().find(|(_, own, _)| *own == name)
    }
}

impl Record {
    /// The field of this name.
    #[cfg_attr(
        not(feature = "manifest"),
        allow(dead_code, reason = "only readers of text name fields")
    )]
    #[must_use]
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The field of this number and its place in the table.
    pub(super) fn by_number(&self, number: u32) -> Option<(usize, &'static Field)> {
        // Most messages number their fields without a gap.
        let place = (number as usize).wrapping_sub(1);
        match self.fields.get(place) {
            Some(field) if field.number == number => Some((place, field)),
            _ => self.fields.iter().enumerate().find(|(_, field)| field.number == number),
        }
    }

    /// All names, in the order of messages: fields of every value by number, then the others by name.
    #[cfg_attr(
        not(feature = "manifest"),
        allow(dead_code, reason = "only readers of text name fields")
    )]
    #[must_use]
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let mut fields: Vec<_> = self.fields.iter().collect();
        fields.sort_by_key(|field| match field.presence {
            Presence::Always | Presence::Either => (false, ""),
            _ => (true, field.name),
        });
        fields.into_iter().map(|field| field.name).collect()
    }

    /// The fields of this presence.
    pub(crate) fn with(&self, presence: Presence) -> impl Iterator<Item = &'static Field> {
        self.fields.iter().filter(move |field| field.presence == presence)
    }
}

impl Field {
    /// Whether a full answer has it even if the tree does not.
    pub(super) fn is_filled(&self) -> bool {
        matches!(self.presence, Presence::Filled | Presence::Collection)
    }

    /// A row without further rules.
    #[must_use]
    pub(crate) const fn new(
        number: u32,
        name: &'static str,
        kind: Kind,
        presence: Presence,
    ) -> Self {
        let (rule, item) = (Rule::Any, name);
        Self { number, name, kind, presence, read_only: false, rule, item, about: "" }
    }

    const fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    const fn rule(self, rule: Rule) -> Self {
        Self { rule, ..self }
    }

    const fn item(self, item: &'static str) -> Self {
        Self { item, ..self }
    }

    const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }
}

use Kind::{Config, LargeMap, List, Map, Number, OneOf, Repeated, Text};
use Presence::{Always, Collection, Default, Either, Filled, Optional, Required};

const fn row(number: u32, name: &'static str, kind: Kind, presence: Presence) -> Field {
    Field::new(number, name, kind, presence)
}

/// `CompleteState`.
pub(crate) static COMPLETE_STATE: Record = Record {
    fields: &[
        row(1, super::DESIRED_STATE, Kind::Record(&STATE), Optional)
            .about("The manifest in a printed state."),
        row(2, super::WORKLOAD_STATES, Map(&LargeMap(&Map(&EXECUTION_STATE))), Optional)
            .read_only()
            .about("The states of all instances; left out of a manifest."),
        // Not read-only as a whole: updates set the tags of agents.
        row(3, super::AGENTS, Map(&Kind::Record(&AGENT)), Optional)
            .about("The connected agents; left out of a manifest."),
        row(4, super::EFFECTIVE_STATE, Kind::Record(&STATE), Optional)
            .read_only()
            .about("The desired state with rendered templates; left out of a manifest."),
    ],
};

/// `State`.
pub(crate) static STATE: Record = Record {
    fields: &[
        row(1, super::API_VERSION, Text, Always).about(
            "Version of the manifest's form: v1. In v0.1, which is deprecated, tags are a \
                 list.",
        ),
        row(2, "workloads", LargeMap(&Kind::Record(&WORKLOAD)), Filled)
            .about("The workloads by name. A name has 1 to 63 of a-z, A-Z, 0-9, _ and -."),
        row(3, "configs", LargeMap(&Config), Collection).about(
            "Values for the templates of workloads, by key: texts, sequences and mappings, \
                 to any depth up to 20 levels. Numbers and booleans stand in quotes.",
        ),
    ],
};

/// `Workload`.
pub(crate) static WORKLOAD: Record = Record {
    fields: &[
        row(1, "agent", Text, Required).rule(Rule::AgentName).about(
            "Name of the agent that runs the workload. It may be a template; no agent runs \
                 a workload with an empty one.",
        ),
        row(2, "restartPolicy", Kind::Choice(RESTART_POLICY), Default("NEVER")).about(
            "Ends of the workload after which it is started again: NEVER, ON_FAILURE (a \
                 status other than 0) or ALWAYS.",
        ),
        row(3, "dependencies", Map(&Kind::Choice(ADD_CONDITION)), Collection)
            .item("a dependency")
            .about(
                "Workloads that this one waits for, each with the state it has to reach first. \
                 They must not form a cycle.",
            ),
        row(4, "tags", Map(&Text), Collection)
            .item("a tag")
            .about("Texts by key, for readers of the state."),
        row(5, "runtime", Text, Required).about(
            "Program that starts the workload. fifogate-agent has process, podman and \
                 podman-kube.",
        ),
        row(6, "runtimeConfig", Text, Required).about(
            "Settings of the runtime, as one text (`|` begins a block of YAML). process: \
                 YAML with command, environment and more. podman: YAML with image, \
                 commandOptions, commandArgs and more. podman-kube: YAML with manifest, a text \
                 with Kubernetes objects. Templates such as {{alias.name}} take values of the \
                 workload's configs.",
        ),
        row(7, "controlInterfaceAccess", Kind::Record(&ACCESS), Collection).about(
            "Parts of the state and logs that the workload may read and write. Without an \
                 allow rule it has no control interface.",
        ),
        row(8, "configs", Map(&Text), Collection)
            .item("a config reference")
            .rule(Rule::ConfigReference)
            .about(
                "Configs of the workload: an alias for its templates, and the key in the \
                 top-level configs.",
            ),
        row(9, "files", List(&Kind::Record(&FILE)), Collection)
            .item("a file")
            .about("Files that the workload finds at its start."),
    ],
};

const RESTART_POLICY: &[Choice] = &[(0, "NEVER"), (1, "ON_FAILURE"), (2, "ALWAYS")];

const ADD_CONDITION: &[Choice] =
    &[(0, "ADD_COND_RUNNING"), (1, "ADD_COND_SUCCEEDED"), (2, "ADD_COND_FAILED")];

/// `ControlInterfaceAccess`.
pub(crate) static ACCESS: Record = Record {
    fields: &[
        row(1, "allowRules", Repeated(&ACCESS_RULE), Optional)
            .item("a rule")
            .about("A request needs one allow rule that covers all of it."),
        row(2, "denyRules", Repeated(&ACCESS_RULE), Optional)
            .item("a rule")
            .about("A request that touches any of these is denied, whatever is allowed."),
    ],
};

/// `AccessRightsRule`.
pub(crate) static ACCESS_RULE: Kind =
    OneOf(&[(1, "StateRule", &STATE_RULE), (2, "LogRule", &LOG_RULE)]);

static STATE_RULE: Record = Record {
    fields: &[
        row(1, "operation", Kind::Choice(READ_WRITE), Always)
            .about("What the rule is about. Read includes subscriptions to events."),
        row(2, "filterMasks", Repeated(&Text), Always).rule(Rule::FilterMask).about(
            "Paths in the state, from its root: desiredState, workloadStates, agents or \
                 effectiveState. `*` stands for one name; a mask includes all below it; `*` \
                 alone is everything.",
        ),
    ],
};

// The gap is the protocol's own (docs/protocol.md#requests-and-responses).
const READ_WRITE: &[Choice] = &[(0, "Nothing"), (1, "Read"), (2, "Write"), (5, "ReadWrite")];

static LOG_RULE: Record = Record {
    fields: &[row(1, "workloadNames", Repeated(&Text), Always).rule(Rule::NamePattern).about(
        "Names of workloads whose logs are meant, with at most one `*` for any \
                 characters.",
    )],
};

static FILE: Record = Record {
    fields: &[
        row(1, "mountPoint", Text, Always)
            .about("Absolute path of the file as the workload sees it."),
        row(2, "data", Text, Either).about("Content as a text. Templates are rendered."),
        row(3, "binaryData", Text, Either).about("Content in base64. No template is rendered."),
    ],
};

/// `AgentAttributes`.
pub(crate) static AGENT: Record = Record {
    fields: &[
        row(1, "status", Kind::Record(&AGENT_STATUS), Optional).read_only(),
        row(2, "tags", Map(&Text), Collection),
    ],
};

static AGENT_STATUS: Record = Record {
    fields: &[
        row(1, "cpuUsage", Number(u32::MAX as u64), Optional),
        row(2, "freeMemory", Number(u64::MAX), Optional),
    ],
};

/// `ExecutionState`.
pub(crate) static EXECUTION_STATE: Kind = Kind::Execution(&[
    (2, "AgentDisconnected", &[(0, "AgentDisconnected")]),
    (
        3,
        "Pending",
        &[(0, "Initial"), (1, "WaitingToStart"), (2, "Starting"), (8, "StartingFailed")],
    ),
    (4, "Running", &[(0, "Ok")]),
    (
        5,
        "Stopping",
        &[(0, "Stopping"), (1, "WaitingToStop"), (2, "RequestedAtRuntime"), (8, "DeleteFailed")],
    ),
    (6, "Succeeded", &[(0, "Ok")]),
    (7, "Failed", &[(0, "ExecFailed"), (1, "Unknown"), (2, "Lost")]),
    (8, "NotScheduled", &[(0, "NotScheduled")]),
    (9, "Removed", &[(0, "Removed")]),
]);

/// A message with a row beyond the protocol: every walker of the table takes it.
#[cfg(test)]
pub(crate) static WITH_NEW_FIELD: Record = Record {
    fields: &[
        row(1, "agent", Text, Required).rule(Rule::AgentName),
        row(2, "tags", Map(&Text), Collection).item("a tag"),
        row(3, "priority", Kind::Choice(&[(0, "LOW"), (4, "HIGH")]), Default("LOW")),
    ],
};

#[cfg(test)]
mod tests;
