use std::{fs::File, io::Read, os::fd::OwnedFd};

use bytes::Bytes;
use nix::unistd::pipe2;

use super::*;
use crate::message::ToWorkload;

/// Both ends of a pipe, and what was sent.
struct Pair {
    writer: PipeWriter,
    reader: File,
    sent: Seq,
}

impl Pair {
    fn new() -> Self {
        let (reader, writer): (OwnedFd, OwnedFd) = pipe2(OFlag::O_NONBLOCK).unwrap();
        Self { writer: PipeWriter::new(writer, 1), reader: reader.into(), sent: 0 }
    }

    /// Sends one more frame; gives what the port waits for then.
    fn send(&mut self) -> Wait {
        self.sent += 1;
        let frame = ToWorkload::Accepted.into_frame();
        let frame = OutFrame { seq: self.sent, frame, ack: AckMode::Written, closes: false };
        match self.writer.write_at_once(frame, &mut [0; 4096], &mut Notices::default()) {
            Ok(wait) => wait,
            Err(frame) => {
                let mut frames = SmallDeque::default();
                frames.push_back(frame);
                self.writer.push(frames);
                self.flush().wait
            }
        }
    }

    fn flush(&mut self) -> Turn {
        let mut turn = Turn::default();
        self.writer.flush(false, &mut [0; 4096], &mut turn);
        turn
    }

    /// What the reader finds.
    fn read(&mut self) -> Bytes {
        let mut bytes = vec![0; 4096];
        let count = self.reader.read(&mut bytes).unwrap();
        bytes.truncate(count);
        bytes.into()
    }
}

fn one() -> Vec<u8> {
    ToWorkload::Accepted.into_frame().to_vec()
}

#[test]
fn what_was_taken_is_given_up_and_the_next_frame_follows_without_a_question() {
    let mut pair = Pair::new();
    assert_eq!(pair.send(), Wait::No);
    assert!(pair.writer.is_maybe_drained());
    assert_eq!(pair.read(), one());
    pair.writer.on_drained();
    assert!(pair.writer.known_empty && !pair.writer.is_maybe_drained());
    assert_eq!(pair.send(), Wait::No);
    assert!(!pair.writer.known_empty, "one is in the pipe again");
    assert_eq!((pair.read(), pair.writer.written()), (one().into(), 2));
}

#[test]
fn pipe_that_was_found_drained_is_not_asked_again() {
    let mut pair = Pair::new();
    pair.send();
    pair.flush();
    assert!(!pair.writer.known_empty, "the reader has not read yet");
    pair.read();
    pair.flush();
    assert!(pair.writer.known_empty);
    // Without another look: this one would be told of bytes that are not ours.
    let Pair { writer, .. } = &mut pair;
    nix::unistd::write(writer.fd(), b"x").unwrap();
    assert_eq!(pair.send(), Wait::No);
    assert_eq!(&pair.read()[..], &[b"x", &one()[..]].concat());
}

#[test]
fn pipe_drained_between_two_parts_of_a_frame_takes_no_other_frame() {
    let mut pair = Pair::new();
    let frame = ToWorkload::Closed { reason: "r".repeat(3 << 20) }.into_frame();
    let whole = frame.to_vec();
    let mut frames = SmallDeque::default();
    frames.push_back(OutFrame { seq: 1, frame, ack: AckMode::None, closes: false });
    pair.writer.push(frames);
    pair.sent = 1;
    let mut found = Vec::new();
    while found.len() < whole.len() {
        pair.flush();
        if found.is_empty() {
            pair.send();
        }
        let mut bytes = vec![0; 1 << 20];
        let count = pair.reader.read(&mut bytes).unwrap();
        found.extend_from_slice(&bytes[..count]);
        pair.writer.note_read(&mut Notices::default());
        let is_within = found.len() < whole.len();
        assert!(!(is_within && pair.writer.known_empty));
    }
    assert!(found == whole, "another frame came between the parts");
    pair.flush();
    assert_eq!(pair.read(), one());
}

#[test]
fn frame_waits_for_the_one_before_whatever_is_said_of_room_then() {
    let mut pair = Pair::new();
    pair.send();
    assert_eq!(pair.send(), Wait::Edge, "there is one in the pipe");
    assert!(!pair.writer.is_maybe_drained(), "somebody waits for it");
    pair.writer.on_drained();
    assert!(!pair.writer.known_empty);
    assert_eq!(
        (pair.read(), pair.flush().wait, pair.read()),
        (one().into(), Wait::No, one().into())
    );
}

#[test]
fn room_says_nothing_of_a_pipe_that_is_not_full_with_a_frame() {
    for (window, len) in [(2, 10), (1, 5_000)] {
        let mut pair = Pair::new();
        pair.writer.window = window;
        pair.writer.resize(SLOT * window);
        let frame = ToWorkload::Closed { reason: "r".repeat(len) }.into_frame();
        let mut frames = SmallDeque::default();
        frames.push_back(OutFrame { seq: 1, frame, ack: AckMode::None, closes: false });
        pair.writer.push(frames);
        pair.flush();
        pair.writer.on_drained();
        assert!(!pair.writer.is_maybe_drained() && !pair.writer.known_empty);
    }
}

#[test]
fn frames_of_any_size_leave_by_one_call_as_they_are() {
    for (window, len) in [(1, 10), (1, 5_000), (64, 10), (64, 700), (4, 300_000)] {
        let mut pair = Pair::new();
        pair.writer.window = window;
        let reason = "r".repeat(len);
        let frame = || ToWorkload::Closed { reason: reason.clone() }.into_frame();
        let mut frames = SmallDeque::default();
        for seq in 1..=3 {
            frames.push_back(OutFrame { seq, frame: frame(), ack: AckMode::None, closes: false });
        }
        pair.writer.push(frames);
        let mut found = Vec::new();
        while pair.writer.written() < 3 {
            pair.flush();
            let mut bytes = vec![0; 1 << 20];
            let count = pair.reader.read(&mut bytes).unwrap();
            assert!(window > 1 || count == frame().len(), "one at a time");
            found.extend_from_slice(&bytes[..count]);
        }
        assert!(found == frame().to_vec().repeat(3), "{window} at a time, of {len} bytes");
    }
}
