//! Reader of the fields of the schema: walks a YAML node along the table of fields.
//!
//! Names, enum values and rules come from the table. Only the access rules have a reader of their own,
//! because their `type` decides the fields.

use std::fmt;

use super::{reader::Reader, yaml::Yaml};
use crate::{
    foreign::Excerpt,
    state::{
        Map, Mask, Node, reach,
        schema::{Choice, Field, Kind, Presence, Record, Rule, Variant},
    },
};

impl Reader {
    /// Reads a mapping of the record's fields. A fault about a missing one stands at `place`.
    pub(super) fn record(
        &mut self,
        node: &Yaml<'_>,
        what: &str,
        place: &Yaml<'_>,
        record: &'static Record,
    ) -> Option<Node> {
        let entries = self.entries(node, what)?;
        // By what is given, not by what could be read: a field with a fault has it already.
        let is_given = |name: &str| entries.iter().any(|(own, ..)| *own == name);
        for presence in [Presence::Required, Presence::Always] {
            for Field { name, .. } in record.with(presence).filter(|own| !is_given(own.name)) {
                self.fault::<()>(place, format!("{what} has no `{name}`"));
            }
        }
        let either: Vec<_> = record.with(Presence::Either).map(|field| field.name).collect();
        if !either.is_empty() && either.iter().filter(|own| is_given(own)).count() != 1 {
            let names = either.join("` or `");
            self.fault::<()>(place, format!("{what} has either `{names}`"));
        }
        let mut fields = Map::new();
        for (name, key, value) in entries {
            let read = match record.field(name) {
                Some(field) => self.field(field, name, value),
                None => self.unknown_key(key, name, what, &record.names()),
            };
            if let Some(read) = read {
                fields.insert(self.key(name), read);
            }
        }
        Some(Node::Map(fields))
    }

    /// Reads the value of a field; messages call it `name`.
    fn field(&mut self, field: &Field, name: &str, value: &Yaml<'_>) -> Option<Node> {
        match &field.kind {
            Kind::Text | Kind::Choice(_) => self.value(field, &field.kind, name, value),
            // Before the other maps: v0.1 has a list in this place.
            Kind::Map(_) if was_list(field) => self.tags(field, value),
            Kind::Map(kind) | Kind::LargeMap(kind) => self.map(field, kind, value),
            Kind::List(kind) | Kind::Repeated(kind) => {
                let mut values = Vec::new();
                for item in self.items(value, name)? {
                    values.extend(self.value(field, kind, field.item, item));
                }
                Some(Node::seq(values))
            }
            Kind::Record(record) => self.record(value, name, value, record),
            Kind::Config => self.config(value, 1, true),
            Kind::OneOf(_) | Kind::Number(_) | Kind::Execution(_) => {
                self.fault(value, format!("{name} cannot be set"))
            }
        }
    }

    /// Reads one value of a field, or one item of its value.
    fn value(&mut self, field: &Field, kind: &Kind, what: &str, node: &Yaml<'_>) -> Option<Node> {
        match kind {
            Kind::Text => {
                let text = self.text(node, what)?;
                if let Err(why) = field.rule.check(&text) {
                    return self.fault(node, quoting(&text, &why));
                }
                if field.rule == Rule::FilterMask
                    && let Some(why) = reach::names_nothing(&Mask::parse(&text))
                {
                    let (own, why) = (Excerpt(&text), quoting(&text, &why));
                    self.warn(node, format!("the mask '{own}' of a rule names nothing: {why}"));
                }
                Some(self.leaf(&text))
            }
            Kind::Choice(choices) => self.one_of(node, what, &names(choices)),
            Kind::Record(record) => self.record(node, what, node, record),
            Kind::OneOf(variants) => self.variant(variants, what, node),
            Kind::Config => self.config(node, 1, true),
            _ => self.fault(node, format!("{what} cannot be set")),
        }
    }

    pub(super) fn map(&mut self, field: &Field, kind: &Kind, node: &Yaml<'_>) -> Option<Node> {
        let mut map = Map::new();
        for (name, key, value) in self.entries(node, field.name)? {
            if let Err(why) = field.rule.check_key(name) {
                self.fault::<()>(key, quoting(name, &why));
            }
            if let Some(read) = self.value(field, kind, field.item, value) {
                map.insert(name, read);
            }
        }
        Some(Node::Map(map))
    }

    /// Reads a value whose `type` names its fields: an access rule.
    fn variant(&mut self, variants: &[Variant], what: &str, node: &Yaml<'_>) -> Option<Node> {
        let types: Vec<_> = variants.iter().map(|(_, name, _)| *name).collect();
        let entries = self.entries(node, what)?;
        let Some((_, _, kind)) = entries.iter().find(|(name, ..)| *name == "type") else {
            let text = format!("{what} has no `type`; it is {}", types.join(" or "));
            return self.fault(node, text);
        };
        // Without a known type no other field can be judged: one fault is enough.
        let kind = self.one_of(kind, "type", &types)?;
        let (_, _, record) = variants.iter().find(|(_, name, _)| kind.as_str() == Some(name))?;
        let known: Vec<_> = ["type"].into_iter().chain(record.names()).collect();
        let mut fields = Map::new();
        let mut missing = record.names();
        for (name, key, value) in entries {
            let current = self.current_name(name, key, record);
            match missing.iter().position(|own| *own == current) {
                Some(place) => drop(missing.remove(place)),
                None if record.field(current).is_some() => {
                    // Keys are unique, so one of them is the deprecated name of the other.
                    let text = format!("{what} has `{current}` twice, also by its former name");
                    self.fault::<()>(key, text);
                }
                None => {}
            }
            let read = match record.field(current) {
                Some(field) => self.field(field, name, value).map(|read| (field.name, read)),
                None if name == "type" => Some((name, kind.clone())),
                None => self.unknown_key(key, name, what, &known),
            };
            if let Some((name, read)) = read {
                fields.insert(self.key(name), read);
            }
        }
        for name in missing {
            self.fault::<()>(node, format!("{what} has no `{name}`"));
        }
        Some(Node::Map(fields))
    }

    /// The name of today for a deprecated one.
    fn current_name<'a>(&mut self, name: &'a str, key: &Yaml<'_>, record: &Record) -> &'a str {
        match record.fields.iter().find(|field| former_name(field) == Some(name)) {
            None => name,
            Some(field) => {
                self.warn(key, format!("`{name}` is deprecated: use `{}`", field.name));
                field.name
            }
        }
    }
}

/// The deprecated name of a field in an access rule.
pub(super) fn former_name(field: &Field) -> Option<&'static str> {
    (field.rule == Rule::FilterMask).then_some("filterMask")
}

/// Whether the field is a list of pairs in v0.1, and a map since.
pub(super) fn was_list(field: &Field) -> bool {
    field.name == "tags"
}

/// A message of the state about this text. It quotes the whole text, which may be as long as the
/// manifest.
fn quoting(text: &str, message: &dyn fmt::Display) -> String {
    let (message, excerpt) = (message.to_string(), Excerpt(text).to_string());
    if excerpt == text { message } else { message.replace(text, &excerpt) }
}

fn names(choices: &[Choice]) -> Vec<&'static str> {
    choices.iter().map(|(_, name)| *name).collect()
}
