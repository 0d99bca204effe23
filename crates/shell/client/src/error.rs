//! How calls fail, with the texts of etcd's client.

use std::fmt;

use api::error::{ApiError, Code, Status};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No endpoint was configured.
    NoEndpoints,
    /// An endpoint that this client cannot use.
    BadEndpoint(String),
    /// Files or rules of TLS that this client cannot use.
    BadTls(String),
    /// The deadline passed.
    Deadline,
    /// The server refused.
    Status(Status),
    /// The connection broke, or the server does not speak the protocol.
    Broken(String),
}

impl Error {
    /// Whether the server answered with this error.
    #[must_use]
    pub fn is(&self, error: ApiError) -> bool {
        matches!(self, Error::Status(s) if s.message == error.text())
    }

    /// The code, where a server gave one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Status(status) => Some(status.code),
            _ => None,
        }
    }
}

impl Error {
    /// The error as gRPC words it, with its code, as log lines have it.
    #[must_use]
    pub fn grpc_text(&self) -> String {
        match self {
            Error::NoEndpoints | Error::BadEndpoint(_) | Error::BadTls(_) => self.to_string(),
            Error::Deadline => grpc_text(Code::DeadlineExceeded, "context deadline exceeded"),
            Error::Status(s) => grpc_text(s.code, &s.message),
            Error::Broken(text) => grpc_text(Code::Unavailable, text),
        }
    }
}

pub(crate) fn grpc_text(code: Code, message: &str) -> String {
    format!("rpc error: code = {} desc = {message}", code.name())
}

impl fmt::Display for Error {
    //= etcd 3.7.3: api/v3rpc/rpctypes/error.go#Error
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoEndpoints => write!(f, "etcdclient: no available endpoints"),
            Error::BadEndpoint(text) | Error::BadTls(text) => write!(f, "{text}"),
            Error::Deadline => write!(f, "context deadline exceeded"),
            Error::Status(s) if s.code == Code::DeadlineExceeded => {
                write!(f, "context deadline exceeded")
            }
            // etcd's client knows those of its server by this; what comes from its packages is told
            // as gRPC tells it.
            Error::Status(s)
                if s.message.starts_with("etcdserver: ")
                    && ApiError::ALL.iter().any(|e| e.text() == s.message) =>
            {
                write!(f, "{}", s.message)
            }
            Error::Status(_) | Error::Broken(_) => f.write_str(&self.grpc_text()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts_stand_alone_and_others_carry_their_code() {
        let known = ApiError::ALL[0];
        let error = Error::Status(Status::new(known.code(), known.text()));
        assert_eq!(error.to_string(), known.text());
        let error = Error::Status(Status::new(Code::Internal, "odd"));
        assert_eq!(error.to_string(), "rpc error: code = Internal desc = odd");
    }
}
