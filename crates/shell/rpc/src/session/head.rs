//! What a request's header fields mean to gRPC, and which requests they refuse.
//!
//! Fields are understood once, when the client puts them into its dynamic table ([`Tag`]); a request
//! that repeats them by index costs no comparison of text. Nothing is kept of fields that no
//! handler reads. Order, statuses and texts of the refusals are grpc-go's.

use std::rc::Rc;
use std::time::Duration;

use ::grpc::Encoding;
use api::error::{Code, Status};
use api::method::{self, Row};
use calls::{Caller, Credential};
use http2::{Protocol, StaticTags, Verdict};

use super::Slot;
use crate::metadata;

/// gRPC, as HTTP/2 carries it.
#[derive(Debug)]
pub(crate) enum Grpc {}

/// A text that a client sent.
type Text = Rc<[u8]>;

/// What a field means.
#[derive(Clone, Debug)]
pub(crate) enum Tag {
    /// Nothing that is looked at.
    Ignored,
    Post,
    OtherMethod(Text),
    Path(Path),
    Authority,
    Host,
    ContentType(ContentType),
    OtherContentType(Text),
    Timeout(Duration),
    /// The text of grpc-go's refusal.
    Malformed(Rc<str>),
    Encoding(Requested),
    /// `connection`, which no request may have.
    Connection,
    RequiresLeader(bool),
    ClientVersion(Text),
    /// A field that only plain HTTP reads.
    Web(Rc<WebField>),
    /// `token`.
    Token(Rc<Credential>),
    /// `authorization`, which counts if there is no `token`.
    Authorization(Rc<Credential>),
    /// `grpcgateway-accept`: a gateway makes the call for somebody.
    FromGateway,
}

/// A field that only plain HTTP reads, as a request has it.
#[derive(Clone, Debug)]
pub(crate) struct WebField(http::HeaderName, Text);

/// What a request has of them.
#[derive(Clone, Debug, Default)]
struct WebFields(Vec<Rc<WebField>>);

/// The prefix of fields that the JSON gateway gives on as metadata.
const GATEWAY_PREFIX: &[u8] = b"grpc-metadata-";

/// The method that is called.
#[derive(Clone, Debug)]
pub(crate) enum Path {
    Known(&'static Row),
    Other(Text),
}

/// The `content-type` of a call and its answer.
#[derive(Clone, Debug, Default)]
pub(crate) enum ContentType {
    /// `application/grpc`.
    #[default]
    Plain,
    /// All of the answer's, with the subtype of the request.
    Subtype(Text),
}

impl ContentType {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            ContentType::Plain => b"application/grpc",
            ContentType::Subtype(text) => text,
        }
    }
}

/// How a client compresses its messages.
#[derive(Clone, Debug)]
pub(crate) enum Requested {
    Known(Encoding),
    Other(Text),
}

impl Default for Requested {
    fn default() -> Self {
        Requested::Known(Encoding::Identity)
    }
}

/// A request's fields, as far as they matter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    path: Option<Path>,
    is_post: bool,
    /// Another method than POST.
    method: Option<Text>,
    pub(crate) content_type: Option<ContentType>,
    other_content_type: Option<Text>,
    pub(crate) timeout: Option<Duration>,
    encoding: Requested,
    malformed: Option<Rc<str>>,
    authorities: u32,
    hosts: u32,
    is_connection_specific: bool,
    requires_leader: Option<bool>,
    client_version: Option<Text>,
    /// Boxed: calls have none.
    web: Option<Box<WebFields>>,
    token: Option<Rc<Credential>>,
    authorization: Option<Rc<Credential>>,
    is_from_gateway: bool,
}

/// How a request is refused before it is a call.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// HTTP's status.
    pub(crate) http: u16,
    pub(crate) status: Status,
}

impl Protocol for Grpc {
    type Tag = Tag;
    type Head = Head;
    type Slot = Slot;

