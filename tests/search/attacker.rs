//! A thread that plays a genome's frames through the pair of one workload.

use std::{
    io::{self, Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fifogate::{
    frame::FrameDecoder,
    pb::{
        ank_base::response::ResponseContent,
        control_api::{FromAnkaios, from_ankaios::FromAnkaiosEnum},
    },
};
use nix::poll::{PollFd, PollFlags, poll};
use prost::Message;

use super::{
    frames::{Piece, Script},
    genome::Genome,
};
use testkit::Session;

/// A request that is not answered for so long, while nothing else comes, is taken for lost.
const LOST: Duration = Duration::from_millis(50);
/// Of a slow reader: how much it reads, and how often.
const A_LITTLE: usize = 4096;
const EVERY: Duration = Duration::from_millis(5);

/// The work of an attacker.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) sent: usize,
    pub(crate) answers: usize,
    pub(crate) errors: usize,
    pub(crate) first_error: Option<String>,
}

pub(crate) struct Attacker {
    thread: JoinHandle<Done>,
    idle: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Attacker {
    /// Begins at once. It acts for `time` after it has set itself up.
    pub(crate) fn start(genome: &Genome, script: Script, pair: &Path, time: Duration) -> Self {
        let (idle, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let mut play = Play {
            pair: pair.to_owned(),
            reads: genome.choice("reads"),
            window: genome.size("window"),
            rounds: genome.size("rounds"),
            wait: Duration::from_millis(u64::from(genome.number("wait"))),
            time,
            idle: Arc::clone(&idle),
            stop: Arc::clone(&stop),
            waiting: 0,
            done: Done::default(),
        };
        let thread = thread::spawn(move || {
            play.run(&script);
            play.done
        });
        Self { thread, idle, stop }
    }

    /// Whether it has sent all and been answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    pub(crate) fn end(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

struct Play {
    pair: PathBuf,
    reads: &'static str,
    window: usize,
    rounds: usize,
    wait: Duration,
    time: Duration,
    idle: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Requests that are not answered yet.
    waiting: usize,
    done: Done,
}

impl Play {
    fn run(&mut self, script: &Script) {
        let mut workload = Session::open(&self.pair);
        let mut answers = FrameDecoder::new(128 << 20);
        let began = Instant::now();
        let rounds = (0..self.rounds).flat_map(|round| &script.rounds[round % 2]);
        let (mut setup, mut rounds) = (script.setup.iter().peekable(), rounds.peekable());
        let (mut now, mut heard, mut start) = (Bytes::new(), Instant::now(), None::<Instant>);
        while !self.stop.load(Ordering::Relaxed) {
            let acting = start.map_or(Duration::ZERO, |start: Instant| start.elapsed());
            let late = began.elapsed() > self.time * 4 || acting > self.time + self.wait;
            if now.is_empty() && !late && self.is_in_window() {
                let next = setup.next().or_else(|| {
                    let is_set_up = self.waiting == 0 || self.reads != "all";
                    let since = is_set_up.then(|| *start.get_or_insert_with(Instant::now));
                    since.filter(|since| since.elapsed() >= self.wait).and_then(|_| rounds.next())
                });
                now = next.map_or(Bytes::new(), |piece| self.begin(piece));
            }
            let all_sent = rounds.peek().is_none() && setup.peek().is_none() && now.is_empty();
            let idle = match self.reads {
                "never" => all_sent || late,
                _ => (all_sent || late && now.is_empty()) && self.waiting == 0,
            };
            self.idle.store(idle, Ordering::Relaxed);
            if self.turn(&mut workload, &mut now, &mut answers) {
                heard = Instant::now();
            } else if heard.elapsed() > LOST {
                self.waiting = 0;
                heard = Instant::now();
            }
        }
    }

    fn is_in_window(&self) -> bool {
        self.reads == "never" || self.waiting < self.window
    }

    fn begin(&mut self, piece: &Piece) -> Bytes {
        self.waiting += usize::from(piece.answered);
        self.done.sent += 1;
        piece.bytes.clone()
    }

    /// Writes and reads what goes at once, or waits a little; gives whether something was done.
    fn turn(&mut self, own: &mut Session, now: &mut Bytes, answers: &mut FrameDecoder) -> bool {
        let mut moved = false;
        if !now.is_empty() {
            match own.output.write(now) {
                Ok(count) => {
                    let _ = now.split_to(count);
                    moved = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Nobody reads any more: fifogate has ended.
                Err(_) => return false,
            }
        }
        let mut buffer = [0; 65_536];
        let most = if self.reads == "slow" { A_LITTLE } else { buffer.len() };
        if self.reads != "never"
            && let Ok(count @ 1..) = own.reader.input.read(&mut buffer[..most])
        {
            self.hear(&buffer[..count], answers);
            moved = true;
        }
        if self.reads == "slow" || !moved {
            Self::pause(own, !now.is_empty(), self.reads == "all");
        }
        moved
    }

    fn pause(own: &Session, writes: bool, reads: bool) {
        let wanted = |wanted, flags| if wanted { flags } else { PollFlags::empty() };
        let mut files = [
            PollFd::new(own.output.as_fd(), wanted(writes, PollFlags::POLLOUT)),
            PollFd::new(own.reader.input.as_fd(), wanted(reads, PollFlags::POLLIN)),
        ];
        let _ = poll(&mut files, u16::try_from(EVERY.as_millis()).unwrap());
    }

    fn hear(&mut self, mut bytes: &[u8], answers: &mut FrameDecoder) {
        while let Ok(Some(body)) = answers.next_frame(&mut bytes) {
            // A longer message is a state: to decode it would take time from fifogate.
            let told = (body.len() < 512).then(|| FromAnkaios::decode(body).ok()).flatten();
            if let Some(FromAnkaiosEnum::Response(response)) =
                told.and_then(|own| own.from_ankaios_enum)
                && let Some(ResponseContent::Error(error)) = response.response_content
            {
                self.done.errors += 1;
                self.done.first_error.get_or_insert(error.message);
            }
            self.done.answers += 1;
            self.waiting = self.waiting.saturating_sub(1);
        }
    }
}
