//! What was acknowledged before a snapshot was asked for is in it. `QUORATE_SNAPSHOTS` sets how
//! many are taken (20 by default).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::etcdserverpb::{PutRequest, PutResponse, SnapshotRequest, SnapshotResponse};
use api::mvccpb::KeyValue;
use bytes::Bytes;
use conform::{Client, Kind, Server};
use prost::Message;

async fn put(client: &Client, key: &str, value: &str) -> i64 {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    let request = PutRequest { key, value, ..Default::default() };
    let answer: Result<PutResponse, _> = client.call("/etcdserverpb.KV/Put", &request).await;
    answer.expect("a plain put succeeds").header.expect("every answer has a header").revision
}

async fn snapshot(client: &Client) -> Vec<u8> {
    let path = "/etcdserverpb.Maintenance/Snapshot";
    let message = conform::grpc::envelope(&SnapshotRequest {}.encode_to_vec());
    let mut stream = client.open(path, Some(message), true).await;
    let mut file = Vec::new();
    let patience = Duration::from_secs(20);
    while let Some(piece) = stream.next::<SnapshotResponse>(patience).await.expect("no failure") {
        file.extend_from_slice(&piece.blob);
    }
    file
}

/// The key-value that a database holds at a revision.
fn at_revision(db: &Path, revision: i64) -> Option<KeyValue> {
    let may = env::MayBlock::on_this_thread();
    let options = store::database_options();
    let db = bolt::Db::open(Arc::new(osenv::OsDisk), db, &may, options).expect("a database");
    let found = db.begin_read().get_revision(&may, revision as u64, 0, false);
    found.expect("a sound database").map(|kv| KeyValue::decode(kv).expect("a key-value"))
}

#[test]
fn a_snapshot_holds_every_put_acknowledged_before_it() {
    let rounds = std::env::var("QUORATE_SNAPSHOTS").ok().and_then(|v| v.parse().ok());
    let rounds: u32 = rounds.unwrap_or(20);
    let server = Server::start(Kind::Quorate, &[]).expect("our own binary is built");
    let dir = tempfile::tempdir().unwrap();
    let ended = AtomicBool::new(false);
    let load = async |writer: u32, client: Client| {
        let mut n = 0;
        while !ended.load(Ordering::SeqCst) {
            put(&client, &format!("load/{writer}/{}", n % 50), "beside").await;
            n += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let take = async || {
        let (writer, reader) =
            (Client::connect(server.port).await, Client::connect(server.port).await);
        for round in 0..rounds {
            let (key, value) = (format!("key/{round}"), format!("value {round}"));
            let revision = put(&writer, &key, &value).await;
            let file = dir.path().join("snapshot.db");
            std::fs::write(&file, snapshot(&reader).await).unwrap();
            let restored = dir.path().join(format!("restored-{round}"));
            let text = |path: &Path| path.to_str().expect("temporary paths are text").to_owned();
            let args = ["snapshot", "restore", &text(&file), "--data-dir"];
            let args = args.map(Into::into).into_iter().chain([text(&restored).into()]);
            assert_eq!(utl::run(args), 0, "round {round}: the snapshot can be restored");
            let kv = at_revision(&restored.join("member/snap/db"), revision);
            let kv = kv.unwrap_or_else(|| panic!("round {round}: {key} is not in the snapshot"));
            assert_eq!((kv.key, kv.value), (Bytes::from(key), Bytes::from(value)));
            std::fs::remove_dir_all(&restored).unwrap();
        }
        ended.store(true, Ordering::SeqCst);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (a, b) = (Client::connect(server.port).await, Client::connect(server.port).await);
        tokio::join!(take(), load(0, a), load(1, b))
    });
}
