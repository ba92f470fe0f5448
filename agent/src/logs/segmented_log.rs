//! Segmented log of one instance: a few files, bounded together; the oldest is removed first.
//!
//! Records are appended at the end. A [`Reader`] keeps a position, not a copy, and returns lines in
//! order. A slow reader holds back the writer for a limited time; then its next read counts the dropped
//! bytes.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::record::{self, HEAD};

/// A full log is divided into this number of files.
const SEGMENTS: u64 = 4;
/// Bytes read at a time, unless a line is longer.
const READ: usize = 128 << 10;
/// Total time for one reader to hold back the writer, so it loses nothing. Afterwards it misses the
/// dropped lines.
const PATIENCE: Duration = Duration::from_secs(10);
/// Interval for checking a slow reader again if no notification comes.
const LOOK: Duration = Duration::from_millis(20);

/// The log of one instance. Handles are cheap to clone.
#[derive(Clone, Debug)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    limit: u64,
    state: Mutex<State>,
    /// The end position, and whether the log is finished.
    end: watch::Sender<(u64, bool)>,
    /// Notified when a reader has moved on or is dropped.
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    segments: VecDeque<Segment>,
    end: u64,
    /// Whether a part of a record is behind the end: its writer was killed.
    has_rest: bool,
    readers: BTreeMap<u64, Reading>,
    last_reader: u64,
}

/// A file of the log. Positions count all bytes ever written; the file has those from `start` on.
#[derive(Debug)]
struct Segment {
    start: u64,
    file: Arc<File>,
    path: PathBuf,
}

#[derive(Debug)]
struct Reading {
    position: u64,
    patience: Duration,
}

/// The end of a log, and whether it is finished.
pub type Ends = watch::Receiver<(u64, bool)>;

/// Where the records of a log are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The positions at which its files begin, in order.
    starts: Vec<u64>,
    /// The position behind its last record.
    end: u64,
}

impl State {
    /// What is in a folder. Positions are counted from the name of the first file.
    fn on_disk(folder: &Path) -> io::Result<Self> {
        let mut starts = Vec::new();
        for entry in fs::read_dir(folder)? {
            starts.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        starts.sort_unstable();
        let open = |start| match Segment::open(folder, start) {
            // Its writer has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened),
        };
        let segments: VecDeque<_> =
            starts.into_iter().filter_map(open).collect::<Result<_, _>>()?;
        let Some(last) = segments.back() else { return Ok(Self::default()) };
        let mut bytes = Vec::new();
        (&*last.file).read_to_end(&mut bytes)?;
        let whole = record::beginning(&bytes, usize::MAX);
        let (end, has_rest) = (last.start + whole as u64, whole < bytes.len());
        Ok(Self { segments, end, has_rest, ..Self::default() })
    }
}

impl Segment {
    fn open(folder: &Path, start: u64) -> io::Result<Self> {
        let path = folder.join(start.to_string());
        let file = Arc::new(File::options().read(true).write(true).open(&path)?);
        Ok(Self { start, file, path })
    }
}

impl Log {
    /// Opens the log in its own folder, with what is in it already, or creates it. It keeps at most `limit`
    /// bytes, or its last record if this is longer, and at least three quarters of `limit` once it is full.
    ///
    /// # Errors
    /// The folder cannot be created or read.
    pub fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
        let state = State::on_disk(folder)?;
        Ok(Self(Arc::new(Inner {
            folder: folder.to_owned(),
            limit,
            end: watch::Sender::new((state.end, false)),
            state: Mutex::new(state),
            moved: Notify::new(),
        })))
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Where its records are now.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let state = self.state();
        Layout { starts: state.segments.iter().map(|own| own.start).collect(), end: state.end }
    }

    /// Tells of each change of its end.
    #[must_use]
    pub fn ends(&self) -> Ends {
        self.0.end.subscribe()
    }

