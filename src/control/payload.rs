//! The body of an answer: bytes in memory, or a file that is read while it is sent.

use std::fs::File;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::connections::{Phase, Progress};

/// Maximum number of bytes read from a file at once.
const CHUNK: usize = 256 << 10;

/// Number of chunks to read ahead.
const AHEAD: usize = 4;

/// A body.
#[derive(Debug)]
pub(super) enum Payload {
    /// The whole body.
    Bytes(Bytes),
    /// A stream of chunks, and the number of bytes left.
    Chunks(mpsc::Receiver<io::Result<Bytes>>, u64),
}

impl Payload {
    /// A file from its start. A thread reads it, because a disk may be slow. An error means that no thread could be
    /// started.
    pub(super) fn file(mut file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let (sender, chunks) = mpsc::channel(AHEAD);
        let mut next = move || {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk);
            read.map(|length| (length > 0).then_some(Bytes::from(chunk))).transpose()
        };
        let read = move || {
            while let Some(chunk) = next() {
                let failed = chunk.is_err();
                // The receiver may be gone.
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("file".to_owned()).spawn(read)?;
        Ok(Self::Chunks(chunks, length))
    }
}

/// A body being sent. Each part of it may take as long as a whole answer.
pub(super) struct Sent {
    pub(super) payload: Payload,
    pub(super) progress: Progress,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.payload).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(_))) {
            let is_last = self.payload.is_end_stream();
            self.progress.enter(if is_last { Phase::Writing } else { Phase::Sending });
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.payload.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.payload.size_hint()
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let next = match &mut *self {
            Self::Bytes(bytes) => {
                Some(Ok(std::mem::take(bytes))).filter(|bytes| !matches!(bytes, Ok(b) if b.is_empty()))
            }
            Self::Chunks(_, 0) => None,
            Self::Chunks(chunks, left) => match std::task::ready!(chunks.poll_recv(cx)) {
                Some(Ok(chunk)) => {
                    *left = left.saturating_sub(chunk.len() as u64);
                    Some(Ok(chunk))
                }
                // An error instead of a shorter file, so that the receiver notices.
                None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                failed => failed,
            },
        };
        Poll::Ready(next.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Chunks(_, left) => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Chunks(_, left) => *left,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_file_is_sent_whole_and_one_that_shrinks_is_an_error() {
        let bytes: Vec<u8> = (0..CHUNK * 3 + 7).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        let body = Payload::file(file.try_clone().unwrap()).unwrap();
        assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
        assert!(body.collect().await.unwrap().to_bytes() == bytes);
        file.rewind().unwrap();
        let mut body = Payload::file(file.try_clone().unwrap()).unwrap();
        if let Payload::Chunks(_, left) = &mut body {
            *left += 1;
        }
        assert_eq!(body.collect().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let all = Payload::Bytes("all".into()).collect().await.unwrap().to_bytes();
        assert_eq!(all, "all");
    }
}
