//! `fifogate-agent man` and `completions`: generators on the definition of the command line.

use std::io::{self, Write};

use clap::builder::PossibleValuesParser;
use clap_complete::env::Shells;
use fifogate::internal::man_page;

use super::{CliError, config_file};

/// Our name, as a shell finds it.
const NAME: &str = "fifogate-agent";

/// The shells that can complete our commands.
pub(super) fn shells() -> PossibleValuesParser {
    Shells::builtins().names().collect::<Vec<_>>().into()
}

/// Prints a script for a shell: with it, the shell asks this program, and that the running agent.
pub(super) fn completions(shell: &str) -> Result<(), CliError> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let written = shells.completer(shell).map(|own| {
        let function = NAME.replace('-', "_");
        own.write_registration("COMPLETE", NAME, NAME, NAME, &mut script).map(|()| function)
    });
    let function = written.transpose().map_err(failed)?.unwrap_or_default();
    if shell == "zsh" {
        // As a file of $fpath it is run at the first completion, and is to answer that, too.
        let call = format!(
            "\n[ \"${{funcstack[1]}}\" != _{NAME} ] || _clap_dynamic_completer_{function} \"$@\"\n"
        );
        script.extend(call.into_bytes());
    }
    print(&script)
}

/// Prints the manual page.
pub(super) fn man() -> Result<(), CliError> {
    print(&man_page(&config_file::command()).map_err(failed)?)
}

fn print(text: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        // The reader has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(failed),
    }
}

fn failed(error: io::Error) -> CliError {
    CliError::Failed(format!("cannot write to standard output: {error}"))
}
