//! A real etcd, with its data in a folder that goes with it.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Process, memory_dir, wait_for};

/// One member of an etcd cluster.
pub struct Etcd {
    child: Option<Process>,
    address: &'static str,
    folder: TempDir,
    client: u16,
    peer: u16,
    /// Further options; with `https`, its clients speak TLS.
    options: Vec<String>,
    scheme: &'static str,
    metrics: u16,
    /// Members that were there before this one, each with its name and where it is.
    others: Vec<String>,
    /// It asks for users.
    has_users: bool,
}

impl Etcd {
    /// On loopback.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// At an address of the network that the calling thread is in, as all that is asked of it later.
    pub fn start_at(address: &'static str) -> Self {
        Self::start_as(address, "http", &[])
    }

    /// With further options.
    pub fn start_with(scheme: &'static str, options: &[&str]) -> Self {
        Self::start_as("127.0.0.1", scheme, options)
    }

    fn start_as(address: &'static str, scheme: &'static str, options: &[&str]) -> Self {
        let mut etcd = Self::new(address, scheme, options);
        etcd.restart();
        etcd
    }

    fn new(address: &'static str, scheme: &'static str, options: &[&str]) -> Self {
        let folder = memory_dir();
        let [client, peer, metrics] = free_ports();
        let options = options.iter().map(|&own| own.to_owned()).collect();
        let (child, others, has_users) = (None, Vec::new(), false);
        Self { child, address, folder, client, peer, options, scheme, metrics, others, has_users }
    }

    /// One more member of the cluster that `members` are, on loopback.
    pub fn join(members: &[&Self]) -> Self {
        let mut etcd = Self::new("127.0.0.1", "http", &[]);
        let body = format!(r#"{{"peerURLs":["http://127.0.0.1:{}"]}}"#, etcd.peer);
        // It takes no more members until those that it has are known to be well.
        wait_for("the acceptance of one more member", || {
            members[0]
                .request("POST", "/v3/cluster/member/add", &body)
                .filter(|answer| is_ok(answer))
        });
        etcd.others = members.iter().map(|own| own.member()).collect();
        etcd.restart();
        etcd
    }

    /// Its name, and where other members find it.
    fn member(&self) -> String {
        format!("m{0}=http://127.0.0.1:{0}", self.peer)
    }

    /// Its address for clients.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client)
    }

    /// Its port for clients.
    pub fn port(&self) -> u16 {
        self.client
    }

    /// Stops or continues its process.
    pub fn signal(&self, signal: Signal) {
        self.child.as_ref().expect("it does not run").signal(signal);
    }

    /// As if its machine lost power.
    pub fn kill(&mut self) {
        self.child = None;
    }

    /// Moves to another port; gives the port that clients know.
    pub fn hide(&mut self) -> u16 {
        self.kill();
        let [hidden] = free_ports();
        let known = std::mem::replace(&mut self.client, hidden);
        self.restart();
        known
    }

    /// A copy of its data, as a backup has it; for [`Etcd::hide_with`].
    pub fn backup(&mut self) -> TempDir {
        self.kill();
        let backup = memory_dir();
        copy(&self.folder.path().join("data"), &backup.path().join("data"));
        self.restart();
        backup
    }

    /// Goes on from a backup, which stays as it is.
    pub fn restore(&mut self, backup: &Path) {
        self.kill();
        let data = self.folder.path().join("data");
        fs::remove_dir_all(&data).unwrap();
        copy(&backup.join("data"), &data);
        self.restart();
    }

    /// As [`Etcd::hide`], and goes on from a backup.
    pub fn hide_with(&mut self, backup: TempDir) -> u16 {
        self.kill();
        self.folder = backup;
        self.hide()
    }

    /// Goes on where it was.
    pub fn show(&mut self, known: u16) {
        self.kill();
        self.client = known;
        self.restart();
    }

    /// Goes on with the data that it has.
    pub fn restart(&mut self) {
        let client = format!("{}://{}:{}", self.scheme, self.address, self.client);
        let metrics = format!("http://127.0.0.1:{}", self.metrics);
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let all = [&self.others[..], &[self.member()]].concat().join(",");
        let state = if self.others.is_empty() { "new" } else { "existing" };
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--name", &format!("m{}", self.peer), "--initial-cluster", &all])
            .args(["--initial-cluster-state", state])
            .args(["--listen-metrics-urls", &metrics])
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It is missing: tests/etcd/setup.sh installs it.
        self.child = Some(Process::start(&mut command));
        wait_for("a healthy etcd", || self.http("/health").filter(|body| body.contains("true")));
    }

