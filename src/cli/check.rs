//! `fifogate check`: validates manifests without serving.

use std::io::{self, Write};

use super::{args::CheckArgs, error::CliError};
use crate::{manifest, source, state::Node};

pub(super) fn check(args: CheckArgs) -> Result<(), CliError> {
    if args.files.iter().filter(|path| source::is_stdin(path)).count() > 1 {
        return Err(CliError::unusable("`-` is given twice; standard input can be read once"));
    }
    let mut faults = Vec::new();
    for path in &args.files {
        match manifest::read_or_stdin(path) {
            Err(error) => faults.push(error.to_string()),
            Ok(manifest) => {
                for warning in &manifest.warnings {
                    log::warn!("{warning}");
                }
                let workloads: Vec<_> = manifest
                    .updated
                    .changes
                    .iter()
                    .filter_map(|change| change.new.as_ref())
                    .collect();
                let gated = workloads.iter().filter(|workload| has_interface(workload)).count();
                let count = workloads.len();
                let noun = if count == 1 { "workload" } else { "workloads" };
                let file = source::name(path);
                writeln!(
                    io::stdout().lock(),
                    "{file}: ok ({count} {noun}, {gated} with a control interface)"
                )
                .map_err(|error| CliError::stdout(&error))?;
            }
        }
    }
    // Reported behind all files: one run finds the faults of each.
    if faults.is_empty() { Ok(()) } else { Err(CliError::unusable(faults.join("\n"))) }
}

fn has_interface(workload: &Node) -> bool {
    let access = workload.get("controlInterfaceAccess");
    let rules = access.and_then(|access| access.get("allowRules")).and_then(Node::as_seq);
    rules.is_some_and(|rules| !rules.is_empty())
}
