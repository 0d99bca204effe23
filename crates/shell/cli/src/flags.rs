//! Flags as pflag reads them.
//!
//! Flags and arguments mix freely until `--`; a later value replaces an earlier one, except in
//! lists, which grow. Every value is checked where it is read, so that later code only converts.

use crate::text;

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// A switch; alone it means true.
    Bool,
    /// Any text.
    String,
    /// Texts between commas.
    Strings,
    /// A signed number of 64 bits.
    Int,
    /// An unsigned number of 64 bits.
    Uint,
    /// Go's spelling of a time span.
    Duration,
}

/// A flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// Its one-letter name.
    pub short: Option<char>,
    /// What its value is.
    pub kind: ValueType,
    /// The value if it is not given.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// Whether its value may be shown.
    pub secrecy: Secrecy,
    /// Whether it must be given.
    pub need: Need,
    /// Values that a shell offers; any others may be taken, too.
    pub choices: &'static [&'static str],
}

/// Whether a command runs without a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It does, with the flag's default.
    Optional,
    /// It does not.
    Required,
}

/// Whether the value of a flag may be shown to others than whoever gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// It may.
    Shown,
    /// Never.
    Secret,
    /// What stands before its first colon may: `name:password`.
    SecretAfterColon,
}

impl Secrecy {
    /// What is shown of a value.
    fn veil(self, value: &str) -> String {
        const VEIL: &str = "***";
        match (self, value.split_once(':')) {
            (Self::Secret, _) if !value.is_empty() => VEIL.to_owned(),
            (Self::SecretAfterColon, Some((name, _))) => format!("{name}:{VEIL}"),
            _ => value.to_owned(),
        }
    }
}

impl Flag {
    /// A flag without a short name.
    #[must_use]
    pub const fn new(
        name: &'static str,
        kind: ValueType,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            short: None,
            kind,
            default,
            help,
            secrecy: Secrecy::Shown,
            need: Need::Optional,
            choices: &[],
        }
    }

    /// A switch that is off by default.
    #[must_use]
    pub const fn switch(name: &'static str, help: &'static str) -> Self {
        Self::new(name, ValueType::Bool, "false", help)
    }

    /// The same flag with a short name.
    #[must_use]
    pub const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// The same flag with values that a shell offers.
    #[must_use]
    pub const fn choices(mut self, choices: &'static [&'static str]) -> Self {
        self.choices = choices;
        self
    }

    /// The same flag, which must be given.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.need = Need::Required;
        self
    }

    /// The same flag with a value that is not shown.
    #[must_use]
    pub const fn secret(mut self, secrecy: Secrecy) -> Self {
        self.secrecy = secrecy;
        self
    }

    fn check(&self, value: &str) -> Result<(), String> {
        let checked = match self.kind {
            ValueType::Bool => text::parse_bool(value).map(|_| ()),
            ValueType::Int => text::parse_int(value, 0).map(|_| ()),
            ValueType::Uint => text::parse_uint(value, 0).map(|_| ()),
            ValueType::Duration => text::parse_duration(value).map(|_| ()),
            ValueType::String | ValueType::Strings => Ok(()),
        };
        let shown = match self.short {
            Some(short) => format!("-{short}, --{}", self.name),
            None => format!("--{}", self.name),
        };
        checked.map_err(|e| {
            format!("invalid argument {} for \"{shown}\" flag: {e}", text::quote(value.as_bytes()))
        })
    }
}

/// The values of a command line.
#[derive(Clone, Default)]
pub struct Values {
    known: Vec<Flag>,
    given: Vec<(&'static str, String)>,
    /// What is not a flag.
    pub args: Vec<String>,
    /// How many of the arguments stand before `--`, if it was given.
    pub before_dashes: Option<usize>,
}

impl std::fmt::Debug for Values {
    /// Without arguments, of which some commands take secrets, and without secret values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secrecy = |name| self.by_name(name).map_or(Secrecy::Secret, |flag: Flag| flag.secrecy);
        let given = self.given.iter().map(|(name, value)| (name, secrecy(name).veil(value)));
        f.debug_map().entries(given).finish()
    }
}

