//! fifogate at real FIFOs: faults of a workload, and the pair and the state that they leave behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pipes {
    mod session_end;
}

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{Read, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fifogate::{
    frame::encode,
    pb::{
        ank_base::{self as pb, response::ResponseContent},
        control_api::{ToAnkaios, from_ankaios::FromAnkaiosEnum, to_ankaios::ToAnkaiosEnum},
    },
};
use nix::{sys::signal::Signal, sys::stat::Mode, unistd::mkfifo};
use prost::Message;
use testkit::{
    PATIENCE, Process, Session, TestServer, fifogate, fixture, hello_of, manifest, removal_of,
    wait_for,
};

fn two() -> TestServer {
    TestServer::with(&manifest(&["a", "b"]), &["--max-frame", "100000"])
}

/// A workload whose session is open, and which is served as if nothing else were there.
fn is_served(workload: &mut Session) {
    workload.set_config("u", "k", "v");
    workload.success();
}

#[test]
fn frame_over_the_limit_and_a_bad_length_end_that_session_alone_and_a_hello_begins_another() {
    let gate = two();
    let mut other = gate.connect("b");
    for (bytes, reason) in [
        (
            &b"\xa1\x8d\x06"[..],
            "Frame of 100001 bytes exceeds the maximum frame size of 100000 bytes",
        ),
        (&[0xff; 10], "Frame length is not a varint of at most 64 bits"),
    ] {
        let mut workload = gate.connect("a");
        workload.write(bytes);
        assert_eq!(workload.closed(), reason);
        workload.write(&[0x1a; 5_000]);
        workload.hello();
        is_served(&mut workload);
    }
    is_served(&mut other);
}

#[test]
fn handshake_is_refused_in_the_documented_words_and_can_be_made_up_for() {
    let gate = two();
    let mut workload = gate.open("a");
    workload.read("r", &["agents"], false);
    assert_eq!(workload.closed(), "Initial Hello missing!");
    workload.hello();
    workload.send(hello_of("1.0"));
    let reason = "Unsupported protocol version '1.0'. Currently supported '1'";
    assert_eq!(workload.closed(), reason);
    workload.hello();
    is_served(&mut workload);
}

#[test]
fn pair_that_the_manifest_no_longer_has_is_removed_at_the_start() {
    let mut gate = two();
    let (a, b) = (gate.pair("a"), gate.pair("b"));
    gate.process.kill();
    fs::write(a.ancestors().nth(3).unwrap().join("manifest.yaml"), manifest(&["b"])).unwrap();
    gate.restart();
    wait_for("the end of an old pair", || (!a.exists()).then_some(()));
    assert!(b.join("input").exists());
}

#[test]
fn version_that_is_refused_is_quoted_up_to_64_characters() {
    let gate = two();
    let mut workload = gate.open("a");
    for (version, shown) in [
        ("9".repeat(50_000), "9".repeat(64) + "..."),
        ("1.1.0\n".to_owned(), "1.1.0\n".to_owned()),
        ("é".repeat(64), "é".repeat(64)),
        ("é".repeat(65), "é".repeat(64) + "..."),
    ] {
        workload.send(hello_of(&version));
        let reason = format!("Unsupported protocol version '{shown}'. Currently supported '1'");
        assert_eq!(workload.closed(), reason);
    }
}

#[test]
fn what_does_not_decode_is_answered_where_its_id_can_be_read() {
    let gate = two();
    let mut workload = gate.connect("a");
    let request = pb::Request { request_id: "lost".to_owned(), request_content: None };
    let message = ToAnkaios { to_ankaios_enum: Some(ToAnkaiosEnum::Request(request)) };
    let mut body = message.encode_to_vec();
    body.extend_from_slice(&[0x1a, 0x7f]); // another request of 127 bytes that are not there
    workload.write(&encode(&body));
    let (id, text) = workload.error();
    assert_eq!(id, "lost");
    assert!(text.starts_with("Could not decode the request: "), "{text}");
    workload.write(&[0, 0]);
    is_served(&mut workload);
}

#[test]
fn half_a_frame_is_forgotten_with_its_writer_and_the_session_goes_on() {
    let gate = two();
    let pair = gate.pair("a");
    let mut workload = Session::connect(&pair);
    let frame = fs::read(fixture("frames/read-speed.bin")).unwrap();
    workload.write(&frame[..frame.len() / 2]);
    // The only writer closes, and another opens.
    workload.output = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let mut script = Command::new("sh")
        .args(["-c", "cat \"$1\" > \"$2/output\"", "sh"])
        .args([fixture("frames/read-speed.bin").as_path(), &pair])
        .spawn()
        .unwrap();
    assert!(script.wait().unwrap().success());
    let (id, content) = workload.response();
    assert_eq!(id, "read");
    assert!(matches!(content, ResponseContent::CompleteStateResponse(_)));
}

#[test]
fn answer_of_any_size_arrives_whole() {
    let gate = TestServer::with(&manifest(&["a"]), &[]);
    let mut workload = gate.connect("a");
    for size in [100, 4_000, 4_097, 60_000, 70_000, 900_000, 3_000_000] {
        let text = "x".repeat(size);
        workload.set_config("u", "big", &text);
        workload.success();
        workload.read("r", &["desiredState.configs.big"], false);
        let response = workload.state_response();
        let configs = response.complete_state.unwrap().desired_state.unwrap().configs.unwrap();
        let value = configs.configs["big"].config_item_enum.clone().unwrap();
        assert_eq!(value, pb::config_item::ConfigItemEnum::String(text), "{size}");
    }
}

#[test]
fn frame_that_a_reader_left_unread_comes_again_whole_for_the_next_one() {
    let gate = two();
    let pair = gate.pair("a");
    let mut workload = Session::connect(&pair);
    workload.set_config("u", "k", &"v".repeat(20_000));
    workload.success();
    workload.read("r", &["desiredState.configs.k"], false);
    // It reads some bytes of the answer and goes.
    let mut some = [0; 1_000];
    while workload.reader.input.read(&mut some).is_err() {
        std::thread::yield_now();
    }
    let output = workload.output.try_clone().unwrap();
    drop(workload);
    // The kernel reports that a reader has left, unless the next one comes before fifogate looks
    // (docs/pipes.md#reader-replaced-between-two-looks). So fifogate looks first: it serves the request
    // of another workload after the events that came before it.
    is_served(&mut gate.connect("b"));
    let mut next = Session::open(&pair);
    let (id, content) = next.response();
    assert_eq!(id, "r");
    assert!(matches!(content, ResponseContent::CompleteStateResponse(_)));
    drop(output);
}

#[test]
fn hello_behind_an_unread_answer_gets_its_own_answer_and_nothing_of_the_session_before() {
    let gate = two();
    let pair = gate.pair("a");
    let mut first = Session::connect(&pair);
    for id in 0..50 {
        first.read(&id.to_string(), &["*"], false);
    }
    wait_for("51 frames", || (gate.status_of("a")["frames_in"] == 51).then_some(()));
    // fifogate finds the next reader and its Hello at the same time.
    gate.process.signal(Signal::SIGSTOP);
    drop(first);
    let mut second = Session::open(&pair);
    second.send(hello_of("1.0.0"));
    gate.process.signal(Signal::SIGCONT);
    // The answer in the pipe, and at most one that was handed out behind it.
    let mut before = Vec::new();
    while let FromAnkaiosEnum::Response(response) = second.receive() {
        before.push(response.request_id);
    }
    assert!(before == ["0"] || before == ["0", "1"], "{before:?}");
    second.read("mine", &["agents"], false);
    assert_eq!(second.response().0, "mine");
}

#[test]
fn restart_skips_what_stood_in_the_pipe_and_serves_those_who_are_still_there() {
    let mut gate = TestServer::with(&manifest(&["a", "b"]), &[]);
    let mut workload = gate.connect("a");
    gate.process.signal(Signal::SIGSTOP);
    let frame = fs::read(fixture("frames/read-everything.bin")).unwrap();
    workload.write(&frame);
    workload.write(&frame[..frame.len() - 1]);
    gate.kill_and_restart();
    workload.hello();
    is_served(&mut workload);
    is_served(&mut gate.connect("b"));
}

#[test]
fn names_that_a_workload_replaces_are_not_followed() {
    let gate = two();
    let (pair, other) = (gate.pair("a"), gate.pair("b"));
    let mut workload = Session::connect(&pair);
    let victim = gate.run_dir.join("victim");
    fs::write(&victim, "untouched").unwrap();
    fs::remove_file(pair.join("input")).unwrap();
    symlink(&victim, pair.join("input")).unwrap();
    fs::remove_file(pair.join("output")).unwrap();
    symlink(other.join("output"), pair.join("output")).unwrap();
    is_served(&mut workload);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    // Removed with the workload are only names that are still ours.
    let mut manager = Session::connect(&other);
    remove(&mut manager, "a");
    assert!(fs::symlink_metadata(pair.join("input")).unwrap().file_type().is_symlink());
}

fn remove(manager: &mut Session, name: &str) {
    manager.request("remove", removal_of(name));
    assert_eq!(manager.success().deleted_workloads.len(), 1);
}

#[test]
fn pair_goes_with_its_workload_and_comes_with_a_new_one() {
    let gate = two();
    let mut manager = gate.connect("b");
    let mut gone = gate.connect("a");
    remove(&mut manager, "a");
    gone.end_of_file();
    assert!(!gate.has_pair("a"));
}

#[test]
fn sigterm_ends_with_status_0_and_leaves_the_pairs_for_the_next() {
    let mut gate = two();
    let pair = gate.pair("a");
    let mut workload = Session::connect(&pair);
    workload.read("r", &["agents"], false);
    assert_eq!(workload.response().0, "r");
    let began = Instant::now();
    let files = || ["input", "output"].map(|name| fs::symlink_metadata(pair.join(name)).unwrap());
    let before = files().map(|file| file.ino());
    gate.process.signal(Signal::SIGTERM);
    assert_eq!(gate.process.wait_end().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(files().iter().all(|file| file.file_type().is_fifo()));
    assert_eq!(files().map(|file| file.ino()), before);
    assert!(!gate.run_dir.join("status.sock").exists());
}

/// Runs it with a manifest where it must not start; gives the status and what it says.
fn refused(run_dir: &Path, manifest: &Path) -> (Option<i32>, String) {
    let output = Command::new(fifogate())
        .args(["run", "--manifest"])
        .args([manifest, "--run-dir".as_ref(), run_dir])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn run_directory_that_cannot_be_trusted_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let good = fixture("manifests/three-workloads.yaml");
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::write(open.join("file"), "").unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
    let (status, said) = refused(&open, &good);
    assert_eq!(status, Some(1));
    assert!(said.contains("is open to other users (mode 0755); run `chmod 700` on it"), "{said}");

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let (status, said) = refused(&file, &good);
    assert_eq!(status, Some(1));
    assert!(said.contains("cannot open run directory") && said.contains("file"), "{said}");

    let missing = dir.path().join("no/such/parent");
    let (status, said) = refused(&missing, &good);
    assert_eq!(status, Some(1));
    assert!(said.contains("its parent folder is missing: make that first"), "{said}");
}

#[test]
fn descriptor_for_the_notification_has_to_be_open_and_a_standard_stream_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("m.yaml"), manifest(&["a"])).unwrap();
    let command = |fd: &str| {
        let mut command = Command::new(fifogate());
        command.args(["run", "--manifest", "m.yaml", "--run-dir", "run", "--notification-fd", fd]);
        command.current_dir(dir.path());
        command
    };
    let output = command("57").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("--notification-fd 57: this descriptor is not open"), "{said}");
    for fd in ["1", "2"] {
        let mut command = command(fd);
        let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let link = format!("/proc/{}/fd/{fd}", process.id());
        let target = || fs::read_link(&link).ok().filter(|own| own == Path::new("/dev/null"));
        wait_for("the end of the notification", target);
        process.signal(Signal::SIGTERM);
        assert_eq!(process.wait_end().code(), Some(0), "{fd}");
    }
}

