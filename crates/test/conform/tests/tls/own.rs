//! Certificates that members make for themselves.

use conform::Kind;
use tls::{ClientTls, Notify, Spoken, TlsInfo};

use crate::World;
use crate::member::{Member, Ports, ask};
use authority::text;

async fn takes_over(first: Kind, second: Kind) {
    let world = World::new();
    let dir = world.path().join("member");
    let ports = Ports::new();
    let mut args = ports.urls("https", "https");
    args.push(format!("--initial-cluster=default=https://127.0.0.1:{}", ports.peer));
    args.extend(["--auto-tls", "--peer-auto-tls", "--client-cert-auth"].map(str::to_owned));
    let Some(mut member) = Member::start(first, &dir, ports, &args) else { return };
    member.wait_served();
    let file = |side: &str, name: &str| dir.join("fixtures").join(side).join(name);
    let files = ["client", "peer"].map(|side| (file(side, "cert.pem"), file(side, "key.pem")));
    let read = || files.clone().map(|(c, k)| [c, k].map(|p| std::fs::read_to_string(p).unwrap()));
    let made = read();
    for [cert, key] in &made {
        assert!(cert.starts_with("-----BEGIN CERTIFICATE-----\n"));
        assert!(key.starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    }
    // Trusted by itself; and though clients shall be asked for certificates, they are not.
    let info = TlsInfo { trusted_ca_file: text(&files[0].0), ..TlsInfo::default() };
    let client = ClientTls::new(&info, Spoken::Unsaid, Notify::none()).unwrap();
    assert_eq!(ask(member.client, &client, "127.0.0.1").await.as_deref(), Ok(crate::OK));
    member.stop();
    let Some(mut member) = Member::start(second, &dir, ports, &args) else { return };
    member.wait_served();
    assert_eq!(ask(member.client, &client, "127.0.0.1").await.as_deref(), Ok(crate::OK));
    assert_eq!(read(), made);
    assert!(!member.log().contains("automatically generate certificates"));
}

#[tokio::test]
async fn what_etcd_made_is_taken_over() {
    takes_over(Kind::Reference, Kind::Quorate).await;
}

#[tokio::test]
async fn etcd_takes_over_what_ours_made() {
    takes_over(Kind::Quorate, Kind::Reference).await;
}
