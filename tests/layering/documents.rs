//! Documents that describe the code.

use std::collections::BTreeSet;

use fifogate::limits::Limits;
use syn::{
    ItemFn,
    visit::{self, Visit},
};

use super::{
    document,
    reading::{is_test, module_of},
    sources,
};

const LONGEST_ARCHITECTURE: usize = 120;

/// The texts between backticks in a document.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn limits_in_the_documents_are_those_of_the_code() {
    // All fields are named, so that a new limit is missed here.
    let Limits {
        max_frame,
        max_fields,
        outbox_bytes,
        outbox_messages,
        total_bytes,
        max_versions,
        max_masks,
        max_commander_masks,
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
        ("max-fields", max_fields.to_string()),
        ("outbox-bytes", size(outbox_bytes)),
        ("outbox-messages", outbox_messages.to_string()),
        ("total-bytes", size(total_bytes)),
        ("max-versions", max_versions.to_string()),
        ("max-masks", max_masks.to_string()),
        ("max-commander-masks", max_commander_masks.to_string()),
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
    for page in ["README.md", "docs/operations.md"] {
        let text = document(page);
        for (flag, value) in &rows {
            let row = format!("\n| `--{flag}` | {value} |");
            assert!(text.contains(&row), "{page} has no row {row}");
        }
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
fn tests_that_documents_name_are_there() {
    let mut all = BTreeSet::new();
    for (file, code) in ["src", "tests", "agent/src", "agent/tests"].map(sources).concat() {
        let mut tests = Tests { module: module_of(&file), found: BTreeSet::new() };
        tests.visit_file(&syn::parse_file(&code).unwrap());
        all.extend(tests.found);
    }
    for page in ["SECURITY.md", "docs/pipes.md"] {
        let text = document(page);
        let named: Vec<_> = quoted(&text).filter(|name| name.contains("::")).collect();
        assert!(named.len() > 20);
        let missing: Vec<_> = named.iter().filter(|name| !all.contains(**name)).collect();
        assert!(missing.is_empty(), "{page} names tests that are not there: {missing:#?}");
    }
}

#[test]
fn architecture_is_short_and_names_what_there_is() {
    let text = document("ARCHITECTURE.md");
    let lines = text.lines().count();
    assert!(lines <= LONGEST_ARCHITECTURE, "ARCHITECTURE.md has {lines} lines");
    let code: String = sources("src").into_iter().map(|(_, code)| code).collect();
    let words: BTreeSet<_> =
        code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
    let names: Vec<_> = quoted(&text).filter(|name| name.contains("::")).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names.iter().flat_map(|name| name.split("::")) {
        let name = name.split('(').next().unwrap();
        assert!(words.contains(name), "ARCHITECTURE.md names {name}, and src/ does not");
    }
}

#[test]
fn commands_of_the_readme_are_those_of_the_checks() {
    let (readme, checks) = (document("README.md"), document(".ci/run"));
    let commands = readme.lines().filter_map(|line| line.strip_prefix("$ make "));
    let targets: Vec<_> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(targets.contains(&"demo") && targets.contains(&"test"), "{targets:?}");
    for target in targets {
        // A test runs its script, where podman can start a container.
        if target == "demo-podman" {
            assert!(document("agent/tests/podman/commands.rs").contains("demo/podman.sh"));
            continue;
        }
        let command = format!("    make --no-print-directory {target}\n");
        assert!(checks.contains(&command), "README says `make {target}`, which no check runs");
    }
}

#[test]
fn modules_that_documents_name_are_there() {
    let files: Vec<_> = ["src", "agent/src"]
        .map(sources)
        .concat()
        .into_iter()
        .map(|(file, _)| format!("/{}/", file.trim_end_matches(".rs").trim_end_matches("/mod")))
        .collect();
    let is_path = |name: &&str| {
        name.contains('/')
            && !name.ends_with('/')
            && name.chars().all(|own| own.is_ascii_lowercase() || matches!(own, '_' | '/'))
            && !["tests/", "/"].iter().any(|other| name.starts_with(other))
    };
    let text = document("ARCHITECTURE.md");
    let diagram = text.split_whitespace().filter(|word| word.starts_with("server/"));
    let named: Vec<_> = quoted(&text).filter(is_path).chain(diagram.clone()).collect();
    assert!(diagram.count() > 3 && named.len() > 12, "{named:?}");
    for name in named {
        let name = name.trim_end_matches(':');
        let there = files.iter().any(|file| file.ends_with(&format!("/{name}/")));
        assert!(there, "ARCHITECTURE.md names {name}, and there is no such module");
    }
}

/// The steps of an update in `src/lib.rs`: a file and a function each.
const MOST_STEPS: usize = 12;

#[test]
fn life_of_an_update_names_functions_that_are_there() {
    let sources = sources("src");
    let page = &sources.iter().find(|(file, _)| file == "lib.rs").unwrap().1;
    let life = page.split("# Life of an update").nth(1).unwrap().split("//! # ").next().unwrap();
    let numbered = |line: &str| {
        let line = line.strip_prefix("//! ")?;
        let (number, step) = line.split_once(". ")?;
        number.parse::<usize>().ok().map(|_| step.to_owned())
    };
    let steps: Vec<_> = life.lines().filter_map(numbered).collect();
    assert!((8..=MOST_STEPS).contains(&steps.len()), "{steps:?}");
    for step in steps {
        let names: Vec<_> = quoted(&step).collect();
        let (file, function) = (names[0], names[1]);
        let code = &sources.iter().find(|(own, _)| own == file).expect(file).1;
        let heads = [format!("fn {function}("), format!("fn {function}<")];
        assert!(heads.iter().any(|head| code.contains(head)), "{file} has no {function}");
    }
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = std::process::Command::new(cargo);
    let output = command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Cargo checks it for dependencies in a build by that version only, and clippy for our own code.
#[test]
fn dependencies_build_with_the_promised_version_of_rust() {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    // Of this platform: those of others are on no disk, where nothing but a build has downloaded any.
    let asked = ["metadata", "--format-version", "1", "--offline", "--locked", "--all-features"];
    let metadata = cargo(&[&asked[..], &["--filter-platform", host]].concat());
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let version = |package: &serde_json::Value| {
        let text = package["rust_version"].as_str()?;
        let mut parts = text.split('.').map(|part| part.parse().unwrap());
        Some([(); 3].map(|()| parts.next().unwrap_or(0_u32)))
    };
    let own = packages.iter().find(|package| package["name"] == "fifogate").and_then(version);
    let own = own.expect("Cargo.toml has a rust-version");
    let newer: Vec<_> = packages
        .iter()
        .filter(|package| version(package).is_some_and(|other| other > own))
        .map(|package| (&package["name"], &package["rust_version"]))
        .collect();
    assert!(newer.is_empty(), "newer than Rust {own:?}: {newer:?}");
}
