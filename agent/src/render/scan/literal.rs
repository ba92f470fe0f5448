//! Scanner of literals: scalars, sequences and mappings.
//!
//! The scan position moves over a literal, or stays where there is none. A stack of closing brackets
//! replaces recursion, and its depth is bounded.

use super::{BYTES_A_STEP, Scan, Scanned, is_symbol};

impl Scan<'_> {
    pub(super) fn literal(&mut self, open: usize) -> Scanned<bool> {
        if !matches!(self.peek(), Some(b'[' | b'{')) {
            return Ok(self.scalar());
        }
        let begun = self.at;
        let found = self.collection(open)?;
        if !found {
            // The parser reads as far, and goes back to try a reference instead.
            self.work += (self.at - begun) / BYTES_A_STEP;
            self.at = begun;
        }
        Ok(found)
    }

    /// Scans a sequence or a mapping with its content.
    fn collection(&mut self, open: usize) -> Scanned<bool> {
        let mut ends = Vec::new();
        loop {
            // A value is expected here, or directly the end.
            if let Some(end) = self.peek().and_then(end_of) {
                self.check_depth(open + ends.len() + 1)?;
                self.at += 1;
                self.white();
                ends.push(end);
                // In the grammar the first value is optional, also before a comma.
                let is_empty = self.peek().is_some_and(|byte| byte == end || byte == b',');
                if !is_empty {
                    if self.key(end) {
                        continue;
                    }
                    return Ok(false);
                }
            } else if !self.scalar() {
                return Ok(false);
            }
            loop {
                self.white();
                let Some(end) = ends.last().copied() else { return Ok(true) };
                if self.peek() == Some(end) {
                    self.at += 1;
                    ends.pop();
                    if ends.is_empty() {
                        return Ok(true);
                    }
                } else if self.take(",") {
                    self.white();
                    if !self.key(end) {
                        return Ok(false);
                    }
                    break;
                } else {
                    return Ok(false);
                }
            }
        }
    }

    /// Scans the key before a value of a mapping; true in a sequence.
    fn key(&mut self, end: u8) -> bool {
        if end == b']' {
            return true;
        }
        let is_key = self.string();
        self.white();
        let is_key = is_key && self.take(":");
        self.white();
        is_key
    }

    fn scalar(&mut self) -> bool {
        self.string() || self.number() || self.word()
    }

    fn word(&mut self) -> bool {
        let begun = self.at;
        let is_word = self.take("null") || self.take("true") || self.take("false");
        if is_word && !self.peek().is_some_and(is_symbol) {
            return true;
        }
        self.at = begun;
        false
    }

    fn number(&mut self) -> bool {
        let begun = self.at;
        self.take("-");
        let mut is_number = self.digits();
        self.take(".");
        self.digits();
        // The grammar has no small `e`; an `E` without digits is a symbol, and ends no number.
        if self.take("E") {
            self.take("-");
            is_number &= self.digits();
        }
        if is_number && !self.peek().is_some_and(is_symbol) {
            return true;
        }
        self.at = begun;
        false
    }

    fn digits(&mut self) -> bool {
        let length = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += length;
        length > 0
    }

    fn string(&mut self) -> bool {
        let Some(quote @ (b'"' | b'\'')) = self.peek() else { return false };
        let mut at = 1;
        let rest = self.rest();
        let end = loop {
            match rest.get(at) {
                Some(byte) if *byte == quote => break Some(at + 1),
                Some(b'\\') => match rest.get(at + 1) {
                    Some(b'u') => {
                        let digits = rest.get(at + 2..at + 6).unwrap_or_default();
                        if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                            break None;
                        }
                        at += 6;
                    }
                    Some(byte) if *byte == quote || b"\\/bfnrt".contains(byte) => at += 2,
                    _ => break None,
                },
                Some(_) => at += 1,
                None => break None,
            }
        };
        match end {
            Some(length) => self.at += length,
            // The parser, too, reads to here in vain and goes back.
            None => self.work += at / BYTES_A_STEP,
        }
        end.is_some()
    }
}

fn end_of(open: u8) -> Option<u8> {
    match open {
        b'[' => Some(b']'),
        b'{' => Some(b'}'),
        _ => None,
    }
}
