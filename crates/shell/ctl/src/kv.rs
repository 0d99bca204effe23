//! put, get, del, compaction: requests from arguments, and their answers.

use std::io::Read as _;

use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse,
};
use api::method::Method;
use bytes::Bytes;
use cli::{Exit, Values, output, text};
use client::prefix_end;

use crate::print::{Format, answer, field, header_fields, kv_fields, kv_lines, line};
use crate::session::{Context, Session, failed};

/// A key as it is sent.
pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The first argument of a command that takes one at least.
pub(crate) fn first(values: &Values) -> &str {
    values.args.first().expect("arguments are counted before a command runs")
}

/// Key and range end from arguments and the flags `prefix` and `from-key`.
fn range_of(values: &Values) -> Result<(Bytes, Bytes), Exit> {
    let (prefix, from_key) = (values.is_on("prefix"), values.is_on("from-key"));
    if prefix && from_key {
        return Err(Exit::args(
            "`--prefix` and `--from-key` cannot be set at the same time, choose one",
        ));
    }
    let key = first(values);
    let mut end = Bytes::new();
    if let Some(given) = values.args.get(1) {
        if prefix || from_key {
            return Err(Exit::args(
                "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
            ));
        }
        end = bytes(given);
    }
    if key.is_empty() && (prefix || from_key) {
        return Ok((Bytes::from_static(b"\0"), Bytes::from_static(b"\0")));
    }
    if prefix {
        end = prefix_end(key.as_bytes());
    } else if from_key {
        end = Bytes::from_static(b"\0");
    }
    Ok((bytes(key), end))
}

/// The request of `get`.
///
/// # Errors
/// As etcdctl.
//= etcd 3.7.1: etcdctl/ctlv3/command/get_command.go#getGetOp
pub fn range_request(values: &Values) -> Result<RangeRequest, Exit> {
    if values.is_on("prefix") && values.is_on("from-key") {
        range_of(values)?;
    }
    if values.is_on("keys-only") && values.is_on("count-only") {
        return Err(Exit::args(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
        ));
    }
    let refused = |text: String| Exit::new(Exit::BAD_FEATURE, text);
    let serializable = match values.text("consistency") {
        "s" => true,
        "l" => false,
        other => {
            return Err(refused(format!(
                "unknown consistency flag {}",
                text::quote(other.as_bytes())
            )));
        }
    };
    let (key, range_end) = range_of(values)?;
    let order = values.text("order").to_uppercase();
    let mut sort_order = match order.as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return Err(refused(format!("bad sort order {}", values.text("order")))),
    };
    let target = values.text("sort-by").to_uppercase();
    let sort_target = match target.as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(refused(format!("bad sort target {}", values.text("sort-by")))),
    };
    // The client library turns ascending keys into its default.
    if sort_target == SortTarget::Key && sort_order == SortOrder::Ascend {
        sort_order = SortOrder::None;
    }
    let bounds = |low: &str, high: &str, name: &str| {
        let (min, max) = (values.int(low), values.int(high));
        if max > 0 && min > max {
            return Err(refused(format!("getMin{name}(={min}) > getMax{name}(={max})")));
        }
        Ok((min, max))
    };
    let (min_create, max_create) = bounds("min-create-rev", "max-create-rev", "CreateRev")?;
    let (min_mod, max_mod) = bounds("min-mod-rev", "max-mod-rev", "ModRev")?;
    Ok(RangeRequest {
        key,
        range_end,
        limit: values.int("limit"),
        revision: values.int("rev").max(0),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable,
        keys_only: values.is_on("keys-only"),
        count_only: values.is_on("count-only"),
        min_mod_revision: min_mod,
        max_mod_revision: max_mod,
        min_create_revision: min_create,
        max_create_revision: max_create,
    })
}

/// The request of `put`; reads the value from stdin if it is not an argument.
///
/// # Errors
/// As etcdctl.
//= etcd 3.7.1: etcdctl/ctlv3/command/put_command.go#getPutOp
pub fn put_request(values: &Values, stdin: bool) -> Result<PutRequest, Exit> {
    let key = first(values);
    let few = || Exit::args("put command needs 1 argument and input from stdin or 2 arguments");
    let ignore_value = values.is_on("ignore-value");
    if ignore_value && values.args.len() > 1 {
        return Err(Exit::args("put command needs only 1 argument when 'ignore-value' is set"));
    }
    let value = match values.args.get(1) {
        Some(value) => bytes(value),
        None if ignore_value => Bytes::new(),
        None if !stdin => return Err(few()),
        None => {
            let mut value = Vec::new();
            std::io::stdin().read_to_end(&mut value).map_err(|_| few())?;
            if value.is_empty() {
                return Err(few());
            }
            value.into()
        }
    };
    let lease = text::parse_int(values.text("lease"), 16);
    let lease =
        lease.map_err(|e| Exit::args(format!("bad lease ID ({e}), expecting ID in Hex")))?;
    Ok(PutRequest {
        key: bytes(key),
        value,
        lease,
        prev_kv: values.is_on("prev-kv"),
        ignore_value,
        ignore_lease: values.is_on("ignore-lease"),
    })
}

/// The request of `del`.
///
/// # Errors
/// As etcdctl.
//= etcd 3.7.1: etcdctl/ctlv3/command/del_command.go#getDelOp
pub fn delete_request(values: &Values) -> Result<DeleteRangeRequest, Exit> {
    let (key, range_end) = range_of(values)?;
    Ok(DeleteRangeRequest { key, range_end, prev_kv: values.is_on("prev-kv") })
}

