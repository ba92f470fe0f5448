//! The choice of scenarios and durations.

use clap::{Parser, ValueEnum};
use testkit::Harness;

use crate::{floor::Floor, scenario::Scenario};

/// Measures fifogate beside the floor under it, and prints a table.
#[derive(Debug, Parser)]
#[command(name = "gate", args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// What to measure; default: all
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// How often each quantity is measured
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Numbers of subscribers to measure, instead of 1, 10, 100, 1,000 and 5,000
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub(crate) subscribers: Option<Vec<usize>>,
    /// Numbers of workloads in the state to measure, instead of 10, 100, 1,000 and 10,000
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub(crate) states: Option<Vec<usize>>,
    /// Small numbers and short times, to see that everything works: no measurement
    #[arg(long)]
    pub(crate) quick: bool,
    /// Writes docs/benchmarks.md and its pictures
    #[arg(long)]
    pub(crate) write: bool,
    #[command(flatten)]
    pub(crate) harness: Harness,
    #[command(subcommand)]
    pub(crate) floor: Option<Floor>,
}

impl Options {
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        if self.scenarios.is_empty() {
            return Scenario::value_variants().to_vec();
        }
        self.scenarios.clone()
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { 2 } else { 5 }).max(1)
    }
}
