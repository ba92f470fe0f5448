//! The `fifogate-agent` binary: arguments in, exit status out.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    fifogate_agent::cli::main(env::args_os())
}
