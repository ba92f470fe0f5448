//! `fifogate encode` and `decode`: protobuf JSON in lines, to and from framed messages.
//!
//! Both translate by the descriptors of `proto/` and follow the canonical JSON mapping. What they
//! are fed comes from the user: a fault is told with its place, a line going in and a byte coming
//! out.

use std::io::{self, BufRead, Read};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::{
    args::{DecodeArgs, EncodeArgs, MessageType},
    error::CliError,
    stdout::Stdout,
};
use crate::{
    frame::{self, FrameDecoder, FrameError},
    pb,
};

pub(super) fn encode(args: &EncodeArgs) -> Result<(), CliError> {
    let descriptor = descriptor(args.message_type)?;
    let mut out = Stdout::open()?;
    for (number, line) in (1..).zip(io::stdin().lock().split(b'\n')) {
        let line = line.map_err(|error| cannot_read(&error))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let message = from_json(&descriptor, &line).map_err(|error| {
            let (what, right) = (json_fault(&error), example(args.message_type));
            let name = descriptor.name();
            CliError::unusable(format!(
                "<stdin>:{number}: {what}; a line holds one {name}, such as {right}"
            ))
        })?;
        out.put(frame::encode(&message.encode_to_vec()))?;
    }
    Ok(())
}

fn from_json(descriptor: &MessageDescriptor, line: &[u8]) -> serde_json::Result<DynamicMessage> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let message = DynamicMessage::deserialize(descriptor.clone(), &mut json)?;
    json.end()?;
    Ok(message)
}

/// What is wrong, with the place within the line; the parser's own line number is always 1.
fn json_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => format!("{what} at column {}", error.column()),
        None => text,
    }
}

fn example(message_type: MessageType) -> &'static str {
    match message_type {
        MessageType::ToAnkaios => r#"{"hello":{"protocolVersion":"1.0.0"}}"#,
        MessageType::FromAnkaios => r#"{"connectionClosed":{"reason":"..."}}"#,
    }
}

pub(super) fn decode(args: &DecodeArgs) -> Result<(), CliError> {
    let mut printer = MessagePrinter {
        descriptor: descriptor(args.message_type)?,
        out: Stdout::open()?,
        skipped: 0,
    };
    let mut frames = FrameDecoder::new(args.max_frame);
    // Where the frame began that is being read, and how far the input was read.
    let (mut start, mut read) = (0, 0);
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut rest = match stdin.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => &buffer[..len],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(cannot_read(&error)),
        };
        loop {
            let before = rest.len();
            let frame = frames.next_frame(&mut rest);
            read += before - rest.len();
            match frame {
                Ok(Some(body)) => {
                    printer.print(&body, start)?;
                    start = read;
                }
                Ok(None) => break,
                Err(error) => return Err(unreadable(start, &error)),
            }
        }
    }
    if frames.is_mid_frame() {
        return Err(CliError::failed(format!(
            "<stdin>: byte {start}: the input ends at byte {read}, within the frame that begins \
             here"
        )));
    }
    match printer.skipped {
        0 => Ok(()),
        count => Err(CliError::failed(format!("{count} of the messages did not decode"))),
    }
}

fn unreadable(start: usize, error: &FrameError) -> CliError {
    let right = match error {
        FrameError::TooLarge { .. } => "; --max-frame allows more",
        _ => "",
    };
    CliError::failed(format!("<stdin>: byte {start}: {error}{right}"))
}

struct MessagePrinter {
    descriptor: MessageDescriptor,
    out: Stdout,
    skipped: u64,
}

impl MessagePrinter {
    /// Prints the message of a frame that began at byte `start`.
    fn print(&mut self, body: &[u8], start: usize) -> Result<(), CliError> {
        let line = match DynamicMessage::decode(self.descriptor.clone(), body) {
            Ok(message) => serde_json::to_string(&message).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match line {
            Ok(line) => self.out.put(line + "\n"),
            Err(what) => {
                let name = self.descriptor.name();
                log::error!("<stdin>: byte {start}: this is no {name}, it is skipped: {what}");
                self.skipped += 1;
                Ok(())
            }
        }
    }
}

fn descriptor(message_type: MessageType) -> Result<MessageDescriptor, CliError> {
    let name = match message_type {
        MessageType::ToAnkaios => "control_api.ToAnkaios",
        MessageType::FromAnkaios => "control_api.FromAnkaios",
    };
    let pool = DescriptorPool::decode(pb::DESCRIPTORS)
        .map_err(|error| CliError::failed(format!("the schema was not built in well: {error}")))?;
    pool.get_message_by_name(name)
        .ok_or_else(|| CliError::failed(format!("the schema has no message {name}")))
}

fn cannot_read(error: &io::Error) -> CliError {
    CliError::failed(format!("cannot read standard input: {error}"))
}
