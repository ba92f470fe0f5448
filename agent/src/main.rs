//! The `fifogate-agent` binary: arguments in, exit status out.

fn main() {}
