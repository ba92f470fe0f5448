//! etcd: clients that watch a key, and one that puts it, by gRPC through a Unix socket.

use prost::Message;

use crate::{
    client::{Client, Wire},
    http2::{self, Http2},
    peer::Peer,
    server::Server,
};

const SOCKET: &str = "client:0";
const KEY: &[u8] = b"speed";

/// `WatchRequest`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct Watch {
    #[prost(message, optional, tag = "1")]
    create: Option<Create>,
}

#[derive(Clone, PartialEq, Message)]
struct Create {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// `PutRequest`.
#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// A single member, with its data in memory.
pub(crate) struct Etcd {
    server: Server,
    stream: u32,
}

impl Etcd {
    pub(crate) fn start() -> Self {
        let mut server = Server::start("etcd", |command, _| {
            let client = format!("unix://{SOCKET}");
            command.args(["--data-dir", "data"]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", "unix://peer:0"]);
            command.args(["--initial-advertise-peer-urls", "unix://peer:0"]);
            command.args(["--initial-cluster", "default=unix://peer:0"]);
        });
        server.wait_for_socket(SOCKET);
        Self { server, stream: 1 }
    }

    fn connect(&self) -> Client {
        let mut client = Client::unix(self.server.connect(SOCKET));
        client.say(&http2::hello());
        client
    }
}

impl Peer for Etcd {
    fn subscriber(&mut self, _index: usize) -> Client {
        let mut client = self.connect();
        let watch = Watch { create: Some(Create { key: KEY.to_vec() }) };
        client.say(&http2::call(1, "/etcdserverpb.Watch/Watch", &watch, false));
        client.wait_for(&Http2, |frame| http2::kind(frame) == http2::DATA);
        client
    }

    fn publisher(&mut self) -> Client {
        self.connect()
    }

    fn event(&mut self, payload: &str) -> Vec<u8> {
        let put = Put { key: KEY.to_vec(), value: payload.as_bytes().to_vec() };
        let stream = self.stream;
        self.stream += 2;
        http2::call(stream, "/etcdserverpb.KV/Put", &put, true)
    }

    fn wire(&self) -> &'static dyn Wire {
        &Http2
    }

    fn pid(&self) -> u32 {
        self.server.pid()
    }
}
