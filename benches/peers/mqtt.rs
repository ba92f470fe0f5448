//! mosquitto, by MQTT 3.1.1 through a Unix socket.

use crate::{
    client::{Client, Wire},
    peer::Peer,
    server::{self, Server},
};

const SOCKET: &str = "mqtt";
const TOPIC: &str = "speed";
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;

/// A mosquitto without persistence, with its own limits.
pub(crate) struct Mosquitto {
    server: Server,
    qos: u8,
    packet: u16,
}

impl Mosquitto {
    pub(crate) fn start(qos: u8) -> Self {
        let mut server = Server::start("mosquitto", |command, dir| {
            let (config, socket) = (dir.path().join("config"), dir.path().join(SOCKET));
            // As root it would become a user who may not make the socket.
            let text = format!(
                "listener 0 {}\nallow_anonymous true\npersistence false\nlog_dest none\nuser root\n",
                socket.display()
            );
            server::write(config.clone(), &text);
            command.arg("-c").arg(config);
        });
        server.wait_for_socket(SOCKET);
        Self { server, qos, packet: 0 }
    }

    /// A client with a clean session, which is never asked whether it is there.
    fn connect(&self, name: &str) -> Client {
        let mut client = Client::unix(self.server.connect(SOCKET));
        let mut body = text("MQTT");
        body.extend([4, 2, 0, 0]);
        body.extend(text(name));
        client.say(&packet(0x10, &body));
        client.wait_for(&Packets, |frame| frame[0] == CONNACK && frame[3] == 0);
        client
    }
}

impl Peer for Mosquitto {
    fn subscriber(&mut self, index: usize) -> Client {
        let mut client = self.connect(&format!("subscriber{index}"));
        let mut body = vec![0, 1];
        body.extend(text(TOPIC));
        body.push(self.qos);
        client.say(&packet(0x82, &body));
        client.wait_for(&Packets, |frame| frame[0] == SUBACK);
        client
    }

    fn publisher(&mut self) -> Client {
        self.connect("publisher")
    }

    fn event(&mut self, payload: &str) -> Vec<u8> {
        let mut body = text(TOPIC);
        if self.qos > 0 {
            self.packet = self.packet.checked_add(1).unwrap_or(1);
            body.extend(self.packet.to_be_bytes());
        }
        body.extend(payload.as_bytes());
        packet(PUBLISH | self.qos << 1, &body)
    }

    fn wire(&self) -> &'static dyn Wire {
        &Packets
    }

    fn pid(&self) -> u32 {
        self.server.pid()
    }
}

fn text(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap();
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![head];
    prost::encode_length_delimiter(body.len(), &mut bytes).unwrap();
    bytes.extend(body);
    bytes
}

struct Packets;

impl Wire for Packets {
    /// One byte, and then as fifogate has it: a varint, and so many bytes.
    fn frame_len(&self, bytes: &[u8]) -> Option<usize> {
        crate::messages::frame_len(bytes.get(1..)?).map(|len| len + 1)
    }

    /// A message with QoS 1 is acknowledged.
    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        if frame[0] & 0xf6 != PUBLISH | 2 {
            return None;
        }
        let id = 1 + usize::from(frame[1] & 0x80 != 0) + 1 + 2 + TOPIC.len();
        Some(vec![PUBACK, 2, frame[id], frame[id + 1]])
    }
}
