//! As much of HTTP/2 and gRPC as a client of etcd needs that decodes no headers.

use crate::client::Wire;

const HEAD: usize = 9;
pub(crate) const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;
const LARGEST_WINDOW: u32 = 0x7fff_ffff;
const FIRST_WINDOW: u32 = 65_535;

/// The first bytes of a client, with windows that never fill: what holds a server back is the socket.
pub(crate) fn hello() -> Vec<u8> {
    let mut setting = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    setting.extend(LARGEST_WINDOW.to_be_bytes());
    let more = (LARGEST_WINDOW - FIRST_WINDOW).to_be_bytes();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &setting),
        frame(WINDOW_UPDATE, 0, 0, &more),
    ]
    .concat()
}

/// A call with one message; more may follow if it is not the `last`.
pub(crate) fn call(stream: u32, path: &str, message: &impl prost::Message, last: bool) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut data = vec![0];
    data.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    data.extend(message);
    let flags = if last { END_STREAM } else { 0 };
    let headers = frame(HEADERS, END_HEADERS, stream, &headers(path));
    [headers, frame(DATA, flags, stream, &data)].concat()
}

/// HPACK: names of the static table by their index, values as they are.
fn headers(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    let mut add = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    };
    add(&[0x04], path);
    add(&[0x01], "localhost");
    add(&[0x0f, 0x10], "application/grpc"); // content-type: index 31
    add(b"\x00\x02te", "trailers");
    block
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = len[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The kind of a frame.
pub(crate) fn kind(frame: &[u8]) -> u8 {
    frame[3]
}

pub(crate) struct Http2;

impl Wire for Http2 {
    fn frame_len(&self, bytes: &[u8]) -> Option<usize> {
        let len = bytes.get(..3)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        (HEAD + len <= bytes.len()).then_some(HEAD + len)
    }

    fn answer(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let is_ack = bytes[4] & ACK != 0;
        match kind(bytes) {
            SETTINGS if !is_ack => Some(frame(SETTINGS, ACK, 0, &[])),
            PING if !is_ack => Some(frame(PING, ACK, 0, &bytes[HEAD..])),
            _ => None,
        }
    }

    fn body<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        if kind(frame) == DATA { &frame[HEAD..] } else { &[] }
    }
}
