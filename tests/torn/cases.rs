//! Each way to be in the middle of a frame at the wrong time.

use std::{
    io::Read,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use super::world::{World, is_answer, manifest, read_some, value};
use testkit::{Found, Process, Reader, TestServer, accepted, is_root_or_skip};

const MUTED: usize = 20;

/// `a` reads a part of an answer in pieces; gives the reader, the request's id and the text.
fn mid_frame(world: &mut World, len: usize, piece: usize, part: usize) -> (Reader, String, String) {
    let mut reader = world.reader(piece);
    world.connect(&mut reader);
    let text = value(len, len);
    world.set(&text);
    let id = world.ask();
    read_some(&mut reader, part);
    (reader, id, text)
}

#[test]
fn reader_of_small_pieces_that_leaves_in_mid_frame_gets_that_frame_again_from_its_start() {
    for (len, piece) in [(70_000, 7), (300_000, 64), (300_000, 512), (70_000, 4_096), (4_000, 7)] {
        let mut world = World::start(&["--max-wakeups", "5"]);
        let (mut reader, id, text) = mid_frame(&mut world, len, piece, piece);
        // Behind it another waits for each piece to be read.
        world.ask();
        for _ in 0..15 {
            world.sync();
            read_some(&mut reader, piece);
        }
        drop(reader);
        world.sync();
        is_answer(world.reader(piece).message(), &id, &text);
    }
}

#[test]
fn reader_of_small_pieces_is_not_taken_for_one_that_wakes_fifogate_for_nothing() {
    let mut world = World::start(&["--max-wakeups", "5"]);
    let (mut reader, id, text) = mid_frame(&mut world, 70_000, 7, 7);
    let next = world.ask();
    for _ in 0..50 {
        world.sync();
        read_some(&mut reader, 7);
    }
    assert!(!world.gate.status().to_string().contains("wakes"), "{}", world.gate.status());
    is_answer(reader.message(), &id, &text);
    is_answer(reader.message(), &next, &text);
}

#[test]
fn reader_that_leaves_in_mid_frame_is_seen_while_its_workload_is_looked_at_less_often() {
    for (len, part) in [(100, 50), (70_000, 100), (1 << 20, 1_000_000), (3_000_000, 2_000_000)] {
        let mut world = World::start(&["--max-wakeups", "20"]);
        let (mut reader, id, text) = mid_frame(&mut world, len, 4_096, part);
        // Again and again: also the second reader that leaves is seen.
        for round in 1..=3 {
            world.be_muted(MUTED);
            drop(reader);
            world.sync();
            reader = world.reader(4_096);
            read_some(&mut reader, part - round);
        }
        drop(reader);
        world.sync();
        is_answer(world.reader(65_536).message(), &id, &text);
    }
}

#[test]
fn next_reader_gets_nothing_of_a_frame_of_which_the_one_before_took_all_that_was_written() {
    for part in [1, 100_000, 1 << 20, (1 << 20) + 4_096] {
        let mut world = World::start(&[]);
        let (mut reader, id, text) = mid_frame(&mut world, 4_000_000, 65_536, part);
        // When fifogate looks again, another reader is there already.
        world.gate.process.signal(Signal::SIGSTOP);
        reader.take_all();
        drop(reader);
        let mut next = world.reader(65_536);
        world.gate.process.signal(Signal::SIGCONT);
        world.sync();
        is_answer(next.message(), &id, &text);
    }
}

#[test]
fn reader_that_is_killed_in_mid_frame_leaves_it_whole_to_the_next() {
    for (piece, count) in [(7, 900), (512, 30), (4_096, 60)] {
        let mut world = World::start(&["--max-wakeups", "20"]);
        let mut reader = world.reader(4_096);
        world.connect(&mut reader);
        let text = value(300_000, piece);
        world.set(&text);
        let script = "exec < \"$1/input\"; dd bs=$2 count=$3 of=/dev/null 2>/dev/null; echo read; \
                      exec sleep 1000";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&world.pair);
        command.args([piece.to_string(), count.to_string()]).stdout(Stdio::piped());
        let mut child = Process::start(&mut command);
        drop(reader);
        let id = world.ask();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        child.kill();
        world.sync();
        is_answer(world.reader(piece).message(), &id, &text);
    }
}

