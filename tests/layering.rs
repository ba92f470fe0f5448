//! What each room of `src/` may name, how long its functions and files may be, and that the documents
//! say what the code does: checked by reading both, so that none of it is a promise only.
//!
//! Test code is left out. Paths are resolved (`super::super::state` is `crate::state`), and the
//! insides of macros and attributes are read too.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeSet, fs, path::Path};

use fifogate::limits::Limits;
use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Block, ImplItemFn, Item, ItemFn, Signature, TraitItemFn, UseTree,
    spanned::Spanned,
    visit::{self, Visit},
};

/// A file or folder of `src/`, and all that it may name beyond itself: other rooms or single items
/// of them, crates, and what of `std` reaches outside the process. The longest name that fits counts.
struct Room {
    name: &'static str,
    rooms: &'static [&'static str],
    crates: &'static [&'static str],
    std: &'static [&'static str],
}

const fn room(
    name: &'static str,
    rooms: &'static [&'static str],
    crates: &'static [&'static str],
    std: &'static [&'static str],
) -> Room {
    Room { name, rooms, crates, std }
}

const ROOMS: &[Room] = &[
    room("main", &["cli"], &[], &["env", "process"]),
    room("lib", &[], &[], &[]),
    room("pb", &[], &[], &[]),
    // Bytes and numbers alone.
    room("frame", &[], &["bytes"], &[]),
    room("limits", &[], &[], &[]),
    room("queue", &[], &[], &[]),
    room("stats", &["broker"], &["serde_json"], &[]),
    // What is true: no subscriber, no permission, no I/O, and protobuf in one place only.
    room("state", &[], &["sha2"], &[]),
    room("state/convert", &["pb"], &[], &[]),
    // Protobuf ends here.
    room("message", &["frame", "limits", "pb", "state"], &["bytes", "prost"], &[]),
    // The core: no frames, no protobuf, no files, no threads, and no time but what it is told.
    room(
        "broker",
        &["limits", "message", "queue", "state"],
        &["bytes", "rustc_hash", "semver"],
        &[],
    ),
    room("manifest", &["state"], &["saphyr", "saphyr_parser", "strsim"], &["fs", "io"]),
    // The edge knows no mask and no value. Of the state it names what an instance is called, which is
    // the name of a folder, and the state to begin with, which it hands to the broker unopened.
    room(
        "edge",
        &["broker", "limits", "state::Instance", "state::update::Updated"],
        &["bytes", "crossbeam_channel", "log", "mio", "nix", "rustc_hash"],
        &["fs", "io", "os", "thread", "time"],
    ),
    room("edge/link", &["broker::Notice", "frame"], &["bytes", "log", "nix"], &["fs", "io", "os"]),
    room("edge/fifo", &["message::Owner", "state::Instance"], &["nix"], &["io", "os"]),
    // The two that touch FIFOs see frames, never what is in them.
    room(
        "edge/port",
        &["broker::Notice", "broker::Seq", "frame", "message::hello", "queue"],
        &["bytes", "log", "nix", "rustix"],
        &["io", "os"],
    ),
    room(
        "edge/reactor",
        &["broker::PeerId", "broker::Seq", "limits", "message::Owner", "state::Instance"],
        &["crossbeam_channel", "log", "mio", "rustc_hash", "signal_hook"],
        &["io", "os", "thread", "time"],
    ),
    // The one that looks into frames has nothing to touch a FIFO with.
    room(
        "edge/worker",
        &["broker", "frame", "limits", "message", "state::Instance", "stats"],
        &["bytes", "crossbeam_channel", "log", "mio::Waker", "rustc_hash", "rustix::param"],
        &["fs", "time"],
    ),
    room("agent", &["frame", "pb"], &["prost"], &["io", "process"]),
    room(
        "cli",
        &["broker", "edge", "frame", "limits", "manifest", "pb", "state"],
        CLI_CRATES,
        &["env", "fs", "io", "os", "process", "thread", "time"],
    ),
    // With the manifest, the only ones that read or write YAML.
    room("cli/input", &["pb", "state"], &["saphyr", "serde_json"], &[]),
    room("cli/output", &["pb", "state"], &["saphyr", "serde_json"], &[]),
];

const CLI_CRATES: &[&str] = &[
    "bytes",
    "clap",
    "clap_complete",
    "clap_mangen",
    "env_logger",
    "log",
    "nix",
    "prost",
    "prost_reflect",
    "serde_json",
    "signal_hook",
];

