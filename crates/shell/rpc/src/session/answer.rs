//! Answers on the wire: heads, statuses, messages.

use ::grpc::Encoding;
use ::grpc::status::{code_text, percent_encode};
use api::error::{Code, Status};
use bytes::Bytes;
use calls::Encoded;
use http2::{End, Field, ResponseHead, StreamKey};

use super::head::{ContentType, Refusal};
use super::{Session, Slot};

/// Messages up to this many bytes are copied to what is sent; longer ones are handed over.
const COPIED_BYTES: usize = 16 * 1024;

/// How the messages of an answer look.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) content_type: ContentType,
    pub(crate) encoding: Encoding,
}

/// The trailers of a call that went well.
const OK: [Field<'static>; 2] =
    [Field::indexed(b"grpc-status", b"0"), Field::indexed(b"grpc-message", b"")];

impl Form {
    /// Calls `with` with the head of an answer that has messages.
    fn head<R>(&self, with: impl FnOnce(&ResponseHead<'_>) -> R) -> R {
        let content_type = Field::indexed(b"content-type", self.content_type.as_bytes());
        let gzip = [content_type, Field::indexed(b"grpc-encoding", b"gzip")];
        let fields = match self.encoding {
            Encoding::Identity => &gzip[..1],
            Encoding::Gzip => &gzip[..],
        };
        with(&ResponseHead { status: 200, fields })
    }
}

/// Calls `with` with the trailers that tell of an error.
fn trailers<R>(status: &Status, with: impl FnOnce(&[Field<'_>]) -> R) -> R {
    let message = percent_encode(&status.message);
    with(&[
        Field::literal(b"grpc-status", code_text(status.code).as_bytes()),
        Field::literal(b"grpc-message", message.as_bytes()),
    ])
}

impl Session {
    /// Answers a unary call with its message, whose memory may be used again then.
    pub(super) fn answer(&self, stream: StreamKey, form: &Form, message: &mut Encoded) {
        let mut wire = self.wire.borrow_mut();
        if form.encoding == Encoding::Identity && message.message().len() <= COPIED_BYTES {
            let sealed = message.sealed();
            form.head(|head| wire.answer(stream, head, |out| out.extend_from_slice(sealed), &OK));
            return;
        }
        let sealed = seal(std::mem::take(message), form.encoding);
        form.head(|head| wire.headers(stream, head, End::Open));
        wire.data(stream, sealed);
        wire.trailers(stream, &OK);
    }

    /// Begins an answer of several messages, or pieces of one.
    pub(super) fn begin_answer(&self, stream: StreamKey, form: &Form) {
        form.head(|head| self.wire.borrow_mut().headers(stream, head, End::Open));
    }

    /// Ends an answer that has begun.
    pub(super) fn end_answer(&self, stream: StreamKey, status: Option<&Status>) -> Option<Slot> {
        let mut wire = self.wire.borrow_mut();
        match status {
            None => wire.trailers(stream, &OK),
            Some(status) => trailers(status, |fields| wire.trailers(stream, fields)),
        }
    }

    /// Ends a call before its answer has begun, with nothing but a status.
    pub(super) fn end_empty(
        &self,
        stream: StreamKey,
        form: &Form,
        status: Option<&Status>,
    ) -> Option<Slot> {
        let ok = Status::new(Code::Ok, "");
        self.end_head(stream, 200, &form.content_type, status.unwrap_or(&ok))
    }

    /// Refuses what is no call.
    pub(super) fn refuse(&self, stream: StreamKey, content_type: &ContentType, refusal: &Refusal) {
        self.end_head(stream, refusal.http, content_type, &refusal.status);
    }

    fn end_head(
        &self,
        stream: StreamKey,
        http: u16,
        content_type: &ContentType,
        status: &Status,
    ) -> Option<Slot> {
        trailers(status, |fields| {
            let content_type = Field::indexed(b"content-type", content_type.as_bytes());
            let fields = [content_type, fields[0], fields[1]];
            let head = ResponseHead { status: http, fields: &fields };
            self.wire.borrow_mut().headers(stream, &head, End::Stream)
        })
    }
}

/// A message behind its envelope, compressed if the call is.
pub(super) fn seal(message: Encoded, encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Identity => message.seal(),
        gzip @ Encoding::Gzip => ::grpc::envelope::seal(message.message(), gzip),
    }
}
