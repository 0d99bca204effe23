//! Where a member listens, and with which certificates.
//!
//! Owns the binding of all addresses and what is told and refused meanwhile, in etcd's order. All of
//! it happens before anything is written but the certificates that the member makes for itself.
//!
//! //= etcd 3.7.3: server/embed/etcd.go#configurePeerListeners, #configureClientListeners

use std::net::SocketAddr;
use std::sync::Arc;

use net::{Bound, Security, bind};
use observe::{Log, log_line, tell_reloads};
use rpc::Serves;
use tls::{ClientAddress, ClientTls, ServerTls, Spoken, TlsInfo};

use crate::error::RunError;
use crate::options::{Listen, Options};

/// Where clients are served.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    pub(crate) bound: Bound,
    pub(crate) security: Security,
    pub(crate) serves: Serves,
    /// Whether the common name of a client's certificate may stand for a user.
    pub(crate) names: bool,
}

/// All sockets of a member.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) peers: Vec<(Bound, Security)>,
    /// How other members are reached over TLS; `None` if nothing is given for it.
    pub(crate) dialing: Option<ClientTls>,
    pub(crate) clients: Vec<ClientSocket>,
    pub(crate) metrics: Vec<ClientSocket>,
    /// What is told once clients are served.
    pub(crate) served: Vec<Served>,
}

impl Sockets {
    /// Where clients are served (TCP).
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.clients.iter().filter_map(|socket| socket.bound.local_addr()).collect()
    }
}

/// A kind of traffic at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The address, or the path of a socket file.
    pub address: String,
    /// Over TLS.
    pub is_secure: bool,
    /// What it is, in etcd's words.
    pub traffic: &'static str,
}

/// Binds all addresses.
///
/// # Errors
/// In etcd's words.
pub(crate) fn open(options: &Options, log: &Arc<Log>) -> Result<Sockets, RunError> {
    let info = peer_info(options, log)?;
    let peers = open_peers(options, &info, log)?;
    let dialing = if info == bare(&info) && info.trusted_ca_file.is_empty() {
        None
    } else {
        let dialing = ClientTls::new(&info, Spoken::Unsaid, tell_reloads(log));
        Some(dialing.map_err(|e| RunError::Refused("discovery failed", e.0))?)
    };
    let mut sockets =
        Sockets { peers, dialing, clients: Vec::new(), metrics: Vec::new(), served: Vec::new() };
    open_clients(options, log, &mut sockets)?;
    Ok(sockets)
}

/// What is left of the settings if there are no files.
fn bare(info: &TlsInfo) -> TlsInfo {
    TlsInfo {
        cipher_suites: info.cipher_suites.clone(),
        min_version: info.min_version.clone(),
        max_version: info.max_version.clone(),
        skip_client_san_verify: info.skip_client_san_verify,
        client_cert_auth: info.client_cert_auth,
        ..TlsInfo::default()
    }
}

fn refused(why: impl ToString) -> RunError {
    RunError::Refused("discovery failed", why.to_string())
}

fn peer_info(options: &Options, log: &Arc<Log>) -> Result<TlsInfo, RunError> {
    let info = &options.peer_tls;
    tls::check_suites(&info.cipher_suites).map_err(refused)?;
    let info = match options.self_made.peer {
        true => self_made(info, options, Side::Peer, log)?,
        false => info.clone(),
    };
    if !info.is_empty() {
        log_line!(
            log,
            Info,
            "starting with peer TLS",
            "tls-info" = info.to_string(),
            "cipher-suites" = info.cipher_suites.clone(),
        );
    }
    Ok(info)
}

/// For whom a certificate is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Peer,
}

