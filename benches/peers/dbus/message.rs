//! D-Bus messages, as far as they are needed here: little-endian.

use crate::client::Wire;

pub(crate) const CALL: u8 = 1;
pub(crate) const RETURN: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const SIGNAL: u8 = 4;
const FIXED: usize = 16;

/// Values one after the other, each where its type wants it.
#[derive(Default)]
pub(crate) struct Values(pub(crate) Vec<u8>);

impl Values {
    pub(crate) fn align(&mut self, to: usize) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.align(4).0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Self {
        self.u32(value.into())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.align(8).0.extend(value.to_le_bytes());
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.u32(text.len().try_into().unwrap()).0.extend(text.as_bytes());
        self.0.push(0);
        self
    }

    pub(crate) fn signature(&mut self, text: &str) -> &mut Self {
        self.0.push(text.len().try_into().unwrap());
        self.0.extend(text.as_bytes());
        self.0.push(0);
        self
    }

    /// An array of structures.
    pub(crate) fn array(&mut self, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.u32(0);
        let place = self.0.len() - 4;
        let begin = self.align(8).0.len();
        fill(self);
        let len = u32::try_from(self.0.len() - begin).unwrap();
        self.0[place..place + 4].copy_from_slice(&len.to_le_bytes());
        self
    }
}

/// What a message is about.
pub(crate) struct Target {
    pub(crate) path: &'static str,
    pub(crate) interface: &'static str,
    pub(crate) member: &'static str,
    pub(crate) destination: Option<&'static str>,
}

/// A whole message with `fds` descriptors beside it.
pub(crate) fn message(
    kind: u8,
    target: &Target,
    signature: &str,
    body: &[u8],
    fds: u32,
) -> Vec<u8> {
    let mut bytes = Values::default();
    bytes.0.extend([b'l', kind, 0, 1]);
    bytes.u32(body.len().try_into().unwrap()).u32(1).array(|fields| {
        let texts = [
            (1, "o", Some(target.path)),
            (2, "s", Some(target.interface)),
            (3, "s", Some(target.member)),
            (6, "s", target.destination),
        ];
        for (code, kind, text) in texts {
            if let Some(text) = text {
                fields.align(8).0.push(code);
                fields.signature(kind).text(text);
            }
        }
        if !signature.is_empty() {
            fields.align(8).0.push(8);
            fields.signature("g").signature(signature);
        }
        if fds > 0 {
            fields.align(8).0.push(9);
            fields.signature("u").u32(fds);
        }
    });
    bytes.align(8).0.extend(body);
    bytes.0
}

/// Method call, return, error or signal.
pub(crate) fn kind(frame: &[u8]) -> u8 {
    frame[1]
}

pub(crate) struct Messages;

impl Wire for Messages {
    fn frame_len(&self, bytes: &[u8]) -> Option<usize> {
        let number = |at: usize| {
            let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(bytes)).ok()
        };
        let len = FIXED + number(12)?.next_multiple_of(8) + number(4)?;
        (len <= bytes.len()).then_some(len)
    }
}
