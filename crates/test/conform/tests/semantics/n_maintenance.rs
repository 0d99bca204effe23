//! N: maintenance.

use std::time::Duration;

use api::etcdserverpb::{
    DefragmentRequest, DefragmentResponse, HashRequest, HashResponse, SnapshotRequest,
    SnapshotResponse,
};
use conform::{Session, on_fresh_pair, on_shared_pair};

use super::*;

#[test]
fn n3_hashes_tell_the_history_apart() {
    on_shared_pair(async |s| {
        let first = s.set("a", "1").await;
        let early = s.hash_kv(0).await.unwrap();
        let last = s.set("a", "2").await;
        let late = s.hash_kv(0).await.unwrap();
        assert_ne!(early.hash, late.hash);
        assert_eq!(s.hash_kv(first).await.unwrap().hash, early.hash);
        assert_eq!(s.hash_kv(last).await.unwrap().hash, late.hash);
        fails(s.hash_kv(last + 1).await, OUT_OF_RANGE, FUTURE);
        s.hash_kv(-1).await.unwrap();
        let path = "/etcdserverpb.Maintenance/Hash";
        let whole: HashResponse = s.call(path, &HashRequest {}).await.unwrap();
        assert_eq!(whole.hash, 1, "masked: there is one");
    });
}

/// The pieces of a snapshot.
async fn snapshot(s: &mut Session) -> Vec<SnapshotResponse> {
    let path = "/etcdserverpb.Maintenance/Snapshot";
    let message = conform::grpc::envelope(&prost::Message::encode_to_vec(&SnapshotRequest {}));
    let mut stream = s.client().open(path, Some(message), true).await;
    let mut pieces = Vec::new();
    while let Some(piece) =
        stream.next::<SnapshotResponse>(Duration::from_secs(10)).await.expect("status 0")
    {
        pieces.push(piece);
    }
    pieces
}

#[test]
fn n4_a_snapshot_is_the_database_and_its_digest() {
    on_shared_pair(async |s| {
        for n in 0..200 {
            s.set(&format!("k{n}"), &"v".repeat(1_000)).await;
        }
        let pieces = snapshot(s).await;
        let total: usize = pieces.iter().map(|p| p.blob.len()).sum();
        assert_eq!(total % 512, 32, "whole pages and the digest");
        assert_eq!(pieces.last().unwrap().remaining_bytes, 0);
        let version = &pieces[0].version;
        // The digest is the last message alone, after the database.
        s.note(format!("{version} {}", pieces.last().unwrap().blob.len()));
        let mut left = total as u64 - 32;
        for piece in &pieces[..pieces.len() - 1] {
            left -= piece.blob.len() as u64;
            assert_eq!(piece.remaining_bytes, left);
        }
    });
}

#[test]
fn n5_status_tells_all_there_is() {
    on_fresh_pair(&[], async |s| {
        s.set("a", "1").await;
        // The storage version is raised step by step after the start.
        for _ in 0..100 {
            if s.status().await.storage_version == "3.7.0" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut status = s.status().await;
        assert!(status.db_size > 0 && status.db_size_in_use > 0);
        assert!(status.db_size >= status.db_size_in_use);
        assert_eq!(status.leader == status.header.unwrap().member_id, s.is_alone());
        assert!(status.raft_index >= status.raft_applied_index && status.raft_applied_index > 0);
        assert_eq!(status.raft_term, status.header.unwrap().raft_term);
        assert!(status.downgrade_info.is_some());
        // What the servers cannot share.
        let header = status.header.as_mut().unwrap();
        (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
        (status.db_size, status.db_size_in_use, status.leader) = (0, 0, 0);
        (status.raft_index, status.raft_applied_index, status.raft_term) = (0, 0, 0);
        s.note(format!("{status:?}"));
    });
}

#[test]
fn n1_a_defragmentation_changes_nothing_that_is_stored() {
    on_shared_pair(async |s| {
        for n in 0..100 {
            s.set(&format!("k{}", n % 10), &"v".repeat(1_000)).await;
        }
        let last = s.revision().await;
        let before = s.hash_kv(last).await.unwrap();
        let path = "/etcdserverpb.Maintenance/Defragment";
        let answer: DefragmentResponse =
            s.client().call(path, &DefragmentRequest {}).await.unwrap();
        s.note(format!("{answer:?}"));
        assert_eq!(s.hash_kv(last).await.unwrap(), before);
        assert_eq!(s.range(&range("k", "l")).await.unwrap().kvs.len(), 10);
        s.restart().await;
        assert_eq!(s.hash_kv(last).await.unwrap().hash, before.hash);
    });
}
