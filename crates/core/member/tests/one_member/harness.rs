//! A member whose automata take turns as a test says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader};
use env::mem::MemDisk;
use env::{Disk, Instant, MayBlock, SplitMix};
use machine::{Member, Outcome};
use member::{
    Applier, ApplierInput, ApplierOutput, Committer, CommitterInput, CommitterOutput, LogInput,
    LogWriter, MemberView, Node, NodeInput, NodeOutput, NodeStatus, Parts, Proposal, Reply,
    StartConfig, start,
};
use prost::Message;
use types::{ClusterId, MemberId, ReplyToken, RequestId};

pub const ID: MemberId = MemberId(7);

pub fn config() -> StartConfig {
    let founder = Member {
        id: ID.0,
        peer_urls: Some(vec!["http://localhost:2380".to_owned()]),
        client_urls: vec!["http://localhost:2379".to_owned()],
        name: "m".to_owned(),
        ..Member::default()
    };
    let mut config = StartConfig::founding(Path::new("/d/member"), founder, ClusterId(9));
    (config.node.snapshot_count, config.node.catchup_entries) = (50, 20);
    config.node.first_request_id = RequestId(1 << 40);
    config
}

/// The automata of a member, and what is under way between them.
pub struct Running {
    pub node: Node,
    pub log_writer: LogWriter,
    pub applier: Applier,
    pub committer: Committer,
    pub log: Vec<LogInput>,
    pub to_node: Vec<NodeInput>,
    pub to_applier: Vec<ApplierInput>,
    pub to_committer: Vec<CommitterInput>,
    pub now: Instant,
    pub view: MemberView,
    pub replies: Vec<(ReplyToken, Reply)>,
    pub next: u64,
    pub ready: bool,
    pub status: NodeStatus,
}

impl Running {
    pub fn start(disk: &MemDisk, now: Instant, seed: u64) -> Self {
        Self::start_with(config(), disk, now, seed)
    }

    pub fn start_with(config: StartConfig, disk: &MemDisk, now: Instant, seed: u64) -> Self {
        let may = MayBlock::on_this_thread();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let entropy = Box::new(SplitMix::new(seed));
        let parts = start(shared, &may, now, config, entropy).unwrap_or_else(|e| panic!("{e}"));
        let mut member = Self::of(parts, now);
        for _ in 0..20 {
            member.turn(4);
        }
        assert!(member.ready, "the member has published itself");
        member
    }

    pub fn of(parts: Parts, now: Instant) -> Self {
        let Parts { node, log_writer, applier, committer, .. } = parts;
        let view = applier.view();
        Self {
            node,
            log_writer,
            applier,
            committer,
            log: Vec::new(),
            to_node: Vec::new(),
            to_applier: Vec::new(),
            to_committer: Vec::new(),
            now,
            view,
            replies: Vec::new(),
            next: now.0,
            ready: false,
            status: NodeStatus::default(),
        }
    }

    /// One turn of each automaton in `which` (a bit each: log writer, applier, committer).
    pub fn step(&mut self, which: u64) {
        self.run(which).unwrap();
    }

    /// One turn of all, after which a failing disk may have ended the member.
    pub fn try_step(&mut self) -> Result<(), String> {
        self.now = self.now + Duration::from_millis(20);
        self.run(7)
    }

    pub fn run(&mut self, which: u64) -> Result<(), String> {
        let may = MayBlock::on_this_thread();
        let mut out = NodeOutput::default();
        self.node.handle(self.now, &mut self.to_node, &mut out);
        self.log.append(&mut out.log);
        self.to_applier.extend(out.committed.into_iter().map(ApplierInput::Committed));
        self.to_applier.extend(out.snapshot_saved.map(ApplierInput::SnapshotSaved));
        self.replies.append(&mut out.replies);
        self.status = out.status.unwrap_or(self.status);
        self.ready |= self.status.ready;
        if out.flush {
            self.to_committer.push(CommitterInput::Flush);
        }
        self.to_committer.extend(out.save_snapshot.map(CommitterInput::SaveSnapshot));
        if which & 1 != 0 {
            let log = &mut self.log;
            self.log_writer.handle(&may, log, &mut self.to_node).map_err(|e| e.to_string())?;
        }
        if which & 2 != 0 {
            let mut out = ApplierOutput::default();
            let inputs = &mut self.to_applier;
            self.applier.handle(&may, self.now, inputs, &mut out).map_err(|e| e.to_string())?;
            self.to_node.append(&mut out.node);
            if let Some(view) = out.view {
                self.view = view;
            }
            self.replies.append(&mut out.replies);
            self.to_committer.extend(out.batches.into_iter().map(CommitterInput::Batch));
            if out.flush {
                self.to_committer.push(CommitterInput::Flush);
            }
            if out.defragment {
                self.to_committer.push(CommitterInput::Defragment);
            }
        }
        if which & 4 != 0 {
            let mut done = CommitterOutput::default();
            let inputs = &mut self.to_committer;
            self.committer.handle(&may, self.now, inputs, &mut done).map_err(|e| e.to_string())?;
            self.to_applier.append(&mut done.applier);
            let committed = done.node.into_iter().map(NodeInput::BackendCommitted);
            self.to_node.extend(committed);
            self.to_node.extend(done.saved.into_iter().map(NodeInput::SnapshotFileSaved));
        }
        Ok(())
    }

    pub fn turn(&mut self, steps: u64) {
        self.now = self.now + Duration::from_millis(20);
        for _ in 0..steps {
            self.step(7);
        }
    }

    pub fn propose(&mut self, mut request: InternalRaftRequest) -> ReplyToken {
        self.next += 1;
        let header = RequestHeader { id: self.next, ..RequestHeader::default() };
        request.header = Some(header);
        let token = ReplyToken(self.next);
        self.to_node.push(NodeInput::Propose(Proposal {
            token,
            id: RequestId(self.next),
            data: request.encode_to_vec().into(),
        }));
        token
    }

    pub fn put(&mut self, key: &str, value: &str) -> ReplyToken {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let put = PutRequest { key, value, ..PutRequest::default() };
        self.propose(InternalRaftRequest { put: Some(put), ..Default::default() })
    }

    pub fn outcome(&mut self, token: ReplyToken) -> Result<Box<Outcome>, ApiError> {
        for _ in 0..10 {
            if let Some(at) = self.replies.iter().position(|(t, _)| *t == token) {
                return member::applier::outcome(self.replies.swap_remove(at).1);
            }
            self.turn(4);
        }
        panic!("no reply");
    }

    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        let may = MayBlock::on_this_thread();
        let found = self.view.store.get(key.as_bytes(), 0).unwrap()?;
        let stored = self.view.store.value(&may, found.rev).unwrap().unwrap();
        Some(store::KeyValue::parse(&stored).unwrap().value.to_vec())
    }
}
