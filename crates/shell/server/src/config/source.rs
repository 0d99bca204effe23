//! Where values come from: command line, environment, or a YAML file instead of both.
//!
//! Each text becomes a typed value here, once, and is refused in the words of where it stands.
//!
//! //= etcd 3.7.1: server/etcdmain/config.go#parse, pkg/flags/flag.go#SetFlagsFromEnv

use std::collections::BTreeMap;

use serde_json::Value;

use observe::logging::Level;

use super::configuration::Configuration;
use super::flag::Flag;
use super::table::{IGNORED, flag, flags};
use super::value::{FileError, FlagType};

/// What was read from the sources.
#[derive(Clone, Debug)]
pub struct Given {
    /// The values of all flags.
    pub configuration: Configuration,
    /// Flags that were set, with the text of their values for messages.
    texts: BTreeMap<&'static str, String>,
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
pub enum Refused {
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
    /// [`Refused::Invalid`]: the table contradicts itself.
    pub fn nothing(origin: Origin) -> Result<Self, Refused> {
        let configuration = Configuration::defaults().map_err(Refused::Invalid)?;
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
/// [`Refused`].
pub fn command_line(args: &[String]) -> Result<Given, Refused> {
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
            return Err(Refused::Usage(format!("bad flag syntax: {arg}")));
        }
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        if matches!(name, "h" | "help") {
            return Err(Refused::Help);
        }
        let Some(flag) = flag(name) else {
            if IGNORED.contains(&name) {
                given.notices.push(Notice::warning(format!("ignored flag --{name} has no effect")));
                continue;
            }
            let text = format!("flag provided but not defined: -{name}");
            return Err(Refused::Usage(text));
        };
        let is_bool = flag.place.flag_type() == FlagType::Bool;
        let text = match inline {
            Some(text) => text,
            None if is_bool => "true".to_owned(),
            None => args
                .next()
                .cloned()
                .ok_or_else(|| Refused::Usage(format!("flag needs an argument: -{name}")))?,
        };
        let what = if is_bool { "boolean value" } else { "value" };
        let quoted =
            format!("invalid {what} {text:?} for {}-{name}", if is_bool { "" } else { "flag " });
        given.set(flag, text).map_err(|e| Refused::Usage(format!("{quoted}: {e}")))?;
    }
    Ok(given)
}

fn not_a_flag(arg: &str) -> Refused {
    Refused::Invalid(format!("{arg:?} is not a valid flag"))
}

/// Adds what the environment sets (`ETCD_` and the flag's name in capitals).
///
/// # Errors
/// A variable that a flag shadows, or whose value is wrong.
pub fn environment(
    given: &mut Given,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(), Refused> {
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
            return Err(Refused::Shadowed(name));
        }
        if text.is_empty() {
            unrecognized.push((name, text));
            continue;
        }
        given
            .set(flag, text.clone())
            .map_err(|e| Refused::Invalid(format!("invalid value {text:?} for {name}: {e}")))?;
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
    format!("ETCD_{}", flag.to_ascii_uppercase().replace(['-', '.'], "_"))
}

/// Reads a configuration file. Keys match without regard to case, unknown ones are ignored, as Go's
/// JSON decoder does it.
///
/// # Errors
/// [`Refused::Invalid`].
pub fn file(text: &str) -> Result<Given, Refused> {
    let document = super::yaml::read(text)
        .map_err(|e| Refused::Invalid(format!("error converting YAML to JSON: yaml: {e}")))?;
    let mut given = Given::nothing(Origin::File)?;
    if document.is_null() {
        return Ok(given);
    }
    if !document.is_object() {
        return Err(Refused::Invalid("the configuration file is not a map".to_owned()));
    }
    for flag in flags() {
        let Some(path) = flag.path() else { continue };
        let Some(value) = lookup(&document, path)? else { continue };
        let set = flag.place.set_from_file(&mut given.configuration, value);
        set.map_err(|e| Refused::Invalid(file_error(path, value, e)))?;
        given.texts.insert(flag.name, shown(value));
    }
    Ok(given)
}

fn lookup<'d>(document: &'d Value, path: &str) -> Result<Option<&'d Value>, Refused> {
    let mut value = document;
    for key in path.split('.') {
        let Value::Object(map) = value else {
            if value.is_null() {
                return Ok(None);
            }
            let section = path.split('.').next().unwrap_or(path);
            return Err(Refused::Invalid(format!("invalid {section}")));
        };
        let exact = map.get(key);
        let found =
            exact.or_else(|| map.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v));
        match found {
            Some(inner) => value = inner,
            None => return Ok(None),
        }
    }
    Ok((!value.is_null()).then_some(value))
}

/// A value of the file as messages show it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn file_error(path: &str, value: &Value, error: FileError) -> String {
    let wanted = match error {
        FileError::Bare(why) => return why,
        FileError::Value(why) => return format!("unexpected error setting up {path}: {why}"),
        FileError::Type(wanted) => wanted,
    };
    let kind = match value {
        Value::String(_) => "string".to_owned(),
        // A number of the wrong size is named, one where no number belongs is not.
        Value::Number(number) if !matches!(wanted, "bool" | "string" | "[]string") => {
            format!("number {number}")
        }
        Value::Number(_) => "number".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) | Value::Null => "object".to_owned(),
    };
    format!(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {kind} into Go \
         struct field {}.{path} of type {wanted}",
        structs_of(path)
    )
}

