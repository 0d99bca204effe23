//! One JSON value after another, as Go's `encoding/json` takes them from a stream.
//!
//! A value is checked while its bytes come, so that what is kept is at most one value, and a fault
//! is told as soon as it is seen, in Go's words. What a value means is not looked at.
//!
//! //= go 1.26: src/encoding/json/scanner.go, stream.go#readValue

use bytes::{Bytes, BytesMut};

/// Arrays and objects within each other.
//= go 1.26: src/encoding/json/scanner.go#maxNestingDepth
const MAX_DEPTH: usize = 10_000;

/// Go's text for JSON that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadJson(pub String);

/// What comes next of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A value, without the space around it.
    Value(Bytes),
    /// More bytes are needed.
    More,
    /// The body has ended, and so have its values.
    End,
}

/// The values of a body.
#[derive(Debug, Default)]
pub struct Values {
    /// What is not used up; the value begins at 0, or space does.
    buffer: BytesMut,
    /// How far it was looked at.
    at: usize,
    /// Where the value begins, if it has.
    begins: Option<usize>,
    step: Step,
    open: Vec<Within>,
    has_ended: bool,
}

/// What is open around the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Key,
    Value,
    Array,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    BeginValue,
    BeginValueOrEmpty,
    BeginKey,
    BeginKeyOrEmpty,
    EndValue,
    Text,
    Escape,
    Hex(u8),
    Negative,
    Zero,
    Digits,
    Dot,
    Fraction,
    Exponent,
    SignedExponent,
    ExponentDigits,
    Word(&'static str, usize),
}

/// What a byte does.
enum Did {
    Goes,
    /// The value ended with this byte.
    Ends,
    /// The value ended before this byte.
    Ended,
}

impl Values {
    /// More of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// No more will come.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next value.
    ///
    /// # Errors
    /// Go's text; nothing more comes behind it.
    pub fn take_next(&mut self) -> Result<Next, BadJson> {
        while let Some(byte) = self.buffer.get(self.at).copied() {
            if self.begins.is_none() && !is_space(byte) {
                self.begins = Some(self.at);
            }
            match self.step(byte)? {
                Did::Goes => self.at += 1,
                Did::Ends => {
                    self.at += 1;
                    return Ok(Next::Value(self.cut()));
                }
                Did::Ended => return Ok(Next::Value(self.cut())),
            }
        }
        if self.begins.is_none() {
            (self.buffer, self.at) = (BytesMut::new(), 0);
        }
        match (self.has_ended, self.begins) {
            (false, _) => Ok(Next::More),
            (true, None) => Ok(Next::End),
            // A number may end with the body.
            (true, Some(_)) => match self.step(b' ') {
                Ok(Did::Ended) => Ok(Next::Value(self.cut())),
                _ => Err(BadJson("unexpected EOF".to_owned())),
            },
        }
    }

    /// Takes the value, without touching what follows: many values may come at once.
    fn cut(&mut self) -> Bytes {
        let whole = self.buffer.split_to(self.at).freeze();
        (self.at, self.step) = (0, Step::BeginValue);
        whole.slice(self.begins.take().unwrap_or_default()..)
    }

