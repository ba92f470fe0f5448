//! A commander that is one socket: HTTP/2 and gRPC as plain bytes, so that one thread can be thousands of them, and
//! so that it can also stop reading, which a library would not.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use fifogate::pb::ank_base::{self as pb, request::RequestContent};
use prost::Message;

use crate::PATIENCE;

/// The beginning of every connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PATH: &str = "/grpc_api.CommandConnection/ConnectCommand";
/// The stream of all messages.
const STREAM: u32 = 1;
/// Length of the head of a frame, and of a message.
const FRAME: usize = 9;
const MESSAGE: usize = 5;

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Flags of frames.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A message of a client (`grpc_api.ToServer`).
#[derive(Clone, PartialEq, prost::Message)]
struct ToServer {
    #[prost(message, optional, tag = "3")]
    request: Option<pb::Request>,
    #[prost(message, optional, tag = "6")]
    hello: Option<Hello>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Hello {
    #[prost(string, tag = "2")]
    version: String,
}

/// A message for a client (`grpc_api.FromServer`).
#[derive(Clone, PartialEq, prost::Message)]
struct FromServer {
    #[prost(message, optional, tag = "3")]
    response: Option<pb::Response>,
}

/// An open stream.
#[derive(Debug)]
pub struct Commander {
    /// Its connection.
    pub socket: UnixStream,
    /// Bytes that are no whole frame yet.
    frames: Vec<u8>,
    /// Content that is no whole message yet.
    content: Vec<u8>,
}

impl Commander {
    /// Connects, and says hello.
    ///
    /// # Errors
    /// The agent has not accepted the connection or the hello.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut own = Self { socket, frames: Vec::new(), content: Vec::new() };
        let mut first = PREFACE.to_vec();
        // Windows that never close: whoever stops reading is held up by its socket alone.
        first.extend(frame(SETTINGS, 0, 0, &[&[0, 4][..], &LARGE.to_be_bytes()].concat()));
        let more = LARGE - 65_535;
        first.extend(frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes()));
        first.extend(frame(HEADERS, END_HEADERS, STREAM, &headers()));
        let hello = Some(Hello { version: "1.1.0".to_owned() });
        first.extend(message(&ToServer { hello, request: None }));
        own.socket.write_all(&first)?;
        while !own.turn(&mut |_| {})?.contains(&HEADERS) {}
        Ok(own)
    }

    /// Sends a request.
    pub fn ask(&mut self, id: &str, content: RequestContent) {
        let request = pb::Request { request_id: id.to_owned(), request_content: Some(content) };
        let message = message(&ToServer { request: Some(request), hello: None });
        self.socket.write_all(&message).unwrap();
    }

    /// Waits for the next response.
    pub fn response(&mut self) -> pb::Response {
        let mut found = None;
        while found.is_none() {
            self.turn(&mut |bytes| found = Some(FromServer::decode(bytes).unwrap())).unwrap();
        }
        found.unwrap().response.unwrap()
    }

    /// Subscribes, and waits for the state.
    pub fn subscribe(&mut self, mask: &str) {
        let request = pb::CompleteStateRequest {
            field_mask: vec![mask.to_owned()],
            subscribe_for_events: true,
        };
        self.ask("s", RequestContent::CompleteStateRequest(request));
        self.response();
    }

    /// Reads what has come, and counts its whole messages.
    ///
    /// # Errors
    /// The connection or the stream has ended.
    pub fn take(&mut self) -> io::Result<usize> {
        let mut count = 0;
        match self.turn(&mut |_| count += 1) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            turned => turned.map(|_| count),
        }
    }

    /// Reads once, and answers what HTTP/2 wants answered. Returns the types of the frames that were there.
    fn turn(&mut self, on_message: &mut impl FnMut(&[u8])) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 16 << 10];
        let count = self.socket.read(&mut buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.frames.extend_from_slice(&buffer[..count]);
        let (mut kinds, mut at) = (Vec::new(), 0);
        while let Some((kind, flags, content)) = first_frame(&self.frames[at..]) {
            at += FRAME + content.len();
            kinds.push(kind);
            match kind {
                DATA => self.content.extend_from_slice(content),
                SETTINGS if flags & ACK == 0 => {
                    self.socket.write_all(&frame(SETTINGS, ACK, 0, &[]))?;
                }
                PING if flags & ACK == 0 => self.socket.write_all(&frame(PING, ACK, 0, content))?,
                RST_STREAM | GO_AWAY => return Err(ErrorKind::ConnectionReset.into()),
                _ => {}
            }
        }
        self.frames.drain(..at);
        let mut at = 0;
        while let Some(message) = first_message(&self.content[at..]) {
            at += MESSAGE + message.len();
            on_message(message);
        }
        self.content.drain(..at);
        Ok(kinds)
    }
}

/// The largest window.
const LARGE: u32 = (1 << 31) - 1;

fn first_frame(bytes: &[u8]) -> Option<(u8, u8, &[u8])> {
    let (head, rest) = bytes.split_at_checked(FRAME)?;
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    Some((head[3], head[4], rest.get(..usize::try_from(len).unwrap())?))
}

fn first_message(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_at_checked(MESSAGE)?;
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    rest.get(..usize::try_from(len).unwrap())
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

fn message(message: &ToServer) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    frame(DATA, 0, STREAM, &[&[0], &len[..], &bytes].concat())
}

/// The headers of the request, by the tables of HPACK or as plain text.
fn headers() -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let (post, http, path, authority, content_type) = (0x83, 0x86, 0x04, 0x01, [0x0f, 0x10]);
    [
        &[post, http, path][..],
        &text(PATH),
        &[authority],
        &text("localhost"),
        &content_type,
        &text("application/grpc"),
        &[0],
        &text("te"),
        &text("trailers"),
    ]
    .concat()
}
