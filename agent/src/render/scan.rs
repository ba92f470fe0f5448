//! Template scanner: one pass without recursion, before the engine's parser. That parser recurses for
//! each level and backtracks.
//!
//! A template goes in; out comes an estimate of the parser's steps, or an error with line and column.
//! The scanner follows the engine's grammar (handlebars 6, `grammar.pest`) as far as it decides about
//! the end of an expression and its nesting. It rejects a template that is invalid by these rules.

mod calls;
mod literal;

use std::{error::Error, fmt};

use crate::limits::{MAX_NESTING, MOST_BRANCHES};

/// Bytes of a template without expressions parsed in one step.
const BYTES_A_STEP: usize = 2;
/// Bytes passed in one step by the parser while it counts the lines before an expression.
const LINES_A_STEP: usize = 16;

/// Estimates the steps for parsing a template.
///
/// # Errors
/// The template is invalid or exceeds a limit.
pub(super) fn scan(text: &str) -> Result<u64, ScanError> {
    let mut scan = Scan { text, bytes: text.as_bytes(), at: 0, work: 0, blocks: Vec::new() };
    scan.run().map_err(|fault| {
        let before = text.get(..scan.at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        // In characters, as editors count.
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        ScanError { fault, line, column }
    })?;
    let work = scan.work + text.len() / BYTES_A_STEP;
    Ok(u64::try_from(work).unwrap_or(u64::MAX))
}

struct Scan<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    /// Steps in addition to those per byte.
    work: usize,
    /// Number of branches of each open block.
    blocks: Vec<usize>,
}

/// A template is rejected at this place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScanError {
    fault: Fault,
    line: usize,
    column: usize,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, line, column } = self;
        match fault {
            Fault::Wrong(what) => write!(f, "invalid handlebars syntax: {what}"),
            Fault::Over(what) => f.write_str(what),
        }?;
        write!(f, " (line {line}, column {column})")
    }
}

impl Error for ScanError {}

/// The reason for rejecting a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// The template is invalid.
    Wrong(String),
    /// The template exceeds a limit.
    Over(String),
}

type Scanned<T = ()> = Result<T, Fault>;

fn wrong<T>(what: &str) -> Scanned<T> {
    Err(Fault::Wrong(what.to_owned()))
}

fn over<T>(what: String) -> Scanned<T> {
    Err(Fault::Over(what))
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_symbol(byte: u8) -> bool {
    // In the grammar, every character beyond ASCII is a symbol.
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'$' | b':') || byte >= 0x80
}

