//! Log lines about workloads: escaped, shortened, and limited in rate.
//!
//! Texts of a workload go in; lines of bounded length come out, up to a limit for each workload. No
//! workload can fill the disk, hide the lines of others, or forge lines of the agent.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fifogate::state::Instance;
use log::Level;
use tokio::time::sleep;

/// Bound on the characters of a workload's text.
const MOST_QUOTED: usize = 128;
/// Bound on the characters of a line from any source.
const MOST_OF_A_LINE: usize = 4096;
/// Lines of one workload at once; then one each [`REFILL`].
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_secs(1);
/// Log target of these lines.
const TARGET: &str = "fifogate_agent::workload";
/// Interval between reports of left-out lines.
const COUNTED: Duration = Duration::from_secs(10);

/// A text from a workload, escaped and shortened for a line of the log.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0, MOST_QUOTED)
    }
}

/// Escapes and shortens a message: one line, of bounded length, without effect on a terminal.
#[must_use]
pub fn line(message: &fmt::Arguments<'_>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_escaped(&mut text, &message.to_string(), MOST_OF_A_LINE);
    text
}

fn write_escaped(to: &mut impl Write, text: &str, most: usize) -> fmt::Result {
    for (count, (at, char)) in text.char_indices().enumerate() {
        if count == most {
            return write!(to, "... ({} bytes more)", text.len() - at);
        }
        if is_plain(char) {
            to.write_char(char)?;
        } else {
            write!(to, "{}", char.escape_default())?;
        }
    }
    Ok(())
}

/// Whether a character is shown where it stands. Control characters, line ends of Unicode, and changes
/// of the text direction are not.
fn is_plain(char: char) -> bool {
    let turns = matches!(char,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !char.is_control() && !turns
}

/// Logs a line about a workload, unless it had too many. Texts from the workload must be [`Quoted`].
pub fn about(workload: &str, level: Level, text: fmt::Arguments<'_>) {
    if !log::log_enabled!(target: TARGET, level) {
        return;
    }
    // The lock is not held while the line is written.
    let taken = budgets().take(workload, Instant::now());
    if taken {
        log::log!(target: TARGET, level, "{text}");
    }
}

/// Logs a denied update of a workload; with `-v` every one.
pub fn denied(by: &Instance, why: &str) {
    let text = format_args!("{by}: denied {why}");
    if log::log_enabled!(target: TARGET, Level::Debug) {
        log::warn!(target: TARGET, "{text}");
    } else {
        about(&by.workload, Level::Warn, text);
    }
}

/// Logs the number of left-out lines for each workload, for ever.
pub async fn count_for_ever() {
    loop {
        sleep(COUNTED).await;
        let left_out = budgets().count(Instant::now());
        for (workload, lines) in left_out {
            log::warn!("{lines} lines about workload {} were not logged", Quoted(&workload));
        }
    }
}

static BUDGETS: LazyLock<Mutex<Budgets>> = LazyLock::new(Mutex::default);

fn budgets() -> MutexGuard<'static, Budgets> {
    BUDGETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines left for each workload. Only workloads with recent lines are in the map.
#[derive(Debug, Default)]
struct Budgets(HashMap<String, Budget>);

#[derive(Debug)]
struct Budget {
    lines: u32,
    since: Instant,
    left_out: u64,
}

impl Budget {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_millis() / REFILL.as_millis();
        let more = u32::try_from(passed).unwrap_or(u32::MAX);
        self.lines = self.lines.saturating_add(more).min(BURST);
        // A full budget saves up no time; else the unused part of an interval counts on.
        self.since = if self.lines == BURST { now } else { self.since + REFILL * more };
    }
}

impl Budgets {
    /// Takes one line from the budget of a workload; false if none is left.
    fn take(&mut self, workload: &str, now: Instant) -> bool {
        let new = || Budget { lines: BURST, since: now, left_out: 0 };
        let budget = self.0.entry(workload.to_owned()).or_insert_with(new);
        budget.refill(now);
        match budget.lines.checked_sub(1) {
            Some(left) => {
                budget.lines = left;
                true
            }
            None => {
                budget.left_out += 1;
                false
            }
        }
    }

    /// Left-out lines since the last call, by workload. Forgets workloads with a full budget.
    fn count(&mut self, now: Instant) -> Vec<(String, u64)> {
        let mut counts = Vec::new();
        self.0.retain(|workload, budget| {
            budget.refill(now);
            match std::mem::take(&mut budget.left_out) {
                0 => budget.lines < BURST,
                lines => {
                    counts.push((workload.clone(), lines));
                    true
                }
            }
        });
        counts.sort();
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_workload_stays_in_its_line_and_is_short() {
        let shown = |text: &str| Quoted(text).to_string();
        assert_eq!(shown("Unsupported version '1'"), "Unsupported version '1'");
        assert_eq!(
            shown("a\n[2026 INFO fifogate_agent] b\r"),
            r"a\n[2026 INFO fifogate_agent] b\r"
        );
        assert_eq!(shown("\u{1b}]0;title\u{7}\u{1b}[2J"), r"\u{1b}]0;title\u{7}\u{1b}[2J");
        assert_eq!(shown("\u{9b}31m \u{202e}txt\u{2028}"), r"\u{9b}31m \u{202e}txt\u{2028}");
        assert_eq!(shown("Grüße, 世界"), "Grüße, 世界");
        let (at_most, over) = ("ü".repeat(MOST_QUOTED), "ü".repeat(MOST_QUOTED + 1));
        assert_eq!(shown(&at_most), at_most);
        assert_eq!(shown(&over), format!("{at_most}... (2 bytes more)"));
        assert!(shown(&"\u{1b}".repeat(4_000_000)).len() < 10 * MOST_QUOTED);
        assert!(line(&format_args!("{}", "\n".repeat(1 << 20))).len() < 3 * MOST_OF_A_LINE);
    }

    #[test]
    fn lines_beyond_the_limit_of_a_workload_are_left_out_and_counted_and_others_have_theirs() {
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        let taken = |budgets: &mut Budgets, workload: &str, lines: u32, now| {
            (0..lines).filter(|_| budgets.take(workload, now)).count()
        };
        assert_eq!(taken(&mut budgets, "evil", 1_000_000, start), BURST as usize);
        assert_eq!(taken(&mut budgets, "quiet", 3, start), 3);
        assert_eq!(budgets.count(start), [("evil".to_owned(), u64::from(1_000_000 - BURST))]);
        assert!(budgets.count(start).is_empty(), "each is counted once");
        let mut later = 0;
        for tenth in 1..=100 {
            later += taken(&mut budgets, "evil", 10, start + REFILL * tenth / 10);
        }
        assert_eq!(later, 10, "one each second");
        let end = start + REFILL * 1000;
        assert_eq!(budgets.count(end), [("evil".to_owned(), 1000 - 10)]);
        assert!(budgets.count(end).is_empty() && budgets.0.is_empty(), "nobody is kept in mind");
    }
}
