//! The names that the reference agent may use.

use syn::Item;

use super::{code_of, layers::WORLD, reading::*};

/// The parts of the component that the reference agent may name: pure ones, and none that serves pipes.
const FOR_THE_AGENT: &[&str] = &[
    "frame",
    "internal::Rules",
    "internal::agent_update",
    "internal::check_version",
    "internal::journal",
    "internal::man_page",
    "internal::manifest",
    "internal::masks",
    "internal::metrics",
    "internal::notify",
    "internal::parts",
    "internal::printed",
    "internal::state",
    "internal::too_deep",
    "internal::watchdog_pause",
    "internal::yaml",
    "limits",
    "link",
    "manifest",
    "pb",
    "state",
];
/// Its layers that decide, and neither wait nor look around.
const PURE_IN_THE_AGENT: &[&str] =
    &["logs/record.rs", "model.rs", "render.rs", "runtime/config.rs", "supervisor/conditions.rs"];

/// The faults of a file of the reference agent.
fn agent_faults(file: &str, code: &str) -> Vec<String> {
    let parsed = syn::parse_file(code).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut paths = Vec::new();
    for item in parsed.items.iter().filter(|item| !attributes(item).iter().any(is_test)) {
        if let Item::Use(item) = item {
            flatten(&[], &item.tree, &mut paths);
        }
    }
    let named = paths.iter().filter(|path| path[0] == "fifogate");
    let is_allowed = |path: &&Vec<String>| {
        let item = path.get(..3).map(|path| path[1..].join("::")).unwrap_or_default();
        FOR_THE_AGENT.contains(&path[1].as_str()) || FOR_THE_AGENT.contains(&item.as_str())
    };
    let mut faults: Vec<_> = named
        .filter(|path| !is_allowed(path))
        .map(|path| format!("{file} names {}", path.join("::")))
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
fn the_reference_agent_speaks_through_the_link_and_decides_in_pure_layers() {
    let files = code_of("agent/src");
    for pure in PURE_IN_THE_AGENT {
        assert!(files.iter().any(|(file, _)| file == pure), "{pure} is gone");
    }
    let all: Vec<_> = files.iter().flat_map(|(file, code)| agent_faults(file, code)).collect();
    assert!(all.is_empty(), "{}", all.join("\n"));
    for (file, code) in [
        ("node.rs", "use fifogate::{server::Server, state::Tree};"),
        ("node.rs", "use fifogate::broker;"),
        ("node.rs", "use fifogate::internal::{Rules, fuzz_requests};"),
        ("model.rs", "use std::{fmt, fs};"),
        ("render.rs", "use tokio::time::sleep;"),
    ] {
        assert_eq!(agent_faults(file, code).len(), 1, "{code} in {file}");
    }
}
