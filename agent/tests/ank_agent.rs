//! The program under the name `ank-agent`: its options, environment and file, what it refuses, and where its pairs
//! are.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    path::PathBuf,
    process::{Command, Stdio},
};

use fifogate::{
    pb::ank_base as pb,
    state::{Instance, Node},
};
use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use tempfile::TempDir;
use testkit::{Authority, Process, fifogate_agent, wait_for};

mod ankaios {
    pub(super) mod server;
}

use ankaios::server::{Ankaios, ToServerContent, workload};

/// A server that is not there.
const NOWHERE: &str = "http://127.0.0.1:1";

/// A folder with a link of the name, that is the folder of temporary files, too.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        symlink(fifogate_agent(), dir.path().join("ank-agent")).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text_of(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file with this mode, and returns its path.
    fn write(&self, name: &str, text: &str, mode: u32) -> String {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
        self.text_of(name)
    }

    fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.path("ank-agent"));
        for variable in ["RUST_LOG", "ANKAGENT_INSECURE"] {
            command.env_remove(variable);
        }
        for part in ["CA", "CRT", "KEY"] {
            command.env_remove(format!("ANKAGENT_{part}_PEM"));
        }
        command.env("TMPDIR", self.0.path()).envs(env.iter().copied()).args(args);
        command.stdin(Stdio::null());
        command
    }

    /// The line of a started agent about what is in effect.
    fn in_effect(&self, args: &[&str], env: &[(&str, &str)]) -> String {
        let mut agent = self.start(args, env);
        let line = wait_for("an agent, or its error", || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(" of the server at "));
            assert!(line.is_some() || agent.try_wait().unwrap().is_none(), "{log}");
            line.map(|line| line.split_once("] ").unwrap().1.to_owned())
        });
        // It may not have reached its handlers of signals yet.
        agent.kill();
        line
    }

    fn start(&self, args: &[&str], env: &[(&str, &str)]) -> Process {
        let log = File::create(self.path("log")).unwrap();
        Process::start(self.command(args, env).stderr(log))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// The error of an agent that does not start. It has one line, and no text of a file.
    fn refusal(&self, args: &[&str], env: &[(&str, &str)]) -> String {
        let output = self.command(args, env).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(!text.contains("BEGIN") && !text.contains("SECRET"), "{text}");
        let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{text}");
        errors[0]["error: ".len()..].to_owned()
    }

    fn pairs(&self, folder: &str, name: &str) -> String {
        let folder = self.0.path().join(folder).canonicalize().unwrap();
        folder.join(format!("{name}_io")).display().to_string()
    }
}

