//! Every server flag as one row, by the parts of `--help`.
//!
//! A new flag is a row here and a field of [`super::configuration::Configuration`]; whoever needs
//! its value reads the field.
//!
//! //= etcd 3.7.3: server/embed/config.go#AddFlags, server/etcdmain/config.go#newConfig

mod clustering;
mod member;
mod operation;
mod security;

use super::flag::{Flag, Group, InFile, State, at};

/// The tables, in the order of `--help`.
const TABLES: [&[Flag]; 10] = [
    member::PROGRAM,
    member::MEMBER,
    clustering::CLUSTERING,
    security::SECURITY,
    security::AUTH,
    operation::MONITORING,
    operation::LOGGING,
    operation::TRACING,
    operation::FEATURES,
    operation::UNSAFE,
];

/// What most rows of a group have; a row names the rest.
const fn of(group: Group) -> Flag {
    Flag {
        name: "",
        default: "",
        help: "",
        place: at!(config_file),
        group,
        file: InFile::Same,
        state: State::Works,
    }
}

/// All flags that mean something, in the order of `--help`.
pub fn flags() -> impl Iterator<Item = &'static Flag> {
    TABLES.into_iter().flatten()
}

/// All that the configuration file can say: flags, and what has none.
pub(super) fn in_file() -> impl Iterator<Item = &'static Flag> {
    flags().chain(security::FILE_ONLY)
}

/// The flag of this name.
#[must_use]
pub fn flag(name: &str) -> Option<&'static Flag> {
    flags().find(|flag| flag.name == name)
}

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

#[cfg(test)]
mod tests;
