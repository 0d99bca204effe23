//! Every path with bodies of every kind.

use api::method::{METHODS, Method};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

use crate::web::{Body, post};
use crate::{Pair, base64, none};

/// Bodies that are no JSON, and JSON that is no message.
const BAD: [&str; 34] = [
    "[]",
    "[{}]",
    "\"x\"",
    "1",
    "-1.5e3",
    "true",
    "false",
    "{",
    "{\"",
    "{\"a",
    "{\"a\"",
    "{\"a\":",
    "{\"a\":1",
    "{\"a\":1,",
    "{\"a\":1,}",
    "{\"a\" 1}",
    "{\"a\":1 \"b\":2}",
    "{a:1}",
    "{1:1}",
    "nul",
    "nulx",
    "tru",
    "x",
    "'",
    "}",
    "]",
    ",",
    "{\"a\":\"\\x\"}",
    "{\"a\":\"\\u12g4\"}",
    "{\"a\":\"\n\"}",
    "{\"a\":01}",
    "{\"a\":1.}",
    "{\"a\":1e}",
    "{\"a\":-}",
];

/// Bodies that are an empty message.
const EMPTY: [&str; 8] =
    ["", " \n", "{}", "null", "{} trailing", "{}{}", "{\"unknown\":[1,{\"a\":null}]}", "\n{\n}\n"];

/// Values, each of which is wrong for most kinds of fields.
const VALUES: [&str; 16] = [
    "1.5",
    "-1",
    "1e2",
    "18446744073709551616",
    "\"x\"",
    "\"1\"",
    "\" 1\"",
    "\"1 \"",
    "\"0x1\"",
    "\"Zm9v\"",
    "\"Zm9\"",
    "\"_-8\"",
    "true",
    "{}",
    "[]",
    "[null]",
];

/// Methods that wait, or change who members are, once their request is one.
fn is_careful(method: Method) -> bool {
    use Method::*;
    matches!(
        method,
        Watch | LeaseKeepAlive | Lock | Campaign | Observe | Snapshot | MemberAdd | Defragment
    )
}

fn request_of(pool: &DescriptorPool, method: Method) -> MessageDescriptor {
    let row = method.row();
    let service = pool.get_service_by_name(row.service).expect("a row's service");
    let method = service.methods().find(|method| method.name() == row.name);
    method.expect("a row's method").input()
}

#[test]
fn what_is_no_json_is_refused_by_every_method() {
    let pair = Pair::start(&[]);
    let mut differences = Vec::new();
    for row in METHODS {
        // Whoever streams hears nothing of bad JSON.
        if matches!(row.method, Method::Watch | Method::LeaseKeepAlive) {
            continue;
        }
        for path in row.gateway {
            for body in BAD {
                let what = format!("{path} {body:?}");
                let answer = pair.compare(&mut differences, &what, |port| post(port, path, body));
                assert_eq!(answer.status, 400, "{what}");
            }
        }
    }
    none(&differences);
}

#[test]
fn an_empty_message_may_be_written_in_many_ways() {
    let pair = Pair::start(&[]);
    let mut differences = Vec::new();
    for row in METHODS.iter().filter(|row| !is_careful(row.method)) {
        for path in row.gateway {
            for body in EMPTY {
                let what = format!("{path} {body:?}");
                pair.compare(&mut differences, &what, |port| post(port, path, body));
            }
        }
    }
    none(&differences);
}

