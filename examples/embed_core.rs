//! The core without pipes: sessions, access rules and subscriptions over a transport of one's own.
//!
//! The transport is a Unix socket here. Frames come in as bytes, and go out as bytes; the broker knows
//! no file, thread or clock. The other end of the socket is a workload that subscribes, and writes a
//! config: its event comes after the grace time, which ends at a deadline of the broker.
//!
//! ```text
//! cargo run --example embed_core --no-default-features
//! ```

use std::{
    error::Error,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use fifogate::{
    broker::{AckMode, Broker, Config, Input, Output, PeerId, Tick},
    frame::{FrameDecoder, encode},
    limits::Limits,
    message::FromWorkload,
    pb::{
        ank_base::{
            CompleteState, CompleteStateRequest, ConfigItem, ConfigMap, Request, State,
            UpdateStateRequest, config_item::ConfigItemEnum, request::RequestContent,
        },
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
        // Asked for before each wait: any input or output may have started a timer.
        socket.set_read_timeout(until(broker.next_deadline(), now()))?;
        let count = match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                broker.handle(now(), Input::Tick);
                write_outputs(broker, peer, &mut socket, now())?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mut bytes = &buffer[..count];
        while let Some(body) = decoder.next_frame(&mut bytes)? {
            let message = FromWorkload::decode(&body, &limits);
            broker.handle(now(), Input::Message { peer, message, written: 0 });
            write_outputs(broker, peer, &mut socket, now())?;
        }
    }
}

/// The time until a deadline, as a timeout of a read: at least 1 ms, because zero is no timeout.
fn until(deadline: Option<Tick>, now: Tick) -> Option<Duration> {
    deadline.map(|due| Duration::from_millis(due.0.saturating_sub(now.0).max(1)))
}

/// Writes the messages of the broker, until it has no work left. A written frame is reported, as it
/// frees the window. This workload takes each frame at once; a server asks its pipe.
fn write_outputs(
    broker: &mut Broker,
    peer: PeerId,
    socket: &mut UnixStream,
    now: Tick,
) -> Result<(), Box<dyn Error>> {
    while let Some(output) = broker.poll_output() {
        // Many receivers share the body of an event. Here there is one peer, and an end of a slice
        // needs nothing: no other input waits.
        let (seq, message, ack) = match output {
            Output::Send { seq, message, ack, .. } => (seq, message, ack),
            Output::Multicast { body, deliveries } => match deliveries.first() {
                Some(own) => (own.seq, own.message(&body), own.ack),
                None => continue,
            },
            _ => continue,
        };
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
    let hello = ToAnkaiosEnum::Hello(Hello { protocol_version: "1.0.0".to_owned() });
    for content in [hello, subscription(), update()] {
        let message = ToAnkaios { to_ankaios_enum: Some(content) };
        socket.write_all(&encode(&message.encode_to_vec()))?;
    }
    let (mut decoder, mut buffer, mut answers) = (FrameDecoder::new(1 << 20), [0; 4096], 0);
    // Accepted, the desired state, the answer of the update, and the event of the subscription.
    while answers < 4 {
        let count = socket.read(&mut buffer)?;
        let mut bytes = &buffer[..count];
        while let Some(body) = decoder.next_frame(&mut bytes)? {
            println!("{:?}", FromAnkaios::decode(body)?);
            answers += 1;
        }
    }
    Ok(())
}

/// The request for the desired state, and for the events of its changes.
fn subscription() -> ToAnkaiosEnum {
    let field_mask = vec!["desiredState".into()];
    let read = CompleteStateRequest { field_mask, subscribe_for_events: true };
    let request_content = Some(RequestContent::CompleteStateRequest(read));
    ToAnkaiosEnum::Request(Request { request_id: "1".to_owned(), request_content })
}

/// The request to set one config.
fn update() -> ToAnkaiosEnum {
    let value = ConfigItem { config_item_enum: Some(ConfigItemEnum::String("on".to_owned())) };
    let configs = ConfigMap { configs: [("light".to_owned(), value)].into() };
    let desired =
        State { api_version: "v1".to_owned(), configs: Some(configs), ..Default::default() };
    let new_state = Some(CompleteState { desired_state: Some(desired), ..Default::default() });
    let update_mask = vec!["desiredState.configs.light".to_owned()];
    let update = UpdateStateRequest { new_state, update_mask };
    let request_content = Some(RequestContent::UpdateStateRequest(update));
    ToAnkaiosEnum::Request(Request { request_id: "2".to_owned(), request_content })
}

/// A state with one workload that may read and write the desired state.
fn one_workload() -> Tree {
    let rule = Node::map([
        ("type", Node::text("StateRule")),
        ("operation", Node::text("ReadWrite")),
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
