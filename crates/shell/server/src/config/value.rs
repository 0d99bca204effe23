//! Values of flags: each type says how it is written on the command line and in the file.
//!
//! A value is read once, where it comes from, with that source's words for what is wrong with it.

use std::time::Duration;

use cli::text::{parse_bool, parse_duration, parse_int, parse_uint, show_duration};
use serde_json::Value;
use types::Url;

/// How a flag's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagType {
    /// Any text.
    Text,
    /// `true` or `false`; the flag alone means `true`.
    Bool,
    /// A whole number; Go's name of its type.
    Number(&'static str),
    /// A Go duration such as `1m30s`; in a file, nanoseconds.
    Duration,
    /// URLs, separated by commas.
    Urls,
    /// Texts, separated by commas; in a file, a list.
    List,
    /// Texts, separated by commas, also in a file.
    Set,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

impl FlagType {
    /// What `--help` has in the value's place.
    #[must_use]
    pub fn placeholder(self) -> String {
        match self {
            FlagType::Text => "text".to_owned(),
            FlagType::Bool => "true|false".to_owned(),
            FlagType::Number(_) => "number".to_owned(),
            FlagType::Duration => "duration".to_owned(),
            FlagType::Urls => "URLs".to_owned(),
            FlagType::List | FlagType::Set => "list".to_owned(),
            FlagType::OneOf(words) => words.join("|"),
        }
    }
}

/// Why a value of the configuration file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// It is no value of this Go type.
    Type(&'static str),
    /// It is wrong, in the words of the value; they stand behind the name of the key.
    Value(String),
    /// It is wrong, in words that stand alone.
    Bare(String),
}

/// The type of a flag's value.
pub trait FlagValue: Clone + PartialEq + 'static {
    /// How it is written.
    const TYPE: FlagType;

    /// Reads a text of the command line or the environment.
    ///
    /// # Errors
    /// What Go's `flag` package says behind `invalid value "…" for flag -name: `.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads a value of the configuration file; most types are texts there, too.
    ///
    /// # Errors
    /// [`FileError`].
    fn from_file(value: &Value) -> Result<Self, FileError> {
        let text = value.as_str().ok_or(FileError::Type("string"))?;
        Self::from_text(text).map_err(FileError::Value)
    }

    /// The value as the log shows it.
    fn show(&self) -> Value;
}

/// Go's `flag` package has two words of its own for what is wrong.
fn parse_error<E>(_: E) -> String {
    "parse error".to_owned()
}

fn number_error(why: String) -> String {
    let is_range = why.ends_with("value out of range");
    if is_range { "value out of range".to_owned() } else { "parse error".to_owned() }
}

impl FlagValue for String {
    const TYPE: FlagType = FlagType::Text;

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> Value {
        self.as_str().into()
    }
}

impl FlagValue for bool {
    const TYPE: FlagType = FlagType::Bool;

    fn from_text(text: &str) -> Result<Self, String> {
        parse_bool(text).map_err(parse_error)
    }

    fn from_file(value: &Value) -> Result<Self, FileError> {
        value.as_bool().ok_or(FileError::Type("bool"))
    }

    fn show(&self) -> Value {
        (*self).into()
    }
}

/// Numbers have the type of Go's flag, because a file's errors name it.
macro_rules! number {
    ($type:ty, $go:literal, $parse:ident, $as:ident, $error:expr) => {
        impl FlagValue for $type {
            const TYPE: FlagType = FlagType::Number($go);

            fn from_text(text: &str) -> Result<Self, String> {
                let error: fn(String) -> String = $error;
                let number = $parse(text, 0).map_err(error)?;
                let range = |_| error(out_of_range(text));
                Self::try_from(number).map_err(range)
            }

            fn from_file(value: &Value) -> Result<Self, FileError> {
                let number = value.$as().and_then(|number| Self::try_from(number).ok());
                number.ok_or(FileError::Type($go))
            }

            fn show(&self) -> Value {
                (*self).into()
            }
        }
    };
}

