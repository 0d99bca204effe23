//! The tokens of a JSON value whose syntax was checked ([`crate::values`]), with places for errors.
//!
//! //= protobuf-go 1.36: internal/encoding/json/decode.go

use crate::decode::Malformed;

/// What stands at a place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    OpenObject,
    CloseObject,
    OpenArray,
    CloseArray,
    /// The name of a field.
    Name(String),
    Text(String),
    Number,
    Bool(bool),
    Null,
}

#[derive(Clone, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    /// Its first byte's place.
    pub(crate) at: usize,
    /// It as it stands there.
    pub(crate) raw: &'a [u8],
}

pub(crate) struct Tokens<'a> {
    json: &'a [u8],
    at: usize,
    /// Whether each open one is an object.
    open: Vec<bool>,
    /// Whether a text would be a field's name.
    is_name: bool,
    peeked: Option<Token<'a>>,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(json: &'a [u8]) -> Self {
        Self { json, at: 0, open: Vec::new(), is_name: false, peeked: None }
    }

    pub(crate) fn peek(&mut self) -> Result<&Token<'a>, Malformed> {
        let token = match self.peeked.take() {
            Some(token) => token,
            None => self.read()?,
        };
        Ok(self.peeked.insert(token))
    }

    pub(crate) fn next(&mut self) -> Result<Token<'a>, Malformed> {
        match self.peeked.take() {
            Some(token) => Ok(token),
            None => self.read(),
        }
    }

    /// Skips the next value; `depth` more may be within each other.
    pub(crate) fn skip(&mut self, depth: usize) -> Result<(), Malformed> {
        let mut open = 0;
        loop {
            match self.next()?.kind {
                Kind::CloseObject | Kind::CloseArray => open -= 1,
                Kind::OpenObject | Kind::OpenArray => {
                    open += 1;
                    if open > depth {
                        return Err(Malformed::too_deep());
                    }
                }
                _ => {}
            }
            if open == 0 {
                return Ok(());
            }
        }
    }

    fn read(&mut self) -> Result<Token<'a>, Malformed> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n' | b',' | b':') = self.json.get(self.at) {
            if self.json[self.at] == b',' {
                self.is_name = self.open.last() == Some(&true);
            }
            self.at += 1;
        }
        let at = self.at;
        let rest = &self.json[at..];
        let (kind, length) = match rest.first() {
            Some(b'{') => (self.opened(true), 1),
            Some(b'[') => (self.opened(false), 1),
            Some(b'}') => (self.closed(Kind::CloseObject), 1),
            Some(b']') => (self.closed(Kind::CloseArray), 1),
            Some(b'"') => self.text(rest)?,
            Some(b't') => (Kind::Bool(true), 4),
            Some(b'f') => (Kind::Bool(false), 5),
            Some(b'n') => (Kind::Null, 4),
            Some(_) => {
                let of_number = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
                (Kind::Number, rest.iter().take_while(|b| of_number(b)).count())
            }
            None => return Err(Malformed::new("unexpected EOF".to_owned())),
        };
        // At least one byte, whatever stands there.
        self.at += length.max(1);
        let raw = rest.get(..length).unwrap_or(rest);
        Ok(Token { kind, at, raw })
    }

    fn opened(&mut self, object: bool) -> Kind {
        self.open.push(object);
        self.is_name = object;
        if object { Kind::OpenObject } else { Kind::OpenArray }
    }

    fn closed(&mut self, kind: Kind) -> Kind {
        self.open.pop();
        self.is_name = false;
        kind
    }

    fn text(&mut self, rest: &[u8]) -> Result<(Kind, usize), Malformed> {
        let (text, length) = self.unescaped(rest)?;
        let is_name = std::mem::take(&mut self.is_name);
        Ok((if is_name { Kind::Name(text) } else { Kind::Text(text) }, length))
    }

    /// The text that begins with the first quote, and its length with both.
    //= protobuf-go 1.36: internal/encoding/json/decode_string.go#parseString
    fn unescaped(&self, rest: &[u8]) -> Result<(String, usize), Malformed> {
        let eof = || Malformed::new("unexpected EOF".to_owned());
        let (mut out, mut at) = (String::new(), 1);
        loop {
            let plain = rest.get(at..).ok_or_else(eof)?;
            let plain =
                &plain[..plain.iter().position(|b| matches!(b, b'"' | b'\\')).ok_or_else(eof)?];
            let Ok(text) = std::str::from_utf8(plain) else {
                return Err(self.syntax(self.at, "invalid UTF-8 in string"));
            };
            out.push_str(text);
            at += plain.len();
            if rest[at] == b'"' {
                return Ok((out, at + 1));
            }
            let escape = rest.get(at + 1).ok_or_else(eof)?;
            at += 2;
            out.push(match escape {
                b'b' => '\x08',
                b'f' => '\x0c',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let (c, length) = self.unicode(rest, at)?;
                    at += length;
                    c
                }
                other => char::from(*other),
            });
        }
    }

    /// A character by its number in UTF-16, whose digits begin at `at`, and the bytes it takes.
    fn unicode(&self, rest: &[u8], at: usize) -> Result<(char, usize), Malformed> {
        let unit = |at: usize| {
            let digits = rest.get(at..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
            digits.and_then(|digits| u16::from_str_radix(digits, 16).ok())
        };
        let eof = || Malformed::new("unexpected EOF".to_owned());
        let first = unit(at).ok_or_else(eof)?;
        if let Some(c) = char::from_u32(u32::from(first)) {
            return Ok((c, 4));
        }
        let pair = rest.get(at + 4..at + 10).ok_or_else(eof)?;
        let second = unit(at + 6).filter(|_| pair.starts_with(b"\\u"));
        let decoded = second
            .and_then(|second| char::decode_utf16([first, second]).next().and_then(Result::ok));
        decoded.map(|c| (c, 10)).ok_or_else(|| {
            let text = format!("invalid escape code {} in string", types::quote(pair));
            self.syntax(self.at, &text)
        })
    }

    /// A fault of syntax at a place.
    pub(crate) fn syntax(&self, at: usize, text: &str) -> Malformed {
        let (line, column) = self.place(at);
        Malformed::new(format!("syntax error (line {line}:{column}): {text}"))
    }

    /// A token that does not belong where it is.
    pub(crate) fn unexpected(&self, token: &Token<'_>) -> Malformed {
        let raw = String::from_utf8_lossy(token.raw);
        self.syntax(token.at, &format!("unexpected token {raw}"))
    }

    /// Another fault at a token.
    pub(crate) fn fault(&self, token: &Token<'_>, text: &str) -> Malformed {
        let (line, column) = self.place(token.at);
        let raw = String::from_utf8_lossy(token.raw);
        Malformed::new(format!("(line {line}:{column}): {}", text.replace("{raw}", &raw)))
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let before = &self.json[..at];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let begin = before.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        // A byte that is no text counts as one character, as in Go.
        let chunks = before[begin..].utf8_chunks();
        let column = chunks.map(|c| c.valid().chars().count() + c.invalid().len()).sum::<usize>();
        (line, column + 1)
    }
}