    fn step(&mut self, c: u8) -> Result<Did, BadJson> {
        use Step::*;
        self.step = match (self.step, c) {
            (BeginValue | BeginValueOrEmpty | BeginKey | BeginKeyOrEmpty, c) if is_space(c) => {
                return Ok(Did::Goes);
            }
            (BeginValueOrEmpty, b']') => return Ok(self.close()),
            (BeginKeyOrEmpty, b'}') => return Ok(self.close()),
            (BeginValue | BeginValueOrEmpty, c) => self.begin(c)?,
            (BeginKey | BeginKeyOrEmpty, b'"') => Text,
            (BeginKey | BeginKeyOrEmpty, c) => {
                return Err(bad(c, "looking for beginning of object key string"));
            }
            (EndValue, c) => return self.end_value(c),
            (Text, b'"') => return Ok(self.scalar()),
            (Text, b'\\') => Escape,
            (Text, 0..0x20) => return Err(bad(c, "in string literal")),
            (Text, _) => Text,
            (Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => Text,
            (Escape, b'u') => Hex(0),
            (Escape, c) => return Err(bad(c, "in string escape code")),
            (Hex(n), c) if c.is_ascii_hexdigit() => {
                if n == 3 {
                    Text
                } else {
                    Hex(n + 1)
                }
            }
            (Hex(_), c) => return Err(bad(c, "in \\u hexadecimal character escape")),
            (Negative, b'0') => Zero,
            (Negative, b'1'..=b'9') => Digits,
            (Negative, c) => return Err(bad(c, "in numeric literal")),
            (Digits, b'0'..=b'9') => Digits,
            (Zero | Digits, b'.') => Dot,
            (Zero | Digits | Fraction, b'e' | b'E') => Exponent,
            (Dot | Fraction, b'0'..=b'9') => Fraction,
            (Dot, c) => return Err(bad(c, "after decimal point in numeric literal")),
            (Exponent, b'+' | b'-') => SignedExponent,
            (Exponent | SignedExponent | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            (Exponent | SignedExponent, c) => {
                return Err(bad(c, "in exponent of numeric literal"));
            }
            (Zero | Digits | Fraction | ExponentDigits, c) => {
                self.step = EndValue;
                return if self.open.is_empty() { Ok(Did::Ended) } else { self.end_value(c) };
            }
            (Word(word, at), c) => {
                if word.as_bytes()[at] != c {
                    let wanted = char::from(word.as_bytes()[at]);
                    return Err(bad(c, &format!("in literal {word} (expecting '{wanted}')")));
                }
                if at + 1 == word.len() {
                    return Ok(self.scalar());
                }
                Word(word, at + 1)
            }
        };
        Ok(Did::Goes)
    }

    /// The first byte of a value.
    fn begin(&mut self, c: u8) -> Result<Step, BadJson> {
        Ok(match c {
            b'{' => {
                self.nest(c, Within::Key)?;
                Step::BeginKeyOrEmpty
            }
            b'[' => {
                self.nest(c, Within::Array)?;
                Step::BeginValueOrEmpty
            }
            b'"' => Step::Text,
            b'-' => Step::Negative,
            b'0' => Step::Zero,
            b'1'..=b'9' => Step::Digits,
            b't' => Step::Word("true", 1),
            b'f' => Step::Word("false", 1),
            b'n' => Step::Word("null", 1),
            c => return Err(bad(c, "looking for beginning of value")),
        })
    }

    fn nest(&mut self, c: u8, within: Within) -> Result<(), BadJson> {
        if self.open.len() == MAX_DEPTH {
            return Err(bad(c, "exceeded max depth"));
        }
        self.open.push(within);
        Ok(())
    }

    /// A text, number or word has ended.
    fn scalar(&mut self) -> Did {
        self.step = Step::EndValue;
        if self.open.is_empty() { Did::Ends } else { Did::Goes }
    }

    /// An array or object has ended.
    fn close(&mut self) -> Did {
        self.open.pop();
        self.scalar()
    }

    /// A byte behind a value, or a key, within something.
    fn end_value(&mut self, c: u8) -> Result<Did, BadJson> {
        if is_space(c) {
            return Ok(Did::Goes);
        }
        let Some(within) = self.open.last_mut() else {
            unreachable!("a value within nothing has ended")
        };
        self.step = match (*within, c) {
            (Within::Key, b':') => {
                *within = Within::Value;
                Step::BeginValue
            }
            (Within::Key, c) => return Err(bad(c, "after object key")),
            (Within::Value, b',') => {
                *within = Within::Key;
                Step::BeginKey
            }
            (Within::Value, b'}') => return Ok(self.close()),
            (Within::Value, c) => return Err(bad(c, "after object key:value pair")),
            (Within::Array, b',') => Step::BeginValue,
            (Within::Array, b']') => return Ok(self.close()),
            (Within::Array, c) => return Err(bad(c, "after array element")),
        };
        Ok(Did::Goes)
    }
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\r' | b'\n')
}

fn bad(c: u8, context: &str) -> BadJson {
    let quoted = match c {
        b'\'' => "\\'".to_owned(),
        b'"' => "\"".to_owned(),
        c => {
            let quoted = types::quote(char::from(c).to_string().as_bytes());
            quoted[1..quoted.len() - 1].to_owned()
        }
    };
    BadJson(format!("invalid character '{quoted}' {context}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &[u8], piece: usize) -> (Vec<Bytes>, Option<String>) {
        let (mut values, mut out) = (Values::default(), Vec::new());
        let mut pieces = body.chunks(piece);
        loop {
            match values.take_next() {
                Ok(Next::Value(value)) => out.push(value),
                Ok(Next::End) => return (out, None),
                Ok(Next::More) => match pieces.next() {
                    Some(piece) => values.push(piece),
                    None => values.end(),
                },
                Err(BadJson(text)) => return (out, Some(text)),
            }
        }
    }

    #[test]
    fn values_are_cut_however_they_come() {
        let body = br#" {"a":[1,-2.5e+3,"x\"]}",null]} [ ] "t"true 12 {"b":{}}3"#;
        let wanted = [
            r#"{"a":[1,-2.5e+3,"x\"]}",null]}"#,
            "[ ]",
            r#""t""#,
            "true",
            "12",
            r#"{"b":{}}"#,
            "3",
        ];
        for piece in 1..body.len() {
            assert_eq!(all(body, piece), (wanted.map(Bytes::from).to_vec(), None), "{piece}");
        }
        assert_eq!(all(b" \n", 1), (vec![], None));
        assert_eq!(all(b"", 1), (vec![], None));
    }

    #[test]
    fn faults_are_told_as_go_tells_them() {
        for (body, text) in [
            ("{", "unexpected EOF"),
            ("nul", "unexpected EOF"),
            ("-", "unexpected EOF"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("'", "invalid character '\\'' looking for beginning of value"),
            ("{1", "invalid character '1' looking for beginning of object key string"),
            ("{\"a\"}", "invalid character '}' after object key"),
            ("{\"a\":1 \"", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\\u00g0\"", "invalid character 'g' in \\u hexadecimal character escape"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("nulx", "invalid character 'x' in literal null (expecting 'l')"),
        ] {
            assert_eq!(all(body.as_bytes(), 3), (vec![], Some(text.to_owned())), "{body}");
        }
        let deep = "[".repeat(MAX_DEPTH + 1);
        assert_eq!(
            all(deep.as_bytes(), 4_096).1.as_deref(),
            Some("invalid character '[' exceeded max depth")
        );
    }
}