/// What of `std` reaches outside the process, or waits.
const WORLD: &[&str] = &["env", "fs", "io", "net", "os", "process", "sync::mpsc", "thread", "time"];

/// Longest function, in lines from `fn` to its last brace.
const LONGEST_FUNCTION: usize = 60;
/// Longest file, in lines before its tests.
const LONGEST_FILE: usize = 500;
const LONGEST_ARCHITECTURE: usize = 120;

/// All that is wrong with a file of `src/`, called `file` there.
fn faults(file: &str, code: &str) -> Vec<String> {
    let parsed = syn::parse_file(code).unwrap_or_else(|error| panic!("{file}: {error}"));
    let in_room = |room: &&Room| {
        let rest = file.strip_prefix(room.name);
        rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    };
    let Some(room) = ROOMS.iter().filter(in_room).max_by_key(|room| room.name.len()) else {
        return vec![format!("{file} is in no room of tests/layering.rs")];
    };
    let module = module_of(file);
    let mut reader = Reader { room, module, dependencies: dependencies(), faults: Vec::new() };
    reader.visit_file(&parsed);
    let mut faults = reader.faults;
    let lines = lines_before_tests(&parsed).unwrap_or_else(|| code.lines().count());
    if lines > LONGEST_FILE {
        faults.push(format!("has {lines} lines before its tests"));
    }
    faults.iter().map(|fault| format!("{file} {fault}")).collect()
}

/// The path of the module that a file is, without the crate.
fn module_of(file: &str) -> Vec<String> {
    let file = file.trim_end_matches(".rs");
    let file = file.strip_suffix("/mod").unwrap_or(file);
    let top = ["lib", "main"].contains(&file);
    if top { Vec::new() } else { file.split('/').map(str::to_owned).collect() }
}

/// The names by which code calls what `Cargo.toml` depends on.
fn dependencies() -> BTreeSet<String> {
    let manifest = include_str!("../Cargo.toml");
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| Some(line.split_once([' ', '='])?.0.replace('-', "_")));
    names.filter(|name| !name.starts_with('#')).collect()
}

fn lines_before_tests(file: &syn::File) -> Option<usize> {
    let tests = file.items.iter().filter_map(|item| match item {
        Item::Mod(item) => item.attrs.iter().find(|attribute| is_test(attribute)),
        _ => None,
    });
    tests.map(|attribute| attribute.span().start().line - 1).next()
}

fn is_test(attribute: &Attribute) -> bool {
    let text = quote::quote!(#attribute).to_string().replace(' ', "");
    ["#[cfg(test)]", "#[test]"].contains(&text.as_str())
}

struct Reader {
    room: &'static Room,
    module: Vec<String>,
    dependencies: BTreeSet<String>,
    faults: Vec<String>,
}

impl Reader {
    /// A path that is named; `*` at its end brings in all that is below.
    fn check_path(&mut self, path: &[String]) {
        let path = self.resolve(path);
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        let [first, rest @ ..] = &path[..] else { return };
        let (list, rest) = match *first {
            "crate" | "fifogate" if rest.first() == Some(&own_room(self.room.name)) => return,
            "crate" | "fifogate" => (self.room.rooms, rest),
            "std" | "core" | "alloc" if rest == ["*"] || begins(WORLD, rest) => {
                (self.room.std, rest)
            }
            name if self.dependencies.contains(name) => (self.room.crates, &path[..]),
            _ => return,
        };
        if !begins(list, rest) {
            self.faults.push(format!("names {}", path.join("::")));
        }
    }

    /// A path from the crate's root, where it began with `self` or `super`.
    fn resolve(&self, path: &[String]) -> Vec<String> {
        let ups = path.iter().take_while(|name| ["self", "super"].contains(&name.as_str()));
        let steps = ups.clone().count();
        if steps == 0 {
            return path.to_vec();
        }
        let depth = self.module.len().saturating_sub(ups.filter(|name| *name == "super").count());
        let root = std::iter::once("crate".to_owned());
        root.chain(self.module[..depth].to_vec()).chain(path[steps..].to_vec()).collect()
    }

    /// What syn leaves as tokens: paths are found there all the same, and calls that may panic.
    fn check_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut between = String::new();
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if between == "." => self.check_call(&ident.to_string()),
                TokenTree::Ident(ident) => {
                    if between != "::" {
                        self.check_several(&std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                }
                TokenTree::Punct(punct) => {
                    between.push(punct.as_char());
                    continue;
                }
                TokenTree::Group(group) => self.check_tokens(group.stream()),
                TokenTree::Literal(_) => {}
            }
            between.clear();
        }
        self.check_several(&path);
    }

    /// A path within code. One name alone is that of a variable, or of something that was imported.
    fn check_several(&mut self, path: &[String]) {
        if path.len() > 1 {
            self.check_path(path);
            self.check_call(&path[path.len() - 1]);
        }
    }

    fn check_call(&mut self, name: &str) {
        if ["unwrap", "expect"].contains(&name) {
            self.faults.push(format!("calls {name}"));
        }
    }

    fn check_length(&mut self, signature: &Signature, body: &Block) {
        let lines = body.span().end().line + 1 - signature.span().start().line;
        if lines > LONGEST_FUNCTION {
            self.faults.push(format!("has {} of {lines} lines", signature.ident));
        }
    }
}

