//! Foreign text within a sentence of our own.

use std::fmt;

/// Characters of a quoted foreign text.
const SHOWN: usize = 64;

/// A foreign text, quoted to its own sender: up to 64 of its characters unchanged, as clients compare them,
/// and `...` if there are more. The log escapes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Excerpt<'a>(pub(crate) &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shortened(self.0, SHOWN).fmt(f)
    }
}

/// As [`Excerpt`], with up to so many characters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shortened<'a>(pub(crate) &'a str, pub(crate) usize);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By characters, so no character is cut in two.
        match self.0.char_indices().nth(self.1) {
            None => f.write_str(self.0),
            Some((end, _)) => write!(f, "{}...", &self.0[..end]),
        }
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
}
