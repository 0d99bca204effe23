//! What contradicts itself, checked on typed values in etcd's order.
//= etcd 3.7.3: server/embed/config.go#Validate

use super::configuration::{
    CommonSecurityFlags, Configuration, DiscoveryFlags, ListenerFlags, RaftFlags,
};
use super::flag::State;
use super::source::{Given, Origin};
use super::table::{flag, flags};
use super::urls::check_bind;
use super::words::{ClusterState, Fallback};

/// What is said to who listens somewhere and does not say where clients find it.
pub const UNADVERTISED: &str =
    "--advertise-client-urls is required when --listen-client-urls is set explicitly";

/// Checks everything; what comes later is refused last.
///
/// # Errors
/// etcd's text, or the flag that is not implemented.
pub(super) fn check(given: &Given) -> Result<(), String> {
    let configuration = &given.configuration;
    if configuration.discovery.fallback == Fallback::Proxy {
        let why =
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"";
        return Err(why.to_owned());
    }
    logging(configuration)?;
    urls(configuration)?;
    if let ClusterState::Unknown(state) = &configuration.clustering.state {
        return Err(format!("unexpected clusterState {state:?}"));
    }
    discovery(given)?;
    times(&configuration.raft)?;
    advertised(given)?;
    configuration.compaction.mode.get()?;
    configuration.member.feature_gates.check()?;
    if configuration.checks.compact_hash_check_time.is_zero() {
        return Err("--compact-hash-check-time must be >0 (set to 0s)".to_owned());
    }
    versions(&configuration.security)?;
    later(given)
}

fn logging(configuration: &Configuration) -> Result<(), String> {
    let logging = &configuration.logging;
    logging.logger.get()?;
    logging.format.get()?;
    let outputs = &logging.outputs.0;
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        return Err(format!("multi logoutput for {:?} is not supported yet", "default"));
    }
    logging.level.get()?;
    Ok(())
}

fn urls(configuration: &Configuration) -> Result<(), String> {
    let listeners = &configuration.listeners;
    let ListenerFlags { peer_urls, client_urls, client_http_urls, metrics_urls, .. } = listeners;
    for url in [peer_urls, client_urls, client_http_urls, metrics_urls].into_iter().flatten() {
        check_bind(url)?;
    }
    let peer_urls = &configuration.clustering.advertise_peer_urls;
    for url in peer_urls {
        if url.hostname().is_empty() && !url.scheme().is_socket() {
            let all: Vec<_> = peer_urls.iter().map(types::Url::text).collect();
            return Err(format!(
                r#"--initial-advertise-peer-urls {:?} must be "host:port" (unexpected empty host ({}))"#,
                all.join(","),
                url.text()
            ));
        }
    }
    Ok(())
}

/// A cluster is found in one way, and the registry needs an address and a token.
fn discovery(given: &Given) -> Result<(), String> {
    let DiscoveryFlags { srv, endpoints, token, .. } = &given.configuration.discovery;
    // What a file says by default does not count.
    let default = flag("initial-cluster").map_or("", |flag| flag.default);
    let cluster = given.text("initial-cluster").unwrap_or_default();
    let is_listed = match given.origin {
        Origin::File => !cluster.is_empty() && cluster != default,
        Origin::Flags => !cluster.is_empty(),
    };
    let ways = [is_listed, !srv.is_empty(), !endpoints.is_empty()];
    if ways.iter().filter(|way| **way).count() > 1 {
        let why = "multiple discovery or bootstrap flags are set. Choose one of \
                   \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"";
        return Err(why.to_owned());
    }
    if token.is_empty() != endpoints.is_empty() {
        return Err("both --discovery-token and --discovery-endpoints must be set".to_owned());
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err("--discovery-endpoints must not contain empty endpoints".to_owned());
    }
    Ok(())
}

fn times(raft: &RaftFlags) -> Result<(), String> {
    /// The longest election timeout, in milliseconds.
    const MAX_ELECTION_TIMEOUT: usize = 50_000;
    let (heartbeat, election) = (raft.heartbeat_interval, raft.election_timeout);
    if heartbeat == 0 {
        return Err("--heartbeat-interval must be >0 (set to 0ms)".to_owned());
    }
    if election == 0 {
        return Err("--election-timeout must be >0 (set to 0ms)".to_owned());
    }
    if heartbeat.saturating_mul(5) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > MAX_ELECTION_TIMEOUT {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than \
             {MAX_ELECTION_TIMEOUT}ms"
        ));
    }
    Ok(())
}

fn versions(security: &CommonSecurityFlags) -> Result<(), String> {
    let number = |text: &str| match text {
        "" => Ok(0),
        "TLS1.2" => Ok(12),
        "TLS1.3" => Ok(13),
        other => Err(format!("unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)")),
    };
    let (min, max) = (&security.tls_min_version, &security.tls_max_version);
    let (oldest, newest) = (number(min)?, number(max)?);
    if newest != 0 && oldest > newest {
        return Err(format!("min version ({min}) is greater than max version ({max})"));
    }
    if oldest == 13 && !security.cipher_suites.is_empty() {
        return Err("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned());
    }
    Ok(())
}

fn advertised(given: &Given) -> Result<(), String> {
    let is_hidden = given.is_set("listen-client-urls") && !given.is_set("advertise-client-urls");
    if given.origin == Origin::Flags && is_hidden {
        return Err(UNADVERTISED.to_owned());
    }
    Ok(())
}

/// Refuses what this version does not act on, unless it has its default.
fn later(given: &Given) -> Result<(), String> {
    let configuration = &given.configuration;
    let defaults = Configuration::defaults()?;
    for flag in flags().filter(|flag| flag.state == State::Later) {
        if !flag.place.is_same(configuration, &defaults) {
            let text = given.text(flag.name).unwrap_or_default();
            return Err(cli::not_implemented(&format!("--{}={text}", flag.name)));
        }
    }
    if let Some(gate) = configuration.member.feature_gates.missing() {
        return Err(cli::not_implemented(&format!("--feature-gates={gate}")));
    }
    Ok(())
}