    fn tag(name: &[u8], value: &[u8]) -> Tag {
        match name {
            b":method" if value == b"POST" => Tag::Post,
            b":method" => Tag::OtherMethod(value.into()),
            b":path" => Tag::Path(path(value)),
            b":authority" => Tag::Authority,
            b"host" => Tag::Host,
            b"content-type" => content_type(value),
            b"grpc-timeout" => timeout(value),
            b"grpc-encoding" => Tag::Encoding(requested(value)),
            b"connection" => Tag::Connection,
            b"hasleader" => Tag::RequiresLeader(value == b"true"),
            b"client-api-version" => Tag::ClientVersion(value.into()),
            b"accept-encoding" => web(http::header::ACCEPT_ENCODING, value),
            b"origin" => web(http::header::ORIGIN, value),
            b"token" => Tag::Token(Rc::new(Credential::of(value))),
            b"authorization" => Tag::Authorization(Rc::new(Credential::of(value))),
            b"grpcgateway-accept" => Tag::FromGateway,
            _ if name.ends_with(b"-bin") => match metadata::check_binary(name, value) {
                Ok(()) => Tag::Ignored,
                Err(text) => Tag::Malformed(text.into()),
            },
            _ if name.starts_with(GATEWAY_PREFIX) => match http::HeaderName::from_bytes(name) {
                Ok(name) => web(name, value),
                Err(_) => Tag::Ignored,
            },
            _ => Tag::Ignored,
        }
    }

    fn static_tags() -> &'static StaticTags<Tag> {
        thread_local! {
            // One for each of the few threads that have connections, as long as the process lives.
            static TAGS: &'static StaticTags<Tag> = Box::leak(Box::new(StaticTags::of::<Grpc>()));
        }
        TAGS.with(|tags| *tags)
    }

    fn field(head: &mut Head, tag: &Tag, _name: &[u8], _value: &[u8]) {
        match tag {
            Tag::Ignored => {}
            Tag::Post => head.is_post = true,
            Tag::OtherMethod(method) => head.method = Some(Rc::clone(method)),
            Tag::Path(path) => head.path = Some(path.clone()),
            Tag::Authority => head.authorities = head.authorities.saturating_add(1),
            Tag::Host => head.hosts = head.hosts.saturating_add(1),
            Tag::ContentType(answer) => head.content_type = Some(answer.clone()),
            Tag::OtherContentType(text) => head.other_content_type = Some(Rc::clone(text)),
            Tag::Timeout(timeout) => head.timeout = Some(*timeout),
            Tag::Malformed(text) => head.malformed = Some(Rc::clone(text)),
            Tag::Encoding(requested) => head.encoding = requested.clone(),
            Tag::Connection => head.is_connection_specific = true,
            // The first of several counts.
            //= etcd 3.7.3: server/etcdserver/api/v3rpc/interceptor.go#newUnaryInterceptor
            Tag::RequiresLeader(is) => _ = head.requires_leader.get_or_insert(*is),
            Tag::ClientVersion(text) => {
                head.client_version.get_or_insert_with(|| Rc::clone(text));
            }
            Tag::Web(field) => head.web.get_or_insert_default().0.push(Rc::clone(field)),
            //= etcd 3.7.3: server/auth/store.go#AuthInfoFromCtx
            Tag::Token(credential) => {
                head.token.get_or_insert_with(|| Rc::clone(credential));
            }
            Tag::Authorization(credential) => {
                head.authorization.get_or_insert_with(|| Rc::clone(credential));
            }
            Tag::FromGateway => head.is_from_gateway = true,
        }
    }

    fn judge(head: &Head) -> Verdict {
        // Several hosts are told before anything else that is wrong.
        if head.is_connection_specific && head.authorities <= 1 && head.hosts <= 1 {
            return Verdict::Reset(http2::Code::PROTOCOL_ERROR);
        }
        if head.is_sound() { Verdict::Serve } else { Verdict::Refuse }
    }
}

impl Head {
    fn is_sound(&self) -> bool {
        self.content_type.is_some()
            && self.malformed.is_none()
            && self.is_post
            && self.hosts <= 1
            && (self.authorities == 1 || self.authorities == 0 && self.hosts == 1)
            && self.timeout != Some(Duration::ZERO)
    }

