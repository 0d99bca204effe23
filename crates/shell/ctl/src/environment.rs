//! Flags from `ETCDCTL_…` variables, and what is told about them on stderr.

use std::collections::BTreeSet;

use cli::output::{self, Level};
use cli::{Exit, Values};

use crate::commands::ETCDCTL;

/// What begins the name of each variable of this tool.
pub const PREFIX: &str = "ETCDCTL_";

/// The variable of a flag.
fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// What the environment makes of the flags of a command line.
struct Merged {
    values: Values,
    /// Variables that no flag took, as `NAME=value`.
    unrecognized: Vec<String>,
}

/// Lays the environment under the flags of the command line. `taken` are variables that the
/// command reads by itself.
///
/// # Errors
/// The name of a variable of which a flag says otherwise.
//= etcd 3.7.3: pkg/flags/flag.go#SetPflagsFromEnv
fn lay_under(
    values: &Values,
    environment: &[(String, String)],
    taken: &BTreeSet<String>,
) -> Result<Merged, String> {
    let mut merged = values.clone();
    let mut used = taken.clone();
    let mut given = BTreeSet::new();
    for flag in ETCDCTL.flags {
        let name = variable(flag.name);
        if values.is_given(flag.name) {
            given.insert(name);
            continue;
        }
        let found = environment.iter().find(|(n, _)| *n == name);
        if let Some((_, value)) = found.filter(|(_, value)| !value.is_empty()) {
            merged.set_from_environment(flag.name, value);
            used.insert(name);
        }
    }
    let mut unrecognized = Vec::new();
    for (name, value) in environment.iter().filter(|(name, _)| !used.contains(name)) {
        if given.contains(name) {
            return Err(name.clone());
        }
        unrecognized.push(format!("{name}={value}"));
    }
    Ok(Merged { values: merged, unrecognized })
}

/// The flags of a command line with the environment's values, and says what is wrong with those.
/// With `--debug` all of them are told.
///
/// # Errors
/// A flag and a variable say the same thing twice.
pub fn merge(
    values: &Values,
    environment: &[(String, String)],
    taken: &BTreeSet<String>,
) -> Result<Values, Exit> {
    let Merged { values, unrecognized } =
        lay_under(values, environment, taken).map_err(|name| {
            let msg = "conflicting environment variable is shadowed by corresponding command-line \
                       flag (either unset environment variable or disable flag))";
            output::log(Level::Fatal, file!(), msg, &[("environment-variable", name.into())]);
            Exit::silent(Exit::ERROR)
        })?;
    for variable in unrecognized {
        let msg = "unrecognized environment variable";
        output::log(Level::Warn, file!(), msg, &[("environment-variable", variable.into())]);
    }
    if values.is_on("debug") {
        for (name, value) in values.shown(ETCDCTL.flags) {
            output::err(format!("{}={value}", variable(name)));
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay(line: &[&str], environment: &[(&str, &str)], taken: &[&str]) -> Result<Merged, String> {
        let args: Vec<String> = line.iter().map(|&a| a.to_owned()).collect();
        let values = Values::read(ETCDCTL.flags.to_vec(), &args).unwrap();
        let environment: Vec<_> =
            environment.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
        lay_under(&values, &environment, &taken.iter().map(|&t| t.to_owned()).collect())
    }

    #[test]
    fn variables_fill_in_and_what_nothing_took_is_named() {
        let environment = [
            ("ETCDCTL_API", "3"),
            ("ETCDCTL_HEX", "true"),
            ("ETCDCTL_DIAL_TIMEOUT", "abc"),
            ("ETCDCTL_USER", ""),
            ("ETCDCTL_WATCH_KEY", "k"),
        ];
        let merged = lay(&["--endpoints=a:1"], &environment, &["ETCDCTL_WATCH_KEY"]).unwrap();
        assert!(merged.values.is_on("hex"));
        assert_eq!(merged.values.text("dial-timeout"), "0");
        assert_eq!(merged.unrecognized, ["ETCDCTL_API=3", "ETCDCTL_USER="]);
        let merged = lay(&[], &environment, &[]).unwrap();
        assert_eq!(merged.unrecognized.last().unwrap(), "ETCDCTL_WATCH_KEY=k");
    }

    #[test]
    fn a_flag_and_its_variable_contradict_each_other_even_if_it_is_empty() {
        let refused = lay(&["--hex"], &[("ETCDCTL_HEX", "")], &[]).err();
        assert_eq!(refused.as_deref(), Some("ETCDCTL_HEX"));
    }
}
