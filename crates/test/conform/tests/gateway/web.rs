//! HTTP/1.1 by hand, and what of an answer can be compared.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longest time that anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// All that is looked at of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// The header fields that both servers must agree on, sorted.
    pub fields: Vec<(String, String)>,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// JSON values, one after another.
    Json(Vec<Value>),
    Text(String),
}

/// Header fields that are compared: how a body is delimited and when it was made are not.
const COMPARED: [&str; 13] = [
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "allow",
    "content-type",
    "grpc-metadata-content-type",
    "location",
    "sec-websocket-accept",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "upgrade",
    "www-authenticate",
    "x-content-type-options",
];

/// Fields of responses that belong to one server, or to one moment.
const MASKED: [&str; 13] = [
    "cluster_id",
    "member_id",
    "memberID",
    "raft_term",
    "raftTerm",
    "raftIndex",
    "raftAppliedIndex",
    "leader",
    "dbSize",
    "dbSizeInUse",
    "hash",
    "token",
    "version",
];

/// What of JSON can be compared. Ids that a server draws are large.
pub fn masked(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mask = |(name, value): (String, Value)| {
                let drawn = name.ends_with("ID") && value.as_str().is_some_and(|id| id.len() > 12);
                let is_address = matches!(&name[..], "peerURLs" | "clientURLs");
                let is_text = value.is_string() || value.is_number();
                match drawn
                    || is_address
                    || is_text && MASKED.contains(&&name[..]) && !is_version(&value)
                {
                    true => (name, Value::from("masked")),
                    false => (name, masked(value)),
                }
            };
            Value::Object(fields.into_iter().map(mask).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(masked).collect()),
        // protobuf-go writes one of two spaces, by build.
        Value::String(text) => Value::from(text.replace('\u{a0}', " ")),
        other => other,
    }
}

/// Whether it is the version of a key, which is compared.
fn is_version(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() < 4 && text.bytes().all(|b| b.is_ascii_digit()))
}

impl Body {
    pub fn of(body: &[u8]) -> Self {
        let values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
        match values.collect::<Result<Vec<_>, _>>() {
            Ok(values) => Body::Json(values.into_iter().map(masked).collect()),
            Err(_) => Body::Text(String::from_utf8_lossy(body).into_owned()),
        }
    }
}

/// A connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
    is_chunked: bool,
    length: Option<usize>,
}

impl Connection {
    pub fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        stream.set_nodelay(true).expect("a socket can be quick");
        Self { stream: BufReader::new(stream), is_chunked: false, length: None }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        // A server that has answered may have hung up.
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Sends a request with a body of known length.
    pub fn ask(&mut self, method: &str, path: &str, fields: &str, body: &[u8]) {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body].concat());
    }

    fn text_line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("the server answers");
        line
    }

    /// Reads the head of an answer, with nothing as its body.
    pub fn head(&mut self) -> Answer {
        let line = self.text_line();
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer but {line:?}"));
        let mut fields = Vec::new();
        (self.is_chunked, self.length) = (false, None);
        loop {
            let line = self.text_line();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            let (name, value) = (name.to_ascii_lowercase(), value.to_owned());
            self.is_chunked |= name == "transfer-encoding" && value == "chunked";
            if name == "content-length" {
                self.length = value.parse().ok();
            }
            if COMPARED.contains(&&name[..]) {
                fields.push((name, value));
            }
        }
        fields.sort();
        Answer { status, fields, body: Body::Json(Vec::new()) }
    }

    /// Reads an answer to its end.
    pub fn answer(&mut self, method: &str) -> Answer {
        let mut answer = self.head();
        answer.body = Body::of(&self.body(method, answer.status));
        answer
    }

    /// The body of an answer, as it came.
    pub fn raw_answer(&mut self) -> Vec<u8> {
        let status = self.head().status;
        self.body("POST", status)
    }

    fn body(&mut self, method: &str, status: u16) -> Vec<u8> {
        let has_body = method != "HEAD" && status >= 200 && status != 204;
        let mut body = Vec::new();
        if has_body && self.is_chunked {
            while let Some(chunk) = self.chunk() {
                body.extend_from_slice(&chunk);
            }
        } else if has_body {
            match self.length {
                Some(length) => {
                    body.resize(length, 0);
                    self.stream.read_exact(&mut body).expect("as many bytes as were told");
                }
                None => {
                    let _ = self.stream.read_to_end(&mut body);
                }
            }
        }
        body
    }

    /// The next chunk of a body; `None` at its end.
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.text_line();
        let length = usize::from_str_radix(line.trim_end(), 16).expect("the length of a chunk");
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk).expect("a whole chunk");
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }

    /// The next line of a stream; `None` at its end.
    pub fn line(&mut self, rest: &mut Vec<u8>) -> Option<Value> {
        while !rest.contains(&b'\n') {
            rest.extend_from_slice(&self.chunk()?);
        }
        let end = rest.iter().position(|b| *b == b'\n').expect("just looked for");
        let line: Vec<u8> = rest.drain(..=end).collect();
        Some(masked(serde_json::from_slice(&line).expect("a line is JSON")))
    }

    /// The socket, and what was read of it and not used.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        let rest = self.stream.buffer().to_vec();
        (self.stream.into_inner(), rest)
    }
}

/// One request on a connection of its own.
pub fn ask(port: u16, method: &str, path: &str, fields: &str, body: &[u8]) -> Answer {
    let mut connection = Connection::open(port);
    connection.ask(method, path, &format!("Connection: close\r\n{fields}"), body);
    connection.answer(method)
}

/// A call.
pub fn post(port: u16, path: &str, body: &str) -> Answer {
    ask(port, "POST", path, "", body.as_bytes())
}
