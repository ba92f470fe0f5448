//! The events of inotify for a FIFO.

use std::{
    fs,
    io::{Read, Write},
};

use nix::{
    fcntl::OFlag,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};

use super::fifo::{Fifo, through_proc};

struct Watch(Inotify);

impl Watch {
    /// Watches the file through a descriptor of it that reads and writes nothing.
    fn of(fifo: &Fifo, kinds: AddWatchFlags) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        inotify.add_watch(&through_proc(&fifo.handle()), kinds).unwrap();
        Self(inotify)
    }

    fn next(&self) -> Vec<AddWatchFlags> {
        let events = self.0.read_events().unwrap_or_default();
        events.into_iter().map(|event| event.mask).collect()
    }
}

const ALL: AddWatchFlags = AddWatchFlags::IN_ALL_EVENTS;

#[test]
fn watch_reports_who_opens_reads_writes_and_closes() {
    let fifo = Fifo::new();
    let watch = Watch::of(&fifo, ALL);
    let mut reader = fifo.reader();
    assert_eq!(watch.next(), [AddWatchFlags::IN_OPEN]);
    let mut writer = fifo.writer();
    assert_eq!(watch.next(), [AddWatchFlags::IN_OPEN]);
    writer.write_all(b"frame").unwrap();
    assert_eq!(watch.next(), [AddWatchFlags::IN_MODIFY]);
    reader.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(watch.next(), [AddWatchFlags::IN_ACCESS]);
    drop(reader);
    assert_eq!(watch.next(), [AddWatchFlags::IN_CLOSE_NOWRITE]);
    drop(writer);
    assert_eq!(watch.next(), [AddWatchFlags::IN_CLOSE_WRITE]);
}

#[test]
fn watch_reports_the_reader_that_was_replaced_between_two_looks() {
    let fifo = Fifo::new();
    let (reader, _writer) = (fifo.reader(), fifo.writer());
    let watch = Watch::of(&fifo, ALL);
    drop(reader);
    let _next = fifo.reader();
    assert_eq!(watch.next(), [AddWatchFlags::IN_CLOSE_NOWRITE, AddWatchFlags::IN_OPEN]);
}

#[test]
fn watch_reports_that_the_name_was_moved_or_removed() {
    let fifo = Fifo::new();
    let _reader = fifo.reader();
    let watch = Watch::of(&fifo, AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ATTRIB);
    let elsewhere = fifo.dir.path().join("elsewhere");
    fs::rename(&fifo.path, &elsewhere).unwrap();
    assert_eq!(watch.next(), [AddWatchFlags::IN_MOVE_SELF]);
    fs::remove_file(&elsewhere).unwrap();
    assert_eq!(watch.next(), [AddWatchFlags::IN_ATTRIB]);
}

#[test]
fn openings_that_fail_and_handles_are_not_reported() {
    let fifo = Fifo::new();
    let watch = Watch::of(&fifo, ALL);
    assert!(fifo.open(OFlag::O_WRONLY).is_err(), "nobody reads");
    drop(fifo.handle());
    assert_eq!(watch.next(), []);
}

#[test]
fn equal_events_in_a_row_are_one() {
    let fifo = Fifo::new();
    let (mut reader, mut writer) = (fifo.reader(), fifo.writer());
    writer.write_all(&[0; 1_000]).unwrap();
    let watch = Watch::of(&fifo, AddWatchFlags::IN_ACCESS);
    for _ in 0..1_000 {
        reader.read_exact(&mut [0]).unwrap();
    }
    assert_eq!(watch.next(), [AddWatchFlags::IN_ACCESS]);
}

#[test]
fn watch_for_one_event_reports_one() {
    let fifo = Fifo::new();
    let _writer = fifo.open(OFlag::O_RDWR).unwrap();
    let once = AddWatchFlags::IN_CLOSE_NOWRITE | AddWatchFlags::IN_ONESHOT;
    let watch = Watch::of(&fifo, once);
    drop(fifo.reader());
    assert_eq!(watch.next(), [AddWatchFlags::IN_CLOSE_NOWRITE, AddWatchFlags::IN_IGNORED]);
    drop(fifo.reader());
    assert_eq!(watch.next(), []);
}
