//! Clusters whose members speak TLS among themselves, one of them etcd's.

use conform::Kind;

use crate::member::{Member, Ports, etcdctl};
use crate::{World, files};
use authority::{Authority, Pair, Wish, text};

const KINDS: [Kind; 3] = [Kind::Quorate, Kind::Reference, Kind::Quorate];

/// Three members, started with these flags.
fn start(world: &World, flags: &[String]) -> Option<Vec<Member>> {
    start_each(world, KINDS, flags)
}

fn start_each(world: &World, kinds: [Kind; 3], flags: &[String]) -> Option<Vec<Member>> {
    let ports = kinds.map(|_| Ports::new());
    let name = |n: usize| format!("m{n}");
    let listed = ports.iter().enumerate();
    let listed = listed.map(|(n, p)| format!("{}=https://127.0.0.1:{}", name(n), p.peer));
    let listed = listed.collect::<Vec<_>>().join(",");
    let mut members = Vec::new();
    for (n, kind) in kinds.into_iter().enumerate() {
        let mut args = ports[n].urls("https", "https");
        args.push(format!("--name={}", name(n)));
        args.push(format!("--initial-cluster={listed}"));
        args.extend_from_slice(flags);
        members.push(Member::start(kind, &world.path().join(name(n)), ports[n], &args)?);
    }
    members.iter_mut().for_each(Member::wait_served);
    Some(members)
}

/// What is written through one is read through each.
fn write_and_read(members: &[Member], flags: &[String]) {
    let at = |n: usize| format!("--endpoints=https://127.0.0.1:{}", members[n].client);
    let run = |n: usize, words: &[&str]| {
        let words = words.iter().map(|&word| word.to_owned());
        let args: Vec<String> = [at(n)].into_iter().chain(flags.to_vec()).chain(words).collect();
        etcdctl(&args)
    };
    for n in 0..members.len() {
        let value = n.to_string();
        let Some(put) = run(n, &["put", "key", &value]) else { return };
        assert_eq!(put.as_deref(), Ok("OK"), "{}", members[n].log());
        for reader in 0..members.len() {
            let get = run(reader, &["get", "key", "--print-value-only"]).expect("it was there");
            assert_eq!(get.as_deref(), Ok(value.as_str()));
        }
    }
}

fn client_flags(world: &World, pair: &Pair) -> Vec<String> {
    vec![
        format!("--cacert={}", world.ca),
        format!("--cert={}", text(&pair.cert)),
        format!("--key={}", text(&pair.key)),
    ]
}

#[test]
fn members_of_both_kinds_show_each_other_certificates() {
    let world = World::new();
    let pair = world.pair("member", Wish::new("member", &["127.0.0.1", "localhost"]));
    let mut flags = [files("", &pair), files("peer-", &pair)].concat();
    let ca = &world.ca;
    flags.extend([format!("--trusted-ca-file={ca}"), format!("--peer-trusted-ca-file={ca}")]);
    flags.extend(["--client-cert-auth", "--peer-client-cert-auth"].map(str::to_owned));
    flags.push("--peer-cert-allowed-cn=member,other".to_owned());
    let Some(members) = start(&world, &flags) else { return };
    write_and_read(&members, &client_flags(&world, &pair));
    for member in &members {
        assert!(!member.log().contains("rejected connection on peer"), "{}", member.log());
    }
}

#[test]
fn members_of_both_kinds_make_certificates_for_each_other() {
    let world = World::new();
    let pair = world.pair("client", Wish::new("", &["127.0.0.1"]));
    let flags = [files("", &pair), vec!["--peer-auto-tls".to_owned()]].concat();
    let Some(members) = start(&world, &flags) else { return };
    write_and_read(&members, &client_flags(&world, &pair));
}

