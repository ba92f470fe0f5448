//! Logs that a runtime keeps: a command prints them, and each line is an entry.

use std::{io, process::Stdio};

use fifogate::{link::CallError, state::Instance};
use log::Level;
use tokio::{io::AsyncReadExt, net::unix::pipe, process::Command};

use super::{
    READ_BUFFER,
    campaign::{BATCH, Collector, send_batch},
    record::Lines,
};
use crate::log_text::{self, Quoted};

/// Sends what a command prints, until its end. It is killed if this is cancelled.
pub(super) async fn send(
    to: &Collector,
    instance: &Instance,
    mut command: Command,
) -> Result<(), CallError> {
    let told = |error: io::Error| {
        let name = &instance.workload;
        let text = format_args!("the log of {} cannot be read: {error}", Quoted(name));
        log_text::about(name, Level::Warn, text);
    };
    let mut output = match start(&mut command) {
        Ok(output) => output,
        Err(error) => {
            told(error);
            return Ok(());
        }
    };
    let (mut buffer, mut lines) = (vec![0; READ_BUFFER], Lines::default());
    loop {
        let read = output.pipe.read(&mut buffer).await.unwrap_or_else(|error| {
            told(error);
            0
        });
        let (mut batch, mut bytes, mut full) = (Vec::new(), 0, Vec::new());
        let mut add = |line: &[u8]| {
            let line = String::from_utf8_lossy(line).into_owned();
            bytes += line.len();
            batch.push(line);
            if bytes > BATCH {
                full.push(std::mem::take(&mut batch));
                bytes = 0;
            }
        };
        match read {
            0 => lines.finish(&mut add),
            _ => lines.feed(&buffer[..read], &mut add),
        }
        full.push(batch);
        for batch in full {
            send_batch(to, instance, batch).await?;
        }
        if read == 0 {
            let _ = output.child.wait().await;
            return Ok(());
        }
    }
}

struct Printing {
    child: tokio::process::Child,
    pipe: pipe::Receiver,
}

/// Starts a command with one pipe for both its streams: their lines stay in order.
fn start(command: &mut Command) -> io::Result<Printing> {
    let (sender, pipe) = pipe::pipe()?;
    let stdout = sender.into_blocking_fd()?;
    let stderr = stdout.try_clone()?;
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).kill_on_drop(true);
    let child = command.spawn()?;
    // The command holds the writing end: with it alive the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Printing { child, pipe })
}