/// The Go structs that hold a key of the file: the last one, and the one of the whole file that
/// leads to it.
//= etcd 3.7.3: server/embed/config.go#configYAML
fn structs_of(path: &str) -> &'static str {
    const TEXTS: [&str; 9] = [
        "listen-peer-urls",
        "listen-client-urls",
        "listen-client-http-urls",
        "initial-advertise-peer-urls",
        "advertise-client-urls",
        "listen-metrics-urls",
        "cors",
        "host-whitelist",
        "feature-gates",
    ];
    match path.split('.').collect::<Vec<_>>().as_slice() {
        [key] if TEXTS.contains(key) => "configYAML.configJSON",
        [_] => "configYAML.Config",
        ["client-transport-security" | "peer-transport-security", ..] => {
            "securityConfig.configJSON"
        }
        ["socket-options", ..] => "SocketOpts.Config",
        ["discovery-config", _] => "DiscoveryConfig.Config",
        ["discovery-config", _, "secure", _] => "SecureConfig.Config",
        ["discovery-config", _, "auth", _] => "AuthConfig.Config",
        _ => "ConfigSpec.Config",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Given, Refused> {
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
            Err(Refused::Usage(text)) => text,
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
        assert_eq!(refused(&["x"]), Refused::Invalid("\"x\" is not a valid flag".into()));
        assert_eq!(refused(&["--help"]), Refused::Help);
    }

    #[test]
    fn the_environment_fills_in_but_does_not_contradict() {
        let vars = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())].into_iter();
        let mut given = parse(&["--name=a"]).unwrap();
        environment(&mut given, vars("ETCD_DATA_DIR", "/d")).unwrap();
        assert_eq!(given.configuration.member.data_dir, "/d");
        let shadowed = environment(&mut given, vars("ETCD_NAME", "b")).unwrap_err();
        assert_eq!(shadowed, Refused::Shadowed("ETCD_NAME".to_owned()));
        environment(&mut given, vars("ETCD_ON_K8S", "yes")).unwrap();
        let used = &given.notices[0];
        assert_eq!(used.text, "recognized and used environment variable");
        let fields = [("variable-name", "ETCD_DATA_DIR"), ("variable-value", "/d")];
        assert_eq!(used.fields, fields.map(|(name, value)| (name, value.to_owned())));
        let unknown = &given.notices[1];
        assert_eq!((unknown.level, &*unknown.fields[0].1), (Level::Warn, "ETCD_ON_K8S=yes"));
        let wrong = environment(&mut given, vars("ETCD_MAX_WALS", "x")).unwrap_err();
        let text = "invalid value \"x\" for ETCD_MAX_WALS: parse error";
        assert_eq!(wrong, Refused::Invalid(text.to_owned()));
    }

    #[test]
    fn a_file_takes_lists_numbers_and_texts() {
        let given = file(
            "name: etcd-node0\nSnapshot-Count: 7\nlog-outputs: stderr\nbackend-batch-interval: 5\n\
             pre-vote: false\nunknown: 1\nclient-transport-security:\n  auto-tls: true\n",
        );
        let configuration = given.unwrap().configuration;
        assert_eq!(configuration.member.name, "etcd-node0");
        assert_eq!(configuration.raft.snapshot_count, 7);
        assert_eq!(configuration.logging.outputs.0, ["stderr"]);
        assert_eq!(configuration.storage.batch_interval, std::time::Duration::from_nanos(5));
        assert_eq!(
            (configuration.raft.pre_vote, configuration.client_security.auto_tls),
            (false, true)
        );
        assert!(file("log-outputs: [stderr]").is_ok());
        for bad in ["name: [a]", "max-wals: x", "a: b: c", "- x", "peer-transport-security: 3"] {
            assert!(file(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_refused_in_the_words_of_gos_decoder() {
        for (line, why) in [
            (
                "max-wals: -1",
                "number -1 into Go struct field configYAML.Config.max-wals of type uint",
            ),
            ("name: 3", "number into Go struct field configYAML.Config.name of type string"),
            (
                "corrupt-check-time: 1s",
                "string into Go struct field configYAML.Config.corrupt-check-time of type time.Duration",
            ),
            (
                "snapshot-count: x",
                "string into Go struct field configYAML.Config.snapshot-count of type uint64",
            ),
            (
                "max-concurrent-streams: 4294967296",
                "number 4294967296 into Go struct field configYAML.Config.max-concurrent-streams of \
                 type uint32",
            ),
            (
                "host-whitelist: [a]",
                "array into Go struct field configYAML.configJSON.host-whitelist of type string",
            ),
            (
                "discovery-config: {client: {endpoints: a}}",
                "string into Go struct field ConfigSpec.Config.discovery-config.client.endpoints of \
                 type []string",
            ),
            (
                "client-transport-security: {cert-file: 3}",
                "number into Go struct field \
                 securityConfig.configJSON.client-transport-security.cert-file of type string",
            ),
        ] {
            let refused = file(line).unwrap_err();
            let start = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";
            assert_eq!(refused, Refused::Invalid(format!("{start} {why}")), "{line}");
        }
        let bare = file("feature-gates: A").unwrap_err();
        assert_eq!(bare, Refused::Invalid("missing bool value for A".to_owned()));
    }
}
