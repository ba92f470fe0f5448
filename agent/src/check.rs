//! `fifogate-agent check`: validates manifests as `run` would, without starting anything.
//!
//! Files go in; faults and warnings with their places come out, and a line for each good file. What
//! depends on the node, such as users and programs, is not checked.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use fifogate::{
    internal::manifest::{advise, faults_at, read_text},
    internal::state::{DESIRED_STATE, EFFECTIVE_STATE},
    manifest::{self, ManifestError},
    state::{Node, Tree},
};

use crate::{
    cli::CliError,
    model, placement,
    render::{self, ConfigIndex},
    runtime,
};

/// Path in the desired state, and a fault there.
type Remark = (Vec<String>, String);

pub(crate) fn check(files: &[PathBuf], agent: &str, strict: bool) -> Result<(), CliError> {
    let mut faults = Vec::new();
    let mut read = Vec::new();
    for path in files {
        match read_text(path).and_then(|(file, text)| check_text(&file, &text, agent)) {
            Ok((_, file, warnings @ 1..)) if strict => {
                let noun = if warnings == 1 { "warning" } else { "warnings" };
                faults.push(format!("{file}: refused for {warnings} {noun} (--strict)"));
            }
            Ok((line, ..)) => read.push(line),
            Err(error) => faults.push(error.to_string()),
        }
    }
    for line in read {
        match writeln!(io::stdout().lock(), "{line}") {
            // Whoever reads it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                return Err(CliError::Failed(format!("cannot write to standard output: {error}")));
            }
            Ok(()) => {}
        }
    }
    // Behind all files: one run finds the faults of each.
    if faults.is_empty() { Ok(()) } else { Err(CliError::Unusable(faults.join("\n"))) }
}

/// The line about a good manifest, its file and the number of its warnings.
fn check_text(
    file: &str,
    text: &str,
    agent: &str,
) -> Result<(String, String, usize), ManifestError> {
    let manifest = manifest::parse(file, text)?;
    let desired = manifest.updated.tree;
    let (tree, faults) = rendered(&desired);
    let faults: Vec<_> = faults.into_iter().chain(workload_faults(&tree, agent)).collect();
    let advice = advise(file, text, &desired);
    let warnings = manifest.warnings.iter().chain(&advice.warnings);
    warnings.clone().for_each(|warning| log::warn!("{warning}"));
    advice.notes.iter().for_each(|note| log::info!("{note}"));
    if advice.left_out > 0 {
        log::info!("{file}: … and {} more", advice.left_out);
    }
    for rendered in faults_at(file, text, renderings(&tree)).faults {
        log::debug!("{rendered}");
    }
    if !faults.is_empty() {
        return Err(faults_at(file, text, faults));
    }
    let warnings = warnings.count();
    if let Some(text) = placement::nothing_to_do(&tree, agent, "manifest") {
        log::warn!("{file}: {text}");
    }
    let workloads = tree.entries(&[EFFECTIVE_STATE, "workloads"]);
    let own = workloads.iter().filter(|(_, workload)| workload.str_at("agent") == Some(agent));
    let names: Vec<_> = own.map(|(name, _)| name.to_string()).collect();
    let listed = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    let all = workloads.iter().count();
    let noun = if all == 1 { "workload" } else { "workloads" };
    let line = format!("{file}: ok ({all} {noun}, {} of {agent}{listed})", names.len());
    Ok((line, file.to_owned(), warnings))
}

/// Checks that no workload of a desired state, as far as its templates can be rendered, has a fault that no start gets
/// over.
pub(crate) fn can_start(
    file: &str,
    text: &str,
    desired: &Tree,
    agent: &str,
) -> Result<(), ManifestError> {
    let (tree, _) = rendered(desired);
    let faults = workload_faults(&tree, agent);
    if faults.is_empty() { Ok(()) } else { Err(faults_at(file, text, faults)) }
}

/// The state with its effective state, and the faults of templates.
fn rendered(desired: &Tree) -> (Tree, Vec<Remark>) {
    let (effective, faults) = render::effective(&model::empty(), &ConfigIndex::default(), desired);
    let remark =
        |fault: render::RenderError| (workload_path(&fault.workload, &[""; 0]), fault.reason);
    let faults = faults.into_iter().map(remark).collect();
    (desired.with(EFFECTIVE_STATE, Some(effective)), faults)
}

/// What no start of a workload gets over: its runtime, its `runtimeConfig` and its files. Workloads of
/// other agents may have other runtimes.
fn workload_faults(tree: &Tree, agent: &str) -> Vec<Remark> {
    let mut faults = Vec::new();
    for (name, workload) in tree.entries(&[EFFECTIVE_STATE, "workloads"]) {
        let name = name.as_str();
        if render::is_unrendered(workload) {
            continue;
        }
        match runtime::faults(&model::workload(workload)) {
            Ok(own) => faults.extend(own.into_iter().map(|(field, fault)| {
                let path = ["workloads".to_owned(), name.to_owned()].into_iter().chain(field);
                (path.collect(), fault)
            })),
            Err(fault) if workload.str_at("agent") == Some(agent) => {
                faults.push((workload_path(name, &["runtime"]), fault));
            }
            Err(_) => {}
        }
    }
    faults
}

/// What each template renders to.
fn renderings(tree: &Tree) -> Vec<Remark> {
    let mut all = Vec::new();
    for (name, workload) in tree.entries(&[EFFECTIVE_STATE, "workloads"]) {
        let desired = tree.get(&[DESIRED_STATE, "workloads", name.as_str()]);
        for (path, text) in texts(workload) {
            let before = desired.and_then(|own| {
                path.iter().try_fold(own, |own, part| match own.as_seq() {
                    Some(items) => items.get(part.parse::<usize>().ok()?),
                    None => own.get(part),
                })
            });
            if before.and_then(Node::as_str).is_some_and(|before| before != text) {
                let what = format!("renders to {text}");
                all.push((workload_path(name.as_str(), &path), what));
            }
        }
    }
    all
}

/// The texts of a workload that are rendered, with their paths.
fn texts(workload: &Node) -> Vec<(Vec<String>, &str)> {
    let own = ["agent", "runtimeConfig"];
    let own =
        own.iter().filter_map(|field| Some((vec![(*field).to_owned()], workload.str_at(field)?)));
    let files = workload.get("files").and_then(Node::as_seq).unwrap_or_default();
    let files = files.iter().enumerate().filter_map(|(index, file)| {
        let path = ["files".to_owned(), index.to_string(), "data".to_owned()];
        Some((path.to_vec(), file.str_at("data")?))
    });
    own.chain(files).collect()
}

fn workload_path(name: &str, fields: &[impl AsRef<str>]) -> Vec<String> {
    let fields = fields.iter().map(AsRef::as_ref);
    ["workloads", name].into_iter().chain(fields).map(str::to_owned).collect()
}
