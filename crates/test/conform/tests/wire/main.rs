//! What either server answers to bytes and headers that no proper client sends.

mod broken_off;
mod gzip;
mod heads;
mod http1;
mod pings;

use api::etcdserverpb::{PutResponse, RangeRequest, TxnResponse};
use bytes::{BufMut, Bytes, BytesMut};
use conform::Client;
use conform::both;
use conform::grpc::{Exchange, envelope};
use prost::Message;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const COMPACT: &str = "/etcdserverpb.KV/Compact";

fn request(path: &str) -> http::request::Builder {
    http::Request::post(format!("http://localhost{path}")).header("te", "trailers")
}

fn grpc(path: &str) -> http::Request<()> {
    request(path).header("content-type", "application/grpc").body(()).expect("well-formed")
}

fn with(path: &str, name: &str, value: &str) -> http::Request<()> {
    let mut request = grpc(path);
    let name = http::HeaderName::try_from(name).expect("a header name");
    request.headers_mut().insert(name, value.try_into().expect("a header value"));
    request
}

/// An exchange without the body, of which the flags of its messages stay. Ids differ.
fn shape(exchange: Exchange) -> (u16, String, String, Option<u16>, String, Vec<u8>) {
    let Exchange { http, content_type, encoding, code, text, body } = exchange;
    let (mut flags, mut rest) = (Vec::new(), &body[..]);
    while let Some((&[flag, a, b, c, d], after)) = rest.split_first_chunk() {
        flags.push(flag);
        rest = &after[u32::from_be_bytes([a, b, c, d]) as usize..];
    }
    (http, content_type, encoding, code, text, flags)
}

fn range_of(key: &'static str) -> Vec<u8> {
    RangeRequest { key: key.into(), ..Default::default() }.encode_to_vec()
}

/// An envelope with any flag and any announced length.
fn framed(flag: u8, length: u32, message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(flag);
    out.put_u32(length);
    out.put_slice(message);
    out.freeze()
}

fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | 2), &mut out);
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

/// A transaction of `levels` transactions around a put.
fn nested(levels: usize) -> Vec<u8> {
    let mut operation = field(2, &field(1, b"deep"));
    for _ in 0..levels {
        operation = field(4, &field(2, &operation));
    }
    field(2, &operation)
}

#[test]
fn envelopes() {
    let seen = both(async |client: Client| {
        let message = range_of("a");
        let length = message.len() as u32;
        let whole = envelope(&message);
        let two = [&whole[..], &whole[..]].concat();
        let mut seen = Vec::new();
        for (what, body) in [
            ("proper", whole.clone()),
            ("bad protobuf", envelope(b"\x0a\xff")),
            ("bad tag", envelope(b"\x07")),
            ("field number 0", envelope(b"\x00\x00")),
            ("a group's end", envelope(b"\x0c")),
            ("no message", Bytes::new()),
            ("half a prefix", Bytes::from_static(b"\0\0")),
            ("cut message", whole.slice(..whole.len() - 1)),
            ("prefix only", whole.slice(..5)),
            ("empty message", envelope(b"")),
            ("two messages", two.into()),
            ("trailing bytes", [&whole[..], b"\0\0"].concat().into()),
            ("compressed flag", framed(1, length, &message)),
            ("flag 2", framed(2, length, &message)),
            ("flag 255", framed(255, length, &message)),
            ("oversize", framed(0, 3_000_000, &message)),
            ("oversize by one", framed(0, 2_097_153, b"")),
            ("four gigabytes", framed(0, u32::MAX, b"")),
        ] {
            seen.push((what, shape(client.exchange(grpc(RANGE), body).await)));
        }
        seen
    });
    let text = |what: &str| {
        let (_, (_, _, _, code, text, _)) = seen.iter().find(|(w, _)| *w == what).unwrap();
        (code.unwrap(), text.as_str())
    };
    assert_eq!(text("proper"), (0, ""));
    assert_eq!(text("two messages"), (0, ""));
    assert_eq!(text("no message"), (2, "EOF"));
    assert_eq!(text("cut message"), (2, "unexpected EOF"));
    assert_eq!(text("flag 2"), (13, "grpc: received unexpected payload format 2"));
}

