//! Checks links between files of the repository. Every relative link of a document has to lead to a
//! tracked file, and so has every mention of a document in code and comments. An anchor behind it has
//! to belong to a heading of that document.
//!
//! Input: the files listed by `git ls-files`, new ones included. Output: one line for each broken link.
//! Links to other sites are not followed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

/// This file: the links in its test cases are broken on purpose.
const OWN: &str = "tests/links.rs";

/// Tracked files by their path from the root. Binary files have an empty text.
type Files = BTreeMap<String, String>;

fn tracked_files() -> Files {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A checkout may belong to another user, as in a container.
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .args(["--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .expect("git is needed to list the files");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    let read = |name: &str| {
        let bytes = fs::read(root.join(name)).ok()?;
        Some((name.to_owned(), String::from_utf8(bytes).unwrap_or_default()))
    };
    names.split_terminator('\0').filter(|name| *name != OWN).filter_map(read).collect()
}

/// The text with the same length and lines, and with spaces in place of `range`.
fn blank(text: &mut String, range: std::ops::Range<usize>) {
    let spaces = text[range.clone()].replace(|letter| letter != '\n', " ");
    text.replace_range(range, &spaces);
}

/// The text of a document with its fenced blocks blanked.
fn without_fences(text: &str) -> String {
    let mut kept = String::new();
    let mut fence: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        let run = start.trim_start_matches(start.chars().next().unwrap_or(' '));
        let run = &start[..start.len() - run.len()];
        let is_fence = run.len() >= 3 && run.starts_with(['`', '~']);
        match fence {
            Some(open) if is_fence && run.starts_with(open) && start.trim_end() == run => {
                fence = None;
            }
            None if is_fence => fence = Some(run),
            None => {
                kept.push_str(line);
                continue;
            }
            Some(_) => {}
        }
        kept.push_str(if line.ends_with('\n') { "\n" } else { "" });
    }
    kept
}

/// The text of a document with its code spans blanked. A span ends at a run of as many backticks, at
/// the latest before the next empty line.
fn without_spans(text: &str) -> String {
    let mut text = text.to_owned();
    let mut from = 0;
    while let Some(start) = text[from..].find('`').map(|at| from + at) {
        let ticks = text[start..].bytes().take_while(|byte| *byte == b'`').count();
        let inside = start + ticks;
        let end = text[inside..].find("\n\n").map_or(text.len(), |at| inside + at);
        let mut runs = text[inside..end].match_indices('`').map(|(at, _)| inside + at);
        let closes = |at: &usize| {
            let run = text[*at..end].bytes().take_while(|byte| *byte == b'`').count();
            run == ticks && !text[..*at].ends_with('`')
        };
        from = match runs.find(closes) {
            Some(close) => {
                blank(&mut text, start..close + ticks);
                start
            }
            None => inside,
        };
    }
    text
}

/// A heading with the text of its links only.
fn without_targets(heading: &str) -> String {
    let mut parts = heading.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once(')').map_or(part, |(_, rest)| rest))
}

/// The anchors of a document, as GitHub makes them: a heading in lower case, with hyphens for spaces
/// and without punctuation. The second of two equal headings gets `-1`.
fn anchors(document: &str) -> BTreeSet<String> {
    let text = without_fences(document);
    let (mut anchors, mut counts) = (BTreeSet::new(), BTreeMap::new());
    for line in text.lines() {
        let heading = line.trim_start_matches('#');
        if (1..=6).contains(&(line.len() - heading.len())) && heading.starts_with([' ', '\t']) {
            let heading = without_targets(heading.trim().trim_end_matches('#').trim_end());
            let keep = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
            let anchor: String = heading.to_lowercase().chars().filter(keep).collect();
            let anchor = anchor.replace(' ', "-");
            let count = counts.entry(anchor.clone()).or_insert(0);
            let nth = if *count == 0 { anchor } else { format!("{anchor}-{count}") };
            *count += 1;
            anchors.insert(nth);
        }
    }
    for id in text.split("<a id=\"").skip(1) {
        anchors.insert(id.split('"').next().unwrap_or_default().to_owned());
    }
    anchors
}

/// The targets of the links of a document, each with its place.
fn links(document: &str) -> Vec<(usize, String)> {
    let text = without_spans(&without_fences(document));
    let inline = text.match_indices("](").map(|(at, _)| at + 2);
    let definitions = text.match_indices("]: ").map(|(at, _)| at + 3).filter(|at| {
        let line = text[..*at].rsplit('\n').next().unwrap_or_default();
        line.starts_with('[') && line.matches(']').count() == 1
    });
    let target = |at: usize| {
        let end = text[at..].find([')', ' ', '\n']).map_or(text.len(), |length| at + length);
        (at, text[at..end].to_owned())
    };
    let is_here = |(_, target): &(usize, String)| {
        !target.contains("://") && !target.starts_with("mailto:") && !target.is_empty()
    };
    inline.chain(definitions).map(target).filter(is_here).collect()
}

/// The documents named in any text, each with its place: `docs/NAME.md` or `docs/NAME.md#anchor`.
fn mentions(text: &str) -> Vec<(usize, &str)> {
    let is_of_name = |letter: char| letter.is_alphanumeric() || "_./-".contains(letter);
    let mut found = Vec::new();
    for (at, _) in text.match_indices(".md") {
        let after = &text[at + 3..];
        if after.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_') {
            continue;
        }
        let start = text[..at].trim_end_matches(is_of_name).len();
        let anchor = after.strip_prefix('#').map_or(0, |anchor| {
            let is_of_anchor = |letter: char| letter.is_alphanumeric() || "_-".contains(letter);
            1 + anchor.len() - anchor.trim_start_matches(is_of_anchor).len()
        });
        let mention = &text[start..at + 3 + anchor];
        // The rest of an address of another site, and the name of no file.
        if start < at && !mention.starts_with("//") {
            found.push((start, mention));
        }
    }
    found
}

