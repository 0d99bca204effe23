//! txn: compares and two branches from stdin, an empty line after each.
//!
//! Not here: values over several lines, and quoted bytes that are not UTF-8.

use std::io::BufRead;

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{Compare, RequestOp, TxnRequest, TxnResponse, request_op::Request};
use api::method::Method;
use cli::{Command, Exit, Values, output, text};

use crate::commands;
use crate::kv;
use crate::print::{answer, field, header_fields, line};
use crate::session::{Context, failed};

fn invalid(text: impl Into<String>) -> Exit {
    Exit::new(Exit::INVALID_INPUT, text)
}

/// txn.
///
/// # Errors
/// As etcdctl.
pub fn txn(context: &Context) -> Result<(), Exit> {
    let prompts = context.values.is_on("interactive");
    let prompt = |text: &str| {
        if prompts {
            output::out(format!("{text}\n"));
        }
    };
    let mut input = std::io::stdin().lock();
    prompt("compares:");
    let compare = read_block(&mut input, parse_compare)?;
    prompt("success requests (get, put, del):");
    let success = read_block(&mut input, parse_op)?;
    prompt("failure requests (get, put, del):");
    let failure = read_block(&mut input, parse_op)?;
    let session = context.open()?;
    let request = TxnRequest { compare, success, failure };
    let response: TxnResponse = session.call_forever(Method::Txn, &request).map_err(failed)?;
    answer(
        &session,
        Method::Txn,
        &response,
        |out| lines(out, &response, session.is_hex),
        |out| fields(out, &response, session.is_hex),
    )
}

fn lines(out: &mut Vec<u8>, response: &TxnResponse, is_hex: bool) -> Result<(), Exit> {
    line(out, if response.succeeded { "SUCCESS" } else { "FAILURE" });
    for op in &response.responses {
        line(out, "");
        match &op.response {
            Some(Response::ResponseRange(r)) => kv::range_lines(out, r, is_hex, false),
            Some(Response::ResponsePut(r)) => kv::put_lines(out, r, is_hex),
            Some(Response::ResponseDeleteRange(r)) => kv::delete_lines(out, r, is_hex),
            Some(Response::ResponseTxn(_)) | None => line(out, "unexpected response"),
        }
    }
    Ok(())
}

fn fields(out: &mut Vec<u8>, response: &TxnResponse, is_hex: bool) {
    header_fields(out, response.header.as_ref(), is_hex);
    field(out, "Succeeded", response.succeeded);
    for op in &response.responses {
        match &op.response {
            Some(Response::ResponseRange(r)) => kv::range_fields(out, r, is_hex),
            Some(Response::ResponsePut(r)) => kv::put_fields(out, r, is_hex),
            Some(Response::ResponseDeleteRange(r)) => kv::delete_fields(out, r, is_hex),
            Some(Response::ResponseTxn(r)) => fields(out, r, is_hex),
            None => {}
        }
    }
}

fn read_block<T>(
    input: &mut impl BufRead,
    parse: impl Fn(&str) -> Result<T, Exit>,
) -> Result<Vec<T>, Exit> {
    let mut block = Vec::new();
    loop {
        let mut text = String::new();
        let read = input.read_line(&mut text).map_err(|e| invalid(e.to_string()))?;
        if read == 0 || !text.ends_with('\n') {
            return Err(invalid("EOF"));
        }
        let text = text.trim();
        if text.is_empty() {
            return Ok(block);
        }
        block.push(parse(text)?);
    }
}

