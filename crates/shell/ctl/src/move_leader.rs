//! move-leader.

use api::etcdserverpb::{MoveLeaderRequest, MoveLeaderResponse, StatusRequest, StatusResponse};
use api::method::Method;
use cli::{Exit, text};

use crate::kv::first;
use crate::print::{Format, answer, line};
use crate::session::{Context, failed};

/// move-leader: finds the leader among the endpoints and asks it to hand over. One time limit
/// covers it all.
///
/// # Errors
/// As etcdctl.
//= etcd 3.7.1: etcdctl/ctlv3/command/move_leader_command.go#transferLeadershipCommandFunc
pub fn move_leader(context: &Context) -> Result<(), Exit> {
    let target_id = text::parse_uint(first(&context.values), 16).map_err(Exit::args)?;
    let session = context.open()?;
    let endpoints = session.client().endpoints().to_vec();
    let deadline = session.deadline();
    for endpoint in &endpoints {
        let one = session.only(endpoint)?;
        let status = one.client().call(Method::Status, &StatusRequest {}, deadline);
        let status: StatusResponse = one.wait(status).map_err(failed)?;
        if status.header.unwrap_or_default().member_id != status.leader {
            continue;
        }
        let request = MoveLeaderRequest { target_id };
        let moved = one.client().call(Method::MoveLeader, &request, deadline);
        let moved: MoveLeaderResponse = one.wait(moved).map_err(failed)?;
        if session.format == Format::Fields {
            return Err(Format::Fields.unsupported());
        }
        let simple = |text: &mut Vec<u8>| {
            let leader = status.leader;
            line(text, format!("Leadership transferred from {leader:x} to {target_id:x}"));
            Ok(())
        };
        return answer(&session, Method::MoveLeader, &moved, simple, |_| {});
    }
    Err(Exit::args(format!("no leader endpoint given at [{}]", endpoints.join(" "))))
}
