//! The requests of a call: JSON values of a body.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::gateway::{BadJson, Mapping, Next, Refusal, Values};
use api::error::{Code, Status};
use api::method::Row;
use bytes::Bytes;
use calls::Source;
use hyper::body::Body;
use observe::Metrics;

use super::{Bounds, Chunks, Wanted};

/// A body of HTTP/1.1.
pub(crate) struct Incoming(pub(crate) hyper::body::Incoming);

impl Chunks for Incoming {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            // One that breaks off has no more to say.
            let Some(Ok(frame)) = ready!(Pin::new(&mut self.0).poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            if let Ok(data) = frame.into_data() {
                return Poll::Ready(Some(data));
            }
        }
    }
}

fn too_large(limit: usize) -> Status {
    let text = format!("the body of the request is larger than {limit} bytes");
    Status::new(Code::ResourceExhausted, text)
}

/// The first value of a body, `None` if there is none; what follows is waited for and forgotten.
///
/// # Errors
/// It is no JSON, or too large.
//= etcd 3.7.3: api/etcdserverpb/gw/rpc.pb.gw.go#request_KV_Range_0
pub(super) async fn only_value(
    chunks: &mut dyn Chunks,
    limit: usize,
) -> Result<Option<Bytes>, Refusal> {
    let mut values = Values::default();
    let value = loop {
        match values.take_next() {
            Ok(Next::Value(value)) => break Some(value),
            Ok(Next::End) => return Ok(None),
            Ok(Next::More) => match poll_fn(|cx| chunks.poll_chunk(cx)).await {
                Some(chunk) => values.push(&chunk),
                None => values.end(),
            },
            Err(BadJson(text)) => return Err(Refusal::invalid(text)),
        }
        if values.buffered() > limit {
            return Err(too_large(limit).into());
        }
    };
    let mut rest = 0;
    while chunks.is_finite()
        && let Some(chunk) = poll_fn(|cx| chunks.poll_chunk(cx)).await
    {
        rest += chunk.len();
        if rest > limit {
            return Err(too_large(limit).into());
        }
    }
    Ok(value)
}

/// The requests of a stream. A body that is no JSON from some point on ends there, as in etcd,
/// where its client hears nothing of that.
pub(super) struct Requests {
    row: &'static Row,
    mapping: Mapping,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    chunks: Box<dyn Chunks>,
    values: Values,
    has_ended: bool,
}

impl Requests {
    pub(super) fn new(wanted: &Wanted, chunks: Box<dyn Chunks>, metrics: Arc<Metrics>) -> Self {
        Self {
            row: wanted.row,
            mapping: wanted.mapping.clone(),
            bounds: wanted.bounds,
            metrics,
            chunks,
            values: Values::default(),
            has_ended: false,
        }
    }

    fn message(&mut self, value: &[u8]) -> Result<Option<Bytes>, Status> {
        let Ok(message) = self.mapping.decode(value) else {
            self.has_ended = true;
            return Ok(None);
        };
        let (length, limit) = (message.len(), self.bounds.message_bytes);
        if length > limit {
            let text = format!("grpc: received message larger than max ({length} vs. {limit})");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        self.metrics.calls.received(self.row.method, length);
        Ok(Some(message.into()))
    }
}

impl Source for Requests {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        while !self.has_ended {
            match self.values.take_next() {
                Ok(Next::Value(value)) => return Poll::Ready(self.message(&value)),
                Ok(Next::More) if self.values.buffered() > self.bounds.value_bytes => {
                    return Poll::Ready(Err(too_large(self.bounds.value_bytes)));
                }
                Ok(Next::More) => match ready!(self.chunks.poll_chunk(cx)) {
                    Some(chunk) => self.values.push(&chunk),
                    None => self.values.end(),
                },
                Ok(Next::End) | Err(BadJson(_)) => self.has_ended = true,
            }
        }
        Poll::Ready(Ok(None))
    }
}
