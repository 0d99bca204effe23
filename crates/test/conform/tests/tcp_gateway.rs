//! `etcd gateway` in front of a cluster, ours and etcd's.

#[path = "common/trial.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod trial;

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use api::etcdserverpb::{PutRequest, PutResponse};
use conform::{Client, Cluster, Kind};
use trial::Trial;

/// Longest time for one call on a connection of its own.
const PATIENCE: Duration = Duration::from_secs(15);

/// Writes through the gateway on a new connection.
async fn put(port: u16, key: &str) -> Result<PutResponse, String> {
    let request = PutRequest { key: key.to_owned().into(), ..PutRequest::default() };
    let written = async {
        let client = Client::connect(port).await;
        client.call("/etcdserverpb.KV/Put", &request).await.map_err(|e| format!("{e:?}"))
    };
    tokio::time::timeout(PATIENCE, written).await.map_err(|e| e.to_string())?
}

#[test]
fn clients_go_on_when_a_member_is_gone_and_come_back_to_it() {
    let Some(mut cluster) = Cluster::start(&[Kind::Quorate; 3], &[]) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for trial in Trial::both() {
        let endpoints: Vec<String> = cluster.nodes.iter().map(|node| node.client_url()).collect();
        let flags = [
            "gateway".to_owned(),
            "start".to_owned(),
            format!("--endpoints={}", endpoints.join(",")),
            format!("--listen-addr=127.0.0.1:{}", trial.client),
            "--retry-delay=200ms".to_owned(),
        ];
        let mut gateway = trial.spawn(trial.command(&flags));
        assert!(gateway.says("ready to proxy client requests"), "{}", gateway.log());
        runtime.block_on(async {
            for i in 0..6 {
                put(trial.client, &format!("a{i}")).await.unwrap();
            }
        });
        cluster.nodes[1].kill();
        assert!(!gateway.log().contains("deactivated endpoint"), "{}", gateway.log());
        runtime.block_on(async {
            // Whoever leads has to be found anew, if it was the one that is gone.
            cluster.leader().await;
            for i in 0..6 {
                put(trial.client, &format!("b{i}")).await.unwrap();
            }
        });
        let address = endpoints[1].trim_start_matches("http://");
        for part in
            ["deactivated endpoint", address, "\"interval\":\"200ms\"", "connection refused"]
        {
            assert!(gateway.says(part), "{part}: {}", gateway.log());
        }
        assert!(gateway.says("stay inactive for another interval"), "{}", gateway.log());
        cluster.restart(1);
        assert!(gateway.says("\"msg\":\"activated\""), "{}", gateway.log());
        runtime.block_on(async {
            for i in 0..6 {
                put(trial.client, &format!("c{i}")).await.unwrap();
            }
        });
        gateway.signal("TERM");
        let ended = gateway.end().expect("it ends");
        assert_eq!(ended.signal(), Some(15), "{:?}: {}", trial.kind, gateway.log());
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    for trial in Trial::both() {
        let here = format!("127.0.0.1:{}", trial.client);
        let itself = format!(
            "SRV or endpoint (127.0.0.1:{0}->127.0.0.1:{0}) should not resolve to the gateway \
             listen addr ({here})",
            trial.client
        );
        for (flags, said) in [
            (vec!["--listen-addr=x"], "failed to validate listen address: x"),
            (vec!["--endpoints=a"], "error parsing endpoint \"a\""),
            (vec!["--endpoints=nowhere.invalid:1"], "failed to resolve endpoint host: nowhere"),
            (vec!["--endpoints=", "--listen-addr", &here], "no endpoints found"),
            (vec!["--endpoints", &here, "--listen-addr", &here], &itself),
            (vec!["--retry-delay=x"], "Error: invalid argument \"x\" for \"--retry-delay\" flag"),
            (vec!["--foo"], "Error: unknown flag: --foo"),
        ] {
            let flags: Vec<String> =
                ["gateway", "start"].into_iter().chain(flags).map(str::to_owned).collect();
            let mut command = trial.command(&flags);
            let ended = command
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .output()
                .expect("the program runs");
            let told = [ended.stdout, ended.stderr].concat();
            let told = String::from_utf8_lossy(&told);
            assert_eq!(ended.status.code(), Some(1), "{:?} {flags:?}: {told}", trial.kind);
            assert!(told.contains(said), "{:?} {flags:?}: {told}", trial.kind);
        }
    }
}
