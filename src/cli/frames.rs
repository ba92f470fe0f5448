//! `fifogate encode` and `decode`: lines of protobuf JSON to framed messages, and back.
//!
//! Both use the descriptors of `proto/` and the canonical JSON mapping. The input is untrusted: a
//! fault is reported with its line when encoding, and with its byte offset when decoding.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use prost::{DecodeError, Message};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, Value};

use super::{
    args::{DecodeArgs, EncodeArgs, MessageType},
    error::CliError,
    protobuf_json::ProtobufJson,
    stdout::Stdout,
};
use crate::{
    frame::{self, FrameDecoder, FrameError},
    limits::{MAX_NESTING, MAX_VALUE_BYTES, too_deep, too_large},
    pb, source,
};

pub(crate) mod fuzz;

pub(super) fn encode(args: &EncodeArgs) -> Result<(), CliError> {
    let descriptor = descriptor(args.message_type)?;
    let (name, source) = open(&args.file)?;
    let mut out = Stdout::open()?;
    for (number, line) in (1..).zip(BufReader::new(source).split(b'\n')) {
        let line = line.map_err(|error| cannot_read(&args.file, &error))?;
        // Some editors write a byte-order mark at the start of a file, and files can be joined.
        let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line);
        if line.trim_ascii().is_empty() {
            continue;
        }
        let message = from_json(&descriptor, line).map_err(|what| {
            let (file, right) = (&name, example(args.message_type));
            let name = descriptor.name();
            CliError::unusable(format!(
                "{file}:{number}: {what}; a line holds one {name}, such as {right}"
            ))
        })?;
        out.put(frame::encode(&message.encode_to_vec()))?;
    }
    Ok(())
}

fn from_json(descriptor: &MessageDescriptor, line: &[u8]) -> Result<DynamicMessage, LineFault> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let message = DynamicMessage::deserialize(descriptor.clone(), ProtobufJson(&mut json));
    // `end` refuses text behind the message: a line holds one.
    let message = message.and_then(|message| json.end().map(|()| message));
    let message = message.map_err(LineFault::Json)?;
    check_nesting(&message)?;
    check_sizes(&message).map(|()| message)
}

/// Fault of a line to encode. The author of the line made it.
#[derive(Debug)]
enum LineFault {
    Json(serde_json::Error),
    TooDeep,
    /// A config or a workload of this many bytes.
    TooLarge(usize),
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => f.write_str(&json_fault(error)),
            Self::TooDeep => f.write_str(&too_deep("a config")),
            Self::TooLarge(bytes) => f.write_str(&too_large("a value in it", *bytes)),
        }
    }
}

/// Rejects configs nested deeper than [`MAX_NESTING`], as fifogate and its agent do.
fn check_nesting(message: &DynamicMessage) -> Result<(), LineFault> {
    if fits(message, MAX_NESTING) { Ok(()) } else { Err(LineFault::TooDeep) }
}

/// Whether each config in the message has at most `levels` levels. The walk visits all levels of
/// the message; the decoders have bounded their number.
fn fits(message: &DynamicMessage, levels: usize) -> bool {
    let descriptor = message.descriptor();
    let is_level =
        ["ank_base.ConfigArray", "ank_base.ConfigObject"].contains(&descriptor.full_name());
    // Only these two are levels of a config; the messages around them count nothing.
    let Some(below) = levels.checked_sub(usize::from(is_level)) else { return false };
    let fits_below = |value: &Value| value.as_message().is_none_or(|own| fits(own, below));
    message.fields().all(|(_, value)| match value {
        Value::List(values) => values.iter().all(fits_below),
        Value::Map(values) => values.values().all(fits_below),
        value => fits_below(value),
    })
}

