//! A message ready for writing: a head of its own, and a body shared by all recipients.
//!
//! The head is encoded at the time of writing, into existing memory. Until then it is just the request
//! id, shared with the subscription. So one more subscriber of an event costs no allocation.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use crate::frame::{put_varint, varint_len};

use super::ResponseBody;

/// Key of `FromAnkaios.response`: field 3, length-delimited.
const RESPONSE: u8 = 3 << 3 | 2;
/// Key of `agent_link.ToAgent.response`: field 7, length-delimited.
const RESPONSE_TO_AGENT: u8 = 7 << 3 | 2;
/// Key of `Response.requestId`: field 1, length-delimited.
const REQUEST_ID: u8 = 1 << 3 | 2;

/// The bytes of a message, its length in front, not yet in one place: [`Frame::put_head`] writes those of
/// this message, and [`Frame::body`] has those shared with other recipients. [`Frame::to_vec`] joins both.
#[derive(Clone, Debug)]
pub struct Frame {
    head: Option<Head>,
    body: Bytes,
}

/// The bytes in front of the body.
#[derive(Clone, Debug)]
struct Head {
    /// Key of the response's field.
    key: u8,
    request_id: Arc<str>,
}

impl Frame {
    /// A message in one piece.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { head: None, body: bytes }
    }

    /// A response to a workload; `body` is all of it but its request id.
    #[doc(hidden)] // `Delivery::message` has the same for users
    #[must_use]
    pub fn to_workload(request_id: Arc<str>, body: ResponseBody) -> Self {
        Self { head: Some(Head { key: RESPONSE, request_id }), body: body.into_bytes() }
    }

    /// A response to the agent.
    pub(super) fn to_agent(request_id: Arc<str>, body: ResponseBody) -> Self {
        Self { head: Some(Head { key: RESPONSE_TO_AGENT, request_id }), body: body.into_bytes() }
    }

    /// How many bytes it has.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "none is empty: its length is in front")]
    pub fn len(&self) -> usize {
        self.head_len() + self.body.len()
    }

    /// How many of them stand before the shared part.
    #[must_use]
    pub fn head_len(&self) -> usize {
        let Some(head) = &self.head else { return 0 };
        let response = response_len(&head.request_id, self.body.len());
        let message = message_len(response);
        varint_len(message as u64) + message - self.body.len()
    }

    /// Writes the bytes in front of the shared part.
    pub fn put_head(&self, out: &mut impl BufMut) {
        let Some(Head { key, request_id }) = &self.head else { return };
        let response = response_len(request_id, self.body.len());
        put_varint(out, message_len(response) as u64);
        out.put_u8(*key);
        put_varint(out, response as u64);
        // In front of the body: the id and the content are fields of one message, joined as bytes.
        if !request_id.is_empty() {
            out.put_u8(REQUEST_ID);
            put_varint(out, request_id.len() as u64);
            out.put_slice(request_id.as_bytes());
        }
    }

    /// The part shared by all messages of the same content.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// All of it.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        self.put_head(&mut all);
        all.extend_from_slice(&self.body);
        all
    }
}

/// Length of a response in bytes, without its length in front.
pub(super) fn encoded_len(request_id: &str, body_len: usize) -> usize {
    message_len(response_len(request_id, body_len))
}

fn message_len(response: usize) -> usize {
    // The key is one byte for both recipients: their fields have numbers below 16.
    1 + varint_len(response as u64) + response
}

fn response_len(request_id: &str, body_len: usize) -> usize {
    let id = match request_id.len() {
        0 => 0, // a default value has no field
        len => 1 + varint_len(len as u64) + len,
    };
    id + body_len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_what_is_written() {
        for (id, body) in [(0, 0), (0, 200), (36, 20), (36, 90), (126, 16_300), (1_024, 1 << 21)] {
            let (id, body) = (Arc::<str>::from("i".repeat(id)), Bytes::from(vec![7; body]));
            for frame in [
                Frame::to_workload(Arc::clone(&id), ResponseBody::from(body.clone())),
                Frame::to_agent(id.clone(), ResponseBody::from(body.clone())),
                Frame::whole(body.clone()),
            ] {
                let mut head = Vec::new();
                frame.put_head(&mut head);
                assert_eq!(head.len(), frame.head_len());
                let all = frame.to_vec();
                assert_eq!((all.len(), &all[head.len()..]), (frame.len(), &body[..]));
            }
            let frame = Frame::to_workload(Arc::clone(&id), ResponseBody::from(body.clone()));
            let message = encoded_len(&id, body.len());
            assert_eq!(frame.len(), varint_len(message as u64) + message);
        }
    }
}
