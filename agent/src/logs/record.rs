//! Record format of log files: time, length and bytes of each line.
//!
//! Bytes of a process are split by [`Lines`], stored by [`put`], and read back by [`first`].

/// Bytes in front of each line: microseconds since 1970, then its length.
pub(super) const HEAD: usize = 12;

/// Bound on the stored bytes of a line. It is above the bound of a log entry
/// (docs/protocol.md#size-of-log-entries), so the sender still sees the need to cut the line.
pub(super) const MOST_LINE: usize = (2 << 20) + 1024;

/// Appends a record to `out`.
pub(super) fn put(out: &mut Vec<u8>, micros: i64, line: &[u8]) {
    let line = &line[..line.len().min(MOST_LINE)];
    out.extend_from_slice(&micros.to_le_bytes());
    // Cannot fail: the line is at most MOST_LINE long.
    out.extend_from_slice(&u32::try_from(line.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(line);
}

/// Reads the first record: time, line, and size; or returns the bytes needed for it.
pub(super) fn first(bytes: &[u8]) -> Result<(i64, &[u8], usize), usize> {
    let head = bytes.first_chunk::<HEAD>().ok_or(HEAD)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
    let micros = i64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let end = HEAD + u32::from_le_bytes([i, j, k, l]) as usize;
    bytes.get(HEAD..end).map(|line| (micros, line, end)).ok_or(end)
}

/// The longest beginning of whole records with at most `most` bytes, but at least one record.
pub(super) fn beginning(records: &[u8], most: usize) -> usize {
    let mut end = 0;
    while let Ok((_, _, len)) = first(records.get(end..).unwrap_or_default()) {
        if end > 0 && end + len > most {
            break;
        }
        end += len;
    }
    end
}

/// Splits a stream of bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The unfinished line.
    begun: Vec<u8>,
}

impl Lines {
    /// Adds bytes, and calls `each` for every complete line, without its line end.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            if self.begun.is_empty() {
                each(without_return(line));
            } else {
                self.push(line);
                each(without_return(&self.begun));
                self.begun.clear();
            }
            bytes = &rest[1..];
        }
        self.push(bytes);
    }

    /// Passes on the last line, if it has no line end.
    pub(super) fn finish(&mut self, each: impl FnOnce(&[u8])) {
        if !self.begun.is_empty() {
            each(&self.begun);
            self.begun.clear();
        }
    }

    /// Drops bytes beyond the longest line: they would be cut anyway.
    fn push(&mut self, bytes: &[u8]) {
        let room = MOST_LINE.saturating_sub(self.begun.len());
        self.begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = b"one\n\ntwo\r\nthree";
        for cut in 0..text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for part in [&text[..cut], &text[cut..]] {
                lines.feed(part, |line| found.push(line.to_vec()));
            }
            lines.finish(|line| found.push(line.to_vec()));
            assert_eq!(found, [&b"one"[..], b"", b"two", b"three"]);
        }
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut lines = Lines::default();
        for _ in 0..5 {
            lines.feed(&vec![b'x'; 1 << 20], |_| panic!("no line has ended"));
        }
        assert_eq!(lines.begun.len(), MOST_LINE);
    }

    #[test]
    fn records_are_read_back_and_a_cut_one_says_what_it_needs() {
        let mut bytes = Vec::new();
        put(&mut bytes, 5, b"line");
        put(&mut bytes, 6, b"");
        assert_eq!(first(&bytes), Ok((5, &b"line"[..], HEAD + 4)));
        assert_eq!(first(&bytes[HEAD + 4..]), Ok((6, &b""[..], HEAD)));
        assert_eq!(first(&bytes[..HEAD + 2]), Err(HEAD + 4));
        assert_eq!(first(&bytes[..3]), Err(HEAD));
    }
}
