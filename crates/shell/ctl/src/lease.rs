//! lease grant, revoke, timetolive, list, keep-alive.

use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, ResponseHeader,
};
use api::method::Method;
use cli::{Exit, output, text};
use prost::Message;

use crate::json;
use crate::kv::first;
use crate::print::{Format, answer, field, header_fields, line};
use crate::session::{Context, Session, failed};

fn lease_arg(context: &Context) -> Result<i64, Exit> {
    text::parse_int(first(&context.values), 16)
        .map_err(|e| Exit::args(format!("bad lease ID arg ({e}), expecting ID in Hex")))
}

/// Prints an answer that etcd's client library unpacks: its JSON has the header's pairs first.
fn unpacked(
    session: &Session<'_>,
    header: Option<&ResponseHeader>,
    pairs: &[String],
    simple: impl FnOnce(&mut Vec<u8>),
    fields: impl FnOnce(&mut Vec<u8>),
) -> Result<(), Exit> {
    let mut out = Vec::new();
    match session.format {
        Format::Simple => simple(&mut out),
        Format::Fields => {
            header_fields(&mut out, header, session.is_hex);
            fields(&mut out);
        }
        Format::Json => {
            let header = header.copied().unwrap_or_default();
            let mut all = json::pairs("etcdserverpb.ResponseHeader", &header);
            all.extend_from_slice(pairs);
            line(&mut out, format!("{{{}}}", all.join(",")));
        }
        // The unpacked types embed the header alone, and that is what is marshalled.
        Format::Protobuf => out = header.copied().unwrap_or_default().encode_to_vec(),
        Format::Table => return Err(Format::Table.unsupported()),
    }
    output::out(&out);
    Ok(())
}

/// lease grant.
///
/// # Errors
/// As etcdctl.
pub fn grant(context: &Context) -> Result<(), Exit> {
    let ttl = text::parse_int(first(&context.values), 10)
        .map_err(|e| Exit::args(format!("bad TTL ({e})")))?;
    let session = context.open()?;
    let request = LeaseGrantRequest { ttl, id: 0 };
    let response: LeaseGrantResponse = session
        .call(Method::LeaseGrant, &request)
        .map_err(|e| Exit::new(Exit::ERROR, format!("failed to grant lease ({e})")))?;
    let pairs = [
        format!("\"ID\":{}", response.id),
        format!("\"TTL\":{}", response.ttl),
        format!("\"Error\":{}", json::string(&response.error)),
    ];
    unpacked(
        &session,
        response.header.as_ref(),
        &pairs,
        |out| line(out, format!("lease {:016x} granted with TTL({}s)", response.id, response.ttl)),
        |out| id_and_ttl(out, response.id, response.ttl, session.is_hex),
    )
}

fn id_and_ttl(out: &mut Vec<u8>, id: i64, ttl: i64, is_hex: bool) {
    field(out, "ID", if is_hex { format!("{id:016x}") } else { id.to_string() });
    field(out, "TTL", ttl);
}

/// lease revoke.
///
/// # Errors
/// As etcdctl.
pub fn revoke(context: &Context) -> Result<(), Exit> {
    let id = lease_arg(context)?;
    let session = context.open()?;
    let response: LeaseRevokeResponse = session
        .call(Method::LeaseRevoke, &LeaseRevokeRequest { id })
        .map_err(|e| Exit::new(Exit::ERROR, format!("failed to revoke lease ({e})")))?;
    answer(
        &session,
        Method::LeaseRevoke,
        &response,
        |out| {
            line(out, format!("lease {id:016x} revoked"));
            Ok(())
        },
        |out| header_fields(out, response.header.as_ref(), session.is_hex),
    )
}

