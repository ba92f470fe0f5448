use super::*;

impl Log {
    fn append(&self, records: &[u8]) -> io::Result<()> {
        let mut from = 0;
        while from < records.len() {
            let until = from + record::beginning(&records[from..], self.part());
            self.append_part(&records[from..until])?;
            from = until;
        }
        Ok(())
    }
}

fn records(from: usize, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in from..from + count {
        record::put(&mut bytes, number as i64, format!("line {number}").as_bytes());
    }
    bytes
}

/// Reads up to the end: the times of all lines, and the number of missed bytes.
fn read_all(reader: &mut Reader) -> (Vec<i64>, u64) {
    let (mut all, mut missed) = (Vec::new(), 0);
    while let Found::Lines(lines, more) = reader.read().unwrap() {
        all.extend(lines.iter().map(|line| line.micros));
        missed += more;
    }
    (all, missed)
}

#[test]
fn what_is_written_is_read_in_order_over_all_files() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), 1 << 20).unwrap();
    let mut early = log.reader();
    for part in 0..100 {
        log.append(&records(part * 100, 100)).unwrap();
    }
    let expected: Vec<i64> = (0..10_000).collect();
    assert_eq!(read_all(&mut early), (expected.clone(), 0));
    assert_eq!(read_all(&mut log.reader()), (expected, 0));
    assert_eq!(early.read().unwrap(), Found::Nothing);
}

#[test]
fn the_oldest_goes_and_a_reader_is_told_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), 4_000).unwrap();
    let mut slow = log.reader();
    let mut written = 0;
    for part in 0..50 {
        let bytes = records(part * 10, 10);
        written += bytes.len() as u64;
        log.append(&bytes).unwrap();
    }
    let size: u64 =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= 4_000 && written > 8_000, "{size} of {written}");
    let (lines, missed) = read_all(&mut slow);
    assert_eq!(missed, written - size);
    assert_eq!(lines.last(), Some(&499));
    assert!(lines.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn output_that_comes_at_once_leaves_as_many_of_its_last_lines_as_the_limit_allows() {
    const LIMIT: u64 = 65_536;
    for lines in [1, 3_000, 5_000, 20_000] {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), LIMIT).unwrap();
        let bytes = records(0, lines);
        log.append(&bytes).unwrap();
        let (kept, missed) = read_all(&mut log.reader());
        let size = bytes.len() as u64 - log.state().segments[0].start;
        assert!(size <= LIMIT && size >= (LIMIT - LIMIT / SEGMENTS).min(bytes.len() as u64));
        assert_eq!((kept.last().copied(), missed), (Some(lines as i64 - 1), 0));
        assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }
}

#[test]
fn line_longer_than_the_limit_is_kept_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), 65_536).unwrap();
    let mut bytes = records(0, 100);
    record::put(&mut bytes, 100, &vec![b'x'; 1 << 20]);
    log.append(&bytes).unwrap();
    assert_eq!(read_all(&mut log.reader()), (vec![100], 0));
    log.append(&records(101, 2)).unwrap();
    assert_eq!(read_all(&mut log.reader()), (vec![101, 102], 0));
}

#[test]
fn a_line_longer_than_a_read_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), 16 << 20).unwrap();
    let mut bytes = Vec::new();
    record::put(&mut bytes, 1, &vec![b'x'; 2 << 20]);
    record::put(&mut bytes, 2, b"next");
    log.append(&bytes).unwrap();
    let mut reader = log.reader();
    let Found::Lines(lines, 0) = reader.read().unwrap() else { panic!("nothing") };
    assert_eq!(lines[0].text.len(), 2 << 20);
    let (rest, _) = read_all(&mut reader);
    assert!(lines.len() == 2 || rest == [2]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_holds_back_what_writes_until_its_patience_ends() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), 4_000).unwrap();
    let mut reader = log.reader();
    for part in 0..16 {
        log.append(&records(part * 10, 10)).unwrap();
    }
    let began = tokio::time::Instant::now();
    log.make_room(1_000).await;
    assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
    let began = tokio::time::Instant::now();
    log.make_room(1_000).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "it has none left");
    let mut quick = log.reader();
    read_all(&mut quick);
    log.make_room(1_000).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "it has read what would go");
    read_all(&mut reader);
}

#[test]
fn log_is_opened_again_with_its_whole_records_and_goes_on_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), 4_000).unwrap();
    log.append(&records(0, 100)).unwrap();
    let end = log.layout().end;
    // Its writer was killed in the middle of a record.
    let last = log.state().segments.back().unwrap().path.clone();
    let mut bytes = fs::read(&last).unwrap();
    let rest = &records(100, 1)[..HEAD + 3];
    bytes.extend_from_slice(rest);
    fs::write(&last, bytes).unwrap();
    let again = Log::open(dir.path(), 4_000).unwrap();
    assert_eq!(again.layout(), log.layout());
    assert_eq!(read_all(&mut again.reader()), read_all(&mut log.reader()));
    // The next record is shorter than the rest.
    let mut short = Vec::new();
    record::put(&mut short, 100, b"");
    again.append(&short).unwrap();
    let third = Log::open(dir.path(), 4_000).unwrap();
    assert_eq!(third.layout().end, end + HEAD as u64);
    assert_eq!(read_all(&mut third.reader()).0.last(), Some(&100));
}

#[test]
fn follower_of_a_log_reads_what_its_writer_says_also_when_files_are_gone_before_it_opens_them() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Log::open(dir.path(), 4_000).unwrap();
    let follower = Log::open(dir.path(), 4_000).unwrap();
    let mut reader = follower.reader();
    let (mut all, mut missed, mut late) = (Vec::new(), 0, Layout { starts: vec![], end: 0 });
    for part in 0..200 {
        writer.append(&records(part * 10, 10)).unwrap();
        // What it is told is a while old.
        if part % 7 == 0 {
            follower.follow(&late).unwrap();
            late = writer.layout();
            let (lines, more) = read_all(&mut reader);
            all.extend(lines);
            missed += more;
        }
    }
    follower.follow(&writer.layout()).unwrap();
    let (lines, more) = read_all(&mut reader);
    all.extend(lines);
    assert_eq!(all.last(), Some(&1_999));
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "none twice, and in order");
    let read: u64 = all.iter().map(|own| (HEAD + format!("line {own}").len()) as u64).sum();
    assert_eq!(read + missed + more, writer.layout().end);
}