#[test]
fn bad_manifests_end_with_status_2_and_the_place() {
    let dir = tempfile::tempdir().unwrap();
    for (name, place) in [
        ("unknown-key", ":6:5: unknown key `runtimConfig`"),
        ("unquoted-number", ":4:9: a config is a number"),
        ("cyclic-dependencies", ":7:21: workload dependency 'b' is part of a cycle."),
        ("bad-mask", ":9:61: Unsupported filter mask"),
    ] {
        let manifest = fixture("manifests").join(name).with_extension("yaml");
        let (status, said) = refused(&dir.path().join("run"), &manifest);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(place), "{said}");
    }
}

#[test]
fn something_else_where_a_fifo_belongs_costs_that_workload_its_pair_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let text = manifest(&["a", "b"]);
    let file = dir.path().join("manifest.yaml");
    fs::write(&file, &text).unwrap();
    let probe = TestServer::with(&text, &[]);
    let folder = probe.pair("a").parent().unwrap().file_name().unwrap().to_owned();
    drop(probe);

    let run_dir = dir.path().join("run");
    let taken = run_dir.join(folder).join("control_interface");
    fs::create_dir_all(&taken).unwrap();
    fs::set_permissions(&run_dir, Permissions::from_mode(0o700)).unwrap();
    fs::write(taken.join("input"), "precious").unwrap();
    mkfifo(&taken.join("output"), Mode::S_IRWXU).unwrap();
    let script =
        r#"exec "$0" run --manifest "$1" --run-dir "$2" --notification-fd 3 3>&1 1>/dev/null"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, fifogate()]).args([&file, &run_dir]);
    let mut child = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    is_served(&mut Session::connect_until(&run_dir, "b"));
    child.signal(Signal::SIGTERM);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(said.contains("is a regular file, and a FIFO belongs there; remove it"), "{said}");
    assert_eq!(fs::read_to_string(taken.join("input")).unwrap(), "precious");
}

