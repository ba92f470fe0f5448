use prost_reflect::{DescriptorPool, FieldDescriptor, Kind as ProtoKind, MessageDescriptor};

use super::*;
use crate::pb;

/// Fields of `message` as pairs of number and JSON name.
fn proto_fields(message: &MessageDescriptor) -> Vec<(u32, String)> {
    message.fields().map(|field| (field.number(), field.json_name().to_owned())).collect()
}

fn message_of(field: &FieldDescriptor) -> MessageDescriptor {
    match field.kind() {
        ProtoKind::Message(message) => message,
        other => panic!("{field:?} is {other:?}"),
    }
}

/// The only field of a wrapper message.
fn wrapped(message: &MessageDescriptor) -> FieldDescriptor {
    let fields: Vec<_> = message.fields().collect();
    let [field] = &fields[..] else { panic!("{message:?} is no wrapper") };
    assert_eq!(field.number(), 1, "{field:?}");
    field.clone()
}

fn compare_choices(choices: &[Choice], kind: ProtoKind) {
    let ProtoKind::Enum(own) = kind else { panic!("{choices:?} against {kind:?}") };
    let numbers: Vec<_> = own.values().map(|value| value.number()).collect();
    assert_eq!(choices.iter().map(|own| own.0).collect::<Vec<_>>(), numbers, "{own:?}");
    for ((_, name), value) in choices.iter().zip(own.values()) {
        // The tree shortens some spellings: "RW_READ_WRITE" is "ReadWrite".
        let plain = |text: &str| text.replace('_', "").to_lowercase();
        assert!(plain(value.name()).ends_with(&plain(name)), "{name} against {}", value.name());
    }
}

/// Compares a single value: of a field, a map or a sequence.
fn compare_value(kind: &Kind, field: &FieldDescriptor) {
    match kind {
        Kind::Text => assert!(matches!(field.kind(), ProtoKind::String), "{field:?}"),
        Kind::Choice(choices) => compare_choices(choices, field.kind()),
        kind => compare(kind, &message_of(field)),
    }
}

fn compare_map(value: &Kind, field: &FieldDescriptor) {
    assert!(field.is_map(), "{field:?}");
    let entry = message_of(field);
    assert!(matches!(entry.map_entry_key_field().kind(), ProtoKind::String), "{field:?}");
    compare_value(value, &entry.map_entry_value_field());
}

fn compare(kind: &Kind, message: &MessageDescriptor) {
    match kind {
        Kind::Record(record) => compare_record(record, message),
        Kind::Map(value) | Kind::LargeMap(value) => compare_map(value, &wrapped(message)),
        Kind::List(value) => {
            let field = wrapped(message);
            assert!(field.is_list(), "{field:?}");
            compare_value(value, &field);
        }
        Kind::Number(most) => {
            let expected = if *most == u64::MAX { ProtoKind::Uint64 } else { ProtoKind::Uint32 };
            assert_eq!(wrapped(message).kind(), expected);
        }
        Kind::OneOf(variants) => {
            assert_eq!(message.fields().len(), variants.len(), "{message:?}");
            for ((number, name, record), field) in variants.iter().zip(message.fields()) {
                let own = message_of(&field);
                assert!(field.containing_oneof().is_some(), "{field:?}");
                assert_eq!((*number, *name), (field.number(), own.name()));
                compare_record(record, &own);
            }
        }
        Kind::Execution(kinds) => {
            let mut fields = message.fields();
            let info = fields.next().unwrap();
            assert_eq!((info.number(), info.json_name()), (1, "additionalInfo"));
            assert_eq!(fields.len(), kinds.len());
            for ((number, state, sub_states), field) in kinds.iter().zip(fields) {
                assert!(field.containing_oneof().is_some(), "{field:?}");
                assert_eq!(
                    (*number, state.to_lowercase()),
                    (field.number(), field.name().to_lowercase())
                );
                compare_choices(sub_states, field.kind());
            }
        }
        Kind::Config => {
            let own =
                ["String", "array", "object"].map(|name| message.get_field_by_name(name).unwrap());
            assert_eq!(message.fields().len(), own.len());
            assert_eq!(own.each_ref().map(FieldDescriptor::number), [1, 2, 3]);
            assert!(wrapped(&message_of(&own[1])).is_list());
            assert!(wrapped(&message_of(&own[2])).is_map());
        }
        Kind::Text | Kind::Choice(_) | Kind::Repeated(_) => panic!("{kind:?} is no message"),
    }
}

fn compare_record(record: &Record, message: &MessageDescriptor) {
    assert!(record.fields.len() <= MOST_FIELDS);
    let own: Vec<_> = record.fields.iter().map(|own| (own.number, own.name.to_owned())).collect();
    assert_eq!(own, proto_fields(message), "{message:?}");
    for (own, field) in record.fields.iter().zip(message.fields()) {
        let is_message = matches!(field.kind(), ProtoKind::Message(_));
        let of_oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        assert_eq!(own.presence == Either, of_oneof.is_some(), "{field:?}");
        match own.presence {
            Optional => assert!(is_message, "{field:?}"),
            Always => assert!(field.is_list() || !field.supports_presence(), "{field:?}"),
            Required | Default(_) | Either => assert!(field.supports_presence(), "{field:?}"),
            Filled | Collection => assert!(is_message && !field.is_list(), "{field:?}"),
        }
        if let Kind::Repeated(kind) = own.kind {
            assert!(field.is_list(), "{field:?}");
            compare_value(kind, &field);
        } else {
            assert!(!field.is_list() && !field.is_map(), "{field:?}");
            compare_value(&own.kind, &field);
        }
    }
}

#[test]
fn table_has_the_names_numbers_and_kinds_of_the_protobuf_schema() {
    let pool = DescriptorPool::decode(pb::DESCRIPTORS).unwrap();
    let message = pool.get_message_by_name("ank_base.CompleteState").unwrap();
    compare_record(&COMPLETE_STATE, &message);
}
