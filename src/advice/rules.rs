//! Access rules of one workload without effect: masks without anything left, repetitions, and masks that
//! name nothing in the manifest.

use super::{
    Findings,
    names::{absent, any_matches},
    path,
};
use crate::{
    broker::access::{covers, forbids_all, meets, pattern_matches},
    foreign::Excerpt,
    state::{Mask, Node, reach::names_nothing},
};

const LISTS: [&str; 2] = ["allowRules", "denyRules"];

/// A mask of a rule about the state, or a pattern of one about logs.
struct Entry<T> {
    is_deny: bool,
    /// Its rights: to read, to write. A log is only read.
    rights: [bool; 2],
    what: T,
    place: Vec<String>,
}

pub(super) fn look(found: &mut Findings<'_>, workload: &str, access: &Node) {
    let (mut masks, mut patterns) = (Vec::new(), Vec::new());
    for (list, is_deny) in LISTS.into_iter().zip([false, true]) {
        let rules = access.get(list).and_then(Node::as_seq).unwrap_or_default();
        for (index, rule) in rules.iter().enumerate() {
            let place = path(workload, &["controlInterfaceAccess", list, &index.to_string()]);
            let rights = rights(rule);
            let (field, is_log) = match rule.str_at("type") {
                Some("LogRule") => ("workloadNames", true),
                _ => ("filterMasks", false),
            };
            let texts = rule.get(field).and_then(Node::as_seq).unwrap_or_default();
            if texts.is_empty() {
                found.warn(
                    place,
                    format!(
                        "this rule has no effect: its `{field}` is empty; name one, or leave it out"
                    ),
                );
                continue;
            }
            if !is_log && rights == [false, false] {
                let text = "this rule has no effect: its `operation` is Nothing, not Read, Write or ReadWrite";
                found.warn(place, text.to_owned());
                continue;
            }
            for (number, text) in texts.iter().enumerate() {
                let text = text.as_str().unwrap_or_default();
                let inner = [field.to_owned(), number.to_string()];
                let place = place.iter().cloned().chain(inner).collect();
                if is_log {
                    patterns.push(Entry { is_deny, rights: [true, false], what: text, place });
                } else {
                    masks.push(Entry { is_deny, rights, what: Mask::parse(text), place });
                }
            }
        }
    }
    about_masks(found, &masks);
    about_patterns(found, &patterns);
}

fn rights(rule: &Node) -> [bool; 2] {
    match rule.str_at("operation") {
        Some("Read") => [true, false],
        Some("Write") => [false, true],
        Some("ReadWrite") => [true, true],
        _ => [false, false],
    }
}

/// Relations of two entries.
struct Relations<T> {
    /// All of the second one is within the first one.
    includes: fn(&T, &T) -> bool,
    /// The first one denies whatever the second one allows.
    forbids_all: fn(&T, &T) -> bool,
    /// The first one denies something that the second one allows.
    meets: fn(&T, &T) -> bool,
}

fn about_masks(found: &mut Findings<'_>, masks: &[Entry<Mask>]) {
    let relations = Relations {
        includes: |one: &Mask, two: &Mask| covers(one.segments(), two.segments()),
        forbids_all: |deny: &Mask, allow: &Mask| forbids_all(deny.segments(), allow.segments()),
        meets: |deny: &Mask, allow: &Mask| meets(deny.segments(), allow.segments()),
    };
    for (index, entry) in masks.iter().enumerate() {
        let text = entry.what.text();
        // The reader warns of these already.
        if names_nothing(&entry.what).is_some() {
            continue;
        }
        if let Some(why) = effect(found, masks, index, &relations, &|mask| mask.text()) {
            match why {
                Effect::None(why) => found.warn(entry.place.clone(), why),
                Effect::Repeated(why) => found.note(entry.place.clone(), why),
            }
        } else if let Some(absent) = absent(found, &entry.what) {
            let mask = Excerpt(text);
            let text = format!("the mask '{mask}' names nothing until an update adds it: {absent}");
            found.note(entry.place.clone(), text);
        }
    }
}