/// lease timetolive.
///
/// # Errors
/// As etcdctl.
pub fn time_to_live(context: &Context) -> Result<(), Exit> {
    let id = lease_arg(context)?;
    let keys = context.values.is_on("keys");
    let session = context.open()?;
    let request = LeaseTimeToLiveRequest { id, keys };
    let response: LeaseTimeToLiveResponse =
        session.call_forever(Method::LeaseTimeToLive, &request).map_err(failed)?;
    let listed: Vec<_> = response.keys.iter().map(|k| format!("\"{}\"", json::base64(k))).collect();
    let listed =
        if listed.is_empty() { "null".to_owned() } else { format!("[{}]", listed.join(",")) };
    let pairs = [
        format!("\"id\":{}", response.id),
        format!("\"ttl\":{}", response.ttl),
        format!("\"granted-ttl\":{}", response.granted_ttl),
        format!("\"keys\":{listed}"),
    ];
    unpacked(
        &session,
        response.header.as_ref(),
        &pairs,
        |out| {
            if response.granted_ttl == 0 && response.ttl == -1 {
                line(out, format!("lease {:016x} already expired", response.id));
                return;
            }
            let (granted, left) = (response.granted_ttl, response.ttl);
            let text = format!(
                "lease {:016x} granted with TTL({granted}s), remaining({left}s)",
                response.id
            );
            out.extend_from_slice(text.as_bytes());
            if keys {
                out.extend_from_slice(b", attached keys([");
                out.extend_from_slice(&response.keys.join(&b' '));
                out.extend_from_slice(b"])");
            }
            line(out, "");
        },
        |out| {
            id_and_ttl(out, response.id, response.ttl, session.is_hex);
            field(out, "GrantedTTL", response.granted_ttl);
            response.keys.iter().for_each(|key| field(out, "Key", text::quote(key)));
        },
    )
}

/// lease list.
///
/// # Errors
/// As etcdctl.
pub fn list(context: &Context) -> Result<(), Exit> {
    let session = context.open()?;
    let response: LeaseLeasesResponse =
        session.call_forever(Method::LeaseLeases, &LeaseLeasesRequest {}).map_err(failed)?;
    let leases: Vec<_> = response.leases.iter().map(|l| format!("{{\"id\":{}}}", l.id)).collect();
    let pairs = [format!("\"leases\":[{}]", leases.join(","))];
    unpacked(
        &session,
        response.header.as_ref(),
        &pairs,
        |out| {
            line(out, format!("found {} leases", response.leases.len()));
            response.leases.iter().for_each(|l| line(out, format!("{:016x}", l.id)));
        },
        |out| {
            for lease in &response.leases {
                let id = lease.id;
                let shown = if session.is_hex { format!("{id:016x}") } else { id.to_string() };
                field(out, "ID", shown);
            }
        },
    )
}

/// lease keep-alive.
///
/// # Errors
/// As etcdctl.
pub fn keep_alive(context: &Context) -> Result<(), Exit> {
    let id = lease_arg(context)?;
    let once = context.values.is_on("once");
    let session = context.open()?;
    loop {
        let response = session
            .wait(keep_alive_once(&session, id))
            .map_err(|e| Exit::new(Exit::BAD_CONNECTION, e.to_string()))?;
        if response.ttl <= 0 {
            if once {
                let text = ApiError::LeaseNotFound.text();
                return Err(Exit::new(Exit::BAD_CONNECTION, text));
            }
            output::out(format!("lease {id:016x} expired or revoked.\n"));
            return Ok(());
        }
        let pairs = [format!("\"ID\":{}", response.id), format!("\"TTL\":{}", response.ttl)];
        unpacked(
            &session,
            response.header.as_ref(),
            &pairs,
            |out| {
                line(
                    out,
                    format!("lease {:016x} keepalived with TTL({})", response.id, response.ttl),
                );
            },
            |out| id_and_ttl(out, response.id, response.ttl, session.is_hex),
        )?;
        if once {
            return Ok(());
        }
        let pause = Duration::from_millis(response.ttl.unsigned_abs().saturating_mul(1_000) / 3);
        std::thread::sleep(pause.min(Duration::from_secs(3_600)));
    }
}

/// One message on a stream of its own: between messages lie seconds.
async fn keep_alive_once(
    session: &Session<'_>,
    id: i64,
) -> Result<LeaseKeepAliveResponse, client::Error> {
    let request = LeaseKeepAliveRequest { id };
    let mut stream = session.client().stream(Method::LeaseKeepAlive, &request, true, None).await?;
    let response = stream.next(None).await?;
    response.ok_or_else(|| client::Error::Broken("the stream ended".to_owned()))
}
