//! Messages without PEM texts, whichever way one got into them.
//!
//! An option that takes a path is easily given the text of the file, as by `--key-pem "$(cat key)"`. The message
//! about it would print a private key to where a log is kept.

use std::borrow::Cow;

/// The beginning of a PEM text.
const BEGIN: &str = "-----BEGIN";
/// The beginning of its last line, and the end of that.
const END: &str = "-----END";
const DASHES: &str = "-----";

/// Stands for a PEM text.
const WITHHELD: &str = "(a PEM text, not shown)";

/// Whether there is a PEM text in this one.
pub(super) fn has_pem(text: &str) -> bool {
    text.contains(BEGIN)
}

/// The message without its PEM texts. One without an end goes up to the end of the message.
pub(super) fn withhold(message: &str) -> Cow<'_, str> {
    if !has_pem(message) {
        return message.into();
    }
    let (mut shown, mut left) = (String::new(), message);
    while let Some((before, text)) = left.split_once(BEGIN) {
        shown += before;
        shown += WITHHELD;
        let last_line = text.split_once(END).map(|(_, last_line)| last_line);
        let after = last_line.and_then(|line| line.split_once(DASHES)).map(|(_, after)| after);
        left = after.unwrap_or_default().trim_start_matches('\n');
    }
    (shown + left).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_texts_are_withheld_and_nothing_else_is() {
        let pem = "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----";
        let shown = WITHHELD;
        for (message, expected) in [
            ("no such file".to_owned(), "no such file".to_owned()),
            ("-----END of nothing-----".to_owned(), "-----END of nothing-----".to_owned()),
            (format!("{pem}: away"), format!("{shown}: away")),
            // With the end of its last line, as in a file.
            (format!("{pem}\n: away"), format!("{shown}: away")),
            (format!("'{}' is none", pem.escape_debug()), format!("'{shown}' is none")),
            (format!("a {pem} b {pem} c"), format!("a {shown} b {shown} c")),
            (format!("a {pem}\n{pem} c"), format!("a {shown}{shown} c")),
            // Cut off.
            ("a -----BEGIN KEY-----\nSECRET".to_owned(), format!("a {shown}")),
            ("a -----BEGIN\nSECRET\n-----END PRI".to_owned(), format!("a {shown}")),
        ] {
            assert_eq!(withhold(&message), expected, "{message}");
        }
    }
}