#[test]
fn invalid_utf8_in_a_string() {
    // The only strings of unary requests without authentication are URLs and services.
    let seen = both(async |client: Client| {
        let path = "/grpc.health.v1.Health/Check";
        let body = envelope(&field(1, b"\xff\xfe"));
        shape(client.exchange(grpc(path), body).await)
    });
    assert_eq!(seen.3, Some(13));
    assert_eq!(seen.4, "grpc: error unmarshalling request: string field contains invalid UTF-8");
}

#[test]
fn methods_that_do_not_exist() {
    both(async |client: Client| {
        let mut seen = Vec::new();
        for path in [
            "/etcdserverpb.KV/Nope",
            "/etcdserverpb.Nope/Range",
            "/nope",
            "/",
            "//",
            "/etcdserverpb.KV/",
            "/etcdserverpb.KV",
            "/etcdserverpb.KV/Range/",
            "/etcdserverpb.kv/range",
            "/a/b/c/d",
        ] {
            let body = envelope(&range_of("a"));
            seen.push((path, shape(client.exchange(grpc(path), body).await)));
        }
        seen
    });
}

#[test]
fn content_types() {
    both(async |client: Client| {
        let mut seen = Vec::new();
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc+json",
            "application/grpc;charset=utf-8",
            "application/grpc+",
        ] {
            let request = request(RANGE).header("content-type", content_type).body(()).unwrap();
            let body = envelope(&range_of("a"));
            seen.push((content_type, shape(client.exchange(request, body).await)));
        }
        seen
    });
}

#[test]
fn timeouts() {
    both(async |client: Client| {
        let mut seen = Vec::new();
        for timeout in [
            "1",
            "",
            "123456789S",
            "1x",
            "-1S",
            "S",
            "0n",
            "0S",
            "1H",
            "99999999H",
            "1 S",
            "00000001M",
        ] {
            let body = envelope(&range_of("a"));
            let request = with(RANGE, "grpc-timeout", timeout);
            seen.push((timeout, shape(client.exchange(request, body).await)));
        }
        seen
    });
}

#[test]
fn odd_headers() {
    both(async |client: Client| {
        let mut seen = Vec::new();
        for (name, value) in [
            ("x-bin", "***"),
            ("x-bin", "AAAA"),
            ("x-bin", "AAA"),
            ("x-bin", "AAA="),
            ("grpc-encoding", "identity"),
            ("grpc-encoding", "snappy"),
            ("grpc-encoding", "GZIP"),
            ("grpc-encoding", "gzip"),
            ("grpc-accept-encoding", "gzip"),
            ("client-api-version", "3.7"),
            ("hasleader", "true"),
            ("hasleader", "false"),
        ] {
            let body = envelope(&range_of("a"));
            let request = with(RANGE, name, value);
            seen.push((name, value, shape(client.exchange(request, body).await)));
        }
        seen
    });
}

#[test]
fn a_get_is_not_a_call() {
    both(async |client: Client| {
        let mut request = grpc(RANGE);
        *request.method_mut() = http::Method::GET;
        let get = shape(client.exchange(request, envelope(&range_of("a"))).await);
        assert_eq!((get.0, get.3), (405, Some(13)));
        let mut request = grpc(RANGE);
        *request.method_mut() = http::Method::PUT;
        (get, shape(client.exchange(request, envelope(&range_of("a"))).await))
    });
}

#[test]
fn transactions_within_transactions() {
    let seen = both(async |client: Client| {
        let mut seen = Vec::new();
        for levels in [1, 126, 127, 128, 4_000, 4_998, 6_000] {
            let exchange = client.exchange(grpc(TXN), envelope(&nested(levels))).await;
            if exchange.code == Some(0) && levels < 40 {
                TxnResponse::decode(&exchange.body[5..]).expect("a transaction's answer");
            }
            seen.push((levels, shape(exchange)));
        }
        seen
    });
    let code = |levels: usize| seen.iter().find(|(l, _)| *l == levels).unwrap().1.3;
    assert_eq!((code(127), code(128)), (Some(0), Some(3)));
}