impl Scan<'_> {
    fn run(&mut self) -> Scanned {
        while self.skip_text("{{") {
            self.expression()?;
        }
        if self.blocks.is_empty() { Ok(()) } else { wrong("a block is not closed") }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn sees(&self, what: &str) -> bool {
        self.rest().starts_with(what.as_bytes())
    }

    fn take(&mut self, what: &str) -> bool {
        let sees = self.sees(what);
        self.at += if sees { what.len() } else { 0 };
        sees
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn white(&mut self) {
        self.at += self.rest().iter().take_while(|byte| is_white(**byte)).count();
    }

    fn tilde(&mut self) {
        self.white();
        if self.take("~") {
            self.white();
        }
    }

    /// Moves to the next unescaped `open`, or to the end. Returns whether it found one.
    fn skip_text(&mut self, open: &str) -> bool {
        while self.at < self.bytes.len() {
            if self.sees(open) {
                return true;
            }
            let slashes = self.rest().iter().take_while(|byte| **byte == b'\\').count();
            self.at += slashes.max(1);
            if slashes > 0 && self.sees("{{") {
                // Removing a backslash moves all bytes behind it.
                self.work += self.rest().len() / 256;
                // One backslash makes the braces a text; behind two, they begin an expression.
                if slashes == 1 {
                    self.at += 2;
                    self.take("{{");
                }
            }
        }
        false
    }

    /// Scans an expression or a block from its `{{`.
    fn expression(&mut self) -> Scanned {
        self.work += 16 + self.at / LINES_A_STEP;
        if self.sees("{{!") {
            return self.comment();
        }
        // Tested before `{{{`: a raw block begins with it, too.
        if self.sees("{{{{") {
            return self.raw_block();
        }
        if self.take("{{{") {
            self.tilde();
            self.call_or_name()?;
            return self.end_of_html();
        }
        self.at += 2;
        self.tilde();
        match self.peek() {
            Some(b'{') => {
                self.at += 1;
                self.white();
                self.call_or_name()?;
                self.end_of_html()
            }
            Some(b'&') => {
                self.at += 1;
                self.white();
                self.name()?;
                self.close("}}")
            }
            Some(b'#') => self.block(),
            Some(b'/') => self.end_of_block(),
            Some(b'>') => self.partial(),
            // As in `tame`, but with a place in the text.
            Some(b'*') => over(NO_DECORATORS.to_owned()),
            // In the grammar, `^` is another spelling of `else`.
            Some(b'^') => self.branch("^"),
            _ => {
                let begun = self.at;
                if self.sees("else") {
                    match self.branch("else") {
                        // A name with the prefix `else`.
                        Err(Fault::Wrong(_)) => self.at = begun,
                        done => return done,
                    }
                }
                self.call_or_name()?;
                self.close("}}")
            }
        }
    }

    /// `}}}`, or its parts.
    fn end_of_html(&mut self) -> Scanned {
        self.tilde();
        if self.take("}}}") {
            return Ok(());
        }
        self.end("}")?;
        self.close("}}")
    }

    fn close(&mut self, end: &str) -> Scanned {
        self.tilde();
        self.end(end)
    }

    fn end(&mut self, end: &str) -> Scanned {
        if self.take(end) { Ok(()) } else { wrong(&format!("expected {end}")) }
    }

    fn comment(&mut self) -> Scanned {
        self.at += 3;
        let begun = self.at;
        self.white();
        if self.take("--") {
            let rest = self.text.get(self.at..).unwrap_or_default();
            if let Some(end) = rest.find("--}}") {
                self.at += end + 4;
                self.work += end / BYTES_A_STEP;
                return Ok(());
            }
            // The parser searches to the end in vain, and tries blanks at each byte.
            self.work += rest.len();
        }
        // Without `--}}` it is a short comment, up to the first `}}`.
        self.at = begun;
        match self.text.get(begun..).unwrap_or_default().find("}}") {
            Some(end) => {
                self.at += end + 2;
                self.work += end / BYTES_A_STEP;
                Ok(())
            }
            None => wrong("a comment does not end"),
        }
    }

    fn raw_block(&mut self) -> Scanned {
        self.at += 4;
        self.tilde();
        self.call()?;
        self.close("}}}}")?;
        // The content is text for the engine: it opens no block, and nests nothing.
        if !self.skip_text("{{{{") {
            return wrong("a raw block does not end");
        }
        self.at += 4;
        self.tilde();
        self.end("/")?;
        self.white();
        self.identifier();
        self.close("}}}}")
    }

    fn block(&mut self) -> Scanned {
        self.at += 1;
        self.white();
        if matches!(self.peek(), Some(b'*' | b'>')) {
            return over(NO_DECORATORS.to_owned());
        }
        self.check_depth(1)?;
        self.blocks.push(1);
        self.check_branches()?;
        self.call()?;
        self.close("}}")
    }

    fn end_of_block(&mut self) -> Scanned {
        self.at += 1;
        // The engine compares the names of begin and end; here, only the depth counts.
        if self.blocks.pop().is_none() {
            return wrong("nothing is open that this would close");
        }
        self.white();
        self.identifier();
        self.close("}}")
    }

    /// `{{else}}` or `{{else if ...}}`.
    fn branch(&mut self, word: &str) -> Scanned {
        self.at += word.len();
        self.tilde();
        if !self.take("}}") {
            self.call()?;
            self.close("}}")?;
        }
        let Some(branches) = self.blocks.last_mut() else {
            // Not `wrong`: `expression` would take this for a name with the prefix `else`.
            return over("there is no block that this would be a branch of".to_owned());
        };
        *branches += 1;
        self.check_branches()
    }

    fn check_branches(&self) -> Scanned {
        if self.blocks.iter().sum::<usize>() > MOST_BRANCHES {
            return over(format!("more than {MOST_BRANCHES} levels of branches"));
        }
        Ok(())
    }

    fn check_depth(&self, more: usize) -> Scanned {
        if self.blocks.len() + more > MAX_NESTING {
            return over(format!("nests more than {MAX_NESTING} levels"));
        }
        Ok(())
    }

    fn partial(&mut self) -> Scanned {
        self.at += 1;
        self.white();
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80 || b"-_@/.".contains(&byte);
        let length = self.rest().iter().take_while(|byte| plain(**byte)).count();
        if length > 0 {
            self.at += length;
        } else if self.peek() == Some(b'\'') {
            return over("there is no partial but `indent`".to_owned());
        } else {
            // Also for brackets: the grammar's own form of them never ends, as `ANY+` takes the
            // `]`.
            self.name()?;
        }
        self.parameters()?;
        self.close("}}")
    }

    /// `identifier parameter...`, optionally with the block parameters.
    fn call(&mut self) -> Scanned {
        if !self.identifier() {
            return wrong("expected a name");
        }
        self.parameters()?;
        let before = self.at;
        self.white();
        if !self.take("as") {
            self.at = before;
            return Ok(());
        }
        self.white();
        self.end("|")?;
        self.white();
        if !self.identifier() {
            return wrong("expected a name");
        }
        self.white();
        self.identifier();
        self.white();
        self.end("|")
    }

    fn call_or_name(&mut self) -> Scanned {
        let begun = self.at;
        // Without parameters it is a reference, and may go on behind the identifier.
        if !self.identifier() || self.parameters()? == 0 {
            self.at = begun;
            self.name()?;
        }
        Ok(())
    }

    fn name(&mut self) -> Scanned {
        match self.peek() {
            Some(b'(') => self.inner(),
            _ if self.reference() => Ok(()),
            _ => wrong("expected a name"),
        }
    }

    fn identifier(&mut self) -> bool {
        let length = self.rest().iter().take_while(|byte| is_symbol(**byte)).count();
        self.at += length;
        length > 0
    }
}

const NO_DECORATORS: &str = "partial blocks and decorators are not supported";

#[cfg(test)]
mod tests;
