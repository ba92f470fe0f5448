//! The agent as a service of systemd: it says when it is ready, what its state is, and that it lives.

use std::future::pending;

use fifogate::internal::{notify, watchdog_pause};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Signs of life of a loop, which calls [`Self::tick`] in each of its turns.
#[derive(Debug)]
pub(crate) struct Life(Option<Interval>);

impl Life {
    /// As often as systemd wants them, or never.
    pub(crate) fn new() -> Self {
        Self(watchdog_pause().map(|pause| {
            let mut ticks = interval_at(Instant::now() + pause, pause);
            // A late sign of life is as good as several.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    /// Waits for the time of the next sign, and gives it.
    pub(crate) async fn tick(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
                notify("WATCHDOG=1");
            }
            None => pending().await,
        }
    }
}

/// Everything is served; `status` is for `systemctl status`.
pub(crate) fn ready(status: &str) {
    notify(&format!("READY=1\n{}", line(status)));
}

/// Another text for `systemctl status`.
pub(crate) fn status(status: &str) {
    notify(&line(status));
}

/// No sign of life comes any more: the end may take its time.
pub(crate) fn stopping() {
    notify("STOPPING=1");
}

/// Each line is a variable of its own.
fn line(status: &str) -> String {
    format!("STATUS={}", status.replace('\n', " "))
}