    /// Why the request is refused, if it is; checked in grpc-go's order.
    //= grpc-go 1.83: internal/transport/http2_server.go#operateHeaders
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.is_sound() {
            return None;
        }
        let internal =
            |http, text: String| Refusal { http, status: Status::new(Code::Internal, text) };
        if self.authorities > 1 || self.hosts > 1 {
            return Some(internal(
                400,
                format!(
                    "num values of :authority: {}, num values of host: {}, both must only have 1 \
                     value as per HTTP/2 spec",
                    self.authorities, self.hosts
                ),
            ));
        }
        if self.content_type.is_none() {
            let text = String::from_utf8_lossy(self.other_content_type.as_deref().unwrap_or(b""));
            let text = format!("invalid gRPC request content-type {text:?}");
            let status = Status::new(Code::InvalidArgument, text);
            return Some(Refusal { http: 415, status });
        }
        if let Some(text) = &self.malformed {
            return Some(internal(400, text.as_ref().to_owned()));
        }
        if self.authorities + self.hosts == 0 {
            return Some(internal(400, "no host or :authority header present".to_owned()));
        }
        if !self.is_post {
            let method = String::from_utf8_lossy(self.method.as_deref().unwrap_or(b""));
            return Some(internal(
                405,
                format!("Received a HEADERS frame with :method \"{method}\" which should be POST"),
            ));
        }
        Some(Refusal { http: 200, status: late() })
    }

    /// The method's row, with grpc-go's texts for paths that have none.
    ///
    /// # Errors
    /// The status to end the call with.
    //= grpc-go 1.83: server.go#handleStream
    pub(crate) fn row(&self) -> Result<&'static Row, Status> {
        let path = match &self.path {
            Some(Path::Known(row)) => return Ok(row),
            Some(Path::Other(text)) => String::from_utf8_lossy(text),
            None => "".into(),
        };
        let refuse = |text| Err(Status::new(Code::Unimplemented, text));
        let full = path.strip_prefix('/').unwrap_or(&path);
        match full.rsplit_once('/') {
            None => refuse(format!("malformed method name: {path:?}")),
            Some((service, method)) if method::is_service(service) => {
                refuse(format!("unknown method {method} for service {service}"))
            }
            Some((service, _)) => refuse(format!("unknown service {service}")),
        }
    }

    /// How the client compresses its messages.
    ///
    /// # Errors
    /// The status to end the call with.
    pub(crate) fn encoding(&self) -> Result<Encoding, Status> {
        match &self.encoding {
            Requested::Known(encoding) => Ok(*encoding),
            Requested::Other(name) => {
                let name = String::from_utf8_lossy(name);
                let text =
                    format!("grpc: Decompressor is not installed for grpc-encoding {name:?}");
                Err(Status::new(Code::Unimplemented, text))
            }
        }
    }

    /// Whether it is a request of gRPC, well made or not.
    pub(crate) fn is_call(&self) -> bool {
        self.content_type.is_some()
    }

    /// The request as plain HTTP sees it; `None` if it is none.
    pub(crate) fn to_http(&self) -> Option<http::request::Builder> {
        let method: &[u8] = match &self.method {
            Some(method) => method,
            None if self.is_post => b"POST",
            None => return None,
        };
        let path: &[u8] = match &self.path {
            Some(Path::Known(row)) => row.path.as_bytes(),
            Some(Path::Other(text)) => text,
            None => return None,
        };
        let mut request = http::Request::builder().method(method).uri(path);
        for field in self.web.iter().flat_map(|fields| &fields.0) {
            let WebField(name, text) = &**field;
            request = request.header(name, &text[..]);
        }
        Some(request)
    }

    /// Whether the client asks to be refused without a leader.
    pub(crate) fn requires_leader(&self) -> bool {
        self.requires_leader == Some(true)
    }

    /// The token of `authorization`.
    pub(crate) fn authorization(&self) -> Option<Rc<Credential>> {
        self.authorization.clone()
    }

    /// The caller on a connection of which `of_connection` is known, with the token of this call.
    pub(crate) fn caller(&self, of_connection: &Caller) -> Caller {
        let credential = self.token.as_ref().or(self.authorization.as_ref());
        let caller = of_connection.clone().with(credential.cloned());
        if self.is_from_gateway { caller.through_gateway() } else { caller }
    }

    /// The version of the API that the client states.
    pub(crate) fn client_version(&self) -> Option<&[u8]> {
        self.client_version.as_deref()
    }
}

/// The status of a call whose deadline has passed.
pub(crate) fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

fn web(name: http::HeaderName, value: &[u8]) -> Tag {
    Tag::Web(Rc::new(WebField(name, value.into())))
}

fn path(value: &[u8]) -> Path {
    let known = std::str::from_utf8(value).ok().and_then(method::by_path);
    known.map_or_else(|| Path::Other(value.into()), Path::Known)
}

fn content_type(value: &[u8]) -> Tag {
    if value == b"application/grpc" {
        return Tag::ContentType(ContentType::Plain);
    }
    let text = String::from_utf8_lossy(value);
    match metadata::response_content_type(&text) {
        Some(answer) if answer == "application/grpc" => Tag::ContentType(ContentType::Plain),
        Some(answer) => Tag::ContentType(ContentType::Subtype(answer.as_bytes().into())),
        None => Tag::OtherContentType(value.into()),
    }
}

fn timeout(value: &[u8]) -> Tag {
    match ::grpc::timeout(&String::from_utf8_lossy(value)) {
        Ok(timeout) => Tag::Timeout(timeout),
        Err(text) => Tag::Malformed(format!("malformed grpc-timeout: {text}").into()),
    }
}

