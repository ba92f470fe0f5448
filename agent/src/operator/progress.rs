//! Progress on standard error: one line for each workload at a terminal, one for each state elsewhere.
//!
//! Names and states go in. A live line is replaced by a plain one when nothing more is expected of its
//! workload: it stays whole, however many workloads there are and however narrow the terminal is.

use std::{future::Future, pin::pin, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::interval;

use super::print::note;

/// Time between two positions of a spinner.
const TURN: Duration = Duration::from_millis(100);

/// Positions of a spinner that every terminal can show. The last one is that of its end.
const TURNS: &str = "|/-\\ ";

/// All lines of one command.
#[derive(Debug)]
pub(super) struct Progress {
    all: MultiProgress,
    live: Vec<ProgressBar>,
}

/// The progress of one workload.
#[derive(Debug)]
pub(super) struct Line {
    workload: String,
    /// The last state that was shown.
    told: String,
    live: Option<(MultiProgress, ProgressBar)>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self::at(ProgressDrawTarget::stderr())
    }

    fn at(target: ProgressDrawTarget) -> Self {
        Self { all: MultiProgress::with_draw_target(target), live: Vec::new() }
    }

    /// A line for a workload.
    pub(super) fn line(&mut self, workload: &str) -> Line {
        let workload = workload.to_owned();
        // No terminal, or one that cannot move its cursor.
        if self.all.is_hidden() {
            return Line { workload, told: String::new(), live: None };
        }
        let style = ProgressStyle::with_template("{spinner} {prefix}: {wide_msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner()).tick_chars(TURNS);
        let bar = ProgressBar::new_spinner().with_style(style).with_prefix(workload.clone());
        let bar = self.all.add(bar);
        self.live.push(bar.clone());
        Line { workload, told: String::new(), live: Some((self.all.clone(), bar)) }
    }

    /// Turns the spinners while something is waited for.
    pub(super) async fn meanwhile<T>(&self, awaited: impl Future<Output = T>) -> T {
        let mut awaited = pin!(awaited);
        let mut turns = interval(TURN);
        loop {
            tokio::select! {
                done = &mut awaited => return done,
                _ = turns.tick(), if !self.live.is_empty() => {
                    self.live.iter().filter(|bar| !bar.is_finished()).for_each(ProgressBar::tick);
                }
            }
        }
    }
}

impl Line {
    /// Shows a state.
    pub(super) fn tell(&mut self, text: &str) {
        if self.told == text {
            return;
        }
        text.clone_into(&mut self.told);
        match &self.live {
            Some((_, bar)) => bar.set_message(self.told.clone()),
            None => self.print(),
        }
    }

    /// The last state that was shown.
    pub(super) fn told(&self) -> &str {
        &self.told
    }

    /// Shows the last state for good.
    pub(super) fn end(&mut self) {
        if let Some((all, bar)) = self.live.take() {
            bar.finish_and_clear();
            all.remove(&bar);
            // A line printed by `all` would be filled up with blanks, and have no end.
            all.suspend(|| self.print());
        }
    }

    fn print(&self) {
        note(&format!("{}: {}", self.workload, self.told));
    }
}
