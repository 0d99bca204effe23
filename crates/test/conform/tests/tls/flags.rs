//! Flags that contradict themselves, or name what is not there.

use conform::Kind;

use crate::member::{Member, Ports};
use crate::{BOTH, World, files};
use authority::{Wish, text};

/// What a member of this kind says of flags on which it does not start.
fn refused(kind: Kind, world: &World, schemes: (&str, &str), more: &[String]) -> Option<Told> {
    let ports = Ports::new();
    let mut args = ports.urls(schemes.0, schemes.1);
    args.push(format!("--initial-cluster=default={}://127.0.0.1:{}", schemes.1, ports.peer));
    args.extend_from_slice(more);
    let dir = tempfile::tempdir_in(world.path()).unwrap();
    let mut member = Member::start(kind, &dir.path().join("member"), ports, &args)?;
    let (code, text) = member.refused();
    let text = text.replace(&ports.client.to_string(), "CLIENT");
    Some((code, text.replace(&ports.peer.to_string(), "PEER")))
}

/// An exit code and the last line.
type Told = (Option<i32>, String);

#[test]
fn wrong_flags_are_refused_alike() {
    let world = World::new();
    let one = world.pair("one", Wish::new("", &["localhost"]));
    let two = world.pair("two", Wish::new("", &["localhost"]));
    let (cert, key) = (text(&one.cert), text(&one.key));
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    let good = || files("", &one);
    let with = |mut flags: Vec<String>, more: &[String]| {
        flags.extend_from_slice(more);
        flags
    };
    let clients: Vec<Vec<String>> = vec![
        vec![],
        vec![flag("cert-file", &cert)],
        vec![flag("key-file", &key)],
        vec![flag("cert-file", "/nowhere"), flag("key-file", &key)],
        vec![flag("cert-file", &cert), flag("key-file", &text(&two.key))],
        vec![flag("cert-file", &key), flag("key-file", &cert)],
        with(good(), &[flag("client-cert-file", &cert)]),
        with(good(), &[flag("trusted-ca-file", "/nowhere")]),
        with(good(), &[flag("cipher-suites", "NONE")]),
        with(good(), &[flag("cipher-suites", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")]),
        with(good(), &[flag("tls-min-version", "TLS1.1")]),
        with(good(), &[flag("tls-min-version", "TLS1.3"), flag("tls-max-version", "TLS1.2")]),
        with(
            good(),
            &[
                flag("tls-min-version", "TLS1.3"),
                flag("cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
            ],
        ),
        vec![flag("auto-tls", "true"), flag("self-signed-cert-validity", "0")],
    ];
    let peer = |prefix: &str, value: &str| flag(&format!("peer-{prefix}"), value);
    let peers: Vec<Vec<String>> = vec![
        vec![],
        vec![peer("cert-file", &cert)],
        vec![peer("cert-file", &cert), peer("key-file", &text(&two.key))],
        with(files("peer-", &one), &[peer("trusted-ca-file", "/nowhere")]),
        with(
            files("peer-", &one),
            &[peer("cert-allowed-cn", "a"), peer("cert-allowed-hostname", "b")],
        ),
        vec![peer("auto-tls", "true"), flag("self-signed-cert-validity", "0")],
    ];
    let others: Vec<Vec<String>> = vec![
        vec![flag("listen-metrics-urls", "https://127.0.0.1:0")],
        vec![flag("listen-metrics-urls", "http://example.com:1")],
        vec![flag("listen-client-http-urls", "https://127.0.0.1:1")],
    ];
    let cases = clients.into_iter().map(|flags| (("https", "http"), flags));
    let cases = cases.chain(peers.into_iter().map(|flags| (("http", "https"), flags)));
    let cases = cases.chain(others.into_iter().map(|flags| (("http", "http"), flags)));
    let cases: Vec<_> = cases.collect();
    std::thread::scope(|scope| {
        // etcd comes up before it looks at some of these: a few at a time.
        for part in cases.chunks(cases.len().div_ceil(3)) {
            let world = &world;
            scope.spawn(move || {
                for (schemes, flags) in part {
                    let told = BOTH.map(|kind| refused(kind, world, *schemes, flags));
                    let [Some(theirs), Some(ours)] = told else { return };
                    assert_eq!(theirs, ours, "{schemes:?} {flags:?}");
                    assert_eq!(ours.0, Some(1));
                }
            });
        }
    });
}

/// What etcd takes and ours does not (COMPAT.md).
#[test]
fn what_cannot_be_kept_is_refused() {
    let world = World::new();
    let one = world.pair("one", Wish::new("", &["localhost"]));
    let told = |more: &[String]| {
        let flags = [&files("", &one)[..], more].concat();
        refused(Kind::Quorate, &world, ("https", "http"), &flags).expect("ours is there")
    };
    let suite = "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,\
                 TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA";
    let (code, text) = told(&[suite.to_owned()]);
    assert_eq!(code, Some(1));
    let why = "\"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\" is not implemented in Quorate";
    assert!(text.contains(why), "{text}");
    let crl = world.path().join("crl");
    let asking =
        [format!("--trusted-ca-file={}", world.ca), format!("--client-crl-file={}", crl.display())];
    let (code, text) = told(&asking);
    assert_eq!(code, Some(1));
    assert!(text.contains("no such file or directory"), "{text}");
    std::fs::write(&crl, authority::Authority::root("other").revokes(&[1])).unwrap();
    let (_, text) = told(&asking);
    assert!(text.contains("crl of an issuer that is not trusted"), "{text}");
}