/// Who is not on the list, or comes from elsewhere than its certificate says, gets nowhere.
#[tokio::test]
async fn strangers_are_kept_from_the_peers_ports_alike() {
    let world = World::new();
    let pair = world.pair("member", Wish::new("member", &["127.0.0.1"]));
    let mut flags = files("peer-", &pair);
    flags.extend(files("", &pair));
    flags.push(format!("--peer-trusted-ca-file={}", world.ca));
    flags.push("--peer-client-cert-auth".to_owned());
    let mut verdicts = Vec::new();
    for kind in [Kind::Reference, Kind::Quorate] {
        let ports = Ports::new();
        let mut args = ports.urls("http", "https");
        args.push(format!("--initial-cluster=default=https://127.0.0.1:{}", ports.peer));
        args.extend_from_slice(&flags);
        let dir = world.path().join(format!("{kind:?}"));
        let Some(mut member) = Member::start(kind, &dir, ports, &args) else { return };
        member.wait_served();
        let mut verdict = Vec::new();
        for hosts in [&["127.0.0.1"][..], &["10.1.1.1"], &["localhost"], &["elsewhere.invalid"]] {
            let shown = world.pair("stranger", Wish::new("", hosts));
            let client = world.client(Some(&shown), tls::Spoken::Unsaid);
            let answer = crate::ask(member.peer, &client, "127.0.0.1").await;
            verdict.push((hosts.to_vec(), answer));
        }
        member.wait_log("rejected connection on peer endpoint");
        verdicts.push(verdict);
    }
    assert_eq!(verdicts[0], verdicts[1]);
    assert_eq!(verdicts[0].iter().filter(|(_, answer)| answer.is_ok()).count(), 2);
}

/// The bundle gets a second authority, everybody a certificate of it, and the first one goes, while
/// each member is asked all the time over new connections for what a majority must confirm. Ours
/// alone: etcd reads bundles once.
#[tokio::test]
async fn another_authority_comes_without_a_failed_request() {
    let world = World::new();
    let next = Authority::root("next");
    let wish = || Wish::new("member", &["127.0.0.1"]);
    let pair = world.pair("member", wish());
    let bundle = world.path().join("ca.crt");
    let mut flags = [files("", &pair), files("peer-", &pair)].concat();
    flags.extend([format!("--trusted-ca-file={}", world.ca), "--client-cert-auth".to_owned()]);
    flags.push(format!("--peer-trusted-ca-file={}", world.ca));
    flags.push("--peer-client-cert-auth".to_owned());
    let mut members = start_each(&world, [Kind::Quorate; 3], &flags).expect("ours is built");
    let asked = async |members: &[Member]| {
        // What the files say by now, as a client does that begins.
        let client = world.client(Some(&pair), tls::Spoken::Unsaid);
        for member in members {
            let answer = crate::ask(member.client, &client, "127.0.0.1").await;
            assert_eq!(answer.as_deref(), Ok(crate::OK), "{}", member.log());
        }
    };
    // Clients and peers have a reader of files each.
    let seen = |member: &Member| member.log().matches("loaded changed TLS files").count();
    let mut before: Vec<usize> = members.iter().map(seen).collect();
    for step in ["both", "certificates", "next alone"] {
        match step {
            "both" => std::fs::write(&bundle, world.root.pem.clone() + &next.pem).unwrap(),
            "certificates" => drop(wish().by(&next, world.path(), "member")),
            _ => std::fs::write(&bundle, &next.pem).unwrap(),
        }
        asked(&members).await;
        while members.iter().zip(&before).any(|(member, count)| seen(member) <= *count) {
            asked(&members).await;
        }
        before = members.iter().map(seen).collect();
    }
    // Who starts again has nothing but the new ones to show and to trust.
    for n in 0..members.len() {
        members[n].restart();
        members[n].wait_served();
        let client = world.client(Some(&pair), tls::Spoken::Unsaid);
        while crate::ask(members[n].client, &client, "127.0.0.1").await.as_deref() != Ok(crate::OK)
        {
        }
    }
    asked(&members).await;
}