/// The certificate that the member makes for itself, unless one is given. Everything else that is
/// given goes, as in etcd: the files of whom to trust, and whether to ask for certificates.
//= etcd 3.7.3: server/embed/config.go#ClientSelfCert, #PeerSelfCert
fn self_made(
    given: &TlsInfo,
    options: &Options,
    side: Side,
    log: &Arc<Log>,
) -> Result<TlsInfo, RunError> {
    let (name, ignored, failed) = match side {
        Side::Client => (
            "client",
            "ignoring client auto TLS since certs given",
            "failed to get client self-signed certs",
        ),
        Side::Peer => (
            "peer",
            "ignoring peer auto TLS since certs given",
            "failed to get peer self-signed certs",
        ),
    };
    if !given.is_empty() {
        log_line!(log, Warn, ignored);
        return Ok(given.clone());
    }
    let urls: Vec<&Listen> = match side {
        Side::Client => options.client_urls.iter().chain(&options.client_http_urls).collect(),
        Side::Peer => options.peer_urls.iter().collect(),
    };
    let hosts: Vec<String> = urls.iter().map(|url| url.host.clone()).collect();
    let dir = options.data_dir.join("fixtures").join(name);
    let made = tls::self_cert(&dir, &hosts, options.self_made.years).map_err(|e| {
        log_line!(log, Warn, "cannot generate cert", "error" = e.0.as_str());
        RunError::Refused(failed, e.0)
    })?;
    if let Some(new) = made.made {
        let until = new.not_after_text();
        let text = "automatically generate certificates";
        log_line!(log, Warn, text, "certificate-validity-bound-not-after" = until);
        let (cert, key) = (made.info.cert_file.as_str(), made.info.key_file.as_str());
        log_line!(log, Info, "created cert file", "path" = cert);
        log_line!(log, Info, "created key file", "path" = key);
    }
    Ok(TlsInfo {
        cipher_suites: given.cipher_suites.clone(),
        min_version: given.min_version.clone(),
        max_version: given.max_version.clone(),
        ..made.info
    })
}

fn open_peers(
    options: &Options,
    info: &TlsInfo,
    log: &Arc<Log>,
) -> Result<Vec<(Bound, Security)>, RunError> {
    let mut peers = Vec::new();
    let mut shared = None;
    for url in &options.peer_urls {
        if url.url.starts_with("http:") {
            if !info.is_empty() {
                let text = "scheme is HTTP while key and cert files are present; ignoring key and \
                            cert files";
                log_line!(log, Warn, text, "peer-url" = url.url.as_str());
            }
            if info.client_cert_auth {
                let text = "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring \
                            client cert auth for this URL";
                log_line!(log, Warn, text, "peer-url" = url.url.as_str());
            }
        }
        let bound = bind(&url.address, options.reuse);
        let opened = bound.map_err(RunError::Listen).and_then(|bound| {
            if !url.is_secure {
                return Ok((bound, Security::Plain));
            }
            if info.is_empty() {
                let at = address(&bound, url);
                let why = format!(
                    "cannot listen on TLS for {at}: KeyFile and CertFile are not presented"
                );
                return Err(refused(why));
            }
            let tls = match &shared {
                Some(tls) => ServerTls::clone(tls),
                None => {
                    let checked = checked(info);
                    let tls = ServerTls::new(info, checked, tell_reloads(log)).map_err(refused)?;
                    shared.insert(tls).clone()
                }
            };
            Ok((bound, Security::Tls(tls)))
        });
        peers.push(opened.inspect_err(|e| {
            log_line!(log, Error, "creating peer listener failed", "error" = e.to_string());
        })?);
    }
    Ok(peers)
}

/// Peers and those who look at metrics come from where their certificates say.
//= etcd 3.7.3: client/pkg/transport/listener.go#wrapTLS
fn checked(info: &TlsInfo) -> ClientAddress {
    if info.skip_client_san_verify { ClientAddress::Any } else { ClientAddress::Checked }
}

fn address(bound: &Bound, url: &Listen) -> String {
    bound.local_addr().as_ref().map_or_else(|| url.host.clone(), SocketAddr::to_string)
}

/// URLs of clients at one address.
struct Group<'a> {
    url: &'a Listen,
    is_secure: bool,
    is_plain: bool,
    http_only: bool,
}

