//! Templates of one workload, without rendering them: references that nothing uses, and names that no
//! reference has.
//!
//! Rendering is the agent's (docs/differences.md#12-templates-belong-to-the-agent). Only plain expressions
//! such as `{{alias.name}}` are understood here; of blocks and helpers nothing is said.

use super::{Findings, names, path};
use crate::{foreign::Excerpt, state::Node};

pub(super) fn look(found: &mut Findings<'_>, name: &str, workload: &Node) {
    let texts = texts(name, workload);
    let Some(references) =
        workload.get("configs").and_then(Node::as_map).filter(|own| !own.is_empty())
    else {
        for (place, text) in texts {
            if let Some(inside) = expressions(text).next() {
                let own = Excerpt(inside);
                let text = format!(
                    "{{{{{own}}}}} stays as it is written: {} has no `configs`",
                    Excerpt(name)
                );
                found.note(place, text);
            }
        }
        return;
    };
    for (alias, key) in references {
        let (alias, key) = (alias.as_str(), key.as_str().unwrap_or_default());
        let uses = |text: &str| expressions(text).any(|inside| mentions(inside, alias));
        if !texts.iter().any(|(_, text)| uses(text)) {
            let (own, name, key) = (Excerpt(alias), Excerpt(name), Excerpt(key));
            let text = format!(
                "no template of {name} uses its reference `{own}` to config `{key}`: write \
                 {{{{{own}}}}}, or leave it out"
            );
            found.warn(path(name.0, &["configs", alias]), text);
        }
    }
    for (place, text) in &texts {
        // Inside of a block names mean something else, and escaped expressions are no templates.
        if !["{{#", "\\{{", "{{{{"].iter().any(|odd| text.contains(odd)) {
            for inside in expressions(text) {
                if let Some(why) = missing(found, workload, inside) {
                    found.warn(place.clone(), why);
                }
            }
        }
    }
}

/// The templates of a workload, with their paths.
fn texts<'a>(name: &str, workload: &'a Node) -> Vec<(Vec<String>, &'a str)> {
    let own = ["agent", "runtimeConfig"]
        .into_iter()
        .filter_map(|field| Some((path(name, &[field]), workload.str_at(field)?)));
    let files = workload.get("files").and_then(Node::as_seq).unwrap_or_default();
    let files = files.iter().enumerate().filter_map(|(index, file)| {
        Some((path(name, &["files", &index.to_string(), "data"]), file.str_at("data")?))
    });
    own.chain(files).collect()
}

/// The insides of all expressions, of escaped ones too.
fn expressions(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, behind) = rest.split_once("{{")?;
        // Of an unfinished one, all that follows.
        let (inside, behind) = behind.split_once("}}").unwrap_or((behind, ""));
        rest = behind;
        Some(inside)
    })
}

/// Whether an expression may mean this alias.
fn mentions(inside: &str, alias: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    inside.split(|c| !is_name(c)).any(|word| word == alias)
        // `a-b` may also be the end of a name with other letters in front.
        || inside.contains(&format!("[{alias}]"))
}

/// Words of the language, and helpers without an argument.
const NO_NAMES: [&str; 8] = ["this", "else", "and", "or", "not", "true", "false", "null"];

/// The missing name of a plain expression, as a sentence.
fn missing(found: &mut Findings<'_>, workload: &Node, inside: &str) -> Option<String> {
    let names_in = inside.trim().split('.').collect::<Vec<_>>();
    let is_plain = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let [alias, below @ ..] = &names_in[..] else { return None };
    if !names_in.iter().all(is_plain) || NO_NAMES.contains(alias) {
        return None;
    }
    let own = Excerpt(inside.trim());
    let references = workload.get("configs")?.entries();
    let Some(key) = references.get(alias) else {
        let hint = found.did_you_mean(alias, names(references));
        let name = Excerpt(alias);
        return Some(format!("{{{{{own}}}}}: `configs` of the workload has no `{name}`{hint}"));
    };
    let key = key.as_str()?;
    let mut value = found.configs.get(key)?;
    for name in below {
        // An index of a sequence is left to the agent.
        let Node::Map(fields) = value else { return None };
        let Some(deeper) = fields.get(name) else {
            let hint = found.did_you_mean(name, names(fields));
            let (name, key) = (Excerpt(name), Excerpt(key));
            return Some(format!("{{{{{own}}}}}: the config `{key}` has no `{name}`{hint}"));
        };
        value = deeper;
    }
    None
}
