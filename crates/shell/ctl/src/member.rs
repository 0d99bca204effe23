//! member add, list, promote, remove, update; move-leader.

use api::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, MoveLeaderRequest, MoveLeaderResponse,
    ResponseHeader, StatusRequest, StatusResponse,
};
use api::method::Method;
use cli::{Exit, text};

use crate::json;
use crate::print::{Format, answer, field, header_fields, id, line, out};
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
        out(text::table(&header, &rows(&response)).as_bytes());
        return Ok(());
    }
    if session.format == Format::Json && session.is_hex {
        let text = hex_json(response.header.as_ref(), None, &response.members);
        out(format!("{text}\n").as_bytes());
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

/// The JSON in which ids are strings of hex digits.
fn hex_json(
    header: Option<&ResponseHeader>,
    member: Option<Option<&Member>>,
    members: &[Member],
) -> String {
    let header = header.copied().unwrap_or_default();
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
    let one = member
        .map(|member| format!("\"member\":{},", member.map_or_else(|| "null".to_owned(), shown)));
    let all: Vec<_> = members.iter().map(shown).collect();
    let (header, one, all) = (pairs.join(","), one.unwrap_or_default(), all.join(","));
    format!("{{\"header\":{{{header}}},{one}\"members\":[{all}]}}")
}

/// member add.
///
/// # Errors
/// As etcdctl.
pub fn add(context: &Context) -> Result<(), Exit> {
    let name = match context.values.args.as_slice() {
        [] => return Err(Exit::args("member name not provided")),
        [name] => name,
        several => {
            let mut text = "too many arguments".to_owned();
            for arg in several.iter().filter(|arg| arg.to_lowercase().starts_with("http")) {
                text.push_str(&format!(", did you mean --peer-urls={arg}"));
            }
            return Err(Exit::args(text));
        }
    };
    let given = peer_urls(context)?;
    let session = context.open()?;
    let peer_ur_ls = checked(&given)?;
    let is_learner = context.values.is_on("learner");
    let request = MemberAddRequest { peer_ur_ls, is_learner };
    let response: MemberAddResponse = session.call(Method::MemberAdd, &request).map_err(failed)?;
    let added = response.member.clone().unwrap_or_default();
    let header = response.header.as_ref();
    let simple = |out: &mut Vec<u8>| {
        let role = if added.is_learner { " as learner " } else { " " };
        let cluster = header.map_or(0, |h| h.cluster_id);
        line(out, format!("Member {:16x} added{role}to cluster {cluster:16x}", added.id));
        let mut all = Vec::new();
        for member in &response.members {
            let name = if member.id == added.id { name } else { &member.name };
            all.extend(member.peer_ur_ls.iter().map(|url| format!("{name}={url}")));
        }
        line(out, "");
        let quoted = |text: &str| text::quote(text.as_bytes());
        line(out, format!("ETCD_NAME={}", quoted(name)));
        line(out, format!("ETCD_INITIAL_CLUSTER={}", quoted(&all.join(","))));
        line(out, format!("ETCD_INITIAL_ADVERTISE_PEER_URLS={}", quoted(&given)));
        line(out, "ETCD_INITIAL_CLUSTER_STATE=\"existing\"");
    };
    let hex = || hex_json(header, Some(response.member.as_ref()), &response.members);
    changed(&session, Method::MemberAdd, &response, simple, hex)
}

/// member remove.
///
/// # Errors
/// As etcdctl.
pub fn remove(context: &Context) -> Result<(), Exit> {
    let id = member_arg(context)?;
    let session = context.open()?;
    let answer: MemberRemoveResponse =
        session.call(Method::MemberRemove, &MemberRemoveRequest { id }).map_err(failed)?;
    let (header, members) = (answer.header.as_ref(), &answer.members);
    let simple = |out: &mut Vec<u8>| told(out, id, "removed from", header);
    let hex = || hex_json(header, None, members);
    changed(&session, Method::MemberRemove, &answer, simple, hex)
}

/// member update.
///
/// # Errors
/// As etcdctl.
pub fn update(context: &Context) -> Result<(), Exit> {
    let id = member_arg(context)?;
    let given = peer_urls(context)?;
    let session = context.open()?;
    let request = MemberUpdateRequest { id, peer_ur_ls: checked(&given)? };
    let answer: MemberUpdateResponse =
        session.call(Method::MemberUpdate, &request).map_err(failed)?;
    let (header, members) = (answer.header.as_ref(), &answer.members);
    let simple = |out: &mut Vec<u8>| told(out, id, "updated in", header);
    let hex = || hex_json(header, None, members);
    changed(&session, Method::MemberUpdate, &answer, simple, hex)
}

/// member promote.
///
/// # Errors
/// As etcdctl.
pub fn promote(context: &Context) -> Result<(), Exit> {
    let id = member_arg(context)?;
    let session = context.open()?;
    let answer: MemberPromoteResponse =
        session.call(Method::MemberPromote, &MemberPromoteRequest { id }).map_err(failed)?;
    let (header, members) = (answer.header.as_ref(), &answer.members);
    let simple = |out: &mut Vec<u8>| told(out, id, "promoted in", header);
    let hex = || hex_json(header, None, members);
    changed(&session, Method::MemberPromote, &answer, simple, hex)
}

/// move-leader.
///
/// # Errors
/// As etcdctl.
//= etcd 3.7.1: etcdctl/ctlv3/command/move_leader_command.go
pub fn move_leader(context: &Context) -> Result<(), Exit> {
    let [target] = context.values.args.as_slice() else {
        return Err(Exit::args("move-leader command needs 1 argument"));
    };
    let target_id = text::parse_uint(target, 16).map_err(Exit::args)?;
    let session = context.open()?;
    let endpoints = session.values.list("endpoints");
    for endpoint in &endpoints {
        let one = session.only(endpoint)?;
        let status: StatusResponse = one.call(Method::Status, &StatusRequest {}).map_err(failed)?;
        let leader = status.leader;
        if status.header.is_none_or(|header| header.member_id != leader) {
            continue;
        }
        let answer: MoveLeaderResponse =
            one.call(Method::MoveLeader, &MoveLeaderRequest { target_id }).map_err(failed)?;
        let simple = |out: &mut Vec<u8>| {
            line(out, format!("Leadership transferred from {leader:16x} to {target_id:16x}"));
            Ok(())
        };
        return answer_of(&session, Method::MoveLeader, &answer, simple);
    }
    Err(Exit::args(format!("no leader endpoint given at [{}]", endpoints.join(" "))))
}

fn member_arg(context: &Context) -> Result<u64, Exit> {
    let [id] = context.values.args.as_slice() else {
        return Err(Exit::args("member ID is not provided"));
    };
    text::parse_uint(id, 16)
        .map_err(|e| Exit::args(format!("bad member ID arg ({e}), expecting ID in Hex")))
}

fn peer_urls(context: &Context) -> Result<String, Exit> {
    match context.values.text("peer-urls") {
        "" => Err(Exit::args("member peer urls not provided")),
        urls => Ok(urls.to_owned()),
    }
}

/// The URLs of a list, if they are such as a server takes: etcd's client library asks before.
//= etcd 3.7.1: client/pkg/types/urls.go#NewURLs
fn checked(given: &str) -> Result<Vec<String>, Exit> {
    let urls: Vec<String> = given.split(',').map(str::to_owned).collect();
    for url in &urls {
        check_url(url.trim()).map_err(|why| Exit::new(Exit::ERROR, why))?;
    }
    Ok(urls)
}

fn check_url(url: &str) -> Result<(), String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    match scheme {
        "http" | "https" => {
            let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let port = host.rsplit_once(':').map(|(_, port)| port);
            if port.is_none_or(|port| port.contains(']')) {
                return Err(format!(r#"URL address does not have the form "host:port": {url}"#));
            }
            if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit())) {
                let port = text::quote(format!(":{}", port.unwrap_or_default()).as_bytes());
                let url = text::quote(url.as_bytes());
                return Err(format!("parse {url}: invalid port {port} after host"));
            }
            if path.is_empty() {
                Ok(())
            } else {
                Err(format!("URL must not contain a path: {url}"))
            }
        }
        "unix" | "unixs" => Ok(()),
        _ if !url.contains("://")
            && url.split('/').next().is_some_and(|part| part.contains(':')) =>
        {
            let url = text::quote(url.as_bytes());
            Err(format!("parse {url}: first path segment in URL cannot contain colon"))
        }
        _ => Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
    }
}

fn told(out: &mut Vec<u8>, id: u64, what: &str, header: Option<&ResponseHeader>) {
    let cluster = header.map_or(0, |header| header.cluster_id);
    line(out, format!("Member {id:16x} {what} cluster {cluster:16x}"));
}

/// Prints the answer to a change, which has no `fields`.
fn changed(
    session: &Session<'_>,
    method: Method,
    response: &impl prost::Message,
    simple: impl FnOnce(&mut Vec<u8>),
    hex: impl FnOnce() -> String,
) -> Result<(), Exit> {
    if session.format == Format::Json && session.is_hex {
        out(format!("{}\n", hex()).as_bytes());
        return Ok(());
    }
    answer_of(session, method, response, |text| {
        simple(text);
        Ok(())
    })
}

/// Prints an answer that has no `fields`.
fn answer_of(
    session: &Session<'_>,
    method: Method,
    response: &impl prost::Message,
    simple: impl FnOnce(&mut Vec<u8>) -> Result<(), Exit>,
) -> Result<(), Exit> {
    if session.format == Format::Fields {
        return Err(Format::Fields.unsupported());
    }
    answer(session, method, response, simple, |_| {})
}
