//! Bytes to frames and back: `varint(length) || body`, as in the control interface and the agent link
//! (docs/protocol.md#frames).
//!
//! Slices of any size go in, cut anywhere; whole bodies come out. The decoder owns the half-received
//! frame, looks at no byte twice, and rejects a length over the limit before it allocates a byte. It
//! knows nothing of the meaning of a body.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) mod fuzz;

/// Longest varint of 64 bits.
const MAX_VARINT: usize = 10;

/// Why a stream cannot be read on. The place of the next frame is unknown from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame announces more than the limit.
    TooLarge {
        /// Bytes announced.
        declared: u64,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The length is no varint of 64 bits.
    BadLength,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { declared, limit } => write!(
                f,
                "Frame of {declared} bytes exceeds the maximum frame size of {limit} bytes"
            ),
            Self::BadLength => f.write_str("Frame length is not a varint of at most 64 bits"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Turns a stream of bytes into frame bodies.
///
/// Memory: room grows with the bytes received, never with the length announced; at most twice the
/// limit.
/// After an error the decoder stays in it until [`FrameDecoder::reset`].
#[derive(Debug)]
pub struct FrameDecoder {
    limit: usize,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Length { value: u64, read: usize },
    Body { left: usize, body: BytesMut },
    Failed(FrameError),
}

const START: Step = Step::Length { value: 0, read: 0 };

impl FrameDecoder {
    /// A decoder with a limit of `limit` bytes for a body.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, step: START }
    }

    /// Takes bytes from the front of `input` until one frame is whole or `input` is empty, and returns
    /// the body of this frame. `Ok(None)`: `input` is used up and more is needed.
    ///
    /// # Errors
    /// A length over the limit, or one that is no varint; the rest of `input` is left untouched.
    pub fn next_frame(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, FrameError> {
        loop {
            match &mut self.step {
                Step::Failed(error) => return Err(error.clone()),
                Step::Length { value, read } => {
                    let Some((&byte, rest)) = input.split_first() else {
                        return Ok(None);
                    };
                    *input = rest;
                    match push_varint_byte(value, read, byte) {
                        Varint::More => {}
                        Varint::Overflow => return self.fail(FrameError::BadLength),
                        Varint::Done => {
                            let declared = *value;
                            // A length beyond the address space is over the limit as well.
                            match usize::try_from(declared) {
                                // Also for an empty body: the next round returns it without
                                // another byte.
                                Ok(left) if left <= self.limit => self.begin_body(left),
                                _ => {
                                    let limit = self.limit;
                                    return self.fail(FrameError::TooLarge { declared, limit });
                                }
                            }
                        }
                    }
                }
                Step::Body { left, body } => {
                    let take = (*left).min(input.len());
                    let (now, rest) = input.split_at(take);
                    *input = rest;
                    *left -= take;
                    if *left > 0 {
                        body.put_slice(now);
                        return Ok(None);
                    }
                    // The common case, a body in one slice, is copied once into its exact size.
                    let whole = if body.is_empty() {
                        Bytes::copy_from_slice(now)
                    } else {
                        body.put_slice(now);
                        std::mem::take(body).freeze()
                    };
                    self.step = START;
                    return Ok(Some(whole));
                }
            }
        }
    }

    /// Whether bytes of an unfinished frame are held.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        !matches!(self.step, Step::Length { read: 0, .. })
    }

    /// Bytes held for an unfinished frame.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.step {
            Step::Body { body, .. } => body.len(),
            _ => 0,
        }
    }

    /// Forgets a half-received frame or an error; the next byte starts a frame.
    pub fn reset(&mut self) {
        self.step = START;
    }

    fn begin_body(&mut self, left: usize) {
        // No room yet: a sender can announce 4 MiB by four bytes and never send them.
        let body = BytesMut::new();
        self.step = Step::Body { left, body };
    }

    fn fail<T>(&mut self, error: FrameError) -> Result<T, FrameError> {
        self.step = Step::Failed(error.clone());
        Err(error)
    }
}

enum Varint {
    More,
    Done,
    Overflow,
}

fn push_varint_byte(value: &mut u64, read: &mut usize, byte: u8) -> Varint {
    let bits = u64::from(byte & 0x7f);
    let shift = 7 * *read;
    // The tenth byte has room for one bit only.
    if *read + 1 > MAX_VARINT || (*read + 1 == MAX_VARINT && byte > 1) {
        return Varint::Overflow;
    }
    *value |= bits << shift;
    *read += 1;
    if byte < 0x80 { Varint::Done } else { Varint::More }
}

/// Appends `value` as a varint.
pub(crate) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Length of `value` as a varint, in bytes.
#[must_use]
pub(crate) fn varint_len(value: u64) -> usize {
    // Zero takes a byte as well.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// `body` as a frame: its length, then itself.
#[must_use]
pub fn encode(body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(varint_len(body.len() as u64) + body.len());
    put_varint(&mut out, body.len() as u64);
    out.put_slice(body);
    out.freeze()
}

#[cfg(test)]
mod tests;
