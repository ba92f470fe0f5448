//! Shape of a workload and of a config: required fields, kinds of values and defaults, as the table of
//! fields has them. The checks return the value in its normal form: defaults filled in, empty
//! collections left out.

use super::fault::ShapeFault;
use crate::{
    limits::{MAX_NESTING, MAX_VALUE_BYTES},
    state::{
        Key, Node,
        convert::encoded_len,
        schema::{Kind, Presence, Record, WORKLOAD},
    },
};

/// The workload in its normal form.
pub(super) fn workload(name: &Key, node: &Node) -> Result<Node, ShapeFault> {
    let at = format!("desiredState.workloads.{name}");
    let workload = record(&at, &WORKLOAD, node)?;
    check_size(&at, &workload)?;
    Ok(workload)
}

fn check_size(at: &str, value: &Node) -> Result<(), ShapeFault> {
    match encoded_len(value) {
        bytes if bytes > MAX_VALUE_BYTES => Err(ShapeFault::TooLarge(at.to_owned(), bytes)),
        _ => Ok(()),
    }
}

/// The record in its normal form.
pub(crate) fn record(at: &str, record: &Record, node: &Node) -> Result<Node, ShapeFault> {
    let either: Vec<_> = record.with(Presence::Either).map(|field| field.name).collect();
    if !either.is_empty() && either.iter().all(|name| node.str_at(name).is_none()) {
        return Err(ShapeFault::NoneOf(at.to_owned(), either));
    }
    let Node::Map(fields) = node else { return Err(ShapeFault::NoMapping(at.to_owned())) };
    for field in record.with(Presence::Required) {
        let name = field.name;
        match fields.get(name) {
            Some(value) if matches!(field.kind, Kind::Text) && value.as_str().is_none() => {
                return Err(ShapeFault::NoText(format!("{at}.{name}")));
            }
            Some(_) => {}
            None => return Err(ShapeFault::Missing { field: name, at: at.to_owned() }),
        }
    }
    let mut kept = fields.clone();
    for field in record.fields {
        if let Presence::Default(text) = field.presence
            && fields.get(field.name).is_none()
        {
            kept.insert(field.name, Node::text(text));
        }
    }
    // Of several faults the first one in this order is reported: maps, then sequences, then
    // records.
    let values = record.fields.iter().filter_map(|own| Some((own, fields.get(own.name)?)));
    let mut collections: Vec<_> =
        values.filter_map(|(own, value)| Some((rank(&own.kind)?, own, value))).collect();
    collections.sort_by_key(|(rank, ..)| *rank);
    for (_, field, value) in collections {
        let normal = collection(&format!("{at}.{}", field.name), &field.kind, value)?;
        // A Repeated cannot be there and empty on the wire.
        let drops_empty =
            field.presence == Presence::Collection || matches!(field.kind, Kind::Repeated(_));
        if drops_empty && normal.is_empty_collection() {
            kept.remove(field.name);
        // An unchanged value is not put again: that would copy a node shared with other versions.
        } else if !normal.ptr_eq(value) {
            kept.insert(field.name, normal);
        }
    }
    Ok(Node::Map(kept))
}

/// The place in the order of checks; `None` for a value without a check, because no encoding of a single
/// value has a wrong kind.
fn rank(kind: &Kind) -> Option<u8> {
    match kind {
        Kind::Map(_) | Kind::LargeMap(_) => Some(0),
        Kind::List(_) | Kind::Repeated(_) => Some(1),
        Kind::Record(_) => Some(2),
        _ => None,
    }
}

/// The normal form of a collection or record.
fn collection(at: &str, kind: &Kind, node: &Node) -> Result<Node, ShapeFault> {
    match kind {
        Kind::Map(value) | Kind::LargeMap(value) => {
            let Node::Map(entries) = node else { return Err(ShapeFault::NoMapping(at.to_owned())) };
            for (key, own) in entries {
                item(&format_args!("{at}.{key}"), value, own)?;
            }
            Ok(node.clone())
        }
        Kind::List(value) | Kind::Repeated(value) => {
            let Node::Seq(values) = node else { return Err(ShapeFault::NoSequence(at.to_owned())) };
            for (index, own) in values.iter().enumerate() {
                item(&format_args!("{at}.{index}"), value, own)?;
            }
            Ok(node.clone())
        }
        Kind::Record(fields) => record(at, fields, node),
        _ => Ok(node.clone()),
    }
}

/// Checks an item of a map or sequence.
fn item(at: &std::fmt::Arguments<'_>, kind: &Kind, node: &Node) -> Result<(), ShapeFault> {
    match kind {
        Kind::Text | Kind::Choice(_) if node.as_str().is_none() => {
            Err(ShapeFault::NoText(at.to_string()))
        }
        Kind::OneOf(variants) if node.str_at("type").is_none() => {
            let names = variants.iter().map(|(_, name, _)| *name).collect();
            Err(ShapeFault::NoKind(at.to_string(), names))
        }
        // Only checked: a file, the one record in a list, has no default to fill in.
        Kind::Record(fields) => record(&at.to_string(), fields, node).map(drop),
        _ => Ok(()),
    }
}

/// Checks a config: only strings, sequences and mappings, within the bounds of nesting and size. A mask can
/// put a value together, so the bounds are checked here again.
pub(super) fn config(at: &str, item: &Node) -> Result<(), ShapeFault> {
    config_below(at, at, item, MAX_NESTING)?;
    check_size(at, item)
}

fn config_below(whole: &str, at: &str, item: &Node, levels: usize) -> Result<(), ShapeFault> {
    let below = || levels.checked_sub(1).ok_or_else(|| ShapeFault::TooDeep(whole.to_owned()));
    match item {
        Node::Str(_) => Ok(()),
        Node::Seq(values) => {
            let below = below()?;
            values.iter().enumerate().try_for_each(|(index, value)| {
                config_below(whole, &format!("{at}.{index}"), value, below)
            })
        }
        Node::Map(fields) => {
            let below = below()?;
            fields.iter().try_for_each(|(key, value)| {
                config_below(whole, &format!("{at}.{key}"), value, below)
            })
        }
        Node::Uint(_) => Err(ShapeFault::Number(at.to_owned())),
        Node::Unset => Err(ShapeFault::Unset(at.to_owned())),
    }
}