#[test]
fn fields_take_values_of_their_kinds_alone() {
    let pair = Pair::start(&[]);
    let pool = DescriptorPool::decode(api::DESCRIPTORS).expect("written by our own build");
    let mut differences = Vec::new();
    for row in METHODS.iter().filter(|row| !is_careful(row.method)) {
        let Some(path) = row.gateway.first() else { continue };
        for field in request_of(&pool, row.method).fields() {
            // An action that nobody knows ends etcd: its handler answers neither value nor error.
            if row.method == Method::Alarm && field.name() == "action" {
                continue;
            }
            for value in VALUES {
                for name in [field.name(), field.json_name()] {
                    let body = format!("{{\"{name}\":{value}}}");
                    let what = format!("{path} {body}");
                    pair.compare(&mut differences, &what, |port| post(port, path, &body));
                }
            }
            let twice = format!("{{\"{0}\":null,\"{0}\":null}}", field.name());
            pair.compare(&mut differences, &twice, |port| post(port, path, &twice));
            if let Kind::Enum(kind) = field.kind() {
                for value in kind.values() {
                    let body = format!("{{\"{}\":\"{}\"}}", field.name(), value.name());
                    let what = format!("{path} {body}");
                    pair.compare(&mut differences, &what, |port| post(port, path, &body));
                }
            }
        }
    }
    none(&differences);
}

/// Calls on keys and leases.
fn of_keys() -> Vec<(&'static str, String)> {
    let (key, other, end) = (base64("foo"), base64("bar"), base64("fop"));
    let odd = base64([0xff, 0xfe, 0xfd]);
    vec![
        ("kv/put", format!("{{\"key\":\"{key}\",\"value\":\"{other}\"}}")),
        ("kv/put", format!("{{\"key\":\"{key}\",\"value\":\"{odd}\",\"prev_kv\":true}}")),
        ("kv/put", format!("{{\"key\":\"{}\"}}", odd.replace('/', "_").replace('+', "-"))),
        ("kv/range", format!("{{\"key\":\"{key}\",\"range_end\":\"{end}\"}}")),
        ("kv/range", format!("{{\"key\":\"{key}\",\"countOnly\":true}}")),
        (
            "kv/range",
            "{\"key\":\"AA==\",\"range_end\":\"AA==\",\"limit\":1,\"sort_order\":\"DESCEND\"}"
                .into(),
        ),
        ("kv/range", format!("{{\"key\":\"{key}\",\"revision\":100}}")),
        ("kv/range", format!("{{\"key\":\"{key}\",\"sort_order\":7}}")),
        (
            "kv/txn",
            format!(
                "{{\"compare\":[{{\"key\":\"{key}\",\"target\":\"VALUE\",\"value\":\"{odd}\"}}],\
             \"success\":[{{\"requestPut\":{{\"key\":\"{key}\",\"value\":\"{other}\"}}}},\
             {{\"request_range\":{{\"key\":\"{key}\"}}}},\
             {{\"request_txn\":{{\"success\":[{{\"request_delete_range\":{{\"key\":\"{other}\"}}}}]}}}}],\
             \"failure\":[{{\"request_delete_range\":{{\"key\":\"{key}\"}}}}]}}"
            ),
        ),
        (
            "kv/txn",
            format!(
                "{{\"success\":[{{\"request_put\":{{\"key\":\"{key}\"}}}},{{\"request_put\":{{\"key\":\"{key}\"}}}}]}}"
            ),
        ),
        ("kv/txn", "{\"success\":[{\"request_put\":{},\"request_range\":{}}]}".to_owned()),
        ("lease/grant", "{\"ID\":\"7\",\"TTL\":1000}".to_owned()),
        ("lease/grant", "{\"ID\":7,\"TTL\":\"1000\"}".to_owned()),
        ("kv/put", format!("{{\"key\":\"{other}\",\"lease\":7}}")),
        ("lease/leases", "{}".to_owned()),
        ("kv/lease/leases", "{}".to_owned()),
        ("lease/timetolive", "{\"ID\":8,\"keys\":true}".to_owned()),
        ("lease/revoke", "{\"ID\":7}".to_owned()),
        ("kv/lease/revoke", "{\"ID\":7}".to_owned()),
        ("kv/deleterange", format!("{{\"key\":\"{key}\",\"prev_kv\":true}}")),
        ("kv/compaction", "{\"revision\":3,\"physical\":true}".to_owned()),
        ("kv/compaction", "{\"revision\":3}".to_owned()),
        ("kv/range", format!("{{\"key\":\"{key}\",\"revision\":1}}")),
    ]
}

