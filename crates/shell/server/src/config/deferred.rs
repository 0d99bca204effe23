//! Values that are read at once and refused later, at their place in the order of checks.

use std::time::Duration;

use observe::logging::{Format, Level};
use serde_json::Value;
use types::Url;

use super::value::{FlagType, FlagValue};

/// A text that etcd takes from anywhere and refuses only when all flags are checked: it is read
/// where it comes from, and what is wrong with it is told at its place in the order of checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Deferred<T> {
    text: String,
    value: Result<T, String>,
}

impl<T> Deferred<T> {
    /// The value.
    ///
    /// # Errors
    /// etcd's text.
    pub fn get(&self) -> Result<&T, String> {
        self.value.as_ref().map_err(String::clone)
    }
}

impl<T> Default for Deferred<T> {
    fn default() -> Self {
        Self { text: String::new(), value: Err("it was not read".to_owned()) }
    }
}

/// What a [`Deferred`] text means.
pub trait Meaning: Clone + PartialEq + 'static {
    /// Reads it.
    ///
    /// # Errors
    /// etcd's text.
    fn read(text: &str) -> Result<Self, String>;
}

impl<T: Meaning> FlagValue for Deferred<T> {
    const TYPE: FlagType = FlagType::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.to_owned(), value: T::read(text) })
    }

    fn show(&self) -> Value {
        self.text.as_str().into()
    }
}

/// `--logger`: there is only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zap;

impl Meaning for Zap {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "zap" => Ok(Self),
            "capnslog" => Err("--logger=capnslog is removed in v3.5".to_owned()),
            other => Err(format!("unknown logger option {other:?}")),
        }
    }
}

impl Meaning for Format {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Format::Json),
            "console" => Ok(Format::Console),
            _ => Err(format!("unknown log format: {text}, supported values json, console")),
        }
    }
}

impl Meaning for Level {
    fn read(text: &str) -> Result<Self, String> {
        Level::parse(text).ok_or_else(|| format!("unrecognized level: {text:?}"))
    }
}

/// `--auto-compaction-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionMode {
    /// By age.
    Periodic,
    /// By number.
    Revision,
}

impl Meaning for CompactionMode {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "periodic" => Ok(Self::Periodic),
            "revision" => Ok(Self::Revision),
            "" => Err("undefined auto-compaction-mode".to_owned()),
            other => Err(format!("unknown auto-compaction-mode {other:?}")),
        }
    }
}

/// `--auto-compaction-retention`; what a bare number counts depends on the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionLength {
    /// A number without a unit.
    Bare(u64),
    /// A duration.
    Time(Duration),
}

//= etcd 3.7.1: server/embed/etcd.go#parseCompactionRetention
impl Meaning for RetentionLength {
    fn read(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Bare(number));
        }
        Duration::from_text(text).map(Self::Time).map_err(|_| {
            format!("error parsing CompactionRetention: time: invalid duration {text:?}")
        })
    }
}

/// `--initial-cluster`: names with their peer URLs, in the order of the text; a name may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialCluster(pub Vec<(String, Vec<String>)>);

//= etcd 3.7.1: client/pkg/types/urlsmap.go#NewURLsMap
impl Meaning for InitialCluster {
    fn read(text: &str) -> Result<Self, String> {
        let mut members: Vec<(String, Vec<String>)> = Vec::new();
        let empty =
            |part: &str| format!("error setting up initial cluster: empty URL given for {part:?}");
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, url) = part.split_once('=').ok_or_else(|| empty(part))?;
            if url.is_empty() {
                return Err(empty(name));
            }
            let url = Url::parse(url);
            let url = url.map_err(|e| format!("error setting up initial cluster: {e}"))?;
            match members.iter_mut().find(|(known, _)| known == name) {
                Some((_, urls)) => urls.push(url.text().to_owned()),
                None => members.push((name.to_owned(), vec![url.text().to_owned()])),
            }
        }
        if members.is_empty() {
            return Err("initial cluster unset and no discovery endpoints found".to_owned());
        }
        for (_, urls) in &mut members {
            urls.sort_unstable();
        }
        Ok(Self(members))
    }
}
