//! Fuzz target `frames`: bytes cut into frames in two ways.

use bytes::Bytes;

use super::{FrameDecoder, FrameError};

/// Feeds `data` to a decoder whole, and again cut up as `data` itself says; both must agree.
///
/// The entry of the fuzz target `frames`, and of a unit test over its seeds.
pub fn fuzz_frames(data: &[u8]) {
    const LIMIT: usize = 300;
    let whole = collect(data, |rest| rest);
    let mut cuts = data.iter().cycle();
    let in_pieces = collect(data, |rest| 1 + usize::from(cuts.next().copied().unwrap_or(0)) % rest);
    assert_eq!(whole, in_pieces, "frames depend on where the stream was cut");

    fn collect(
        mut data: &[u8],
        mut piece: impl FnMut(usize) -> usize,
    ) -> (Vec<Bytes>, Option<FrameError>) {
        let mut decoder = FrameDecoder::new(LIMIT);
        let mut frames = Vec::new();
        while !data.is_empty() {
            let (mut now, rest) = data.split_at(piece(data.len()).min(data.len()));
            data = rest;
            loop {
                match decoder.next_frame(&mut now) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
            assert!(decoder.held() <= LIMIT);
        }
        (frames, None)
    }
}
