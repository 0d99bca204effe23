//! Writing to a server, and looking at all that it holds.

use api::etcdserverpb::{
    HashKvRequest, HashKvResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
};
use conform::fuzz::{Answer, Generator, run};
use conform::{Client, Failure, Server};

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

/// Runs random operations; tells whether any succeeded.
pub fn operate(server: &Server, generator: &mut Generator, ops: usize) {
    block_on(async {
        let client = Client::connect(server.port).await;
        let mut wrote = 0;
        for _ in 0..ops {
            let op = generator.draw();
            let answer = run(&client, &op).await;
            wrote += usize::from(matches!(answer, Answer::Put(_) | Answer::Txn(_)));
            generator.saw(&answer);
        }
        assert!(wrote > ops / 10, "most operations were refused");
        // A compaction may have come last: then no revision beyond it could be compared.
        let last = PutRequest { key: "last".into(), ..Default::default() };
        let put: Result<PutResponse, _> = client.call("/etcdserverpb.KV/Put", &last).await;
        put.expect("a plain put is accepted");
    });
}

/// A revision, and what HashKV says of it: hash and compact revision.
pub type RevisionHash = (i64, Result<(u32, i64), Failure>);

/// The HashKV of every revision that is left.
pub fn hashes(server: &Server) -> Vec<RevisionHash> {
    let call = async |client: &Client, revision| {
        let path = "/etcdserverpb.Maintenance/HashKV";
        let answer = client.call::<HashKvResponse>(path, &HashKvRequest { revision }).await;
        answer.map(|a| (a.hash, a.compact_revision, a.hash_revision))
    };
    block_on(async {
        let client = Client::connect(server.port).await;
        // Not by HashKV(0): after a compaction at 0 etcd answers that with the stored hash.
        let any = RangeRequest { key: "any".into(), ..Default::default() };
        let answer: RangeResponse = client.call("/etcdserverpb.KV/Range", &any).await.unwrap();
        let newest = answer.header.expect("every range has one").revision;
        let (_, compact, _) = call(&client, newest).await.expect("the newest can be hashed");
        let mut all = Vec::new();
        // The compact revision itself is left out: etcd remembers that compaction's own hash, but
        // not over a restart.
        for revision in (compact + 1).max(1)..=newest {
            let answer = call(&client, revision).await;
            all.push((revision, answer.map(|(hash, compact, _)| (hash, compact))));
        }
        assert!(!all.is_empty());
        all
    })
}

/// Every key with all its numbers.
pub fn contents(server: &Server) -> RangeResponse {
    block_on(async {
        let client = Client::connect(server.port).await;
        let zero = bytes::Bytes::from_static(b"\0");
        let all = RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() };
        let mut answer: RangeResponse = client.call("/etcdserverpb.KV/Range", &all).await.unwrap();
        let header = answer.header.as_mut().unwrap();
        (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
        answer
    })
}
