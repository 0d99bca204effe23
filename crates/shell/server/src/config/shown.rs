//! What a start tells of the configuration: the flags that etcd's line has, as the values they got.

use std::time::Duration;

use cli::text::show_duration;
use member::Retention;
use serde_json::Value;

use crate::options::Options;

use super::flag::State;
use super::source::{Given, Notice};
use super::table::{flag, flags};

/// Flags of the line, in its order. What has another name there or is not a flag is added by who
/// writes it; flags that come later are left out.
//= etcd 3.7.1: server/embed/etcd.go#print
const SHOWN: [&str; 37] = [
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
    "discovery-dial-timeout",
    "discovery-request-timeout",
    "discovery-keepalive-time",
    "discovery-keepalive-timeout",
    "discovery-insecure-transport",
    "discovery-insecure-skip-tls-verify",
    "discovery-cert",
    "discovery-key",
    "discovery-cacert",
    "discovery-user",
    "max-learners",
    "v2-deprecation",
];

/// The fields: flags as they were given, but for some whose meaning depends on others.
pub(super) fn fields(given: &Given, options: &Options) -> Vec<(&'static str, Value)> {
    let rows = SHOWN.iter().filter_map(|name| flag(name));
    rows.map(|flag| {
        let value = match flag.name {
            "initial-cluster" => cluster(&options.initial_cluster).into(),
            // Without a password that stands in it.
            "discovery-user" => user(&given.configuration.discovery.user).into(),
            "discovery-endpoints" => given.configuration.discovery.endpoints.join(",").into(),
            "auto-compaction-retention" => retention(options.auto_compaction).into(),
            _ => flag.place.show(&given.configuration),
        };
        (flag.name, value)
    })
    .collect()
}

//= etcd 3.7.3: client/pkg/types/urlsmap.go#String
fn cluster(members: &[(String, Vec<String>)]) -> String {
    let pairs = members.iter().flat_map(|(name, urls)| urls.iter().map(move |url| (name, url)));
    let mut texts: Vec<String> = pairs.map(|(name, url)| format!("{name}={url}")).collect();
    texts.sort_unstable();
    texts.join(",")
}

fn user(flag: &str) -> &str {
    flag.split_once(':').map_or(flag, |(user, _)| user)
}

/// A number of revisions is so many nanoseconds to etcd.
fn retention(kept: Option<Retention>) -> String {
    show_duration(match kept {
        None => Duration::ZERO,
        Some(Retention::Periodic(time)) => time,
        Some(Retention::Revisions(number)) => Duration::from_nanos(number.unsigned_abs()),
    })
}

/// Warnings about flags that were set and do nothing any more.
//= etcd 3.7.1: server/etcdmain/config.go#deprecatedFlags
pub(super) fn deprecations(given: &Given) -> Vec<Notice> {
    let set = flags().filter(|flag| given.is_set(flag.name));
    set.filter_map(|flag| match flag.state {
        State::Deprecated(text) => Some(Notice::warning(text)),
        State::Works | State::Later => None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_the_line_is_in_the_table() {
        for name in SHOWN {
            assert!(flag(name).is_some(), "{name}");
        }
    }
}
