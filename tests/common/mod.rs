//! A running fifogate, and a workload that speaks to it through real FIFOs with its own code.

#![allow(dead_code)] // each test file uses some of it

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fifogate::{
    frame::{FrameDecoder, encode},
    pb::{
        ank_base::{self as pb, request::RequestContent, response::ResponseContent},
        control_api::{
            FromAnkaios, ToAnkaios, from_ankaios::FromAnkaiosEnum, to_ankaios::ToAnkaiosEnum,
        },
    },
};
use nix::{
    errno::Errno,
    libc::O_NONBLOCK,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use prost::Message;
use tempfile::TempDir;

/// The program under test.
pub(crate) const FIFOGATE: &str = env!("CARGO_BIN_EXE_fifogate");

/// The shell's command line that starts it as it is.
const EXEC: &str = r#"exec "$@""#;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// A running `fifogate run`.
pub(crate) struct Gate {
    pub(crate) child: Child,
    pub(crate) run_dir: PathBuf,
    dir: TempDir,
    /// The shell's command line that it is started with, and its own options.
    commands: String,
    options: Vec<String>,
}

impl Gate {
    /// Starts it with a manifest file and waits until it is ready.
    pub(crate) fn start(manifest: &Path, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let child = spawn(manifest, &run_dir, options);
        Self { child, run_dir, dir, commands: EXEC.to_owned(), options: owned(options) }
    }

    /// Starts it with the text of a manifest.
    pub(crate) fn with(manifest: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("manifest.yaml");
        fs::write(&file, manifest).unwrap();
        let run_dir = dir.path().join("run");
        let child = spawn(&file, &run_dir, options);
        Self { child, run_dir, dir, commands: EXEC.to_owned(), options: owned(options) }
    }

    /// Starts it behind a shell's command line, which has to end in `exec ... "$@"`. There `$dir` is
    /// a folder of its own, which holds the run directory `run` and what fifogate says, in `log`.
    pub(crate) fn behind(commands: &str, manifest: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("manifest.yaml");
        fs::write(&file, manifest).unwrap();
        let run_dir = dir.path().join("run");
        let script = format!("exec 2>>\"$dir/log\"; {commands}");
        let child = spawn_behind(&script, &file, &run_dir, options);
        Self { child, run_dir, dir, commands: script, options: owned(options) }
    }

    /// What one that was started by `behind` has said.
    pub(crate) fn said(&self) -> String {
        said_in(self.dir.path())
    }

    /// Starts another on the same run directory and does not wait for it; gives the one before.
    pub(crate) fn replace(&mut self) -> Child {
        let file = self.dir.path().join("manifest.yaml");
        let next = command(r#"exec "$@""#, &file, &self.run_dir, &[]).spawn().unwrap();
        std::mem::replace(&mut self.child, next)
    }

    /// Kills it and starts another on the same run directory, with the text and the options that it
    /// was started with.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts another behind one that has ended.
    pub(crate) fn restart(&mut self) {
        let options: Vec<_> = self.options.iter().map(String::as_str).collect();
        let file = self.dir.path().join("manifest.yaml");
        self.child = spawn_behind(&self.commands, &file, &self.run_dir, &options);
    }

    /// The folder of the pair of a workload.
    pub(crate) fn pair(&self, workload: &str) -> PathBuf {
        let prefix = format!("{workload}.");
        let entries = fs::read_dir(&self.run_dir).unwrap().map(|entry| entry.unwrap().path());
        let mut own =
            entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix));
        let found = own.next().unwrap_or_else(|| panic!("no folder of {workload}"));
        found.join("control_interface")
    }

    pub(crate) fn has_pair(&self, workload: &str) -> bool {
        let prefix = format!("{workload}.");
        let mut entries = fs::read_dir(&self.run_dir).unwrap();
        entries.any(|entry| entry.unwrap().file_name().to_str().unwrap().starts_with(&prefix))
    }

    pub(crate) fn workload(&self, name: &str) -> Workload {
        Workload::open(&self.pair(name))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        // A signal is sent, not obeyed, when `kill` returns: a thread may still write.
        while signal == Signal::SIGSTOP && !self.is_stopped() {
            std::thread::yield_now();
        }
    }

    /// Whether all threads of the process stand still.
    fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.filter_map(Result::ok).all(|thread| {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("State:") && line.contains("stopped"))
        })
    }

    /// The status to exit with, after SIGTERM.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap().code()
    }

    /// A line of `/proc/PID/status`, in kB.
    pub(crate) fn memory_kb(&self, field: &str) -> usize {
        memory_kib(self.child.id(), field)
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

/// A line of a process's status, in KiB.
pub(crate) fn memory_kib(pid: u32, field: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn owned(options: &[&str]) -> Vec<String> {
    options.iter().map(|option| (*option).to_owned()).collect()
}

fn said_in(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// The notification goes through the shell's standard output, so no descriptor has to be passed by
/// number from here.
fn command(commands: &str, manifest: &Path, run_dir: &Path, options: &[&str]) -> Command {
    let script = format!("exec 3>&1 1>/dev/null; {commands}");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script, "sh", FIFOGATE, "run", "--manifest"])
        .args([manifest.as_os_str(), "--run-dir".as_ref(), run_dir.as_os_str()])
        .args(options)
        .args(["--notification-fd", "3"])
        .stdout(Stdio::piped());
    command
}

fn spawn(manifest: &Path, run_dir: &Path, options: &[&str]) -> Child {
    spawn_behind(EXEC, manifest, run_dir, options)
}

/// Has a shell start it, and waits until it is ready.
fn spawn_behind(commands: &str, manifest: &Path, run_dir: &Path, options: &[&str]) -> Child {
    let dir = run_dir.parent().unwrap();
    let mut child = command(commands, manifest, run_dir, options).env("dir", dir).spawn().unwrap();
    wait_until_ready(&mut child, || said_in(dir));
    child
}

fn wait_until_ready(child: &mut Child, said: impl Fn() -> String) {
    let mut ready = [0];
    let count = child.stdout.as_mut().unwrap().read(&mut ready).unwrap();
    let said = said();
    assert_eq!((count, ready), (1, *b"\n"), "fifogate ended instead of getting ready: {said}");
}

/// A workload with a pair of its own.
pub(crate) struct Workload {
    pub(crate) output: File,
    pub(crate) input: File,
    decoder: FrameDecoder,
    received: Vec<u8>,
}

impl Workload {
    pub(crate) fn open(pair: &Path) -> Self {
        let open = |name: &str, write: bool| {
            let mut options = OpenOptions::new();
            options.read(!write).write(write).custom_flags(O_NONBLOCK);
            options.open(pair.join(name)).unwrap()
        };
        Self::of(open("output", true), open("input", false))
    }

    /// One with a session to be opened on these two, which do not have to be named anywhere.
    pub(crate) fn of(output: File, input: File) -> Self {
        Self { output, input, decoder: FrameDecoder::new(64 << 20), received: Vec::new() }
    }

    /// Opens the pair and a session.
    pub(crate) fn connect(pair: &Path) -> Self {
        let mut workload = Self::open(pair);
        workload.hello();
        workload
    }

    /// Opens the pair and a session, behind another that died: what it was owed comes first.
    pub(crate) fn take_over(pair: &Path) -> Self {
        let mut workload = Self::open(pair);
        workload.say_hello();
        let accepted = FromAnkaiosEnum::ControlInterfaceAccepted(Default::default());
        while workload.receive() != accepted {}
        workload
    }

    pub(crate) fn hello(&mut self) {
        self.say_hello();
        assert_eq!(self.receive(), FromAnkaiosEnum::ControlInterfaceAccepted(Default::default()));
    }

    fn say_hello(&mut self) {
        self.send(ToAnkaiosEnum::Hello(fifogate::pb::control_api::Hello {
            protocol_version: "1.0.0".to_owned(),
        }));
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        let end = Instant::now() + PATIENCE;
        while !bytes.is_empty() {
            match self.output.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(Instant::now() < end, "fifogate does not read");
                    wait(&self.output, PollFlags::POLLOUT, end);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn send(&mut self, content: ToAnkaiosEnum) {
        let message = ToAnkaios { to_ankaios_enum: Some(content) };
        self.write(&encode(&message.encode_to_vec()));
    }

    pub(crate) fn request(&mut self, id: &str, content: RequestContent) {
        let request_content = Some(content);
        self.send(ToAnkaiosEnum::Request(pb::Request {
            request_id: id.to_owned(),
            request_content,
        }));
    }

    pub(crate) fn read(&mut self, id: &str, masks: &[&str], subscribe: bool) {
        let field_mask = masks.iter().map(|mask| (*mask).to_owned()).collect();
        let ask = pb::CompleteStateRequest { field_mask, subscribe_for_events: subscribe };
        self.request(id, RequestContent::CompleteStateRequest(ask));
    }

    /// Sets a config, the text of a custom event.
    pub(crate) fn set_config(&mut self, id: &str, key: &str, value: &str) {
        self.set_or_remove_config(id, key, Some(value.to_owned()));
    }

    /// Sets a config and then removes a workload, by two requests that come at once.
    pub(crate) fn set_config_and_remove(&mut self, key: &str, value: &str, workload: &str) {
        let mut removal = config_update(key, None);
        removal.update_mask = vec![format!("desiredState.workloads.{workload}")];
        self.write(&[Self::frame_of_config(key, value), frame_of(removal)].concat());
    }

    /// Sets a config, or removes it.
    pub(crate) fn set_or_remove_config(&mut self, id: &str, key: &str, value: Option<String>) {
        self.request(id, RequestContent::UpdateStateRequest(config_update(key, value)));
    }

    /// The frame of a request to set a config.
    pub(crate) fn frame_of_config(key: &str, value: &str) -> Vec<u8> {
        frame_of(config_update(key, Some(value.to_owned())))
    }

    /// The next message.
    pub(crate) fn receive(&mut self) -> FromAnkaiosEnum {
        self.receive_within(PATIENCE).expect("nothing came")
    }

    /// The next message, if one comes in this time; `None` also at end-of-file.
    pub(crate) fn receive_within(&mut self, time: Duration) -> Option<FromAnkaiosEnum> {
        let end = Instant::now() + time;
        loop {
            let mut rest = &self.received[..];
            let frame = self.decoder.next_frame(&mut rest).unwrap();
            let used = self.received.len() - rest.len();
            self.received.drain(..used);
            if let Some(body) = frame {
                return Some(FromAnkaios::decode(body).unwrap().from_ankaios_enum.unwrap());
            }
            let mut buffer = [0; 65_536];
            match self.input.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= end {
                        return None;
                    }
                    wait(&self.input, PollFlags::POLLIN, end);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next response, with its request's id.
    pub(crate) fn response(&mut self) -> (String, ResponseContent) {
        match self.receive() {
            FromAnkaiosEnum::Response(response) => {
                (response.request_id, response.response_content.unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    /// The text of the error that comes next.
    pub(crate) fn error(&mut self) -> (String, String) {
        match self.response() {
            (id, ResponseContent::Error(error)) => (id, error.message),
            other => panic!("{other:?}"),
        }
    }

    /// The reason for which the session is closed next.
    pub(crate) fn closed(&mut self) -> String {
        match self.receive() {
            FromAnkaiosEnum::ConnectionClosed(closed) => closed.reason,
            other => panic!("{other:?}"),
        }
    }
}

fn frame_of(update: pb::UpdateStateRequest) -> Vec<u8> {
    let content = Some(RequestContent::UpdateStateRequest(update));
    let request = pb::Request { request_id: "half".to_owned(), request_content: content };
    let message = ToAnkaios { to_ankaios_enum: Some(ToAnkaiosEnum::Request(request)) };
    encode(&message.encode_to_vec()).to_vec()
}

fn config_update(key: &str, value: Option<String>) -> pb::UpdateStateRequest {
    let text = value.map(pb::config_item::ConfigItemEnum::String);
    let item = text.map(|text| pb::ConfigItem { config_item_enum: Some(text) });
    let configs = item.into_iter().map(|item| (key.to_owned(), item)).collect();
    let configs = Some(pb::ConfigMap { configs });
    let desired = pb::State { api_version: "v1".to_owned(), configs, ..Default::default() };
    let new_state = pb::CompleteState { desired_state: Some(desired), ..Default::default() };
    let update_mask = vec![format!("desiredState.configs.{key}")];
    pb::UpdateStateRequest { new_state: Some(new_state), update_mask }
}

fn wait(file: &File, flags: PollFlags, end: Instant) {
    let left = end.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(file.as_fd(), flags)], timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => panic!("{errno}"),
    }
}
