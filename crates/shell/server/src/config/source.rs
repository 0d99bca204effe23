//! Where values come from: command line and environment here, or a file ([`super::file`]) instead.
//!
//! Each text becomes a typed value here, once, and is refused in the words of where it stands.
//!
//! //= etcd 3.7.1: server/etcdmain/config.go#parse, pkg/flags/flag.go#SetFlagsFromEnv

use std::collections::BTreeMap;

use observe::logging::Level;

use super::configuration::Configuration;
use super::flag::Flag;
use super::table::{IGNORED, flag, flags};
use super::value::FlagType;

/// What was read from the sources.
#[derive(Clone, Debug)]
pub struct Given {
    /// The values of all flags.
    pub configuration: Configuration,
    /// Flags that were set, with the text of their values for messages.
    pub(super) texts: BTreeMap<&'static str, String>,
    /// Lines for the log, in order.
    pub notices: Vec<Notice>,
    /// Which of the sources were read.
    pub origin: Origin,
}

/// Which sources were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line and the environment.
    Flags,
    /// A file, in which no flag takes another's default away.
    File,
}

/// A line for the log about where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How important it is.
    pub level: Level,
    /// etcd's text.
    pub text: String,
    /// Its fields.
    pub fields: Vec<(&'static str, String)>,
}

impl Notice {
    /// A warning without fields.
    #[must_use]
    pub fn warning(text: impl Into<String>) -> Self {
        Self { level: Level::Warn, text: text.into(), fields: Vec::new() }
    }
}

/// Why the command line, environment or file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The command line is wrong: text, then usage; exit code 2.
    Usage(String),
    /// `--help`: exit code 0.
    Help,
    /// A variable of the environment of which a flag says otherwise: its name; exit code 1.
    Shadowed(String),
    /// Anything else; exit code 1.
    Invalid(String),
}

impl Given {
    /// Nothing is set.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`]: the table contradicts itself.
    pub fn nothing(origin: Origin) -> Result<Self, ConfigError> {
        let configuration = Configuration::defaults().map_err(ConfigError::Invalid)?;
        Ok(Self { configuration, texts: BTreeMap::new(), notices: Vec::new(), origin })
    }

    /// Whether a flag was set.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// The text of the value to which a flag was set.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    fn set(&mut self, flag: &'static Flag, text: String) -> Result<(), String> {
        flag.place.set(&mut self.configuration, &text)?;
        self.texts.insert(flag.name, text);
        Ok(())
    }
}

/// Reads the command line as Go's `flag` package does: `-x`, `--x`, `--x=v`, `--x v`; a bool takes
/// its value only with `=`.
///
/// # Errors
/// [`ConfigError`].
pub fn command_line(args: &[String]) -> Result<Given, ConfigError> {
    let mut given = Given::nothing(Origin::Flags)?;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let name = match arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) {
            Some("") if arg == "--" => match args.next() {
                None => break,
                Some(rest) => return Err(not_a_flag(rest)),
            },
            Some(name) if !name.is_empty() => name,
            _ => return Err(not_a_flag(arg)),
        };
        if name.starts_with('-') || name.starts_with('=') {
            return Err(ConfigError::Usage(format!("bad flag syntax: {arg}")));
        }
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        if matches!(name, "h" | "help") {
            return Err(ConfigError::Help);
        }
        let Some(flag) = flag(name) else {
            if IGNORED.contains(&name) {
                given.notices.push(Notice::warning(format!("ignored flag --{name} has no effect")));
                continue;
            }
            let text = format!("flag provided but not defined: -{name}");
            return Err(ConfigError::Usage(text));
        };
        let is_bool = flag.place.flag_type() == FlagType::Bool;
        let text = match inline {
            Some(text) => text,
            None if is_bool => "true".to_owned(),
            None => args
                .next()
                .cloned()
                .ok_or_else(|| ConfigError::Usage(format!("flag needs an argument: -{name}")))?,
        };
        let what = if is_bool { "boolean value" } else { "value" };
        let quoted =
            format!("invalid {what} {text:?} for {}-{name}", if is_bool { "" } else { "flag " });
        given.set(flag, text).map_err(|e| ConfigError::Usage(format!("{quoted}: {e}")))?;
    }
    Ok(given)
}

fn not_a_flag(arg: &str) -> ConfigError {
    ConfigError::Invalid(format!("{arg:?} is not a valid flag"))
}

