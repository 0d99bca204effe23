//! `etcd gateway start`: its flags, what they must not say, and the start of its proxy.
//= etcd 3.7.3: server/etcdmain/gateway.go#startGateway

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use cli::flags::ValueType;
use cli::{Exit, Flag, Values, output};
use discovery::Resolver;
use discovery::srv::{self, Endpoint};
use net::{Address, Reuse};
use observe::logging::{Format, Level};
use observe::{Log, log_line};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tls::TlsInfo;

use crate::pick::Target;
use crate::tcp::Proxy;

/// Flags of `etcd gateway start`.
pub const FLAGS: &[Flag] = &[
    Flag::new(
        "discovery-srv",
        ValueType::String,
        "",
        "DNS domain whose SRV records name the endpoints",
    ),
    Flag::new(
        "discovery-srv-name",
        ValueType::String,
        "",
        "suffix of the service names asked for in that domain",
    ),
    Flag::new(
        "endpoints",
        ValueType::Strings,
        "127.0.0.1:2379",
        "members to which connections go (default [127.0.0.1:2379])",
    ),
    Flag::switch("insecure-discovery", "take what SRV records say without asking by TLS"),
    Flag::new(
        "listen-addr",
        ValueType::String,
        "127.0.0.1:23790",
        "where clients are served (default \"127.0.0.1:23790\")",
    ),
    Flag::new(
        "retry-delay",
        ValueType::Duration,
        "1m0s",
        "time after which an endpoint that failed is tried again (default 1m0s)",
    ),
    Flag::new(
        "trusted-ca-file",
        ValueType::String,
        "",
        "file of the authorities that discovered endpoints must have their certificates from",
    ),
];

/// What `--retry-delay 0` means.
//= etcd 3.7.3: server/proxy/tcpproxy/userspace.go#Run
const DEFAULT_RETRY: Duration = Duration::from_secs(300);
/// The shortest time after which an endpoint is tried again.
const MIN_RETRY: Duration = Duration::from_millis(10);

/// Runs a gateway until its process ends. `ready` is called once it listens.
///
/// # Errors
/// What does not fit together was told on stdout, as etcd does; what the system refuses, on stderr.
pub fn start(values: &Values, ready: &dyn Fn(&Log)) -> Result<(), Exit> {
    let log = Log::open(Level::Info, Format::Json, &["stderr".to_owned()]);
    let log = Arc::new(log.map_err(|e| Exit::new(Exit::ERROR, osenv::error_text(&e)))?);
    end_by_signals();
    let ended = run(values, &log, ready);
    log.flush();
    ended.map_err(|refused| {
        match refused {
            Refused::Flags(text) => output::out(text),
            Refused::System(text) => output::err(text),
        }
        Exit::silent(Exit::ERROR)
    })
}

/// Ends the process as a signal does by default, also where it is the first of its container: the
/// system then keeps from it what it does not handle.
//= go 1.26: src/runtime/signal_unix.go#dieFromSignal
fn end_by_signals() {
    // Without it, the default is what the system does.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            if std::process::id() != 1 {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            std::process::exit(2);
        }
    });
}

/// Why there is no gateway.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// For stdout, with its end of line if it has one.
    Flags(String),
    /// For stderr.
    System(String),
}

fn run(values: &Values, log: &Arc<Log>, ready: &dyn Fn(&Log)) -> Result<(), Refused> {
    let args: Vec<String> =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    log_line!(log, Info, "Running: ", "args" = args);
    let targets = match discovered(values, log)? {
        found if found.is_empty() => targets(&values.list("endpoints"))?,
        found => found,
    };
    let here = listens(values.text("listen-addr"), &targets)?;
    if targets.is_empty() {
        return Err(Refused::Flags("no endpoints found\n".to_owned()));
    }
    net::limit::raise();
    let connections =
        net::limit::of_process().map_err(|e| Refused::System(e.to_string()))?.clients / 2;
    let bound = net::bind(&Address::Tcp(here), Reuse::default());
    let bound = bound.map_err(|e| Refused::System(e.to_string()))?;
    ready(log);
    let retry = match values.duration("retry-delay") {
        Duration::ZERO => DEFAULT_RETRY,
        retry => retry.max(MIN_RETRY),
    };
    let served = Proxy::new(targets, retry).serve(bound, connections.max(1), log);
    served.map_err(|e| Refused::System(osenv::error_text(&e)))
}

