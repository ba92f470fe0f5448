//! `fifogate check`: validates manifests without serving, and answers questions about their rules.

use std::io::{self, Write};

use super::{args::CheckArgs, error::CliError};
use crate::{
    advice::{self, Operation},
    manifest::{self, Manifest, places::read_text},
    source,
    state::Node,
};

pub(super) fn check(args: CheckArgs) -> Result<(), CliError> {
    if args.files.iter().filter(|path| source::is_stdin(path)).count() > 1 {
        return Err(CliError::unusable("`-` is given twice; standard input can be read once"));
    }
    let questions = questions(&args.may)?;
    let mut faults = Vec::new();
    let mut denied = Vec::new();
    for path in &args.files {
        let read = read_text(path)
            .and_then(|(file, text)| Ok((manifest::parse(&file, &text)?, file, text)));
        match read {
            Err(error) => faults.push(error.to_string()),
            Ok((manifest, file, text)) if questions.is_empty() => {
                let warnings = advise(&manifest, &file, &text);
                match warnings {
                    1.. if args.strict => faults.push(format!("{file}: {}", refusal(warnings))),
                    _ => say(&format!("{file}: ok ({})", summary(&manifest)))?,
                }
            }
            Ok((manifest, file, text)) => {
                for question in &questions {
                    let tree = &manifest.updated.tree;
                    match advice::answer((&file, &text), tree, *question) {
                        Err(fault) => faults.push(fault),
                        Ok((true, answer)) => say(&answer.to_string())?,
                        Ok((false, answer)) => denied.push(answer.to_string()),
                    }
                }
            }
        }
    }
    // Reported behind all files: one run finds the faults of each.
    match (faults.is_empty(), denied.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(CliError::failed(denied.join("\n"))),
        (false, _) => Err(CliError::unusable([faults, denied].concat().join("\n"))),
    }
}

fn say(line: &str) -> Result<(), CliError> {
    writeln!(io::stdout().lock(), "{line}").map_err(|error| CliError::stdout(&error))
}

/// A workload, what it would do, and with which mask.
type Question<'a> = (&'a str, Operation, &'a str);

fn questions(may: &[String]) -> Result<Vec<Question<'_>>, CliError> {
    may.chunks(3)
        .map(|given| match given {
            [name, operation, mask] => {
                let names = Operation::NAMES;
                let known = names.iter().find(|(own, _)| own.eq_ignore_ascii_case(operation));
                let (_, operation) = known.ok_or_else(|| {
                    let names = names.map(|(own, _)| own).join(", ");
                    CliError::unusable(format!("--may: `{operation}` is none of {names}"))
                })?;
                Ok((name.as_str(), *operation, mask.as_str()))
            }
            _ => Err(CliError::unusable("--may has a workload, an operation and a mask")),
        })
        .collect()
}

/// Logs warnings and notes. Returns the number of warnings.
fn advise(manifest: &Manifest, file: &str, text: &str) -> usize {
    let advice = advice::advise(file, text, &manifest.updated.tree);
    let warnings = manifest.warnings.iter().chain(&advice.warnings);
    warnings.clone().for_each(|warning| log::warn!("{warning}"));
    advice.notes.iter().for_each(|note| log::info!("{note}"));
    match advice.left_out {
        0 => {}
        more => log::info!("{file}: … and {more} more"),
    }
    warnings.count()
}

fn refusal(warnings: usize) -> String {
    let noun = if warnings == 1 { "warning" } else { "warnings" };
    format!("refused for {warnings} {noun} (--strict)")
}

fn summary(manifest: &Manifest) -> String {
    let changes = &manifest.updated.changes;
    let workloads: Vec<_> = changes.iter().filter_map(|change| change.new.as_ref()).collect();
    let gated = workloads.iter().filter(|workload| has_interface(workload)).count();
    let count = workloads.len();
    let noun = if count == 1 { "workload" } else { "workloads" };
    format!("{count} {noun}, {gated} with a control interface")
}

fn has_interface(workload: &Node) -> bool {
    let access = workload.get("controlInterfaceAccess");
    let rules = access.and_then(|access| access.get("allowRules")).and_then(Node::as_seq);
    rules.is_some_and(|rules| !rules.is_empty())
}
