//! Protobuf by hand: a search makes some megabytes for each trial, and also messages that no encoder
//! makes.

use bytes::BufMut;
use prost::encoding::encode_varint;

/// A field that is a message, a text or bytes.
pub(crate) fn put(out: &mut Vec<u8>, field: u32, body: &[u8]) {
    encode_varint(u64::from(field << 3 | 2), out);
    encode_varint(body.len() as u64, out);
    out.put_slice(body);
}

/// A field that is a number.
pub(crate) fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    encode_varint(u64::from(field << 3), out);
    encode_varint(number, out);
}

/// A message with one field.
pub(crate) fn message(field: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 8);
    put(&mut out, field, body);
    out
}

/// An entry of a map whose values are messages or texts.
pub(crate) fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + value.len() + 12);
    put(&mut out, 1, key.as_bytes());
    put(&mut out, 2, value);
    out
}
