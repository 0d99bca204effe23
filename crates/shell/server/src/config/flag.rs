//! What a row of the table of flags is.

use serde_json::Value;

use super::configuration::Configuration;
use super::value::{FileError, FlagType, FlagValue};

/// A flag of the server: one row of the table.
pub struct Flag {
    /// Name on the command line, without dashes.
    pub name: &'static str,
    /// The value of a flag that nobody sets, as the command line would have it.
    pub default: &'static str,
    /// What the flag does, in one or two sentences; `--help` wraps the lines.
    pub help: &'static str,
    /// Where its value is kept; this decides how it is read.
    pub place: &'static dyn Place,
    /// The part of `--help` it belongs to.
    pub group: Group,
    /// Its key in the configuration file.
    pub file: InFile,
    /// Whether this version acts on it.
    pub state: State,
}

/// The parts of `--help`: etcd's, in its order, behind what concerns the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Group {
    Program,
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Features,
    Unsafe,
}

impl Group {
    /// The heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Group::Program => "Program",
            Group::Member => "Member",
            Group::Clustering => "Clustering",
            Group::Security => "Security",
            Group::Auth => "Auth",
            Group::Monitoring => "Profiling and Monitoring",
            Group::Logging => "Logging",
            Group::Tracing => "Distributed tracing",
            Group::Features => "Features",
            Group::Unsafe => "Unsafe feature",
        }
    }
}

/// Where a flag stands in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFile {
    /// Under its own name.
    Same,
    /// Under this path, dots between the keys.
    At(&'static str),
    /// Nowhere: a file cannot set it.
    Nowhere,
}

/// Whether this version acts on a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Works,
    /// The feature comes later: any value but the default is refused (COMPAT.md lists them).
    Later,
    /// It is taken and does nothing; who sets it is told this.
    Deprecated(&'static str),
}

impl Flag {
    /// Its path in the configuration file.
    #[must_use]
    pub fn path(&self) -> Option<&'static str> {
        match self.file {
            InFile::Same => Some(self.name),
            InFile::At(path) => Some(path),
            InFile::Nowhere => None,
        }
    }
}

/// Where a flag's value is kept in a [`Configuration`]: the typed end of a row.
pub trait Place: Sync {
    /// How the value is written.
    fn flag_type(&self) -> FlagType;

    /// Reads a text of the command line or the environment.
    ///
    /// # Errors
    /// What Go's `flag` package says behind `invalid value "…" for flag -name: `.
    fn set(&self, configuration: &mut Configuration, text: &str) -> Result<(), String>;

    /// Reads a value of the configuration file.
    ///
    /// # Errors
    /// [`FileError`].
    fn set_from_file(
        &self,
        configuration: &mut Configuration,
        value: &Value,
    ) -> Result<(), FileError>;

    /// The value as the log shows it.
    fn show(&self, configuration: &Configuration) -> Value;

    /// Whether two configurations have the same value here.
    fn is_same(&self, one: &Configuration, other: &Configuration) -> bool;
}

/// A [`Place`] by two paths to the same field: to read it and to write it. [`at!`] makes one.
pub struct Field<T> {
    /// Reads.
    pub get: fn(&Configuration) -> &T,
    /// Writes.
    pub get_mut: fn(&mut Configuration) -> &mut T,
}

impl<T: FlagValue> Place for Field<T> {
    fn flag_type(&self) -> FlagType {
        T::TYPE
    }

    fn set(&self, configuration: &mut Configuration, text: &str) -> Result<(), String> {
        *(self.get_mut)(configuration) = T::from_text(text)?;
        Ok(())
    }

    fn set_from_file(
        &self,
        configuration: &mut Configuration,
        value: &Value,
    ) -> Result<(), FileError> {
        *(self.get_mut)(configuration) = T::from_file(value)?;
        Ok(())
    }

    fn show(&self, configuration: &Configuration) -> Value {
        (self.get)(configuration).show()
    }

    fn is_same(&self, one: &Configuration, other: &Configuration) -> bool {
        (self.get)(one) == (self.get)(other)
    }
}

/// The [`Place`] of a field of [`Configuration`], by its path.
macro_rules! at {
    ($($path:tt)+) => {
        &$crate::config::flag::Field {
            get: |configuration| &configuration.$($path)+,
            get_mut: |configuration| &mut configuration.$($path)+,
        }
    };
}

pub(super) use at;
