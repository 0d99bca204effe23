//! Values that have a type of their own and are refused where they are read.

use rpc::Cors;
use serde_json::Value;
use types::limits;

use super::features::Features;
use super::urls;
use super::value::{FileError, FlagType, FlagValue, split};

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
        self.number().into()
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
        if text == "*" {
            return Ok(Cors::Any);
        }
        let origins = urls::parse_list(text)?;
        Ok(Cors::Only(origins.iter().map(|url| url.text().to_owned()).collect()))
    }

    fn from_file(value: &Value) -> Result<Self, FileError> {
        match value.as_str().ok_or(FileError::Type("string"))? {
            "" => Ok(Cors::Any),
            text => Self::from_text(text).map_err(FileError::Value),
        }
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

impl Hosts {
    /// Whether a request may be for this host.
    //= etcd 3.7.3: server/etcdserver/server_access_control.go#IsHostWhitelisted
    #[must_use]
    pub fn allow(&self, host: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|one| one == "*" || one == host)
    }
}

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
