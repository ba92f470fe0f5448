//! The core without pipes: sessions, access rules and subscriptions over a transport of one's own.
//!
//! The transport is a Unix socket here. Frames come in as bytes, and go out as bytes; the broker knows
//! no file, thread or clock. The other end of the socket is a workload that says hello and reads.
//!
//! ```text
//! cargo run --example embed_core --no-default-features
//! ```

use std::{
    error::Error,
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::Instant,
};

use fifogate::{
    broker::{AckMode, Broker, Config, Input, Output, PeerId, Tick},
    frame::{FrameDecoder, encode},
    limits::Limits,
    message::FromWorkload,
    pb::{
        ank_base::{CompleteStateRequest, Request, request::RequestContent},
        control_api::{FromAnkaios, Hello, ToAnkaios, to_ankaios::ToAnkaiosEnum},
    },
    state::{Node, Tree, update},
};
use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let (socket, workload_end) = UnixStream::pair()?;
    let workload = thread::spawn(move || be_the_workload(workload_end).map_err(|e| e.to_string()));
    let mut broker = Broker::new(Config::default());
    broker
        .start(&update::apply(&Tree::initial(), &one_workload(), &[]).map_err(|e| e.to_string())?);
    serve(&mut broker, socket)?;
    workload.join().map_err(|_| "the workload panicked")??;
    Ok(())
}

/// Serves one workload over `socket`, until it closes its end.
fn serve(broker: &mut Broker, mut socket: UnixStream) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let now = || Tick(began.elapsed().as_millis() as u64);
    let Some(Output::OpenPair(peer, ..)) = broker.poll_output() else {
        return Err("no pair".into());
    };
    broker.handle(now(), Input::PairOpened(peer, "a socket".to_owned()));
    let (limits, mut buffer) = (Limits::default(), [0; 4096]);
    let mut decoder = FrameDecoder::new(limits.max_frame);
    loop {
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let mut bytes = &buffer[..count];
        while let Some(body) = decoder.next_frame(&mut bytes)? {
            let message = FromWorkload::decode(&body, &limits);
            broker.handle(now(), Input::Message { peer, message, written: 0 });
            write_outputs(broker, peer, &mut socket, now())?;
        }
    }
}

/// Writes the messages of the broker. A written frame is reported, as it frees the window.
fn write_outputs(
    broker: &mut Broker,
    peer: PeerId,
    socket: &mut UnixStream,
    now: Tick,
) -> Result<(), Box<dyn Error>> {
    while let Some(output) = broker.poll_output() {
        let Output::Send { seq, message, ack, .. } = output else { continue };
        socket.write_all(&message.into_frame().to_vec())?;
        match ack {
            AckMode::None => {}
            AckMode::Written => broker.handle(now, Input::Written(peer, seq)),
            AckMode::Taken => broker.handle(now, Input::Taken(peer, seq)),
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout)] // it is what the example shows
fn be_the_workload(mut socket: UnixStream) -> Result<(), Box<dyn Error>> {
    let read =
        CompleteStateRequest { field_mask: vec!["desiredState".into()], ..Default::default() };
    let request_content = Some(RequestContent::CompleteStateRequest(read));
    let request = Request { request_id: "1".to_owned(), request_content };
    let hello = Hello { protocol_version: "1.0.0".to_owned() };
    for content in [ToAnkaiosEnum::Hello(hello), ToAnkaiosEnum::Request(request)] {
        let message = ToAnkaios { to_ankaios_enum: Some(content) };
        socket.write_all(&encode(&message.encode_to_vec()))?;
    }
    let (mut decoder, mut buffer, mut answers) = (FrameDecoder::new(1 << 20), [0; 4096], 0);
    while answers < 2 {
        let count = socket.read(&mut buffer)?;
        let mut bytes = &buffer[..count];
        while let Some(body) = decoder.next_frame(&mut bytes)? {
            println!("{:?}", FromAnkaios::decode(body)?);
            answers += 1;
        }
    }
    Ok(())
}

/// A state with one workload that may read the desired state.
fn one_workload() -> Tree {
    let rule = Node::map([
        ("type", Node::text("StateRule")),
        ("operation", Node::text("Read")),
        ("filterMasks", Node::seq([Node::text("desiredState")])),
    ]);
    let workload = Node::map([
        ("agent", Node::text("node_a")),
        ("runtime", Node::text("process")),
        ("runtimeConfig", Node::text("command: ./reader")),
        ("controlInterfaceAccess", Node::map([("allowRules", Node::seq([rule]))])),
    ]);
    let workloads = Node::map([("reader", workload)]);
    let desired = Node::map([("apiVersion", Node::text("v1")), ("workloads", workloads)]);
    Tree::default().with("desiredState", Some(desired))
}
