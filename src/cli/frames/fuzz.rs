//! Fuzz target `encode`: bytes as a line of protobuf JSON.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage};

use super::{MessageType, descriptor, from_json};

/// Reads `data` as one message of each type. What is accepted has to be the same again after a way
/// over the wire and over JSON.
///
/// The entry of the fuzz target `encode`, and of a test over its seeds.
///
/// # Panics
/// A promise is broken.
pub fn fuzz_encode(data: &[u8]) {
    static DESCRIPTORS: LazyLock<Vec<MessageDescriptor>> = LazyLock::new(|| {
        let types = [MessageType::ToAnkaios, MessageType::FromAnkaios];
        types.into_iter().filter_map(|own| descriptor(own).ok()).collect()
    });
    assert_eq!(DESCRIPTORS.len(), 2);
    for descriptor in &*DESCRIPTORS {
        let Ok(message) = from_json(descriptor, data) else { continue };
        let sent = over_the_wire(&message);
        let json = serde_json::to_vec(&sent).unwrap_or_default();
        let read = from_json(descriptor, &json).map(|message| over_the_wire(&message));
        assert_eq!(read.ok().as_ref(), Some(&sent));
    }
}

fn over_the_wire(message: &DynamicMessage) -> DynamicMessage {
    let bytes = message.encode_to_vec();
    let decoded = DynamicMessage::decode(message.descriptor(), &bytes[..]);
    decoded.unwrap_or_else(|error| unreachable!("an encoded message does not decode: {error}"))
}
