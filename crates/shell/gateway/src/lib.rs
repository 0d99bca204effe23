//! Calls as JSON over HTTP, as grpc-gateway v2 serves them for etcd.
//!
//! Owns which path is which method ([`find`]), what stands in a body ([`Values`], one JSON value
//! after another), JSON to protobuf ([`Mapping::decode`]) and back ([`Mapping::encode`]), what of
//! the header fields is gRPC's ([`Metadata`]), and errors in grpc-gateway's form. Texts for bad
//! JSON are Go's, position included. Never holds a socket, and never decides what a call does.
//!
//! The mapping goes by the descriptors of all messages, so that a new field or method needs
//! nothing here. No step recurses on the depth of a request, none copies a byte more than twice,
//! and no body panics.
//!
//! Read next: [`values`], [`decode`], [`encode`].

mod decode;
mod encode;
mod metadata;
mod number;
mod refusal;
mod tokens;
mod values;

use std::sync::OnceLock;

use api::method::{METHODS, Row};
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};

pub use decode::Malformed;
pub use metadata::Metadata;
pub use refusal::{Refusal, status_json, stream_error};
pub use values::{BadJson, Next, Values};

/// Where the paths of the gateway begin.
pub const ROOT: &str = "/v3/";
/// Where they begin for clients of etcd 3.3, too.
//= etcd 3.7.3: server/embed/serve.go#accessController.ServeHTTP
pub const OLD_ROOT: &str = "/v3beta/";

/// Whether a path is the gateway's, known or not.
#[must_use]
pub fn is_path(path: &str) -> bool {
    path.starts_with(ROOT) || path.starts_with(OLD_ROOT)
}

/// The method behind a path, for this HTTP method.
///
/// # Errors
/// `Not Found`, or `Method Not Allowed` for anything but POST.
//= grpc-gateway 2.29: runtime/mux.go#ServeHTTP
pub fn find(method: &http::Method, path: &str) -> Result<&'static Row, Refusal> {
    let below = path.strip_prefix(OLD_ROOT).or_else(|| path.strip_prefix(ROOT));
    let is_it = |known: &&str| known.strip_prefix(ROOT).is_some_and(|known| Some(known) == below);
    let row = METHODS.iter().find(|row| row.gateway.iter().any(is_it));
    match row {
        None => Err(Refusal::not_found()),
        Some(_) if method != http::Method::POST => Err(Refusal::method_not_allowed()),
        Some(row) => Ok(row),
    }
}

/// The messages of one method.
#[derive(Clone, Debug)]
pub struct Mapping {
    request: MessageDescriptor,
    response: MessageDescriptor,
}

impl Mapping {
    /// The mapping of a method.
    #[must_use]
    pub fn of(row: &Row) -> Self {
        let service = pool().get_service_by_name(row.service);
        let method = service.and_then(|service| service.methods().find(|m| m.name() == row.name));
        let method: MethodDescriptor = method.expect("rows are the services of the descriptors");
        Self { request: method.input(), response: method.output() }
    }

    /// A request as it goes to the call.
    ///
    /// # Errors
    /// protojson's, where it sees the first fault.
    pub fn decode(&self, json: &[u8]) -> Result<Vec<u8>, Malformed> {
        decode::message(&self.request, json)
    }

    /// A response as JSON.
    ///
    /// # Errors
    /// It is none of this message, which none of our own calls answers.
    pub fn encode(&self, message: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
        encode::message(&self.response, message)
    }
}

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(api::DESCRIPTORS).expect("written by our own build"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_of_the_table_is_found_and_only_by_post() {
        for row in METHODS {
            let _ = Mapping::of(row);
            for path in row.gateway {
                assert_eq!(find(&http::Method::POST, path).unwrap().method, row.method);
                let old = path.replacen(ROOT, OLD_ROOT, 1);
                assert_eq!(find(&http::Method::POST, &old).unwrap().method, row.method);
                assert_eq!(find(&http::Method::GET, path).unwrap_err().http.as_u16(), 501);
            }
        }
        for path in ["/v3/", "/v3/kv", "/v3/kv/range/", "/v3/kv/Range", "/v2/kv/range"] {
            assert_eq!(find(&http::Method::POST, path).unwrap_err().http.as_u16(), 404, "{path}");
        }
    }
}