#[test]
fn version_and_help_have_the_form_of_ank_agent() {
    let place = Place::new();
    for flag in ["-V", "--version"] {
        let output = place.command(&[flag], &[]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "ank-agent 1.1.0\n");
        assert_eq!(output.status.code(), Some(0));
    }
    for flag in ["-h", "--help"] {
        let output = place.command(&[flag], &[]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let options = "--name --server-url --run-folder --insecure --tag --ca_pem --crt_pem --key_pem \
                       --agent-config --version --help";
        assert!(options.split(' ').all(|option| text.contains(option)), "{text}");
        for variable in ["INSECURE", "CA_PEM", "CRT_PEM", "KEY_PEM"] {
            assert!(text.contains(&format!("ANKAGENT_{variable}")), "{text}");
        }
    }
    let output = place.command(&["--nmae", "a"], &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--name"));
}

#[test]
fn options_take_precedence_over_the_environment_and_that_over_the_file() {
    let place = Place::new();
    fs::create_dir(place.path("runs")).unwrap();
    let runs = place.text_of("runs");
    let file = place.write(
        "agent.conf",
        &format!(
            "version = 'v1'\nname = 'agent_F'\nserver_url = '{NOWHERE}/'\nrun_folder = '{runs}'\n\
             insecure = true\nruntimes = ['podman']\n[tags]\nfrom = 'file'\nof = 'it'\n"
        ),
        0o644,
    );
    let pairs = place.pairs("runs", "agent_F");
    assert_eq!(
        place.in_effect(&["-x", &file], &[]),
        format!(
            "agent agent_F of the server at {NOWHERE}/ with no TLS; tags: from=file of=it; \
             runtimes: podman; pairs are in {pairs}"
        )
    );
    let long = [
        ["--agent-config", &file],
        ["--name", "agent_O"],
        ["--server-url", "https://127.0.0.1:2"],
        ["--run-folder", place.0.path().to_str().unwrap()],
        ["--tag", "from=option"],
        ["--tag", "empty="],
    ];
    let pairs = place.pairs("", "agent_O");
    assert_eq!(
        place.in_effect(&long.concat(), &[]),
        format!(
            "agent agent_O of the server at http://127.0.0.1:2 with no TLS; tags: empty= from=option; \
             runtimes: podman; pairs are in {pairs}"
        )
    );
    // The environment counts for more than the file, and less than an option.
    let args = ["-x", &file];
    let secure = ("ANKAGENT_INSECURE", "false");
    assert!(place.refusal(&args, &[secure]).contains("the connection needs TLS"));
    place.in_effect(&["-x", &file, "-k"], &[secure]);
    assert!(!place.path("ankaios").exists(), "the default folder is made only if it is used");
}

#[test]
fn defaults_are_those_of_ank_agent() {
    let place = Place::new();
    // A server of somebody else may be at this address.
    let line = place.in_effect(&["-n", "ank_agent_test"], &[("ANKAGENT_INSECURE", "true")]);
    let pairs = place.pairs("ankaios", "ank_agent_test");
    let expected = "agent ank_agent_test of the server at http://127.0.0.1:25551 with no TLS; tags: none; \
                    runtimes: all; pairs are in ";
    assert_eq!(line, format!("{expected}{pairs}"));
    let mode = |name| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("ankaios"), mode("ankaios/ank_agent_test_io")), (0o1777, 0o700));
    // As the other program leaves them.
    for (name, left) in [("ankaios", 0o777), ("ankaios/ank_agent_test_io", 0o755)] {
        fs::set_permissions(place.path(name), Permissions::from_mode(left)).unwrap();
    }
    place.in_effect(&["-kn", "ank_agent_test"], &[]);
    assert_eq!((mode("ankaios"), mode("ankaios/ank_agent_test_io")), (0o1777, 0o700));
}

