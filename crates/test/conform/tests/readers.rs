//! Clients that stop reading a long answer, against an embedded server with short patience: what
//! they hold is let go, and what they were promised they get.

use std::time::Duration;

use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    SnapshotRequest, SnapshotResponse,
};
use conform::{Client, Failure, Stream, process};
use prost::Message;
use server::{Address, Listen};

const KEYS: usize = 300;
const SIZE: usize = 20_000;
/// What a client is told of a stream that was reset with CANCEL, and with INTERNAL_ERROR. Behind half
/// a message a status would not reach it: Go's client says `unexpected EOF` instead.
const CANCELED: &str = "stream error received: stream no longer needed";
const BROKEN_OFF: &str = "stream error received: unexpected internal error encountered";

/// Runs a scenario on a server in this process, with these times.
fn serve(progress: Duration, list_pin: Duration, scenario: impl AsyncFn(u16)) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = server::Options {
        data_dir: dir.path().join("data"),
        wal_dir: dir.path().join("data/member/wal"),
        client_urls: vec![Listen::plain(Address::Tcp(
            ([127, 0, 0, 1], process::free_port()).into(),
        ))],
        peer_urls: Vec::new(),
        list_pin,
        ..server::Options::default()
    };
    options.connections.reader_progress = progress;
    let log = std::sync::Arc::new(server::Log::none());
    let server = server::start(&server::os_disk(), &log, &options).expect("it starts");
    let port = server.addresses[0].port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        fill(&Client::connect(port).await, b'a').await;
        scenario(port).await;
    });
    drop(runtime);
    server.stopper().send_replace(true);
    server.wait().expect("a clean stop");
}

/// Writes all keys; returns the last revision.
async fn fill(client: &Client, byte: u8) -> i64 {
    let mut last = 0;
    for n in 0..KEYS {
        let (key, value) = (format!("k{n:04}").into(), vec![byte; SIZE].into());
        let request = PutRequest { key, value, ..Default::default() };
        let answer: PutResponse = client.call("/etcdserverpb.KV/Put", &request).await.unwrap();
        last = answer.header.unwrap().revision;
    }
    last
}

/// Writes all keys anew and removes what was before.
async fn replace(port: u16) {
    let client = Client::connect(port).await;
    let revision = fill(&client, b'b').await;
    let request = CompactionRequest { revision, physical: true };
    let answer: Result<CompactionResponse, _> =
        client.call("/etcdserverpb.KV/Compact", &request).await;
    answer.expect("a compaction at the newest revision");
}

/// A call on a connection with a small window, whose answer nobody reads yet.
async fn begin(port: u16, path: &str, request: &impl Message) -> (Client, Stream) {
    let client = Client::try_connect(port, 65_535).await.unwrap();
    let body = conform::grpc::envelope(&request.encode_to_vec());
    let stream = client.open(path, Some(body), true).await;
    (client, stream)
}

async fn list(port: u16) -> (Client, Stream) {
    let request =
        RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() };
    begin(port, "/etcdserverpb.KV/Range", &request).await
}

async fn rest_of_list(stream: &mut Stream) -> Result<RangeResponse, Failure> {
    let message = stream.next_raw().await?.expect("a unary answer");
    stream.next_raw().await?;
    Ok(RangeResponse::decode(message).expect("the method's message"))
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_snapshot_that_nobody_reads_is_given_up_and_one_that_is_read_slowly_is_not() {
    serve(SHORT, LONG, async |port| {
        let path = "/etcdserverpb.Maintenance/Snapshot";
        let (_client, mut stopped) = begin(port, path, &SnapshotRequest {}).await;
        let (_client, mut slow) = begin(port, path, &SnapshotRequest {}).await;
        let mut size = 0;
        let patience = Duration::from_secs(5);
        while let Some(piece) = slow.next::<SnapshotResponse>(patience).await.unwrap() {
            size += piece.blob.len();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(size > KEYS * SIZE, "all of it: {size}");
        tokio::time::sleep(3 * SHORT).await;
        let failure = loop {
            match stopped.next::<SnapshotResponse>(patience).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it was sent to its end"),
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.message, CANCELED);
    });
}

#[test]
fn a_list_that_nobody_reads_is_given_up() {
    serve(SHORT, LONG, async |port| {
        let (_client, mut stopped) = list(port).await;
        tokio::time::sleep(4 * SHORT).await;
        let failure = rest_of_list(&mut stopped).await.unwrap_err();
        assert_eq!(failure.message, CANCELED);
    });
}

#[test]
fn a_list_keeps_what_it_began_with_for_its_time() {
    serve(LONG, LONG, async |port| {
        let (_client, mut young) = list(port).await;
        tokio::time::sleep(SHORT).await;
        replace(port).await;
        let answer = rest_of_list(&mut young).await.expect("nothing is taken from it");
        assert_eq!(answer.kvs.len(), KEYS);
        assert!(answer.kvs.iter().all(|kv| kv.value[..] == vec![b'a'; SIZE]));
    });
}

#[test]
fn an_old_list_goes_on_if_nothing_was_compacted() {
    serve(LONG, SHORT, async |port| {
        let (_client, mut untouched) = list(port).await;
        tokio::time::sleep(3 * SHORT).await;
        let answer = rest_of_list(&mut untouched).await.expect("nothing was compacted");
        assert_eq!(answer.kvs.len(), KEYS);
    });
}

#[test]
fn an_old_list_ends_if_a_compaction_has_taken_what_it_needs() {
    serve(LONG, SHORT, async |port| {
        // These two hold all there is of large pieces, so the third is read little by little.
        let _held = (list(port).await, list(port).await);
        let (_client, mut old) = list(port).await;
        tokio::time::sleep(3 * SHORT).await;
        replace(port).await;
        let failure = rest_of_list(&mut old).await.map(|a| a.count).unwrap_err();
        assert_eq!(failure.message, BROKEN_OFF);
    });
}
