//! Calls that are open while the server stops.

use std::time::{Duration, Instant};

use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use bytes::Bytes;
use conform::grpc::envelope;
use conform::{Client, Failure, Kind, Server, Stream};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the client of an open call was told in the end, after any messages.
async fn end(mut stream: Stream) -> Result<(), Failure> {
    while stream.next_raw().await?.is_some() {}
    Ok(())
}

/// Opens one call of each kind, has the server stopped, and tells how they ended, and the exit
/// code of the process (none if a signal ended it).
async fn stop_under_calls(mut server: Server) -> (Vec<(&'static str, Failure)>, Option<i32>) {
    let client = Client::connect(server.port).await;
    let create = WatchCreateRequest { key: "a".into(), ..WatchCreateRequest::default() };
    let mut watch = client.open("/etcdserverpb.Watch/Watch", None, false).await;
    watch.send(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
    let created: WatchResponse = watch.next(PATIENCE).await.unwrap().expect("an answer");
    assert!(created.created);
    let mut keep_alive = client.open("/etcdserverpb.Lease/LeaseKeepAlive", None, false).await;
    keep_alive.send(&LeaseKeepAliveRequest { id: 5 });
    let unknown: LeaseKeepAliveResponse = keep_alive.next(PATIENCE).await.unwrap().expect("same");
    assert_eq!(unknown.ttl, 0);
    let watched = Some(envelope(b""));
    let mut health = client.open("/grpc.health.v1.Health/Watch", watched, true).await;
    assert_eq!(health.next_raw().await.unwrap().expect("an answer"), b"\x08\x01"[..]);
    let half = Some(Bytes::from_static(b"\0\0"));
    let half_put = client.open("/etcdserverpb.KV/Put", half, false).await;
    let calls = [
        ("watch", watch),
        ("keep-alive", keep_alive),
        ("health", health),
        ("half a put", half_put),
    ];
    let stopping = std::thread::spawn(move || server.stop());
    let mut ends = Vec::new();
    for (what, stream) in calls {
        let ended = tokio::time::timeout(PATIENCE, end(stream)).await.expect("the server stops");
        ends.push((what, ended.expect_err("nothing ends well")));
    }
    (ends, stopping.join().expect("stopping does not panic"))
}

/// etcd's clients turn this into Unavailable: no status comes, the connection ends.
#[test]
fn j6_open_calls_are_cut_without_a_status_when_the_server_stops() {
    let stopped = |kind| {
        let server = Server::start(kind, &[])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(runtime.block_on(stop_under_calls(server)))
    };
    let (ends, code) = stopped(Kind::Quorate).expect("our own binary");
    for (what, failure) in &ends {
        assert_eq!(failure.code, 999, "{what} got a status: {failure:?}");
    }
    assert_eq!(code, None, "the signal is passed on");
    if let Some(theirs) = stopped(Kind::Reference) {
        assert_eq!((ends, code), theirs, "left is ours, right is etcd's");
    }
}

/// Lines of a start, in order. A signal may come behind any of them.
const STEPS: [&str; 5] = [
    "starting an etcd server",
    "opened backend db",
    "starting local member",
    "published local member to cluster",
    "ready to serve client requests",
];

#[test]
fn a_signal_in_the_middle_of_a_start_stops_it() {
    for step in STEPS {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::prepare(Kind::Quorate, &dir.path().join("data"), &[]);
        server.spawn().expect("our own binary");
        let began = Instant::now();
        while !server.log().contains(step) {
            assert!(began.elapsed() < PATIENCE, "{step}: {}", server.log());
        }
        assert_eq!(server.stop(), None, "{step}: the signal is passed on");
    }
}