fn requested(value: &[u8]) -> Requested {
    match value {
        b"" | b"identity" => Requested::Known(Encoding::Identity),
        b"gzip" => Requested::Known(Encoding::Gzip),
        other => Requested::Other(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a request with these fields besides what every call has.
    fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::default();
        let ordinary = [
            (":method", "POST"),
            (":path", "/etcdserverpb.KV/Put"),
            (":authority", "h"),
            ("content-type", "application/grpc"),
        ];
        let is_replaced = |name: &str| fields.iter().any(|field| field.0 == name);
        let kept = ordinary.iter().filter(|field| !is_replaced(field.0));
        // What stands there to be left out has no value.
        for (name, value) in kept.chain(fields).filter(|(_, value)| !value.is_empty()) {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            Grpc::field(&mut head, &Grpc::tag(name, value), name, value);
        }
        head
    }

    fn refused(fields: &[(&str, &str)]) -> (u16, Code, String) {
        let head = head(fields);
        assert_eq!(Grpc::judge(&head), Verdict::Refuse);
        let refusal = head.refusal().expect("it is refused");
        (refusal.http, refusal.status.code, refusal.status.message.into_owned())
    }

    #[test]
    fn an_ordinary_call_is_served() {
        let head = head(&[("hasleader", "true"), ("client-api-version", "3.7"), ("x-bin", "AA==")]);
        assert_eq!(Grpc::judge(&head), Verdict::Serve);
        assert!(head.refusal().is_none() && head.requires_leader());
        assert_eq!(head.client_version(), Some(&b"3.7"[..]));
        assert_eq!(head.row().map(|row| row.name), Ok("Put"));
        assert_eq!(head.encoding(), Ok(Encoding::Identity));
    }

    #[test]
    fn whatever_names_the_host_is_taken_once() {
        for host in ["http://127.0.0.1:2379", "a b", "user@h:1", "/run/etcd.sock"] {
            assert!(head(&[(":authority", host)]).refusal().is_none());
            assert!(head(&[(":authority", ""), ("host", host)]).refusal().is_none());
        }
        let (http, code, text) = refused(&[("host", "a"), ("host", "b"), ("content-type", "x")]);
        assert_eq!((http, code), (400, Code::Internal));
        assert!(text.starts_with("num values of :authority: 1, num values of host: 2, "), "{text}");
        let (http, _, text) = refused(&[(":authority", "")]);
        assert_eq!((http, text.as_str()), (400, "no host or :authority header present"));
    }

    #[test]
    fn what_is_no_call_is_refused_with_grpc_gos_words() {
        let text = "invalid gRPC request content-type \"text/html\"";
        assert_eq!(
            refused(&[("content-type", "text/html")]),
            (415, Code::InvalidArgument, text.to_owned())
        );
        let (http, code, text) = refused(&[("grpc-timeout", "1x"), ("x-bin", "***")]);
        assert_eq!((http, code), (400, Code::Internal));
        assert!(text.starts_with("malformed binary metadata"), "the last one is told: {text}");
        let (http, _, text) = refused(&[(":method", "GET")]);
        let wanted = "Received a HEADERS frame with :method \"GET\" which should be POST";
        assert_eq!((http, text.as_str()), (405, wanted));
        assert_eq!(refused(&[("grpc-timeout", "0S")]).1, Code::DeadlineExceeded);
    }

    #[test]
    fn a_connection_field_resets_the_stream() {
        let head = head(&[("connection", "close")]);
        assert_eq!(Grpc::judge(&head), Verdict::Reset(http2::Code::PROTOCOL_ERROR));
    }

    #[test]
    fn unknown_paths_and_encodings_get_grpc_gos_texts() {
        let text = |path| head(&[(":path", path)]).row().unwrap_err().message.into_owned();
        assert_eq!(
            text("/etcdserverpb.KV/Nope"),
            "unknown method Nope for service etcdserverpb.KV"
        );
        assert_eq!(text("/no.Such/Thing"), "unknown service no.Such");
        assert_eq!(text("/plain"), "malformed method name: \"/plain\"");
        assert_eq!(text(""), "malformed method name: \"\"");
        let status = head(&[("grpc-encoding", "snappy")]).encoding().unwrap_err();
        let wanted = "grpc: Decompressor is not installed for grpc-encoding \"snappy\"";
        assert_eq!((status.code, &*status.message), (Code::Unimplemented, wanted));
    }
}
