//! The reading end of a FIFO, as fifogate holds that of `output`.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
};

use mio::Interest;

use super::fifo::{Edges, Fifo, NONE};

/// The result of one `read`, of at most 100 bytes.
fn read(mut reader: &File) -> Result<Vec<u8>, ErrorKind> {
    let mut buffer = [0; 100];
    let count = reader.read(&mut buffer).map_err(|error: io::Error| error.kind())?;
    Ok(buffer[..count].to_vec())
}

#[test]
fn every_write_is_an_edge_and_bytes_left_by_a_read_are_none() {
    let fifo = Fifo::new();
    let reader = fifo.reader();
    let mut edges = Edges::of(&reader, Interest::READABLE);
    assert_eq!((edges.next().as_slice(), read(&reader)), (&NONE[..], Ok(vec![])));
    let mut writer = fifo.writer();
    assert_eq!(edges.next(), NONE, "a writer that opens is no event");
    for _ in 0..3 {
        writer.write_all(&[b'x'; 200]).unwrap();
        assert_eq!(edges.next(), ["readable"], "whether or not the bytes before were read");
    }
    assert_eq!(read(&reader).unwrap().len(), 100);
    assert_eq!(edges.next(), NONE, "500 bytes are left");
}

#[test]
fn last_writer_that_closes_is_an_event_without_the_mark_of_being_readable() {
    let fifo = Fifo::new();
    let reader = fifo.reader();
    let mut edges = Edges::of(&reader, Interest::READABLE);
    let (first, last) = (fifo.writer(), fifo.writer());
    drop(first);
    assert_eq!(edges.next(), NONE);
    drop(last);
    let kinds = edges.next();
    assert!(kinds.contains(&"read_closed") && !kinds.contains(&"readable"), "{kinds:?}");
    assert_eq!(edges.next(), NONE, "it is reported once");
    fifo.writer().write_all(b"unread").unwrap();
    let kinds = edges.next();
    assert!(kinds.contains(&"read_closed") && kinds.contains(&"readable"), "{kinds:?}");
    assert_eq!((read(&reader), read(&reader)), (Ok(b"unread".to_vec()), Ok(vec![])));
}

#[test]
fn descriptor_serves_the_next_writer_after_the_end_of_file_of_the_one_before() {
    let fifo = Fifo::new();
    let reader = fifo.reader();
    let mut edges = Edges::of(&reader, Interest::READABLE);
    for _ in 0..3 {
        let mut writer = fifo.writer();
        assert_eq!(edges.next(), NONE, "a writer that opens is no event");
        assert_eq!(read(&reader), Err(ErrorKind::WouldBlock));
        writer.write_all(b"next").unwrap();
        assert_eq!(edges.next(), ["readable"]);
        assert_eq!(read(&reader), Ok(b"next".to_vec()));
        drop(writer);
        assert!(edges.next().contains(&"read_closed"));
        assert_eq!(read(&reader), Ok(vec![]));
    }
}

#[test]
fn writer_that_opens_and_closes_without_a_byte_wakes_the_reader_each_time() {
    let fifo = Fifo::new();
    let reader = fifo.reader();
    let mut edges = Edges::of(&reader, Interest::READABLE);
    for _ in 0..100 {
        drop(fifo.writer());
        assert!(edges.next().contains(&"read_closed"));
    }
}

#[test]
fn writer_replaced_between_two_reads_leaves_no_sign_between_their_bytes() {
    let fifo = Fifo::new();
    let reader = fifo.reader();
    let mut edges = Edges::of(&reader, Interest::READABLE);
    fifo.writer().write_all(b"half of one frame").unwrap();
    let mut second = fifo.writer();
    second.write_all(b"start of another").unwrap();
    assert_eq!(edges.next(), ["readable"]);
    assert_eq!(read(&reader), Ok(b"half of one framestart of another".to_vec()));
    assert_eq!(read(&reader), Err(ErrorKind::WouldBlock));
}

#[test]
fn bytes_stay_while_anybody_has_the_pipe_open_and_go_with_the_last_descriptor() {
    let fifo = Fifo::new();
    let (reader, mut writer) = (fifo.reader(), fifo.writer());
    writer.write_all(b"request").unwrap();
    drop(reader);
    let reader = fifo.reader();
    assert_eq!(read(&reader), Ok(b"request".to_vec()), "the writer held the pipe");
    writer.write_all(b"request").unwrap();
    drop((reader, writer));
    assert_eq!(read(&fifo.reader()), Ok(vec![]));
}

#[test]
fn every_reader_of_an_empty_pipe_without_a_writer_sees_end_of_file() {
    let fifo = Fifo::new();
    let (ours, theirs, mut writer) = (fifo.reader(), fifo.reader(), fifo.writer());
    writer.write_all(b"half").unwrap();
    drop(writer);
    assert_eq!(read(&theirs), Ok(b"half".to_vec()));
    assert_eq!((read(&theirs), read(&theirs)), (Ok(vec![]), Ok(vec![])));
    assert_eq!(read(&ours), Ok(vec![]), "a second read end takes nobody's end-of-file");
    let _next = fifo.writer();
    assert_eq!(read(&theirs), Err(ErrorKind::WouldBlock), "a writer ends it");
}
