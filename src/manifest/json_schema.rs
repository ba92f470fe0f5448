//! JSON Schema of a manifest, for editors: `fifogate schema` prints it (docs/protocol.md#in-an-editor).
//!
//! The table of fields goes in, a schema of draft 7 comes out, the newest draft that all versions of the YAML
//! language server read. It accepts every manifest that the reader accepts. It also accepts some that the
//! reader refuses, because a schema cannot compare two places: references to missing configs, cycles of
//! dependencies, sizes and nesting. Sibling keywords of a `$ref` are ignored in this draft, so only what
//! needs no description is referred to.

use serde_json::{Map, Value, json};

use super::fields::{former_name, was_list};
use crate::state::{
    API_VERSION, DESIRED_STATE,
    schema::{COMPLETE_STATE, Field, Kind, Presence, Record, Rule, STATE, Variant, WORKLOAD},
    validate::{API_VERSIONS, MAX_NAME, MAX_PATTERN},
};

/// The schema, with indentation.
pub(crate) fn text() -> String {
    format!("{:#}\n", schema())
}

/// The schema.
fn schema() -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Manifest of fifogate",
        "description": "The desired state of a node or cluster: workloads, and configs for their templates.",
        "type": "object",
        // A printed state has the manifest in one of its parts.
        "if": { "required": [DESIRED_STATE] },
        "then": { "$ref": "#/definitions/completeState" },
        "else": { "$ref": "#/definitions/desiredState" },
        "definitions": {
            "completeState": complete_state(),
            "desiredState": desired_state(),
            "workload": record(&WORKLOAD),
            "config": config(),
            "configInNestedSequence": {
                "type": ["string", "object", "array"],
                "additionalProperties": { "$ref": "#/definitions/configInNestedSequence" },
                "items": { "$ref": "#/definitions/configInNestedSequence" },
            },
        },
    })
}

fn complete_state() -> Value {
    let part = |field: &Field| match field.name {
        DESIRED_STATE => json!({
            "description": field.about,
            "allOf": [{ "$ref": "#/definitions/desiredState" }],
        }),
        // Facts, not wishes: the reader leaves them out unread.
        _ => json!({ "description": field.about }),
    };
    let parts = COMPLETE_STATE.fields.iter().map(|field| (field.name, part(field)));
    object(parts, &[DESIRED_STATE])
}

fn desired_state() -> Value {
    let property = |field: &Field| {
        let mut schema = match field.name {
            API_VERSION => json!({ "type": "string", "enum": API_VERSIONS }),
            "workloads" => names_of(json!({ "$ref": "#/definitions/workload" })),
            "configs" => names_of(json!({ "$ref": "#/definitions/config" })),
            _ => of_kind(field, &field.kind),
        };
        schema["description"] = field.about.into();
        schema
    };
    let properties = STATE.fields.iter().map(|field| (field.name, property(field)));
    let mut state = object(properties, &[API_VERSION]);
    // The form of some fields depends on the version.
    let [_, former] = API_VERSIONS;
    state["if"] = json!({ "properties": { API_VERSION: { "const": former } } });
    for (when, form) in [("then", "array"), ("else", "object")] {
        let fields = WORKLOAD.fields.iter().filter(|field| was_list(field));
        let forms: Map<_, _> =
            fields.map(|field| (field.name.to_owned(), json!({ "type": form }))).collect();
        state[when] = json!({
            "properties": { "workloads": { "additionalProperties": { "properties": forms } } },
        });
    }
    state
}

fn config() -> Value {
    let mut config = names_of(json!({ "$ref": "#/definitions/config" }));
    config["type"] = json!(["string", "object", "array"]);
    // As for an update: keys below a sequence in a sequence are not checked.
    config["items"] = json!({
        "if": { "type": "array" },
        "then": { "$ref": "#/definitions/configInNestedSequence" },
        "else": { "$ref": "#/definitions/config" },
    });
    config
}

/// A mapping of names to values of this schema.
fn names_of(value: Value) -> Value {
    json!({
        "type": "object",
        "propertyNames": { "pattern": name() },
        "additionalProperties": value,
    })
}

/// A mapping of these properties, and no other.
fn object<'a>(properties: impl Iterator<Item = (&'a str, Value)>, required: &[&str]) -> Value {
    let properties: Map<_, _> = properties.map(|(name, own)| (name.to_owned(), own)).collect();
    let mut object = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object["additionalProperties"] = json!(false);
    object
}

