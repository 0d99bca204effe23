//! Every server flag as one row: name, kind of value, default, place in the YAML file, and whether
//! this version acts on it.
//!
//! //= etcd 3.7.1: server/embed/config.go#AddFlags, server/etcdmain/config.go

use Kind::{Bool, Duration, Enum, Int, List, Set, Text, Uint, Urls};
use State::{Later, Works};
use Yaml::{At, None, Same};

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true` or `false`; alone it means `true`.
    Bool,
    /// A whole number.
    Int,
    /// A whole number, 0 or more.
    Uint,
    /// A Go duration such as `1m30s`.
    Duration,
    /// URLs, separated by commas.
    Urls,
    /// Texts, separated by commas, without order.
    Set,
    /// Texts, separated by commas, in order.
    List,
    /// One of these.
    Enum(&'static [&'static str]),
}

/// Where a flag stands in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yaml {
    /// Under its own name.
    Same,
    /// Under this path, dots between the keys.
    At(&'static str),
    /// Nowhere.
    None,
}

/// Whether this version acts on a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does, or there is nothing yet that could differ.
    Works,
    /// The feature comes later: any value but the default is refused (COMPAT.md lists them).
    Later,
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its kind of value.
    pub kind: Kind,
    /// Its default, as text.
    pub default: &'static str,
    /// Its place in the configuration file.
    pub yaml: Yaml,
    /// Whether it works.
    pub state: State,
}

const fn row(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    yaml: Yaml,
    state: State,
) -> Flag {
    Flag { name, kind, default, yaml, state }
}

/// All flags that mean something.
pub const FLAGS: &[Flag] = &[
    row("name", Text, "default", Same, Works),
    row("data-dir", Text, "", Same, Works),
    row("wal-dir", Text, "", Same, Works),
    row("snapshot-count", Uint, "10000", Same, Works),
    row("snapshot-catchup-entries", Uint, "5000", Same, Works),
    row("max-snapshots", Uint, "5", Same, Works),
    row("max-wals", Uint, "5", Same, Works),
    row("quota-backend-bytes", Int, "0", Same, Works),
    row("backend-bbolt-freelist-type", Text, "", Same, Works),
    row("backend-batch-interval", Duration, "0", Same, Works),
    row("backend-batch-limit", Int, "0", Same, Works),
    row("max-txn-ops", Uint, "128", Same, Works),
    row("max-request-bytes", Uint, "1572864", Same, Works),
    row("max-concurrent-streams", Uint, "4294967295", Same, Works),
    row("memory-mlock", Bool, "false", Same, Later),
    row("bootstrap-defrag-threshold-megabytes", Uint, "0", Same, Later),
    row("heartbeat-interval", Uint, "100", Same, Works),
    row("election-timeout", Uint, "1000", Same, Works),
    row("initial-election-tick-advance", Bool, "true", Same, Works),
    row("pre-vote", Bool, "true", Same, Works),
    row("raft-read-timeout", Duration, "5s", None, Works),
    row("raft-write-timeout", Duration, "5s", None, Works),
    row("grpc-keepalive-min-time", Duration, "5s", Same, Works),
    row("grpc-keepalive-interval", Duration, "2h", Same, Works),
    row("grpc-keepalive-timeout", Duration, "20s", Same, Works),
    row("socket-reuse-port", Bool, "false", At("socket-options.reuse-port"), Works),
    row("socket-reuse-address", Bool, "false", At("socket-options.reuse-address"), Works),
    row("listen-peer-urls", Urls, "http://localhost:2380", Same, Works),
    row("listen-client-urls", Urls, "http://localhost:2379", Same, Works),
    row("listen-client-http-urls", Urls, "", Same, Later),
    row("listen-metrics-urls", Urls, "", Same, Later),
    row("initial-advertise-peer-urls", Urls, "http://localhost:2380", Same, Works),
    row("advertise-client-urls", Urls, "http://localhost:2379", Same, Works),
    row("initial-cluster", Text, "default=http://localhost:2380", Same, Works),
    row("initial-cluster-state", Enum(&["new", "existing"]), "new", Same, Works),
    row("initial-cluster-token", Text, "etcd-cluster", Same, Works),
    row("discovery-srv", Text, "", Same, Later),
    row("discovery-srv-name", Text, "", Same, Later),
    row("discovery-token", Text, "", At("discovery-config.token"), Later),
    row("discovery-endpoints", Set, "", At("discovery-config.client.endpoints"), Later),
    row(
        "discovery-dial-timeout",
        Duration,
        "2s",
        At("discovery-config.client.dial-timeout"),
        Later,
    ),
    row(
        "discovery-request-timeout",
        Duration,
        "5s",
        At("discovery-config.client.request-timeout"),
        Later,
    ),
    row(
        "discovery-keepalive-time",
        Duration,
        "2s",
        At("discovery-config.client.keepalive-time"),
        Later,
    ),
    row(
        "discovery-keepalive-timeout",
        Duration,
        "6s",
        At("discovery-config.client.keepalive-timeout"),
        Later,
    ),
    row(
        "discovery-insecure-transport",
        Bool,
        "true",
        At("discovery-config.client.secure.insecure-transport"),
        Later,
    ),
    row(
        "discovery-insecure-skip-tls-verify",
        Bool,
        "false",
        At("discovery-config.client.secure.insecure-skip-tls-verify"),
        Later,
    ),
    row("discovery-cert", Text, "", At("discovery-config.client.secure.cert"), Later),
    row("discovery-key", Text, "", At("discovery-config.client.secure.key"), Later),
    row("discovery-cacert", Text, "", At("discovery-config.client.secure.cacert"), Later),
    row("discovery-user", Text, "", At("discovery-config.client.auth.username"), Later),
    row("discovery-password", Text, "", At("discovery-config.client.auth.password"), Later),
    row("discovery-fallback", Enum(&["exit", "proxy"]), "exit", None, Works),
    row("strict-reconfig-check", Bool, "true", Same, Works),
    row("auto-compaction-mode", Text, "periodic", Same, Works),
    row("auto-compaction-retention", Text, "0", Same, Works),
    row("max-learners", Int, "1", Same, Works),
    row(
        "v2-deprecation",
        Enum(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
        "write-only",
        Same,
        Works,
    ),
    row("downgrade-check-time", Duration, "5s", Same, Works),
    row("cert-file", Text, "", At("client-transport-security.cert-file"), Later),
    row("key-file", Text, "", At("client-transport-security.key-file"), Later),
    row("client-cert-file", Text, "", At("client-transport-security.client-cert-file"), Later),
    row("client-key-file", Text, "", At("client-transport-security.client-key-file"), Later),
    row("client-cert-auth", Bool, "false", At("client-transport-security.client-cert-auth"), Later),
    row("trusted-ca-file", Text, "", At("client-transport-security.trusted-ca-file"), Later),
    row("auto-tls", Bool, "false", At("client-transport-security.auto-tls"), Later),
    row("client-crl-file", Text, "", None, Later),
    row(
        "client-cert-allowed-hostname",
        List,
        "",
        At("client-transport-security.allowed-hostname"),
        Later,
    ),
    row("peer-cert-file", Text, "", At("peer-transport-security.cert-file"), Later),
    row("peer-key-file", Text, "", At("peer-transport-security.key-file"), Later),
    row("peer-client-cert-file", Text, "", At("peer-transport-security.client-cert-file"), Later),
    row("peer-client-key-file", Text, "", At("peer-transport-security.client-key-file"), Later),
    row(
        "peer-client-cert-auth",
        Bool,
        "false",
        At("peer-transport-security.client-cert-auth"),
        Later,
    ),
    row("peer-trusted-ca-file", Text, "", At("peer-transport-security.trusted-ca-file"), Later),
    row("peer-auto-tls", Bool, "false", At("peer-transport-security.auto-tls"), Later),
    row("peer-crl-file", Text, "", None, Later),
    row("peer-cert-allowed-cn", List, "", At("peer-transport-security.allowed-cn"), Later),
    row(
        "peer-cert-allowed-hostname",
        List,
        "",
        At("peer-transport-security.allowed-hostname"),
        Later,
    ),
    row(
        "peer-skip-client-san-verification",
        Bool,
        "false",
        At("peer-transport-security.skip-client-san-verification"),
        Later,
    ),
    row("self-signed-cert-validity", Uint, "1", Same, Later),
    row("cipher-suites", List, "", Same, Later),
    row("tls-min-version", Text, "TLS1.2", Same, Later),
    row("tls-max-version", Text, "", Same, Later),
    row("cors", Set, "*", Same, Works),
    row("host-whitelist", Set, "*", Same, Later),
    row("logger", Text, "zap", Same, Works),
    row("log-outputs", Set, "default", Same, Works),
    row("log-level", Text, "info", Same, Works),
    row("log-format", Text, "json", Same, Works),
    row("enable-log-rotation", Bool, "false", Same, Later),
    row(
        "log-rotation-config-json",
        Text,
        "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}",
        Same,
        Works,
    ),
    row("enable-pprof", Bool, "false", Same, Later),
    row("metrics", Text, "basic", Same, Later),
    row("warning-apply-duration", Duration, "100ms", Same, Works),
    row("warning-unary-request-duration", Duration, "300ms", Same, Works),
    row("enable-distributed-tracing", Bool, "false", Same, Later),
    row("distributed-tracing-address", Text, "localhost:4317", Same, Works),
    row("distributed-tracing-service-name", Text, "etcd", Same, Works),
    row("distributed-tracing-instance-id", Text, "", Same, Works),
    row("distributed-tracing-sampling-rate", Int, "0", Same, Later),
    row("auth-token", Text, "simple", Same, Later),
    row("bcrypt-cost", Uint, "10", Same, Works),
    row("auth-token-ttl", Uint, "300", Same, Works),
    row("enable-grpc-gateway", Bool, "true", Same, Later),
    row("corrupt-check-time", Duration, "0", Same, Works),
    row("compact-hash-check-time", Duration, "1m", Same, Works),
    row("compaction-batch-limit", Int, "0", Same, Works),
    row("compaction-sleep-interval", Duration, "0", Same, Works),
    row("watch-progress-notify-interval", Duration, "0", Same, Works),
    row("feature-gates", Text, "", Same, Works),
    row("unsafe-no-fsync", Bool, "false", Same, Works),
    row("force-new-cluster", Bool, "false", Same, Works),
    row("config-file", Text, "", None, Works),
    row("version", Bool, "false", None, Works),
];

/// Flags of old versions that are accepted with a warning and do nothing.
pub const IGNORED: &[&str] = &[
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
    "test.coverprofile",
    "test.outputdir",
];

/// The flag of this name.
#[must_use]
pub fn flag(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_kind() {
        for flag in FLAGS {
            let checked = super::super::value::check(flag, flag.default);
            assert_eq!(checked, Ok(()), "--{}", flag.name);
        }
        let mut names: Vec<_> = FLAGS.iter().map(|f| f.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FLAGS.len());
    }
}
