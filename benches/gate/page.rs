//! The page of all measurements. `make bench` and `make bench-peers` write it, each its own part.

#![allow(dead_code)] // each of them has a function for its part

use std::{
    fs,
    path::{Path, PathBuf},
};

const BEGIN: &str = "<!-- begin: make bench-peers -->\n";
const END: &str = "<!-- end: make bench-peers -->\n";

/// The folder of the page and of its pictures.
pub(crate) fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

fn path() -> PathBuf {
    docs().join("benchmarks.md")
}

fn current() -> String {
    fs::read_to_string(path()).unwrap_or_default()
}

/// Writes everything but the part about peers, which stays, at the end.
pub(crate) fn write_all_but_peers(page: &str) {
    fs::create_dir_all(docs()).unwrap();
    let current = current();
    fs::write(path(), joined(page, parts(&current).1)).unwrap();
}

/// Writes the part about peers alone.
pub(crate) fn write_peers(part: &str) {
    let current = current();
    fs::write(path(), joined(&parts(&current).0, part)).unwrap();
}

fn joined(page: &str, part: &str) -> String {
    if part.is_empty() { page.to_owned() } else { format!("{page}\n{BEGIN}{part}{END}") }
}

/// All but the part about peers, and that part.
fn parts(page: &str) -> (String, &str) {
    let found = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (part, after) = rest.split_once(END)?;
        Some((format!("{}\n{after}", before.trim_end()), part))
    });
    found.unwrap_or_else(|| (page.to_owned(), ""))
}