fn open_clients(options: &Options, log: &Arc<Log>, sockets: &mut Sockets) -> Result<(), RunError> {
    let info = match options.self_made.client {
        true => self_made(&options.client_tls, options, Side::Client, log)?,
        false => options.client_tls.clone(),
    };
    warn_clients(options, &info, log)?;
    let groups = groups(options)?;
    let splits = groups.iter().any(|group| group.http_only);
    if !splits && groups.iter().any(|group| group.is_plain || group.is_secure) {
        let text = "Running http and grpc server on single port. This is not recommended for \
                    production.";
        log_line!(log, Warn, text);
    }
    tell_client_tls(&info, log);
    let mut bound = Vec::new();
    for group in &groups {
        let bind = bind(&group.url.address, options.reuse).map_err(RunError::Listen)?;
        bound.push(bind);
    }
    let is_needed = groups.iter().any(|group| group.is_secure);
    let failed = |e: tls::TlsError| RunError::Refused("listener failed", e.0);
    let tls = match is_needed {
        true => {
            let tls =
                ServerTls::new(&info, ClientAddress::Any, tell_reloads(log)).map_err(failed)?;
            tls::check_http2(&info).map_err(failed)?;
            Some(tls)
        }
        false => None,
    };
    for (group, bound) in groups.iter().zip(bound) {
        let (serves, traffic) = match (splits, group.http_only) {
            (false, _) => (Serves::All, "grpc+http"),
            (true, false) => (Serves::Calls, "grpc"),
            (true, true) => (Serves::Http, "http"),
        };
        let security = match (&tls, group.is_secure, group.is_plain) {
            (Some(tls), true, false) => Security::Tls(tls.clone()),
            (Some(tls), true, true) => Security::Either(tls.clone()),
            _ => Security::Plain,
        };
        for (is_secure, is_there) in [(false, group.is_plain), (true, group.is_secure)] {
            if is_there {
                let address = address(&bound, group.url);
                sockets.served.push(Served { address, is_secure, traffic });
            }
        }
        let names = info.client_cert_auth;
        sockets.clients.push(ClientSocket { bound, security, serves, names });
    }
    open_metrics(options, &info, log, sockets)
}

//= etcd 3.7.3: server/embed/etcd.go#configureClientListeners
fn warn_clients(options: &Options, info: &TlsInfo, log: &Log) -> Result<(), RunError> {
    for url in options.client_urls.iter().chain(&options.client_http_urls) {
        let text = url.url.as_str();
        if url.is_secure {
            if info.is_empty() {
                return Err(refused(format!(
                    "TLS key/cert (--cert-file, --key-file) must be provided for client url \
                     {text} with HTTPS scheme"
                )));
            }
            continue;
        }
        if !info.is_empty() {
            let why = "scheme is http or unix while key and cert files are present; ignoring key \
                       and cert files";
            log_line!(log, Warn, why, "client-url" = text);
        }
        if info.client_cert_auth {
            let why = "scheme is http or unix while --client-cert-auth is enabled; ignoring \
                       client cert auth for this URL";
            log_line!(log, Warn, why, "client-url" = text);
        }
    }
    Ok(())
}

/// The addresses of clients, each with all that its URLs say of it.
fn groups(options: &Options) -> Result<Vec<Group<'_>>, RunError> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let all = options.client_urls.iter().map(|url| (url, false));
    for (url, http_only) in all.chain(options.client_http_urls.iter().map(|url| (url, true))) {
        let found = groups.iter_mut().find(|group| group.url.host == url.host);
        let group = match found {
            Some(group) if http_only && !group.http_only => {
                return Err(refused(format!(
                    "cannot bind both --listen-client-urls and --listen-client-http-urls on the \
                     same url {}",
                    url.url
                )));
            }
            Some(group) => group,
            None => {
                let new = Group { url, is_secure: false, is_plain: false, http_only };
                groups.push(new);
                groups.last_mut().expect("it was pushed just now")
            }
        };
        group.is_secure |= url.is_secure;
        group.is_plain |= !url.is_secure;
    }
    Ok(groups)
}

//= etcd 3.7.3: server/embed/etcd.go#serveClients
fn tell_client_tls(info: &TlsInfo, log: &Log) {
    if !info.is_empty() {
        log_line!(
            log,
            Info,
            "starting with client TLS",
            "tls-info" = info.to_string(),
            "cipher-suites" = info.cipher_suites.clone(),
        );
    }
}

//= etcd 3.7.3: server/embed/etcd.go#createMetricsListener
fn open_metrics(
    options: &Options,
    info: &TlsInfo,
    log: &Arc<Log>,
    sockets: &mut Sockets,
) -> Result<(), RunError> {
    for url in &options.metrics_urls {
        let mut security = Security::Plain;
        if url.is_secure {
            if info.is_empty() {
                return Err(refused(
                    "client TLS key/cert (--cert-file, --key-file) must be provided for metrics \
                     secure url",
                ));
            }
            let tls = ServerTls::new(info, checked(info), tell_reloads(log));
            security = Security::Tls(tls.map_err(refused)?);
        }
        let bound = bind(&url.address, options.reuse).map_err(RunError::Listen)?;
        log_line!(log, Info, "serving metrics", "address" = url.url.as_str());
        let socket = ClientSocket { bound, security, serves: Serves::Metrics, names: false };
        sockets.metrics.push(socket);
    }
    Ok(())
}
