//! Which calls are told to an audit log, and with what outcome: every method of the table.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use api::error::{ApiError, Status};
use api::etcdserverpb as pb;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::watch_request::RequestUnion;
use api::method::{CallType, METHODS, Method, Row, Rule};
use bytes::Bytes;
use calls::audit::changes;
use calls::{
    Answer, Call, Caller, Changes, Encoded, Ended, Event, Gone, Host, Identity, Record, Sink,
    Source,
};
use common::{Fixture, call, fixture};
use env::{Instant, WallTime};
use machine::{CommandKind, CommandReply, Outcome, PutReply};
use member::{NodeInput, Reply};
use prost::Message;
use types::{Index, Revision, Term};

/// A host that keeps what it is told.
#[derive(Default)]
struct Keeps {
    records: RefCell<Vec<Record>>,
    /// Method, user, remote and text of each refusal.
    refusals: RefCell<Vec<[String; 4]>>,
    /// Names of refused logins.
    logins: RefCell<Vec<String>>,
    now: Cell<Instant>,
}

impl Host for Keeps {
    fn now(&self) -> Instant {
        self.now.get()
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }

    fn secret(&self, out: &mut [u8]) {
        out.fill(7);
    }

    fn log(&self, event: Event<'_>) {
        match event {
            Event::Refused { row, user, remote, why } => {
                let texts = [row.path, user, remote, &why.message].map(str::to_owned);
                self.refusals.borrow_mut().push(texts);
            }
            Event::LoginRefused { user, .. } => self.logins.borrow_mut().push(user.to_owned()),
            _ => {}
        }
    }

    fn audits(&self) -> bool {
        true
    }

    fn audit(&self, record: Record) {
        self.records.borrow_mut().push(record);
    }
}

type Audited = Fixture<Keeps>;

fn audited() -> Audited {
    fixture(1 << 20)
}

impl Audited {
    fn records(&self) -> Vec<Record> {
        self.host.records.take()
    }

    /// The one record there is.
    fn record(&self) -> Record {
        let records = self.records();
        let [record] = &records[..] else { panic!("one record is expected: {records:?}") };
        record.clone()
    }

    /// Answers every wait for a read index.
    fn confirm_reads(&self) {
        let member = self.calls.member();
        for input in self.for_node() {
            if let NodeInput::ReadIndex(token) = input {
                member.resolve(token, Reply::ReadIndex(Index(0)));
            }
        }
    }

    /// Drives a call until it waits for something else than a read index; its error, if it ended
    /// with one.
    fn drive(&self, call: &Call<'_>, request: Bytes) -> Option<Status> {
        let (mut out, cx) = (Encoded::default(), &mut Context::from_waker(Waker::noop()));
        let mut answer = self.calls.unary(call, request, &mut out);
        loop {
            answer = match answer {
                Ok(Answer::Now) => return None,
                Err(status) => return Some(status),
                Ok(Answer::Later(token, finish)) => {
                    self.calls.member().release(token);
                    let asked = self.for_node();
                    if !matches!(asked[..], [NodeInput::ReadIndex(_)]) {
                        return None;
                    }
                    self.calls.finish(finish, Reply::ReadIndex(Index(0)), &mut out)
                }
                Ok(Answer::Waits(mut body)) => {
                    for _ in 0..3 {
                        match body.as_mut().poll(cx) {
                            Poll::Ready(result) => return result.err(),
                            Poll::Pending => self.confirm_reads(),
                        }
                    }
                    return None;
                }
            }
        }
    }
}

/// A request that is not refused for what it says.
fn sample(row: &Row) -> Bytes {
    let put = || pb::PutRequest { key: "k".into(), ..<_>::default() };
    let encoded = match row.method {
        Method::Put => put().encode_to_vec(),
        Method::Range | Method::RangeStream => {
            pb::RangeRequest { key: "k".into(), ..<_>::default() }.encode_to_vec()
        }
        Method::DeleteRange => {
            pb::DeleteRangeRequest { key: "k".into(), ..<_>::default() }.encode_to_vec()
        }
        Method::Txn => {
            let success = vec![pb::RequestOp { request: Some(Request::RequestPut(put())) }];
            pb::TxnRequest { success, ..<_>::default() }.encode_to_vec()
        }
        Method::MemberAdd => {
            let peer_ur_ls = vec!["http://n:2380".to_owned()];
            pb::MemberAddRequest { peer_ur_ls, is_learner: true }.encode_to_vec()
        }
        Method::UserAdd => {
            let options = Some(api::authpb::UserAddOptions { no_password: true });
            pb::AuthUserAddRequest { name: "u".into(), options, ..<_>::default() }.encode_to_vec()
        }
        Method::UserGet => pb::AuthUserGetRequest { name: "bob".into() }.encode_to_vec(),
        Method::RoleGet => pb::AuthRoleGetRequest { role: "r".into() }.encode_to_vec(),
        Method::Alarm => pb::AlarmRequest { action: 1, ..<_>::default() }.encode_to_vec(),
        Method::Watch => {
            let create = pb::WatchCreateRequest { key: "k".into(), ..<_>::default() };
            let request_union = Some(RequestUnion::CreateRequest(create));
            pb::WatchRequest { request_union }.encode_to_vec()
        }
        _ => Vec::new(),
    };
    encoded.into()
}

