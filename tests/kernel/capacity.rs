//! The room in a pipe.

use std::{
    fs::File,
    io::{ErrorKind, IoSlice, Read, Write},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::{errno::Errno, fcntl::OFlag};

use super::fifo::{Fifo, PAGE, capacity, fill, resize, unread};

/// The kernel's default for the largest pipe of an ordinary user.
const LARGEST: usize = 1 << 20;

#[test]
fn size_is_rounded_up_to_a_power_of_two_and_new_when_all_have_closed() {
    let fifo = Fifo::new();
    let pipe = fifo.open(OFlag::O_RDWR).unwrap();
    // A user with more pipes than its share gets two pages.
    let new = capacity(&pipe);
    assert!([64 << 10, 2 * PAGE].contains(&new), "{new}");
    for (asked, set) in [(5_000, 8_192), (100_000, 131_072), (1, PAGE), (LARGEST, LARGEST)] {
        assert_eq!(resize(&pipe, asked), Ok(set));
    }
    drop(pipe);
    assert_eq!(capacity(&fifo.open(OFlag::O_RDWR).unwrap()), new);
}

#[test]
fn empty_pipe_takes_a_frame_up_to_its_size_whole_and_of_a_longer_one_a_part() {
    for size in [PAGE, 64 << 10, LARGEST] {
        let fifo = Fifo::new();
        let (mut reader, mut writer) = fifo.pair(size);
        for len in [1, 5_000, 60_000, 70_000, 300_000, LARGEST, 3_000_000] {
            let wrote = writer.write(&vec![0; len]).unwrap();
            assert_eq!(wrote, len.min(size));
            reader.read_exact(&mut vec![0; wrote]).unwrap();
        }
    }
}

#[test]
fn room_is_counted_in_pages_of_which_a_frame_shares_none() {
    for (len, whole) in
        [(200, 320), (1_000, 64), (1_366, 32), (2_049, 16), (4_097, 10), (5_000, 10)]
    {
        let fifo = Fifo::new();
        let (_reader, mut writer) = fifo.pair(64 << 10);
        let frame = vec![0; len];
        let mut count = 0;
        while matches!(writer.write(&frame), Ok(wrote) if wrote == len) {
            count += 1;
        }
        assert_eq!(count, whole, "frames of {len} bytes");
    }
}

#[test]
fn either_side_can_change_the_size_as_long_as_what_is_in_it_fits() {
    let fifo = Fifo::new();
    let (mut reader, mut writer) = fifo.pair(LARGEST);
    assert_eq!(resize(&reader, PAGE), Ok(PAGE));
    assert_eq!(writer.write(&[0; 10_000]).unwrap(), PAGE, "a frame that fitted goes in parts");
    assert_eq!(resize(&writer, 64 << 10), Ok(64 << 10));
    writer.write_all(&[0; 10_000]).unwrap();
    assert_eq!(resize(&reader, PAGE), Err(Errno::EBUSY));
    reader.read_exact(&mut [0; PAGE + 10_000]).unwrap();
    assert_eq!(fill(&writer), 64 << 10);
}

/// Reads a frame in two pieces; gives false if the second was not there with the first.
fn reads_whole(reader: &mut File, len: usize, ended: &AtomicBool) -> Option<bool> {
    let mut first = [0];
    while let Err(error) = reader.read_exact(&mut first) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        if ended.load(Ordering::SeqCst) {
            return None;
        }
    }
    let mut rest = vec![0; len];
    let count = reader.read(&mut rest).ok()?;
    Some(count == len - 1)
}

#[test]
fn frame_that_is_taken_whole_is_seen_whole() {
    const LEN: usize = 60_000;
    let fifo = Fifo::new();
    let (mut reader, mut writer) = fifo.pair(64 << 10);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let seen = scope.spawn(|| {
            let mut seen = 0;
            while let Some(whole) = reads_whole(&mut reader, LEN, &ended) {
                assert!(whole, "frame {seen} came in parts");
                seen += 1;
            }
            seen
        });
        let (head, body) = ([1; 5], vec![0; LEN - 5]);
        for count in 0..500 {
            while unread(&writer) > 0 && !seen.is_finished() {
                thread::yield_now();
            }
            let pieces = [IoSlice::new(&head), IoSlice::new(&body)];
            assert_eq!(writer.write_vectored(&pieces).unwrap(), LEN, "frame {count}");
        }
        while unread(&writer) > 0 && !seen.is_finished() {
            thread::yield_now();
        }
        ended.store(true, Ordering::SeqCst);
        assert_eq!(seen.join().unwrap(), 500);
    });
}
