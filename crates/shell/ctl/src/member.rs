//! member list, add, remove, update, promote.
//!
//! Invariant: a change is asked for once; whoever sees it fail may look and ask again.

use api::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};
use api::method::Method;
use cli::{Exit, output, text};
use prost::Message;
use types::Url;

use crate::json;
use crate::kv::first;
use crate::print::{Format, answer, field, header_fields, id, line};
use crate::session::{Context, Session, failed};

/// member list.
///
/// # Errors
/// As etcdctl.
pub fn list(context: &Context) -> Result<(), Exit> {
    let linearizable = match context.values.text("consistency") {
        "l" => true,
        "s" => false,
        // etcdctl names the default instead of the value.
        _ => return Err(Exit::new(Exit::BAD_FEATURE, "unknown consistency flag \"l\"")),
    };
    let session = context.open()?;
    let response: MemberListResponse =
        session.call(Method::MemberList, &MemberListRequest { linearizable }).map_err(failed)?;
    if session.format == Format::Table {
        let header = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
        output::out(text::table(&header, &rows(&response)));
        return Ok(());
    }
    if session.format == Format::Json && session.is_hex {
        output::out(hex_json(response.header, None, &response.members));
        return Ok(());
    }
    answer(
        &session,
        Method::MemberList,
        &response,
        |text| {
            rows(&response).iter().for_each(|row| line(text, row.join(", ")));
            Ok(())
        },
        |text| fields(text, &response, &session),
    )
}

fn rows(response: &MemberListResponse) -> Vec<Vec<String>> {
    let row = |m: &api::etcdserverpb::Member| {
        vec![
            format!("{:x}", m.id),
            if m.name.is_empty() { "unstarted" } else { "started" }.to_owned(),
            m.name.clone(),
            m.peer_ur_ls.join(","),
            m.client_ur_ls.join(","),
            m.is_learner.to_string(),
        ]
    };
    response.members.iter().map(row).collect()
}

fn fields(out: &mut Vec<u8>, response: &MemberListResponse, session: &Session<'_>) {
    header_fields(out, response.header.as_ref(), session.is_hex);
    for member in &response.members {
        field(out, "ID", id(member.id, session.is_hex));
        field(out, "Name", text::quote(member.name.as_bytes()));
        for url in &member.peer_ur_ls {
            field(out, "PeerURL", text::quote(url.as_bytes()));
        }
        for url in &member.client_ur_ls {
            field(out, "ClientURL", text::quote(url.as_bytes()));
        }
        field(out, "IsLearner", member.is_learner);
        line(out, "");
    }
}

/// The JSON in which ids are strings of hex digits, as a line.
fn hex_json(header: Option<ResponseHeader>, one: Option<&Member>, members: &[Member]) -> String {
    let header = header.unwrap_or_default();
    let mut pairs = vec![
        format!("\"cluster_id\":\"{:x}\"", header.cluster_id),
        format!("\"member_id\":\"{:x}\"", header.member_id),
    ];
    if header.revision != 0 {
        pairs.push(format!("\"revision\":{}", header.revision));
    }
    if header.raft_term != 0 {
        pairs.push(format!("\"raft_term\":{}", header.raft_term));
    }
    let shown = |member: &Member| {
        let mut rest = json::pairs("etcdserverpb.Member", member);
        rest.retain(|pair| !pair.starts_with("\"ID\":"));
        rest.insert(0, format!("\"ID\":\"{:x}\"", member.id));
        format!("{{{}}}", rest.join(","))
    };
    let one = one.map_or_else(String::new, |member| format!("\"member\":{},", shown(member)));
    let members: Vec<_> = members.iter().map(shown).collect();
    format!("{{\"header\":{{{}}},{one}\"members\":[{}]}}\n", pairs.join(","), members.join(","))
}

/// An id in hex, the only argument.
fn only_id(context: &Context) -> Result<u64, Exit> {
    text::parse_uint(first(&context.values), 16)
        .map_err(|e| Exit::args(format!("bad member ID arg ({e}), expecting ID in Hex")))
}

/// Looks at the URLs of a member before they are sent.
//= etcd 3.7.1: client/v3/cluster.go#memberAdd
fn check_urls(urls: &[String]) -> Result<(), Exit> {
    let bad = urls.iter().find_map(|url| Url::parse(url).err());
    bad.map_or(Ok(()), |bad| Err(Exit::new(Exit::ERROR, bad.to_string())))
}

