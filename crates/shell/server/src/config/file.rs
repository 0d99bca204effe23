//! The configuration file: YAML, refused in the words of Go's JSON decoder.

use serde_json::Value;

use super::source::{ConfigError, Given, Origin};
use super::table::in_file;
use super::value::FileError;

/// Reads a configuration file. Keys match without regard to case, unknown ones are ignored, as Go's
/// JSON decoder does it.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub fn read(text: &str) -> Result<Given, ConfigError> {
    let document = super::yaml::read(text)
        .map_err(|e| ConfigError::Invalid(format!("error converting YAML to JSON: yaml: {e}")))?;
    let mut given = Given::nothing(Origin::File)?;
    if document.is_null() {
        return Ok(given);
    }
    if !document.is_object() {
        return Err(ConfigError::Invalid("the configuration file is not a map".to_owned()));
    }
    for flag in in_file() {
        let Some(path) = flag.path() else { continue };
        let Some(value) = lookup(&document, path)? else { continue };
        let set = flag.place.set_from_file(&mut given.configuration, value);
        set.map_err(|e| ConfigError::Invalid(file_error(path, value, e)))?;
        if !flag.name.is_empty() {
            given.texts.insert(flag.name, shown(value));
        }
    }
    Ok(given)
}

fn lookup<'d>(document: &'d Value, path: &str) -> Result<Option<&'d Value>, ConfigError> {
    let mut value = document;
    for key in path.split('.') {
        let Value::Object(map) = value else {
            if value.is_null() {
                return Ok(None);
            }
            let section = path.split('.').next().unwrap_or(path);
            return Err(ConfigError::Invalid(format!("invalid {section}")));
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
    const TEXTS: [&str; 8] = [
        "listen-peer-urls",
        "listen-client-urls",
        "listen-client-http-urls",
        "initial-advertise-peer-urls",
        "advertise-client-urls",
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

    #[test]
    fn a_file_takes_lists_numbers_and_texts() {
        let given = read(
            "name: etcd-node0\nSnapshot-Count: 7\nlog-outputs: stderr\nbackend-batch-interval: 5\n\
             pre-vote: false\nunknown: 1\nclient-transport-security:\n  auto-tls: true\n  \
             allowed-cn: [a, b]\n  skip-client-san-verification: true\n",
        );
        let configuration = given.unwrap().configuration;
        assert_eq!(configuration.member.name, "etcd-node0");
        assert_eq!(configuration.raft.snapshot_count, 7);
        assert_eq!(configuration.logging.outputs.0, ["stderr"]);
        assert_eq!(configuration.client_security.allowed_cn, ["a", "b"]);
        assert!(configuration.client_security.skip_client_san_verification);
        assert_eq!(configuration.storage.batch_interval, std::time::Duration::from_nanos(5));
        assert_eq!(
            (configuration.raft.pre_vote, configuration.client_security.auto_tls),
            (false, true)
        );
        assert!(read("log-outputs: [stderr]").is_ok());
        for bad in ["name: [a]", "max-wals: x", "a: b: c", "- x", "peer-transport-security: 3"] {
            assert!(read(bad).is_err(), "{bad}");
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
            let refused = read(line).unwrap_err();
            let start = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";
            assert_eq!(refused, ConfigError::Invalid(format!("{start} {why}")), "{line}");
        }
        let bare = read("feature-gates: A").unwrap_err();
        assert_eq!(bare, ConfigError::Invalid("missing bool value for A".to_owned()));
    }
}
