//! Log lines about workloads. Texts that come from a workload are shortened and escaped, and each
//! workload has its own limit of lines, so that none of them fills the disk, hides the lines of others,
//! or writes lines that look like the agent's.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use log::Level;
use tokio::time::sleep;

/// Most characters of a text that comes from a workload.
const MOST_QUOTED: usize = 128;
/// Most characters of a line, whoever made it.
const MOST_OF_A_LINE: usize = 4096;
/// Lines of one workload at once; then one each [`REFILL`].
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_secs(1);
/// Under which name they are logged.
const TARGET: &str = "fifogate_agent::workload";
/// How often lines that were left out are counted in the log.
const COUNTED: Duration = Duration::from_secs(10);

/// A text that comes from a workload, as it may stand in a line of the log.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0, MOST_QUOTED)
    }
}

/// A line of the log: one line, of bounded length, that changes nothing in a terminal.
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

/// Whether a character is shown where it stands. Those that are not: control characters, line ends of
/// Unicode, and what turns the direction of a text.
fn is_plain(char: char) -> bool {
    let turns = matches!(char,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !char.is_control() && !turns
}

/// Logs a line about a workload, unless there were too many. Texts in it that the workload made are to
/// be [`Quoted`].
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

/// Counts in the log what was left out of it, for ever.
pub async fn count_for_ever() {
    loop {
        sleep(COUNTED).await;
        let left_out = budgets().count(Instant::now());
        for (workload, lines) in left_out {
            log::warn!("{lines} lines about workload {} were left out", Quoted(&workload));
        }
    }
}

static BUDGETS: LazyLock<Mutex<Budgets>> = LazyLock::new(Mutex::default);

fn budgets() -> MutexGuard<'static, Budgets> {
    BUDGETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines that each workload may still cause. Only workloads that caused some lately are in it.
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
        self.since = if self.lines == BURST { now } else { self.since + REFILL * more };
    }
}

impl Budgets {
    /// Whether a workload may cause another line.
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

    /// How many lines were left out since this was asked last, by workload.
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
