//! A client's connection as the proxy library takes one.
//!
//! The library writes the head and the body of an answer one after the other; here they leave together, which saves a
//! system call and a packet for every request. And the library is given one request at a time: what a client sends
//! before the answer to its last request is there waits, however it arrives.

use std::{
    io,
    os::fd::AsRawFd as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter, ReadBuf},
    net::TcpStream,
};

use crate::{framing::Framing, head::Whole};

/// What is gathered before it leaves: the head and body of most answers. Larger writes aren't copied.
const GATHERED_BYTES_MAX: usize = 2 * 1024;

/// Room for what is read at once between requests; most heads are smaller.
const AHEAD_BYTES: usize = 2 * 1024;

/// A TCP connection whose writes are gathered until they are flushed, and whose reads end with the request.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufWriter<TcpStream>,
    /// What has come and nobody has taken yet.
    ahead: BytesMut,
    /// What is still to come of the request that the library is at.
    body: Framing,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream: BufWriter::with_capacity(GATHERED_BYTES_MAX, stream),
            ahead: BytesMut::new(),
            body: Framing::WHOLE,
        }
    }

    /// What has come of the next request.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Reads more of the next request: how many bytes came, 0 at the end.
    pub(crate) async fn read_ahead(&mut self) -> io::Result<usize> {
        self.ahead.reserve(AHEAD_BYTES);
        self.stream.read_buf(&mut self.ahead).await
    }

    /// Throws away what has come.
    pub(crate) fn forget_ahead(&mut self) {
        self.ahead.clear();
    }

    /// Begins the next request: its head, with what is there of its body. Reads give the rest of the body from now on,
    /// and after it nothing but the end of the connection.
    pub(crate) fn begin(&mut self, head: Whole) -> BytesMut {
        self.body = head.body;
        let body_bytes = self.body.take(&self.ahead[head.length..]);
        self.ahead.split_to(head.length + body_bytes)
    }

    /// Whether the last request has been read to its end.
    pub(crate) fn is_between_requests(&self) -> bool {
        self.body.is_whole()
    }

    /// The request is here, and what is still of interest is whether the client goes away.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let mut byte = [0; 1];
            let mut probe = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut probe))?;
            if probe.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.ahead.extend_from_slice(probe.filled());
        }
        // The next request waits its turn, most of it in the kernel.
        Poll::Pending
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.body.is_whole() {
            return this.poll_gone(cx);
        }
        // What had come of the body left with the head.
        debug_assert!(this.ahead.is_empty());
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let end = before + this.body.take(&buf.filled()[before..]);
        this.ahead.extend_from_slice(&buf.filled()[end..]);
        buf.set_filled(end);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // The other side may be gone already, and then there is nothing to end.
        let _ = self.stream.shutdown().await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.stream.get_ref().as_raw_fd()
    }
}

impl Ssl for Connection {}

impl Peek for Connection {}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