/// Rejects configs and workloads larger than [`MAX_VALUE_BYTES`], as fifogate and its agent do. Values are at
/// most as large as the message around them, so most messages are not walked.
fn check_sizes(message: &DynamicMessage) -> Result<(), LineFault> {
    let bytes = message.encoded_len();
    if bytes <= MAX_VALUE_BYTES {
        return Ok(());
    }
    if ["ank_base.ConfigItem", "ank_base.Workload"].contains(&message.descriptor().full_name()) {
        return Err(LineFault::TooLarge(bytes));
    }
    let check = |value: &Value| value.as_message().map_or(Ok(()), check_sizes);
    message.fields().try_for_each(|(_, value)| match value {
        Value::List(values) => values.iter().try_for_each(check),
        Value::Map(values) => values.values().try_for_each(check),
        value => check(value),
    })
}

/// The text of a JSON fault, with its column. The parser's line number is dropped: it is always 1.
fn json_fault(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("recursion limit exceeded") {
        return too_deep("a config");
    }
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
    let descriptor = descriptor(args.message_type)?;
    let (name, mut source) = open(&args.file)?;
    let mut printer = MessagePrinter { file: name, descriptor, out: Stdout::open()?, skipped: 0 };
    let mut frames = FrameDecoder::new(args.max_frame);
    // Byte offsets: start of the current frame, and end of the decoded input.
    let (mut start, mut read) = (0, 0);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut rest = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => &buffer[..len],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(cannot_read(&args.file, &error)),
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
                // Without framing the start of the next message is unknown, so this fault ends the command.
                Err(error) => return Err(unreadable(&printer.file, start, &error)),
            }
        }
    }
    if frames.is_mid_frame() {
        return Err(CliError::failed(format!(
            "{}: byte {start}: the input ends at byte {read}, within the frame that begins here",
            printer.file
        )));
    }
    // A skipped message does not end the run, but makes it a failure.
    match printer.skipped {
        0 => Ok(()),
        count => Err(CliError::failed(format!("{count} of the messages did not decode"))),
    }
}

fn unreadable(file: &str, start: usize, error: &FrameError) -> CliError {
    let right = match error {
        FrameError::TooLarge { .. } => "; --max-frame allows more",
        _ => "",
    };
    CliError::failed(format!("{file}: byte {start}: {error}{right}"))
}

struct MessagePrinter {
    file: String,
    descriptor: MessageDescriptor,
    out: Stdout,
    skipped: u64,
}

impl MessagePrinter {
    /// Prints the message of a frame with its start at byte `start`.
    fn print(&mut self, body: &[u8], start: usize) -> Result<(), CliError> {
        let line = match DynamicMessage::decode(self.descriptor.clone(), body) {
            Ok(message) => check_nesting(&message)
                .map_err(|fault| fault.to_string())
                .and_then(|()| serde_json::to_string(&message).map_err(|error| error.to_string())),
            Err(error) => Err(wire_fault(&error)),
        };
        match line {
            Ok(line) => self.out.put(line + "\n"),
            Err(what) => {
                let (file, name) = (&self.file, self.descriptor.name());
                log::error!("{file}: byte {start}: this is no {name}, it is skipped: {what}");
                self.skipped += 1;
                Ok(())
            }
        }
    }
}

fn wire_fault(error: &DecodeError) -> String {
    let text = error.to_string();
    if text.ends_with("recursion limit reached") { too_deep("a config") } else { text }
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

/// The name of the input in messages, and the open input.
fn open(file: &Path) -> Result<(String, Box<dyn Read>), CliError> {
    let name = source::name(file);
    match source::open(file) {
        Ok(from) => Ok((name, from)),
        Err(error) => Err(CliError::unusable(format!("{name}: {error}"))),
    }
}

fn cannot_read(file: &Path, error: &io::Error) -> CliError {
    let name =
        if source::is_stdin(file) { "standard input".to_owned() } else { source::name(file) };
    let message = format!("cannot read {name}: {error}");
    match error.kind() {
        // Unlike other failures of a read, this one is there for good: it is the wrong file.
        io::ErrorKind::IsADirectory => CliError::unusable(message),
        _ => CliError::failed(message),
    }
}
