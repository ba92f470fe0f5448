//! Throttle: bounds the wake-ups that a workload causes without any use.
//!
//! Turns go in with their worth; the kernel events to switch off come out. A reader of small pieces loses its
//! read events only; its other events are still handled.

use std::time::{Duration, Instant};

use super::super::super::port::Worth;

/// Window for counting useless wake-ups.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// Useless turns excused by each useful one: a reader that is polled while it reads causes more turns
/// than frames.
const MADE_UP: usize = 4;

/// Kernel events to switch off for a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Less {
    #[default]
    Nothing,
    /// Events for reads of the workload.
    Reads,
    /// All events except for a reader that leaves.
    All,
}

/// The counts of one port, and what is switched off.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// Useless turns, minus the excused ones.
    idle: Count,
    /// Turns with no result except that the reader had read on.
    read_on: Count,
    /// Read events are off: its reader reads in very small pieces.
    quiet: bool,
    /// All events are off, except for a reader that leaves.
    all_off: bool,
}

impl Throttle {
    /// Counts a turn, and returns the events to switch off now. Nothing is counted while all are off.
    pub(super) fn count(&mut self, worth: Worth, most: usize) -> Less {
        if self.all_off {
            return Less::Nothing;
        }
        match worth {
            Worth::Useful => self.idle.make_up(),
            Worth::ReadOn if !self.quiet => {
                if self.read_on.is_above(most) {
                    self.quiet = true;
                    return Less::Reads;
                }
            }
            // With read events off, a flood of such turns has another cause: opening and closing.
            Worth::ReadOn | Worth::Nothing => {
                if self.idle.is_above(most) {
                    self.all_off = true;
                    return Less::All;
                }
            }
        }
        Less::Nothing
    }

    /// True if all events are off.
    pub(super) fn is_all_off(&self) -> bool {
        self.all_off
    }

    /// True if read events are off.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Switches read events on again.
    pub(super) fn watch_reads(&mut self) {
        self.quiet = false;
    }

    /// Switches all events on again, except for read events if they were off before.
    pub(super) fn end(&mut self) {
        self.all_off = false;
    }
}

/// Number of turns of one kind since the start of the window.
#[derive(Debug, Default)]
struct Count(Option<(Instant, usize)>);

impl Count {
    /// Counts one turn. Returns true if there were more than `most` in this window.
    fn is_above(&mut self, most: usize) -> bool {
        let now = Instant::now();
        let (since, count) = match self.0 {
            Some((since, count)) if now.saturating_duration_since(since) < WINDOW => {
                (since, count + 1)
            }
            _ => (now, 1),
        };
        self.0 = Some((since, count));
        count > most
    }

    fn make_up(&mut self) {
        if let Some((_, count)) = &mut self.0 {
            *count = count.saturating_sub(MADE_UP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn useless_turns_above_the_limit_switch_all_off_and_useful_ones_excuse_some() {
        let mut throttle = Throttle::default();
        let mut count = |worth| throttle.count(worth, 8);
        // Each useful turn excuses four: these never add up.
        for _ in 0..1_000 {
            assert_eq!(count(Worth::Useful), Less::Nothing);
            for _ in 0..4 {
                assert_eq!(count(Worth::Nothing), Less::Nothing);
            }
        }
        let useless = (0..20).find(|_| count(Worth::Nothing) == Less::All);
        assert!(useless.is_some());
        assert!(throttle.is_all_off());
        assert_eq!(throttle.count(Worth::Nothing, 8), Less::Nothing, "switched off once");
        throttle.end();
        assert!(!throttle.is_all_off());
    }

    #[test]
    fn reader_of_small_pieces_loses_its_read_events_first() {
        let mut throttle = Throttle::default();
        let all: Vec<_> = (0..10).map(|_| throttle.count(Worth::ReadOn, 8)).collect();
        assert_eq!(all.iter().position(|less| *less == Less::Reads), Some(8));
        assert!(throttle.is_quiet() && !throttle.is_all_off());
        throttle.watch_reads();
        assert!(!throttle.is_quiet());
    }
}
