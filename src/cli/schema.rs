//! Shapes of settable values: the table of fields as user input meets it.
//!
//! User input is checked against them before sending. The protobuf schema has no place for a
//! misspelled field, so without this check the field would be lost silently.

use std::{fmt, sync::LazyLock};

use crate::state::schema::{self, COMPLETE_STATE, Kind, Presence, Record};

/// Kind of a value, and of the values below it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Any text.
    Text,
    /// One of these texts.
    OneOf(Vec<&'static str>),
    /// Any names, with values of this kind.
    MapOf(Box<Shape>),
    /// Values of this kind.
    ListOf(Box<Shape>),
    /// Fixed names, each with its kind: first the needed fields, then the optional ones.
    Fields { needed: Vec<Field>, optional: Vec<Field> },
    /// One of these shapes: the first with all its needed fields present.
    Either(Vec<Shape>),
    /// A text, or a sequence or mapping of configs, to any depth.
    Config,
    /// Readable part of the state; an update cannot set it, and input leaves it out.
    Unsettable,
}

use Shape::{Config, Either, Fields, ListOf, MapOf, OneOf, Text, Unsettable};

pub(super) type Field = (&'static str, Shape);

/// The state.
pub(super) static STATE: LazyLock<Shape> = LazyLock::new(|| Shape::of_part(&COMPLETE_STATE));

impl From<&Kind> for Shape {
    fn from(kind: &Kind) -> Self {
        let boxed = |kind: &Kind| Box::new(Self::from(kind));
        match kind {
            Kind::Text => Text,
            Kind::Choice(choices) => OneOf(choices.iter().map(|(_, name)| *name).collect()),
            Kind::Map(value) | Kind::LargeMap(value) => MapOf(boxed(value)),
            Kind::List(value) | Kind::Repeated(value) => ListOf(boxed(value)),
            Kind::Record(record) if record.with(Presence::Either).next().is_some() => {
                let variants = record.with(Presence::Either);
                Either(variants.map(|own| Self::of_variant(None, record, Some(own))).collect())
            }
            Kind::Record(record) => Self::of_part(record),
            Kind::OneOf(variants) => {
                let variants = variants.iter();
                Either(variants.map(|own| Self::of_variant(Some(own.1), own.2, None)).collect())
            }
            Kind::Config => Config,
            Kind::Number(_) | Kind::Execution(_) => Unsettable,
        }
    }
}

impl Shape {
    fn of_field(field: &schema::Field) -> Field {
        (field.name, if field.read_only { Unsettable } else { Self::from(&field.kind) })
    }

    /// A record at a path of its own: any part of it can be set.
    fn of_part(record: &'static Record) -> Self {
        let mut optional: Vec<_> = record.fields.iter().map(Self::of_field).collect();
        optional.sort_by_key(|(name, _)| *name);
        Fields { needed: Vec::new(), optional }
    }

    /// A record that is set as a whole: with the fields that all variants have, and its own.
    fn of_variant(
        tag: Option<&'static str>,
        record: &'static Record,
        own: Option<&'static schema::Field>,
    ) -> Self {
        let tag = tag.map(|tag| ("type", OneOf(vec![tag])));
        let fields = record.with(Presence::Always).chain(own);
        Fields {
            needed: tag.into_iter().chain(fields.map(Self::of_field)).collect(),
            optional: Vec::new(),
        }
    }

    /// The shape at `path`, counted from the root of the state.
    ///
    /// # Errors
    /// The mistake in the path, and the expected form.
    pub(super) fn at(path: &[&str]) -> Result<&'static Self, Misfit> {
        let mut shape = &*STATE;
        for (depth, name) in path.iter().enumerate() {
            let here = || match depth {
                0 => "a state".to_owned(),
                _ => path[..depth].join("."),
            };
            shape = match shape {
                MapOf(below) => below,
                Config => shape,
                // Nothing below it can be set either.
                Unsettable => break,
                Fields { .. } => shape.field(name).ok_or_else(|| {
                    Misfit::NoField(here(), (*name).to_owned(), shape.field_names())
                })?,
                Text | OneOf(_) => return Err(Misfit::BelowText(here())),
                ListOf(_) | Either(_) => {
                    return Err(Misfit::BelowWhole(here()));
                }
            };
        }
        match shape {
            Unsettable => Err(Misfit::Unsettable),
            shape => Ok(shape),
        }
    }

    /// The shape of the field `name`.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        self.fields().find(|(own, _)| *own == name).map(|(_, shape)| shape)
    }

    /// The names of all fields, for a message.
    pub(super) fn field_names(&self) -> String {
        self.fields().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    fn fields(&self) -> impl Iterator<Item = &Field> {
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
            Fields { needed, .. } if needed.is_empty() => {
                format!("a mapping of {}", self.field_names())
            }
            Fields { needed, .. } => {
                let field = |(name, shape): &Field| match shape {
                    OneOf(texts) if texts.len() == 1 => format!("{name}: {}", texts[0]),
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

/// A path or a value that the state has no place for. The user of `set` made the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The place, the name, and the fields of the place.
    NoField(String, String, String),
    /// A path through this text.
    BelowText(String),
    /// A path into this collection.
    BelowWhole(String),
    Unsettable,
    /// A text, and the form of the place.
    NoChoice(String, String),
    /// No plain value has this form.
    NeedsYaml(String),
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoField(place, name, fields) => {
                write!(f, "{place} has no field `{name}`, only {fields}")
            }
            Self::BelowText(place) => write!(f, "{place} is a text"),
            Self::BelowWhole(place) => write!(f, "{place} can be set as a whole only"),
            Self::Unsettable => f.write_str("an update cannot set this"),
            Self::NoChoice(text, form) => write!(f, "`{text}` is not {form}"),
            Self::NeedsYaml(form) => write!(f, "{form} belongs here; give it with --yaml"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_row_of_the_schema_is_a_settable_field() {
        let shape = Shape::from(&Kind::Record(&schema::WITH_NEW_FIELD));
        assert_eq!(shape.field("priority"), Some(&OneOf(vec!["LOW", "HIGH"])));
        assert_eq!(shape.describe(), "a mapping of agent, priority, tags");
    }
}