/// Calls on alarms, members, locks, elections, users and roles.
fn of_others() -> Vec<(&'static str, String)> {
    let (key, end) = (base64("foo"), base64("fop"));
    vec![
        ("maintenance/alarm", "{\"action\":\"ACTIVATE\",\"alarm\":\"NOSPACE\"}".to_owned()),
        ("kv/put", format!("{{\"key\":\"{key}\"}}")),
        ("maintenance/alarm", "{\"action\":2,\"alarm\":1}".to_owned()),
        ("cluster/member/remove", "{\"ID\":1}".to_owned()),
        ("maintenance/downgrade", "{\"action\":\"VALIDATE\",\"version\":\"1.0\"}".to_owned()),
        ("lock/lock", format!("{{\"name\":\"{key}\",\"lease\":99}}")),
        ("lock/unlock", format!("{{\"key\":\"{key}\"}}")),
        ("election/leader", format!("{{\"name\":\"{key}\"}}")),
        ("election/proclaim", "{}".to_owned()),
        ("election/resign", "{\"leader\":{}}".to_owned()),
        ("auth/role/add", "{\"name\":\"r\"}".to_owned()),
        (
            "auth/role/grant",
            format!(
                "{{\"name\":\"r\",\"perm\":{{\"permType\":\"READWRITE\",\"key\":\"{key}\",\"range_end\":\"{end}\"}}}}"
            ),
        ),
        ("auth/role/get", "{\"role\":\"r\"}".to_owned()),
        ("auth/role/list", "{}".to_owned()),
        (
            "auth/user/add",
            "{\"name\":\"ü\\u00fc\\n\",\"options\":{\"no_password\":true}}".to_owned(),
        ),
        ("auth/user/list", "{}".to_owned()),
        ("auth/authenticate", "{\"name\":\"x\",\"password\":\"y\"}".to_owned()),
        ("auth/status", "{}".to_owned()),
    ]
}

#[test]
fn ordinary_calls_are_answered_alike() {
    let pair = Pair::start(&[]);
    let mut differences = Vec::new();
    for (path, body) in of_keys().into_iter().chain(of_others()) {
        for root in ["/v3/", "/v3beta/"] {
            let (path, body) = (format!("{root}{path}"), &body);
            let what = format!("{path} {body}");
            pair.compare(&mut differences, &what, |port| post(port, &path, body));
        }
    }
    none(&differences);
}

#[test]
fn large_values_pass_and_too_large_ones_are_refused() {
    let pair = Pair::start(&[]);
    let key = base64("k");
    let of =
        |bytes: usize| format!("{{\"key\":\"{key}\",\"value\":\"{}\"}}", base64(vec![7; bytes]));
    let put =
        |bytes| pair.same(&format!("{bytes} bytes"), |port| post(port, "/v3/kv/put", &of(bytes)));
    assert_eq!(put(1_000_000).status, 200);
    assert_eq!(put(1_600_000).status, 400);
    assert_eq!(put(2_200_000).status, 429);
    let range = format!("{{\"key\":\"{key}\"}}");
    let answer = pair.same("a large answer", |port| post(port, "/v3/kv/range", &range));
    assert_eq!(answer.status, 200);
    // So much is not read by ours at all.
    let huge =
        post(pair.ours.port, "/v3/kv/put", &format!("{{\"x\":\"{}\"}}", "y".repeat(8 << 20)));
    assert_eq!(huge.status, 429);
}

#[test]
fn depth_is_bounded() {
    let pair = Pair::start(&[]);
    let nested = |depth: usize| {
        let open = "{\"success\":[{\"request_txn\":".repeat(depth);
        format!("{open}{{}}{}", "}]}".repeat(depth))
    };
    for depth in [1, 60, 200, 3_000] {
        let body = nested(depth);
        let what = format!("{depth} transactions");
        pair.same(&what, |port| post(port, "/v3/kv/txn", &body));
    }
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let body = format!("{{\"x\":{}1{}}}", open.repeat(20_000), close.repeat(20_000));
        let answer = pair.same("20,000 deep", |port| post(port, "/v3/kv/txn", &body));
        assert!(matches!(answer.body, Body::Json(_)));
    }
}
