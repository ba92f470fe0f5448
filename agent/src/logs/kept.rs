//! Logs that a runtime keeps: a command prints them, and each line is an entry.

use std::{io, process::Stdio};

use fifogate::state::Instance;
use log::Level;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
};

use super::{
    READ_BUFFER,
    campaign::{BATCH, Collector, Gone, send_batch},
    record::Lines,
};
use crate::log_text::{self, Quoted};

/// Sends what a command prints, until its end. It is killed if this is cancelled.
pub(super) async fn send(
    to: &Collector,
    instance: &Instance,
    mut command: Command,
) -> Result<(), Gone> {
    let told = |error: io::Error| {
        let name = &instance.workload;
        let text = format_args!("the log of {} cannot be read: {error}", Quoted(name));
        log_text::about(name, Level::Warn, text);
    };
    let mut printing = match start(&mut command) {
        Ok(printing) => printing,
        Err(error) => {
            told(error);
            return Ok(());
        }
    };
    loop {
        match printing.next().await {
            Ok(Some(batches)) => {
                for batch in batches {
                    send_batch(to, instance, batch).await?;
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                told(error);
                return Ok(());
            }
        }
    }
}

/// A command with its output.
struct Printing {
    child: Child,
    pipe: pipe::Receiver,
    buffer: Vec<u8>,
    /// `None` behind the end of the output.
    lines: Option<Lines>,
}

impl Printing {
    /// The next lines, in batches of about [`BATCH`] bytes; `None` at the end.
    ///
    /// # Errors
    /// The output cannot be read, or its command has failed: its complaint is among the lines then.
    async fn next(&mut self) -> io::Result<Option<Vec<Vec<String>>>> {
        let Some(lines) = &mut self.lines else {
            let status = self.child.wait().await?;
            return match status.success() {
                true => Ok(None),
                false => Err(io::Error::other(format!("its reader ended with {status}"))),
            };
        };
        let read = self.pipe.read(&mut self.buffer).await?;
        let mut batches = Batches::default();
        if read > 0 {
            lines.feed(&self.buffer[..read], |line| batches.add(line));
        } else {
            lines.finish(|line| batches.add(line));
            self.lines = None;
        }
        Ok(Some(batches.finish()))
    }
}

/// Lines in batches; a batch ends with the line that exceeds its bound.
#[derive(Debug, Default)]
struct Batches {
    full: Vec<Vec<String>>,
    last: Vec<String>,
    bytes: usize,
}

impl Batches {
    fn add(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).into_owned();
        self.bytes += line.len();
        self.last.push(line);
        if self.bytes > BATCH {
            self.full.push(std::mem::take(&mut self.last));
            self.bytes = 0;
        }
    }

    fn finish(mut self) -> Vec<Vec<String>> {
        if !self.last.is_empty() {
            self.full.push(self.last);
        }
        self.full
    }
}

/// Starts a command with one pipe for both its streams: their lines stay in order.
fn start(command: &mut Command) -> io::Result<Printing> {
    let (sender, pipe) = pipe::pipe()?;
    let stdout = sender.into_blocking_fd()?;
    let stderr = stdout.try_clone()?;
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).kill_on_drop(true);
    let child = command.spawn();
    // The command holds the writing end: with it alive the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let lines = Some(Lines::default());
    Ok(Printing { child: child?, pipe, buffer: vec![0; READ_BUFFER], lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that a script prints, and its end.
    async fn printed(script: &str) -> (Vec<String>, io::Result<()>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let (mut printing, mut lines) = (start(&mut command).unwrap(), Vec::new());
        loop {
            match printing.next().await {
                Ok(Some(batches)) => lines.extend(batches.concat()),
                Ok(None) => return (lines, Ok(())),
                Err(error) => return (lines, Err(error)),
            }
        }
    }

    #[tokio::test]
    async fn lines_of_both_streams_keep_their_order_and_the_last_needs_no_line_feed() {
        let script = "for n in 1 2 3; do echo o$n; echo e$n >&2; done; printf last";
        let (lines, end) = printed(script).await;
        assert_eq!(lines, ["o1", "e1", "o2", "e2", "o3", "e3", "last"]);
        assert!(end.is_ok());
    }

    #[tokio::test]
    async fn failed_reader_is_told_of_and_a_missing_one_too() {
        let (lines, end) = printed("echo 'Error: no such container' >&2; exit 125").await;
        assert_eq!(lines, ["Error: no such container"]);
        assert_eq!(end.unwrap_err().to_string(), "its reader ended with exit status: 125");
        assert!(start(&mut Command::new("/nonexistent/program")).is_err());
    }

    #[test]
    fn batch_ends_with_the_line_that_exceeds_its_bound() {
        let sizes = |lines: &[usize]| {
            let mut batches = Batches::default();
            lines.iter().for_each(|len| batches.add(&vec![b'x'; *len]));
            batches.finish().iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[]), Vec::<usize>::new());
        assert_eq!(sizes(&[BATCH, 0]), [2]);
        assert_eq!(sizes(&[BATCH + 1, 0]), [1, 1]);
        assert_eq!(sizes(&[BATCH - 1, 1, 1, 5]), [3, 1]);
    }
}
