//! `/debug/vars`: what a member tells of itself as JSON, under the names of Go's `expvar`.
//!
//! Of Go's memory statistics there is what the kernel knows of this process; of raft's status what
//! its automaton publishes, without the vote and the progress of peers.
//= etcd 3.7.3: server/etcdserver/api/etcdhttp/debug.go#serveVars

use calls::Member;
use http::{HeaderValue, header};
use observe::metrics::Memory;
use serde_json::{Value, json};
use types::MemberId;

use crate::HttpResponse;

/// The page, one variable a line, in the order of their names.
pub(crate) fn vars(member: &Member) -> HttpResponse {
    let variables = [
        ("cmdline", command_line()),
        ("file_descriptor_limit", json!(observe::metrics::descriptor_limit())),
        ("memstats", memory(&Memory::of_process())),
        ("raft.status", raft(member)),
    ];
    let lines = variables.map(|(name, value)| format!("\"{name}\": {value}"));
    let mut response = HttpResponse::new(format!("{{\n{}\n}}\n", lines.join(",\n")).into());
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn command_line() -> Value {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn memory(memory: &Memory) -> Value {
    let heap = memory.anonymous_bytes;
    json!({ "Alloc": heap, "Sys": memory.resident_bytes, "HeapAlloc": heap, "HeapInuse": heap,
        "HeapSys": heap })
}

//= etcd raft 3.7.0: status.go#MarshalJSON
fn raft(member: &Member) -> Value {
    let status = member.status();
    let state = if status.is_leader { "StateLeader" } else { "StateFollower" };
    json!({
        "id": member.shared.id.to_string(),
        "term": status.term.0,
        "commit": status.commit.0,
        "lead": status.leader.unwrap_or(MemberId(0)).to_string(),
        "raftState": state,
        "applied": member.view().applied_index().0,
    })
}
