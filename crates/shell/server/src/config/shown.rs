//! What a start tells of the configuration: the flags that etcd's line has, as the values they got.

use serde_json::Value;

use super::table::{Kind, flag};
use super::{Set, list};

/// Flags of the line, in its order. What has another name there or is not a flag is added by who
/// writes it; flags that come later are left out.
//= etcd 3.7.1: server/embed/etcd.go#print
const SHOWN: [&str; 27] = [
    "force-new-cluster",
    "initial-election-tick-advance",
    "snapshot-count",
    "max-wals",
    "max-snapshots",
    "snapshot-catchup-entries",
    "initial-advertise-peer-urls",
    "listen-peer-urls",
    "advertise-client-urls",
    "listen-client-urls",
    "listen-metrics-urls",
    "cors",
    "host-whitelist",
    "initial-cluster",
    "initial-cluster-state",
    "initial-cluster-token",
    "quota-backend-bytes",
    "max-request-bytes",
    "max-concurrent-streams",
    "pre-vote",
    "feature-gates",
    "auto-compaction-mode",
    "auto-compaction-retention",
    "discovery-token",
    "discovery-endpoints",
    "max-learners",
    "v2-deprecation",
];

/// Flags that do nothing any more, and what is told if one is set.
//= etcd 3.7.1: server/etcdmain/config.go#deprecatedFlags
const DEPRECATED: [(&str, &str); 2] = [
    ("max-snapshots", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    (
        "v2-deprecation",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is \
         enforced, ignoring user input.",
    ),
];

/// The fields.
pub(super) fn fields(set: &Set) -> Vec<(&'static str, Value)> {
    SHOWN.iter().map(|name| (*name, value(set, name))).collect()
}

fn value(set: &Set, name: &'static str) -> Value {
    let row = flag(name).expect("a name of the table");
    // Whatever was set: it is ignored.
    let text = if name == "v2-deprecation" { row.default } else { set.text(name) };
    match row.kind {
        Kind::Urls | Kind::Set | Kind::List => list(text).into(),
        Kind::Bool => super::value::boolean(text).into(),
        Kind::Int | Kind::Uint => {
            text.parse::<i64>().map_or_else(|_| text.to_owned().into(), Value::from)
        }
        Kind::Text | Kind::Duration | Kind::Enum(_) => text.into(),
    }
}

/// Warnings about flags that were set.
pub(super) fn deprecations(set: &Set) -> impl Iterator<Item = String> + '_ {
    DEPRECATED.iter().filter(|(name, _)| set.is_set(name)).map(|(_, text)| (*text).to_owned())
}
