//! A headless Chromium, driven over WebDriver (https://www.w3.org/TR/webdriver2/): the few commands that the
//! test of the page needs.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{PATIENCE, Process, is_root, skip, wait_for};

/// A browser with one window.
pub(crate) struct Browser {
    address: String,
    session: String,
    // Dropped behind the session.
    _driver: Process,
    _dir: TempDir,
}

impl Browser {
    /// Starts it; `None`, and the test is skipped, where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let is_there = |program| Command::new(program).arg("--version").output().is_ok();
        if !is_there("chromedriver") || !is_there("chromium") {
            skip("chromium or chromedriver is not installed (tests/page/setup.sh)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env("HOME", dir.path()).stdin(Stdio::null());
        command.stdout(File::create(&log).unwrap()).stderr(Stdio::null());
        let driver = Process::start(&mut command);
        let port = wait_for("the port of chromedriver", || {
            let log = fs::read_to_string(&log).ok()?;
            let (_, rest) = log.split_once("started successfully on port ")?;
            Some(rest.split_once('.')?.0.to_owned())
        });
        let address = format!("127.0.0.1:{port}");
        let mut args = vec!["--headless=new", "--disable-gpu", "--disable-dev-shm-usage"];
        args.push("--window-size=1280,1050");
        if is_root() {
            args.push("--no-sandbox");
        }
        let options = json!({ "args": args });
        let capabilities = json!({ "alwaysMatch": { "goog:chromeOptions": options } });
        let made = call(&address, "POST", "/session", &json!({ "capabilities": capabilities }));
        let session = made["sessionId"].as_str().unwrap().to_owned();
        Some(Self { address, session, _driver: driver, _dir: dir })
    }

    /// Opens a page.
    pub(crate) fn open(&self, url: &str) {
        self.call("POST", "/url", &json!({ "url": url }));
    }

    /// The result of a function's body in the page.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.call("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until the result of a function's body is true.
    pub(crate) fn until(&self, what: &str, script: &str) {
        wait_for(what, || (self.run(script) == json!(true)).then_some(()));
    }

    /// What the window shows, as PNG.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        let text = self.call("GET", "/screenshot", &Value::Null);
        BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap()
    }

    fn call(&self, method: &str, command: &str, body: &Value) -> Value {
        call(&self.address, method, &format!("/session/{}{command}", self.session), body)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends the browser, which the driver would leave behind.
        let _ = exchange(&self.address, "DELETE", &format!("/session/{}", self.session), "");
    }
}

fn call(address: &str, method: &str, path: &str, body: &Value) -> Value {
    let body = if method == "POST" { body.to_string() } else { String::new() };
    let answer = exchange(address, method, path, &body).unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert!(answer["value"]["error"].is_null(), "{answer}");
    answer["value"].clone()
}

fn exchange(address: &str, method: &str, path: &str, body: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    // The driver does not close the connection, whatever it is asked for.
    let mut answer = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        answer.read_line(&mut line)?;
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap();
            }
            None if line.trim().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    answer.read_exact(&mut body)?;
    Ok(body)
}