/// The top of `src/` that a room belongs to: a room may name all of itself.
fn own_room(name: &str) -> &str {
    name.split('/').next().unwrap()
}

/// Whether `path` is one of `list`, or lies below one.
fn begins(list: &[&str], path: &[&str]) -> bool {
    list.iter().any(|entry| {
        let entry: Vec<_> = entry.split("::").collect();
        path.starts_with(&entry)
    })
}

fn flatten(prefix: &[String], tree: &UseTree, paths: &mut Vec<Vec<String>>) {
    let with = |name: &dyn ToString| [prefix, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(path) => flatten(&with(&path.ident), &path.tree, paths),
        UseTree::Name(name) if name.ident == "self" => paths.push(prefix.to_vec()),
        UseTree::Name(name) => paths.push(with(&name.ident)),
        UseTree::Rename(name) if name.ident == "self" => paths.push(prefix.to_vec()),
        UseTree::Rename(name) => paths.push(with(&name.ident)),
        UseTree::Glob(_) => paths.push(with(&"*")),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(prefix, tree, paths)),
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if attributes(item).iter().any(is_test) {
            return;
        }
        match item {
            Item::Use(item) => {
                let mut paths = Vec::new();
                flatten(&[], &item.tree, &mut paths);
                paths.iter().for_each(|path| self.check_path(path));
            }
            Item::ExternCrate(item) => self.check_path(&[item.ident.to_string()]),
            Item::Mod(inner) => {
                self.module.push(inner.ident.to_string());
                visit::visit_item(self, item);
                self.module.pop();
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.check_several(&names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.check_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.check_tokens(list.tokens.clone());
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.check_length(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if function.attrs.iter().any(is_test) {
            return;
        }
        self.check_length(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(body) = &function.default {
            self.check_length(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.check_call(&call.method.to_string());
        visit::visit_expr_method_call(self, call);
    }
}

/// Every Rust file below `folder` of the project, by its path from there.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files
}

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What stands between backticks in a document.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn every_room_names_only_what_it_may() {
    let files = sources("src");
    assert!(files.len() > 30);
    let code = files.iter().filter(|(file, _)| !file.ends_with("tests.rs"));
    let all: Vec<_> = code.flat_map(|(file, code)| faults(file, code)).collect();
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn planted_faults_are_found_and_tests_are_left_alone() {
    let table = [
        ("broker/mod.rs", "use std::{fmt, time::Instant};"),
        ("broker/mod.rs", "fn f() { std::thread::yield_now() }"),
        ("broker/mod.rs", "use std::sync::mpsc;"),
        ("broker/peer.rs", "use crate::pb::ank_base;"),
        ("broker/peer.rs", "use crate::frame;"),
        ("broker/peer.rs", "fn f() { super::super::edge::g() }"),
        ("broker/peer.rs", "fn f() { debug!(\"{}\", prost::Message::len(x)) }"),
        ("broker/peer.rs", "#[derive(Clone, prost::Message)] struct S;"),
        ("broker/peer.rs", "use crossbeam_channel as channel;"),
        ("broker/mod.rs", "fn f() -> ::mio::Token { g() }"),
        ("broker/mod.rs", "use super::*;"),
        ("broker/mod.rs", "impl nix::NixPath for S {}"),
        ("state/tree.rs", "use crate::pb as p;"),
        ("state/tree.rs", "use crate::{broker::Rules};"),
        ("state/tree.rs", "use std::*;"),
        ("message/hello.rs", "const F: fn() = std::fs::sync;"),
        ("edge/mod.rs", "use crate::state;"),
        ("edge/mod.rs", "use crate::state::{Instance, MaskSet};"),
        ("edge/mod.rs", "use super::state::{self};"),
        ("edge/status.rs", "use crate::pb::ank_base;"),
        ("edge/reactor.rs", "use crate::message::FromWorkload;"),
        ("edge/port/intake.rs", "use crate::state::Instance;"),
        ("edge/worker.rs", "use nix::unistd::read;"),
        ("frame.rs", "use crate::state::Tree;"),
        ("manifest.rs", "fn f() { crate::broker::x() }"),
        ("cli/run.rs", "use saphyr::Yaml;"),
        ("cli/run.rs", "fn f() { g().unwrap() }"),
        ("cli/run.rs", "fn f() { g().map(Result::unwrap) }"),
        ("cli/run.rs", "fn f() { json!({\"a\": g().expect(\"b\")}) }"),
        ("main.rs", "fn f() { fifogate::edge::g() }"),
        ("elsewhere.rs", ""),
    ];
    for (file, code) in table {
        let found = faults(file, code);
        assert_eq!(found.len(), 1, "{code} in {file}: {found:?}");
        if file != "elsewhere.rs" {
            let in_tests = format!("#[cfg(test)]\nmod tests {{ {code} }}");
            assert_eq!(faults(file, &in_tests), [""; 0]);
        }
    }
    for (file, code) in [
        ("state/convert.rs", "use crate::pb::ank_base;"),
        ("state/convert/names.rs", "use super::super::Tree;"),
        ("edge/mod.rs", "use crate::state::{Instance, update::Updated};"),
        ("edge/reactor/slots.rs", "use super::super::port::Port;"),
        ("broker/mod.rs", "fn f(bytes: u8, nix: u8) { g!(bytes, x.mio, std::mem::take(nix)) }"),
        ("broker/mod.rs", "use agent::Link; fn f() { log(1).unwrap_or(2) }"),
    ] {
        assert_eq!(faults(file, code), [""; 0], "{code}");
    }
}

/// What of the component the reference agent may name: what is pure, and nothing that serves pipes.
const FOR_THE_AGENT: &[&str] = &["agent", "frame", "manifest", "pb", "state"];
/// Its rooms that decide, and neither wait nor look around.
const PURE_IN_THE_AGENT: &[&str] =
    &["logs/record.rs", "model.rs", "render.rs", "runtime/config.rs", "supervisor/conditions.rs"];

/// What is wrong with a file of the reference agent.
fn agent_faults(file: &str, code: &str) -> Vec<String> {
    let parsed = syn::parse_file(code).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut paths = Vec::new();
    for item in parsed.items.iter().filter(|item| !attributes(item).iter().any(is_test)) {
        if let Item::Use(item) = item {
            flatten(&[], &item.tree, &mut paths);
        }
    }
    let named = paths.iter().filter(|path| path[0] == "fifogate").map(|path| path[1].as_str());
    let mut faults: Vec<_> = named
        .filter(|name| !FOR_THE_AGENT.contains(name))
        .map(|name| format!("{file} names fifogate::{name}"))
        .collect();
    if PURE_IN_THE_AGENT.contains(&file) {
        let outside = |path: &&Vec<String>| {
            path[0] == "tokio" || path[0] == "std" && WORLD.contains(&path[1].as_str())
        };
        // A writer is no file.
        let found = paths.iter().filter(outside).filter(|path| path[1] != "io");
        faults.extend(found.map(|path| format!("{file} names {}", path.join("::"))));
    }
    let lines = lines_before_tests(&parsed).unwrap_or_else(|| code.lines().count());
    if lines > LONGEST_FILE {
        faults.push(format!("{file} has {lines} lines before its tests"));
    }
    faults
}

#[test]
fn the_reference_agent_speaks_through_the_link_and_decides_in_pure_rooms() {
    let files = sources("agent/src");
    for pure in PURE_IN_THE_AGENT {
        assert!(files.iter().any(|(file, _)| file == pure), "{pure} is gone");
    }
    let code = files.iter().filter(|(file, _)| !file.ends_with("tests.rs"));
    let all: Vec<_> = code.flat_map(|(file, code)| agent_faults(file, code)).collect();
    assert!(all.is_empty(), "{}", all.join("\n"));
    for (file, code) in [
        ("node.rs", "use fifogate::{edge::Daemon, state::Tree};"),
        ("node.rs", "use fifogate::broker;"),
        ("model.rs", "use std::{fmt, fs};"),
        ("render.rs", "use tokio::time::sleep;"),
    ] {
        assert_eq!(agent_faults(file, code).len(), 1, "{code} in {file}");
    }
}

#[test]
fn longest_function_and_file_pass_and_one_line_more_does_not() {
    let function = |lines: usize| format!("/// Doc.\nfn f() {{\n{}}}", "g();\n".repeat(lines - 2));
    assert_eq!(faults("stats.rs", &function(LONGEST_FUNCTION)), [""; 0]);
    assert_eq!(faults("stats.rs", &function(LONGEST_FUNCTION + 1)).len(), 1);
    let method = format!("impl S {{ {} }}", function(LONGEST_FUNCTION + 1));
    assert_eq!(faults("stats.rs", &method).len(), 1);
    let tests = "#[cfg(test)]\nmod tests {\n}\n".to_owned() + &"//\n".repeat(LONGEST_FILE);
    let file = |lines: usize| "//\n".repeat(lines) + &tests;
    assert_eq!(faults("stats.rs", &file(LONGEST_FILE)), [""; 0]);
    assert_eq!(faults("stats.rs", &file(LONGEST_FILE + 1)).len(), 1);
}

#[test]
fn limits_in_the_readme_are_those_of_the_code() {
    let readme = document("README.md");
    // All fields are named, so that a new limit is missed here.
    let Limits {
        max_frame,
        outbox_bytes,
        outbox_messages,
        total_bytes,
        max_versions,
        max_masks,
        max_mask_length,
        max_request_id,
        max_subscriptions,
        subscription_bytes,
        max_in_flight,
        in_flight_bytes,
        max_malformed,
        max_wakeups,
        max_state_bytes,
        max_forwarded,
        max_link_frame,
        link_bytes,
    } = Limits::default();
    let size = |bytes: usize| match bytes {
        0x10_0000.. => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    };
    let rows = [
        ("max-frame", size(max_frame)),
        ("outbox-bytes", size(outbox_bytes)),
        ("outbox-messages", outbox_messages.to_string()),
        ("total-bytes", size(total_bytes)),
        ("max-versions", max_versions.to_string()),
        ("max-masks", max_masks.to_string()),
        ("max-mask-length", size(max_mask_length)),
        ("max-request-id", size(max_request_id)),
        ("max-subscriptions", max_subscriptions.to_string()),
        ("subscription-bytes", size(subscription_bytes)),
        ("max-in-flight", max_in_flight.to_string()),
        ("in-flight-bytes", size(in_flight_bytes)),
        ("max-malformed", max_malformed.to_string()),
        ("max-wakeups", max_wakeups.to_string()),
        ("max-state-bytes", size(max_state_bytes)),
        ("max-forwarded", max_forwarded.to_string()),
        ("max-link-frame", size(max_link_frame)),
        ("link-bytes", size(link_bytes)),
    ];
    for (flag, value) in rows {
        let row = format!("\n| `--{flag}` | {value} |");
        assert!(readme.contains(&row), "README.md has no row {row}");
    }
}

/// The tests of a file, by the names that `cargo test` gives them.
struct Tests {
    module: Vec<String>,
    found: BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Tests {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        if function.attrs.iter().any(is_test) {
            let name = function.sig.ident.to_string();
            self.found.insert([&self.module[..], &[name]].concat().join("::"));
        }
    }
}

#[test]
fn tests_that_security_md_names_are_there() {
    let mut all = BTreeSet::new();
    for (file, code) in [sources("src"), sources("tests")].concat() {
        let mut tests = Tests { module: module_of(&file), found: BTreeSet::new() };
        tests.visit_file(&syn::parse_file(&code).unwrap());
        all.extend(tests.found);
    }
    let text = document("SECURITY.md");
    let named: Vec<_> = quoted(&text).filter(|name| name.contains("::")).collect();
    assert!(named.len() > 20);
    let missing: Vec<_> = named.into_iter().filter(|name| !all.contains(*name)).collect();
    assert!(missing.is_empty(), "SECURITY.md names tests that are not there: {missing:#?}");
}

#[test]
fn architecture_is_short_and_names_what_there_is() {
    let text = document("ARCHITECTURE.md");
    let lines = text.lines().count();
    assert!(lines <= LONGEST_ARCHITECTURE, "ARCHITECTURE.md has {lines} lines");
    let code: String = sources("src").into_iter().map(|(_, code)| code).collect();
    let words: BTreeSet<_> =
        code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
    let names = quoted(&text).filter(|name| name.contains("::"));
    for name in names.flat_map(|name| name.split("::")) {
        let name = name.split('(').next().unwrap();
        assert!(words.contains(name), "ARCHITECTURE.md names {name}, and src/ does not");
    }
}