#[test]
fn values_at_the_edges_of_their_types() {
    both(async |client: Client| {
        let mut seen = Vec::new();
        let varint = |number: u32, value: u64| {
            let mut out = Vec::new();
            prost::encoding::encode_varint(u64::from(number << 3), &mut out);
            prost::encoding::encode_varint(value, &mut out);
            out
        };
        let edges = [0, 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX];
        for value in edges {
            for number in 3..=13 {
                // limit, revision, sort order and target, four booleans, four revisions
                let message = [field(1, b"a"), varint(number, value)].concat();
                let exchange = client.exchange(grpc(RANGE), envelope(&message)).await;
                seen.push(("range", number, value, shape(exchange)));
            }
            for number in 3..=6 {
                let message = [field(1, b"a"), varint(number, value)].concat();
                let exchange = client.exchange(grpc(PUT), envelope(&message)).await;
                seen.push(("put", number, value, shape(exchange)));
            }
            for number in 1..=2 {
                let message = varint(number, value);
                let exchange = client.exchange(grpc(GRANT), envelope(&message)).await;
                seen.push(("grant", number, value, shape(exchange)));
                let exchange = client.exchange(grpc(COMPACT), envelope(&message)).await;
                seen.push(("compact", number, value, shape(exchange)));
            }
        }
        seen
    });
}

#[test]
fn fields_of_another_wire_type_are_unknown() {
    both(async |client: Client| {
        let mut seen = Vec::new();
        let key = field(1, b"a");
        let odd: [(&str, Vec<u8>); 9] = [
            ("key as a number", vec![0x08, 5]),
            ("limit as bytes", field(3, b"xyz")),
            ("limit as fixed64", vec![0x19, 1, 2, 3, 4, 5, 6, 7, 8]),
            ("limit as fixed32", vec![0x1d, 1, 2, 3, 4]),
            ("boolean as bytes", field(7, b"x")),
            ("a group", vec![0x1b, 0x08, 1, 0x1c]),
            ("a group of groups", vec![0x1b, 0x1b, 0x1c, 0x1c]),
            ("an unknown field", field(99, b"who")),
            ("an unclosed group", vec![0x1b]),
        ];
        for (what, bytes) in odd {
            for message in [[&key[..], &bytes].concat(), [&bytes[..], &key].concat()] {
                for path in [RANGE, PUT, TXN] {
                    let exchange = client.exchange(grpc(path), envelope(&message)).await;
                    seen.push((what, path, shape(exchange)));
                }
            }
        }
        // Deep inside: an operation whose range is a number, a put whose key is one.
        for operation in [
            vec![0x08, 1],
            field(2, &[0x08, 1]),
            [field(2, &key), vec![0x08, 1]].concat(),
            field(4, &[0x10, 1]),
            field(1, &[&key[..], &field(3, b"x")].concat()),
        ] {
            let exchange = client.exchange(grpc(TXN), envelope(&field(2, &operation))).await;
            seen.push(("inside", TXN, shape(exchange)));
        }
        // Both servers go on.
        let put: PutResponse = client
            .call(PUT, &api::etcdserverpb::PutRequest { key: "a".into(), ..Default::default() })
            .await
            .unwrap();
        assert!(put.header.is_some());
        seen
    });
}

/// Groups are unknown fields: skipping them must not cost a stack frame per level, and what
/// follows them is as bounded as without them.
#[test]
fn groups_neither_hide_depth_nor_use_up_the_stack() {
    both(async |client: Client| {
        let group = [0x9b, 0x06, 0x9c, 0x06];
        let rows = |levels: usize| [vec![0x1b; levels], vec![0x1c; levels]].concat();
        let key = field(1, b"a");
        let mut seen = Vec::new();
        for (what, path, message) in [
            ("hidden depth", TXN, [&group[..], &nested(4_000)].concat()),
            ("a hundred groups", RANGE, [&key[..], &rows(100)].concat()),
            ("nine thousand groups", RANGE, [&key[..], &rows(9_000)].concat()),
            ("unclosed groups", RANGE, [&key[..], &vec![0x1b; 1_000_000]].concat()),
            ("unclosed groups in a put", PUT, [&key[..], &vec![0x1b; 1_000_000]].concat()),
            (
                "unclosed groups inside",
                TXN,
                field(2, &field(1, &[&key[..], &vec![0x1b; 1_000_000]].concat())),
            ),
        ] {
            let exchange = client.exchange(grpc(path), envelope(&message)).await;
            seen.push((what, shape(exchange)));
        }
        seen
    });
}

