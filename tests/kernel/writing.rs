//! The writing end of a FIFO, as fifogate holds that of `input`.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::fd::AsFd,
    thread,
};

use mio::Interest;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::fifo::{Edges, Fifo, NONE, PAGE, fill, reopen, unread};

fn write(mut writer: &File, bytes: &[u8]) -> Result<usize, ErrorKind> {
    writer.write(bytes).map_err(|error: io::Error| error.kind())
}

fn read_exact(mut reader: &File, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    reader.read_exact(&mut bytes).unwrap();
    bytes
}

/// Opens a write end beside a read end of our own, which is closed again.
fn writer_without_reader(fifo: &Fifo) -> File {
    let _reader = fifo.open(OFlag::O_RDWR).unwrap();
    fifo.writer()
}

fn has_reader(writer: &File) -> bool {
    let mut fds = [PollFd::new(writer.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    !fds[0].revents().unwrap().contains(PollFlags::POLLERR)
}

#[test]
fn write_end_opens_only_beside_a_reader_or_one_that_waits_in_its_opening() {
    let fifo = Fifo::new();
    assert_eq!(fifo.open(OFlag::O_WRONLY).unwrap_err(), Errno::ENXIO);
    let path = fifo.path.clone();
    let opening = thread::spawn(move || {
        let mut bytes = Vec::new();
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    });
    let mut writer = loop {
        match fifo.open(OFlag::O_WRONLY) {
            Ok(writer) => break writer,
            Err(errno) => assert_eq!(errno, Errno::ENXIO),
        }
        thread::yield_now();
    };
    writer.write_all(b"at once").unwrap();
    drop(writer);
    assert_eq!(opening.join().unwrap(), b"at once");
}

#[test]
fn write_end_stands_without_a_reader_and_lets_in_the_one_that_comes() {
    let fifo = Fifo::new();
    let writer = writer_without_reader(&fifo);
    assert!(!has_reader(&writer));
    assert_eq!(write(&writer, b"frame"), Err(ErrorKind::BrokenPipe));
    let reader = File::open(&fifo.path).unwrap(); // blocks if there is no writer
    assert!(has_reader(&writer));
    assert_eq!(write(&writer, b"frame"), Ok(5));
    assert_eq!(read_exact(&reader, 5), b"frame");
}

#[test]
fn edge_comes_with_the_first_page_that_is_freed_in_a_full_pipe() {
    let fifo = Fifo::new();
    let (reader, writer) = fifo.pair(64 << 10);
    let mut edges = Edges::of(&writer, Interest::WRITABLE);
    assert_eq!((edges.next(), fill(&writer)), (vec!["writable"], 64 << 10));
    read_exact(&reader, PAGE - 1);
    assert_eq!(edges.next(), NONE, "a byte of the first page is left");
    assert_eq!(write(&writer, b"x"), Err(ErrorKind::WouldBlock));
    read_exact(&reader, 1);
    assert_eq!(edges.next(), ["writable"]);
    read_exact(&reader, 10 * PAGE);
    assert_eq!(edges.next(), NONE, "it was not full any more");
}

#[test]
fn pipe_of_one_page_is_full_with_one_short_frame_and_announces_when_that_was_read() {
    let fifo = Fifo::new();
    let (reader, writer) = fifo.pair(PAGE);
    let mut edges = Edges::of(&writer, Interest::WRITABLE);
    assert_eq!(edges.next(), ["writable"]);
    for _ in 0..3 {
        assert_eq!(write(&writer, b"frame"), Ok(5));
        assert_eq!(edges.next(), NONE);
        read_exact(&reader, 4);
        assert_eq!(edges.next(), NONE, "a byte is left");
        read_exact(&reader, 1);
        assert_eq!(edges.next(), ["writable"]);
    }
}

#[test]
fn pipe_that_was_never_full_announces_nothing_that_is_read() {
    let fifo = Fifo::new();
    let (reader, writer) = fifo.pair(64 << 10);
    let mut edges = Edges::of(&writer, Interest::WRITABLE);
    edges.next();
    assert_eq!(write(&writer, &[0; 40_000]), Ok(40_000));
    read_exact(&reader, 40_000);
    assert_eq!(edges.next(), NONE, "there is room for a frame of 60,000 bytes now");
}

#[test]
fn last_reader_that_closes_is_an_error_event_whatever_was_registered() {
    let fifo = Fifo::new();
    let writer = writer_without_reader(&fifo);
    for interest in [Interest::READABLE, Interest::WRITABLE] {
        let (first, last) = (fifo.reader(), fifo.reader());
        let mut edges = Edges::of(&writer, interest);
        edges.next();
        drop(first);
        assert_eq!(edges.next(), NONE);
        drop(last);
        assert!(edges.next().contains(&"error"));
        assert_eq!(write(&writer, b"frame"), Err(ErrorKind::BrokenPipe));
    }
}

#[test]
fn next_reader_comes_without_an_event_and_gets_what_the_one_before_left() {
    let fifo = Fifo::new();
    let (reader, writer) = fifo.pair(64 << 10);
    write(&writer, b"old frame").unwrap();
    read_exact(&reader, 4);
    let mut edges = Edges::of(&writer, Interest::READABLE);
    edges.next();
    drop(reader);
    assert!(edges.next().contains(&"error"));
    let next = fifo.reader();
    assert_eq!(edges.next(), NONE);
    assert!(has_reader(&writer));
    assert_eq!(read_exact(&next, 5), b"frame");
}

#[test]
fn reader_replaced_between_two_looks_is_no_error_event() {
    let fifo = Fifo::new();
    let (reader, writer) = fifo.pair(64 << 10);
    write(&writer, b"half of a fra").unwrap();
    let mut edges = Edges::of(&writer, Interest::READABLE);
    edges.next();
    drop(reader);
    let next = fifo.reader();
    let kinds = edges.next();
    assert!(!kinds.contains(&"error") && !kinds.contains(&"write_closed"), "{kinds:?}");
    write(&writer, b"me").unwrap();
    assert_eq!(read_exact(&next, 15), b"half of a frame");
}

#[test]
fn unread_bytes_can_be_drained_through_the_write_end() {
    let fifo = Fifo::new();
    let (reader, writer) = fifo.pair(64 << 10);
    write(&writer, &[0; 10_000]).unwrap();
    drop(reader);
    let own = reopen(&writer, OFlag::O_RDWR).unwrap();
    read_exact(&own, unread(&writer));
    drop(own);
    assert_eq!(unread(&writer), 0);
    let mut next = fifo.reader();
    assert_eq!(next.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
}