/// The members that DNS names; none if it is not to be asked. Without `--insecure-discovery` only
/// those that are served over TLS and can be reached.
//= etcd 3.7.3: server/etcdmain/util.go#discoverEndpoints
fn discovered(values: &Values, log: &Log) -> Result<Vec<Target>, Refused> {
    let domain = values.text("discovery-srv");
    if domain.is_empty() {
        return Ok(Vec::new());
    }
    let wait = |e: std::io::Error| Refused::System(osenv::error_text(&e));
    let resolver = Resolver::of_system();
    let found = srv::clients(&resolver, domain, values.text("discovery-srv-name"));
    let found = discovery::wait(found).map_err(wait)?.map_err(Refused::System)?;
    let urls = |all: &[Endpoint]| all.iter().map(|one| one.url.clone()).collect::<Vec<_>>();
    let tell = |text: &str, found: &[Endpoint]| {
        log_line!(log, Info, text, "srv-server" = domain, "endpoints" = urls(found));
    };
    tell("discovered cluster from SRV", &found);
    let records = |all: Vec<Endpoint>| all.into_iter().map(|one| one.record).collect();
    if values.is_on("insecure-discovery") {
        return Ok(records(found));
    }
    tell("validating discovered SRV endpoints", &found);
    let info = TlsInfo {
        trusted_ca_file: values.text("trusted-ca-file").to_owned(),
        server_name: domain.to_owned(),
        ..TlsInfo::default()
    };
    let checked = discovery::wait(srv::reachable(&found, &info)).map_err(wait)?;
    let (good, why) = checked.unwrap_or_else(|why| (Vec::new(), Some(why)));
    match why {
        None => tell("using validated discovered SRV endpoints", &good),
        Some(why) => log_line!(
            log,
            Warn,
            "failed to validate discovered endpoints",
            "srv-server" = domain,
            "endpoints" = urls(&good),
            "error" = why,
        ),
    }
    Ok(records(good))
}

/// The endpoints as targets, without schemes: nothing is spoken with them.
fn targets(endpoints: &[String]) -> Result<Vec<Target>, Refused> {
    let target = |endpoint: &String| {
        let endpoint = authority(endpoint);
        let Some((host, port)) = split_host_port(endpoint) else {
            let quoted = cli::text::quote(endpoint.as_bytes());
            return Err(Refused::Flags(format!("error parsing endpoint {quoted}")));
        };
        let digits = port.trim_start_matches('+');
        let digits = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        let port = digits.parse().unwrap_or(0);
        Ok(Target { host: host.to_owned(), port, ..Target::default() })
    };
    endpoints.iter().map(target).collect()
}

/// The authority of a URL, or what is none as it is.
fn authority(endpoint: &str) -> &str {
    let Some((scheme, rest)) = endpoint.split_once("//") else { return endpoint };
    let is_scheme = scheme.is_empty()
        || scheme.strip_suffix(':').is_some_and(|scheme| {
            let mut letters = scheme.chars();
            letters.next().is_some_and(|c| c.is_ascii_alphabetic())
                && letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        });
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if is_scheme && !host.is_empty() { host } else { endpoint }
}

/// Splits `host:port`; a host with colons stands in brackets.
//= go 1.26: src/net/ipsock.go#SplitHostPort
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':')?)
        }
        None => text.rsplit_once(':')?,
    };
    let is_plain = |part: &str| !part.contains(['[', ']']);
    let is_in_brackets = text.starts_with('[');
    let fits = is_plain(host) && is_plain(port) && !port.contains(':');
    (fits && (is_in_brackets || !host.contains(':'))).then_some((host, port))
}