fn about_patterns(found: &mut Findings<'_>, patterns: &[Entry<&str>]) {
    let relations = Relations {
        includes: |one: &&str, two: &&str| includes(one, two),
        forbids_all: |deny: &&str, allow: &&str| includes(deny, allow),
        meets: |deny: &&str, allow: &&str| overlap(deny, allow),
    };
    for (index, entry) in patterns.iter().enumerate() {
        if let Some(why) = effect(found, patterns, index, &relations, &|pattern| *pattern) {
            match why {
                Effect::None(why) => found.warn(entry.place.clone(), why),
                Effect::Repeated(why) => found.note(entry.place.clone(), why),
            }
        } else if found.may_compare(found.workloads.len())
            && !any_matches(found, |name| pattern_matches(entry.what, name))
        {
            let own = Excerpt(entry.what);
            let text =
                format!("no workload of the manifest is named '{own}' until an update adds it");
            found.note(entry.place.clone(), text);
        }
    }
}

/// The lack of an effect.
enum Effect {
    /// It has none, whatever the state is.
    None(String),
    /// Another entry has it, too.
    Repeated(String),
}

/// The reason why an entry has no effect of its own; `None` if it has one.
fn effect<T>(
    found: &mut Findings<'_>,
    all: &[Entry<T>],
    index: usize,
    relations: &Relations<T>,
    text: &dyn Fn(&T) -> &str,
) -> Option<Effect> {
    let own = all.get(index)?;
    if !found.may_compare(all.len().saturating_mul(2)) {
        return None;
    }
    let shown = |entry: &Entry<T>| format!("'{}'", Excerpt(text(&entry.what)));
    let of = |list: bool| all.iter().enumerate().filter(move |(_, entry)| entry.is_deny == list);
    let mine = shown(own);
    if own.is_deny {
        // It counts if it meets one that gives one of its rights.
        let shares = |entry: &Entry<T>| {
            own.rights.iter().zip(entry.rights).any(|(own, other)| *own && other)
        };
        if !of(false).any(|(_, other)| shares(other) && (relations.meets)(&own.what, &other.what)) {
            return Some(Effect::None(format!(
                "{mine} denies nothing: no rule allows any of it, so leave it out"
            )));
        }
    } else if let Some(deny) =
        for_all_rights(own, of(true), |deny| (relations.forbids_all)(&deny.what, &own.what))
    {
        let deny = shown(deny);
        return Some(Effect::None(format!(
            "{mine} allows nothing: {deny} denies all of it; leave out one of them"
        )));
    }
    // Of two equal ones, the later one repeats.
    let includes = |(place, other): &(usize, &Entry<T>)| {
        *place != index
            && (relations.includes)(&other.what, &own.what)
            && (*place < index || !(relations.includes)(&own.what, &other.what))
    };
    let others = of(own.is_deny).filter(includes);
    let other = for_all_rights(own, others, |_| true)?;
    let (other, list) = (shown(other), LISTS[usize::from(own.is_deny)]);
    Some(Effect::Repeated(format!("{mine} adds nothing: {other} of {list} includes it")))
}

/// One of the entries, if each right of `own` is in a `fit` one.
fn for_all_rights<'e, T>(
    own: &Entry<T>,
    entries: impl Iterator<Item = (usize, &'e Entry<T>)>,
    fit: impl Fn(&Entry<T>) -> bool,
) -> Option<&'e Entry<T>> {
    let fitting: Vec<_> = entries.map(|(_, entry)| entry).filter(|entry| fit(entry)).collect();
    let has = |right: usize| fitting.iter().find(|entry| entry.rights[right]);
    let mut first = None;
    for right in (0..2).filter(|right| own.rights[*right]) {
        first = first.or(Some(has(right)?));
        has(right)?;
    }
    first.copied()
}

/// Whether each name of the pattern `two` matches `one`.
fn includes(one: &str, two: &str) -> bool {
    match (one.split_once('*'), two.split_once('*')) {
        (_, None) => pattern_matches(one, two),
        (None, Some(_)) => false,
        (Some((start, end)), Some((begins, ends))) => {
            begins.starts_with(start) && ends.ends_with(end)
        }
    }
}

/// Whether a name matches both patterns.
fn overlap(one: &str, two: &str) -> bool {
    match (one.split_once('*'), two.split_once('*')) {
        (_, None) => pattern_matches(one, two),
        (None, _) => pattern_matches(two, one),
        (Some((start, end)), Some((begins, ends))) => {
            (begins.starts_with(start) || start.starts_with(begins))
                && (ends.ends_with(end) || end.ends_with(ends))
        }
    }
}
