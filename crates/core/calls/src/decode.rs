//! Decoding of requests, with grpc-go's error texts, and their bytes as they go into the log.

use api::error::{Code, Status};
use api::odd::{self, Undecodable};
use bytes::Bytes;
use prost::{Message, Name};

/// Decodes the request of a call with one request, with grpc-go's text for bytes that are not one.
pub(crate) fn decode<M: Message + Default + Name>(message: Bytes) -> Result<M, Status> {
    odd::decode(message).map_err(|e| malformed("grpc: error unmarshalling request: ", e))
}

/// Decodes a message of a stream.
pub(crate) fn decode_in_stream<M: Message + Default + Name>(message: Bytes) -> Result<M, Status> {
    odd::decode(message)
        .map_err(|e| malformed("grpc: failed to unmarshal the received message: ", e))
}

fn malformed(prefix: &str, error: Undecodable) -> Status {
    Status::new(Code::Internal, format!("{prefix}{error}"))
}

/// The bytes of a request for the log: as the client sent them if they are what we would write
/// ourselves, else written anew. Bytes that Go cannot read would stop every Go member.
pub(crate) fn unchanged<M: Message>(message: Bytes, decoded: &M) -> Bytes {
    if decoded.encoded_len() == message.len() {
        return message;
    }
    decoded.encode_to_vec().into()
}
