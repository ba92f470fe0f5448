//! The machine that was measured on, as far as it tells.

use std::{fs, process::Command};

/// The head of a report: name and value.
pub(crate) fn facts() -> Vec<(&'static str, String)> {
    vec![
        ("processor", field("/proc/cpuinfo", "model name")),
        ("processors", std::thread::available_parallelism().unwrap().to_string()),
        ("memory", gib(&field("/proc/meminfo", "MemTotal"))),
        ("kernel", kernel()),
        ("compiler", output("rustc", &["-V"])),
        ("commit", commit()),
        ("others' load", load()),
    ]
}

/// The commit that this was built from, or is near to.
fn commit() -> String {
    let git = |args: &[&str]| {
        let root = ["-c", "safe.directory=*", "-C", env!("CARGO_MANIFEST_DIR")];
        output("git", &[&root, args].concat())
    };
    let id = git(&["rev-parse", "--short", "HEAD"]);
    let changes = git(&["status", "--porcelain", "--", "src", "benches", "Cargo.lock"]);
    if changes.is_empty() { id } else { format!("{id}, and changes") }
}

/// Before anything is measured.
fn load() -> String {
    let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    let quiet = load.parse::<f64>().is_ok_and(|load| load < 0.5);
    if quiet { load } else { format!("{load}: others were using this machine, times are too long") }
}

/// Its version, without what a builder adds.
fn kernel() -> String {
    let release = read("/proc/sys/kernel/osrelease");
    release.split('-').next().unwrap_or_default().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim());
    value.unwrap_or("?").to_owned()
}

fn gib(kib: &str) -> String {
    let number = kib.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    number.map_or_else(|| kib.to_owned(), |kib| format!("{:.0} GiB", kib / f64::from(1 << 20)))
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(|_| "?".to_owned(), |out| String::from_utf8_lossy(&out.stdout).trim().into())
}
