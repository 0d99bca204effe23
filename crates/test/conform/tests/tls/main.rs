//! TLS of a member, beside etcd's: who is let in, which flags are refused, which certificates are
//! made, and clusters whose members are of both kinds.
//!
//! The client is the same for both servers and verifies as Go's does; what it says of a connection
//! must not depend on the server. Certificates are changed under running servers, so that few have
//! to be started.

mod clients;
mod cluster;
mod crowd;
mod flags;
mod json;
mod member;
mod own;
mod revoked;
mod users;
mod web;

use std::path::Path;

use authority::{Authority, Pair, Wish, text};
use conform::Kind;
use member::{Member, Ports, ask};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use tempfile::TempDir;
use tls::{ClientTls, Notify, Spoken, TlsInfo};

const BOTH: [Kind; 2] = [Kind::Reference, Kind::Quorate];

/// An authority that both ends trust, and files.
struct World {
    dir: TempDir,
    root: Authority,
    ca: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Authority::root("root");
        std::fs::write(dir.path().join("ca.crt"), &root.pem).unwrap();
        let ca = text(&dir.path().join("ca.crt"));
        Self { dir, root, ca }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn pair(&self, name: &str, wish: Wish) -> Pair {
        wish.by(&self.root, self.path(), name)
    }

    /// A client that trusts the authority and shows a certificate, if there is one.
    fn client(&self, shown: Option<&Pair>, spoken: Spoken) -> ClientTls {
        self.client_of(TlsInfo::default(), shown, spoken)
    }

    fn client_of(&self, info: TlsInfo, shown: Option<&Pair>, spoken: Spoken) -> ClientTls {
        let (cert_file, key_file) =
            shown.map_or_else(Default::default, |pair| (text(&pair.cert), text(&pair.key)));
        let info = TlsInfo { cert_file, key_file, trusted_ca_file: self.ca.clone(), ..info };
        ClientTls::new(&info, spoken, Notify::none()).unwrap()
    }
}

/// Flags of a pair of files.
fn files(prefix: &str, pair: &Pair) -> Vec<String> {
    vec![
        format!("--{prefix}cert-file={}", pair.cert.display()),
        format!("--{prefix}key-file={}", pair.key.display()),
    ]
}

/// Starts a lone member of this kind that serves clients with a certificate.
fn serve(kind: Kind, world: &World, pair: &Pair, more: &[String]) -> Option<Member> {
    let ports = Ports::new();
    let mut args = ports.urls("https", "http");
    args.push(format!("--initial-cluster=default=http://127.0.0.1:{}", ports.peer));
    args.extend(files("", pair));
    args.extend_from_slice(more);
    let mut member = Member::start(kind, &world.path().join(format!("{kind:?}")), ports, &args)?;
    member.wait_served();
    Some(member)
}

/// Asks until the answer is not the one from before: the server has seen the new files.
async fn settle(port: u16, client: &ClientTls, host: &str) -> Result<String, String> {
    let first = ask(port, client, host).await;
    // Ours looks at its files every so often.
    tokio::time::sleep(tls::LOOK_INTERVAL).await;
    let second = ask(port, client, host).await;
    if first == second { first } else { second }
}

const OK: &str = "HTTP/1.1 200 OK";

