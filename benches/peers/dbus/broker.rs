//! Starts dbus-broker. It opens no socket itself: a controller gives it one, and a policy, by D-Bus. Under
//! systemd that is `dbus-broker-launch`; here it is this file.

use std::{
    io::IoSlice,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::{client::Client, server::Server};

use super::{
    SOCKET, authenticate,
    message::{self, Messages, Target, Values},
};

const LIMIT: &str = "1000000000";
/// Names, messages to send and messages to get, each with rules.
const RULES: &str = "bta(btbs)a(btssssuutt)a(btssssuutt)";

/// The connection by which the broker is told what to do: it ends with that.
pub(super) struct Controller {
    _client: Client,
}

pub(super) fn start() -> (Server, Controller) {
    let (own, other) = UnixStream::pair().unwrap();
    let server = Server::start("dbus-broker", |command, _| {
        command.args(["--controller", "0", "--machine-id", &"1".repeat(32)]);
        command.args(["--max-objects", LIMIT, "--max-matches", LIMIT, "--max-fds", LIMIT]);
        command.stdin(OwnedFd::from(other));
    });
    let listener = UnixListener::bind(server.path(SOCKET)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let socket = own.as_raw_fd();
    let mut client = Client::unix(own.try_clone().unwrap());
    authenticate(&mut client, true);
    let target = Target {
        path: "/org/bus1/DBus/Broker",
        interface: "org.bus1.DBus.Broker",
        member: "AddListener",
        destination: None,
    };
    let call = message::message(message::CALL, &target, "ohv", &arguments(), 1);
    let fds = [listener.as_raw_fd()];
    let fds = [ControlMessage::ScmRights(&fds)];
    let sent = sendmsg::<()>(socket, &[IoSlice::new(&call)], &fds, MsgFlags::empty(), None);
    assert_eq!(sent, Ok(call.len()));
    client.wait_for(&Messages, |frame| {
        assert!(message::kind(frame) != message::ERROR, "{}", String::from_utf8_lossy(frame));
        message::kind(frame) == message::RETURN
    });
    (server, Controller { _client: client })
}

/// The listener, and a policy by which everybody may do everything.
fn arguments() -> Vec<u8> {
    let mut values = Values::default();
    values.text("/org/bus1/DBus/Listener/0").u32(0);
    values.signature(&format!("(a(u({RULES}))a(buu({RULES}))a(ss)bs)")).align(8);
    values.array(|users| {
        users.align(8).u32(u32::MAX).align(8).bool(true).u64(1);
        users.array(|names| {
            names.align(8).bool(true).u64(1).bool(true).text("");
        });
        for _ in ["send", "receive"] {
            users.array(|rules| {
                rules.align(8).bool(true).u64(1);
                rules.text("").text("").text("").text("").u32(0).u32(0).u64(0).u64(u64::MAX);
            });
        }
    });
    values.array(|_| {}).array(|_| {}).bool(false).text("session");
    values.0
}
