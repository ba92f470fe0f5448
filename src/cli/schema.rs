//! Table of settable fields: the tree of docs/protocol.md#fields with the kind of each value.
//!
//! User input is checked against it before sending. The protobuf schema has no place for a
//! misspelled field, so without this check the field would be lost silently.

/// Kind of a value, and of the values below it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Any text.
    Text,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// Any names, with values of this kind.
    MapOf(&'static Shape),
    /// Values of this kind.
    ListOf(&'static Shape),
    /// Fixed names, each with its kind: first the needed fields, then the optional ones.
    Fields { needed: &'static [Field], optional: &'static [Field] },
    /// One of these shapes: the first with all its needed fields present.
    Either(&'static [Shape]),
    /// A text, or a sequence or mapping of configs, to any depth.
    Config,
    /// Readable part of the state; an update cannot set it, and input leaves it out.
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
    /// The shape at `path`, counted from the root of the state.
    ///
    /// # Errors
    /// The mistake in the path, and the expected form.
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

    /// Description of the expected value, for a message.
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
