//! Reads the code and the documents: each layer of `src/` names only the modules and crates that its
//! row in `layers.rs` allows, functions and files stay short, and the documents name code that exists.
//!
//! Test code is left out. Paths are resolved (`super::super::state` is `crate::state`), and the
//! insides of macros and attributes are read too.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod layering {
    mod agent;
    mod documents;
    mod layers;
    mod log_messages;
    mod public;
    mod reading;

    use std::{fs, path::Path};

    use reading::{LONGEST_FILE, LONGEST_FUNCTION, faults};

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

    /// The files that are not all test.
    fn code_of(folder: &str) -> Vec<(String, String)> {
        let is_test = |file: &str| file.ends_with("tests.rs") || file.contains("tests/");
        sources(folder).into_iter().filter(|(file, _)| !is_test(file)).collect()
    }

    fn document(name: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
    }

    #[test]
    fn every_layer_names_only_what_it_may() {
        let files = code_of("src");
        assert!(files.len() > 30);
        let all: Vec<_> = files.iter().flat_map(|(file, code)| faults(file, code)).collect();
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
            ("broker/peer.rs", "fn f() { super::super::server::g() }"),
            ("broker/peer.rs", "fn f() { debug!(\"{}\", prost::Message::len(x)) }"),
            ("broker/peer.rs", "#[derive(Clone, prost::Message)] struct S;"),
            ("broker/peer.rs", "use crossbeam_channel as channel;"),
            ("broker/mod.rs", "fn f() -> ::mio::Token { g() }"),
            ("broker/mod.rs", "use super::*;"),
            ("broker/mod.rs", "impl nix::NixPath for S {}"),
            ("state/tree.rs", "use crate::pb as p;"),
            ("state/tree.rs", "use crate::{broker::Rules};"),
            ("state/tree.rs", "use std::*;"),
            ("message/resync.rs", "const F: fn() = std::fs::sync;"),
            ("server/mod.rs", "use crate::state;"),
            ("server/mod.rs", "use crate::state::{Instance, MaskSet};"),
            ("server/mod.rs", "use super::state::{self};"),
            ("server/status_socket.rs", "use crate::pb::ank_base;"),
            ("server/event_loop.rs", "use crate::message::FromWorkload;"),
            ("server/port/reader.rs", "use crate::state::Instance;"),
            ("server/worker.rs", "use nix::unistd::read;"),
            ("frame.rs", "use crate::state::Tree;"),
            ("manifest.rs", "fn f() { crate::broker::x() }"),
            ("cli/run.rs", "use saphyr::Yaml;"),
            ("cli/run.rs", "fn f() { g().unwrap() }"),
            ("cli/run.rs", "fn f() { g().map(Result::unwrap) }"),
            ("cli/run.rs", "fn f() { json!({\"a\": g().expect(\"b\")}) }"),
            ("main.rs", "fn f() { fifogate::server::g() }"),
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
            ("state/convert/enums.rs", "use super::super::Tree;"),
            ("server/mod.rs", "use crate::state::{Instance, update::Updated};"),
            ("server/event_loop/port_table.rs", "use super::super::port::Port;"),
            ("broker/mod.rs", "fn f(bytes: u8, nix: u8) { g!(bytes, x.mio, std::mem::take(nix)) }"),
            ("broker/mod.rs", "use agent::Link; fn f() { log(1).unwrap_or(2) }"),
        ] {
            assert_eq!(faults(file, code), [""; 0], "{code}");
        }
    }

    #[test]
    fn longest_function_and_file_pass_and_one_line_more_does_not() {
        let function =
            |lines: usize| format!("/// Doc.\nfn f() {{\n{}}}", "g();\n".repeat(lines - 2));
        assert_eq!(faults("status.rs", &function(LONGEST_FUNCTION)), [""; 0]);
        assert_eq!(faults("status.rs", &function(LONGEST_FUNCTION + 1)).len(), 1);
        let method = format!("impl S {{ {} }}", function(LONGEST_FUNCTION + 1));
        assert_eq!(faults("status.rs", &method).len(), 1);
        let tests = "#[cfg(test)]\nmod tests {\n}\n".to_owned() + &"//\n".repeat(LONGEST_FILE);
        let file = |lines: usize| "//\n".repeat(lines) + &tests;
        assert_eq!(faults("status.rs", &file(LONGEST_FILE)), [""; 0]);
        assert_eq!(faults("status.rs", &file(LONGEST_FILE + 1)).len(), 1);
    }
}