    /// Goes on as far as another process, its writer, says that it has come.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn follow(&self, layout: &Layout) -> io::Result<()> {
        let mut state = self.state();
        state.segments.retain(|own| layout.starts.contains(&own.start));
        let known = state.segments.back().map(|own| own.start);
        for start in layout.starts.iter().filter(|start| known.is_none_or(|known| **start > known))
        {
            match Segment::open(&self.0.folder, *start) {
                Ok(segment) => state.segments.push_back(segment),
                // The writer is further on, and tells so next.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let last = state.segments.back().map_or(0, |own| own.start);
        state.end = layout.end.max(last);
        self.0.end.send_modify(|end| end.0 = state.end);
        Ok(())
    }

    /// Reads anew what is in its folder, after the end of the process that wrote it.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn reread(&self) -> io::Result<()> {
        let found = State::on_disk(&self.0.folder)?;
        let mut state = self.state();
        (state.segments, state.end, state.has_rest) = (found.segments, found.end, found.has_rest);
        self.0.end.send_modify(|end| end.0 = state.end);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends whole records. Waits before each part of them that would drop records needed by a reader
    /// with patience left.
    pub(super) async fn append_patiently(&self, records: Vec<u8>) -> io::Result<()> {
        let (mut from, records) = (0, Arc::new(records));
        while from < records.len() {
            let until = from + record::beginning(&records[from..], self.part());
            // Before `append_part`, and without its lock: readers need the lock to move on.
            self.make_room(until - from).await;
            let (log, own) = (self.clone(), Arc::clone(&records));
            let part = move || log.append_part(&own[from..until]);
            // The append blocks on the disk, and all tasks of the agent share one thread.
            tokio::task::spawn_blocking(part).await.map_err(io::Error::other)??;
            from = until;
        }
        Ok(())
    }

    /// Most bytes of a file, unless one record is longer. Larger ones would drop too much at a time.
    fn part(&self) -> usize {
        usize::try_from(self.0.limit / SEGMENTS).unwrap_or(usize::MAX)
    }

    /// Appends records that fit into one file. Blocks on the disk, under the lock.
    fn append_part(&self, records: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let end = state.end + records.len() as u64;
        if state.has_rest
            && let Some(last) = state.segments.back()
        {
            last.file.set_len(state.end - last.start)?;
            state.has_rest = false;
        }
        let full = |segment: &Segment| end - segment.start > self.0.limit / SEGMENTS;
        if state.segments.back().is_none_or(full) {
            let path = self.0.folder.join(state.end.to_string());
            // `create_new`: positions only grow, so a file of this name would be a fault.
            let mut options = File::options();
            options.create_new(true).read(true).write(true).mode(0o600);
            let file = Arc::new(options.open(&path)?);
            let segment = Segment { start: state.end, file, path };
            state.segments.push_back(segment);
        }
        if let Some(segment) = state.segments.back() {
            // At its place: a failed write may have left a part, which the next one overwrites.
            segment.file.write_all_at(records, state.end - segment.start)?;
        }
        state.end = end;
        // The newest file stays, however long its last record is.
        while state.segments.len() > 1
            && state.segments.front().is_some_and(|first| state.end - first.start > self.0.limit)
        {
            if let Some(oldest) = state.segments.pop_front() {
                let _ = fs::remove_file(oldest.path); // only its place on disk is lost
            }
        }
        // Under the lock, so ends are published in order.
        self.0.end.send_modify(|end| end.0 = state.end);
        Ok(())
    }

    /// Waits while `more` bytes would drop records needed by readers with patience left.
    async fn make_room(&self, more: usize) {
        let mut waited = Duration::ZERO;
        while self.is_held_back(more as u64, waited) {
            let before = tokio::time::Instant::now();
            let _ = tokio::time::timeout(LOOK, self.0.moved.notified()).await;
            waited = before.elapsed();
        }
    }

    fn is_held_back(&self, more: u64, waited: Duration) -> bool {
        let mut state = self.state();
        let end = state.end + more;
        // The dropped records end at the start of the first remaining segment.
        let stays = state.segments.iter().skip(1).map(|segment| segment.start);
        let first = state.segments.front().filter(|first| end - first.start > self.0.limit);
        let Some((_, dropped)) = first.zip(stays.clone().next()) else { return false };
        let mut held = false;
        for reading in state.readers.values_mut() {
            if reading.position < dropped && !reading.patience.is_zero() {
                reading.patience = reading.patience.saturating_sub(waited);
                held |= !reading.patience.is_zero();
            }
        }
        held
    }

    /// Marks the log as finished: readers stop at its end. Writing can be resumed.
    pub fn finish(&self) {
        self.0.end.send_modify(|end| end.1 = true);
    }

    /// Resumes writing after [`Log::finish`].
    pub(super) fn go_on(&self) {
        self.0.end.send_modify(|end| end.1 = false);
    }

    /// Creates a reader at the oldest line.
    pub(super) fn reader(&self) -> Reader {
        let mut state = self.state();
        let position = state.segments.front().map_or(state.end, |segment| segment.start);
        state.last_reader += 1;
        let id = state.last_reader;
        state.readers.insert(id, Reading { position, patience: PATIENCE });
        Reader { log: self.clone(), id, position, end: self.0.end.subscribe() }
    }

    /// Removes the files. Readers with an open file finish it.
    pub(super) fn remove(&self) {
        // First, so readers waiting for lines see the end.
        self.finish();
        let _ = fs::remove_dir_all(&self.0.folder);
    }
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Position of its first byte in the log.
    pub(super) at: u64,
    /// Time of arrival, in microseconds since 1970.
    pub(super) micros: i64,
    pub(super) text: Vec<u8>,
}

/// A reader with its position in a log.
#[derive(Debug)]
pub(super) struct Reader {
    log: Log,
    id: u64,
    position: u64,
    end: watch::Receiver<(u64, bool)>,
}

/// Result of a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Lines, and the number of bytes dropped before they were read.
    Lines(Vec<Line>, u64),
    /// Nothing yet.
    Nothing,
}

