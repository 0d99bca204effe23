//! Calls over a member that nobody runs: what they hand out, and what they make of what comes back.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use api::error::{ApiError, Status};
use api::etcdserverpb::{
    AlarmRequest, InternalRaftRequest, LeaseKeepAliveRequest, MemberListRequest, PutRequest,
    PutResponse, RangeRequest, RangeResponse, StatusResponse,
};
use api::method::Method;
use bytes::Bytes;
use calls::{Answer, Caller, Encoded, Gone, Host, Identity, Sink, Source};
use common::{call, fixture};
use env::{Instant, WallTime};
use machine::{CommandKind, Outcome, PutReply};
use member::{NodeInput, NodeStatus, Reply};
use prost::Message;
use types::{Index, MemberId, ReplyToken, Revision, Term};

#[derive(Default)]
struct Clock(Cell<Instant>);

impl Host for Clock {
    fn now(&self) -> Instant {
        self.0.get()
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }

    fn secret(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

fn a_put() -> PutRequest {
    PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() }
}

fn later(answer: Result<Answer, Status>) -> (ReplyToken, calls::Finish) {
    match answer {
        Ok(Answer::Later(token, finish)) => (token, finish),
        Ok(_) => panic!("it must wait for one reply"),
        Err(status) => panic!("{status}"),
    }
}

fn put_applied() -> Reply {
    Reply::Applied(Box::new(Outcome {
        index: Index(9),
        term: Term(2),
        kind: Some(CommandKind::Put),
        revision: Revision(5),
        reply: Ok(machine::CommandReply::Put(PutReply::default())),
        effects: Vec::new(),
    }))
}

#[test]
fn who_calls_is_in_the_entry_as_etcd_writes_it() {
    let f = fixture::<Clock>(1 << 20);
    let known = Identity { certificate: vec!["alice".to_owned()], remote: None };
    let callers = [(Caller::default(), "", 0), (Caller::known(known), "alice", 7)];
    for (caller, user, revision) in callers {
        if !user.is_empty() {
            f.enable_auth(user, &["root"]);
        }
        let request = Bytes::from(a_put().encode_to_vec());
        let mut out = Encoded::default();
        let (token, _) = later(f.calls.unary(&call(Method::Put, caller), request, &mut out));
        let proposed = f.for_node();
        let [NodeInput::Propose(proposal)] = &proposed[..] else { panic!("{proposed:?}") };
        assert_eq!(proposal.token, token);
        let entry = InternalRaftRequest::decode(&proposal.data[..]).unwrap();
        let header = entry.header.clone().unwrap();
        assert_eq!((&*header.username, header.auth_revision), (user, revision));
        assert_eq!((header.id, entry.put.clone()), (proposal.id.0, Some(a_put())));
        assert_eq!(entry.encode_to_vec(), proposal.data, "what is empty has no field");
    }
}

#[test]
fn a_put_is_answered_by_its_token_and_nothing_is_left_of_it() {
    let f = fixture::<Clock>(1 << 20);
    let mut out = Encoded::default();
    let (token, finish) = later(f.unary(Method::Put, &a_put(), &mut out));
    assert_eq!(f.calls.member().waiting(), 1);
    f.calls.member().release(token);
    assert!(matches!(f.calls.finish(finish, put_applied(), &mut out), Ok(Answer::Now)));
    let response = PutResponse::decode(out.message()).unwrap();
    assert_eq!(response.header.map(|h| (h.revision, h.member_id, h.cluster_id)), Some((5, 7, 9)));
    assert_eq!(f.calls.member().waiting(), 0);
}

#[test]
fn what_does_not_fit_is_refused_before_it_goes_anywhere() {
    let f = fixture::<Clock>(40);
    let large = PutRequest { value: vec![0; 64].into(), ..a_put() };
    let answer = f.unary(Method::Put, &large, &mut Encoded::default());
    assert_eq!(answer.err(), Some(ApiError::RequestTooLarge.into()));
    assert!(f.for_node().is_empty() && f.calls.member().waiting() == 0);
    // Node has no room: whoever waits is told.
    let (token, finish) = later(f.unary(Method::Put, &a_put(), &mut Encoded::default()));
    let member = f.calls.member();
    f.for_node().into_iter().for_each(|request| member.refuse(request));
    let mut waits = Box::pin(member.wait(token));
    let std::task::Poll::Ready(reply) =
        waits.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("it was refused")
    };
    let answer = f.calls.finish(finish, reply, &mut Encoded::default());
    assert_eq!(answer.err(), Some(ApiError::TooManyRequests.into()));
}

