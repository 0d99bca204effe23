//! From the values of flags to what a member is run with: defaults that depend on other flags,
//! addresses, and what 0 stands for.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use client::Credentials;
use discovery::registry::Service;
use member::{CommitPolicy, CompactionPace, Retention};
use observe::metrics::Detail;
use rpc::Settings;
use tls::TlsInfo;
use types::{Url, limits};

use super::configuration::{
    CheckFlags, CompactionFlags, Configuration, DiscoveryFlags, ListenerFlags, SecurityFlags,
    StorageFlags,
};
use super::deferred::{CompactionMode, RetentionLength};
use super::features::Features;
use super::source::{Given, Origin};
use crate::options::{
    AuthOptions, LeaseCheckpoints, Listen, Options, RaftTimeouts, SelfMade, SrvDomain,
};
use crate::threads::Keep;
use calls::corruption::Checks;

/// What a member is run with.
///
/// # Errors
/// etcd's text: an address that is none, a cluster or retention that cannot be read.
pub(super) fn options(given: &Given) -> Result<Options, String> {
    let Configuration { member, raft, listeners, clustering, storage, .. } = &given.configuration;
    let (data_dir, wal_dir) = directories(&given.configuration);
    let features = member.feature_gates.clone();
    let advertised = &clustering.advertise_peer_urls;
    Ok(Options {
        name: member.name.clone(),
        data_dir,
        wal_dir,
        client_urls: listens(&listeners.client_urls)?,
        client_http_urls: listens(&listeners.client_http_urls)?,
        metrics_urls: listens(&listeners.metrics_urls)?,
        client_tls: tls_info(&given.configuration, &given.configuration.client_security),
        peer_tls: tls_info(&given.configuration, &given.configuration.peer_security),
        self_made: self_made(given),
        hosts: listeners.host_whitelist.clone(),
        advertise_client_urls: texts(&clustering.advertise_client_urls),
        peer_urls: listens(&listeners.peer_urls)?,
        local_address: local_address(&features, advertised),
        advertise_peer_urls: texts(advertised),
        checks: checks(&given.configuration.checks, &features),
        lease_checkpoints: LeaseCheckpoints {
            replicated: features.is_open("LeaseCheckpoint"),
            persisted: features.is_open("LeaseCheckpointPersist"),
        },
        raft_timeouts: RaftTimeouts { read: raft.read_timeout, write: raft.write_timeout },
        state: clustering.state.clone(),
        strict_reconfig: clustering.strict_reconfig_check,
        downgrade_check: clustering.downgrade_check_time,
        initial_cluster: initial_cluster(given)?,
        srv: srv_domain(&given.configuration.discovery),
        discovery: discovery(&given.configuration.discovery),
        initial_cluster_token: token(&given.configuration),
        heartbeat: Duration::from_millis(raft.heartbeat_interval as u64),
        election: Duration::from_millis(raft.election_timeout as u64),
        election_tick_advance: raft.initial_election_tick_advance,
        pre_vote: raft.pre_vote,
        snapshot_count: match raft.snapshot_count {
            0 => limits::SNAPSHOT_COUNT,
            count => count,
        },
        catchup_entries: raft.snapshot_catchup_entries,
        keep: Keep {
            wals: u32::try_from(storage.max_wals).unwrap_or(u32::MAX),
            snapshots: u32::try_from(storage.max_snapshots).unwrap_or(u32::MAX),
        },
        commit: commit(storage),
        auto_compaction: retention(&given.configuration.compaction)?,
        quota: storage.quota,
        max_request_bytes: member.max_request_bytes,
        max_txn_ops: member.max_txn_ops,
        // Fewer than none are none.
        max_learners: usize::try_from(clustering.max_learners).unwrap_or(0),
        unsafe_no_fsync: storage.unsafe_no_fsync,
        force_new_cluster: clustering.force_new_cluster,
        watch_progress: or(
            member.watch_progress_notify_interval,
            Duration::from_millis(limits::WATCH_PROGRESS_MS),
        ),
        auth: auth(&given.configuration),
        cors: listeners.cors.clone(),
        gateway: listeners.grpc_gateway,
        reuse: net::Reuse { port: listeners.reuse_port, address: listeners.reuse_address },
        connections: connections(listeners, member.max_request_bytes),
        compaction: pace(&given.configuration.compaction),
        slow_apply: given.configuration.monitoring.warning_apply_duration,
        metrics: detail(&given.configuration.monitoring.metrics),
        audit_log: audit_log(&given.configuration),
        features,
        ..Options::default()
    })
}