fn record(record: &Record) -> Value {
    let names = |presence| record.with(presence).map(|field| field.name);
    let required: Vec<_> = names(Presence::Required).chain(names(Presence::Always)).collect();
    let properties = record.fields.iter().map(|field| (field.name, property(field)));
    let mut object = object(properties, &required);
    let either: Vec<_> =
        names(Presence::Either).map(|name| json!({ "required": [name] })).collect();
    if !either.is_empty() {
        object["oneOf"] = either.into();
    }
    object
}

/// A record named by its `type`: an access rule. It has all fields, a deprecated name instead of one of them.
fn variant((_, tag, record): &Variant) -> Value {
    let mut properties = vec![(
        "type",
        json!({ "description": "Kind of the rule: about the state, or about logs.", "const": tag }),
    )];
    let mut required = vec!["type"];
    let mut either = None;
    for field in record.fields {
        properties.push((field.name, property(field)));
        match former_name(field) {
            None => required.push(field.name),
            Some(former) => {
                let mut old = property(field);
                old["deprecationMessage"] = format!("Use `{}`.", field.name).into();
                properties.push((former, old));
                let named = |name| json!({ "required": [name] });
                either = Some(json!([named(field.name), named(former)]));
            }
        }
    }
    let mut object = object(properties.into_iter(), &required);
    if let Some(either) = either {
        object["oneOf"] = either;
    }
    object
}

fn property(field: &Field) -> Value {
    let mut schema = of_kind(field, &field.kind);
    if let Value::Object(members) = &mut schema {
        members.insert("description".to_owned(), field.about.into());
        if let Presence::Default(text) = field.presence {
            members.insert("default".to_owned(), text.into());
        }
    }
    schema
}

/// The schema of a field's value, or of an item of it.
fn of_kind(field: &Field, kind: &Kind) -> Value {
    match kind {
        Kind::Text => text_of(field.rule),
        Kind::Choice(choices) => {
            let names: Vec<_> = choices.iter().map(|(_, name)| *name).collect();
            json!({ "type": "string", "enum": names })
        }
        Kind::Map(value) | Kind::LargeMap(value) => map(field, value),
        Kind::List(item) | Kind::Repeated(item) => {
            json!({ "type": "array", "items": of_kind(field, item) })
        }
        Kind::Record(own) => record(own),
        Kind::OneOf(variants) => {
            json!({ "anyOf": variants.iter().map(variant).collect::<Vec<_>>() })
        }
        Kind::Config => json!({ "$ref": "#/definitions/config" }),
        // No manifest has them.
        Kind::Number(_) | Kind::Execution(_) => json!(false),
    }
}

fn map(field: &Field, value: &Kind) -> Value {
    let mut map = json!({ "type": "object" });
    // The one rule about keys of a map: aliases of configs are names.
    if field.rule == Rule::ConfigReference {
        map["propertyNames"] = json!({ "pattern": name() });
    }
    map["additionalProperties"] = of_kind(field, value);
    if was_list(field) {
        map["type"] = json!(["object", "array"]);
        let text = |about| json!({ "type": "string", "description": about });
        let pair = [("key", text("Key of the tag.")), ("value", text("Text of the tag."))];
        map["items"] = object(pair.into_iter(), &["key", "value"]);
    }
    map
}

/// A text of this rule. The patterns are those of `state/validate`; a test compares them.
fn text_of(rule: Rule) -> Value {
    let pattern = match rule {
        Rule::Any => return json!({ "type": "string" }),
        Rule::AgentName => format!("{}|^$|\\{{\\{{", name()),
        Rule::ConfigReference => name(),
        Rule::FilterMask => {
            let part = "(\\*|[a-zA-Z0-9_-]+)";
            format!("^{part}(\\.{part})*$")
        }
        Rule::NamePattern => {
            let most = MAX_PATTERN;
            format!("{}|^(?=.{{1,{most}}}$)[a-zA-Z0-9_-]*\\*[a-zA-Z0-9_-]*$", name())
        }
    };
    json!({ "type": "string", "pattern": pattern })
}

/// The pattern of a name.
fn name() -> String {
    format!("^[a-zA-Z0-9_-]{{1,{MAX_NAME}}}$")
}

#[cfg(test)]
pub(super) mod tests;