#[test]
fn reader_that_takes_long_over_what_is_left_of_half_a_frame_sees_its_end_too() {
    let mut world = World::start(&[]);
    let (mut reader, ..) = mid_frame(&mut world, 3_000_000, 7, 70_000);
    world.restart(2);
    world.say_hello();
    // fifogate looks several times meanwhile.
    for _ in 0..200 {
        read_some(&mut reader, 700);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let found = reader.next(usize::MAX);
    assert!(matches!(found, Found::End(true)), "{found:?}");
    assert_eq!(reader.message(), accepted());
}

/// The reader is in the middle of a frame when fifogate is killed; `says` it Hello before it reads on?
fn stays_across_a_restart(len: usize, part: usize, restarts: usize, says: bool, options: &[&str]) {
    let mut world = World::start(options);
    let (mut reader, id, text) = mid_frame(&mut world, len, 4_096, part);
    world.restart(restarts);
    if says {
        world.say_hello();
    }
    match reader.next(usize::MAX) {
        Found::Message(message) => is_answer(message, &id, &text),
        Found::End(torn) => assert!(torn, "there was something of a frame"),
        Found::Enough | Found::Nothing => unreachable!(),
    }
    if !says {
        world.say_hello();
    }
    assert_eq!(reader.message(), accepted());
    world.set(&text);
    let id = world.ask();
    is_answer(reader.message(), &id, &text);
}

#[test]
fn reader_in_the_middle_of_a_frame_sees_its_end_or_end_of_file_when_another_fifogate_takes_over() {
    for (len, part) in [(3_000_000, 1_000), (3_000_000, 1 << 20), (1 << 20, 4_096), (300_000, 70)] {
        for (restarts, says) in [(1, false), (1, true), (2, true)] {
            stays_across_a_restart(len, part, restarts, says, &[]);
        }
    }
    stays_across_a_restart(2_000_000, 1_500_000, 1, true, &["--window", "4"]);
}

#[test]
fn next_reader_finds_nothing_of_a_frame_that_was_cut_off_by_the_end_of_fifogate() {
    for (len, part) in [(3_000_000, 1_000), (3_000_000, 1 << 20), (300_000, 70_000), (5_000, 1)] {
        for gone_before in [true, false] {
            let mut world = World::start(&[]);
            let (reader, ..) = mid_frame(&mut world, len, 4_096, part);
            world.gate.process.kill();
            let mut kept = Some(reader);
            if gone_before {
                kept = None;
            }
            world.gate.restart();
            world.restart(0);
            drop(kept);
            world.sync();
            let mut next = world.reader(4_096);
            world.connect(&mut next);
            let text = value(len, part);
            world.set(&text);
            let id = world.ask();
            is_answer(next.message(), &id, &text);
        }
    }
}

#[test]
fn reader_that_waits_in_its_opening_of_input_is_let_in_by_the_next_fifogate() {
    let mut world = World::start(&[]);
    let (reader, ..) = mid_frame(&mut world, 3_000_000, 4_096, 1_000);
    world.gate.process.kill();
    drop(reader);
    let path = world.pair.join("input");
    let opener = std::thread::spawn(move || {
        let mut input = std::fs::File::open(path).unwrap();
        let mut first = [0; 1];
        (input.read(&mut first).unwrap(), input)
    });
    world.restart(1);
    world.say_hello();
    let (count, _input) = opener.join().unwrap();
    assert_eq!(count, 1, "it saw an end-of-file that was not meant for it");
}

#[test]
fn pair_is_removed_while_half_a_frame_of_the_fifogate_before_waits_for_its_reader() {
    let mut world = World::start(&[]);
    let (reader, ..) = mid_frame(&mut world, 3_000_000, 4_096, 1_000);
    world.restart(1);
    let before = world.gate.process.descriptors();
    world.remove("a");
    assert!(!world.gate.has_pair("a"));
    drop(reader);
    world.sync();
    assert!(world.gate.process.descriptors() < before, "descriptors of the pair are left");
    assert_eq!(world.gate.stop(), Some(0));
}

/// Takes a user's whole share of pipe pages, says so, and holds it until its input ends.
const HOLDER: &str = "
import fcntl, os, sys
os.setgroups([])
os.setresuid(*[int(sys.argv[1])] * 3)
held = []
for _ in range(int(sys.argv[2]) // 256 + 1):
    held.append(os.pipe())
    try:
        fcntl.fcntl(held[-1][0], 1031, 1 << 20)
    except PermissionError:
        pass
print(flush=True)
sys.stdin.read()
";

/// Beyond an ordinary user's share of pipe pages the kernel makes pipes of two pages, and refuses to
/// enlarge them: all but small frames go in parts then.
#[test]
fn fifogate_of_a_user_with_small_pipes_tears_no_frame_of_a_reader_either() {
    const USER: &str = "54321";
    if !is_root_or_skip() {
        return;
    }
    let share = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").unwrap();
    let mut holder = Command::new("python3")
        .args(["-ESc", HOLDER, USER, share.trim()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    let command = format!(
        "chown -R {USER} \"$dir\"; chown {USER} /proc/self/fd/3; exec setpriv --reuid {USER} --clear-groups \"$@\""
    );
    for (len, part, taken) in [(70_000, 5_000, true), (200_000, 8_192, true), (300_000, 1, false)] {
        let gate = TestServer::behind(&command, &manifest(), &[]);
        let mut world = World::around(gate);
        let (mut reader, id, text) = mid_frame(&mut world, len, 4_096, part);
        drop(reader);
        world.sync();
        reader = world.reader(64);
        read_some(&mut reader, part);
        if taken {
            world.gate.process.signal(Signal::SIGSTOP);
            reader.take_all();
        }
        world.restart(1);
        let Found::End(torn) = reader.next(usize::MAX) else { panic!("the frame had no end") };
        assert!(torn);
        world.connect(&mut reader);
        world.set(&text);
        let next = world.ask();
        assert_ne!(id, next);
        is_answer(reader.message(), &next, &text);
    }
    drop(holder.stdin.take());
    holder.wait().unwrap();
}
