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
        let (child, others) = (None, Vec::new());
        Self { child, address, folder, client, peer, options, scheme, metrics, others }
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
        let service = r#"grpc_method="Txn",grpc_service="etcdserverpb.KV",grpc_type="unary""#;
        let all = self.metric(&format!(r#"grpc_server_handled_total{{grpc_code="OK",{service}}}"#));
        all as usize
    }

    /// The number of changes so far.
    pub fn revision(&self) -> i64 {
        let answer = self.request("POST", "/v3/kv/range", r#"{"key":"AA==","count_only":true}"#);
        let (_, body) = answer.as_deref().unwrap().split_once("\r\n\r\n").unwrap();
        let answer: serde_json::Value = serde_json::from_str(body).unwrap();
        answer["header"]["revision"].as_str().unwrap().parse().unwrap()
    }

    /// Compacts the history before a revision.
    pub fn compact(&self, revision: i64) {
        let body = format!(r#"{{"revision":"{revision}","physical":true}}"#);
        let answer = self.request("POST", "/v3/kv/compaction", &body).unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
    }

    fn http(&self, path: &str) -> Option<String> {
        request(self.metrics, "GET", path, "")
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Option<String> {
        request(self.client, method, path, body)
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

fn request(port: u16, method: &str, path: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: etcd\r\nContent-Length: {length}");
    write!(stream, "{head}\r\n\r\n{body}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Ports that nobody listens on; all are held until all are known.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
