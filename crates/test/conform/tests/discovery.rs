//! Founding a cluster by a registry in another etcd: members of ours and etcd's, and both as the
//! registry.

#[path = "common/trial.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod trial;

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use api::etcdserverpb::{MemberListRequest, MemberListResponse, PutRequest, PutResponse};
use conform::{Client, Kind, Server};
use trial::{Running, Trial};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(async {
        tokio::time::timeout(Duration::from_secs(30), future).await.expect("it ends in time")
    })
}

fn put(server: &Server, key: &str, value: &str) {
    block_on(async {
        let client = Client::connect(server.port).await;
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let request = PutRequest { key, value, ..PutRequest::default() };
        let _: PutResponse = client.call("/etcdserverpb.KV/Put", &request).await.unwrap();
    });
}

/// Starts a member of this name that is to find its cluster in the registry.
fn found(trial: &Trial, name: &str, registry: &Server, token: &str) -> Running {
    let mut flags = trial.flags();
    flags.truncate(flags.len() - 2);
    name.clone_into(&mut flags[1]);
    let endpoint = format!("http://127.0.0.1:{}", registry.port);
    for more in ["--discovery-token", token, "--discovery-endpoints", &endpoint] {
        flags.push(more.to_owned());
    }
    trial.spawn(trial.command(&flags))
}

fn members(trial: &Trial) -> Vec<String> {
    block_on(async {
        let client = Client::connect(trial.client).await;
        let request = MemberListRequest { linearizable: true };
        let listed: MemberListResponse =
            client.call("/etcdserverpb.Cluster/MemberList", &request).await.unwrap();
        let mut names: Vec<String> =
            listed.members.into_iter().map(|m| format!("{}={}", m.name, m.peer_ur_ls[0])).collect();
        names.sort();
        names
    })
}

#[test]
fn members_of_both_kinds_find_each_other_and_nobody_else() {
    for registry in [Kind::Quorate, Kind::Reference] {
        let Some(registry) = Server::start(registry, &[]) else { continue };
        put(&registry, "/_etcd/registry/t/_config/size", "2");
        let (Some(one), Some(two)) = (Trial::of(Kind::Quorate), Trial::of(Kind::Reference)) else {
            return;
        };
        let mut first = found(&one, "one", &registry, "t");
        assert!(first.says("waiting for peers from discovery service"), "{}", first.log());
        let mut second = found(&two, "two", &registry, "t");
        assert!(first.serves() && second.serves(), "{}\n{}", first.log(), second.log());
        let all = [format!("one={}", one.peer_url()), format!("two={}", two.peer_url())];
        assert_eq!(members(&one), all);
        assert_eq!(members(&two), all);
        for text in [
            "Bootstrapping cluster using v3 discovery.",
            "register member itself successfully",
            "found peer from discovery service",
            "found all needed peers from discovery service",
            "discovery joined cluster successfully",
        ] {
            assert!(first.log().contains(text), "{text}: {}", first.log());
        }
        // There is no place for a third.
        for kind in [Kind::Quorate, Kind::Reference] {
            let Some(trial) = Trial::of(kind) else { continue };
            let mut third = found(&trial, "three", &registry, "t");
            assert_eq!(third.end().and_then(|status| status.code()), Some(1), "{}", third.log());
            for text in [
                "failed to join discovery cluster (discovery: cluster is full)",
                "failed to bootstrap; discovery token was already used",
                "do not reuse discovery token; generate a new one to bootstrap a cluster",
            ] {
                assert!(third.log().contains(text), "{kind:?}: {text}: {}", third.log());
            }
        }
    }
}

#[test]
fn a_registry_without_a_size_is_refused() {
    let Some(registry) = Server::start(Kind::Quorate, &[]) else { return };
    put(&registry, "/_etcd/registry/bad/_config/size", "many");
    for trial in Trial::both() {
        for (token, why) in [("bad", "size key is bad"), ("none", "size key not found")] {
            let mut member = found(&trial, "m", &registry, token);
            assert_eq!(member.end().and_then(|status| status.code()), Some(1), "{}", member.log());
            let text = format!("failed to join discovery cluster (discovery: {why})");
            assert!(member.log().contains(&text), "{:?}: {}", trial.kind, member.log());
        }
    }
}

#[test]
fn who_waits_for_others_can_be_ended_and_comes_back() {
    let Some(registry) = Server::start(Kind::Quorate, &[]) else { return };
    put(&registry, "/_etcd/registry/t/_config/size", "2");
    let (Some(one), Some(two)) = (Trial::of(Kind::Quorate), Trial::of(Kind::Quorate)) else {
        return;
    };
    let mut first = found(&one, "one", &registry, "t");
    assert!(first.says("waiting for peers from discovery service"), "{}", first.log());
    first.signal("TERM");
    let ended = first.end().expect("it ends");
    assert_eq!(ended.signal(), Some(15), "{}", first.log());
    // What it registered is still its place.
    let mut first = found(&one, "one", &registry, "t");
    let mut second = found(&two, "two", &registry, "t");
    assert!(first.serves() && second.serves(), "{}\n{}", first.log(), second.log());
    drop(first);
    // With a log, nobody is asked.
    let mut first = found(&one, "one", &registry, "t");
    assert!(first.says("discovery token is ignored"), "{}", first.log());
    assert!(first.serves(), "{}", first.log());
}

#[test]
fn one_way_to_a_cluster_is_enough() {
    let both = "multiple discovery or bootstrap flags are set";
    let half = "both --discovery-token and --discovery-endpoints must be set";
    for trial in Trial::both() {
        for (more, why) in [
            (&["--discovery-token=t", "--discovery-endpoints=http://127.0.0.1:1"][..], both),
            (&["--discovery-srv=example.invalid"], both),
            (&["--discovery-token=t"], half),
        ] {
            let mut member = trial.start(more);
            assert_eq!(member.end().and_then(|status| status.code()), Some(1), "{}", member.log());
            assert!(member.log().contains(why), "{:?} {more:?}: {}", trial.kind, member.log());
        }
    }
}
