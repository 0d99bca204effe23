//! Errors as grpc-gateway gives them.
//!
//! //= grpc-gateway 2.29: runtime/errors.go

use std::borrow::Cow;

use api::error::{Code, Status};
use http::StatusCode;

use crate::encode::text;

/// A call that gets an error as its whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP's status.
    pub http: StatusCode,
    /// The status that the body tells.
    pub status: Status,
}

impl Refusal {
    pub(crate) fn not_found() -> Self {
        Status::new(Code::NotFound, "Not Found").into()
    }

    pub(crate) fn method_not_allowed() -> Self {
        Status::new(Code::Unimplemented, "Method Not Allowed").into()
    }

    /// The client's request cannot be understood.
    #[must_use]
    pub fn invalid(why: impl Into<Cow<'static, str>>) -> Self {
        Status::new(Code::InvalidArgument, why).into()
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { http: http_status(status.code), status }
    }
}

//= grpc-gateway 2.29: runtime/errors.go#HTTPStatusFromCode
fn http_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::Canceled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(number).expect("numbers of three digits")
}

/// A status as JSON.
#[must_use]
pub fn status_json(status: &Status) -> Vec<u8> {
    let mut out = format!("{{\"code\":{}", status.code as u8).into_bytes();
    if !status.message.is_empty() {
        out.extend_from_slice(b",\"message\":");
        text(&status.message, &mut out);
    }
    out.push(b'}');
    out
}

/// The error that ends a stream of responses, as a line of it.
#[must_use]
pub fn stream_error(status: &Status) -> Vec<u8> {
    [b"{\"error\":", &status_json(status)[..], b"}\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status() {
        for code in Code::ALL {
            assert!(http_status(code).as_u16() >= 200, "{code:?}");
        }
        let status = Status::new(Code::Unknown, "a \"b\"");
        assert_eq!(status_json(&status), br#"{"code":2,"message":"a \"b\""}"#);
        assert_eq!(
            stream_error(&status),
            b"{\"error\":{\"code\":2,\"message\":\"a \\\"b\\\"\"}}\n"
        );
    }
}
