//! `fifogate-agent check`: validates manifests as `run` would, without starting anything.
//!
//! Files go in; faults and warnings with their places come out, and a line for each good file. What
//! depends on the node, such as users and programs, is not checked.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use fifogate::{
    internal::manifest::{faults_at, read_text},
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

pub(crate) fn check(files: &[PathBuf], agent: &str) -> Result<(), CliError> {
    let mut faults = Vec::new();
    let mut read = Vec::new();
    for path in files {
        match read_text(path).and_then(|(file, text)| check_text(&file, &text, agent)) {
            Ok(line) => read.push(line),
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

/// The line about a good manifest.
fn check_text(file: &str, text: &str, agent: &str) -> Result<String, ManifestError> {
    let manifest = manifest::parse(file, text)?;
    let desired = manifest.updated.tree;
    let (tree, faults) = rendered(&desired);
    let faults: Vec<_> = faults.into_iter().chain(workload_faults(&tree, agent)).collect();
    for warning in &manifest.warnings {
        log::warn!("{warning}");
    }
    for warning in faults_at(file, text, missing_dependencies(&tree)).faults {
        log::warn!("{warning}");
    }
    if !faults.is_empty() {
        return Err(faults_at(file, text, faults));
    }
    if let Some(text) = placement::nothing_to_do(&tree, agent, "manifest") {
        log::warn!("{file}: {text}");
    }
    let workloads = tree.entries(&[EFFECTIVE_STATE, "workloads"]);
    let own = workloads.iter().filter(|(_, workload)| workload.str_at("agent") == Some(agent));
    let names: Vec<_> = own.map(|(name, _)| name.to_string()).collect();
    let listed = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    let all = workloads.iter().count();
    let noun = if all == 1 { "workload" } else { "workloads" };
    Ok(format!("{file}: ok ({all} {noun}, {} of {agent}{listed})", names.len()))
}

/// The state with its effective state, and the faults of templates.
fn rendered(desired: &Tree) -> (Tree, Vec<Remark>) {
    let (effective, faults) = render::effective(&model::empty(), &ConfigIndex::default(), desired);
    let remark = |fault: render::RenderError| (workload_path(&fault.workload, &[]), fault.reason);
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

/// Dependencies on workloads that are not there: these workloads wait until an update adds them.
fn missing_dependencies(tree: &Tree) -> Vec<Remark> {
    let workloads = tree.entries(&[DESIRED_STATE, "workloads"]);
    let mut missing = Vec::new();
    for (name, workload) in workloads {
        let dependencies = workload.get("dependencies").and_then(Node::as_map);
        for (on, _) in dependencies.into_iter().flatten() {
            if workloads.get(on.as_str()).is_none() {
                let path = workload_path(name.as_str(), &["dependencies", on.as_str()]);
                let text = format!("{name} waits for {on}, which is no workload of the manifest");
                missing.push((path, text));
            }
        }
    }
    missing
}

fn workload_path(name: &str, fields: &[&str]) -> Vec<String> {
    ["workloads", name].iter().chain(fields).map(|own| (*own).to_owned()).collect()
}
