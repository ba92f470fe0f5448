//! What a YAML text must not look like, seen before anything is built from it: a few lines with aliases
//! can spell more nodes than any memory holds, and nesting can be deeper than any stack.
//!
//! The loader bounds what aliases expand to, but not within keys; so keys have to be texts.

use saphyr::ScanError;
use saphyr_parser::{Event, Parser, Span};

/// Deepest nesting; a state has less than ten levels, and configs as many as they like below that.
pub(super) const MOST_LEVELS: usize = 64;

/// Something that ends the reading: line, column, what.
pub(super) type Found = (usize, usize, String);

/// A collection that is open.
enum Open {
    Sequence,
    /// Whether a key comes next.
    Mapping(bool),
}

pub(super) fn check(text: &str) -> Result<(), Found> {
    let mut open = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| found(&error))?;
        take(&mut open, &event).map_err(|what| at(&span, what))?;
        if open.len() > MOST_LEVELS {
            return Err(at(&span, format!("nesting of more than {MOST_LEVELS} levels")));
        }
    }
    Ok(())
}

/// What the parser found.
pub(super) fn found(error: &ScanError) -> Found {
    let marker = error.marker();
    (marker.line(), marker.col() + 1, format!("this is no YAML: {}", error.info()))
}

fn at(span: &Span, what: String) -> Found {
    (span.start.line(), span.start.col() + 1, what)
}

fn take(open: &mut Vec<Open>, event: &Event<'_>) -> Result<(), String> {
    match event {
        Event::SequenceEnd | Event::MappingEnd => {
            open.pop();
            return Ok(());
        }
        Event::Scalar(..)
        | Event::Alias(_)
        | Event::SequenceStart(..)
        | Event::MappingStart(..) => {}
        _ => return Ok(()),
    }
    if let Some(Open::Mapping(key_next)) = open.last_mut() {
        if *key_next && !matches!(event, Event::Scalar(..)) {
            return Err("a key has to be a text, not an alias or a collection".to_owned());
        }
        *key_next = !*key_next;
    }
    match event {
        Event::SequenceStart(..) => open.push(Open::Sequence),
        Event::MappingStart(..) => open.push(Open::Mapping(true)),
        _ => {}
    }
    Ok(())
}