/// `target("key") op "value"`.
//= etcd 3.7.1: etcdctl/ctlv3/command/txn_command.go#ParseCompare
fn parse_compare(text: &str) -> Result<Compare, Exit> {
    let malformed = || invalid(format!("malformed comparison: {text}"));
    let (target, rest) = text.split_once('(').ok_or_else(malformed)?;
    let (key, rest) = quoted(rest.trim_start()).ok_or_else(malformed)?;
    let rest = rest.strip_prefix(')').ok_or_else(malformed)?.trim_start();
    let (op, rest) = rest.split_once(char::is_whitespace).ok_or_else(malformed)?;
    let (value, _) = quoted(rest.trim_start()).ok_or_else(malformed)?;
    let number = || {
        text::parse_int(&value, 10)
            .map_err(|_| invalid(format!("invalid txn compare request: {text}")))
    };
    let (target, union) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(kv::bytes(&value))),
        // etcdctl panics here, with exit code 2.
        "lease" => return Err(Exit::new(2, "panic: bad compare value")),
        other => {
            return Err(invalid(format!("malformed comparison: {text} (unknown target {other})")));
        }
    };
    let result = match op {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        // etcdctl panics here, with exit code 2.
        _ => return Err(Exit::new(2, "panic: Unknown result op")),
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: kv::bytes(&key),
        range_end: bytes::Bytes::new(),
        target_union: Some(union),
    })
}

//= etcd 3.7.1: etcdctl/ctlv3/command/txn_command.go#parseRequestUnion
fn parse_op(text: &str) -> Result<RequestOp, Exit> {
    let args = split(text)?;
    let Some((name, rest)) = args.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err(invalid(format!("invalid txn compare request: {text}")));
    };
    // The command's own row: its flags, and how many arguments it takes.
    let read = |command: &Command<commands::Run>| {
        let values = Values::read(command.flags.to_vec(), rest);
        let values = values.map_err(|_| invalid(format!("invalid txn request: {text}")))?;
        command.takes.check(&values.args).map(|()| values)
    };
    let request = match name.as_str() {
        "put" => Request::RequestPut(kv::put_request(&read(&commands::PUT_COMMAND)?, false)?),
        "get" => Request::RequestRange(kv::range_request(&read(&commands::GET_COMMAND)?)?),
        "del" => Request::RequestDeleteRange(kv::delete_request(&read(&commands::DEL_COMMAND)?)?),
        _ => return Err(invalid(format!("invalid txn request: {text}"))),
    };
    Ok(RequestOp { request: Some(request) })
}

/// Words, as a shell splits them: `"…"` with Go's escapes, `'…'` as it stands.
fn split(text: &str) -> Result<Vec<String>, Exit> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let (word, after) = quoted(rest).ok_or_else(|| invalid("invalid quoted string"))?;
            words.push(word);
            rest = after;
        } else if first == '\'' {
            let (word, after) =
                rest[1..].split_once('\'').ok_or_else(|| invalid("unmatched quote"))?;
            words.push(word.to_owned());
            rest = after;
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(words)
}

/// A Go string literal at the start of a text, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
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
    fn words_are_split_as_a_shell_does() {
        let words = |text| split(text).unwrap();
        assert_eq!(words(r#"put "a\tb" 'c "d' e"#), ["put", "a\tb", "c \"d", "e"]);
        assert_eq!(words(r#"put "\x41\101é\u00e9""#), ["put", "AAéé"]);
        assert!(split("put \"a").is_err());
    }

    #[test]
    fn requests_take_as_many_arguments_as_their_commands() {
        let text = "del command needs one argument as key and an optional argument as range_end";
        assert_eq!(parse_op("del a b c").unwrap_err(), Exit::args(text));
        assert!(parse_op("del a b").is_ok() && parse_op("get a b c").is_ok());
    }

    #[test]
    fn compares_are_read_and_refused() {
        let good = parse_compare(r#"mod("a") > "0x""#);
        assert_eq!(good.unwrap_err().text, r#"invalid txn compare request: mod("a") > "0x""#);
        let good = parse_compare(r#"val("a b") != "c""#).unwrap();
        assert_eq!((good.key, good.result), (kv::bytes("a b"), 3));
        assert_eq!(parse_compare("bad").unwrap_err().text, "malformed comparison: bad");
    }
}
