//! The `fifogate` binary: arguments in, exit status out.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    fifogate::cli::main(env::args_os())
}
