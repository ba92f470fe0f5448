//! One connection: its place among all, the time for its first bytes, and that for its first hello.
//!
//! HTTP/2 itself looks after clients that do not answer, but not after one that answers and asks for nothing, nor
//! after one that is silent behind TLS. Such clients together would keep all others out.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};
use tonic::transport::server::Connected;

/// Time of a client for the first bytes of TLS or HTTP/2.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// Time of a client for its first hello, from the beginning of its connection.
const FIRST_HELLO: Duration = Duration::from_secs(20);
/// The beginning of every HTTP/2 connection is as long as this.
const PREFACE: usize = 24;

/// Whether a hello of this connection was accepted. Each request of the connection carries it.
#[derive(Clone, Debug, Default)]
pub(super) struct Greeted(Arc<AtomicBool>);

impl Greeted {
    /// Notes it: the connection has no end of its time any more.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection of a client.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    greeted: Greeted,
    /// Until a hello was accepted, as seen at the end of the time for it.
    waiting: Option<Waiting>,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Waiting {
    /// Bytes of the preface still to come.
    left: usize,
    hello_until: Instant,
    end: Pin<Box<Sleep>>,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S, place: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        let end = Box::pin(sleep_until(now + FIRST_BYTES));
        let waiting = Some(Waiting { left: PREFACE, hello_until: now + FIRST_HELLO, end });
        Self { stream, greeted: Greeted::default(), waiting, _place: place }
    }

    /// Whether the time for what the client has not sent yet is over. It has just sent `count` bytes more.
    fn is_late(&mut self, count: usize, context: &mut Context<'_>) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        if waiting.left > 0 {
            waiting.left = waiting.left.saturating_sub(count);
            if waiting.left == 0 {
                waiting.end.as_mut().reset(waiting.hello_until);
            }
        }
        if waiting.end.as_mut().poll(context).is_pending() {
            return false;
        }
        let is_greeted = self.greeted.0.load(Ordering::Relaxed);
        if is_greeted {
            self.waiting = None;
        }
        !is_greeted
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Greeted;

    fn connect_info(&self) -> Greeted {
        self.greeted.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        if self.is_late(count, context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
