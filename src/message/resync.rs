//! Finds the next `Hello` in a stream after a loss of framing.
//!
//! After a restart of fifogate, or behind a rejected frame, the bytes in the pipe may begin anywhere in
//! a message. They are skipped, up to a frame that can only be a `Hello`: a length, the key and length
//! of `hello`, the key and length of `protocolVersion`, and a version. Bytes go in as they come; at
//! most one candidate is held.

use bytes::Bytes;

/// Key of `ToAnkaios.hello`: field 1, length-delimited.
const HELLO: u8 = 1 << 3 | 2;
/// Key of `Hello.protocolVersion`: field 2, length-delimited.
const VERSION: u8 = 2 << 3 | 2;

/// Longest version in the search. Real ones have five characters.
const MAX_VERSION: u8 = 64;

/// Bytes in front of the version: length, key, length, key, length.
const HEAD: usize = 5;

/// Skips a stream up to the frame of the next `Hello`.
#[derive(Debug, Default)]
pub(crate) struct HelloScanner {
    /// The bytes of a candidate so far.
    held: Vec<u8>,
}

impl HelloScanner {
    /// Takes bytes from the front of `input` until the frame of a `Hello` is whole, and returns its
    /// body; `None` if `input` is used up before. The next byte starts a frame.
    pub(crate) fn seek(&mut self, input: &mut &[u8]) -> Option<Bytes> {
        loop {
            if self.held.is_empty() {
                // Garbage may come at any pace: nearly all of it is stepped over here.
                let begins = |pair: &[u8]| pair[1] == HELLO && could_be_hello(&pair[..1]);
                let at = input.windows(2).position(begins);
                // The last byte stays: the key of `hello` may follow it in the next slice.
                *input = &input[at.unwrap_or(input.len().saturating_sub(1))..];
            }
            let (&byte, rest) = input.split_first()?;
            *input = rest;
            self.held.push(byte);
            // By single bytes, as a Hello may begin inside of a candidate that fails late.
            while !could_be_hello(&self.held) {
                self.held.remove(0);
            }
            if is_whole(&self.held) {
                let body = Bytes::copy_from_slice(&self.held[1..]);
                self.held.clear();
                return Some(body);
            }
        }
    }
}

fn is_whole(seen: &[u8]) -> bool {
    seen.len() > HEAD && seen.len() == HEAD + usize::from(seen[HEAD - 1])
}

/// Whether `seen` is the beginning of a Hello's frame; nothing is the beginning of everything.
fn could_be_hello(seen: &[u8]) -> bool {
    let Some(&len) = seen.first() else { return true };
    // Two keys and two lengths stand before the version; with `MAX_VERSION`, each is one byte.
    let Some(version) = len.checked_sub(4) else { return false };
    let head = [len, HELLO, len - 2, VERSION, version];
    let of_version = |byte: &u8| byte.is_ascii_alphanumeric() || b".+-".contains(byte);
    (1..=MAX_VERSION).contains(&version)
        && seen.iter().zip(head).all(|(seen, expected)| *seen == expected)
        && seen.iter().skip(HEAD).all(of_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &[u8] = b"\x09\x0a\x07\x12\x051.0.0";

    fn seek_in_pieces(stream: &[u8], piece: usize) -> Vec<(Bytes, usize)> {
        let mut seeker = HelloScanner::default();
        let mut found = Vec::new();
        let mut at = 0;
        for mut now in stream.chunks(piece) {
            let end = at + now.len();
            while let Some(body) = seeker.seek(&mut now) {
                found.push((body, end - now.len()));
            }
            at = end;
        }
        found
    }

    #[test]
    fn hello_is_found_behind_any_cut_off_frame_and_in_any_pieces() {
        let request = [&[200, 1][..], &[0x1a; 90], &[9, 0x0a, 7, 0x12, 4], &[9; 40]].concat();
        for cut in 0..request.len() {
            let stream = [&request[cut..], FRAME, b"rest"].concat();
            for piece in [1, 3, stream.len()] {
                let found = seek_in_pieces(&stream, piece);
                assert_eq!(found.len(), 1, "cut {cut}, piece {piece}");
                assert_eq!(found[0].0, FRAME[1..]);
                assert_eq!(found[0].1, stream.len() - 4);
            }
        }
    }

    #[test]
    fn every_hello_of_a_burst_is_found() {
        let found = seek_in_pieces(&FRAME.repeat(3), 7);
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn candidate_that_fails_late_hides_no_hello_inside_it() {
        let stream = [b"\x0f\x0a\x0d\x12\x0b1.0\x09\x0a\x07\x12\x051.0.0".as_slice()].concat();
        assert_eq!(seek_in_pieces(&stream, 1).len(), 1);
    }

    #[test]
    fn noise_is_never_held_longer_than_a_hello() {
        let mut seeker = HelloScanner::default();
        let noise: Vec<u8> =
            (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(seeker.seek(&mut &noise[..]), None);
        assert!(seeker.held.len() <= HEAD + usize::from(MAX_VERSION));
    }
}
