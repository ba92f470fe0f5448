//! D-Bus: clients that match a signal, and one that sends it, through a Unix socket.

mod broker;
mod message;

use nix::unistd::getuid;

use crate::{
    client::{Client, Wire},
    peer::Peer,
    server::{self, Server},
};

use broker::Controller;
use message::{CALL, ERROR, Messages, RETURN, SIGNAL, Target, Values, kind};

const SOCKET: &str = "bus";
const BUS: &str = "org.freedesktop.DBus";
const INTERFACE: &str = "org.example.Events";

/// A bus of its own, with limits that do for all clients.
pub(crate) struct Bus {
    server: Server,
    _controller: Option<Controller>,
}

impl Bus {
    pub(crate) fn daemon() -> Self {
        let mut server = Server::start("dbus-daemon", |command, dir| {
            let (config, socket) = (dir.path().join("config"), dir.path().join(SOCKET));
            let text = include_str!("daemon.xml").replace("SOCKET", &socket.display().to_string());
            server::write(config.clone(), &text);
            command.args(["--nofork", "--nopidfile", "--config-file"]).arg(config);
        });
        server.wait_for_socket(SOCKET);
        Self { server, _controller: None }
    }

    pub(crate) fn broker() -> Self {
        let (server, controller) = broker::start();
        Self { server, _controller: Some(controller) }
    }

    fn connect(&self, rule: Option<&str>) -> Client {
        let mut client = Client::unix(self.server.connect(SOCKET));
        authenticate(&mut client, false);
        call(&mut client, "Hello", None);
        if rule.is_some() {
            call(&mut client, "AddMatch", rule);
        }
        client
    }
}

/// As the user that we are; also for passing descriptors.
fn authenticate(client: &mut Client, with_fds: bool) {
    let digits = getuid().to_string();
    let hex: String = digits.bytes().map(|digit| format!("{digit:02x}")).collect();
    client.say(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes());
    let answer = client.line();
    assert!(answer.starts_with("OK "), "{answer}");
    if with_fds {
        client.say(b"NEGOTIATE_UNIX_FD\r\n");
        assert_eq!(client.line(), "AGREE_UNIX_FD\r\n");
    }
    client.say(b"BEGIN\r\n");
}

/// A method of the bus itself, with at most one text.
fn call(client: &mut Client, member: &'static str, text: Option<&str>) {
    let target =
        Target { path: "/org/freedesktop/DBus", interface: BUS, member, destination: Some(BUS) };
    let mut body = Values::default();
    let signature = text.map_or("", |text| {
        body.text(text);
        "s"
    });
    client.say(&message::message(CALL, &target, signature, &body.0, 0));
    client.wait_for(&Messages, |frame| {
        assert!(kind(frame) != ERROR, "{}", String::from_utf8_lossy(frame));
        kind(frame) == RETURN
    });
}

impl Peer for Bus {
    fn subscriber(&mut self, _index: usize) -> Client {
        self.connect(Some(&format!("type='signal',interface='{INTERFACE}'")))
    }

    fn publisher(&mut self) -> Client {
        self.connect(None)
    }

    fn event(&mut self, payload: &str) -> Vec<u8> {
        let target = Target {
            path: "/org/example/events",
            interface: INTERFACE,
            member: "Speed",
            destination: None,
        };
        let mut body = Values::default();
        body.text(payload);
        message::message(SIGNAL, &target, "s", &body.0, 0)
    }

    fn wire(&self) -> &'static dyn Wire {
        &Messages
    }

    fn pid(&self) -> u32 {
        self.server.pid()
    }
}
