//! Rate limit for log lines caused by workloads.
//!
//! A line passes if its kind is below the limits of this minute: one limit for each workload, one for
//! all workloads together. Suppressed lines are counted, and the count is logged later.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use log::Level;

/// Lines of one kind about one workload in a minute.
const OF_ONE: usize = 10;
/// Lines of one kind about all workloads in a minute: a writer of the state can make workloads of any
/// name.
const OF_ALL: usize = 200;
/// Length of the window.
const WINDOW: Duration = Duration::from_secs(60);
/// Interval of looks for windows that are over.
const LOOK: Duration = Duration::from_secs(1);

/// Kind of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A pair could not be made or removed.
    Pair,
    /// A workload misbehaves.
    Misbehavior,
    /// A workload no longer blocks its pipe.
    LetGo,
    /// No thread for a blocked workload.
    NoThread,
    /// A message was cut off when the fifogate before ended.
    CutOff,
    /// A workload reads too slowly.
    Slow,
    /// A workload has caught up.
    CaughtUp,
    /// A request of a workload was denied.
    Denial,
}

impl Kind {
    /// Subject of its lines, for the count of suppressed ones.
    fn name(self) -> &'static str {
        match self {
            Self::Pair => "its pair",
            Self::Misbehavior => "misbehavior",
            Self::LetGo => "releases of its pipe",
            Self::NoThread => "missing threads",
            Self::CutOff => "messages cut off by a restart",
            Self::Slow => "slow reading",
            Self::CaughtUp => "catching up",
            Self::Denial => "denials",
        }
    }
}

#[derive(Debug)]
struct Window {
    since: Instant,
    said: usize,
    left_out: usize,
    /// Level of the lines left out, the most severe one.
    level: Level,
}

/// Lines of the last minute.
#[derive(Debug, Default)]
pub(super) struct LogLimiter {
    of_one: HashMap<(Kind, String), Window>,
    of_all: HashMap<Kind, Window>,
    /// Time of the last look for windows that are over.
    looked: Option<Instant>,
    /// End of the first window with lines left out.
    due: Option<Instant>,
}

impl LogLimiter {
    /// Logs a line about a workload, unless the limit of its kind is reached.
    pub(super) fn log(&mut self, level: Level, kind: Kind, name: &str, text: fmt::Arguments<'_>) {
        let now = Instant::now();
        // Not for each line: a workload can cause denials at any rate.
        if self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK) {
            self.looked = Some(now);
            self.tell(now);
        }
        if self.admit(level, kind, name, now) {
            log::log!(level, "{text}");
        }
    }

    /// Time at which [`LogLimiter::tell_left_out`] has something to say.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Logs the numbers of lines left out in the windows that are over by `now`.
    pub(super) fn tell_left_out(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.tell(now);
        }
    }

    fn tell(&mut self, now: Instant) {
        for (level, line) in self.take_left_out(now) {
            log::log!(level, "{line}");
        }
    }

    fn admit(&mut self, level: Level, kind: Kind, name: &str, now: Instant) -> bool {
        let new = || Window { since: now, said: 0, left_out: 0, level };
        let all = self.of_all.entry(kind).or_insert_with(new);
        // Before a window for this name is made: the number of windows is bounded for any number of names.
        if all.said >= OF_ALL {
            all.leave_out(level, &mut self.due);
            return false;
        }
        let one = self.of_one.entry((kind, name.to_owned())).or_insert_with(new);
        if one.said >= OF_ONE {
            one.leave_out(level, &mut self.due);
            return false;
        }
        (one.said, all.said) = (one.said + 1, all.said + 1);
        true
    }

    /// Ends windows that are over. Returns lines with the counts of their suppressed lines.
    fn take_left_out(&mut self, now: Instant) -> Vec<(Level, String)> {
        let over = |window: &Window| now.saturating_duration_since(window.since) >= WINDOW;
        let ones = self
            .of_one
            .extract_if(|_, window| over(window))
            .map(|((kind, name), window)| (window, format!("{name}: {}", kind.name())));
        let all = self
            .of_all
            .extract_if(|_, window| over(window))
            .map(|(kind, window)| (window, format!("all workloads: {}", kind.name())));
        let line = |(Window { left_out, level, .. }, about): (Window, String)| {
            (left_out > 0).then(|| (level, format!("{about}: {left_out} lines were not logged")))
        };
        let lines = ones.chain(all).filter_map(line).collect();
        let windows = self.of_one.values().chain(self.of_all.values());
        self.due = windows.filter(|own| own.left_out > 0).map(|own| own.since + WINDOW).min();
        lines
    }
}

impl Window {
    /// Counts a line left out; `due` is the earliest end of such windows.
    fn leave_out(&mut self, level: Level, due: &mut Option<Instant>) {
        self.left_out += 1;
        self.level = self.level.min(level);
        let end = self.since + WINDOW;
        *due = Some(due.map_or(end, |due| due.min(end)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_workload_are_bounded_and_those_of_others_go_on() {
        let (mut log_limiter, now) = (LogLimiter::default(), Instant::now());
        let said =
            (0..1_000).filter(|_| log_limiter.admit(Level::Warn, Kind::Slow, "a", now)).count();
        assert_eq!(said, OF_ONE);
        assert!(
            log_limiter.admit(Level::Warn, Kind::Slow, "b", now)
                && log_limiter.admit(Level::Warn, Kind::CaughtUp, "a", now)
        );
    }

    #[test]
    fn lines_of_workloads_of_any_name_are_bounded_and_so_is_what_is_kept_of_them() {
        let (mut log_limiter, now) = (LogLimiter::default(), Instant::now());
        let said = (0..10_000)
            .filter(|n| log_limiter.admit(Level::Warn, Kind::Pair, &n.to_string(), now))
            .count();
        assert_eq!((said, log_limiter.of_one.len()), (OF_ALL, OF_ALL));
    }

    #[test]
    fn number_of_lines_that_were_left_out_is_told_a_minute_later_and_then_they_go_on() {
        let (mut log_limiter, now) = (LogLimiter::default(), Instant::now());
        assert_eq!(
            (0..25).filter(|_| log_limiter.admit(Level::Warn, Kind::LetGo, "a", now)).count(),
            OF_ONE
        );
        assert_eq!(
            (0..3).filter(|_| log_limiter.admit(Level::Warn, Kind::LetGo, "b", now)).count(),
            3
        );
        let later = now + WINDOW;
        assert_eq!(log_limiter.due(), Some(later));
        assert_eq!(log_limiter.take_left_out(now + WINDOW / 2), []);
        let told = "a: releases of its pipe: 15 lines were not logged";
        assert_eq!(log_limiter.take_left_out(later), [(Level::Warn, told.to_owned())]);
        assert_eq!(log_limiter.due(), None);
        assert!(log_limiter.admit(Level::Warn, Kind::LetGo, "a", later));
        assert_eq!(log_limiter.take_left_out(later + WINDOW), []);
    }
}
