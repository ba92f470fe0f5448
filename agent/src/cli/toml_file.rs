//! Configuration files in TOML: a text goes in; tables, values, or a fault with its line come out.
//!
//! A fault names the line and the key, and never quotes a value: it may be a private key.

use std::path::Path;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A value with its place.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A fault at a line from 1, or of the file as a whole at 0.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Fault {
    /// The fault as a text for the user, with its place.
    pub(super) fn of(&self, path: &Path) -> String {
        let (Self { line, text }, path) = (self, path.display());
        if *line == 0 { format!("{path}: {text}") } else { format!("{path}:{line}: {text}") }
    }
}

/// A file while it is read.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    text: &'t str,
}

/// Parses a file.
pub(super) fn parse(text: &str) -> Result<(Reader<'_>, DeTable<'_>), Fault> {
    let reader = Reader { text };
    let table = DeTable::parse(text).map_err(|error| Fault {
        line: error.span().map_or(0, |span| reader.line(span.start)),
        // Without the line itself, which `Display` would print.
        text: error.message().lines().collect::<Vec<_>>().join(", "),
    })?;
    Ok((reader, table.into_inner()))
}

impl Reader<'_> {
    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    /// A fault at a byte.
    pub(super) fn fault(&self, at: usize, text: String) -> Fault {
        Fault { line: self.line(at), text }
    }

    /// The fault of a value of another type.
    pub(super) fn is_no(&self, key: &str, value: &Value<'_>, expected: &str) -> Fault {
        let found = value.get_ref().type_str();
        let text = format!("{} is of the type {found}, expected {expected}", key.escape_debug());
        self.fault(value.span().start, text)
    }

    /// A string, or a fault.
    pub(super) fn string(&self, key: &str, value: &Value<'_>) -> Result<String, Fault> {
        let text = value.get_ref().as_str().map(str::to_owned);
        text.ok_or_else(|| self.is_no(key, value, "a string"))
    }

    /// A truth value, or a fault.
    pub(super) fn bool(&self, key: &str, value: &Value<'_>) -> Result<bool, Fault> {
        let own = value.get_ref().as_bool();
        own.ok_or_else(|| self.is_no(key, value, "true or false"))
    }

    /// An array of strings, or a fault.
    pub(super) fn strings(&self, key: &str, value: &Value<'_>) -> Result<Vec<String>, Fault> {
        let expected = "an array of strings";
        let array = value.get_ref().as_array().ok_or_else(|| self.is_no(key, value, expected))?;
        let each = |own: &Value<'_>| match own.get_ref().as_str() {
            Some(text) => Ok(text.to_owned()),
            None => {
                let found = own.get_ref().type_str();
                let text = format!("{key} holds a value of the type {found}, expected {expected}");
                Err(self.fault(own.span().start, text))
            }
        };
        array.iter().map(each).collect()
    }
}

/// A hint at the nearest known name, and all of them.
pub(super) fn nearest(name: &str, known: &[&str]) -> String {
    let distance = |own: &&str| strsim::damerau_levenshtein(name, own);
    let all = known.join(", ");
    // A name can be as long as the file.
    let nearest = (name.len() <= 64).then(|| known.iter().copied().min_by_key(distance)).flatten();
    match nearest.filter(|own| distance(own) <= 1 + name.len() / 3) {
        Some(nearest) => format!("; {nearest} is the nearest of {all}"),
        None => format!("; known are {all}"),
    }
}