#[test]
fn file_of_the_system_is_read_if_it_is_there() {
    let place = Place::new();
    let file = place.write("agent.conf", "version = 'v1'\nname = 'not a name'\n", 0o644);
    let script = r#"mount -t tmpfs none /etc && mkdir /etc/ankaios && cp "$1" /etc/ankaios/ank-agent.conf && shift && exec "$@""#;
    let user = if testkit::is_root() { "--mount" } else { "--map-root-user" };
    let unshare = |rest: &[&str]| {
        let mut command = Command::new("unshare");
        command.args([user, "--mount"]).args(rest).output().unwrap()
    };
    if !unshare(&["mount", "-t", "tmpfs", "none", "/etc"]).status.success() {
        return testkit::skip("nothing can be mounted here");
    }
    let program = place.text_of("ank-agent");
    let output = unshare(&["sh", "-c", script, "sh", &file, &program, "-k"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("error: agent name 'not a name': a name is 1 to 63"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn faults_of_a_start_are_one_line_each() {
    let place = Place::new();
    let plain = ["-k", "-n", "agent_A"];
    let with = |more: &[&'static str]| [&plain[..], more].concat();
    for name in ["", "a b", "a.b", "ä"] {
        let text = place.refusal(&["-k", "-n", name], &[]);
        assert!(text.starts_with(&format!("agent name '{name}': a name is 1 to 63")), "{text}");
    }
    assert!(place.refusal(&["-k"], &[]).starts_with("agent name '': "));
    for url in ["", "ank-server", "ftp://a", "http://", "https://:1", "127.0.0.1:25551"] {
        let text = place.refusal(&["-kn", "agent_A", "-s", url], &[]);
        assert!(text.starts_with(&format!("'{url}' is no http://HOST:PORT")), "{text}");
    }
    let text = place.refusal(&with(&["-r", "/not/there"]), &[]);
    assert_eq!(text, "run folder /not/there: No such file or directory (os error 2)");
    assert!(place.refusal(&with(&["-r", "/etc/passwd"]), &[]).ends_with("is no folder"));
    let text = place.refusal(&with(&["-x", "/not/there"]), &[]);
    assert!(text.starts_with("configuration file /not/there: No such file"), "{text}");
    let file = place.write("a.conf", "version = 'v1'\nserver-url = 'SECRET'\n", 0o644);
    let text = place.refusal(&["-kn", "agent_A", "-x", &file], &[]);
    let known = "unknown key `server-url`; server_url is the nearest of version, name, server_url";
    assert!(text.starts_with(&format!("{file}:2: {known}")), "{text}");
    let file = place.write("b.conf", "name = 'agent_A'\n", 0o644);
    assert!(place.refusal(&["-k", "-x", &file], &[]).contains("there is no version"));
    let output = place.command(&["-t", "no-value"], &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// Options of an agent that are not about TLS.
const BASE: [&str; 4] = ["-n", "agent_A", "-s", NOWHERE];

/// What an agent says that will use TLS.
const SECURE: &str = "of the server at https://127.0.0.1:1 with mutual TLS";

/// Files of authority, certificate and key in this place.
fn pems(place: &Place, authority: &Authority) -> [String; 3] {
    authority.issue("agent_A");
    [("ca.pem", 0o644), ("agent_A.pem", 0o444), ("agent_A.key", 0o400)]
        .map(|(name, mode)| place.write(name, &authority.text(name), mode))
}

/// The options of TLS, and those of a whole agent.
fn with_tls([ca, crt, key]: &[String; 3]) -> ([&str; 6], Vec<&str>) {
    let options = ["--ca_pem", ca, "--crt_pem", crt, "--key_pem", key];
    (options, [&BASE[..], &options].concat())
}

#[test]
fn tls_takes_three_files_and_counts_for_more_than_its_absence() {
    let (place, authority) = (Place::new(), Authority::new());
    let paths = pems(&place, &authority);
    let [ca, crt, key_path] = paths.each_ref().map(String::as_str);
    let (options, all) = with_tls(&paths);
    assert!(place.in_effect(&all, &[]).contains(SECURE));
    let env = [("ANKAGENT_CA_PEM", ca), ("ANKAGENT_CRT_PEM", crt), ("ANKAGENT_KEY_PEM", key_path)];
    assert!(place.in_effect(&BASE, &env).contains(SECURE));
    // TLS counts for more than its absence.
    assert!(place.in_effect(&[&all[..], &["-k"]].concat(), &[]).contains(SECURE));
    assert!(place.log().contains("--insecure counts for nothing"));
    place.in_effect(&[&BASE[..], &options[..4], &["-k"]].concat(), &[]);
    assert!(place.log().contains("only 2 of 3 are given"));
    for left_out in 0..3 {
        let given = options.chunks(2).enumerate().filter(|(at, _)| *at != left_out);
        let given: Vec<_> = given.flat_map(|(_, pair)| pair.to_vec()).collect();
        let text = place.refusal(&[&BASE[..], &given].concat(), &[]);
        let missing = options[2 * left_out];
        assert!(
            text.starts_with(&format!("the connection needs TLS: give {missing}, or")),
            "{text}"
        );
    }
}

#[test]
fn files_of_tls_are_checked_and_never_printed() {
    let (place, authority) = (Place::new(), Authority::new());
    let paths = pems(&place, &authority);
    let [ca, crt, key_path] = paths.each_ref().map(String::as_str);
    let (options, all) = with_tls(&paths);
    for (path, mode, what) in [
        (key_path, 0o640, "the mode of this key is 0640, not 0600 or 0400"),
        (key_path, 0o700, "the mode of this key is 0700, not 0600 or 0400"),
        (crt, 0o664, "others may write to this certificate"),
        (crt, 0o646, "others may write to this certificate"),
        (ca, 0o744, "or it is executable"),
    ] {
        let old = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let text = place.refusal(&all, &[]);
        assert!(text.starts_with(path) && text.contains(what), "{text}");
        fs::set_permissions(path, old).unwrap();
    }
    // A key in the place of a certificate, and files that are none.
    let swapped = ["--ca_pem", key_path, "--crt_pem", key_path, "--key_pem", key_path];
    place.refusal(&[&BASE[..], &swapped].concat(), &[]);
    let none = place.write("none.pem", "SECRET", 0o600);
    place.refusal(
        &[&BASE[..], &["--ca_pem", ca, "--crt_pem", crt, "--key_pem", &none]].concat(),
        &[],
    );
    let away = place.text_of("away.pem");
    let text = place.refusal(&[&BASE[..], &options[..4], &["--key_pem", &away]].concat(), &[]);
    assert!(text.starts_with(&away), "{text}");
    // Contents in the file, and one file of both kinds.
    let content = |name: &str, text: &str| format!("{name}_content = '''\n{text}'''\n");
    let [ca_text, crt_text, key] =
        ["ca.pem", "agent_A.pem", "agent_A.key"].map(|name| authority.text(name));
    let texts =
        content("ca_pem", &ca_text) + &content("crt_pem", &crt_text) + &content("key_pem", &key);
    let file = place.write("all.conf", &format!("version = 'v1'\n{texts}"), 0o600);
    let from_file = [&BASE[..], &["-x", &file]].concat();
    assert!(place.in_effect(&from_file, &[]).contains(SECURE));
    assert!(!place.log().contains("BEGIN") && !place.log().contains("others may use it"));
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    place.in_effect(&from_file, &[]);
    assert!(place.log().contains("holds a private key, and others may use it (mode 0644)"));
    let both = place.write("both.conf", &format!("version = 'v1'\nkey_pem = '/k'\n{texts}"), 0o600);
    let text = place.refusal(&[&BASE[..], &["-x", &both]].concat(), &[]);
    assert!(text.contains("key_pem and key_pem_content exclude each other"), "{text}");
}

#[test]
fn pem_text_in_place_of_a_path_is_never_printed() {
    let (place, authority) = (Place::new(), Authority::new());
    let [ca, crt, _] = pems(&place, &authority);
    let key = authority.text("agent_A.key");
    let secret = key.lines().nth(1).unwrap();
    // As by `$(cat key)`, and as by a file.
    for key in [key.trim_end(), &key] {
        let env =
            [("ANKAGENT_CA_PEM", &*ca), ("ANKAGENT_CRT_PEM", &*crt), ("ANKAGENT_KEY_PEM", key)];
        let what = "--key_pem is a PEM text: give the path of its file, or key_pem_content in the \
                    configuration file";
        assert_eq!(place.refusal(&BASE, &env), what);
        let one = format!("--key_pem={key}");
        let options = ["--ca_pem", &ca, "--crt_pem", &crt, &one];
        assert_eq!(place.refusal(&[&BASE[..], &options].concat(), &[]), what);
        for line in ["ca_pem", "name", "run_folder", "server_url", "runtimes"] {
            let value = format!("'''{key}'''");
            let value = if line == "runtimes" { format!("[{value}]") } else { value };
            let text = format!("version = 'v1'\n{line} = {value}\n");
            let file = place.write("pem.conf", &text, 0o600);
            let name: &[&str] = if line == "name" { &[] } else { &["-n", "agent_A"] };
            let tls: &[&str] = match line {
                "ca_pem" => &["--crt_pem", &crt, "--key_pem", &crt],
                _ => &["-k"],
            };
            let text = place.refusal(&[&["-x", &file], name, tls].concat(), &[]);
            assert!(!text.contains(secret), "{line}: {text}");
        }
        let help = place.command(&["--help"], &env).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.contains("ANKAGENT_KEY_PEM") && !help.contains(secret), "{help}");
        // What is wrong usage already.
        let wrong = [
            place.command(&["--key_pem", key], &[]),
            place.command(&["--tag", key], &[]),
            place.command(&[key], &[]),
            place.command(&["-n", "agent_A"], &[("ANKAGENT_INSECURE", key)]),
        ];
        for mut command in wrong {
            let output = command.output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.starts_with("error: ") && !text.contains(secret), "{text}");
        }
    }
}

#[test]
fn link_joins_a_server_by_a_file_and_keeps_its_pairs_where_ank_agent_does() {
    joins(&Place::new());
}

#[test]
fn copy_joins_a_server_and_starts_itself_for_workloads() {
    let place = Place::new();
    fs::remove_file(place.path("ank-agent")).unwrap();
    fs::copy(fifogate_agent(), place.path("ank-agent")).unwrap();
    symlink(testkit::fifogate(), place.path("fifogate")).unwrap();
    joins(&place);
}

#[test]
fn runtime_that_is_not_in_the_list_is_not_served_and_its_workload_is_told_which_are() {
    let (place, server) = (Place::new(), Ankaios::start());
    for (runtimes, told) in [("'podman'", "'podman'"), ("", "none")] {
        let text = format!("version = 'v1'\nruntimes = [{runtimes}]\n");
        let file = place.write("agent.conf", &text, 0o600);
        let mut agent = place.start(&["-kn", "agent_A", "-s", &server.url(), "-x", &file], &[]);
        server.wait_for_agent("agent_A");
        let name = if runtimes.is_empty() { "without" } else { "with" };
        server.apply(name, workload("agent_A", "process", "command: sleep"));
        let told = format!("unknown runtime 'process'; this agent has {told}");
        server.wait_for_state(name, &format!("Pending(StartingFailed) {told}"));
        agent.signal(Signal::SIGTERM);
        assert_eq!(agent.wait_end().code(), Some(0), "{}", place.log());
        server.wait_for_no_agent("agent_A");
    }
}

/// Makes the pair of the workload `w` as Ankaios' agent leaves it at its end.
fn leave_pair(place: &Place, config: &str) {
    let node = Node::map([("agent", Node::text("agent_A")), ("runtimeConfig", Node::text(config))]);
    let folder = format!("ankaios/agent_A_io/w.{}/control_interface", Instance::of("w", &node).id);
    fs::create_dir_all(place.path(&folder)).unwrap();
    fs::set_permissions(place.path("ankaios"), Permissions::from_mode(0o777)).unwrap();
    for name in ["input", "output"] {
        mkfifo(&place.path(&folder).join(name), Mode::S_IRWXU).unwrap();
    }
}

fn joins(place: &Place) {
    let authority = Authority::new();
    authority.issue("agent_A");
    let server = Ankaios::start_with_tls(&authority, &pb::CompleteState::default());
    let content = |name: &str, file| format!("{name} = '''\n{}'''\n", authority.text(file));
    let file = place.write(
        "agent.conf",
        &format!(
            "version = 'v1'\nname = 'agent_A'\nserver_url = '{}'\n{}{}{}tags.place = 'here'\n",
            server.url(),
            content("ca_pem_content", "ca.pem"),
            content("crt_pem_content", "agent_A.pem"),
            content("key_pem_content", "agent_A.key"),
        ),
        0o600,
    );
    let config = r#"{"command": "sleep", "args": ["1000"]}"#;
    leave_pair(place, config);
    let mut agent = place.start(&["-x", &file], &[]);
    server.wait_for_agent("agent_A");
    let hello = server.record().all().into_iter().find_map(|own| match own.message.content {
        Some(ToServerContent::AgentHello(hello)) => Some(hello),
        _ => None,
    });
    let hello = hello.unwrap();
    assert_eq!(hello.protocol_version, "1.1.0", "as `--version` says");
    let tags = [("place".to_owned(), "here".to_owned())].into();
    assert_eq!(hello.tags, Some(pb::Tags { tags }));
    let mut own = workload("agent_A", "process", config);
    let rule = pb::StateRule { operation: 1, filter_masks: vec!["agents".to_owned()] };
    let rule = pb::access_rights_rule::AccessRightsRuleEnum::StateRule(rule);
    let rule = pb::AccessRightsRule { access_rights_rule_enum: Some(rule) };
    own.control_interface_access =
        Some(pb::ControlInterfaceAccess { allow_rules: vec![rule], deny_rules: Vec::new() });
    let instance = server.apply("w", own).remove(0);
    server.wait_for_state("w", "Running(Ok)");
    let (folder, _) = instance.rsplit_once('.').unwrap();
    let pair = place.path("ankaios/agent_A_io").join(folder).join("control_interface");
    for name in ["input", "output"] {
        assert!(fs::metadata(pair.join(name)).unwrap().file_type().is_fifo(), "{name}");
    }
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait_end().code(), Some(0), "{}", place.log());
    server.wait_for_no_agent("agent_A");
}
