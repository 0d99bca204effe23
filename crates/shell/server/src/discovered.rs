//! Finding the founding members where the command line does not name them: by SRV records of DNS,
//! or in the registry of another etcd.
//!
//! Only for a member without a log: one that has a log knows its cluster.
//= etcd 3.7.3: server/embed/config.go#PeerURLsMapAndToken

use std::sync::Arc;

use discovery::srv::{self, Peers};
use discovery::{Registry, Resolver};
use observe::{Log, log_line};
use tokio::sync::watch;
use types::{MemberId, Url};

use crate::config::deferred::{InitialCluster, Meaning};
use crate::error::RunError;
use crate::options::{Options, SrvDomain};

/// The members that SRV records name, and whom they lead to over TLS.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) cluster: Vec<(String, Vec<String>)>,
    pub(crate) is_secure: bool,
}

fn unset(why: impl std::fmt::Display) -> RunError {
    RunError::Bootstrap(format!("error setting up initial cluster: {why}"))
}

/// Asks DNS for the founding members: of both services, those over TLS first.
///
/// # Errors
/// Neither service has any, or this member is not among them.
//= etcd 3.7.3: server/embed/config.go#GetDNSClusterNames
pub(crate) async fn by_dns(
    resolver: &Resolver,
    domain: &SrvDomain,
    options: &Options,
    log: &Log,
) -> Result<Named, RunError> {
    let advertised = Url::parse_all(&options.advertise_peer_urls).map_err(unset)?;
    let SrvDomain { domain, service } = domain;
    let peers = Peers { domain, suffix: service, name: &options.name, advertised: &advertised };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for (scheme, text) in [
        ("https", "get cluster for etcd-server-ssl SRV"),
        ("http", "get cluster for etcd-server SRV"),
    ] {
        let (members, error) = match srv::founders(resolver, scheme, peers).await {
            Ok(members) => (members, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let mut fields = vec![
            ("service-scheme", scheme.into()),
            ("service-name", srv::peer_service(service, scheme).into()),
            ("server-name", options.name.as_str().into()),
            ("discovery-srv", domain.as_str().into()),
            ("advertise-peer-urls", options.advertise_peer_urls.clone().into()),
            ("found-cluster", members.clone().into()),
        ];
        fields.extend(error.iter().map(|why| ("error", why.as_str().into())));
        let caller = concat!(file!(), ":", line!()).trim_start_matches("crates/");
        log.line(observe::logging::Level::Info, caller, text, &fields);
        found.extend(members);
        errors.extend(error);
    }
    if !errors.is_empty() {
        let error = errors.join("\n");
        log_line!(log, Warn, "failed to resolve during SRV discovery", "error" = error);
    }
    if found.is_empty() {
        return Err(unset(errors.join("\n")));
    }
    for member in &found {
        log_line!(log, Info, "got bootstrap from DNS for etcd-server", "node" = member.as_str());
    }
    let text = found.join(",");
    let InitialCluster(cluster) = InitialCluster::read(&text).map_err(RunError::Bootstrap)?;
    if !cluster.iter().any(|(name, _)| *name == options.name) {
        let name = &options.name;
        return Err(unset(format!("cannot find local etcd member {name:?} in SRV records")));
    }
    Ok(Named { cluster, is_secure: text.contains("https://") })
}

/// Registers this member and waits for the others. `None` if it is told to stop before.
///
/// # Errors
/// [`RunError::Discovery`], or what was registered is no cluster.
//= etcd 3.7.3: server/etcdserver/bootstrap.go#bootstrapNewClusterNoWAL
pub(crate) async fn by_registry(
    options: &Options,
    member: MemberId,
    log: &Arc<Log>,
    mut stopped: watch::Receiver<bool>,
) -> Result<Option<Vec<(String, Vec<String>)>>, RunError> {
    let Some(service) = &options.discovery else { return Ok(None) };
    log_line!(log, Info, "Bootstrapping cluster using v3 discovery.");
    let failed = |e: discovery::RegistryError| {
        RunError::Discovery(format!("failed to join discovery cluster ({e})"))
    };
    let registry = Registry::new(service.clone(), member, log).map_err(failed)?;
    let mut own: Vec<String> =
        options.advertise_peer_urls.iter().map(|url| format!("{}={url}", options.name)).collect();
    own.sort_unstable();
    let own = own.join(",");
    let joined = tokio::select! {
        joined = registry.join(&own) => joined.map_err(failed)?,
        _ = stopped.wait_for(|stop| *stop) => return Ok(None),
    };
    let invalid = |_| {
        RunError::Discovery(
            "failed to join discovery cluster (discovery: invalid peer URL)".to_owned(),
        )
    };
    let InitialCluster(cluster) = InitialCluster::read(&joined).map_err(invalid)?;
    Ok(Some(cluster))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_domain_nobody_knows_names_nobody() {
        // Nobody listens there: a name server that cannot be reached.
        let resolver = Resolver::at(([127, 0, 0, 1], 9).into(), Duration::from_millis(200));
        let domain = SrvDomain { domain: "x.invalid".to_owned(), service: String::new() };
        let refused = by_dns(&resolver, &domain, &Options::default(), &Log::none()).await;
        let why = refused.unwrap_err().to_string();
        let begin = "error setting up initial cluster: error querying DNS SRV records for \
                     _etcd-server-ssl lookup _etcd-server-ssl._tcp.x.invalid on 127.0.0.1:9: ";
        assert!(why.starts_with(begin), "{why}");
        assert!(why.contains("\nerror querying DNS SRV records for _etcd-server lookup "), "{why}");
    }
}