/// A call by whoever comes from this place.
fn from(method: Method, certificate: &[&str]) -> Call<'static> {
    let certificate = certificate.iter().map(|name| (*name).to_owned()).collect();
    call(method, Caller::known(Identity { certificate, remote: Some("1.2.3.4:5".into()) }))
}

/// Methods that go through the log, as etcd's do, and change nothing.
const ONLY_LOOK: [Method; 5] =
    [Method::AuthStatus, Method::UserGet, Method::UserList, Method::RoleGet, Method::RoleList];

fn changes_something(input: &NodeInput) -> bool {
    matches!(
        input,
        NodeInput::Propose(_) | NodeInput::ChangeMembers { .. } | NodeInput::TransferLeader { .. }
    )
}

#[test]
fn every_method_that_changes_something_is_told_once() {
    let cx = &mut Context::from_waker(Waker::noop());
    let mut changing = 0;
    for row in METHODS.iter().filter(|row| row.kind == CallType::Unary) {
        let f = audited();
        let mut out = Encoded::default();
        let answer = f.calls.unary(&from(row.method, &[]), sample(row), &mut out);
        match answer {
            Ok(Answer::Waits(mut body)) => {
                assert!(f.records().is_empty(), "{}: told before its end", row.path);
                let _ = body.as_mut().poll(cx);
            }
            Ok(Answer::Later(_, finish)) => {
                assert!(f.records().is_empty(), "{}: told before its end", row.path);
                drop(finish);
            }
            Ok(Answer::Now) | Err(_) => {}
        }
        if f.for_node().iter().any(changes_something) {
            changing += 1;
            let is_told = changes(row.method) != Changes::Never;
            assert!(is_told || ONLY_LOOK.contains(&row.method), "{} is not told", row.path);
        }
        // What waits is dropped by now, as if its client were gone.
        let records = f.records();
        let expected = usize::from(changes(row.method) != Changes::Never);
        assert_eq!(records.len(), expected, "{}: {records:?}", row.path);
        for record in records {
            assert_eq!(record.row.method, row.method);
            assert_eq!(record.remote.as_deref(), Some("1.2.3.4:5"));
            assert_eq!((&*record.user, record.request), ("", sample(row)));
        }
    }
    assert!(changing >= 20, "only {changing} methods were seen to change something");
}

#[test]
fn every_method_tells_of_a_caller_that_it_refuses() {
    for row in METHODS {
        // Logins have a test of their own; the others are open, or not there.
        if matches!(row.rule, Rule::Open | Rule::ValidToken | Rule::Inner) {
            continue;
        }
        for (user, error) in [("", ApiError::UserEmpty), ("alice", ApiError::PermissionDenied)] {
            let f = audited();
            f.enable_auth("alice", &[]);
            let names: &[&str] = if user.is_empty() { &[] } else { &["alice"] };
            let refused = match row.kind {
                CallType::Unary => f.drive(&from(row.method, names), sample(row)),
                _ => f.stream(&from(row.method, names), sample(row)),
            };
            let records = f.records();
            let told = f.host.refusals.take();
            // What any user may is not refused to alice, nor what depends on keys that only
            // Applier knows; a watch is refused within its stream.
            if row.method != Method::Watch && refused.is_none() {
                assert_eq!(user, "alice", "{} lets nobody in", row.path);
                assert!(told.is_empty(), "{}: {told:?}", row.path);
                continue;
            }
            let text = error.text();
            assert_eq!(told, [[row.path, user, "1.2.3.4:5", text].map(str::to_owned)]);
            let [record] = &records[..] else { panic!("{}: {records:?}", row.path) };
            assert_eq!(record.ended, Ended::Refused(error.into()), "{}", row.path);
            let whose = (record.row.method, &*record.user, record.remote.as_deref());
            assert_eq!(whose, (row.method, user, Some("1.2.3.4:5")));
            assert_eq!(record.request, sample(row), "{}", row.path);
        }
    }
}

/// A client that says one thing, and then nothing.
struct One(RefCell<Option<Bytes>>);

impl Source for One {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        match self.0.take() {
            Some(message) => Poll::Ready(Ok(Some(message))),
            None => Poll::Pending,
        }
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn try_send(&self, sealed: &mut Bytes) -> Result<(), Gone> {
        sealed.clear();
        Ok(())
    }

