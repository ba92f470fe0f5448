//! What one instance wrote, in a few files of bounded size together, of which the oldest goes when
//! there is more. Readers keep a position, not a pile.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::record::{self, HEAD};

/// Files that a log is kept in.
const SEGMENTS: u64 = 4;
/// Bytes that a reader is given at a time, unless a line is longer.
const READ: usize = 128 << 10;
/// How long one reader, in all, may hold back what writes, so that nothing is lost for it. After
/// that it misses what was dropped.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether a reader that holds back has gone on, if it does not say so.
const LOOK: Duration = Duration::from_millis(20);

/// The log of one instance. Handles are cheap.
#[derive(Clone, Debug)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    limit: u64,
    state: Mutex<State>,
    /// Where the log ends, and whether no more will come.
    end: watch::Sender<(u64, bool)>,
    /// A reader has gone on.
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    segments: VecDeque<Segment>,
    end: u64,
    readers: BTreeMap<u64, Reading>,
    last_reader: u64,
}

/// Positions count all bytes that were ever written; a segment has those from its start on.
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

impl Log {
    /// An empty log of at most about `limit` bytes in a folder of its own.
    pub(super) fn create(folder: &Path, limit: u64) -> io::Result<Self> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => DirBuilder::new().mode(0o700).create(folder)?,
        }
        Ok(Self(Arc::new(Inner {
            folder: folder.to_owned(),
            limit,
            state: Mutex::default(),
            end: watch::Sender::new((0, false)),
            moved: Notify::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds whole records. Blocks while the kernel takes them.
    pub(super) fn append(&self, records: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let full = |segment: &Segment, end: u64| end - segment.start >= self.0.limit / SEGMENTS;
        if state.segments.back().is_none_or(|segment| full(segment, state.end)) {
            let path = self.0.folder.join(state.end.to_string());
            let mut options = File::options();
            options.create_new(true).read(true).write(true).mode(0o600);
            let file = Arc::new(options.open(&path)?);
            let segment = Segment { start: state.end, file, path };
            state.segments.push_back(segment);
        }
        if let Some(segment) = state.segments.back() {
            segment.file.as_ref().write_all(records)?;
        }
        state.end += records.len() as u64;
        while state.segments.len() > 1
            && state.segments.front().is_some_and(|first| state.end - first.start > self.0.limit)
        {
            if let Some(oldest) = state.segments.pop_front() {
                let _ = fs::remove_file(oldest.path); // only its place on disk is lost
            }
        }
        self.0.end.send_modify(|end| end.0 = state.end);
        Ok(())
    }

    /// Waits while readers still need what `more` bytes would drop, as long as their patience lasts.
    pub(super) async fn make_room(&self, more: usize) {
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
        // The end of what would be dropped: the start of the first segment that stays.
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

    /// No more will be written; readers end at the end. A log may go on all the same.
    pub fn finish(&self) {
        self.0.end.send_modify(|end| end.1 = true);
    }

    /// More will be written.
    pub(super) fn go_on(&self) {
        self.0.end.send_modify(|end| end.1 = false);
    }

    /// A reader that begins with the oldest line.
    pub(super) fn reader(&self) -> Reader {
        let mut state = self.state();
        let position = state.segments.front().map_or(state.end, |segment| segment.start);
        state.last_reader += 1;
        let id = state.last_reader;
        state.readers.insert(id, Reading { position, patience: PATIENCE });
        Reader { log: self.clone(), id, position, end: self.0.end.subscribe() }
    }

    /// Removes its files. Readers that are at it finish.
    pub(super) fn remove(&self) {
        self.finish();
        let _ = fs::remove_dir_all(&self.0.folder);
    }
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it begins in the log.
    pub(super) at: u64,
    /// When it came, in microseconds since 1970.
    pub(super) micros: i64,
    pub(super) text: Vec<u8>,
}

/// A position in a log.
#[derive(Debug)]
pub(super) struct Reader {
    log: Log,
    id: u64,
    position: u64,
    end: watch::Receiver<(u64, bool)>,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Lines, and how many bytes were dropped before they could be read.
    Lines(Vec<Line>, u64),
    /// Nothing yet.
    Nothing,
}

impl Reader {
    /// The next lines, a bounded number of them.
    pub(super) fn read(&mut self) -> io::Result<Found> {
        let mut wanted = READ;
        let mut missed = 0;
        loop {
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
            self.log.0.moved.notify_waiters();
            if most == 0 {
                return Ok(Found::Nothing);
            }
            let mut bytes = vec![0; usize::try_from(most).unwrap_or(wanted).min(wanted)];
            file.read_exact_at(&mut bytes, at)?;
            let (lines, used, needed) = lines_of(&bytes, self.position);
            if lines.is_empty() && needed > bytes.len() && (bytes.len() as u64) < most {
                wanted = needed;
                continue;
            }
            self.position += used as u64;
            return Ok(Found::Lines(lines, missed));
        }
    }

    /// The log that is read.
    pub(super) fn log(&self) -> Log {
        self.log.clone()
    }

    /// Where it stands.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Goes back to the beginning of a line.
    pub(super) fn go_to(&mut self, position: u64) {
        self.position = position;
    }

    /// Waits until there may be more to read; false if there will be none.
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

/// The whole lines in `bytes`, how much they take, and how much the next one needs.
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
