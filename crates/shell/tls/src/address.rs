//! Whether a connection comes from where its certificate says.
//!
//= etcd 3.7.3: client/pkg/transport/listener_tls.go#checkCertSAN

use std::net::{IpAddr, SocketAddr};

use tokio::sync::Semaphore;

use crate::certificate::Certificate;
use crate::hostname;
use crate::info::quoted;

/// Names that are looked up at once. Each takes a thread while the resolver waits.
const LOOKUPS: usize = 16;

static TURNS: Semaphore = Semaphore::const_new(LOOKUPS);

/// Whether the certificate has the address, or a name that stands for it.
///
/// # Errors
/// It has others, and says why as etcd does. One without any comes from everywhere.
pub(crate) async fn check(certificate: &Certificate, from: SocketAddr) -> Result<(), String> {
    let address = from.ip().to_canonical();
    let Certificate { ip_addresses, dns_names, .. } = certificate;
    if ip_addresses.is_empty() && dns_names.is_empty() {
        return Ok(());
    }
    if !ip_addresses.is_empty() {
        match hostname::check(certificate, &address.to_string()) {
            Ok(()) => return Ok(()),
            Err(refusal) if dns_names.is_empty() => return Err(refusal),
            Err(_) => {}
        }
    }
    let found = is_one_of(address, dns_names).await;
    let why = match found {
        Ok(true) => return Ok(()),
        Ok(false) => String::new(),
        Err(error) => format!(" ({error})"),
    };
    let names = quoted(dns_names);
    Err(format!("tls: \"{address}\" does not match any of DNSNames {names}{why}"))
}

//= etcd 3.7.3: client/pkg/transport/listener_tls.go#isHostInDNS
async fn is_one_of(address: IpAddr, names: &[String]) -> Result<bool, String> {
    let _turn = TURNS.acquire().await.map_err(|e| e.to_string())?;
    let (wildcards, names): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| name.starts_with("*."));
    let reverse = tokio::task::spawn_blocking(move || dns_lookup::lookup_addr(&address)).await;
    let mut error = None;
    match reverse {
        Ok(Ok(name)) => {
            let name = name.strip_suffix('.').unwrap_or(&name);
            if wildcards.iter().any(|wildcard| name.ends_with(&wildcard[1..]))
                || names.iter().any(|one| *one == name)
            {
                return Ok(true);
            }
        }
        Ok(Err(e)) => error = Some(format!("lookup {address}: {}", osenv::error_text(&e.into()))),
        Err(e) => error = Some(e.to_string()),
    }
    for name in names {
        match tokio::net::lookup_host((name.as_str(), 0)).await {
            Ok(mut found) => {
                if found.any(|one| one.ip().to_canonical() == address) {
                    return Ok(true);
                }
            }
            Err(_) => error = Some(format!("lookup {name}: no such host")),
        }
    }
    error.map_or(Ok(false), Err)
}
