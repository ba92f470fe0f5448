//! The tutorial of three nodes, played as it stands: its files are written, its commands are run in one
//! shell, and what it shows is compared with what they print.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use testkit::{fifogate, soon};

use super::network::{Network, is_done_elsewhere};

/// Where a reader of the tutorial works.
const FOLDER: &str = "/tmp/three";
/// In what the tutorial shows: whatever there is in a line.
const WHATEVER: char = '…';

/// A piece of the tutorial.
enum Block {
    File(String, String),
    /// Commands, and what they print if that is shown.
    Commands(String, Option<String>),
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut before = "";
    for (at, part) in text.split("```").enumerate() {
        // Every other part is between fences, with its kind in the first line.
        if at % 2 == 0 {
            before = part;
            continue;
        }
        let (kind, body) = part.split_once('\n').unwrap();
        match (kind, blocks.last_mut()) {
            ("yaml", _) => {
                let name = before.rsplit('`').nth(1).expect("a file's name before what it holds");
                blocks.push(Block::File(name.to_owned(), body.to_owned()));
            }
            ("text", Some(Block::Commands(_, shown))) => *shown = Some(body.to_owned()),
            ("sh", _) => blocks.push(Block::Commands(body.to_owned(), None)),
            _ => panic!("a block of {kind}"),
        }
    }
    blocks
}

/// Whether a text is as it is shown.
fn is_as_shown(text: &str, shown: &str) -> bool {
    let mut parts = shown.trim_end().split(WHATEVER);
    let Some(mut rest) = text.trim_end().strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        last = Some(part);
        let Some((skipped, after)) = rest.split_once(part) else { return false };
        if skipped.contains('\n') {
            return false;
        }
        rest = after;
    }
    rest.is_empty() || last == Some("") && !rest.contains('\n')
}

#[test]
fn what_is_shown_is_compared_line_by_line() {
    for (text, shown, is) in [
        ("a: 1\nb: 2\n", "a: …\nb: 2\n", true),
        ("a: 1\nc: 3\nb: 2\n", "a: …\nb: 2\n", false),
        ("x greeting y", "…greeting…", true),
        ("x greeting y\nz", "…greeting…", false),
        ("a: 1", "a: 1\nb: 2", false),
        ("a: 1\nb: 2", "a: 1", false),
    ] {
        assert_eq!(is_as_shown(text, shown), is, "{text} {shown}");
    }
}

/// A shell that is told commands and says when each is done.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    work: PathBuf,
}

impl Shell {
    fn start(work: &Path) -> Self {
        let programs = fifogate();
        let path = format!(
            "{}:/usr/sbin:/usr/bin:/sbin:/bin",
            std::path::Path::new(programs).parent().unwrap().display()
        );
        let mut child = Command::new("bash")
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout), work: work.to_owned() }
    }

    /// The output of commands, and the status of the last one.
    fn run(&mut self, commands: &str) -> (String, String) {
        const DONE: &str = "@done ";
        writeln!(self.stdin, "{{\n{commands}\n}} 2>&1; done=$?; echo; echo {DONE} $done").unwrap();
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the shell ended: {printed}");
            if let Some(status) = line.strip_prefix(DONE) {
                return (printed, status.trim().to_owned());
            }
            printed += &line;
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.run(&format!("tail -n 30 {}/*.log", self.work.display())).0);
        }
        let group = Pid::from_raw(self.child.id().try_into().unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Runs commands until they print what is shown; a reader looks again, too.
fn play(shell: &mut Shell, commands: &str, shown: Option<&str>, end: Instant) {
    let mut first = None;
    loop {
        let (printed, status) = shell.run(commands);
        if shown.map_or(status == "0", |shown| is_as_shown(&printed, shown)) {
            return;
        }
        let first = first.get_or_insert_with(|| printed.clone());
        let story = || format!("{commands}\nfirst: {first}\nat last: {printed}\nshown: {shown:?}");
        assert!(Instant::now() < end, "status {status} of {}", story());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_tutorial_of_three_nodes_holds() {
    if is_done_elsewhere() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("docs/tutorials/three-nodes.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("three");
    let text = text.replace(FOLDER, work.to_str().unwrap());
    // Where `localhost` is nobody else's.
    let mut shell = Network::new(0).hub.enter(|| Shell::start(&work));
    let blocks = blocks(&text);
    assert!(blocks.len() > 15);
    for block in blocks {
        match block {
            Block::File(name, body) => fs::write(work.join(name), body).unwrap(),
            Block::Commands(commands, shown) => {
                // The tested programs are built already.
                let builds = ["make ", "cargo ", "export PATH="];
                let is_built = |line: &&str| !builds.iter().any(|own| line.starts_with(own));
                let commands: Vec<_> = commands.lines().filter(is_built).collect();
                play(&mut shell, &commands.join("\n"), shown.as_deref(), soon());
            }
        }
    }
    assert!(!work.exists());
}
