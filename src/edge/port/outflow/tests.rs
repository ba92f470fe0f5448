use std::{fs::File, io::Read, os::fd::OwnedFd};

use bytes::Bytes;
use nix::unistd::pipe2;

use super::*;
use crate::message::ToWorkload;

/// Both ends of a pipe, and what was sent.
struct Pair {
    outflow: Outflow,
    reader: File,
    sent: Seq,
}

impl Pair {
    fn new() -> Self {
        let (reader, writer): (OwnedFd, OwnedFd) = pipe2(OFlag::O_NONBLOCK).unwrap();
        Self { outflow: Outflow::new(writer, 1), reader: reader.into(), sent: 0 }
    }

    /// Sends one more frame; gives what the port waits for then.
    fn send(&mut self) -> Wait {
        self.sent += 1;
        let frame = ToWorkload::Accepted.into_frame();
        let mut frames = Queue::default();
        frames.push_back(OutFrame { seq: self.sent, frame, notice: Notice::Written });
        let mut turn = Turn::default();
        if self.outflow.write_at_once(&mut frames, &mut [0; 4096], &mut turn) {
            return turn.wait;
        }
        self.outflow.push(frames);
        self.flush().wait
    }

    fn flush(&mut self) -> Turn {
        let mut turn = Turn::default();
        self.outflow.flush(false, &mut [0; 4096], &mut turn);
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
    assert!(pair.outflow.is_unsure());
    assert_eq!(pair.read(), one());
    pair.outflow.note_taken();
    assert!(pair.outflow.known_empty && !pair.outflow.is_unsure());
    assert_eq!(pair.send(), Wait::No);
    assert!(!pair.outflow.known_empty, "one is in the pipe again");
    assert_eq!((pair.read(), pair.outflow.written()), (one().into(), 2));
}

#[test]
fn frame_waits_for_the_one_before_whatever_is_said_of_room_then() {
    let mut pair = Pair::new();
    pair.send();
    assert_eq!(pair.send(), Wait::Edge, "there is one in the pipe");
    assert!(!pair.outflow.is_unsure(), "somebody waits for it");
    pair.outflow.note_taken();
    assert!(!pair.outflow.known_empty);
    assert_eq!(
        (pair.read(), pair.flush().wait, pair.read()),
        (one().into(), Wait::No, one().into())
    );
}

#[test]
fn room_says_nothing_of_a_pipe_that_is_not_full_with_a_frame() {
    for (window, len) in [(2, 10), (1, 5_000)] {
        let mut pair = Pair::new();
        pair.outflow.window = window;
        pair.outflow.resize(SLOT * window);
        let frame = ToWorkload::Closed { reason: "r".repeat(len) }.into_frame();
        let mut frames = Queue::default();
        frames.push_back(OutFrame { seq: 1, frame, notice: Notice::None });
        pair.outflow.push(frames);
        pair.flush();
        pair.outflow.note_taken();
        assert!(!pair.outflow.is_unsure() && !pair.outflow.known_empty);
    }
}

#[test]
fn frames_of_any_size_leave_by_one_call_as_they_are() {
    for (window, len) in [(1, 10), (1, 5_000), (64, 10), (64, 700), (4, 300_000)] {
        let mut pair = Pair::new();
        pair.outflow.window = window;
        let reason = "r".repeat(len);
        let frame = || ToWorkload::Closed { reason: reason.clone() }.into_frame();
        let mut frames = Queue::default();
        for seq in 1..=3 {
            frames.push_back(OutFrame { seq, frame: frame(), notice: Notice::None });
        }
        pair.outflow.push(frames);
        let mut found = Vec::new();
        while pair.outflow.written() < 3 {
            pair.flush();
            let mut bytes = vec![0; 1 << 20];
            let count = pair.reader.read(&mut bytes).unwrap();
            assert!(window > 1 || count == frame().len(), "one at a time");
            found.extend_from_slice(&bytes[..count]);
        }
        assert!(found == frame().to_vec().repeat(3), "{window} at a time, of {len} bytes");
    }
}