impl Values {
    /// Reads the arguments after the command's name.
    ///
    /// # Errors
    /// pflag's text.
    pub fn read(known: Vec<Flag>, args: &[String]) -> Result<Self, String> {
        let mut values = Self { known, ..Self::default() };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            if arg == "--" {
                values.before_dashes = Some(values.args.len());
                values.args.extend(rest.cloned());
                break;
            }
            if let Some(long) = arg.strip_prefix("--") {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                if name.is_empty() || name.starts_with('-') {
                    return Err(format!("bad flag syntax: {arg}"));
                }
                let flag = values.by_name(name).ok_or(format!("unknown flag: --{name}"))?;
                let value = match value {
                    Some(value) => value,
                    None if flag.kind == ValueType::Bool => "true".to_owned(),
                    None => rest.next().ok_or(format!("flag needs an argument: --{name}"))?.clone(),
                };
                values.set(&flag, value)?;
            } else if arg.len() > 1 && arg.starts_with('-') {
                values.read_short(arg, &mut rest)?;
            } else {
                values.args.push(arg.clone());
            }
        }
        Ok(values)
    }

    fn read_short(
        &mut self,
        arg: &str,
        rest: &mut std::slice::Iter<'_, String>,
    ) -> Result<(), String> {
        let mut letters = arg[1..].chars();
        while let Some(letter) = letters.next() {
            let flag = self.known.iter().find(|f| f.short == Some(letter)).copied();
            let flag = flag.ok_or_else(|| {
                let shown = format!("-{letter}{}", letters.as_str());
                format!("unknown shorthand flag: '{letter}' in {shown}")
            })?;
            let tail = letters.as_str();
            if let Some(value) = tail.strip_prefix('=') {
                return self.set(&flag, value.to_owned());
            }
            if flag.kind == ValueType::Bool {
                self.set(&flag, "true".to_owned())?;
                continue;
            }
            if !tail.is_empty() {
                return self.set(&flag, tail.to_owned());
            }
            let missing = format!("flag needs an argument: '{letter}' in -{letter}");
            return self.set(&flag, rest.next().ok_or(missing)?.clone());
        }
        Ok(())
    }

    fn by_name(&self, name: &str) -> Option<Flag> {
        self.known.iter().find(|f| f.name == name).copied()
    }

    fn set(&mut self, flag: &Flag, value: String) -> Result<(), String> {
        flag.check(&value)?;
        if flag.kind != ValueType::Strings {
            self.given.retain(|(name, _)| *name != flag.name);
        }
        self.given.push((flag.name, value));
        Ok(())
    }

    /// Sets a flag from a variable of the environment. What cannot be read leaves pflag's zero
    /// behind, without a word, and an impossible list changes nothing.
    //= github.com/spf13/pflag: duration.go#Set, int.go#Set, bool.go#Set
    pub fn set_from_environment(&mut self, name: &str, value: &str) {
        let Some(flag) = self.by_name(name) else { return };
        let value = match flag.check(value) {
            Ok(()) => value,
            Err(_) if flag.kind == ValueType::Bool => "false",
            Err(_) => "0",
        };
        if self.set(&flag, value.to_owned()).is_err() {
            debug_assert!(false, "zero is a value of every kind that is checked");
        }
    }

    /// Each flag with the text that pflag shows for its value, by name; secrets are veiled.
    #[must_use]
    pub fn shown(&self, flags: &[Flag]) -> Vec<(&'static str, String)> {
        let show = |flag: &Flag| match flag.kind {
            ValueType::Strings => format!("[{}]", self.list(flag.name).join(",")),
            ValueType::Duration => {
                let nanos = text::parse_duration(self.text(flag.name)).unwrap_or(0);
                let sign = if nanos < 0 { "-" } else { "" };
                let length = std::time::Duration::from_nanos(nanos.unsigned_abs());
                format!("{sign}{}", text::show_duration(length))
            }
            ValueType::Bool => self.is_on(flag.name).to_string(),
            ValueType::Int => self.int(flag.name).to_string(),
            ValueType::Uint => self.uint(flag.name).to_string(),
            ValueType::String => flag.secrecy.veil(self.text(flag.name)),
        };
        let mut shown: Vec<_> = flags.iter().map(|flag| (flag.name, show(flag))).collect();
        shown.sort_unstable();
        shown
    }

    /// What is said if flags are missing that must be given.
    //= github.com/spf13/cobra: command.go#ValidateRequiredFlags
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let required = self.known.iter().filter(|flag| flag.need == Need::Required);
        let mut names: Vec<_> =
            required.map(|flag| flag.name).filter(|name| !self.is_given(name)).collect();
        names.sort_unstable();
        let names: Vec<_> = names.into_iter().map(|name| format!("\"{name}\"")).collect();
        (!names.is_empty()).then(|| format!("required flag(s) {} not set", names.join(", ")))
    }

    /// Whether the flag was given.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    /// A flag's text.
    ///
    /// # Panics
    /// If the command has no such flag.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        let given = self.given.iter().rev().find(|(given, _)| *given == name);
        given.map_or_else(
            || self.known.iter().find(|f| f.name == name).expect("a flag of this command").default,
            |(_, value)| value,
        )
    }

    /// A switch.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        text::parse_bool(self.text(name)).is_ok_and(|on| on)
    }

    /// A number; 0 by default.
    #[must_use]
    pub fn int(&self, name: &str) -> i64 {
        text::parse_int(self.text(name), 0).unwrap_or(0)
    }

    /// An unsigned number; 0 by default.
    #[must_use]
    pub fn uint(&self, name: &str) -> u64 {
        text::parse_uint(self.text(name), 0).unwrap_or(0)
    }

    /// A time span; 0 by default, and for negative ones.
    #[must_use]
    pub fn duration(&self, name: &str) -> std::time::Duration {
        let nanos = text::parse_duration(self.text(name)).unwrap_or(0);
        std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// A list. An empty text is no element.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        let mut list = Vec::new();
        let given = self.given.iter().filter(|(given, _)| *given == name);
        let mut texts: Vec<&str> = given.map(|(_, value)| value.as_str()).collect();
        if texts.is_empty() {
            texts.push(self.text(name));
        }
        for text in texts {
            list.extend(text.split(',').filter(|s| !s.is_empty()).map(str::to_owned));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Values, String> {
        let known = vec![
            Flag::switch("prefix", ""),
            Flag::new("limit", ValueType::Int, "0", ""),
            Flag::new("write-out", ValueType::String, "simple", "").short('w'),
            Flag::new("endpoints", ValueType::Strings, "a:1", ""),
            Flag::switch("interactive", "").short('i'),
        ];
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Values::read(known, &args)
    }

    #[test]
    fn flags_and_arguments_mix_until_two_dashes() {
        let v = read("a --prefix b --limit=0x10 -iwjson -- --prefix").unwrap();
        assert_eq!(v.args, ["a", "b", "--prefix"]);
        assert_eq!(v.before_dashes, Some(2));
        assert!(v.is_on("prefix") && v.is_on("interactive"));
        assert_eq!((v.int("limit"), v.text("write-out")), (16, "json"));
        assert_eq!(v.list("endpoints"), ["a:1"]);
        assert_eq!(
            read("--endpoints b,c --endpoints d").unwrap().list("endpoints"),
            ["b", "c", "d"]
        );
        assert_eq!(read("--limit -5").unwrap().int("limit"), -5);
    }

    #[test]
    fn a_secret_is_shown_nowhere() {
        let flag = |name, secrecy| Flag::new(name, ValueType::String, "", "").secret(secrecy);
        let known = vec![
            flag("password", Secrecy::Secret),
            flag("user", Secrecy::SecretAfterColon),
            flag("token", Secrecy::Secret),
        ];
        let args = ["--password", "hush", "--user=me:hush", "hush"].map(str::to_owned);
        let values = Values::read(known.clone(), &args).unwrap();
        let veiled = [("password", "***"), ("token", ""), ("user", "me:***")];
        assert_eq!(values.shown(&known), veiled.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(values.text("password"), "hush");
        let debug = format!("{values:?}");
        assert!(!debug.contains("hush") && debug.contains("me:"), "{debug}");
    }

    #[test]
    fn a_variable_that_cannot_be_read_is_zero() {
        let mut v = read("").unwrap();
        v.set_from_environment("limit", "abc");
        v.set_from_environment("prefix", "maybe");
        v.set_from_environment("nothing", "x");
        assert_eq!((v.text("limit"), v.text("prefix")), ("0", "false"));
        v.set_from_environment("limit", "7");
        assert_eq!(v.int("limit"), 7);
    }

    #[test]
    fn refusals_have_the_texts_of_pflag() {
        let refused = |line| read(line).unwrap_err();
        assert_eq!(refused("--nope"), "unknown flag: --nope");
        assert_eq!(refused("-xyz"), "unknown shorthand flag: 'x' in -xyz");
        assert_eq!(refused("--limit"), "flag needs an argument: --limit");
        assert_eq!(refused("-w"), "flag needs an argument: 'w' in -w");
        assert_eq!(
            refused("--limit abc"),
            r#"invalid argument "abc" for "--limit" flag: strconv.ParseInt: parsing "abc": invalid syntax"#
        );
    }
}
