//! Helpers around the system calls that write: one buffer for small frames, retry, classified errors.

use bytes::BufMut;
use nix::errno::Errno;

use crate::message::Frame;

/// Copies frames of `bytes` together into `scratch`, if it is large enough.
pub(super) fn put_together<'a, 'f>(
    frames: impl Iterator<Item = &'f Frame>,
    bytes: usize,
    scratch: &'a mut [u8],
) -> Option<&'a [u8]> {
    let whole = scratch.get_mut(..bytes)?;
    let mut rest = &mut *whole;
    for frame in frames {
        frame.put_head(&mut rest);
        rest.put_slice(frame.body());
    }
    Some(whole)
}

/// Repeats a call interrupted by a signal.
pub(super) fn again(call: impl Fn() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

pub(super) enum Progress {
    Done,
    Full,
    NoReader,
}

impl Progress {
    pub(super) fn failed(errno: Errno) -> Self {
        match errno {
            Errno::EAGAIN => Self::Full,
            Errno::EPIPE => Self::NoReader,
            other => {
                // As without a reader: the port waits then, and does not try in a loop.
                log::error!("cannot write to a workload: {}", other.desc());
                Self::NoReader
            }
        }
    }
}