/// Adds what the environment sets (`ETCD_` and the flag's name in capitals).
///
/// # Errors
/// A variable that a flag shadows, or whose value is wrong.
pub fn environment(
    given: &mut Given,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    let known: BTreeMap<String, &'static Flag> =
        flags().map(|flag| (variable(flag.name), flag)).collect();
    let mut unrecognized = Vec::new();
    for (name, text) in variables.filter(|(name, _)| name.starts_with("ETCD_")) {
        let flag = known.get(&name).filter(|flag| flag.name != "version");
        let Some(flag) = flag else {
            // `--version` is asked for on the command line only; the second is read elsewhere.
            let silent = ["ETCD_VERSION", "ETCD_UNSUPPORTED_ARCH"].contains(&name.as_str());
            if !silent && !IGNORED.iter().any(|ignored| variable(ignored) == name) {
                unrecognized.push((name, text));
            }
            continue;
        };
        if given.is_set(flag.name) {
            return Err(ConfigError::Shadowed(name));
        }
        if text.is_empty() {
            unrecognized.push((name, text));
            continue;
        }
        given
            .set(flag, text.clone())
            .map_err(|e| ConfigError::Invalid(format!("invalid value {text:?} for {name}: {e}")))?;
        given.notices.push(Notice {
            level: Level::Info,
            text: "recognized and used environment variable".to_owned(),
            fields: vec![("variable-name", name), ("variable-value", text)],
        });
    }
    given.notices.extend(unrecognized.into_iter().map(|(name, text)| Notice {
        level: Level::Warn,
        text: "unrecognized environment variable".to_owned(),
        fields: vec![("environment-variable", format!("{name}={text}"))],
    }));
    Ok(())
}

/// The variable of the environment that sets a flag.
#[must_use]
pub fn variable(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Given, ConfigError> {
        command_line(&args.iter().map(|&a| a.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let given =
            parse(&["-name", "a", "--data-dir=/d", "--pre-vote=false", "--unsafe-no-fsync"]);
        let configuration = given.unwrap().configuration;
        let member = &configuration.member;
        assert_eq!((member.name.as_str(), member.data_dir.as_str()), ("a", "/d"));
        assert_eq!(
            (configuration.raft.pre_vote, configuration.storage.unsafe_no_fsync),
            (false, true)
        );
        assert_eq!(configuration.storage.max_wals, 5);
        let usage = |args: &[&str]| match parse(args) {
            Err(ConfigError::Usage(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(usage(&["--nope"]), "flag provided but not defined: -nope");
        assert_eq!(usage(&["--name"]), "flag needs an argument: -name");
        assert_eq!(usage(&["--max-wals=x"]), "invalid value \"x\" for flag -max-wals: parse error");
        assert_eq!(
            usage(&["--pre-vote=x"]),
            "invalid boolean value \"x\" for -pre-vote: parse error"
        );
        let refused = |args: &[&str]| parse(args).unwrap_err();
        assert_eq!(refused(&["x"]), ConfigError::Invalid("\"x\" is not a valid flag".into()));
        assert_eq!(refused(&["--help"]), ConfigError::Help);
    }

    #[test]
    fn the_environment_fills_in_but_does_not_contradict() {
        let vars = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())].into_iter();
        let mut given = parse(&["--name=a"]).unwrap();
        environment(&mut given, vars("ETCD_DATA_DIR", "/d")).unwrap();
        assert_eq!(given.configuration.member.data_dir, "/d");
        let shadowed = environment(&mut given, vars("ETCD_NAME", "b")).unwrap_err();
        assert_eq!(shadowed, ConfigError::Shadowed("ETCD_NAME".to_owned()));
        environment(&mut given, vars("ETCD_ON_K8S", "yes")).unwrap();
        let used = &given.notices[0];
        assert_eq!(used.text, "recognized and used environment variable");
        let fields = [("variable-name", "ETCD_DATA_DIR"), ("variable-value", "/d")];
        assert_eq!(used.fields, fields.map(|(name, value)| (name, value.to_owned())));
        let unknown = &given.notices[1];
        assert_eq!((unknown.level, &*unknown.fields[0].1), (Level::Warn, "ETCD_ON_K8S=yes"));
        let wrong = environment(&mut given, vars("ETCD_MAX_WALS", "x")).unwrap_err();
        let text = "invalid value \"x\" for ETCD_MAX_WALS: parse error";
        assert_eq!(wrong, ConfigError::Invalid(text.to_owned()));
    }
}
