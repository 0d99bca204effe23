//! txn: compares and two branches from stdin, an empty line after each.
//!
//! Not here: values over several lines.

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
use crate::words::{quoted, split};

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

#[cfg(test)]
mod tests {
    use super::*;

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
