//! Text chosen by others, made safe to quote: short within a sentence, and in the log one line without
//! terminal controls.

use std::fmt;

/// How much of a foreign text is shown within a sentence of ours.
const SHOWN: usize = 64;
/// How long a line of the log gets.
const LINE: usize = 2_000;

/// A foreign text within a sentence that goes back to its author: at most 64 characters, unchanged
/// because clients compare them, and `...` if there are more. In a log it stands inside of a [`Line`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Excerpt<'a>(pub(crate) &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN) {
            None => f.write_str(self.0),
            Some((end, _)) => write!(f, "{}...", &self.0[..end]),
        }
    }
}

/// One line of the log, with any content: at most 2,000 characters, and `...` if there are more.
pub(crate) struct Line<'a>(pub(crate) &'a fmt::Arguments<'a>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::write(&mut Escaping { to: f, left: LINE, cut: false }, *self.0)
    }
}

struct Escaping<'a, 'f> {
    to: &'a mut fmt::Formatter<'f>,
    /// Characters left to write before the dots.
    left: usize,
    /// The dots were written.
    cut: bool,
}

impl Escaping<'_, '_> {
    fn put(&mut self, text: &str) -> fmt::Result {
        for own in text.chars() {
            if self.cut {
                return Ok(());
            }
            // Quotes and backslashes do no harm, and versions and paths stay as they are.
            let plain = matches!(own, '"' | '\'' | '\\') || own.escape_debug().len() == 1;
            let len = if plain { 1 } else { own.escape_debug().len() };
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
    fn excerpt_is_the_text_up_to_64_characters() {
        for text in ["", "1.0", "1.1.0\n", "2.0.0-'a'\\\"b\"", "Grüße", &"ü".repeat(64)] {
            assert_eq!(Excerpt(text).to_string(), text);
        }
        for text in [&"x".repeat(65), &"ü".repeat(1_000_000)] {
            let cut: String = text.chars().take(64).collect();
            assert_eq!(Excerpt(text).to_string(), cut + "...");
        }
    }

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
