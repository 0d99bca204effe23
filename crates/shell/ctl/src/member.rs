//! member list.

use api::etcdserverpb::{MemberListRequest, MemberListResponse};
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
    if !context.values.args.is_empty() {
        return Err(Exit::args("member list command accepts no arguments"));
    }
    let session = context.open()?;
    let response: MemberListResponse =
        session.call(Method::MemberList, &MemberListRequest { linearizable }).map_err(failed)?;
    if session.format == Format::Table {
        let header = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
        out(text::table(&header, &rows(&response)).as_bytes());
        return Ok(());
    }
    if session.format == Format::Json && session.is_hex {
        out(format!("{}\n", hex_json(&response)).as_bytes());
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
fn hex_json(response: &MemberListResponse) -> String {
    let header = response.header.unwrap_or_default();
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
    let members: Vec<_> = response
        .members
        .iter()
        .map(|member| {
            let mut rest = json::pairs("etcdserverpb.Member", member);
            rest.retain(|pair| !pair.starts_with("\"ID\":"));
            rest.insert(0, format!("\"ID\":\"{:x}\"", member.id));
            format!("{{{}}}", rest.join(","))
        })
        .collect();
    format!("{{\"header\":{{{}}},\"members\":[{}]}}", pairs.join(","), members.join(","))
}