/// Any other word is as good as `basic`.
//= etcd 3.7.3: server/etcdserver/api/v3rpc/grpc.go#getServerMetrics
fn detail(metrics: &str) -> Detail {
    if metrics == "extensive" { Detail::Extensive } else { Detail::Basic }
}

fn audit_log(configuration: &Configuration) -> Option<PathBuf> {
    let path = &configuration.logging.audit;
    (!path.is_empty()).then(|| PathBuf::from(path))
}

/// A cost that bcrypt does not know, and tokens that would not last, are the default.
//= etcd 3.7.3: server/auth/store.go#NewAuthStore, simple_token.go#enable
fn auth(configuration: &Configuration) -> AuthOptions {
    let (flags, default) = (&configuration.auth, AuthOptions::default());
    let cost = u32::try_from(flags.bcrypt_cost).ok().filter(|cost| (4..=31).contains(cost));
    AuthOptions {
        token: flags.token.clone(),
        token_ttl: or(Duration::from_secs(flags.token_ttl as u64), default.token_ttl),
        bcrypt_cost: cost.unwrap_or(default.bcrypt_cost),
        client_cert_auth: configuration.client_security.client_cert_auth,
    }
}

fn directories(configuration: &Configuration) -> (PathBuf, PathBuf) {
    let member = &configuration.member;
    let data_dir = match member.data_dir.as_str() {
        "" => PathBuf::from(format!("{}.etcd", member.name)),
        dir => PathBuf::from(dir),
    };
    let wal_dir = match member.wal_dir.as_str() {
        "" => data_dir.join("member/wal"),
        dir => PathBuf::from(dir),
    };
    (data_dir, wal_dir)
}

fn listens(urls: &[Url]) -> Result<Vec<Listen>, String> {
    let listen = |url: &Url| {
        Ok(Listen {
            url: url.text().to_owned(),
            host: url.host().to_owned(),
            address: net::Address::of(url).map_err(|e| e.to_string())?,
            is_secure: url.scheme().is_secure(),
        })
    };
    urls.iter().map(listen).collect()
}

fn tls_info(all: &Configuration, flags: &SecurityFlags) -> TlsInfo {
    TlsInfo {
        cert_file: flags.cert_file.clone(),
        key_file: flags.key_file.clone(),
        client_cert_file: flags.client_cert_file.clone(),
        client_key_file: flags.client_key_file.clone(),
        trusted_ca_file: flags.trusted_ca_file.clone(),
        crl_file: flags.crl_file.clone(),
        client_cert_auth: flags.client_cert_auth,
        skip_client_san_verify: flags.skip_client_san_verification,
        allowed_cns: flags.allowed_cn.clone(),
        allowed_hostnames: flags.allowed_hostname.clone(),
        cipher_suites: all.security.cipher_suites.clone(),
        min_version: all.security.tls_min_version.clone(),
        max_version: all.security.tls_max_version.clone(),
        ..TlsInfo::default()
    }
}

/// Of a file 0 years are 1, as without the key.
//= etcd 3.7.3: server/embed/config.go#configFromFile
fn self_made(given: &Given) -> SelfMade {
    let all = &given.configuration;
    let years = all.security.self_signed_cert_validity;
    let years = if given.origin == Origin::File { years.max(1) } else { years };
    SelfMade {
        client: all.client_security.auto_tls,
        peer: all.peer_security.auto_tls,
        years: u32::try_from(years).unwrap_or(u32::MAX),
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.text().to_owned()).collect()
}

/// A duration of which 0 means a default.
fn or(duration: Duration, default: Duration) -> Duration {
    if duration.is_zero() { default } else { duration }
}

/// Without the flag, this member is the whole cluster, or all that is known of it yet.
fn initial_cluster(given: &Given) -> Result<Vec<(String, Vec<String>)>, String> {
    let Configuration { member, clustering, discovery, .. } = &given.configuration;
    let is_found = !discovery.srv.is_empty() || !discovery.endpoints.is_empty();
    if !is_found && given.is_set("initial-cluster") {
        return clustering.initial_cluster.get().map(|cluster| cluster.0.clone());
    }
    Ok(vec![(member.name.clone(), texts(&clustering.advertise_peer_urls))])
}

/// A cluster that is found in a registry has the registry's token.
fn token(configuration: &Configuration) -> String {
    let Configuration { clustering, discovery, .. } = configuration;
    let is_registered = !discovery.endpoints.is_empty();
    if is_registered { discovery.token.clone() } else { clustering.token.clone() }
}

fn srv_domain(flags: &DiscoveryFlags) -> Option<SrvDomain> {
    let (domain, service) = (flags.srv.clone(), flags.srv_name.clone());
    (!domain.is_empty()).then_some(SrvDomain { domain, service })
}

