//! NATS, by its text protocol through loopback TCP: it has no Unix sockets.

use std::net::TcpStream;

use testkit::wait_for;

use crate::{
    client::{Client, Wire},
    peer::Peer,
    server::{self, Server},
};

const SUBJECT: &str = "speed";

/// A nats-server without JetStream: it keeps nothing.
pub(crate) struct Nats {
    server: Server,
    port: u16,
}

impl Nats {
    pub(crate) fn start() -> Self {
        let port = server::free_port();
        let server = Server::start("nats-server", |command, _| {
            command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
        });
        wait_for("a nats-server", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { server, port }
    }

    fn connect(&self, hello: &str) -> Client {
        let mut client = Client::tcp(TcpStream::connect(("127.0.0.1", self.port)).unwrap());
        let options = r#"{"verbose":false,"pedantic":false}"#;
        client.say(format!("CONNECT {options}\r\n{hello}PING\r\n").as_bytes());
        client.wait_for(&Lines, |frame| frame == b"PONG\r\n");
        client
    }
}

impl Peer for Nats {
    fn subscriber(&mut self, _index: usize) -> Client {
        self.connect(&format!("SUB {SUBJECT} 1\r\n"))
    }

    fn publisher(&mut self) -> Client {
        self.connect("")
    }

    fn event(&mut self, payload: &str) -> Vec<u8> {
        format!("PUB {SUBJECT} {}\r\n{payload}\r\n", payload.len()).into_bytes()
    }

    fn wire(&self) -> &'static dyn Wire {
        &Lines
    }

    fn pid(&self) -> u32 {
        self.server.pid()
    }
}

struct Lines;

impl Wire for Lines {
    /// A line; that of a message ends in the length of what follows.
    fn frame_len(&self, bytes: &[u8]) -> Option<usize> {
        let line = bytes.windows(2).position(|two| two == b"\r\n")?;
        let mut len = line + 2;
        if bytes.starts_with(b"MSG ") {
            let digits = bytes[..line].rsplit(|byte| *byte == b' ').next()?;
            len +=
                digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')) + 2;
        }
        (len <= bytes.len()).then_some(len)
    }

    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        (frame == b"PING\r\n").then(|| b"PONG\r\n".to_vec())
    }
}
