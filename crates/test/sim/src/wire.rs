//! What clients ask for as requests on the wire, and what they are told from the responses.

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{
    AlarmRequest, AlarmType, AuthenticateRequest, AuthenticateResponse, DefragmentRequest,
    HashKvRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseLeasesResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, MemberAddRequest, MemberPromoteRequest,
    MemberRemoveRequest, MoveLeaderRequest,
};
use api::method::Method;
use bytes::Bytes;
use machine::CommandKind;
use model::{Request, Response};
use prost::Message;
use types::{LeaseId, MemberId};

use crate::keeper::UserCall;

/// What is asked of the member.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Something that the model knows.
    Kv(Request),
    /// A fresh copy of the database.
    Defragment,
    /// Takes the NOSPACE alarm of this member back.
    Disarm(MemberId),
    /// Which leases there are.
    Leases,
    /// When no compaction has work left; a question for Applier, not a call.
    AwaitCompaction,
    /// A membership change.
    Change(Change),
    /// Another leader.
    Transfer(MemberId),
    /// How long a lease lives yet, and perhaps its keys.
    TimeToLive { lease: i64, keys: bool },
    /// A token.
    LogIn { user: String, password: &'static str },
    /// Something of users and roles.
    Users(UserCall),
}

/// What becomes of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// One more, reached at this URL.
    Add(String),
    /// One more that only learns.
    AddLearner(String),
    Promote(MemberId),
    Remove(MemberId),
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum CallResult {
    Kv(Response),
    Done,
    Leases(Vec<LeaseId>),
    /// The keys of a lease.
    Keys(Vec<Bytes>),
    Token(String),
    /// What was asked of users and roles is done.
    Users,
}

/// The method and the request of a call; `None` for what is none.
pub(crate) fn encode(ask: &Ask) -> Option<(Method, Bytes)> {
    let (method, bytes) = match ask {
        Ask::Kv(request) => encode_kv(request),
        Ask::Defragment => (Method::Defragment, DefragmentRequest {}.encode_to_vec()),
        Ask::Disarm(member) => {
            let alarm = AlarmRequest {
                action: AlarmAction::Deactivate as i32,
                member_id: member.0,
                alarm: AlarmType::Nospace as i32,
            };
            (Method::Alarm, alarm.encode_to_vec())
        }
        Ask::Leases => (Method::LeaseLeases, LeaseLeasesRequest {}.encode_to_vec()),
        Ask::AwaitCompaction => return None,
        Ask::Change(change) => match change {
            Change::Add(url) | Change::AddLearner(url) => {
                let is_learner = matches!(change, Change::AddLearner(_));
                let request = MemberAddRequest { peer_ur_ls: vec![url.clone()], is_learner };
                (Method::MemberAdd, request.encode_to_vec())
            }
            Change::Promote(id) => {
                (Method::MemberPromote, MemberPromoteRequest { id: id.0 }.encode_to_vec())
            }
            Change::Remove(id) => {
                (Method::MemberRemove, MemberRemoveRequest { id: id.0 }.encode_to_vec())
            }
        },
        Ask::TimeToLive { lease, keys } => {
            let request = LeaseTimeToLiveRequest { id: *lease, keys: *keys };
            (Method::LeaseTimeToLive, request.encode_to_vec())
        }
        Ask::LogIn { user, password } => {
            let (name, password) = (user.clone(), (*password).to_owned());
            (Method::Authenticate, AuthenticateRequest { name, password }.encode_to_vec())
        }
        Ask::Users(call) => {
            let (method, request, _) = call.encode();
            (method, request)
        }
        Ask::Transfer(to) => {
            (Method::MoveLeader, MoveLeaderRequest { target_id: to.0 }.encode_to_vec())
        }
    };
    Some((method, bytes.into()))
}

fn encode_kv(request: &Request) -> (Method, Vec<u8>) {
    match request {
        Request::Range(r) => (Method::Range, r.encode_to_vec()),
        Request::Put(r) => (Method::Put, r.encode_to_vec()),
        Request::DeleteRange(r) => (Method::DeleteRange, r.encode_to_vec()),
        Request::Txn(r) => (Method::Txn, r.encode_to_vec()),
        Request::Compact(r) => (Method::Compact, r.encode_to_vec()),
        Request::LeaseGrant(r) => (Method::LeaseGrant, r.encode_to_vec()),
        Request::LeaseRevoke(r) => (Method::LeaseRevoke, r.encode_to_vec()),
        Request::LeaseKeepAlive(id) => {
            (Method::LeaseKeepAlive, LeaseKeepAliveRequest { id: *id }.encode_to_vec())
        }
        Request::HashKv(revision) => {
            (Method::HashKV, HashKvRequest { revision: *revision }.encode_to_vec())
        }
        Request::LeaseExpire(_) => unreachable!("nobody asks for it"),
    }
}

fn decoded<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).expect("calls encode responses")
}

/// What a client reads in a response.
pub(crate) fn decode(ask: &Ask, bytes: &[u8]) -> CallResult {
    let request = match ask {
        Ask::Kv(request) => request,
        Ask::Leases => {
            let response: LeaseLeasesResponse = decoded(bytes);
            return CallResult::Leases(
                response.leases.iter().map(|lease| LeaseId(lease.id)).collect(),
            );
        }
        Ask::TimeToLive { .. } => {
            let response: LeaseTimeToLiveResponse = decoded(bytes);
            return CallResult::Keys(response.keys);
        }
        Ask::LogIn { .. } => {
            let response: AuthenticateResponse = decoded(bytes);
            return CallResult::Token(response.token);
        }
        Ask::Users(_) => return CallResult::Users,
        _ => return CallResult::Done,
    };
    CallResult::Kv(match request {
        Request::Range(_) => Response::Range(decoded(bytes)),
        Request::Put(_) => Response::Put(decoded(bytes)),
        Request::DeleteRange(_) => Response::DeleteRange(decoded(bytes)),
        Request::Txn(_) => Response::Txn(decoded(bytes)),
        Request::Compact(_) => Response::Compact(decoded(bytes)),
        Request::LeaseGrant(_) => Response::LeaseGrant(decoded(bytes)),
        Request::LeaseRevoke(_) => Response::LeaseRevoke(decoded(bytes)),
        Request::LeaseKeepAlive(_) => Response::LeaseKeepAlive(decoded(bytes)),
        Request::HashKv(_) => Response::HashKv(decoded(bytes)),
        Request::LeaseExpire(_) => unreachable!("nobody asks for it"),
    })
}

/// The command by which the log carries out what a client asked for, if one does.
pub(crate) fn command(ask: &Ask) -> Option<CommandKind> {
    let request = match ask {
        Ask::Kv(request) => request,
        Ask::LogIn { .. } => return Some(CommandKind::Authenticate),
        Ask::Users(call) => return Some(call.encode().2),
        _ => return None,
    };
    Some(match request {
        Request::Put(_) => CommandKind::Put,
        Request::DeleteRange(_) => CommandKind::DeleteRange,
        Request::Txn(_) => CommandKind::Txn,
        Request::Compact(_) => CommandKind::Compaction,
        Request::LeaseGrant(_) => CommandKind::LeaseGrant,
        Request::LeaseRevoke(_) => CommandKind::LeaseRevoke,
        Request::Range(_) | Request::LeaseKeepAlive(_) | Request::HashKv(_) => return None,
        Request::LeaseExpire(_) => return None,
    })
}
