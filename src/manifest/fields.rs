//! Reader of the fields of the schema: walks a YAML node along the table of fields.
//!
//! Names, enum values and rules come from the table. Only the access rules have a reader of their own,
//! because their `type` decides the fields.

use super::{reader::Reader, yaml::Yaml};
use crate::state::{
    Map, Mask, Node, reach,
    schema::{Choice, Field, Kind, Presence, Record, Rule, Variant},
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
        for Field { name, .. } in record.with(Presence::Required) {
            if !entries.iter().any(|(own, ..)| own == name) {
                self.fault::<()>(place, format!("{what} has no `{name}`"));
            }
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
        for Field { name, .. } in record.with(Presence::Always) {
            if fields.get(name).is_none() {
                self.fault::<()>(place, format!("{what} has no `{name}`"));
            }
        }
        // A faulty variant is missing here, and counts as not given.
        let either: Vec<_> = record.with(Presence::Either).map(|field| field.name).collect();
        if !either.is_empty() && either.iter().filter(|own| fields.get(own).is_some()).count() != 1
        {
            let names = either.join("` or `");
            self.fault::<()>(place, format!("{what} has either `{names}`"));
        }
        Some(Node::Map(fields))
    }

    /// Reads the value of a field; messages call it `name`.
    fn field(&mut self, field: &Field, name: &str, value: &Yaml<'_>) -> Option<Node> {
        match &field.kind {
            Kind::Text | Kind::Choice(_) => self.value(field, &field.kind, name, value),
            // Before the other maps: v0.1 has a list in this place.
            Kind::Map(_) if field.name == "tags" => self.tags(field, value),
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
                    return self.fault(node, why.to_string());
                }
                if field.rule == Rule::FilterMask
                    && let Some(why) = reach::names_nothing(&Mask::parse(&text))
                {
                    self.warn(node, format!("the mask '{text}' of a rule names nothing: {why}"));
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
            if value.as_str().is_some()
                && let Err(why) = field.rule.check_key(name)
            {
                self.fault::<()>(key, why.to_string());
            } else if let Some(read) = self.value(field, kind, field.item, value) {
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
        for (name, key, value) in entries {
            let read = match record.field(self.current_name(name, key, record)) {
                Some(field) => self.field(field, name, value).map(|read| (field.name, read)),
                None if name == "type" => Some((name, kind.clone())),
                None => self.unknown_key(key, name, what, &known),
            };
            if let Some((name, read)) = read {
                fields.insert(self.key(name), read);
            }
        }
        let missing: Vec<_> = known.iter().filter(|name| fields.get(name).is_none()).collect();
        for name in missing {
            // A field with a faulty value is missing as well, and has its fault already.
            if !self.faults.iter().any(|(line, ..)| *line >= node.line()) {
                self.fault::<()>(node, format!("{what} has no `{name}`"));
            }
        }
        Some(Node::Map(fields))
    }

    /// The name of today for a deprecated one.
    fn current_name<'a>(&mut self, name: &'a str, key: &Yaml<'_>, record: &Record) -> &'a str {
        if name != "filterMask" || record.field("filterMasks").is_none() {
            return name;
        }
        self.warn(key, "`filterMask` is deprecated: use `filterMasks`");
        "filterMasks"
    }
}

fn names(choices: &[Choice]) -> Vec<&'static str> {
    choices.iter().map(|(_, name)| *name).collect()
}
