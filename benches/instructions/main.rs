//! How many instructions fixed pieces of work take, counted by valgrind: the same on a busy machine
//! as on a quiet one, so that what makes fifogate slower is noticed before it is merged.
//!
//! Each piece is done in a process of its own; what it takes to get ready is not counted.
//! `benches/instructions.txt` holds what was counted before. The numbers are those of one compiler: with
//! another, they are told and not compared.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod baseline;
mod core;
#[allow(dead_code)] // shared with the other benchmark
#[path = "../gate/messages.rs"]
mod messages;
mod work;

use std::{
    fs,
    io::{self, Write},
    process::{Command, ExitCode, Stdio},
};

use clap::Parser;
use testkit::Harness;

use baseline::Baseline;
use work::{COUNTED, Work};

/// More than this over what was counted before is a failure, in percent.
const MOST_OVER: f64 = 5.0;

/// Counts instructions, and compares them with what was counted before.
#[derive(Debug, Parser)]
#[command(name = "instructions")]
struct Options {
    /// Writes what was counted to benches/instructions.txt, for later comparisons
    #[arg(long)]
    write: bool,
    /// Does one piece of work, to be counted
    #[arg(long, hide = true, value_enum)]
    work: Option<Work>,
    #[command(flatten)]
    harness: Harness,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(work) = options.work {
        work.perform(work.times());
        return ExitCode::SUCCESS;
    }
    if !options.harness.measures("make instructions") {
        return ExitCode::SUCCESS;
    }
    let counted = Baseline::count(instructions);
    if options.write {
        counted.write();
        return ExitCode::SUCCESS;
    }
    compare(&counted)
}

fn compare(counted: &Baseline) -> ExitCode {
    let before = Baseline::read();
    let comparable = before.compiler == counted.compiler;
    if !comparable {
        say(&format!("not compared: counted before with {}", before.compiler));
    }
    let mut worse = false;
    for (name, now) in &counted.counts {
        let Some(then) = before.counts.get(name) else {
            say(&format!("{name}: not counted before; `make instructions WRITE=1` notes it"));
            worse = true;
            continue;
        };
        let change = 100.0 * (*now as f64 - *then as f64) / *then as f64;
        let verdict = match change {
            _ if !comparable => "",
            MOST_OVER.. => "  WORSE",
            ..=0.0 if change < -MOST_OVER => "  better: `make instructions WRITE=1` keeps it so",
            _ => "",
        };
        worse |= comparable && change > MOST_OVER;
        say(&format!("{name:40} {now:>14} {change:+6.1} %{verdict}"));
    }
    if worse { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Of a piece of work, without what it takes to get ready for it.
fn instructions(work: Work) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("counts");
    let own = std::env::current_exe().unwrap();
    let status = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(own)
        .args(["--work", &work.name()])
        .stdout(Stdio::null())
        .status()
        .expect("valgrind is missing");
    assert!(status.success());
    let counts = fs::read_to_string(file).unwrap();
    let line = counts.lines().find_map(|line| line.strip_prefix("totals: "));
    let count = line.unwrap().trim().parse().unwrap();
    assert!(count > 0, "nothing was counted: were the names of functions removed?");
    count
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap();
}
