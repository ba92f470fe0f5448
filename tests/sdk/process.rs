//! A child process whose output comes line by line and with a deadline.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tempfile::NamedTempFile;

pub(crate) struct Process {
    process: testkit::Process,
    lines: Receiver<String>,
    log: NamedTempFile,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Process {
        let log = NamedTempFile::new().unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.reopen().unwrap());
        let mut process = testkit::Process::start(command);
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // Ends with the process, whose end of the pipe is the only one.
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Process { process, lines, log }
    }

    pub(crate) fn write_line(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}")
            .unwrap_or_else(|error| panic!("{line} not taken: {error}\n{}", self.log()));
    }

    /// The next line of standard output, or `None` if there is none within the time.
    pub(crate) fn line_within(&self, time: Duration) -> Option<String> {
        match self.lines.recv_timeout(time) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("it ended early\n{}", self.log()),
        }
    }

    /// SIGKILL, as a crash ends a process: it gets no chance to tidy up.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// The process's standard error, for the message of a failed test.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}
