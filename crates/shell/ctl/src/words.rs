//! Lines of stdin as words, for `txn` and `watch -i`.
//!
//! Not here: quoted bytes that are not UTF-8.

use cli::Exit;

fn invalid(text: impl Into<String>) -> Exit {
    Exit::new(Exit::INVALID_INPUT, text)
}

/// What ends a word that is not quoted.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

/// The words of a line: `"…"` with Go's escapes, `'…'` as it stands, and what has no space in it. A
/// quote that nothing closes means nothing.
///
/// # Errors
/// An escape that Go does not have.
//= etcd 3.7.3: etcdctl/ctlv3/command/util.go#Argify
pub fn split(text: &str) -> Result<Vec<String>, Exit> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        if first == '"' && closing_quote(after).is_some() {
            let (word, after) = quoted(rest).ok_or_else(|| invalid("invalid quoted string"))?;
            words.push(word);
            rest = after;
        } else if let (true, Some((word, after))) = (first == '\'', after.split_once('\'')) {
            words.push(word.to_owned());
            rest = after;
        } else if matches!(first, '"' | '\'') {
            rest = after;
        } else {
            let end = rest.find(is_space).unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        rest = rest.trim_start_matches(is_space);
    }
    Ok(words)
}

/// Where a text that follows `"` has its end.
fn closing_quote(body: &str) -> Option<usize> {
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some(at),
            '\\' => drop(chars.next()?),
            _ => {}
        }
    }
    None
}

/// A Go string literal at the start of a text, and what follows it.
pub fn quoted(text: &str) -> Option<(String, &str)> {
    let body = text.strip_prefix('"')?;
    let mut out = String::new();
    let mut chars = body.char_indices();
    let code = |at: usize, digits: usize, radix: u32| {
        u32::from_str_radix(body.get(at..at + digits)?, radix).ok()
    };
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &body[at + 1..])),
            '\\' => {
                let (at, escape) = chars.next()?;
                let (digits, radix, skip) = match escape {
                    'x' => (2, 16, 2),
                    'u' => (4, 16, 4),
                    'U' => (8, 16, 8),
                    '0'..='7' => (3, 8, 2),
                    _ => (0, 0, 0),
                };
                if digits > 0 {
                    let start = if radix == 8 { at } else { at + 1 };
                    let value = code(start, digits, radix)?;
                    // A single byte from 0x80 on is no text.
                    if value >= 0x80 && matches!(escape, 'x' | '0'..='7') {
                        return None;
                    }
                    out.push(char::from_u32(value)?);
                    for _ in 0..skip {
                        chars.next();
                    }
                    continue;
                }
                out.push(match escape {
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0c',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\x0b',
                    '\\' | '"' | '\'' => escape,
                    _ => return None,
                });
            }
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_etcdctl_does() {
        let words = |text| split(text).unwrap();
        assert_eq!(words(r#"put "a\tb" 'c "d' e"#), ["put", "a\tb", "c \"d", "e"]);
        assert_eq!(words(r#"put "\x41\101é\u00e9""#), ["put", "AAéé"]);
        assert_eq!(words(r#"put "a"b c'd e" 'f"#), ["put", "a", "b", "c'd", "e\"", "f"]);
        assert_eq!(words(r#" "a\" b"#), ["a\\\"", "b"]);
        assert!(split(r#"put "\q""#).is_err());
    }
}