#[test]
fn what_needs_no_wait_is_answered_now() {
    let f = fixture::<Clock>(1 << 20);
    let mut out = Encoded::default();
    let local = RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() };
    assert!(matches!(f.unary(Method::Range, &local, &mut out), Ok(Answer::Now)));
    assert_eq!(RangeResponse::decode(out.message()).unwrap().count, 0);
    let mut out = Encoded::default();
    assert!(matches!(
        f.unary(Method::Status, &MemberListRequest::default(), &mut out),
        Ok(Answer::Now)
    ));
    let status = StatusResponse::decode(out.message()).unwrap();
    assert_eq!(status.errors, ["etcdserver: no leader"]);
    let mut out = Encoded::default();
    let members = MemberListRequest { linearizable: false };
    assert!(matches!(f.unary(Method::MemberList, &members, &mut out), Ok(Answer::Now)));
    assert!(f.for_node().is_empty() && f.outbox().is_empty());
    // A learner serves no more than that.
    f.shared.learner.store(true, Ordering::Relaxed);
    let answer = f.unary(Method::Alarm, &AlarmRequest::default(), &mut out);
    assert_eq!(answer.err(), Some(ApiError::NotSupportedForLearner.into()));
    assert!(matches!(f.unary(Method::Range, &local, &mut Encoded::default()), Ok(Answer::Now)));
}

#[test]
fn a_linearizable_read_waits_until_its_index_is_applied() {
    let f = fixture::<Clock>(1 << 20);
    let request = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    let mut out = Encoded::default();
    let (token, finish) = later(f.unary(Method::Range, &request, &mut out));
    assert!(matches!(&f.for_node()[..], [NodeInput::ReadIndex(asked)] if *asked == token));
    f.calls.member().release(token);
    let ahead = Index(f.shared.view.load().applied_index().0 + 1);
    let (token, finish) = later(f.calls.finish(finish, Reply::ReadIndex(ahead), &mut out));
    let asked = f.outbox().applier;
    assert!(matches!(&asked[..], [member::ApplierInput::AwaitApplied { token: t, index }]
            if (*t, *index) == (token, ahead)));
    f.calls.member().release(token);
    assert!(matches!(f.calls.finish(finish, Reply::Done, &mut out), Ok(Answer::Now)));
    assert!(!out.message().is_empty());
}

/// A stream whose client says one thing and then nothing.
#[derive(Default)]
struct Quiet {
    first: RefCell<Option<Bytes>>,
    sent: RefCell<Vec<u8>>,
}

struct From(Rc<Quiet>);

impl Source for From {
    fn poll_next(&mut self, _: &mut Context<'_>) -> std::task::Poll<Result<Option<Bytes>, Status>> {
        match self.0.first.borrow_mut().take() {
            Some(message) => std::task::Poll::Ready(Ok(Some(message))),
            None => std::task::Poll::Pending,
        }
    }
}

impl Sink for Quiet {
    fn try_send(&self, sealed: &mut Bytes) -> Result<(), Gone> {
        self.sent.borrow_mut().extend_from_slice(&sealed.split_to(sealed.len()));
        Ok(())
    }

    fn poll_send(
        &self,
        _: &mut Context<'_>,
        sealed: &mut Bytes,
    ) -> std::task::Poll<Result<(), Gone>> {
        std::task::Poll::Ready(self.try_send(sealed))
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn compress(&self, _: &[u8]) -> Bytes {
        unreachable!("it is plain")
    }

    fn count(&self, _: usize) {}
}

#[test]
fn every_stream_that_asks_for_a_leader_ends_after_three_election_timeouts_without_one() {
    let f = fixture::<Clock>(1 << 20);
    let led = NodeStatus { leader: Some(MemberId(8)), ..NodeStatus::default() };
    f.shared.status.store(led);
    let cx = &mut Context::from_waker(Waker::noop());
    let mut streams = Vec::new();
    for method in [Method::LeaseKeepAlive, Method::Watch] {
        let mut call = call(method, Caller::default());
        call.requires_leader = true;
        f.calls.check(&call).unwrap();
        let quiet = Rc::new(Quiet::default());
        let message = LeaseKeepAliveRequest { id: 1 }.encode_to_vec();
        if method == Method::LeaseKeepAlive {
            *quiet.first.borrow_mut() = Some(message.into());
        }
        streams.push(f.calls.stream(&call, Box::new(From(Rc::clone(&quiet))), quiet));
    }
    assert!(streams.iter_mut().all(|stream| stream.as_mut().poll(cx).is_pending()));
    let mut tasks = f.outbox().tasks;
    let mut turn = |seconds: u64| {
        let now = Instant(0) + Duration::from_secs(seconds);
        f.host.0.set(now);
        f.calls.member().fire(now);
        tasks.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        streams.iter_mut().map(|stream| stream.as_mut().poll(cx)).collect::<Vec<_>>()
    };
    for second in 0..3 {
        assert!(turn(second).iter().all(|end| end.is_pending()));
    }
    f.shared.status.store(NodeStatus::default());
    assert!(turn(3).iter().all(|end| end.is_pending()));
    assert!(turn(4).iter().all(|end| end.is_pending()));
    for end in turn(5) {
        assert_eq!(end, std::task::Poll::Ready(Err(ApiError::NoLeader.into())));
    }
}
