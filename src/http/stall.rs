//! A connection whose client must keep reading: one that is too slow ([`super::pace`]) ends it.
//!
//! A download holds a View, a query and buffers; a client that stops reading would hold them for ever. Reading has limits of its
//! own: hyper's for headers and idle connections, the router's for bodies.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::{Patience, STREAM};

/// A stream that fails a write when its client reads too slowly.
#[derive(Debug)]
pub(super) struct Stall<S> {
    stream: S,
    patience: Patience,
}

impl<S> Stall<S> {
    /// A client may leave an answer unread for `pause`; [`STREAM`] is the end of waiting for one answer.
    pub(super) fn new(stream: S, pause: Duration) -> Self {
        Self { stream, patience: Patience::new(pause, STREAM) }
    }

    /// Passes a finished write on; one that waits fails when the client was waited for long enough.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = &written {
            self.patience.came(done.as_ref().map_or(0, bytes));
            return written;
        }
        ready!(self.patience.poll_over(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            // The client goes on to its next request.
            self.patience.restart(STREAM);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written, |bytes| *bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch(context, written, |bytes| *bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, flushed, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_client_that_stops_reading_is_dropped() {
        let (server, mut client) = duplex(4);
        let mut server = Stall::new(server, Duration::from_millis(20));
        server.write_all(b"1234").await.unwrap();
        let error = server.write_all(b"5678").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let mut read = [0; 4];
        client.read_exact(&mut read).await.unwrap();
        server.write_all(b"5678").await.unwrap();
    }
}
