//! Where values come from: command line, environment, or a YAML file instead of both.
//!
//! //= etcd 3.7.1: server/etcdmain/config.go#parse, pkg/flags/flag.go#SetFlagsFromEnv

use std::collections::BTreeMap;

use serde_json::Value;

use observe::logging::Level;

use super::table::{FLAGS, Flag, IGNORED, Kind, Yaml, flag};
use super::value::{boolean, check};

/// Texts of flags that were set, and what is told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Values by flag, as the command line would have them.
    pub values: BTreeMap<&'static str, String>,
    /// Lines for the log, in order.
    pub notices: Vec<Notice>,
    /// Whether a file said it, in which no flag takes another's default away.
    pub is_file: bool,
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

impl Set {
    /// The text of a flag: as set, or its default.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        match self.values.get(name) {
            Some(text) => text,
            None => flag(name).expect("asked for by a name of the table").default,
        }
    }

    /// Whether a flag was set.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

/// Reads the command line as Go's `flag` package does: `-x`, `--x`, `--x=v`, `--x v`; a bool takes
/// its value only with `=`.
///
/// # Errors
/// [`Refused`].
pub fn command_line(args: &[String]) -> Result<Set, Refused> {
    let mut set = Set::default();
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
        let bad_syntax = name.starts_with('-') || name.starts_with('=');
        if bad_syntax {
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
                set.notices.push(Notice::warning(format!("ignored flag --{name} has no effect")));
                continue;
            }
            let text = format!("flag provided but not defined: -{name}");
            return Err(Refused::Usage(text));
        };
        let text = match (inline, flag.kind) {
            (Some(text), _) => text,
            (None, Kind::Bool) => "true".to_owned(),
            (None, _) => args
                .next()
                .cloned()
                .ok_or_else(|| Refused::Usage(format!("flag needs an argument: -{name}")))?,
        };
        check(flag, &text).map_err(|e| {
            let what = if flag.kind == Kind::Bool { "boolean value" } else { "value" };
            Refused::Usage(format!("invalid {what} {text:?} for flag -{name}: {e}"))
        })?;
        set.values.insert(flag.name, text);
    }
    Ok(set)
}

fn not_a_flag(arg: &str) -> Refused {
    Refused::Invalid(format!("{arg:?} is not a valid flag"))
}

/// Adds what the environment sets (`ETCD_` and the flag's name in capitals).
///
/// # Errors
/// A variable that a flag shadows, or whose value is wrong.
pub fn environment(
    set: &mut Set,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(), Refused> {
    let known: BTreeMap<String, &'static Flag> =
        FLAGS.iter().map(|flag| (variable(flag.name), flag)).collect();
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
        if set.is_set(flag.name) {
            return Err(Refused::Shadowed(name));
        }
        if text.is_empty() {
            unrecognized.push((name, text));
            continue;
        }
        check(flag, &text)
            .map_err(|e| Refused::Invalid(format!("invalid value {text:?} for {name}: {e}")))?;
        set.notices.push(Notice {
            level: Level::Info,
            text: "recognized and used environment variable".to_owned(),
            fields: vec![("variable-name", name), ("variable-value", text.clone())],
        });
        set.values.insert(flag.name, text);
    }
    set.notices.extend(unrecognized.into_iter().map(|(name, text)| Notice {
        level: Level::Warn,
        text: "unrecognized environment variable".to_owned(),
        fields: vec![("environment-variable", format!("{name}={text}"))],
    }));
    Ok(())
}