/// Where to listen. None of the targets may be there: the gateway would call itself.
fn listens(address: &str, targets: &[Target]) -> Result<SocketAddr, Refused> {
    let Some((host, port)) = split_host_port(address) else {
        return Err(Refused::Flags(format!("failed to validate listen address: {address}\n")));
    };
    let own = look_up(host)
        .ok_or_else(|| Refused::Flags(format!("failed to resolve listen host: {host}\n")))?;
    for target in targets {
        let Target { host, port: theirs, .. } = target;
        let found = look_up(host)
            .ok_or_else(|| Refused::Flags(format!("failed to resolve endpoint host: {host}\n")))?;
        if theirs.to_string() != port {
            continue;
        }
        if let Some(same) = found.iter().find(|address| own.contains(address)) {
            return Err(Refused::Flags(format!(
                "SRV or endpoint ({host}:{theirs}->{same}:{theirs}) should not resolve to the \
                 gateway listen addr ({address})\n"
            )));
        }
    }
    // As Go: of a name's addresses the first of the old kind.
    let first = own.iter().find(|ip| ip.is_ipv4()).or_else(|| own.first());
    match (first, port.parse()) {
        (Some(&ip), Ok(port)) => Ok(SocketAddr::new(ip, port)),
        _ => Err(Refused::System(format!("listen tcp: lookup tcp/{port}: unknown port"))),
    }
}

/// The addresses of a name; `None` if there are none.
fn look_up(host: &str) -> Option<Vec<IpAddr>> {
    if host.is_empty() {
        return None;
    }
    // A name of DNS ends with a dot, which the system's file of hosts has not.
    let host = host.strip_suffix('.').unwrap_or(host);
    let found: Vec<IpAddr> = (host, 0).to_socket_addrs().ok()?.map(|found| found.ip()).collect();
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.to_owned(), port, ..Target::default() }
    }

    #[test]
    fn endpoints_lose_their_schemes() {
        let all =
            ["127.0.0.1:1", "http://a:2", "https://u:p@b:3/x?y", "[::1]:4", "//c:5", "d:http"];
        let all: Vec<String> = all.map(str::to_owned).to_vec();
        let expected = [("127.0.0.1", 1), ("a", 2), ("b", 3), ("::1", 4), ("c", 5), ("d", 0)];
        assert_eq!(targets(&all).unwrap(), expected.map(|(host, port)| target(host, port)));
        for bad in ["a", "http://a", "::1:1", "[::1]", "a:1:2", "[a"] {
            let refused = targets(&[bad.to_owned()]).unwrap_err();
            let Refused::Flags(text) = refused else { panic!("{bad}: {refused:?}") };
            assert!(text.starts_with("error parsing endpoint \""), "{text}");
        }
    }

    #[test]
    fn a_gateway_does_not_call_itself() {
        let here = listens("127.0.0.1:9", &[target("127.0.0.1", 8)]);
        assert_eq!(here, Ok("127.0.0.1:9".parse().unwrap()));
        let text = |refused: Result<SocketAddr, Refused>| match refused.unwrap_err() {
            Refused::Flags(text) | Refused::System(text) => text,
        };
        assert_eq!(
            text(listens("127.0.0.1:9", &[target("127.0.0.1", 9)])),
            "SRV or endpoint (127.0.0.1:9->127.0.0.1:9) should not resolve to the gateway listen \
             addr (127.0.0.1:9)\n"
        );
        assert_eq!(text(listens("x", &[])), "failed to validate listen address: x\n");
        assert_eq!(text(listens(":1", &[])), "failed to resolve listen host: \n");
        let unknown = target("nowhere.invalid", 1);
        assert_eq!(
            text(listens("127.0.0.1:9", &[unknown])),
            "failed to resolve endpoint host: nowhere.invalid\n"
        );
    }
}