/// How the registry is reached.
//= etcd 3.7.3: client/v3/config.go#NewClientConfig
fn discovery(flags: &DiscoveryFlags) -> Option<Service> {
    if flags.endpoints.is_empty() {
        return None;
    }
    let info = TlsInfo {
        cert_file: flags.cert.clone(),
        key_file: flags.key.clone(),
        trusted_ca_file: flags.cacert.clone(),
        insecure_skip_verify: flags.insecure_skip_tls_verify,
        ..TlsInfo::default()
    };
    let says_something = info != TlsInfo::default() || !flags.insecure_transport;
    // As the flag's help has it: etcd takes a name with a password in it for a name.
    let (user, password) = match flags.user.split_once(':') {
        Some((user, password)) if flags.password.is_empty() => (user, password),
        _ => (flags.user.as_str(), flags.password.as_str()),
    };
    let credentials = if user.is_empty() || password.is_empty() {
        Credentials::None
    } else {
        Credentials::Password { user: user.to_owned(), password: password.to_owned() }
    };
    Some(Service {
        token: flags.token.clone(),
        endpoints: flags.endpoints.clone(),
        dial_timeout: flags.dial_timeout,
        request_timeout: flags.request_timeout,
        keepalive_time: flags.keepalive_time,
        keepalive_timeout: flags.keepalive_timeout,
        tls: says_something.then_some(info),
        credentials,
    })
}

fn checks(flags: &CheckFlags, features: &Features) -> Checks {
    Checks {
        initial: features.is_open("InitialCorruptCheck"),
        periodic: flags.corrupt_check_time,
        compaction: match features.is_open("CompactHashCheck") {
            true => flags.compact_hash_check_time,
            false => Duration::ZERO,
        },
    }
}

fn commit(storage: &StorageFlags) -> CommitPolicy {
    let default = Duration::from_millis(limits::BACKEND_BATCH_INTERVAL_MS);
    CommitPolicy {
        interval: or(storage.batch_interval, default),
        operations: storage.batch_limit.0.unwrap_or(limits::BACKEND_BATCH_OPS),
    }
}

fn connections(listeners: &ListenerFlags, max_request_bytes: usize) -> Settings {
    let overhead = usize::try_from(limits::GRPC_OVERHEAD_BYTES).unwrap_or(usize::MAX);
    Settings {
        max_message_bytes: max_request_bytes.saturating_add(overhead),
        max_concurrent_streams: listeners.max_concurrent_streams,
        keepalive_min_time: listeners.keepalive_min_time,
        keepalive_interval: listeners.keepalive_interval,
        keepalive_timeout: listeners.keepalive_timeout,
        ..Settings::default()
    }
}

/// A whole number is hours or revisions, by the mode; anything else is a Go duration.
//= etcd 3.7.1: server/embed/etcd.go#parseCompactionRetention
fn retention(flags: &CompactionFlags) -> Result<Option<Retention>, String> {
    let revisions = |number: u128| Retention::Revisions(i64::try_from(number).unwrap_or(i64::MAX));
    let length = *flags.retention.get()?;
    Ok(match (length, flags.mode.get()?) {
        (RetentionLength::Bare(0) | RetentionLength::Time(Duration::ZERO), _) => None,
        (RetentionLength::Bare(hours), CompactionMode::Periodic) => {
            Some(Retention::Periodic(Duration::from_secs(hours.saturating_mul(3_600))))
        }
        (RetentionLength::Time(time), CompactionMode::Periodic) => Some(Retention::Periodic(time)),
        (RetentionLength::Bare(number), CompactionMode::Revision) => Some(revisions(number.into())),
        (RetentionLength::Time(time), CompactionMode::Revision) => Some(revisions(time.as_nanos())),
    })
}

/// 0 is the default; so is a negative batch, of which etcd makes an endless one.
//= etcd 3.7.1: server/storage/mvcc/kvstore.go#NewStore
fn pace(flags: &CompactionFlags) -> CompactionPace {
    let default = CompactionPace::default();
    CompactionPace {
        batch: flags.batch_limit.0.unwrap_or(default.batch),
        sleep: or(flags.sleep_interval, default.sleep),
    }
}

/// The address from which peers are dialled, if a gate says that it matters: the first of the
/// advertised ones that is an address of this machine alone.
//= etcd 3.7.1: server/embed/config.go#InferLocalAddr
fn local_address(features: &Features, advertised: &[Url]) -> Option<IpAddr> {
    if !features.is_open("SetMemberLocalAddr") {
        return None;
    }
    let addresses = advertised.iter().filter_map(|url| url.hostname().parse().ok());
    addresses.into_iter().find(|ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified())
}