/// What `--peer-urls` lists.
fn peer_urls(context: &Context) -> Result<Vec<String>, Exit> {
    let listed = context.values.text("peer-urls");
    if listed.is_empty() {
        return Err(Exit::args("member peer urls not provided"));
    }
    Ok(listed.split(',').map(str::to_owned).collect())
}

/// Prints the members after a change.
fn changed(
    session: &Session<'_>,
    method: Method,
    response: &impl Message,
    (header, one, members): (Option<ResponseHeader>, Option<&Member>, &[Member]),
    simple: impl FnOnce(&mut Vec<u8>, u64),
) -> Result<(), Exit> {
    match session.format {
        Format::Fields => return Err(Format::Fields.unsupported()),
        Format::Json if session.is_hex => {
            output::out(hex_json(header, one, members));
            return Ok(());
        }
        _ => {}
    }
    let simple = |text: &mut Vec<u8>| {
        simple(text, header.map_or(0, |h| h.cluster_id));
        Ok(())
    };
    answer(session, method, response, simple, |_| {})
}

/// What `member add` says to more than a name.
#[must_use]
pub fn too_many_names(args: &[String]) -> String {
    let is_url = |arg: &&String| arg.to_lowercase().starts_with("http");
    let meant = args.iter().filter(is_url).map(|a| format!(", did you mean --peer-urls={a}"));
    format!("too many arguments{}", meant.collect::<String>())
}

/// member add.
///
/// # Errors
/// As etcdctl.
pub fn add(context: &Context) -> Result<(), Exit> {
    let name = first(&context.values);
    let peer_ur_ls = peer_urls(context)?;
    let session = context.open()?;
    check_urls(&peer_ur_ls)?;
    let request = MemberAddRequest { peer_ur_ls, is_learner: context.values.is_on("learner") };
    let response: MemberAddResponse = session.call(Method::MemberAdd, &request).map_err(failed)?;
    let added = response.member.clone().unwrap_or_default();
    let parts = (response.header, Some(&added), response.members.as_slice());
    changed(&session, Method::MemberAdd, &response, parts, |text, cluster| {
        let learner = if added.is_learner { "as learner " } else { "" };
        line(text, format!("Member {:>16x} added {learner}to cluster {cluster:>16x}", added.id));
        line(text, "");
        let all = response.members.iter().flat_map(|member| {
            let name = if member.id == added.id { name } else { member.name.as_str() };
            member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
        });
        let all = all.collect::<Vec<_>>().join(",");
        let variables = [
            ("NAME", name),
            ("INITIAL_CLUSTER", &all),
            ("INITIAL_ADVERTISE_PEER_URLS", context.values.text("peer-urls")),
            ("INITIAL_CLUSTER_STATE", "existing"),
        ];
        for (variable, value) in variables {
            line(text, format!("ETCD_{variable}={}", text::quote(value.as_bytes())));
        }
    })
}

/// member remove.
///
/// # Errors
/// As etcdctl.
pub fn remove(context: &Context) -> Result<(), Exit> {
    let id = only_id(context)?;
    let session = context.open()?;
    let response: MemberRemoveResponse =
        session.call(Method::MemberRemove, &MemberRemoveRequest { id }).map_err(failed)?;
    let parts = (response.header, None, response.members.as_slice());
    changed(&session, Method::MemberRemove, &response, parts, |text, cluster| {
        line(text, format!("Member {id:>16x} removed from cluster {cluster:>16x}"));
    })
}

/// member update.
///
/// # Errors
/// As etcdctl.
pub fn update(context: &Context) -> Result<(), Exit> {
    let id = only_id(context)?;
    let peer_ur_ls = peer_urls(context)?;
    let session = context.open()?;
    check_urls(&peer_ur_ls)?;
    let request = MemberUpdateRequest { id, peer_ur_ls };
    let response: MemberUpdateResponse =
        session.call(Method::MemberUpdate, &request).map_err(failed)?;
    let parts = (response.header, None, response.members.as_slice());
    changed(&session, Method::MemberUpdate, &response, parts, |text, cluster| {
        line(text, format!("Member {id:>16x} updated in cluster {cluster:>16x}"));
    })
}

/// member promote.
///
/// # Errors
/// As etcdctl.
pub fn promote(context: &Context) -> Result<(), Exit> {
    let id = only_id(context)?;
    let session = context.open()?;
    let response: MemberPromoteResponse =
        session.call(Method::MemberPromote, &MemberPromoteRequest { id }).map_err(failed)?;
    let parts = (response.header, None, response.members.as_slice());
    changed(&session, Method::MemberPromote, &response, parts, |text, cluster| {
        line(text, format!("Member {id:>16x} promoted in cluster {cluster:>16x}"));
    })
}
