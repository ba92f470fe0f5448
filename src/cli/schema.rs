//! What an update may set, as a table: the tree of docs/protocol.md#fields with the kind of each value.
//!
//! It checks what a user gives before it is sent: the schema of the messages has no room for what is
//! misspelled, so that would be lost without a word.

/// The kind of a value, and of what is below it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Any text.
    Text,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// Values of this kind by any name.
    MapOf(&'static Shape),
    /// Values of this kind.
    ListOf(&'static Shape),
    /// Values by these names; those that are needed, then those that may be there.
    Fields { needed: &'static [Field], optional: &'static [Field] },
    /// As one of these; the first that has all it needs.
    Either(&'static [Shape]),
    /// A text, or a sequence or mapping of the same, to any depth.
    Config,
    /// Part of a state, but not of what can be set: left out.
    Unsettable,
}

use Shape::{Config, Either, Fields, ListOf, MapOf, OneOf, Text, Unsettable};

pub(super) type Field = (&'static str, Shape);

/// The state.
pub(super) static STATE: Shape = Fields {
    needed: &[],
    optional: &[
        ("agents", MapOf(&AGENT)),
        ("desiredState", DESIRED_STATE),
        ("effectiveState", Unsettable),
        ("workloadStates", Unsettable),
    ],
};

static AGENT: Shape =
    Fields { needed: &[], optional: &[("status", Unsettable), ("tags", MapOf(&Text))] };

const DESIRED_STATE: Shape = Fields {
    needed: &[],
    optional: &[("apiVersion", Text), ("configs", MapOf(&Config)), ("workloads", MapOf(&WORKLOAD))],
};

static WORKLOAD: Shape = Fields {
    needed: &[],
    optional: &[
        ("agent", Text),
        ("configs", MapOf(&Text)),
        ("controlInterfaceAccess", ACCESS),
        ("dependencies", MapOf(&CONDITION)),
        ("files", ListOf(&FILE)),
        ("restartPolicy", OneOf(&["NEVER", "ON_FAILURE", "ALWAYS"])),
        ("runtime", Text),
        ("runtimeConfig", Text),
        ("tags", MapOf(&Text)),
    ],
};

static CONDITION: Shape = OneOf(&["ADD_COND_RUNNING", "ADD_COND_SUCCEEDED", "ADD_COND_FAILED"]);

const ACCESS: Shape = Fields {
    needed: &[],
    optional: &[("allowRules", ListOf(&RULE)), ("denyRules", ListOf(&RULE))],
};

static RULE: Shape = Either(&[
    Fields {
        needed: &[
            ("type", OneOf(&["StateRule"])),
            ("operation", OneOf(&["Nothing", "Read", "Write", "ReadWrite"])),
            ("filterMasks", ListOf(&Text)),
        ],
        optional: &[],
    },
    Fields {
        needed: &[("type", OneOf(&["LogRule"])), ("workloadNames", ListOf(&Text))],
        optional: &[],
    },
]);

static FILE: Shape = Either(&[
    Fields { needed: &[("mountPoint", Text), ("data", Text)], optional: &[] },
    Fields { needed: &[("mountPoint", Text), ("binaryData", Text)], optional: &[] },
]);

impl Shape {
    /// The shape at `path`, which begins at the state.
    ///
    /// # Errors
    /// What is wrong with the path, and what would be right.
    pub(super) fn at(path: &[&str]) -> Result<&'static Self, String> {
        let mut shape = &STATE;
        for (depth, name) in path.iter().enumerate() {
            let here = || match depth {
                0 => "a state".to_owned(),
                _ => path[..depth].join("."),
            };
            shape = match shape {
                MapOf(below) => below,
                Config => shape,
                Unsettable => break,
                Fields { .. } => shape.field(name).ok_or_else(|| {
                    format!("{} has no field `{name}`, only {}", here(), shape.field_names())
                })?,
                Text | OneOf(_) => return Err(format!("{} is a text", here())),
                ListOf(_) | Either(_) => {
                    return Err(format!("{} can be set as a whole only", here()));
                }
            };
        }
        match shape {
            Unsettable => Err("an update cannot set this".to_owned()),
            shape => Ok(shape),
        }
    }

    /// The shape of the field `name`.
    pub(super) fn field(&self, name: &str) -> Option<&'static Self> {
        self.fields().find(|(own, _)| *own == name).map(|(_, shape)| shape)
    }

    /// The names of all fields, for a message.
    pub(super) fn field_names(&self) -> String {
        self.fields().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    fn fields(&self) -> impl Iterator<Item = &'static Field> {
        let (needed, optional): (&[Field], &[Field]) = match self {
            Fields { needed, optional } => (needed, optional),
            _ => (&[], &[]),
        };
        needed.iter().chain(optional)
    }

    /// What belongs here, for a message.
    pub(super) fn describe(&self) -> String {
        match self {
            Text => "a text".to_owned(),
            OneOf(texts) => format!("one of {}", texts.join(", ")),
            MapOf(_) => "a mapping".to_owned(),
            ListOf(_) => "a sequence".to_owned(),
            Fields { needed: [], .. } => format!("a mapping of {}", self.field_names()),
            Fields { needed, .. } => {
                let field = |(name, shape): &Field| match shape {
                    OneOf([only]) => format!("{name}: {only}"),
                    _ => (*name).to_owned(),
                };
                format!("{{{}}}", needed.iter().map(field).collect::<Vec<_>>().join(", "))
            }
            Either(shapes) => shapes.iter().map(Self::describe).collect::<Vec<_>>().join(" or "),
            Config => "a text, a sequence or a mapping".to_owned(),
            Unsettable => "anything".to_owned(),
        }
    }
}
