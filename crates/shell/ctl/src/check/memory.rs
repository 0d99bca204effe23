//! The memory of a server, from its metrics.

use net::{Dialer, Remote};
use tls::{ClientTls, Notify, Spoken, TlsInfo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The metric.
const NAME: &str = "process_resident_memory_bytes";

/// Most bytes of metrics that are read.
const MAX_BYTES: u64 = 64 << 20;

/// Resident memory of the server at an endpoint, in bytes.
///
/// # Errors
/// Why it cannot be read, in etcdctl's words.
//= etcd 3.7.3: etcdctl/ctlv3/command/util.go#endpointMemoryMetrics
pub(super) async fn resident_bytes(endpoint: &str, tls: Option<&TlsInfo>) -> Result<f64, String> {
    let metrics = fetch(endpoint, tls).await?;
    let missing = || format!("could not find: {NAME}");
    let line = metrics.lines().find_map(|line| line.strip_prefix(NAME)).ok_or_else(missing)?;
    match line.trim() {
        "" => Err(missing()),
        value => value.parse().map_err(|e| format!("parse error: {e}")),
    }
}

async fn fetch(endpoint: &str, tls: Option<&TlsInfo>) -> Result<String, String> {
    let failed = |error: &std::io::Error| {
        let scheme = if endpoint.contains("://") { "" } else { "http://" };
        let why = osenv::error_text(error);
        format!("fetch error: Get \"{scheme}{endpoint}/metrics\": {why}")
    };
    let (host, remote, dialer) = match endpoint.strip_prefix("https://") {
        Some(host) => {
            let info = tls.cloned().unwrap_or_default();
            let made = ClientTls::new(&info, Spoken::Unsaid, Notify::none());
            let tls = made.map_err(|e| format!("client certificate error: {}", e.0))?;
            let dialer = Dialer { tls: Some(tls), ..Dialer::default() };
            (host, Remote::Tls(host.to_owned()), dialer)
        }
        None => {
            let host = endpoint.strip_prefix("http://").unwrap_or(endpoint);
            (host, Remote::Tcp(host.to_owned()), Dialer::default())
        }
    };
    let mut stream = net::dial(&dialer, &remote).await.map_err(|e| failed(&e))?;
    // HTTP/1.0: the body is what comes until the end, in no chunks.
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| failed(&e))?;
    let mut answer = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut answer).await.map_err(|e| failed(&e))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
