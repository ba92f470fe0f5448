//! The log messages: each of level warn and above is in the documents, and each in the documents is in the code.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Item, LitStr, Macro,
    visit::{self, Visit},
};

use super::{
    code_of, document,
    reading::{attributes, is_test},
};

/// Where operators look a message up.
const DOCUMENT: &str = "docs/operations.md";
/// Shorter pieces between two values say too little to be looked for.
const SHORTEST: usize = 6;

/// All texts of the code, and those that are logged at level warn or above.
#[derive(Default)]
struct Texts {
    all: Vec<String>,
    logged: Vec<(String, String)>,
    file: String,
}

/// The texts in these tokens, also in groups.
fn texts(tokens: &TokenStream) -> Vec<String> {
    let text = |token: TokenTree| match token {
        TokenTree::Group(group) => texts(&group.stream()),
        TokenTree::Literal(literal) => {
            let text = syn::parse_str::<LitStr>(&literal.to_string());
            text.map(|text| text.value()).into_iter().collect()
        }
        _ => Vec::new(),
    };
    tokens.clone().into_iter().flat_map(text).collect()
}

fn is_grave(path: &syn::Path) -> bool {
    path.segments.last().is_some_and(|last| last.ident == "warn" || last.ident == "error")
}

impl<'ast> Visit<'ast> for Texts {
    fn visit_item(&mut self, item: &'ast Item) {
        if !attributes(item).iter().any(is_test) {
            visit::visit_item(self, item);
        }
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        let found = texts(&call.tokens);
        // The first text is the message; those behind it are values in it.
        if is_grave(&call.path) {
            self.logged.extend(found.first().map(|text| (self.file.clone(), text.clone())));
        }
        self.all.extend(found);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        // Messages of error types.
        if let syn::Meta::List(list) = &attribute.meta {
            self.all.extend(texts(&list.tokens));
        }
    }

    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.all.push(text.value());
    }
}

fn texts_of_the_code() -> Texts {
    let mut found = Texts::default();
    for folder in ["src", "agent/src"] {
        for (file, code) in code_of(folder) {
            found.file = format!("{folder}/{file}");
            found.visit_file(&syn::parse_file(&code).unwrap());
        }
    }
    found
}

/// The pieces of a text in the code that stand between its values.
fn pieces(text: &str) -> Vec<&str> {
    let outside = text.split('{').enumerate().map(|(place, part)| match place {
        0 => part,
        _ => part.split_once('}').map_or("", |(_, rest)| rest),
    });
    outside.map(str::trim).filter(|piece| piece.len() >= SHORTEST).collect()
}

/// Whether all pieces stand in `text`, in this order. A `…` at its end stands for the rest.
fn has(text: &str, pieces: &[&str]) -> bool {
    let cut = text.strip_suffix('…').map(str::trim_end);
    let mut rest = text;
    for piece in pieces {
        match rest.find(piece) {
            Some(place) => rest = &rest[place + piece.len()..],
            None => return cut.is_some_and(|cut| cut.len() > 12 && pieces[0].starts_with(cut)),
        }
    }
    true
}

/// The messages in the tables of the document: the first cell of each row below the heading.
fn documented(text: &str) -> Vec<String> {
    let section = text.split("\n## Log messages\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|line| line.split(" | ").next());
    let quoted = cells.flat_map(|cell| match cell.split_once("``") {
        Some((_, rest)) => rest.split("``").next().map(str::to_owned).into_iter().collect(),
        None => cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>(),
    });
    quoted.map(|text| text.trim().to_owned()).collect()
}

/// The longest piece of a documented message that is no placeholder: words in capitals, numbers and `…` are.
fn longest_piece(text: &str) -> String {
    let is_value = |word: &str| {
        let letters = word.trim_matches(|letter: char| !letter.is_alphanumeric());
        word.contains('…')
            || letters.is_empty()
            || letters.len() > 1 && letters.to_uppercase() == letters
            || ["M", "N"].contains(&letters)
    };
    let words: Vec<_> = text.split_whitespace().collect();
    let runs = words.split(|word| is_value(word)).map(|run| run.join(" "));
    runs.max_by_key(String::len).unwrap_or_default()
}

/// Whether one of the texts of the code is this documented one: by its longest piece, or by all of its own.
fn is_in(all: &[String], listed: &str) -> bool {
    let longest = longest_piece(listed);
    let longest = longest.trim_matches([':', ';', ',']);
    all.iter().any(|text| {
        let pieces = pieces(text);
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        text.contains(longest) || length >= 12 && has(listed, &pieces)
    })
}

#[test]
fn every_grave_message_is_documented_and_every_documented_one_is_in_the_code() {
    let (code, listed) = (texts_of_the_code(), documented(&document(DOCUMENT)));
    assert!(code.logged.len() > 70 && listed.len() > 70);
    let missing: BTreeSet<_> = code
        .logged
        .iter()
        .filter(|(_, text)| {
            let pieces = pieces(text);
            !pieces.is_empty() && !listed.iter().any(|listed| has(listed, &pieces))
        })
        .collect();
    assert!(missing.is_empty(), "{DOCUMENT} has no row in its log messages for {missing:#?}");
    let gone: Vec<_> = listed.iter().filter(|listed| !is_in(&code.all, listed)).collect();
    assert!(gone.is_empty(), "no text in the code is {gone:#?}");
}

#[test]
fn messages_are_compared_by_what_stands_between_their_values() {
    assert_eq!(pieces("{} cannot be started: {error:?}; {why}"), ["cannot be started:"]);
    assert!(has("PATH cannot be started: …", &["cannot be started:"]));
    assert!(has("a long beginning …", &["a long beginning and more"]));
    assert!(!has("cannot be stopped: …", &["cannot be started:"]));
    assert_eq!(longest_piece("PATH cannot be started: …"), "cannot be started:");
    let text = "\n## Log messages\n| text | level |\n|---|---|\n| `a: …`, `b` | warn |\n## Next\n| `c` | d |";
    assert_eq!(documented(text), ["a: …", "b"]);
}
