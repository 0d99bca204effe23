//! What SRV records of a domain mean to etcd: where clients are served, and who founds a cluster.
//= etcd 3.7.3: client/pkg/srv/srv.go

use std::net::SocketAddr;
use std::time::Duration;

use net::{Dialer, Remote};
use tls::{ClientTls, Notify, Spoken, TlsInfo};
use types::Url;

use crate::dns::{Record, Resolver};

/// The service that clients look for.
const CLIENTS: &str = "etcd-client";
/// How long an endpoint may take to be reached, when it is checked.
//= etcd 3.7.3: client/pkg/transport/tls.go#ValidateSecureEndpoints
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Where clients are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://host:port` or `http://host:port`.
    pub url: String,
    /// The record that says so.
    pub record: Record,
}

/// The name of a service: for TLS or not, and with a suffix if there is one.
//= etcd 3.7.3: client/pkg/srv/srv.go#GetSRVService
fn service(name: &str, suffix: &str, scheme: &str) -> String {
    let security = if scheme == "https" { "-ssl" } else { "" };
    let dash = if suffix.is_empty() { "" } else { "-" };
    format!("{name}{security}{dash}{suffix}")
}

/// Where clients of a domain's etcd are served: those over TLS first. `suffix` is
/// `--discovery-srv-name`.
///
/// # Errors
/// etcd's text, if DNS has neither service.
//= etcd 3.7.3: client/pkg/srv/srv.go#GetClient
pub async fn clients(
    resolver: &Resolver,
    domain: &str,
    suffix: &str,
) -> Result<Vec<Endpoint>, String> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for scheme in ["https", "http"] {
        match resolver.lookup_srv(&service(CLIENTS, suffix, scheme), domain).await {
            Ok(records) => found.extend(records.into_iter().map(|record| {
                let url = format!("{scheme}://{}", record.address());
                Endpoint { url, record }
            })),
            Err(e) => errors.push(e),
        }
    }
    if let [secure, plain] = &errors[..] {
        return Err(format!("dns lookup errors: {secure} and {plain}"));
    }
    Ok(found)
}

/// Those that are meant to be spoken with over TLS and can be reached, and what is wrong with the
/// others.
///
/// # Errors
/// The file of those who are trusted cannot be used.
//= etcd 3.7.3: client/pkg/transport/tls.go#ValidateSecureEndpoints
pub async fn reachable(
    endpoints: &[Endpoint],
    info: &TlsInfo,
) -> Result<(Vec<Endpoint>, Option<String>), String> {
    ClientTls::new(info, Spoken::Unsaid, Notify::none()).map_err(|e| e.to_string())?;
    let dialer = Dialer { timeout: Some(CHECK_TIMEOUT), ..Dialer::default() };
    let (mut good, mut errors) = (Vec::new(), Vec::new());
    for endpoint in endpoints {
        let url = types::quote(endpoint.url.as_bytes());
        if !endpoint.url.starts_with("https://") {
            errors.push(format!("{url} is insecure"));
            continue;
        }
        match net::dial(&dialer, &Remote::Tcp(endpoint.record.address())).await {
            Ok(_) => good.push(endpoint.clone()),
            Err(e) => errors.push(format!("{url} failed to dial ({})", osenv::error_text(&e))),
        }
    }
    Ok((good, (!errors.is_empty()).then(|| errors.join(","))))
}

/// Which service founding members are looked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peers<'a> {
    /// `--discovery-srv`.
    pub domain: &'a str,
    /// `--discovery-srv-name`.
    pub suffix: &'a str,
    /// This member's name.
    pub name: &'a str,
    /// Where this member is reached: the record that leads there is its own.
    pub advertised: &'a [Url],
}

/// The service of a scheme: the name that is asked for.
#[must_use]
pub fn peer_service(suffix: &str, scheme: &str) -> String {
    service("etcd-server", suffix, scheme)
}