    fn poll_send(&self, _: &mut Context<'_>, sealed: &mut Bytes) -> Poll<Result<(), Gone>> {
        Poll::Ready(self.try_send(sealed))
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn compress(&self, _: &[u8]) -> Bytes {
        unreachable!("it is plain")
    }

    fn count(&self, _: usize) {}
}

impl Audited {
    /// As [`Audited::drive`], of a stream with one request.
    fn stream(&self, call: &Call<'_>, request: Bytes) -> Option<Status> {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut serving = match call.row.kind {
            CallType::BidiStream => {
                let source = Box::new(One(RefCell::new(Some(request))));
                self.calls.stream(call, source, Rc::new(Nowhere))
            }
            _ => self.calls.one_request(call, request, Rc::new(Nowhere)),
        };
        for _ in 0..3 {
            match serving.as_mut().poll(cx) {
                Poll::Ready(result) => return result.err(),
                Poll::Pending => self.confirm_reads(),
            }
        }
        None
    }
}

fn applied(reply: Result<CommandReply, ApiError>) -> Reply {
    Reply::Applied(Box::new(Outcome {
        index: Index(9),
        term: Term(2),
        kind: Some(CommandKind::Put),
        revision: Revision(5),
        reply,
        effects: Vec::new(),
    }))
}

#[test]
fn a_put_is_told_with_what_became_of_it() {
    let done = applied(Ok(CommandReply::Put(PutReply::default())));
    let endings = [
        (done, Ended::Done(Revision(5))),
        (applied(Err(ApiError::LeaseNotFound)), Ended::Failed(ApiError::LeaseNotFound.into())),
        (
            applied(Err(ApiError::PermissionDenied)),
            Ended::Refused(ApiError::PermissionDenied.into()),
        ),
        (Reply::Refused(ApiError::Timeout), Ended::Failed(ApiError::Timeout.into())),
    ];
    for (reply, ended) in endings {
        let f = audited();
        f.enable_auth("alice", &["root"]);
        let mut out = Encoded::default();
        let call = from(Method::Put, &["alice"]);
        let answer = f.calls.unary(&call, sample(call.row), &mut out);
        let Ok(Answer::Later(token, finish)) = answer else { panic!("a put waits") };
        f.calls.member().release(token);
        assert!(f.records().is_empty());
        let _ = f.calls.finish(finish, reply, &mut out);
        let record = f.record();
        assert_eq!((&*record.user, record.ended), ("alice", ended));
    }
}

/// As the JSON gateway makes calls: as a future of the whole response.
#[test]
fn a_call_for_all_of_its_response_is_told_with_what_became_of_it() {
    let f = audited();
    let (call, cx) = (from(Method::Put, &[]), &mut Context::from_waker(Waker::noop()));
    let mut response = Box::pin(f.calls.call(&call, sample(Method::Put.row())));
    assert!(response.as_mut().poll(cx).is_pending());
    let token = f.for_node().into_iter().find_map(|input| match input {
        NodeInput::Propose(proposal) => Some(proposal.token),
        _ => None,
    });
    let done = applied(Ok(CommandReply::Put(PutReply::default())));
    f.calls.member().resolve(token.expect("it is proposed"), done);
    assert!(matches!(response.as_mut().poll(cx), Poll::Ready(Ok(_))));
    assert_eq!(f.record().ended, Ended::Done(Revision(5)));
}

#[test]
fn who_does_not_wait_is_told_all_the_same() {
    let f = audited();
    let call = from(Method::Put, &[]);
    let answer = f.calls.unary(&call, sample(call.row), &mut Encoded::default());
    let Ok(Answer::Later(token, finish)) = answer else { panic!("a put waits") };
    f.calls.member().release(token);
    drop(finish);
    assert_eq!(f.record().ended, Ended::Unanswered);
    // So is whoever leaves a snapshot.
    assert_eq!(f.stream(&from(Method::Snapshot, &[]), Bytes::new()), None);
    let record = f.record();
    assert_eq!((record.row.method, record.ended), (Method::Snapshot, Ended::Unanswered));
}

#[test]
fn a_refused_login_is_told_with_its_name() {
    let f = audited();
    f.enable_auth("alice", &[]);
    let row = Method::Authenticate.row();
    let login = pb::AuthenticateRequest { name: "alice".into(), password: "guess".into() };
    let login = Bytes::from(login.encode_to_vec());
    let answer = f.calls.unary(&from(row.method, &[]), login.clone(), &mut Encoded::default());
    let Ok(Answer::Waits(mut body)) = answer else { panic!("a login waits") };
    let may = env::MayBlock::on_this_thread();
    let cx = &mut Context::from_waker(Waker::noop());
    let refused = loop {
        if let Poll::Ready(result) = body.as_mut().poll(cx) {
            break result.err();
        }
        f.confirm_reads();
        for job in f.outbox().jobs {
            job(&may);
        }
    };
    assert_eq!(refused, Some(ApiError::AuthFailed.into()));
    drop(body);
    assert_eq!(f.host.logins.take(), ["alice"]);
    assert!(f.host.refusals.take().is_empty(), "it is told once");
    let record = f.record();
    assert_eq!(record.ended, Ended::Refused(ApiError::AuthFailed.into()));
    assert_eq!((record.row.method, record.request), (row.method, login));
}