impl Reader {
    /// Reads the next lines, of a bounded size together.
    pub(super) fn read(&mut self) -> io::Result<Found> {
        let mut wanted = READ;
        let mut missed = 0;
        loop {
            // The lock ends before the file is read, so the writer does not wait for the disk. An open
            // file can still be read after its removal.
            let (file, at, most) = {
                let mut state = self.log.state();
                let Some(oldest) = state.segments.front() else { return Ok(Found::Nothing) };
                if self.position < oldest.start {
                    missed += oldest.start - self.position;
                    self.position = oldest.start;
                }
                let next = state.segments.iter().rposition(|own| own.start <= self.position);
                let Some(index) = next else { return Ok(Found::Nothing) };
                let end = state.segments.get(index + 1).map_or(state.end, |next| next.start);
                if let Some(reading) = state.readers.get_mut(&self.id) {
                    reading.position = self.position;
                }
                let Some(segment) = state.segments.get(index) else { return Ok(Found::Nothing) };
                (Arc::clone(&segment.file), self.position - segment.start, end - self.position)
            };
            // Outside of the lock: the woken writer takes it at once.
            self.log.0.moved.notify_waiters();
            if most == 0 {
                return Ok(Found::Nothing);
            }
            let mut bytes = vec![0; usize::try_from(most).unwrap_or(wanted).min(wanted)];
            file.read_exact_at(&mut bytes, at)?;
            let (lines, used, needed) = lines_of(&bytes, self.position);
            // The line is longer than a read: try again with all its bytes.
            if lines.is_empty() && needed > bytes.len() && (bytes.len() as u64) < most {
                wanted = needed;
                continue;
            }
            self.position += used as u64;
            return Ok(Found::Lines(lines, missed));
        }
    }

    /// The log of this reader.
    pub(super) fn log(&self) -> Log {
        self.log.clone()
    }

    /// The current position.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Moves to the beginning of a line.
    pub(super) fn go_to(&mut self, position: u64) {
        self.position = position;
    }

    /// Waits for more records; false if there will be none.
    pub(super) async fn more(&mut self) -> bool {
        let position = self.position;
        let ready = self.end.wait_for(|(end, finished)| *end > position || *finished).await;
        ready.is_ok_and(|end| end.0 > position)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.log.state().readers.remove(&self.id);
        self.log.0.moved.notify_waiters();
    }
}

/// Splits `bytes` into whole lines: the lines, the bytes used, and the bytes needed for the next line.
fn lines_of(bytes: &[u8], position: u64) -> (Vec<Line>, usize, usize) {
    let (mut lines, mut used) = (Vec::new(), 0);
    loop {
        match record::first(&bytes[used..]) {
            Ok((micros, text, len)) => {
                lines.push(Line { at: position + used as u64, micros, text: text.to_vec() });
                used += len;
            }
            Err(needed) => return (lines, used, needed.max(HEAD)),
        }
    }
}

#[cfg(test)]
mod tests;
