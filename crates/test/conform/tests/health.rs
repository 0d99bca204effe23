//! grpc.health.v1, as probes of load balancers and kubelets use it.

use api::grpc_health::{HealthCheckRequest, HealthCheckResponse, HealthListResponse};
use conform::both::both;
use conform::grpc::{Client, envelope};
use prost::Message;

const SERVICE: &str = "/grpc.health.v1.Health";

fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

/// The first status of a watch, and whether the stream goes on after it.
async fn first_of_watch(client: &Client, service: &str) -> (i32, bool) {
    let message = request(service).encode_to_vec();
    let mut stream = client.open(&format!("{SERVICE}/Watch"), Some(envelope(&message)), true).await;
    let first = stream.next_raw().await.unwrap().expect("a status comes at once");
    let pause = std::time::Duration::from_millis(300);
    let goes_on = tokio::time::timeout(pause, stream.next_raw()).await.is_err();
    (HealthCheckResponse::decode(first).unwrap().status, goes_on)
}

#[test]
fn a_running_server_serves_and_knows_no_service_by_name() {
    let (server, service, list) = both(async |client| {
        let check = async |service: &str| {
            let message = request(service).encode_to_vec();
            let answer = client.raw(&format!("{SERVICE}/Check"), &message).await;
            answer.map(|bytes| HealthCheckResponse::decode(bytes).unwrap().status)
        };
        let list = client.raw(&format!("{SERVICE}/List"), b"").await.unwrap();
        let list = HealthListResponse::decode(list).unwrap().statuses;
        let list: Vec<_> = list.into_iter().map(|(name, r)| (name, r.status)).collect();
        (check("").await, check("etcdserverpb.KV").await, list)
    });
    assert_eq!((server, service.unwrap_err().code), (Ok(1), 5));
    assert_eq!(list, [(String::new(), 1)]);
}

#[test]
fn a_watch_tells_the_status_once_and_stays_open() {
    let transcript = both(async |client| {
        (first_of_watch(&client, "").await, first_of_watch(&client, "etcdserverpb.KV").await)
    });
    assert_eq!(transcript, ((1, true), (3, true)));
}