    /// The value of one of its own metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let body = self.http("/metrics").unwrap();
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().trim().parse().unwrap()
    }

    /// The number of transactions that were done, or refused because something was not as compared.
    pub fn transactions(&self) -> usize {
        self.handled("Txn")
    }

    /// The number of reads that were answered.
    pub fn reads(&self) -> usize {
        self.handled("Range")
    }

    fn handled(&self, method: &str) -> usize {
        let service =
            format!(r#"grpc_method="{method}",grpc_service="etcdserverpb.KV",grpc_type="unary""#);
        self.metric(&format!(r#"grpc_server_handled_total{{grpc_code="OK",{service}}}"#)) as usize
    }

    /// The number of changes so far.
    pub fn revision(&self) -> i64 {
        let answer = self.ask("kv/range", &json!({ "key": base64(b"\0"), "count_only": true }));
        answer["header"]["revision"].as_str().unwrap().parse().unwrap()
    }

    /// Compacts the history before a revision.
    pub fn compact(&self, revision: i64) {
        let body = json!({ "revision": revision.to_string(), "physical": true });
        self.ask("kv/compaction", &body);
    }

    /// Deletes all keys below `prefix/`, at one revision.
    pub fn delete_all(&self, prefix: &str) {
        let [from, end] = ["/", "0"].map(|last| base64(format!("{prefix}{last}").as_bytes()));
        self.ask("kv/deleterange", &json!({ "key": from, "range_end": end }));
    }

    /// Adds `root` and a user `gate` with all rights below `prefix/`, both with the password `secret`, and
    /// turns the check of users on.
    pub fn enable_users(&mut self, prefix: &str) {
        let [from, end] = ["/", "0"].map(|last| base64(format!("{prefix}{last}").as_bytes()));
        for (user, role) in [("root", "root"), ("gate", "ours")] {
            self.add_user(user);
            self.ask("auth/role/add", &json!({ "name": role }));
            self.ask("auth/user/grant", &json!({ "user": user, "role": role }));
        }
        let own = json!({ "permType": "READWRITE", "key": from, "range_end": end });
        self.ask("auth/role/grant", &json!({ "name": "ours", "perm": own }));
        self.ask("auth/enable", &json!({}));
        self.has_users = true;
    }

    /// Adds a user with the password `secret`. All tokens are outdated then.
    pub fn add_user(&self, name: &str) {
        self.ask("auth/user/add", &json!({ "name": name, "password": "secret" }));
    }

    /// The answer of its JSON gateway, which has to be a good one.
    fn ask(&self, path: &str, body: &Value) -> Value {
        let post = |path: &str, token: &str, body: &Value| {
            let path = format!("/v3/{path}");
            let answer = request(self.client, "POST", &path, token, &body.to_string());
            let answer = answer.expect("etcd does not answer");
            assert!(is_ok(&answer), "{path} {body}: {answer}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            serde_json::from_str::<Value>(body).unwrap()
        };
        let token = if self.has_users {
            let root = json!({ "name": "root", "password": "secret" });
            let answer = post("auth/authenticate", "", &root);
            format!("Authorization: {}\r\n", answer["token"].as_str().unwrap())
        } else {
            String::new()
        };
        post(path, &token, body)
    }

    fn http(&self, path: &str) -> Option<String> {
        request(self.metrics, "GET", path, "", "")
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Option<String> {
        request(self.client, method, path, "", body)
    }
}

fn is_ok(answer: &str) -> bool {
    answer.contains("200 OK")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// The answer to a request with these header lines, as it came.
fn request(port: u16, method: &str, path: &str, lines: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: etcd\r\nContent-Length: {length}");
    write!(stream, "{head}\r\n{lines}\r\n{body}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Ports that nobody listens on; all are held until all are known.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// As the JSON gateway wants keys.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let of = |some: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(*some.get(at).unwrap_or(&0)));
        let digit = |at: usize| char::from(DIGITS[bits >> (18 - 6 * at) & 63]);
        (0..4).map(|at| if at <= some.len() { digit(at) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(of).collect()
}
