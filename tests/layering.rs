//! What each room of `src/` may know, and how long its functions and files may be: checked by
//! reading the code, so that it is not a promise only.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, ImplItemFn, Item, ItemFn, UsePath, UseTree,
    spanned::Spanned,
    visit::{self, Visit},
};

/// A room, and what it must never name. A room is a file or folder of `src/`; the longest that fits
/// counts. The names are the beginnings of paths.
const ROOMS: &[(&str, &[&[&str]])] = &[
    // Bytes and numbers alone.
    ("frame", &[OUTSIDE, &["prost", "crate::"]]),
    ("limits.rs", &[OUTSIDE, &["prost", "crate::"]]),
    (
        "stats.rs",
        &[OUTSIDE, &["prost", "crate::pb", "crate::edge", "crate::state", "crate::message"]],
    ),
    // What is true: no subscriber, no permission, and protobuf in one file only.
    ("state", &[OUTSIDE, ABOVE_STATE, &["prost", "crate::pb"]]),
    ("state/convert", &[OUTSIDE, ABOVE_STATE, &["prost"]]),
    // Protobuf ends here.
    ("message", &[OUTSIDE, &["crate::broker", "crate::edge"]]),
    // The core: no bytes, no protobuf, no time but what it is told.
    ("broker", &[OUTSIDE, &["prost", "crate::pb", "crate::frame", "crate::edge", "crate::cli"]]),
    ("manifest", &[THREADS, &["mio", "nix", "prost", "crate::pb", "crate::edge", "crate::broker"]]),
    // The loop knows no mask. Of the state it knows what an instance is called; the state to begin
    // with it hands to the broker unseen.
    ("edge", &[STATE_INSIDE, &["prost", "saphyr", "crate::pb", "crate::manifest", "crate::cli"]]),
    (
        "edge/reactor",
        &[STATE_INSIDE, &["prost", "crate::pb", "crate::message::F", "crate::message::T"]],
    ),
    (
        "edge/port",
        &[STATE_INSIDE, &["prost", "crate::pb", "crate::message::F", "crate::message::T"]],
    ),
    ("agent.rs", &[THREADS, &["mio", "nix", "crate::broker", "crate::edge", "crate::state"]]),
    ("cli", &[&["mio", "crossbeam_channel"]]),
];

/// What only the edge and the command line may touch.
const OUTSIDE: &[&str] = &[
    "mio",
    "nix",
    "rustix",
    "crossbeam_channel",
    "signal_hook",
    "saphyr",
    "clap",
    "log",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time",
];
const THREADS: &[&str] = &["crossbeam_channel", "std::thread", "std::time"];
const ABOVE_STATE: &[&str] = &["crate::message", "crate::broker", "crate::edge", "crate::frame"];
const STATE_INSIDE: &[&str] = &[
    "crate::state::ChangeSet",
    "crate::state::Mask",
    "crate::state::Node",
    "crate::state::Tree",
    "crate::state::convert",
];

/// Longest function, in lines (clippy counts differently and is the stricter on some).
const LONGEST_FUNCTION: usize = 80;
/// Longest file before its tests.
const LONGEST_FILE: usize = 500;

/// All that is wrong with a file of `src/`, called `name` there.
fn faults(name: &str, code: &str) -> Vec<String> {
    let file = syn::parse_file(code).unwrap_or_else(|error| panic!("{name}: {error}"));
    let in_room = |(room, _): &&(&str, _)| name.starts_with(room);
    let room = ROOMS.iter().filter(in_room).max_by_key(|(room, _)| room.len());
    let forbidden = room.map(|(_, lists)| lists.concat()).unwrap_or_default();
    let mut reader = Reader { name, forbidden, faults: Vec::new() };
    reader.visit_file(&file);
    let lines = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().lines().count();
    if lines > LONGEST_FILE {
        reader.faults.push(format!("{name} has {lines} lines"));
    }
    reader.faults
}

struct Reader<'a> {
    name: &'a str,
    forbidden: Vec<&'a str>,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn check_path(&mut self, path: &str) {
        let path = path.replace(' ', "");
        if let Some(never) = self.forbidden.iter().find(|never| {
            let rest = path.strip_prefix(**never);
            // A whole name, or the beginning of one that was given as such.
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with("::") || never.contains("::")
            })
        }) {
            self.faults.push(format!("{} names {path}, and must not name {never}", self.name));
        }
    }

    fn check_length(&mut self, name: &str, span: proc_macro2::Span) {
        let lines = span.end().line - span.start().line + 1;
        if lines > LONGEST_FUNCTION {
            self.faults.push(format!("{}: {name} has {lines} lines", self.name));
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = quote::quote!(#attribute).to_string().replace(' ', "");
        text.contains("cfg(test)") || text == "#[test]"
    })
}

fn flatten(prefix: &str, tree: &UseTree, paths: &mut Vec<String>) {
    match tree {
        UseTree::Path(UsePath { ident, tree, .. }) => {
            flatten(&format!("{prefix}{ident}::"), tree, paths)
        }
        UseTree::Name(name) => paths.push(format!("{prefix}{}", name.ident)),
        UseTree::Rename(name) => paths.push(format!("{prefix}{}", name.ident)),
        UseTree::Glob(_) => paths.push(prefix.trim_end_matches("::").to_owned()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(prefix, tree, paths)),
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if is_test(attributes) {
            return;
        }
        if let Item::Use(item) = item {
            let mut paths = Vec::new();
            flatten("", &item.tree, &mut paths);
            paths.iter().for_each(|path| self.check_path(path));
        }
        visit::visit_item(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.check_path(&quote::quote!(#path).to_string());
        visit::visit_path(self, path);
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.check_length(&function.sig.ident.to_string(), function.span());
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.check_length(&function.sig.ident.to_string(), function.span());
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if ["unwrap", "expect"].contains(&call.method.to_string().as_str()) {
            self.faults.push(format!("{}: calls {}", self.name, call.method));
        }
        visit::visit_expr_method_call(self, call);
    }
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_none_or(|name| name != "tests.rs")
        {
            found.push(path);
        }
    }
}

#[test]
fn every_room_knows_only_what_it_may() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 30);
    let mut all = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        all.extend(faults(&name, &fs::read_to_string(&file).unwrap()));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn planted_faults_are_found_and_tests_are_left_alone() {
    let table = [
        ("broker/mod.rs", "use std::{fmt, time::Instant};"),
        ("broker/mod.rs", "fn f() { std::thread::yield_now() }"),
        ("broker/peer.rs", "use crate::pb::ank_base;"),
        ("state/tree.rs", "use crate::pb as p;"),
        ("edge/reactor.rs", "use crate::state::{Instance, MaskSet};"),
        ("frame.rs", "use crate::state::Tree;"),
        ("manifest.rs", "fn f() { crate::broker::x() }"),
        ("cli/run.rs", "fn f() { g().unwrap() }"),
    ];
    for (name, code) in table {
        assert_eq!(faults(name, code).len(), 1, "{code} in {name}: {:?}", faults(name, code));
        let in_tests = format!("#[cfg(test)]\nmod tests {{ {code} }}");
        assert_eq!(faults(name, &in_tests), [""; 0]);
    }
    let long = format!("fn f() {{\n{}}}", "g();\n".repeat(LONGEST_FUNCTION));
    assert_eq!(faults("stats.rs", &long).len(), 1);
    assert_eq!(faults("state/convert.rs", "use crate::pb::ank_base;"), [""; 0]);
    assert_eq!(faults("edge/mod.rs", "use crate::state::Instance;"), [""; 0]);
}
