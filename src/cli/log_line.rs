//! One line of the log: a record with foreign text in, a bounded line without control characters out.

use std::fmt;

/// Longest line, in characters.
const LINE: usize = 2_000;

/// A record as one line: at most 2,000 characters, and `...` if there are more. A terminal obeys nothing
/// in it.
pub(super) struct Line<'a>(pub(super) &'a fmt::Arguments<'a>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::write(&mut Escaping { to: f, left: LINE, cut: false }, *self.0)
    }
}

struct Escaping<'a, 'f> {
    to: &'a mut fmt::Formatter<'f>,
    /// Characters left until the dots.
    left: usize,
    /// The dots were written.
    cut: bool,
}

impl Escaping<'_, '_> {
    fn put(&mut self, text: &str) -> fmt::Result {
        for own in text.chars() {
            // Not an error: the line would fail as a whole.
            if self.cut {
                return Ok(());
            }
            // Quotes and backslashes do no harm, and versions and paths stay as they are.
            let plain = matches!(own, '"' | '\'' | '\\') || own.escape_debug().len() == 1;
            let len = if plain { 1 } else { own.escape_debug().len() };
            // An escape is written whole or not at all.
            if len > self.left {
                self.cut = true;
                return self.to.write_str("...");
            }
            self.left -= len;
            if plain {
                fmt::Write::write_char(self.to, own)?;
            } else {
                write!(self.to, "{}", own.escape_debug())?;
            }
        }
        Ok(())
    }
}

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_line_is_obeyed() {
        for (text, shown) in [
            ("a\nb\r\t", "a\\nb\\r\\t"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("\u{202e}x\u{85}\u{2028}", "\\u{202e}x\\u{85}\\u{2028}"),
            ("\0", "\\0"),
        ] {
            assert_eq!(Line(&format_args!("{text}")).to_string(), shown);
        }
    }

    #[test]
    fn line_is_one_line_of_bounded_length() {
        let text = "x\n".repeat(10_000);
        let line = Line(&format_args!("a says {text} to {text}")).to_string();
        assert!(line.starts_with("a says x\\nx\\n") && line.ends_with("..."));
        assert!(line.chars().count() <= LINE + 3, "{} characters", line.chars().count());
    }
}