/// The path from the root to which `path` leads from `folder`.
fn resolve(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The reason for which `target`, a path or a path with an anchor, leads nowhere from any of `folders`.
fn fault(files: &Files, own: &str, folders: &[&str], target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').map_or((target, None), |(p, a)| (p, Some(a)));
    let mut candidates: Vec<_> = match path {
        "" => vec![own.to_owned()],
        path => folders.iter().filter_map(|folder| resolve(folder, path)).collect(),
    };
    let is_there = |name: &String| {
        let below = format!("{name}/");
        name.is_empty() || files.contains_key(name) || files.keys().any(|f| f.starts_with(&below))
    };
    candidates.retain(is_there);
    if candidates.is_empty() {
        return Some("there is no such file".to_owned());
    }
    let anchor = anchor?;
    let has_anchor = |name: &String| {
        name.ends_with(".md") && files.get(name).is_some_and(|text| anchors(text).contains(anchor))
    };
    (!candidates.iter().any(has_anchor)).then(|| format!("{} has no such heading", candidates[0]))
}

/// Every broken link of `files`, as `FILE:LINE: TARGET: REASON`.
fn faults(files: &Files) -> Vec<String> {
    let mut all = Vec::new();
    for (own, text) in files {
        let folder = own.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut report = |at: usize, target: &str, reason: String| {
            let line = 1 + text[..at].matches('\n').count();
            all.push(format!("{own}:{line}: {target}: {reason}"));
        };
        if own.ends_with(".md") {
            for (at, target) in links(text) {
                if let Some(reason) = fault(files, own, &[folder], &target) {
                    report(at, &target, reason);
                }
            }
        }
        for (at, mention) in mentions(text) {
            // Code may name a document of any folder by its last name alone.
            let is_bare = !mention.contains(['/', '#']);
            let ends = |name: &String| name.ends_with(&format!("/{mention}"));
            if is_bare && files.keys().any(ends) {
                continue;
            }
            if let Some(reason) = fault(files, own, &["", folder], mention) {
                report(at, mention, reason);
            }
        }
    }
    all
}

#[test]
fn every_link_leads_to_a_file_and_every_anchor_to_a_heading() {
    let files = tracked_files();
    let documents = files.keys().filter(|name| name.ends_with(".md")).count();
    assert!(documents > 10 && files.len() > 300, "only {} files were found", files.len());
    let all = faults(&files);
    assert!(all.is_empty(), "broken links:\n{}", all.join("\n"));
}

#[test]
fn anchors_are_made_as_github_makes_them() {
    let document = "# The `fifo`: 2 ends!\n## Same\n### Same\n#### Same ####\n```\n# no heading\n```\n\
        # [A *link*](b.md#x), and snake_case\n#no heading\n# Ä & ö\n<a id=\"by-hand\"></a>\n";
    let expected =
        ["a-link-and-snake_case", "by-hand", "same", "same-1", "same-2", "the-fifo-2-ends", "ä--ö"];
    assert_eq!(anchors(document), expected.map(str::to_owned).into());
}

#[test]
fn broken_links_are_found_and_good_ones_pass() {
    let (guide, code) = ("docs/guide.md", "src/lib.rs");
    let table = [
        // A link is relative to its document, a mention to the root or to the folder of its file.
        (
            guide,
            "[a](other.md) [b](../src/lib.rs) [c](../src) [d](other.md#two-words) [e](#own)",
            0,
        ),
        (guide, "[a](https://example.org/x.md#y), [`code`](other.md), ![a](other.md \"title\")", 0),
        (guide, "```\n[a](gone)\n```\n`[b](gone)` and ``c ` [d](gone)``", 0),
        (guide, "[a]: other.md#two-words\n[b]", 0),
        (guide, "[a](gone.rs)", 1),
        (guide, "[a](../../other.md)", 2),
        (guide, "[a](src/lib.rs)", 1),
        (guide, "one ` tick\n\n[a](gone.rs) and another `", 1),
        (guide, "[a]: gone.rs\n", 1),
        (guide, "[a](../src/lib.rs#L1)", 1),
        (guide, "[a](#two-words)", 1),
        // The target of a link that names a document is a mention too.
        (guide, "[a](other.md#two)", 2),
        (code, "//! Rules: docs/other.md#two-words, docs/other.md. And other.md, x.mdx, .md", 0),
        (code, "// [not a link](gone), https://example.org/gone.md#x", 0),
        (code, "// [a](../docs/other.md#two-words)", 0),
        (code, "// docs/other.md#two-words-1", 1),
        (code, "// docs/gone.md", 1),
        (code, "// GONE.md", 1),
        ("Makefile", "# docs/other.md#two-words docs/other.md#two", 1),
    ];
    for (file, text, expected) in table {
        let mut files: Files = [("docs/other.md", "# Two words\n"), (guide, "# Own\n"), (code, "")]
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into();
        files.entry(file.to_owned()).or_default().push_str(text);
        let found = faults(&files);
        assert_eq!(found.len(), expected, "{text}: {found:?}");
    }
}
