//! Flags whose values have types of their own.

use rpc::Cors;
use serde_json::Value;
use std::time::Duration;
use types::{Url, limits};

use observe::logging::{Format, Level};

use super::features::Features;
use super::urls;
use super::value::{FileError, FlagType, FlagValue, split};

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

/// A type that is one of some words.
macro_rules! words {
    ($type:ty { $($word:literal => $variant:path),+ $(,)? } $wrong:expr) => {
        impl $type {
            const WORDS: &'static [&'static str] = &[$($word),+];

            fn of(text: &str) -> Result<Self, String> {
                let wrong: fn(&str) -> String = $wrong;
                match text {
                    $($word => Ok($variant),)+
                    other => Err(wrong(other)),
                }
            }
        }
    };
}

fn invalid(_: &str) -> String {
    "invalid value".to_owned()
}

/// `--initial-cluster-state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// The member founds a cluster.
    #[default]
    New,
    /// It joins one.
    Existing,
    /// What a file may say, until the flags are checked.
    Unknown(String),
}

words!(ClusterState { "new" => Self::New, "existing" => Self::Existing } invalid);

impl FlagValue for ClusterState {
    const TYPE: FlagType = FlagType::OneOf(Self::WORDS);

    fn from_text(text: &str) -> Result<Self, String> {
        Self::of(text)
    }

    fn from_file(value: &Value) -> Result<Self, FileError> {
        match value.as_str().ok_or(FileError::Type("string"))? {
            "" => Ok(Self::New),
            text => Ok(Self::of(text).unwrap_or_else(|_| Self::Unknown(text.to_owned()))),
        }
    }

    fn show(&self) -> Value {
        match self {
            Self::New => "new".into(),
            Self::Existing => "existing".into(),
            Self::Unknown(text) => text.as_str().into(),
        }
    }
}

/// `--discovery-fallback`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// The member ends.
    #[default]
    Exit,
    /// It becomes a proxy, which no version can any more.
    Proxy,
}

words!(Fallback { "exit" => Self::Exit, "proxy" => Self::Proxy } invalid);

impl FlagValue for Fallback {
    const TYPE: FlagType = FlagType::OneOf(Self::WORDS);

    fn from_text(text: &str) -> Result<Self, String> {
        Self::of(text)
    }

    fn show(&self) -> Value {
        match self {
            Self::Exit => "exit".into(),
            Self::Proxy => "proxy".into(),
        }
    }
}

/// `--v2-deprecation`: a word that is checked and then ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V2Deprecation;

words!(V2Deprecation {
    "write-only" => Self,
    "write-only-skip-check" => Self,
    "write-only-drop-data" => Self,
    "gone" => Self,
} |text| format!("invalid value {text:?}"));

impl FlagValue for V2Deprecation {
    const TYPE: FlagType = FlagType::OneOf(Self::WORDS);

    fn from_text(text: &str) -> Result<Self, String> {
        Self::of(text)
    }

    fn from_file(value: &Value) -> Result<Self, FileError> {
        value.as_str().map(|_| Self).ok_or(FileError::Type("string"))
    }

    fn show(&self) -> Value {
        "write-only".into()
    }
}

/// `--quota-backend-bytes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quota {
    /// The flag's 0.
    #[default]
    Default,
    /// A limit.
    Bytes(u64),
    /// None; clients that ask see the negative number that was given.
    Unlimited(i64),
}

impl Quota {
    /// The limit of the database file, in bytes.
    #[must_use]
    pub fn limit(self) -> Option<u64> {
        match self {
            Quota::Default => Some(limits::DEFAULT_QUOTA_BYTES.unsigned_abs()),
            Quota::Bytes(bytes) => Some(bytes),
            Quota::Unlimited(_) => None,
        }
    }

    /// The number that status responses and metrics show.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Quota::Default => limits::DEFAULT_QUOTA_BYTES,
            Quota::Bytes(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
            Quota::Unlimited(number) => number,
        }
    }

    fn of(number: i64) -> Self {
        match u64::try_from(number) {
            Ok(0) => Quota::Default,
            Ok(bytes) => Quota::Bytes(bytes),
            Err(_) => Quota::Unlimited(number),
        }
    }
}

impl FlagValue for Quota {
    const TYPE: FlagType = i64::TYPE;

    fn from_text(text: &str) -> Result<Self, String> {
        i64::from_text(text).map(Self::of)
    }

    fn from_file(value: &Value) -> Result<Self, FileError> {
        i64::from_file(value).map(Self::of)
    }

    fn show(&self) -> Value {
        match self {
            Quota::Default => 0.into(),
            other => other.number().into(),
        }
    }
}

/// A number of which 0 and what is negative mean the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrDefault(pub Option<usize>);

impl OrDefault {
    fn of(number: isize) -> Self {
        Self(usize::try_from(number).ok().filter(|number| *number > 0))
    }
}

impl FlagValue for OrDefault {
    const TYPE: FlagType = isize::TYPE;

    fn from_text(text: &str) -> Result<Self, String> {
        isize::from_text(text).map(Self::of)
    }

    fn from_file(value: &Value) -> Result<Self, FileError> {
        isize::from_file(value).map(Self::of)
    }

    fn show(&self) -> Value {
        self.0.unwrap_or(0).into()
    }
}

/// `--cors`: origins are URLs, or `*` for all.
//= etcd 3.7.3: pkg/flags/unique_urls.go#Set
impl FlagValue for Cors {
    const TYPE: FlagType = FlagType::Set;

    fn from_text(text: &str) -> Result<Self, String> {
        if matches!(text, "" | "*") {
            return Ok(Cors::Any);
        }
        let origins = urls::parse_list(text)?;
        Ok(Cors::Only(origins.iter().map(|url| url.text().to_owned()).collect()))
    }

    fn show(&self) -> Value {
        match self {
            Cors::Any => vec!["*"].into(),
            Cors::Only(origins) => origins.iter().map(String::as_str).collect(),
        }
    }
}

/// `--host-whitelist`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(pub Vec<String>);

impl FlagValue for Hosts {
    const TYPE: FlagType = FlagType::Set;

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(split(text)))
    }

    fn show(&self) -> Value {
        self.0.clone().into()
    }
}

/// `--log-outputs`. In a file it may also be a single text, which etcd refuses (COMPAT.md).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOutputs(pub Vec<String>);

impl FlagValue for LogOutputs {
    const TYPE: FlagType = FlagType::List;

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(split(text)))
    }

    fn from_file(value: &Value) -> Result<Self, FileError> {
        match value {
            Value::String(text) => Ok(Self(split(text))),
            other => Vec::from_file(other).map(Self),
        }
    }

    fn show(&self) -> Value {
        self.0.clone().into()
    }
}

impl FlagValue for Features {
    const TYPE: FlagType = FlagType::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        Features::parse(text)
    }

    fn from_file(value: &Value) -> Result<Self, FileError> {
        let text = value.as_str().ok_or(FileError::Type("string"))?;
        Features::parse(text).map_err(FileError::Bare)
    }

    fn show(&self) -> Value {
        self.text().into()
    }
}