/// A field that parses, though it may be of the wrong type, or unknown.
fn any_field(entropy: &mut impl env::Entropy, depth: u32) -> Vec<u8> {
    let number =
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 64, 99, 536_870_911][entropy.below(14) as usize];
    let wire = [0u64, 1, 2, 2, 3, 5][entropy.below(6) as usize];
    let mut out = Vec::new();
    prost::encoding::encode_varint(number << 3 | wire, &mut out);
    match wire {
        0 => out.push([0, 1, 2, 5][entropy.below(4) as usize]),
        1 => out.extend_from_slice(&[7; 8]),
        2 if depth > 0 && entropy.below(2) == 0 => {
            let inner = any_field(entropy, depth - 1);
            out.push(inner.len() as u8);
            out.extend_from_slice(&inner);
        }
        2 => out.extend_from_slice(b"\x01x"),
        3 => {
            if depth > 0 {
                out.extend_from_slice(&any_field(entropy, depth - 1));
            }
            prost::encoding::encode_varint(number << 3 | 4, &mut out);
        }
        _ => out.extend_from_slice(&[7; 4]),
    }
    out
}

/// Requests with a few fields more, or a few bytes changed, added or taken away: the same answer, or the same refusal.
/// `QUORATE_FUZZ_OPS` sets how many (2,000 by default), `QUORATE_FUZZ_SEED` where they begin.
#[test]
fn mutilated_messages_are_read_alike() {
    use env::{Entropy, SplitMix};
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
    };
    let (ops, seed) = (number("QUORATE_FUZZ_OPS", 2_000), number("QUORATE_FUZZ_SEED", 1));
    let Some(reference) = conform::Server::start(conform::Kind::Reference, &[]) else { return };
    let ours = conform::Server::start(conform::Kind::Quorate, &[]).expect("our own binary");
    let range = [field(1, b"a"), field(2, b"b"), vec![0x18, 3, 0x28, 1, 0x30, 1, 0x40, 1]].concat();
    let put = [field(1, b"a"), field(2, b"value"), vec![0x20, 1]].concat();
    let inner = [field(1, &field(1, b"a")), field(2, &put)].concat();
    let compare = [vec![0x08, 1, 0x10, 2], field(3, b"a"), vec![0x30, 7]].concat();
    let txn = [field(1, &compare), field(2, &inner), field(3, &field(1, &range))].concat();
    let templates: [(&str, Vec<u8>); 6] = [
        (RANGE, range.clone()),
        (PUT, put.clone()),
        (TXN, txn),
        ("/etcdserverpb.KV/DeleteRange", [field(1, b"a"), field(2, b"c"), vec![0x18, 1]].concat()),
        ("/etcdserverpb.Lease/LeaseTimeToLive", vec![0x08, 5, 0x10, 1]),
        ("/etcdserverpb.Maintenance/HashKV", vec![0x08, 0]),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let left = Client::connect(ours.port).await;
        let right = Client::connect(reference.port).await;
        let mut entropy = SplitMix::new(seed);
        let mut accepted = 0;
        for n in 0..ops {
            let (path, template) = &templates[entropy.below(templates.len() as u64) as usize];
            let mut message = template.clone();
            let whole = entropy.below(2) == 0;
            for _ in 0..=entropy.below(2) {
                let more = any_field(&mut entropy, 3);
                // In front, so that the template's own fields win.
                message.splice(0..0, more);
            }
            for _ in 0..if whole { 0 } else { 1 + entropy.below(3) } {
                let at = entropy.below(message.len() as u64 + 1) as usize;
                let odd = [0, 1, 3, 4, 0x0b, 0x0c, 0x7f, 0x80, 0xff, 0x1b, 0x1c, 0x1d, 0x19];
                let byte = match entropy.below(3) {
                    0 => entropy.below(256) as u8,
                    _ => odd[entropy.below(odd.len() as u64) as usize],
                };
                match entropy.below(3) {
                    0 => message.insert(at, byte),
                    1 if at < message.len() => drop(message.remove(at)),
                    _ if at < message.len() => message[at] = byte,
                    _ => message.push(byte),
                }
            }
            let body = envelope(&message);
            let (a, b) = tokio::join!(
                left.exchange(grpc(path), body.clone()),
                right.exchange(grpc(path), body.clone())
            );
            accepted += u64::from(a.code == Some(0));
            assert_eq!(shape(a), shape(b), "seed {seed}, message {n}: {path} {message:02x?}");
        }
        assert!(accepted > ops / 5, "only {accepted} of {ops} were messages");
    });
}
