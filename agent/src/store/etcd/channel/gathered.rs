//! Write combiner: collects the writes of one turn of the runtime into one write to the stream.
//!
//! The HTTP/2 client writes the head of a request and flushes it; the body follows from a task that is
//! ready to run next. Flushed alone, the head wakes etcd for nothing, and on a busy machine etcd then
//! takes the processor from the task with the body. Bytes stay in order, and a shutdown writes all of
//! them.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most collected bytes. Above it, copying costs as much as another write.
const MOST_KEPT: usize = 16 << 10;

/// A stream and the bytes collected for it.
#[derive(Debug)]
pub(super) struct Gathered<S> {
    stream: S,
    kept: Vec<u8>,
    /// True if the flush was postponed until after the tasks that are ready now.
    is_put_off: bool,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, kept: Vec::new(), is_put_off: false }
    }

    /// Writes all collected bytes.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.kept))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.kept.drain(..written)),
            }
        }
        self.is_put_off = false;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let more: usize = slices.iter().map(|own| own.len()).sum();
        if self.kept.len() + more > MOST_KEPT {
            ready!(self.poll_kept(cx))?;
        }
        if more > MOST_KEPT {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        slices.iter().for_each(|own| self.kept.extend_from_slice(own));
        Poll::Ready(Ok(more))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.kept.is_empty() && !self.is_put_off {
            self.is_put_off = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_kept(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_kept(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use etcd_client::{Channel, Client};
    use hyper_util::rt::TokioIo;
    use tokio::{io::AsyncWriteExt, task::yield_now};
    use tonic::transport::Endpoint;
    use tower::service_fn;

    use super::*;

    /// Takes at most so many bytes at once, and says nothing.
    #[derive(Clone, Debug)]
    struct Writes {
        all: Arc<Mutex<Vec<Vec<u8>>>>,
        most: usize,
    }

    impl Writes {
        fn new(most: usize) -> Self {
            Self { all: Arc::default(), most }
        }

        fn all(&self) -> Vec<Vec<u8>> {
            self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    impl AsyncWrite for Writes {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.most);
            self.all.lock().unwrap().push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Writes {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    /// The kinds of the HTTP/2 frames that these bytes are.
    fn kinds(mut bytes: &[u8]) -> Vec<u8> {
        bytes = bytes.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or(bytes);
        let mut kinds = Vec::new();
        while let [a, b, c, kind, ..] = *bytes {
            kinds.push(kind);
            bytes = &bytes[9 + u32::from_be_bytes([0, a, b, c]) as usize..];
        }
        kinds
    }

    #[tokio::test]
    async fn head_and_body_of_a_request_are_one_write() {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        let writes = Writes::new(usize::MAX);
        let stream = writes.clone();
        let connector = service_fn(move |_| {
            let stream = TokioIo::new(Gathered::new(stream.clone()));
            async { Ok::<_, io::Error>(stream) }
        });
        let endpoint = Endpoint::from_static("http://etcd").connect_with_connector_lazy(connector);
        let client = Client::from_channel(Channel::Tonic(endpoint), None).await.unwrap();
        // The first write also contains the start of the connection.
        for value in ["first", "other"] {
            let mut client = client.kv_client();
            let asking = tokio::spawn(async move { client.put("key", value, None).await });
            let has_value = |own: &Vec<u8>| own.windows(5).any(|bytes| bytes == value.as_bytes());
            let written = loop {
                if let Some(own) = writes.all().into_iter().find(has_value) {
                    break kinds(&own);
                }
                assert!(!asking.is_finished());
                yield_now().await;
            };
            let is_whole = written.windows(2).any(|two| two == [HEADERS, DATA]);
            assert!(is_whole || value == "first", "{written:?}");
        }
    }

    #[tokio::test]
    async fn nothing_is_lost_or_torn_however_much_the_stream_takes() {
        for most in [1, 7, MOST_KEPT, usize::MAX] {
            let writes = Writes::new(most);
            let mut stream = Gathered::new(writes.clone());
            let mut expected = Vec::new();
            for len in [3, 0, MOST_KEPT - 2, 1, MOST_KEPT, MOST_KEPT + 1, 2] {
                let bytes: Vec<_> = (0..len).map(|at| (at % 251) as u8).collect();
                stream.write_all(&bytes).await.unwrap();
                expected.extend(bytes);
                if len % 2 == 0 {
                    stream.flush().await.unwrap();
                    assert_eq!(writes.all().concat(), expected);
                }
            }
            stream.write_all(b"end").await.unwrap();
            stream.shutdown().await.unwrap();
            assert!(writes.all().concat().ends_with(b"end"));
        }
    }
}
