//! What people write: configuration, headers.

use server::config;

/// Headers of a call: its timeout, its content type.
pub fn metadata(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(timeout) = grpc::timeout(text) {
        assert!(text.len() <= 9, "at most eight digits and a unit, not {text:?} for {timeout:?}");
    }
    let _ = rpc::metadata::response_content_type(text);
}

/// Timeouts and content types.
#[must_use]
pub fn metadata_seeds() -> Vec<Vec<u8>> {
    ["5S", "99999999H", "100m", "1n", "application/grpc", "application/grpc+proto;charset=utf-8"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// Targets of HTTP/1.1 requests.
#[must_use]
pub fn targets() -> Vec<Vec<u8>> {
    ["/health?exclude=NOSPACE", "//a/../health", "/%68ealth", "/%2f%zz", "http://h/version", "*"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// A body of the JSON gateway, as requests of every method.
pub fn gateway_body(bytes: &[u8]) {
    let mut values = gateway::Values::default();
    for piece in bytes.chunks(7) {
        values.push(piece);
        let _ = values.buffered();
    }
    values.end();
    while let Ok(gateway::Next::Value(value)) = values.take_next() {
        for row in api::method::METHODS {
            let mapping = gateway::Mapping::of(row);
            if let Ok(message) = mapping.decode(&value) {
                let _ = mapping.encode(&message);
            }
        }
    }
}

/// Bodies with fields of every kind.
pub fn gateway_bodies() -> Vec<Vec<u8>> {
    [
        r#"{"key":"Zm9v","range_end":"_-8","limit":"7","sort_order":"DESCEND","serializable":true}"#,
        r#"{"success":[{"requestTxn":{"failure":[{"request_put":{"key":"\u00e9"}}]}}]} {"a":[1e3]}"#,
        r#"{"create_request":{"filters":["NOPUT",1],"start_revision":-1.5e1}}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A configuration file; lines behind a line `--` are a command line with environment.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (file, lines) = text.split_once("\n--\n").unwrap_or((text, ""));
    let _ = config::file::read(file);
    let _ = config::urls::parse_list(file);
    let _ = <std::time::Duration as config::value::FlagValue>::from_text(file);
    let (variables, args): (Vec<_>, Vec<_>) =
        lines.lines().partition(|line| line.starts_with("ETCD_"));
    let args: Vec<String> = args
        .into_iter()
        // A file of this machine is no input.
        .filter(|arg| !arg.contains("config-file"))
        .map(str::to_owned)
        .collect();
    let variables = variables
        .into_iter()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name != "ETCD_CONFIG_FILE")
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let _ = config::configure(&args, variables);
}

/// The guide's file, and a command line.
#[must_use]
pub fn configurations() -> Vec<Vec<u8>> {
    let file = "name: etcd-node0\ndata-dir: /tmp/data\n\
                listen-client-urls: http://0.0.0.0:2379\n\
                initial-cluster: etcd-node0=http://0.0.0.0:2380\n\
                log-level: info\nlogger: zap\nlog-outputs: stderr\n\
                auto-compaction-retention: 5m\nclient-transport-security:\n  auto-tls: false\n";
    let line = "name: a\n--\n--name\nb\n--heartbeat-interval=50\n--election-timeout=500\n\
                ETCD_QUOTA_BACKEND_BYTES=8\nETCD_LISTEN_CLIENT_URLS=unix://a:1\n";
    let odd = "\u{feff}a: &a {strict-reconfig-check: yes, <<: [*b]}\nquota-backend-bytes: 8_589\n\
               max-wals: !!str 010\nname: |\n  x\n? - k\n: \"\\x41\"\n---\nname: second\n";
    vec![file.as_bytes().to_vec(), line.as_bytes().to_vec(), odd.as_bytes().to_vec()]
}
