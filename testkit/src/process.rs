//! A child process, and the numbers that the kernel has of a process.

use std::{
    fs,
    ops::{Deref, DerefMut},
    process::{Child, Command, ExitStatus},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A child process that is killed and reaped when its owner is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Sends a signal. Returns after SIGSTOP when all threads have stopped: until then one may still write.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().try_into().unwrap()), signal).unwrap();
        while signal == Signal::SIGSTOP && !self.is_stopped() {
            thread::yield_now();
        }
    }

    fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        threads.filter_map(Result::ok).all(|thread| {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("State:") && line.contains("stopped"))
        })
    }

    /// Ends it as a crash would, by SIGKILL.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits for its end.
    pub fn wait_end(&mut self) -> ExitStatus {
        crate::wait_for("the end of a process", || self.try_wait().unwrap())
    }

    /// A field of `/proc/PID/status`, in KiB.
    pub fn memory_kib(&self, field: &str) -> usize {
        memory_kib(self.id(), field)
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// Processor time so far, in ticks.
    pub fn ticks(&self) -> u64 {
        // utime and stime.
        self.stat(11) + self.stat(12)
    }

    /// Processor time of its children that have ended, and of theirs, in ticks.
    pub fn ticks_of_ended_children(&self) -> u64 {
        // cutime and cstime.
        self.stat(13) + self.stat(14)
    }

    /// A number of `/proc/PID/stat`, counted from the field behind the name.
    fn stat(&self, field: usize) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(field).unwrap().parse().unwrap()
    }
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A field of the status of any process, in KiB.
pub fn memory_kib(pid: u32, field: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