/// put.
///
/// # Errors
/// As etcdctl.
pub fn put(context: &Context) -> Result<(), Exit> {
    let request = put_request(&context.values, true)?;
    let session = context.open()?;
    let response: PutResponse = session.call(Method::Put, &request).map_err(failed)?;
    answer(
        &session,
        Method::Put,
        &response,
        |out| {
            put_lines(out, &response, session.is_hex);
            Ok(())
        },
        |out| put_fields(out, &response, session.is_hex),
    )
}

pub(crate) fn put_lines(out: &mut Vec<u8>, response: &PutResponse, is_hex: bool) {
    line(out, "OK");
    if let Some(kv) = &response.prev_kv {
        kv_lines(out, kv, is_hex, false);
    }
}

pub(crate) fn put_fields(out: &mut Vec<u8>, response: &PutResponse, is_hex: bool) {
    header_fields(out, response.header.as_ref(), is_hex);
    if let Some(kv) = &response.prev_kv {
        kv_fields(out, "Prev", kv, is_hex);
    }
}

/// get.
///
/// # Errors
/// As etcdctl.
pub fn get(context: &Context) -> Result<(), Exit> {
    let values = &context.values;
    let request = range_request(values)?;
    let session = context.open()?;
    let response = if values.is_on("stream") {
        session.wait(stream(&session, &request)).map_err(failed)?
    } else {
        session.call(Method::Range, &request).map_err(failed)?
    };
    if values.is_on("count-only") && session.format != Format::Fields {
        return Err(Exit::args("--count-only is only for `--write-out=fields`"));
    }
    let value_only = values.is_on("print-value-only");
    if value_only && session.format != Format::Simple {
        return Err(Exit::args("print-value-only is only for `--write-out=simple`"));
    }
    answer(
        &session,
        Method::Range,
        &response,
        |out| {
            range_lines(out, &response, session.is_hex, value_only);
            Ok(())
        },
        |out| range_fields(out, &response, session.is_hex),
    )
}

async fn stream(
    session: &Session<'_>,
    request: &RangeRequest,
) -> Result<RangeResponse, client::Error> {
    let deadline = session.deadline();
    let mut stream = session.client().stream(Method::RangeStream, request, false, deadline).await?;
    let mut whole = RangeResponse::default();
    while let Some(part) = stream.next::<RangeStreamResponse>(deadline).await? {
        let Some(part) = part.range_response else { continue };
        whole.kvs.extend(part.kvs);
        whole.header = part.header.or(whole.header);
        whole.more |= part.more;
        whole.count += part.count;
    }
    Ok(whole)
}

pub(crate) fn range_lines(
    out: &mut Vec<u8>,
    response: &RangeResponse,
    is_hex: bool,
    value_only: bool,
) {
    response.kvs.iter().for_each(|kv| kv_lines(out, kv, is_hex, value_only));
}

pub(crate) fn range_fields(out: &mut Vec<u8>, response: &RangeResponse, is_hex: bool) {
    header_fields(out, response.header.as_ref(), is_hex);
    response.kvs.iter().for_each(|kv| kv_fields(out, "", kv, is_hex));
    field(out, "More", response.more);
    field(out, "Count", response.count);
}

/// del.
///
/// # Errors
/// As etcdctl.
pub fn del(context: &Context) -> Result<(), Exit> {
    let request = delete_request(&context.values)?;
    let args = &context.values.args;
    if args.len() > 1 && !context.values.is_on("range") {
        let (from, to) = (text::quote(args[0].as_bytes()), text::quote(args[1].as_bytes()));
        output::err(format!(
            "Warning: Keys between {from} and {to} will be deleted. Please interrupt the command \
             within next 2 seconds to cancel. You can provide `--range` flag to avoid the delay."
        ));
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    let session = context.open()?;
    let response: DeleteRangeResponse =
        session.call(Method::DeleteRange, &request).map_err(failed)?;
    answer(
        &session,
        Method::DeleteRange,
        &response,
        |out| {
            delete_lines(out, &response, session.is_hex);
            Ok(())
        },
        |out| delete_fields(out, &response, session.is_hex),
    )
}

pub(crate) fn delete_lines(out: &mut Vec<u8>, response: &DeleteRangeResponse, is_hex: bool) {
    line(out, response.deleted.to_string());
    response.prev_kvs.iter().for_each(|kv| kv_lines(out, kv, is_hex, false));
}

pub(crate) fn delete_fields(out: &mut Vec<u8>, response: &DeleteRangeResponse, is_hex: bool) {
    header_fields(out, response.header.as_ref(), is_hex);
    field(out, "Deleted", response.deleted);
    response.prev_kvs.iter().for_each(|kv| kv_fields(out, "Prev", kv, is_hex));
}

/// compaction.
///
/// # Errors
/// As etcdctl.
pub fn compaction(context: &Context) -> Result<(), Exit> {
    let revision =
        text::parse_int(first(&context.values), 10).map_err(|e| Exit::new(Exit::ERROR, e))?;
    let session = context.open()?;
    let request = CompactionRequest { revision, physical: context.values.is_on("physical") };
    let _: CompactionResponse = session.call(Method::Compact, &request).map_err(failed)?;
    output::out(format!("compacted revision {revision}\n"));
    Ok(())
}