fn variable(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// Reads a configuration file. Keys match without regard to case, unknown ones are ignored, as Go's
/// JSON decoder does it. `log-outputs` may also be a single text, which etcd refuses (COMPAT.md).
///
/// # Errors
/// [`Refused::Invalid`].
pub fn file(text: &str) -> Result<Set, Refused> {
    let document = super::yaml::read(text)
        .map_err(|e| Refused::Invalid(format!("error converting YAML to JSON: yaml: {e}")))?;
    let mut set = Set { is_file: true, ..Set::default() };
    if document.is_null() {
        return Ok(set);
    }
    if !document.is_object() {
        return Err(Refused::Invalid("the configuration file is not a map".to_owned()));
    }
    for flag in FLAGS {
        let path = match flag.yaml {
            Yaml::Same => flag.name,
            Yaml::At(path) => path,
            Yaml::None => continue,
        };
        let Some(value) = lookup(&document, path)? else { continue };
        if let Some(text) = from_yaml(flag, path, value)? {
            set.values.insert(flag.name, text);
        }
    }
    Ok(set)
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

fn from_yaml(flag: &Flag, path: &str, value: &Value) -> Result<Option<String>, Refused> {
    let wrong = |wanted: &str| {
        let kind = match value {
            Value::String(_) => "string",
            Value::Number(_) => "number",
            Value::Bool(_) => "bool",
            Value::Array(_) => "array",
            _ => "object",
        };
        Err(Refused::Invalid(format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {kind} into Go \
             struct field configYAML.{path} of type {wanted}"
        )))
    };
    let joined = |items: &[Value]| -> Option<String> {
        let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
        texts.map(|t| t.join(","))
    };
    let text = match (flag.kind, value) {
        (Kind::Bool, Value::Bool(b)) => b.to_string(),
        (Kind::Bool, _) => return wrong("bool"),
        (Kind::Int | Kind::Uint, Value::Number(n)) => n.to_string(),
        (Kind::Int, _) => return wrong("int64"),
        (Kind::Uint, _) => return wrong("uint"),
        // A plain number is nanoseconds.
        (Kind::Duration, Value::Number(n)) => format!("{n}ns"),
        (Kind::Duration, _) => return wrong("time.Duration"),
        (Kind::List, Value::Array(items)) => match joined(items) {
            Some(text) => text,
            None => return wrong("[]string"),
        },
        (Kind::List, _) => return wrong("[]string"),
        (Kind::Set, Value::Array(items)) => match joined(items) {
            Some(text) => text,
            None => return wrong("[]string"),
        },
        (_, Value::String(text)) => text.clone(),
        _ => return wrong("string"),
    };
    let lenient = flag.kind == Kind::Bool && boolean(&text).is_some();
    if !lenient && let Err(e) = check(flag, &text) {
        return Err(Refused::Invalid(format!("unexpected error setting up {path}: {e}")));
    }
    // An empty state means new.
    Ok(Some(text).filter(|t| !(t.is_empty() && matches!(flag.kind, Kind::Enum(_)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Set, Refused> {
        command_line(&args.iter().map(|&a| a.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let set = parse(&["-name", "a", "--data-dir=/d", "--pre-vote=false", "--unsafe-no-fsync"]);
        let set = set.unwrap();
        assert_eq!((set.text("name"), set.text("data-dir")), ("a", "/d"));
        assert_eq!((set.text("pre-vote"), set.text("unsafe-no-fsync")), ("false", "true"));
        assert_eq!(set.text("max-wals"), "5");
        let usage = |args: &[&str]| match parse(args) {
            Err(Refused::Usage(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(usage(&["--nope"]), "flag provided but not defined: -nope");
        assert_eq!(usage(&["--name"]), "flag needs an argument: -name");
        assert_eq!(usage(&["--max-wals=x"]), "invalid value \"x\" for flag -max-wals: parse error");
        assert_eq!(parse(&["x"]), Err(Refused::Invalid("\"x\" is not a valid flag".into())));
        assert_eq!(parse(&["--help"]), Err(Refused::Help));
    }

    #[test]
    fn the_environment_fills_in_but_does_not_contradict() {
        let vars = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())].into_iter();
        let mut set = parse(&["--name=a"]).unwrap();
        environment(&mut set, vars("ETCD_DATA_DIR", "/d")).unwrap();
        assert_eq!(set.text("data-dir"), "/d");
        let shadowed = environment(&mut set, vars("ETCD_NAME", "b")).unwrap_err();
        assert_eq!(shadowed, Refused::Shadowed("ETCD_NAME".to_owned()));
        environment(&mut set, vars("ETCD_ON_K8S", "yes")).unwrap();
        let used = &set.notices[0];
        assert_eq!(used.text, "recognized and used environment variable");
        let fields = [("variable-name", "ETCD_DATA_DIR"), ("variable-value", "/d")];
        assert_eq!(used.fields, fields.map(|(name, value)| (name, value.to_owned())));
        let unknown = &set.notices[1];
        assert_eq!((unknown.level, &*unknown.fields[0].1), (Level::Warn, "ETCD_ON_K8S=yes"));
    }

    #[test]
    fn a_file_takes_lists_numbers_and_texts() {
        let set = file(
            "name: etcd-node0\nSnapshot-Count: 7\nlog-outputs: stderr\nbackend-batch-interval: 5\n\
             pre-vote: false\nunknown: 1\nclient-transport-security:\n  auto-tls: true\n",
        )
        .unwrap();
        assert_eq!(set.text("name"), "etcd-node0");
        assert_eq!(set.text("snapshot-count"), "7");
        assert_eq!(set.text("log-outputs"), "stderr");
        assert_eq!(set.text("backend-batch-interval"), "5ns");
        assert_eq!((set.text("pre-vote"), set.text("auto-tls")), ("false", "true"));
        assert!(file("log-outputs: [stderr]").is_ok());
        for bad in ["name: [a]", "max-wals: x", "a: b: c", "- x", "peer-transport-security: 3"] {
            assert!(file(bad).is_err(), "{bad}");
        }
    }
}
