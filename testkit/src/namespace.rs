//! Root where this process is not root: a user namespace.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
};

use crate::{is_root, skip};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Whether the calling test ran already as root of a user namespace, because this process may not make
/// other namespaces. It has been skipped if the kernel allows it no user namespace either.
pub fn is_done_elsewhere(options: &[&str]) -> bool {
    let test = thread::current().name().expect("the test's name").to_owned();
    is_run_elsewhere(options, &["--exact", &test, "--nocapture"])
}

/// Whether this program was run anew with these arguments, in a user namespace and those that the options
/// of `unshare` name.
pub fn is_run_elsewhere(options: &[&str], arguments: &[&str]) -> bool {
    if is_root() && has_capability(CAP_SYS_ADMIN) && has_capability(CAP_NET_ADMIN) {
        return false;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user"]).args(options);
        command
    };
    let allowed = unshare().arg("true").stderr(Stdio::null()).status();
    if !allowed.expect("unshare of util-linux").success() {
        skip("it needs root, or user namespaces");
        return true;
    }
    let status = unshare().arg(std::env::current_exe().unwrap()).args(arguments).status().unwrap();
    assert!(status.success(), "{arguments:?} without root, in a user namespace: {status}");
    true
}

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & (1 << number) != 0
}