/// A time in a text differs from run to run.
fn timeless(result: Result<String, String>) -> Result<String, String> {
    result.map_err(|text| text.split(": current time").next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn certificates_of_servers_are_shown_and_judged_alike() {
    let good = || Wish::new("", &["localhost", "127.0.0.1"]);
    let mut verdicts = Vec::new();
    for kind in BOTH {
        let world = World::new();
        let middle = Authority::below(&world.root, "middle");
        let stranger = Authority::root("stranger");
        let pair = world.pair("server", good());
        let Some(member) = serve(kind, &world, &pair, &[]) else { return };
        let client = world.client(None, Spoken::Unsaid);
        let mut verdict = Vec::new();
        let cells: [(&str, Wish, &Authority); 14] = [
            ("P-256", good(), &world.root),
            ("RSA", good().keyed(&rcgen::PKCS_RSA_SHA256), &world.root),
            ("P-521", good().keyed(&rcgen::PKCS_ECDSA_P521_SHA512), &world.root),
            ("Ed25519", good().keyed(&rcgen::PKCS_ED25519), &world.root),
            ("expired", good().expired(), &world.root),
            ("not yet valid", good().not_yet_valid(), &world.root),
            ("wildcard", Wish::new("", &["*.example.com"]), &world.root),
            ("wildcard within a name", Wish::new("", &["a*.example.com"]), &world.root),
            ("other names", Wish::new("", &["other"]), &world.root),
            ("common name only", Wish::new("localhost", &[]), &world.root),
            ("address only", Wish::new("", &["127.0.0.1"]), &world.root),
            ("intermediate", good(), &middle),
            ("for clients", good().only_for(ClientAuth), &world.root),
            ("stranger", good(), &stranger),
        ];
        for (name, wish, by) in cells {
            wish.by(by, world.path(), "server");
            let hosts = ["localhost", "127.0.0.1", "abc.example.com", "a.b.example.com"];
            for host in hosts {
                let result = timeless(settle(member.client, &client, host).await);
                verdict.push((name, host, result));
            }
        }
        verdicts.push(verdict);
    }
    for (theirs, ours) in verdicts[0].iter().zip(&verdicts[1]) {
        assert_eq!(theirs, ours);
    }
    let good = verdicts[0].iter().filter(|(.., result)| result.as_deref() == Ok(OK));
    assert_eq!(good.count(), 12, "{:?}", verdicts[0]);
}

#[tokio::test]
async fn clients_are_let_in_alike() {
    let mut verdicts = Vec::new();
    for kind in BOTH {
        let world = World::new();
        let server = world.pair("server", Wish::new("", &["localhost"]));
        let crl = world.path().join("crl");
        std::fs::write(&crl, world.root.revokes(&[666])).unwrap();
        let asking = [
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={}", world.ca),
            format!("--client-crl-file={}", crl.display()),
        ];
        let Some(member) = serve(kind, &world, &server, &asking) else { return };
        let middle = Authority::below(&world.root, "middle");
        let stranger = Authority::root("root");
        let ann = || Wish::new("ann", &["10.1.1.1"]);
        let shown = [
            ("none", None),
            ("good", Some(world.pair("good", ann()))),
            ("for clients", Some(world.pair("client", ann().only_for(ClientAuth)))),
            ("for servers", Some(world.pair("unfit", ann().only_for(ServerAuth)))),
            ("expired", Some(world.pair("expired", ann().expired()))),
            ("not yet valid", Some(world.pair("early", ann().not_yet_valid()))),
            ("revoked", Some(world.pair("revoked", ann().serial(666)))),
            ("stranger", Some(ann().by(&stranger, world.path(), "stranger"))),
            ("intermediate", Some(ann().by(&middle, world.path(), "middle"))),
            ("RSA", Some(world.pair("rsa", ann().keyed(&rcgen::PKCS_RSA_SHA256)))),
            ("Ed25519", Some(world.pair("ed", ann().keyed(&rcgen::PKCS_ED25519)))),
        ];
        let mut verdict = Vec::new();
        for (name, pair) in &shown {
            for version in ["TLS1.2", "TLS1.3"] {
                let info = TlsInfo {
                    min_version: version.to_owned(),
                    max_version: version.to_owned(),
                    ..TlsInfo::default()
                };
                let client = world.client_of(info, pair.as_ref(), Spoken::Unsaid);
                let result = ask(member.client, &client, "localhost").await;
                // Of a missing certificate Go tells clients of TLS 1.2 by the alert that was there
                // before one was made for it.
                let result = result.map_err(|e| match (*name, version) {
                    ("none", "TLS1.2") => e.replace("handshake failure", "certificate required"),
                    _ => e,
                });
                verdict.push((*name, version, result));
            }
        }
        verdicts.push(verdict);
    }
    for (theirs, ours) in verdicts[0].iter().zip(&verdicts[1]) {
        assert_eq!(theirs, ours);
    }
    let good = verdicts[0].iter().filter(|(.., result)| result.as_deref() == Ok(OK)).count();
    assert_eq!(good, 10, "{:?}", verdicts[0]);
}

#[tokio::test]
async fn versions_and_protocols_are_agreed_on_alike() {
    let mut verdicts = Vec::new();
    for kind in BOTH {
        let world = World::new();
        let pair = world.pair("server", Wish::new("", &["localhost"]));
        let only = ["--tls-min-version=TLS1.3".to_owned()];
        let Some(member) = serve(kind, &world, &pair, &only) else { return };
        let mut verdict = Vec::new();
        for version in ["TLS1.2", "TLS1.3"] {
            for spoken in [Spoken::Unsaid, Spoken::Http2] {
                let info = TlsInfo { max_version: version.to_owned(), ..TlsInfo::default() };
                let client = world.client_of(info, None, spoken);
                // Who agreed on HTTP/2 and speaks HTTP/1.1 gets no answer in it.
                let result = ask(member.client, &client, "localhost").await.map(|line| line == OK);
                let result = result.map_err(|e| if e == "EOF" { "no answer".into() } else { e });
                verdict.push((version, spoken, result == Ok(true), result.err()));
            }
        }
        verdicts.push(verdict);
    }
    assert_eq!(verdicts[0][0], verdicts[1][0]);
    assert_eq!(verdicts[0][1], verdicts[1][1]);
    let served = |n: usize| verdicts[n].iter().map(|(.., ok, _)| *ok).collect::<Vec<_>>();
    assert_eq!(served(0), served(1));
    assert_eq!(served(0), [false, false, true, false]);
}

/// A server that asks for certificates, one after another with other lists of names.
#[tokio::test]
async fn lists_of_names_let_in_alike() {
    let mut verdicts = Vec::new();
    for kind in BOTH {
        let world = World::new();
        let server = world.pair("server", Wish::new("", &["localhost"]));
        let asking = [
            format!("--trusted-ca-file={}", world.ca),
            "--client-cert-allowed-hostname=a.example.com,*.example.org".to_owned(),
        ];
        let Some(member) = serve(kind, &world, &server, &asking) else { return };
        let mut verdict = Vec::new();
        for names in [
            &["a.example.com"][..],
            &["*.example.com"],
            &["b.example.com"],
            &["x.example.org"],
            &["*.example.org"],
            &[],
        ] {
            let pair = world.pair("named", Wish::new("a.example.com", names));
            let client = world.client(Some(&pair), Spoken::Unsaid);
            verdict.push((names.to_vec(), ask(member.client, &client, "localhost").await));
        }
        verdicts.push(verdict);
    }
    assert_eq!(verdicts[0], verdicts[1]);
    let good = verdicts[0].iter().filter(|(_, result)| result.as_deref() == Ok(OK)).count();
    assert_eq!(good, 3, "{:?}", verdicts[0]);
}

/// Ours alone: etcd fails connections while a file is broken, and knows no more of it then.
#[tokio::test]
async fn a_broken_file_is_told_and_what_was_there_serves_on() {
    let world = World::new();
    let pair = world.pair("server", Wish::new("", &["localhost"]));
    let Some(mut member) = serve(Kind::Quorate, &world, &pair, &[]) else { return };
    let client = world.client(None, Spoken::Unsaid);
    std::fs::write(&pair.key, "nonsense").unwrap();
    while !member.log().contains("failed to load changed TLS files") {
        assert_eq!(ask(member.client, &client, "localhost").await.as_deref(), Ok(OK));
    }
    world.pair("server", Wish::new("", &["second"]));
    while ask(member.client, &client, "second").await.is_err() {}
    member.wait_log("loaded changed TLS files");
}
