//! One request by HTTP, and where an agent answers them.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use testkit::{Agent, PATIENCE, wait_for};

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// The address at which the agent says that it serves `path`.
pub(crate) fn address_of(agent: &Agent, path: &str) -> String {
    wait_for("the address in the log", || {
        let log = agent.log();
        let (_, rest) = log.split_once(" at http://")?;
        let url = rest.lines().next()?;
        url.strip_suffix(path).map(str::to_owned)
    })
}

pub(crate) fn get(address: &str, path: &str) -> Answer {
    get_as(address, address, path)
}

/// With this `Host`.
pub(crate) fn get_as(address: &str, host: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    assert!(!is_chunked, "{head}");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
