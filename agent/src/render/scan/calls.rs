//! Scanner of calls: their parameters, nested calls, and references to values.
//!
//! The scan position moves over each call. An explicit stack replaces recursion, and depth and number of
//! parameters are bounded.

use super::{BYTES_A_STEP, Scan, Scanned, is_symbol, over, wrong};
use crate::limits::{FIELD_STEPS, MOST_PARAMETERS};

/// An open call in parentheses.
struct Inner {
    /// Start of its name.
    begun: usize,
    has_name: bool,
    parameters: usize,
}

enum Item {
    None,
    Value,
    /// A call in parentheses begins.
    Call,
}

impl Scan<'_> {
    /// Scans a call in parentheses in the place of a name.
    pub(super) fn inner(&mut self) -> Scanned {
        let mut open = Vec::new();
        self.open(&mut open)?;
        self.walk(open).map(drop)
    }

    /// Scans parameters with their nested calls and returns their number.
    pub(super) fn parameters(&mut self) -> Scanned<usize> {
        self.walk(Vec::new())
    }

    /// Scans until all open calls are closed or, without an open call, to the last parameter.
    fn walk(&mut self, mut open: Vec<Inner>) -> Scanned<usize> {
        let is_name = !open.is_empty();
        let mut outside = 0;
        loop {
            let takes = open.last().is_none_or(|inner| inner.has_name);
            let item = if takes { self.item(open.len())? } else { Item::None };
            if !matches!(item, Item::None) {
                let count = open.last_mut().map_or(&mut outside, |inner| &mut inner.parameters);
                *count += 1;
                if *count > MOST_PARAMETERS {
                    return over(format!("more than {MOST_PARAMETERS} parameters"));
                }
            }
            match item {
                Item::Value => {}
                // Counted at its start: if the call does not end, the template is invalid anyway.
                Item::Call => self.open(&mut open)?,
                Item::None => {
                    let Some(inner) = open.pop() else { return Ok(outside) };
                    self.end_inner(&inner)?;
                    if is_name && open.is_empty() {
                        return Ok(0);
                    }
                }
            }
        }
    }

    fn open(&mut self, open: &mut Vec<Inner>) -> Scanned {
        self.work += 8;
        self.check_depth(open.len() + 1)?;
        self.at += 1;
        self.white();
        let begun = self.at;
        let has_name = self.identifier();
        open.push(Inner { begun, has_name, parameters: 0 });
        Ok(())
    }

    fn end_inner(&mut self, inner: &Inner) -> Scanned {
        if inner.parameters == 0 {
            // Without parameters it is a reference: scan it again as one.
            self.at = inner.begun;
            if !self.reference() {
                return wrong("expected a name");
            }
        }
        self.white();
        self.end(")")
    }

    fn item(&mut self, open: usize) -> Scanned<Item> {
        self.work += 4;
        // Checked at each item: a template over the bound is not even scanned to its end.
        if self.work > usize::try_from(FIELD_STEPS).unwrap_or(usize::MAX) {
            return over("it takes too many steps to read".to_owned());
        }
        let before = self.at;
        self.white();
        let begun = self.at;
        if self.identifier() {
            self.white();
            if self.take("=") {
                self.white();
            } else {
                self.at = begun;
            }
        }
        if self.peek() == Some(b'(') {
            return Ok(Item::Call);
        }
        if !self.is_keyword() && (self.literal(open)? || self.reference()) {
            return Ok(Item::Value);
        }
        self.at = before;
        Ok(Item::None)
    }

    /// True at `as` or `else` as a whole word: they are no parameters.
    fn is_keyword(&mut self) -> bool {
        let begun = self.at;
        let is_word = self.take("as") || self.take("else");
        // The grammar, too, skips white space before it looks for a symbol.
        self.white();
        let goes_on = self.peek().is_some_and(is_symbol);
        self.at = begun;
        is_word && !goes_on
    }

    pub(super) fn reference(&mut self) -> bool {
        let begun = self.at;
        // Each part is optional in the grammar.
        let _ = self.take("./") || self.take("this/") || self.take("this.");
        let _ = self.take("@root/") || self.take("@root.");
        let _ = self.take("@");
        // A separator is `/` or `.`, so `...` is one level up, too.
        while self.take("../") || self.take("...") {}
        if !self.path_item() {
            self.at = begun;
            return false;
        }
        loop {
            let before = self.at;
            if !(self.take("/") || self.take(".")) || !self.path_item() {
                self.at = before;
                return true;
            }
        }
    }

    fn path_item(&mut self) -> bool {
        if self.peek() != Some(b'[') {
            return self.identifier();
        }
        // A name in brackets has any characters but `]`.
        match self.rest().iter().position(|byte| *byte == b']') {
            Some(end) => {
                self.at += end + 1;
                true
            }
            None => {
                // The parser looks for the bracket to the end, and goes back.
                self.work += self.rest().len() / BYTES_A_STEP;
                false
            }
        }
    }
}
