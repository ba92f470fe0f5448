//! Random schedules of all that, from a seed.

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use testkit::{Found, Reader, accepted, number};

use super::world::{World, is_answer, value};

const PIECES: [usize; 7] = [1, 7, 64, 512, 4_096, 65_536, 1 << 20];
/// Frames are a little longer than their texts, so these are on both sides of each border.
const AROUND: [usize; 7] = [200, 4_096, 8_192, 32_768, 65_536, 1 << 20, 2_500_000];

struct Schedule<'a> {
    random: &'a mut ChaCha8Rng,
    world: World,
    max_wakeups: usize,
    /// Answers that are owed: ids and texts.
    owed: std::collections::VecDeque<(String, String)>,
    /// The steps so far.
    told: String,
}

impl Schedule<'_> {
    fn note(&mut self, text: impl AsRef<str>) {
        self.told += text.as_ref();
        self.told += "; ";
    }

    fn reader(&mut self) -> Reader {
        let piece = *PIECES.choose(self.random).unwrap();
        self.note(format!("reader of {piece}"));
        self.world.reader(piece)
    }

    /// Asks for a new text, or again for the one that is owed: it may be asked for later than it is
    /// set, while the workload is looked at less often.
    fn ask(&mut self) {
        if let Some((_, text)) = self.owed.back().cloned() {
            let id = self.world.ask();
            self.owed.push_back((id, text));
            return self.note("asks again");
        }
        let around = *AROUND.choose(self.random).unwrap();
        let len = (around + 150).saturating_sub(self.random.random_range(0..300));
        let text = value(len, self.random.random_range(0..1_000_000));
        self.world.set(&text);
        for _ in 0..self.random.random_range(1..=3) {
            let id = self.world.ask();
            self.owed.push_back((id, text.clone()));
        }
        self.note(format!("asks {} of {len}", self.owed.len()));
    }

    /// Reads a part of what is owed; small pieces of little, so that it ends.
    fn read_part(&mut self, reader: &mut Reader) {
        // Of the first one it may have a part; what is counted of the others comes in any case.
        let begun = usize::from(reader.is_mid_frame());
        let sure = self.owed.iter().skip(begun).map(|(_, text)| text.len()).sum::<usize>();
        if sure < 2 {
            return;
        }
        let most = sure.min(reader.piece() * 20_000).max(2);
        let mut left = self.random.random_range(1..most);
        self.note(format!("reads {left}"));
        // Also what it has read and not looked at is its own.
        loop {
            let before = reader.total();
            let found = reader.next(left);
            left -= reader.total() - before;
            match found {
                Found::Message(message) => {
                    let (id, text) = self.owed.pop_front().unwrap();
                    is_answer(message, &id, &text);
                }
                Found::Enough | Found::Nothing => return,
                Found::End(_) => panic!("end-of-file while fifogate is there"),
            }
        }
    }

    /// The reader leaves, and another comes when fifogate has seen that.
    fn change_reader(&mut self, reader: Reader) -> Reader {
        self.note("leaves");
        drop(reader);
        self.world.sync();
        self.reader()
    }

    fn restart(&mut self, mut reader: Reader) -> Reader {
        let times = self.random.random_range(1..=2);
        let (stays, says_first): (bool, bool) = (self.random.random(), self.random.random());
        self.note(format!("{times} restarts, stays {stays}, says first {says_first}"));
        self.world.restart(times);
        if !stays {
            self.owed.clear();
            let mut next = self.change_reader(reader);
            self.world.connect(&mut next);
            return next;
        }
        if says_first {
            self.world.say_hello();
        }
        // Whole frames in the pipe still come, and then the answer to the Hello.
        let mut said = says_first;
        let mut ended = false;
        loop {
            if !said && (!reader.is_mid_frame() || ended) {
                self.world.say_hello();
                said = true;
            }
            match reader.next(usize::MAX) {
                Found::Message(message) if message == accepted() => break,
                Found::Message(message) => {
                    let (id, text) = self.owed.pop_front().expect("an answer of before");
                    is_answer(message, &id, &text);
                }
                Found::End(_) => ended = true,
                Found::Enough | Found::Nothing => unreachable!(),
            }
        }
        self.owed.clear();
        reader
    }

    fn play(&mut self) {
        let mut reader = self.reader();
        self.world.connect(&mut reader);
        for _ in 0..self.random.random_range(2..=5) {
            if self.owed.len() < 4 {
                self.ask();
            }
            if self.random.random_bool(0.3) {
                self.note("is muted");
                self.world.be_muted(self.max_wakeups);
            }
            self.read_part(&mut reader);
            reader = match self.random.random_range(0..5) {
                0..=2 => self.change_reader(reader),
                3 => self.restart(reader),
                _ => reader,
            };
        }
        while let Some((id, text)) = self.owed.pop_front() {
            is_answer(reader.message(), &id, &text);
        }
    }
}

#[test]
fn whatever_pieces_are_read_and_whoever_leaves_or_is_killed_no_frame_is_torn() {
    let (schedules, seed) = (number("SCHEDULES", 6), number("SEED", 1));
    for schedule in 0..schedules {
        let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_add(schedule << 32));
        let max_wakeups = *[5, 20, 1_000_000].choose(&mut random).unwrap();
        let window = *[1, 1, 2, 8, 16].choose(&mut random).unwrap();
        let options = ["--max-wakeups", &max_wakeups.to_string(), "--window", &window.to_string()];
        let world = World::start(&options);
        let max_wakeups = max_wakeups.min(20);
        let (owed, told) = Default::default();
        let mut own = Schedule { random: &mut random, world, max_wakeups, owed, told };
        own.note(format!("schedule {schedule} of SEED={seed}: {options:?}"));
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| own.play()));
        assert!(played.is_ok(), "{}", own.told);
    }
}