/// The founding members of a scheme as `name=URL`: this one by its name, the others by numbers.
///
/// # Errors
/// etcd's text: no records, an advertised URL whose host has no address, or records none of which
/// can be used.
//= etcd 3.7.3: client/pkg/srv/srv.go#GetCluster
pub async fn founders(
    resolver: &Resolver,
    scheme: &str,
    peers: Peers<'_>,
) -> Result<Vec<String>, String> {
    let Peers { domain, suffix, name, advertised } = peers;
    let service = peer_service(suffix, scheme);
    let mut own: Vec<(SocketAddr, &Url)> = Vec::new();
    for url in advertised {
        own.push((resolve(url.host()).await?, url));
    }
    let failed = |why: &str| format!("error querying DNS SRV records for _{service} {why}");
    let records = resolver.lookup_srv(&service, domain).await.map_err(|e| failed(&e))?;
    let (mut found, mut number, mut last) = (Vec::new(), 0, None);
    for record in &records {
        let address = match resolve(&record.address()).await {
            Ok(address) => address,
            Err(e) => {
                last = Some(e);
                continue;
            }
        };
        // A name ends with a dot in DNS, and without it in a URL.
        let host = record.host.strip_suffix('.').unwrap_or(&record.host).to_owned();
        let url = format!("{scheme}://{}", Record { host, ..record.clone() }.address());
        let is_it = own.iter().find(|(own, _)| *own == address);
        let shown = match is_it {
            Some(_) if !name.is_empty() => name.to_owned(),
            _ => {
                number += 1;
                (number - 1).to_string()
            }
        };
        match is_it {
            Some((_, expected)) if !expected.text().starts_with(&format!("{scheme}://")) => {
                last = Some(format!(
                    "bootstrap at {url} from DNS for {service} has scheme mismatch with expected \
                     peer {}",
                    expected.text()
                ));
            }
            _ => found.push(format!("{shown}={url}")),
        }
    }
    match last {
        Some(why) if found.is_empty() => Err(failed(&why)),
        _ => Ok(found),
    }
}

/// The first address of a host, one of the old kind if there is any.
//= go 1.26: src/net/tcpsock.go#ResolveTCPAddr
async fn resolve(host: &str) -> Result<SocketAddr, String> {
    let failed = |_| {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        format!("lookup {name}: no such host")
    };
    let all: Vec<SocketAddr> = net::look_up(host).await.map_err(failed)?;
    let first = all.iter().find(|address| address.is_ipv4()).or_else(|| all.first());
    first.copied().ok_or_else(|| format!("lookup {host}: no such host"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::tests::{name_server, record};

    #[tokio::test]
    async fn clients_are_served_with_tls_first() {
        let (secure, plain) = (record("a.x.", 1, 0, 0), record("b.x.", 2, 0, 0));
        let server = name_server(&[
            ("_etcd-client-ssl._tcp.x", vec![secure.clone()]),
            ("_etcd-client._tcp.x", vec![plain.clone()]),
            ("_etcd-client-blue._tcp.x", vec![plain.clone()]),
        ])
        .await;
        let url =
            |url: &str, record: &Record| Endpoint { url: url.to_owned(), record: record.clone() };
        let both = [url("https://a.x.:1", &secure), url("http://b.x.:2", &plain)];
        assert_eq!(clients(&server, "x", "").await.unwrap(), both);
        assert_eq!(clients(&server, "x", "blue").await.unwrap(), both[1..]);
        let told = clients(&server, "y", "").await.unwrap_err();
        assert!(
            told.starts_with("dns lookup errors: lookup _etcd-client-ssl._tcp.y on "),
            "{told}"
        );
        assert!(told.contains(": no such host and lookup _etcd-client._tcp.y on "), "{told}");
    }

    #[tokio::test]
    async fn this_member_has_its_name_and_others_have_numbers() {
        let records = vec![record("localhost.", 1, 0, 0), record("localhost.", 2, 1, 0)];
        let server = name_server(&[
            ("_etcd-server._tcp.x", records.clone()),
            ("_etcd-server-ssl-blue._tcp.x", records),
        ])
        .await;
        let own = [Url::parse("http://127.0.0.1:2").unwrap()];
        let peers = Peers { domain: "x", suffix: "", name: "m", advertised: &own };
        let found = founders(&server, "http", peers).await.unwrap();
        assert_eq!(found, ["0=http://localhost:1", "m=http://localhost:2"]);
        // The same record for TLS is another's, and without TLS expected.
        let blue = Peers { suffix: "blue", ..peers };
        let found = founders(&server, "https", blue).await.unwrap();
        assert_eq!(found, ["0=https://localhost:1"]);
        let told = founders(&server, "https", peers).await.unwrap_err();
        let begin = "error querying DNS SRV records for _etcd-server-ssl lookup \
                     _etcd-server-ssl._tcp.x on ";
        assert!(told.starts_with(begin) && told.ends_with(": no such host"), "{told}");
    }

    #[tokio::test]
    async fn only_what_is_secure_and_there_is_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = |scheme: &str, port| {
            let record = record("127.0.0.1", port, 0, 0);
            Endpoint { url: format!("{scheme}://127.0.0.1:{port}"), record }
        };
        let all = [endpoint("http", port), endpoint("https", port), endpoint("https", 1)];
        let (good, why) = reachable(&all, &TlsInfo::default()).await.unwrap();
        assert_eq!(good, all[1..2]);
        assert_eq!(
            why.unwrap(),
            format!(
                "\"http://127.0.0.1:{port}\" is insecure,\"https://127.0.0.1:1\" failed to dial \
                 (connection refused)"
            )
        );
    }
}
