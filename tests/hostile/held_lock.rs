//! A workload that holds the locks of both its pipes for as long as it likes
//! (docs/pipes.md#the-lock-of-a-pipe):
//! what goes on beside it, how fifogate ends, and how another takes its place.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::net::UnixStream,
    path::Path,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fifogate::pb::ank_base::ReadWriteEnum;
use nix::{
    fcntl::{SpliceFFlags, splice},
    sys::signal::Signal,
    unistd::gettid,
};

use super::{
    attacked::{AttackedServer, alone, say_hello_anew},
    attacker::{Attacker, Attackers},
    watched::is_stuck,
};
use testkit::{LinkAgent, PATIENCE, Session, Transport};

const WITHIN: Duration = Duration::from_secs(1);
const WORST: Duration = Duration::from_millis(250);

/// One splicer at `input`, then three at `output`: in this order, as the first needs an answer.
fn hold_both(pair: &Path, pid: u32) -> Attackers {
    let mut held = Attackers::default();
    held.0.push(Attacker::start("held_input", &[], pair));
    held.0[0].wait_until_in_force();
    wait_until(PATIENCE, "no thread hangs", || is_stuck(pid));
    held.0.push(Attacker::start("held_output", &["socket", "1000"], pair));
    held.0[1].wait_until_in_force();
    held
}

fn wait_until(time: Duration, otherwise: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while !is_so() {
        assert!(Instant::now() < end, "{otherwise} within {time:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

#[test]
#[allow(clippy::print_stdout)]
fn thousand_updates_go_on_beside_held_locks() {
    let mut server = AttackedServer::start(&["bad"], 0, &[]);
    let held = hold_both(&server.gate.pair("bad"), server.gate.process.id());
    let mut worst = Duration::ZERO;
    for number in 0..1_000 {
        let began = Instant::now();
        server.good.set_config("u", "good", &number.to_string());
        let answer = server.good.receive_within(Duration::from_secs(5));
        assert!(answer.is_some(), "update {number} is not answered while the locks are held");
        worst = worst.max(began.elapsed());
    }
    println!("1,000 updates beside held locks: worst {worst:.1?}");
    assert!(worst < WORST, "{worst:?}");
    drop(held);
    server.everything_goes_on(&["bad"]);
    server.ends_when_told();
}

#[test]
fn service_ends_when_told_and_another_takes_its_place_while_locks_are_held() {
    let mut server = AttackedServer::start(&["bad", "other"], 0, &[]);
    let pair = server.gate.pair("bad");
    let held = hold_both(&pair, server.gate.process.id());
    server.gate.process.signal(Signal::SIGTERM);
    let socket = server.gate.run_dir.join("status.sock");
    wait_until(WITHIN, "the status socket answers on", || UnixStream::connect(&socket).is_err());

    let began = Instant::now();
    let mut old = server.gate.replace();
    for name in ["good", "other"] {
        say_hello_anew(&server.gate.pair(name));
    }
    let taken = began.elapsed();
    assert!(taken < WITHIN, "the next fifogate serves the others only after {taken:?}");
    assert!(UnixStream::connect(&socket).is_ok(), "the next one has no status socket");

    drop(held);
    wait_until(WITHIN, "the first does not end though nobody holds it", || has_ended(&mut old));
    say_hello_anew(&pair);
    server.gate.process.signal(Signal::SIGTERM);
    wait_until(2 * WITHIN, "the next one does not end", || has_ended(&mut server.gate.process));
}

#[test]
fn agent_hears_end_of_file_when_service_ends_while_locks_are_held() {
    let _alone = alone();
    let mut agent = LinkAgent::start(Transport::Stdio, &[]);
    let pair = agent.add("bad", ReadWriteEnum::RwReadWrite, &["*"]);
    let mut good = agent.workload("good");
    let held = hold_both(&pair, agent.child.id());
    good.read("r", &["agents"], false);
    let answer = good.receive_within(Duration::from_secs(5));
    assert!(answer.is_some(), "others are not served while the locks are held");
    let began = Instant::now();
    agent.child.signal(Signal::SIGTERM);
    while agent.link.recv().unwrap().is_some() {}
    let taken = began.elapsed();
    assert!(taken < WITHIN + WORST, "the link hangs up only after {taken:?}");
    drop(held);
    wait_until(WITHIN, "it does not end though nobody holds it", || has_ended(&mut agent.child));
    let mut said = String::new();
    agent.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(agent.child.wait().unwrap().code(), Some(0), "{said}");
}

/// A thread that sleeps with the lock of `output` held, until `idle` closes.
fn hold_output(pair: &Path) -> (UnixStream, thread::JoinHandle<()>) {
    let (idle, source) = UnixStream::pair().unwrap();
    let output = File::options().write(true).open(pair.join("output")).unwrap();
    let thread = Arc::new(AtomicI32::new(0));
    let own = Arc::clone(&thread);
    let splicer = thread::spawn(move || {
        own.store(gettid().as_raw(), Ordering::SeqCst);
        splice(&source, None, &output, None, 4096, SpliceFFlags::empty()).unwrap();
    });
    wait_until(PATIENCE, "nothing is spliced", || {
        let stat = format!("/proc/self/task/{}/stat", thread.load(Ordering::SeqCst));
        fs::read_to_string(stat).is_ok_and(|stat| stat.contains(") S "))
    });
    (idle, splicer)
}

/// The remover of a pair may be the last to have its FIFOs open, and closing them takes their locks.
#[test]
fn pair_that_is_removed_while_it_is_held_and_owed_something_holds_up_nobody() {
    let mut server = AttackedServer::start(&["bad"], 0, &["--subscribe-grace-ms", "0"]);
    let pair = server.gate.pair("bad");
    let mut bad = Session::connect(&pair);
    bad.read("s", &["desiredState.configs"], true);
    bad.response();
    let (idle, splicer) = hold_output(&pair);
    server.good.set_config_and_remove("good", "new", "bad");
    assert!(server.good.receive_within(Duration::from_secs(5)).is_some(), "no answer");
    for number in 0..100 {
        let answer = server.good.receive_within(Duration::from_secs(5));
        assert!(answer.is_some(), "update {number} is not answered");
        server.good.set_config("u", "good", &number.to_string());
    }
    drop(idle);
    splicer.join().unwrap();
    server.ends_when_told();
}
