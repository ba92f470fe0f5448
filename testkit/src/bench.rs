//! What cargo and other programs ask of a benchmark.

use clap::Args;

/// Options that a benchmark is given by programs; flattened into its own.
#[derive(Debug, Args)]
pub struct Harness {
    /// Given by `cargo bench`; without it, as under `cargo test`, nothing is measured
    #[arg(long, hide = true)]
    bench: bool,
    /// Asked of every test program by those that run many
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    format: Option<String>,
    #[arg(long, hide = true)]
    ignored: bool,
}

impl Harness {
    /// Whether to measure now. If not, a person is told the `command` that does.
    #[allow(clippy::print_stdout)]
    pub fn measures(&self, command: &str) -> bool {
        // A list of no tests.
        if !self.list && !self.bench {
            println!("nothing is measured without optimization: `{command}` does");
        }
        self.bench && !self.list
    }
}