number!(isize, "int", parse_int, as_i64, number_error);
number!(i64, "int64", parse_int, as_i64, number_error);
number!(usize, "uint", parse_uint, as_u64, number_error);
number!(u64, "uint64", parse_uint, as_u64, number_error);
// etcd reads this one by itself and passes the error of strconv on.
//= etcd 3.7.3: pkg/flags/uint32.go#Set
number!(u32, "uint32", parse_uint, as_u64, |why| why);

fn out_of_range(text: &str) -> String {
    format!("strconv.ParseUint: parsing {text:?}: value out of range")
}

/// Not negative: etcd takes negative durations and fails with them later.
impl FlagValue for Duration {
    const TYPE: FlagType = FlagType::Duration;

    fn from_text(text: &str) -> Result<Self, String> {
        let nanos = parse_duration(text).map_err(parse_error)?;
        u64::try_from(nanos).map(Duration::from_nanos).map_err(parse_error)
    }

    fn from_file(value: &Value) -> Result<Self, FileError> {
        match value.as_i64() {
            Some(nanos) => u64::try_from(nanos)
                .map(Duration::from_nanos)
                .map_err(|e| FileError::Value(parse_error(e))),
            None => Err(FileError::Type("time.Duration")),
        }
    }

    fn show(&self) -> Value {
        show_duration(*self).into()
    }
}

impl FlagValue for Vec<Url> {
    const TYPE: FlagType = FlagType::Urls;

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        super::urls::parse_list(text)
    }

    fn show(&self) -> Value {
        self.iter().map(Url::text).collect()
    }
}

impl FlagValue for Vec<String> {
    const TYPE: FlagType = FlagType::List;

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(split(text))
    }

    fn from_file(value: &Value) -> Result<Self, FileError> {
        let wrong = FileError::Type("[]string");
        let items = value.as_array().ok_or(wrong.clone())?;
        let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
        texts.collect::<Option<_>>().ok_or(wrong)
    }

    fn show(&self) -> Value {
        self.clone().into()
    }
}

/// The items between the commas of a text, without spaces around them; empty ones do not count.
#[must_use]
pub fn split(text: &str) -> Vec<String> {
    text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let ms = |n| Ok(Duration::from_millis(n));
        assert_eq!(Duration::from_text("100ms"), ms(100));
        assert_eq!(Duration::from_text("1m30s"), ms(90_000));
        assert_eq!(Duration::from_text("1.5h"), ms(5_400_000));
        assert_eq!(Duration::from_text("0"), ms(0));
        for bad in ["", "5", "s", "1x", "-1s", "1s2", "99999999999h"] {
            assert_eq!(Duration::from_text(bad), Err("parse error".to_owned()), "{bad}");
        }
        assert_eq!(Duration::from_file(&5.into()), Ok(Duration::from_nanos(5)));
        assert_eq!(Duration::from_file(&"5s".into()), Err(FileError::Type("time.Duration")));
    }

    #[test]
    fn numbers_are_gos() {
        let refused = |text: &str| usize::from_text(text).unwrap_err();
        assert_eq!((usize::from_text("0x10"), usize::from_text("010")), (Ok(16), Ok(8)));
        assert_eq!((refused("x").as_str(), refused("-1").as_str()), ("parse error", "parse error"));
        assert_eq!(refused("99999999999999999999"), "value out of range");
        assert_eq!(isize::from_text("-3"), Ok(-3));
        let text = |text: &str| u32::from_text(text).unwrap_err();
        assert_eq!(text("x"), r#"strconv.ParseUint: parsing "x": invalid syntax"#);
        let range = r#"strconv.ParseUint: parsing "4294967296": value out of range"#;
        assert_eq!(text("4294967296"), range);
        assert_eq!(u32::from_file(&4_294_967_296_u64.into()), Err(FileError::Type("uint32")));
    }
}
