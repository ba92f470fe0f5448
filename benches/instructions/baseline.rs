//! The counts, in a file that is kept with the code.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;

use crate::{say, work::Work};

const HEAD: &str = "# Instructions of fixed pieces of work; see benches/instructions/main.rs.\n\
                    # `make instructions` compares with it, `make instructions WRITE=1` writes it.\n";

/// The counts of one compiler.
pub(crate) struct Baseline {
    pub(crate) compiler: String,
    pub(crate) counts: BTreeMap<String, u64>,
}

impl Baseline {
    /// Counts all of them.
    pub(crate) fn count(instructions: impl Fn(Work) -> u64) -> Self {
        let all = Work::value_variants().iter();
        let counts = all.map(|work| (work.name(), instructions(*work))).collect();
        Self { compiler: compiler(), counts }
    }

    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(file()).unwrap_or_default();
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let compiler = lines.next().unwrap_or("nothing").to_owned();
        let counts = lines.filter_map(|line| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.trim().parse().unwrap()))
        });
        Self { compiler, counts: counts.collect() }
    }

    pub(crate) fn write(&self) {
        let mut text = format!("{HEAD}{}\n", self.compiler);
        for (name, count) in &self.counts {
            writeln!(text, "{name} {count}").unwrap();
        }
        fs::write(file(), &text).unwrap();
        say(&text);
    }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("-V").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
