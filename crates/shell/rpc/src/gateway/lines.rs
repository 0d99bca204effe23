//! The responses of a stream as lines of JSON.
//!
//! //= grpc-gateway 2.29: runtime/handler.go#ForwardResponseStream

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ::gateway::{Refusal, stream_error};
use api::error::Status;
use bytes::Bytes;
use calls::{Local, Responses};
use http::header;

use super::{Content, Counted, GRPC_CONTENT_TYPE, JSON, Told, Wanted, late, mapped};
use crate::Dispatch;

/// A stream's answer.
pub(super) struct Lines<D: Dispatch> {
    wanted: Wanted,
    responses: Responses,
    counted: Counted<D>,
    deadline: Option<Pin<Box<tokio::time::Sleep>>>,
    /// A response that is being mapped.
    mapping: Option<Local<'static, Result<Vec<u8>, Status>>>,
    has_ended: bool,
}

impl<D: Dispatch> Lines<D> {
    pub(super) fn new(wanted: Wanted, responses: Responses, counted: Counted<D>) -> Self {
        let deadline = wanted.deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        Self { wanted, responses, counted, deadline, mapping: None, has_ended: false }
    }

    /// The answer, once it is known how it begins.
    pub(super) async fn begin(mut self) -> Told {
        let first = poll_fn(|cx| self.poll_result(cx)).await;
        let mut first = Some(match first {
            None => return Told::new(Content::Lines(Box::new(|_| Poll::Ready(None)))),
            Some(Ok(first)) => line(&first),
            Some(Err(status)) => return failed(status),
        });
        let lines = move |cx: &mut Context<'_>| match first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.poll_line(cx),
        };
        let mut told = Told::new(Content::Lines(Box::new(lines)));
        told.headers_mut().insert(header::CONTENT_TYPE, JSON);
        told.headers_mut().insert("grpc-metadata-content-type", GRPC_CONTENT_TYPE);
        told
    }

    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.poll_result(cx).map(|result| match result? {
            Ok(json) => Some(line(&json)),
            Err(status) => Some(stream_error(&status).into()),
        })
    }

    /// The next response as JSON; an error is the last.
    fn poll_result(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        loop {
            if let Some(mapping) = &mut self.mapping {
                let Poll::Ready(json) = mapping.as_mut().poll(cx) else { return Poll::Pending };
                self.mapping = None;
                return Poll::Ready(Some(json));
            }
            match self.responses.poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    let dispatch = Rc::clone(&self.counted.dispatch);
                    dispatch.metrics().calls.sent(self.wanted.row.method, message.len());
                    let mapping = self.wanted.mapping.clone();
                    self.mapping =
                        Some(Box::pin(async move { mapped(&*dispatch, &mapping, message).await }));
                }
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(self.end(status)))),
                Poll::Ready(None) => {
                    self.has_ended = true;
                    self.counted.end(None);
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    let deadline = self.deadline.as_mut();
                    return match deadline.map(|deadline| deadline.as_mut().poll(cx)) {
                        Some(Poll::Ready(())) => Poll::Ready(Some(Err(self.end(late())))),
                        _ => Poll::Pending,
                    };
                }
            }
        }
    }

    fn end(&mut self, status: Status) -> Status {
        self.has_ended = true;
        self.counted.end(Some(&status));
        status
    }
}

/// The answer to a stream that failed before it answered anything.
//= grpc-gateway 2.29: runtime/handler.go#handleForwardResponseStreamError
fn failed(status: Status) -> Told {
    let Refusal { http, status } = status.into();
    let mut told = Told::new(Content::Whole(stream_error(&status).into()));
    *told.status_mut() = http;
    told.headers_mut().insert(header::CONTENT_TYPE, JSON);
    told
}

fn line(json: &[u8]) -> Bytes {
    [b"{\"result\":", json, b"}\n"].concat().into()
}
