//! YAML as etcd's reader takes it: version 1.1's words for switches, numbers with `_`, octal ones,
//! merged maps; the first document of several; a byte order mark.
//!
//! Owns how a plain scalar is understood; whatever is quoted is text. Limits: [`MAX_DEPTH`] and
//! [`MAX_NODES`], so that aliases cannot make a small file a large document.
//= sigs.k8s.io/yaml 1.6.0: goyaml.v2/resolve.go#resolve

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

/// Maps and lists within each other.
const MAX_DEPTH: usize = 64;
/// Values of a document, those behind aliases counted each time.
const MAX_NODES: usize = 10_000;

/// Reads the first document.
///
/// # Errors
/// It is no YAML, or beyond a limit.
pub fn read(text: &str) -> Result<Value, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|e| e.to_string())?;
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref())?;
                builder.value(value, anchor)?;
            }
            Event::SequenceStart(anchor, _) => builder.open(Open::List(Vec::new()), anchor)?,
            Event::MappingStart(anchor, _) => {
                builder.open(Open::Map { map: Map::new(), key: None }, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => builder.close()?,
            Event::Alias(anchor) => builder.alias(anchor)?,
            Event::DocumentEnd => break,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {}
        }
    }
    Ok(builder.document.unwrap_or(Value::Null))
}

/// A container that is not complete yet.
enum Open {
    List(Vec<Value>),
    Map { map: Map<String, Value>, key: Option<String> },
}

#[derive(Default)]
struct Builder {
    open: Vec<(Open, usize)>,
    /// Values that aliases name, and how many values are in each.
    anchors: BTreeMap<usize, (Value, usize)>,
    nodes: usize,
    document: Option<Value>,
}

impl Builder {
    fn count(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(format!("more than {MAX_NODES} values"));
        }
        Ok(())
    }

    fn open(&mut self, open: Open, anchor: usize) -> Result<(), String> {
        self.count(1)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} levels"));
        }
        self.open.push((open, anchor));
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let Some((open, anchor)) = self.open.pop() else { return Ok(()) };
        let value = match open {
            Open::List(items) => Value::Array(items),
            Open::Map { map, .. } => Value::Object(map),
        };
        self.add(value, anchor)
    }

    fn value(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        self.count(1)?;
        self.add(value, anchor)
    }

    fn alias(&mut self, anchor: usize) -> Result<(), String> {
        let known = self.anchors.get(&anchor).cloned();
        // One that stands within itself is not complete.
        let (value, nodes) = known.ok_or("an alias names nothing that is complete")?;
        self.count(nodes)?;
        self.add(value, 0)
    }

    fn add(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), nodes_of(&value)));
        }
        match self.open.last_mut() {
            None => self.document = Some(value),
            Some((Open::List(items), _)) => items.push(value),
            Some((Open::Map { map, key }, _)) => match key.take() {
                None => *key = Some(key_text(&value)?),
                Some(name) if name == "<<" => merge(map, value),
                Some(name) => {
                    map.insert(name, value);
                }
            },
        }
        Ok(())
    }
}

fn nodes_of(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nodes_of).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(nodes_of).sum::<usize>(),
        _ => 1,
    }
}

fn key_text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        _ => Err("a key that is no scalar".to_owned()),
    }
}

/// What a map has not yet, from one or several others.
fn merge(map: &mut Map<String, Value>, from: Value) {
    match from {
        Value::Object(others) => {
            for (name, value) in others {
                map.entry(name).or_insert(value);
            }
        }
        Value::Array(maps) => maps.into_iter().for_each(|other| merge(map, other)),
        _ => {}
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let is_text = tag.is_some_and(|tag| tag.suffix == "str");
    if style != ScalarStyle::Plain || is_text {
        return Ok(Value::String(text.to_owned()));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
    })
}

fn number(text: &str) -> Option<Value> {
    let first = *text.as_bytes().first()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    let plain = text.replace('_', "");
    if let Ok(whole) = cli::text::parse_int(&plain, 0) {
        return Some(whole.into());
    }
    if let Ok(whole) = cli::text::parse_uint(&plain, 0) {
        return Some(whole.into());
    }
    // Of what Rust reads as such a number, YAML has no words and no exponent without digits.
    let allowed = |b: u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
    if !plain.bytes().all(allowed) {
        return None;
    }
    let real: f64 = plain.parse().ok().filter(|real: &f64| real.is_finite())?;
    // As Go writes it as JSON: without an exponent while it is a whole number of 64 bits.
    let whole = real as i64;
    if whole as f64 == real && real.abs() < 9e18 {
        return Some(whole.into());
    }
    Number::from_f64(real).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(scalar: &str) -> Value {
        read(&format!("a: {scalar}")).unwrap()["a"].clone()
    }

    #[test]
    fn plain_scalars_are_those_of_version_1_1() {
        for (text, is_on) in
            [("yes", true), ("On", true), ("y", true), ("off", false), ("N", false)]
        {
            assert_eq!(one(text), Value::Bool(is_on), "{text}");
        }
        for (text, number) in [
            ("8_589_934_592", 8_589_934_592_i64),
            ("010000000", 0o10_000_000),
            ("0x1F", 31),
            ("-0b11", -3),
            ("1e9", 1_000_000_000),
            ("2147483648.0", 2_147_483_648),
        ] {
            assert_eq!(one(text), Value::from(number), "{text}");
        }
        assert_eq!(one("18446744073709551615"), Value::from(u64::MAX));
        assert_eq!(one("0.5"), Value::from(0.5));
        for text in ["'yes'", "\"0123\"", "!!str 0123", "1.2.3.4:5", "infinity", "http://a:1"] {
            assert!(one(text).is_string(), "{text}");
        }
        assert!(one("~").is_null() && one("").is_null());
    }

    #[test]
    fn the_first_document_counts_without_its_mark() {
        assert_eq!(read("\u{feff}a: 1\n---\na: 2\n").unwrap()["a"], 1);
        assert_eq!(read("").unwrap(), Value::Null);
        assert!(read("a: b: c").is_err());
    }

    #[test]
    fn aliases_and_merges_are_followed_within_limits() {
        let text = "base: &b {x: 1, z: 2}\nmore:\n  <<: *b\n  z: 3\nlist: [*b]\n";
        let document = read(text).unwrap();
        assert_eq!(document["more"], serde_json::json!({"x": 1, "z": 3}));
        assert_eq!(document["list"][0]["x"], 1);
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let list = vec![format!("*a{}", n - 1); 10].join(", ");
            laughs.push_str(&format!("a{n}: &a{n} [{list}]\n"));
        }
        assert!(read(&laughs).unwrap_err().contains("values"));
        assert!(read(&"[".repeat(1_000)).is_err());
        assert!(read("a: &a [*a]").is_err());
    }
}
