//! A member that nobody runs, and its calls.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use api::authpb::User;
use api::error::Status;
use api::method::Method;
use calls::{
    Answer, Call, Caller, Calls, Encoded, Host, LargeResults, Limits, Logins, Member, Outbox, Pins,
    Provider, Shared, ViewSlot,
};
use env::mem::MemDisk;
use env::{Failpoints, Hooks, Instant, MayBlock, SplitMix};
use handover::{Notifier, Slot};
use machine::Auth;
use member::{MemberView, NodeInput, NodeStatus, StartConfig};
use prost::Message;
use store::Bucket;
use types::{ClusterId, MemberId};

pub const ELECTION: Duration = Duration::from_secs(1);

fn start_config() -> StartConfig {
    let founder = machine::Member {
        id: 7,
        name: "m".to_owned(),
        peer_urls: Some(vec!["http://m:2380".to_owned()]),
        ..machine::Member::default()
    };
    StartConfig::founding(Path::new("/d/member"), founder, ClusterId(9))
}

/// A member as it is after its first start, and its calls.
pub struct Fixture<H> {
    pub calls: Rc<Calls>,
    pub host: Rc<H>,
    pub shared: Arc<Shared>,
    pub slot: Arc<Slot<MemberView>>,
}

pub fn fixture<H: Host + Default + 'static>(max_request_bytes: usize) -> Fixture<H> {
    let may = MayBlock::on_this_thread();
    let entropy = Box::new(SplitMix::new(1));
    let disk = Arc::new(MemDisk::new());
    let parts = member::start(disk, &may, Instant(0), start_config(), entropy);
    let view = parts.expect("a new disk").applier.view();
    let slot = Arc::new(Slot::new(view));
    let shared = Arc::new(Shared {
        id: MemberId(7),
        cluster: ClusterId(9),
        view: ViewSlot::new(Arc::clone(&slot)),
        status: Arc::new(Slot::new(NodeStatus::default())),
        notifiers: [Notifier::default()].into(),
        learner: Arc::new(AtomicBool::new(false)),
        limits: Limits {
            max_request_bytes,
            max_txn_ops: 128,
            quota_bytes: -1,
            request_timeout: Duration::from_secs(7),
            reader_progress: Duration::from_secs(60),
            progress_interval: Duration::from_secs(600),
            fragment_bytes: 1 << 20,
            election: ELECTION,
        },
        ids: AtomicU64::new(100),
        features: Vec::new(),
        strict_reconfig: true,
        pins: Pins::default(),
        large: LargeResults::default(),
        logins: Logins::new(Provider::Simple(Arc::default()), true, 4, b"key"),
        connected: Box::new(|_| None),
        failpoints: Failpoints::default(),
        hooks: Hooks::default(),
    });
    let host = Rc::new(H::default());
    let member = Member::new(Arc::clone(&shared), Rc::clone(&host) as Rc<dyn Host>, 0, 1);
    Fixture { calls: Calls::new(member), host, shared, slot }
}

pub fn call(method: Method, caller: Caller) -> Call<'static> {
    Call { row: method.row(), caller, requires_leader: false, client_version: None }
}

impl<H> Fixture<H> {
    /// A unary call by nobody.
    pub fn unary(
        &self,
        method: Method,
        request: &impl Message,
        out: &mut Encoded,
    ) -> Result<Answer, Status> {
        let call = call(method, Caller::default());
        self.calls.unary(&call, request.encode_to_vec().into(), out)
    }

    /// What went out for Node.
    pub fn for_node(&self) -> Vec<NodeInput> {
        let mut out = Vec::new();
        self.calls.member().take_for_node(&mut out);
        out
    }

    /// What else went out.
    pub fn outbox(&self) -> Outbox {
        let mut out = Outbox::default();
        self.calls.member().take_all_but_node(&mut out);
        out
    }

    /// Enables authentication, with a user of these roles.
    pub fn enable_auth(&self, name: &str, roles: &[&str]) {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let user = User { name: name.to_owned().into(), roles, ..User::default() };
        let mut auth = Auth::default();
        for (bucket, key, value) in [
            (Bucket::AuthUsers, name.as_bytes(), &user.encode_to_vec()[..]),
            (Bucket::Auth, b"authEnabled", &[1]),
            (Bucket::Auth, b"authRevision", &7u64.to_be_bytes()),
        ] {
            auth.insert_stored(bucket, key, value).unwrap();
        }
        auth.loaded();
        let view = self.slot.load().as_ref().clone();
        self.slot.store(MemberView { auth: Arc::new(auth), ..view });
    }
}
