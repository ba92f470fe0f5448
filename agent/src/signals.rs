//! Signals to the agent: SIGTERM and SIGINT end it in order, SIGHUP makes it read its files again.
//!
//! SIGHUP has two senders. `kill -HUP` and `systemctl reload` mean a reload. The end of the agent's terminal means the
//! end of its user's attention, and ends the agent. A terminal tells them apart: in the second case it is gone.

use std::{fs, future::pending, io};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time::{Duration, interval},
};

/// Pause between two looks at the terminal.
const LOOK: Duration = Duration::from_secs(1);

/// Caught signals.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
    had_terminal: bool,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        // Ignored if `nohup` started this agent: the end of a terminal is not to end it.
        let hangup = (!is_hangup_ignored()).then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self { terminate, interrupt, hangup, had_terminal: has_terminal() })
    }

    /// Waits for the order to end, and returns its signal. Notifies `reload` of a SIGHUP; it remembers one.
    pub(crate) async fn stop(&mut self, reload: &Notify) -> &'static str {
        let mut looks = interval(LOOK);
        let mut is_gone_before = false;
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(hangup) => hangup.recv().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = hangup => {
                    if self.had_terminal && !has_terminal() {
                        return "SIGHUP, as the terminal has ended";
                    }
                    reload.notify_one();
                }
                // An agent in the background, of which the end of its terminal was not told: it goes on without one.
                _ = looks.tick(), if self.had_terminal => {
                    let is_gone = !has_terminal();
                    // Twice: the signal may still be on its way.
                    if is_gone && is_gone_before {
                        log::info!("the terminal has ended without SIGHUP: this agent goes on without one");
                        self.had_terminal = false;
                    }
                    is_gone_before = is_gone;
                }
            }
        }
    }
}

fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    // SIGHUP is signal 1, in the lowest bit.
    ignored.is_some_and(|set| set & 1 == 1)
}

/// Whether this process has a controlling terminal. The kernel takes it away before it sends SIGHUP for its end.
fn has_terminal() -> bool {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: state, parent, group, session, terminal.
    let behind = stat.rsplit_once(')').map(|(_, behind)| behind).unwrap_or_default();
    behind.split_whitespace().nth(4).is_some_and(|terminal| terminal != "0")
}
