//! What shall happen at a failpoint, as text: `50.0%3*sleep(100)->panic`. Pure.
//!
//! Reads what Go's runtime reads, its oddities included: a quoted value ends where its length says,
//! whatever stands there, and only at the very end of the text a missing value is an empty one.
//! Where Go crashes on a text (a value cut off), it is refused here.
//= gofail 0.2.0: runtime/terms.go

/// What a term carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value, because more text follows.
    Nil,
    /// No value, or an empty one.
    Unit,
    Text(String),
    Int(i64),
    Bool(bool),
}

impl Value {
    /// Go's name of its type.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "<nil>",
            Value::Unit => "struct {}",
            Value::Text(_) => "string",
            Value::Int(_) => "int",
            Value::Bool(_) => "bool",
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Nil => f.write_str("<nil>"),
            Value::Unit => f.write_str("{}"),
            Value::Text(text) => f.write_str(text),
            Value::Int(number) => number.fmt(f),
            Value::Bool(yes) => yes.fmt(f),
        }
    }
}

/// What a term does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Off,
    Return,
    Sleep,
    Panic,
    /// A debugger in Go; nothing here.
    Break,
    Print,
    /// Conditions without an action, at which Go crashes when it gets there; nothing here.
    Missing,
}

const ACTIONS: [(&str, Action); 6] = [
    ("off", Action::Off),
    ("return", Action::Return),
    ("sleep", Action::Sleep),
    ("panic", Action::Panic),
    ("break", Action::Break),
    ("print", Action::Print),
];

/// When a term applies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Condition {
    /// So many times more.
    Count(i64),
    /// With this probability.
    Chance(f64),
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    conditions: Vec<Condition>,
    action: Action,
    value: Value,
}

/// A chain of terms, the first that applies being carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms(Vec<Term>);

impl Terms {
    /// Reads a chain; `None` if it is none. What Go would print about it goes to `say`.
    pub fn parse(text: &str, say: &mut dyn FnMut(String)) -> Option<Self> {
        let (mut rest, mut chain) = (text, Vec::new());
        while !rest.is_empty() {
            let Some((term, len)) = Term::parse(rest) else {
                say(format!("failed to parse {text:?} past {rest:?}"));
                return None;
            };
            chain.push(term);
            rest = &rest[len..];
            if rest.len() >= 2 {
                let Some(next) = rest.strip_prefix("->") else {
                    say(format!("failed to parse {text:?} past {rest:?}, expected \"->\""));
                    return None;
                };
                rest = next;
            }
        }
        (!chain.is_empty()).then_some(Self(chain))
    }

    /// The term that applies now, if one does. `dice` draws from 0 to 1.
    pub fn draw(&mut self, dice: &mut dyn FnMut() -> f64) -> Option<(Action, Value)> {
        let mut applies = |term: &mut &mut Term| {
            term.conditions.iter_mut().all(|condition| match condition {
                Condition::Count(0) => false,
                Condition::Count(left) => {
                    *left -= 1;
                    true
                }
                Condition::Chance(chance) => dice() <= *chance,
            })
        };
        self.0
            .iter_mut()
            .find_map(|mut term| applies(&mut term).then(|| (term.action, term.value.clone())))
    }
}

impl Term {
    /// The term at the front, and its length.
    fn parse(text: &str) -> Option<(Self, usize)> {
        let (mods, conditions) = conditions(text);
        let rest = &text[mods..];
        let found = ACTIONS.iter().find(|(word, _)| rest.starts_with(word));
        let (word, action) = found.copied().unwrap_or(("", Action::Missing));
        let (len, value) = value(&rest[word.len()..])?;
        let len = mods + word.len() + len;
        (len > 0).then_some((Self { conditions, action, value }, len))
    }
}

/// Conditions at the front: all of them, or none if one is wrong.
fn conditions(text: &str) -> (usize, Vec<Condition>) {
    let (mut at, mut found) = (0, Vec::new());
    while let Some((len, condition)) = number(&text[at..]) {
        let sign = match condition {
            Condition::Chance(_) => b'%',
            Condition::Count(_) => b'*',
        };
        if text.as_bytes().get(at + len) != Some(&sign) {
            return (0, Vec::new());
        }
        at += len + 1;
        found.push(condition);
    }
    (at, found)
}

/// A number at the front: with a point it is a percentage.
fn number(text: &str) -> Option<(usize, Condition)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    let count: i64 = text[..whole].parse().ok()?;
    let Some(fraction) = text[whole..].strip_prefix('.') else {
        return Some((whole, Condition::Count(count)));
    };
    let len = whole + 1 + digits(fraction);
    let percent: f64 = text[..len].parse().ok()?;
    Some((len, Condition::Chance(percent / 100.0)))
}

/// A value at the front and its length; `None` where Go would crash.
fn value(text: &str) -> Option<(usize, Value)> {
    if text.is_empty() {
        return Some((0, Value::Unit));
    }
    let Some(inner) = text.strip_prefix('(').filter(|inner| !inner.is_empty()) else {
        return Some((0, Value::Nil));
    };
    if inner.starts_with(')') {
        return Some((2, Value::Unit));
    }
    let inner = inner.trim_start_matches([' ', '\t']);
    let (len, value) = if let Some(content) = quoted(inner) {
        (content.len() + 4, Value::Text(content.to_owned()))
    } else if let Some(number) = integer(inner) {
        (number.to_string().len() + 2, Value::Int(number))
    } else if let Some(yes) = boolean(inner) {
        (yes.to_string().len() + 2, Value::Bool(yes))
    } else {
        return Some((0, Value::Nil));
    };
    text.is_char_boundary(len).then_some((len, value))
}

/// Text in quotes at the front. One with an escape is as long as its text, not as what stands
/// for it, so nothing could follow it that is right.
fn quoted(text: &str) -> Option<&str> {
    let mark = text.chars().next().filter(|c| ['"', '`'].contains(c))?;
    let (content, _) = text[1..].split_once(mark)?;
    let plain = mark == '`' || !content.contains(['\\', '\n']);
    plain.then_some(content)
}

fn integer(text: &str) -> Option<i64> {
    let sign = usize::from(text.starts_with(['+', '-']));
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    text[..sign + digits].parse().ok()
}

/// As Go's scanner: one letter is enough, but what is begun must be ended, and whatever else
/// stands there is false.
fn boolean(text: &str) -> Option<bool> {
    let lower: String = text.chars().take(5).collect::<String>().to_ascii_lowercase();
    match lower.as_str() {
        "" => None,
        word if word.starts_with("true") => Some(true),
        word if word.starts_with("false") => Some(false),
        word if word.starts_with("tr") || word.starts_with("fa") => None,
        word => Some(word.starts_with(['t', '1'])),
    }
}
