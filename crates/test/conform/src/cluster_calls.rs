//! Calls that tests of clusters make again and again.

use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use bytes::Bytes;

use crate::cluster::Cluster;
use crate::grpc::Failure;
use crate::process::Kind;

type Answer<A> = Result<A, Failure>;

impl Cluster {
    /// A put.
    ///
    /// # Errors
    /// The member's; so for all calls here.
    pub async fn put(&self, n: usize, key: &str, value: &str) -> Answer<pb::PutResponse> {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let request = pb::PutRequest { key, value, ..Default::default() };
        self.call(n, "/etcdserverpb.KV/Put", &request).await
    }

    /// A linearizable read of one key: its value.
    #[allow(clippy::missing_errors_doc)]
    pub async fn get(&self, n: usize, key: &str) -> Answer<Option<Bytes>> {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let answer: pb::RangeResponse = self.call(n, "/etcdserverpb.KV/Range", &request).await?;
        Ok(answer.kvs.into_iter().next().map(|kv| kv.value))
    }

    /// `MemberList`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn members(&self, n: usize, linearizable: bool) -> Answer<pb::MemberListResponse> {
        let request = pb::MemberListRequest { linearizable };
        self.call(n, "/etcdserverpb.Cluster/MemberList", &request).await
    }

    /// `MemberAdd` of somebody who is not started.
    #[allow(clippy::missing_errors_doc)]
    pub async fn member_add(
        &self,
        n: usize,
        urls: &[&str],
        is_learner: bool,
    ) -> Answer<pb::MemberAddResponse> {
        let peer_ur_ls = urls.iter().map(|&url| url.to_owned()).collect();
        let request = pb::MemberAddRequest { peer_ur_ls, is_learner };
        self.call(n, "/etcdserverpb.Cluster/MemberAdd", &request).await
    }

    /// `MemberRemove`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn member_remove(&self, n: usize, id: u64) -> Answer<pb::MemberRemoveResponse> {
        let request = pb::MemberRemoveRequest { id };
        self.call(n, "/etcdserverpb.Cluster/MemberRemove", &request).await
    }

    /// `MemberUpdate`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn member_update(
        &self,
        n: usize,
        id: u64,
        urls: &[&str],
    ) -> Answer<pb::MemberUpdateResponse> {
        let peer_ur_ls = urls.iter().map(|&url| url.to_owned()).collect();
        let request = pb::MemberUpdateRequest { id, peer_ur_ls };
        self.call(n, "/etcdserverpb.Cluster/MemberUpdate", &request).await
    }

    /// `MemberPromote`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn member_promote(&self, n: usize, id: u64) -> Answer<pb::MemberPromoteResponse> {
        let request = pb::MemberPromoteRequest { id };
        self.call(n, "/etcdserverpb.Cluster/MemberPromote", &request).await
    }

    /// Promotes a learner as soon as it has caught up and the cluster is healthy.
    ///
    /// # Panics
    /// If it is refused for other reasons, or for too long.
    pub async fn promote_in_time(&self, n: usize, id: u64) -> pb::MemberPromoteResponse {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match self.member_promote(n, id).await {
                Ok(answer) => return answer,
                Err(e) => assert!(
                    e.message.ends_with("in sync with leader") && Instant::now() < until,
                    "{e:?}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `MoveLeader`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn move_leader(&self, n: usize, target_id: u64) -> Answer<pb::MoveLeaderResponse> {
        let request = pb::MoveLeaderRequest { target_id };
        self.call(n, "/etcdserverpb.Maintenance/MoveLeader", &request).await
    }

    /// `LeaseGrant`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn grant(&self, n: usize, id: i64, ttl: i64) -> Answer<pb::LeaseGrantResponse> {
        let request = pb::LeaseGrantRequest { id, ttl };
        self.call(n, "/etcdserverpb.Lease/LeaseGrant", &request).await
    }

    /// One keep-alive on a stream of its own: the TTL.
    #[allow(clippy::missing_errors_doc)]
    ///
    /// # Panics
    /// If the stream ends without an answer.
    pub async fn keep_alive(&self, n: usize, id: i64) -> Answer<i64> {
        let message = prost::Message::encode_to_vec(&pb::LeaseKeepAliveRequest { id });
        let body = Some(crate::grpc::envelope(&message));
        let client = self.client(n).await;
        let mut stream = client.try_open("/etcdserverpb.Lease/LeaseKeepAlive", body, true).await?;
        let answer = stream.next::<pb::LeaseKeepAliveResponse>(Duration::from_secs(20)).await?;
        Ok(answer.expect("every keep-alive is answered").ttl)
    }

    /// `LeaseTimeToLive`.
    #[allow(clippy::missing_errors_doc)]
    pub async fn time_to_live(
        &self,
        n: usize,
        id: i64,
        keys: bool,
    ) -> Answer<pb::LeaseTimeToLiveResponse> {
        let request = pb::LeaseTimeToLiveRequest { id, keys };
        self.call(n, "/etcdserverpb.Lease/LeaseTimeToLive", &request).await
    }

    /// Writes until a member takes it: a leader, or news of the member's own promotion, may be on
    /// its way.
    ///
    /// # Panics
    /// If none is taken for too long, or refused for another reason than these.
    pub async fn put_in_time(&self, n: usize, key: &str, value: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        while let Err(e) = self.put(n, key, value).await {
            let passes = e.code == 14 || e.message == "etcdserver: rpc not supported for learner";
            assert!(passes && Instant::now() < until, "{e:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Runs a scenario on three members of etcd and on three of ours, at the same time, and compares
/// what they noted.
///
/// # Panics
/// If it panics on either, or their notes differ.
pub fn on_both_clusters(args: &[&str], scenario: impl AsyncFn(&mut Cluster) + Sync) {
    on_clusters(3, args, scenario);
}

/// As [`on_both_clusters`], with so many members.
///
/// # Panics
/// As there.
pub fn on_clusters(size: usize, args: &[&str], scenario: impl AsyncFn(&mut Cluster) + Sync) {
    let one = |kind: Kind| {
        let mut cluster = Cluster::start(&vec![kind; size], args)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(scenario(&mut cluster));
        Some(std::mem::take(&mut cluster.notes))
    };
    std::thread::scope(|scope| {
        let theirs = scope.spawn(|| one(Kind::Reference));
        let ours = scope.spawn(|| one(Kind::Quorate));
        let theirs = theirs.join();
        let ours = ours.join().unwrap_or_else(|_| panic!("that was ours"));
        let theirs = theirs.unwrap_or_else(|_| panic!("that was etcd's"));
        let Some(theirs) = theirs else { return };
        let ours = ours.expect("our own binary is built");
        for (n, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(a, b, "note {n}: left is ours, right is etcd's");
        }
        assert_eq!(ours.len(), theirs.len());
    });
}