#[test]
fn second_fifogate_on_the_same_run_directory_is_refused() {
    let gate = two();
    let (status, said) = refused(&gate.run_dir, &fixture("manifests/three-workloads.yaml"));
    assert_eq!(status, Some(1));
    assert!(said.contains("another fifogate serves"), "{said}");
    is_served(&mut gate.connect("a"));
}

#[test]
#[allow(clippy::print_stdout)] // a number for the reader; it is not what is tested
fn thousand_workloads_are_served_and_cost_a_bounded_number_of_descriptors() {
    let names: Vec<_> = (0..1_000).map(|n| format!("w{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let text = manifest(&names);
    let began = Instant::now();
    let gate = TestServer::with(&text, &[]);
    println!("1,000 workloads are ready after {:?}", began.elapsed());
    is_served(&mut gate.connect("w999"));
    assert!(gate.process.descriptors() <= 2 * 1_000 + 30, "{}", gate.process.descriptors());
    assert_eq!(gate.stop(), Some(0));
}

#[test]
fn reader_that_comes_late_is_told_what_waits_for_it() {
    let gate = two();
    let pair = gate.pair("a");
    let mut output = OpenOptions::new().write(true).open(pair.join("output")).unwrap();
    output.write_all(&fs::read(fixture("frames/hello.bin")).unwrap()).unwrap();
    output.write_all(&fs::read(fixture("frames/read-speed.bin")).unwrap()).unwrap();
    // Served when another workload is, behind it.
    is_served(&mut gate.connect("b"));
    let mut late = Session::open(&pair);
    assert!(matches!(late.receive(), FromAnkaiosEnum::ControlInterfaceAccepted(_)));
    assert_eq!(late.response().0, "read");
}

#[test]
fn answers_that_nobody_reads_cost_no_processor_time() {
    let gate = two();
    let mut workload = gate.connect("a");
    for n in 0..10 {
        workload.read(&n.to_string(), &["desiredState"], false);
    }
    drop(workload);
    is_served(&mut gate.connect("b"));
    let before = gate.process.ticks();
    // Nothing happens meanwhile, and that is what is measured.
    std::thread::sleep(Duration::from_secs(1));
    assert!(gate.process.ticks() - before <= 2);
    // A loop that feeds itself is stopped as if the workload were its cause.
    assert_eq!(gate.status_of("a")["oddities"], serde_json::json!([]));
    assert_eq!(Session::open(&gate.pair("a")).response().0, "0");
}

#[test]
fn what_a_workload_does_to_its_pair_is_told_and_served_as_far_as_it_goes() {
    let gate = TestServer::with(&manifest(&["a", "b", "c"]), &["--max-wakeups", "100"]);
    let does_until_told = |does: &dyn Fn(), name: &str, oddity: &str| {
        let end = Instant::now() + PATIENCE;
        while !gate.status_of(name)["oddities"].as_array().unwrap().contains(&oddity.into()) {
            assert!(Instant::now() < end, "{name} is not told to do {oddity}");
            does();
        }
    };
    let until = |name: &str, oddity: &str| does_until_told(&|| {}, name, oddity);
    // It writes into its own input, and then has something to read.
    let mut own = gate.connect("a");
    let mut input = OpenOptions::new().write(true).open(gate.pair("a").join("input")).unwrap();
    input.write_all(&[0; 100]).unwrap(); // more than it may have left of what it was told
    own.read("r", &["agents"], false);
    until("a", "writes_its_input");
    own.reader.input.read_exact(&mut [0; 100]).unwrap();
    assert_eq!(own.response().0, "r");
    // It renames what it was given.
    let pair = gate.pair("b");
    fs::rename(pair.join("output"), pair.join("elsewhere")).unwrap();
    until("b", "renamed");
    let elsewhere = OpenOptions::new().write(true).open(pair.join("elsewhere")).unwrap();
    let input = OpenOptions::new().read(true).open(pair.join("input")).unwrap();
    let mut renamed = Session::of(elsewhere, input);
    renamed.hello();
    is_served(&mut renamed);
    // It opens and closes without end, and is served all the same.
    let output = gate.pair("c").join("output");
    let open_and_close = || {
        for _ in 0..1_000 {
            OpenOptions::new().write(true).open(&output).unwrap();
        }
    };
    does_until_told(&open_and_close, "c", "wakes");
    is_served(&mut gate.connect("c"));
}
