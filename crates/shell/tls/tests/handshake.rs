//! Who is let in, and what is said to who is not.

use std::path::Path;

use authority::{Authority, Pair, Wish, text};
use rcgen::ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
use tempfile::TempDir;
use tls::{
    ClientAddress, ClientTls, Notify, Reload, ServerTls, Session, Spoken, TlsInfo, error_text,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

    fn pair(&self, name: &str, wish: Wish) -> Pair {
        wish.by(&self.root, self.dir.path(), name)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A server that asks for certificates.
    fn asking(&self) -> TlsInfo {
        let pair = self.pair("asking", Wish::new("", &["localhost"]));
        TlsInfo { trusted_ca_file: self.ca.clone(), client_cert_auth: true, ..serves(&pair) }
    }

    fn trusting(&self) -> TlsInfo {
        TlsInfo { trusted_ca_file: self.ca.clone(), ..TlsInfo::default() }
    }

    fn showing(&self, pair: &Pair) -> TlsInfo {
        TlsInfo { cert_file: text(&pair.cert), key_file: text(&pair.key), ..self.trusting() }
    }
}

fn serves(pair: &Pair) -> TlsInfo {
    TlsInfo { cert_file: text(&pair.cert), key_file: text(&pair.key), ..TlsInfo::default() }
}

fn server(info: &TlsInfo) -> ServerTls {
    ServerTls::new(info, ClientAddress::Any, Notify::none()).unwrap()
}

fn client(info: &TlsInfo, spoken: Spoken) -> ClientTls {
    ClientTls::new(info, spoken, Notify::none()).unwrap()
}

/// What both ends say of a connection: the server of its session, the client of a byte that it got.
async fn meet(
    server: &ServerTls,
    client: &ClientTls,
    host: &str,
) -> (Result<Session, String>, Result<(), String>) {
    let (one, other) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let from = "127.0.0.1:9".parse().unwrap();
        let (mut stream, session) =
            server.accept(one, Some(from)).await.map_err(|rejected| rejected.text)?;
        stream.write_all(b"x").await.map_err(|e| error_text(&e))?;
        stream.flush().await.map_err(|e| error_text(&e))?;
        let _ = stream.read(&mut [0]).await;
        Ok(session)
    };
    let dial = async {
        let mut stream = client.connect(other, host).await.map_err(|e| error_text(&e))?;
        stream.read_exact(&mut [0]).await.map_err(|e| error_text(&e))?;
        Ok(())
    };
    tokio::join!(serve, dial)
}

async fn meets(
    server_info: &TlsInfo,
    client_info: &TlsInfo,
) -> (Result<Session, String>, Result<(), String>) {
    meet(&server(server_info), &client(client_info, Spoken::Http2), "localhost").await
}

/// What the client says of a server with this certificate.
async fn client_of(world: &World, pair: &Pair, host: &str) -> Result<(), String> {
    let client = client(&world.trusting(), Spoken::Http2);
    meet(&server(&serves(pair)), &client, host).await.1
}

#[tokio::test]
async fn servers_are_believed_as_go_believes_them() {
    let world = World::new();
    let good = |name: &str| Wish::new(name, &["localhost", "127.0.0.1"]);
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
    ] {
        let pair = world.pair("good", good("").keyed(algorithm));
        assert_eq!(client_of(&world, &pair, "localhost").await, Ok(()), "{algorithm:?}");
        assert_eq!(client_of(&world, &pair, "127.0.0.1").await, Ok(()));
    }
    let refusal = |wish: Wish, host: &'static str| {
        let pair = world.pair("refused", wish);
        let world = &world;
        async move { client_of(world, &pair, host).await.unwrap_err() }
    };
    let because = |why: &str| format!("tls: failed to verify certificate: x509: {why}");
    let expired = refusal(good("").expired(), "localhost").await;
    assert!(expired.starts_with(&because("certificate has expired or is not yet valid: current")));
    assert_eq!(
        refusal(Wish::new("", &["other"]), "localhost").await,
        because("certificate is valid for other, not localhost")
    );
    assert_eq!(
        refusal(Wish::new("localhost", &[]), "localhost").await,
        because("certificate relies on legacy Common Name field, use SANs instead")
    );
    assert_eq!(
        refusal(Wish::new("", &["localhost"]), "127.0.0.1").await,
        because("cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs")
    );
    assert_eq!(
        refusal(good("").only_for(ClientAuth), "localhost").await,
        because("certificate specifies an incompatible key usage")
    );
    for usage in [ServerAuth, Any] {
        let pair = world.pair("usage", good("").only_for(usage));
        assert_eq!(client_of(&world, &pair, "localhost").await, Ok(()));
    }
    let other = Authority::root("other");
    let pair = good("").by(&other, world.path(), "stranger");
    assert_eq!(
        client_of(&world, &pair, "localhost").await.unwrap_err(),
        because("certificate signed by unknown authority")
    );
}

#[tokio::test]
async fn a_chain_needs_what_stands_between() {
    let world = World::new();
    let middle = Authority::below(&world.root, "middle");
    let pair = Wish::new("", &["localhost"]).by(&middle, world.path(), "leaf");
    let chain = std::fs::read_to_string(&pair.cert).unwrap();
    std::fs::write(&pair.cert, chain.replace(&middle.pem, "")).unwrap();
    let refused = client_of(&world, &pair, "localhost").await.unwrap_err();
    assert!(refused.ends_with("x509: certificate signed by unknown authority"), "{refused}");
    std::fs::write(&pair.cert, chain).unwrap();
    assert_eq!(client_of(&world, &pair, "localhost").await, Ok(()));
}

#[tokio::test]
async fn any_of_a_bundle_is_trusted() {
    let world = World::new();
    let second = Authority::root("second");
    std::fs::write(&world.ca, format!("{}\n{}", second.pem, world.root.pem)).unwrap();
    for root in [&world.root, &second] {
        let pair = Wish::new("", &["localhost"]).by(root, world.path(), "one");
        assert_eq!(client_of(&world, &pair, "localhost").await, Ok(()));
    }
}

#[tokio::test]
async fn a_certificate_made_by_its_owner_can_be_trusted_itself() {
    let world = World::new();
    let dir = world.path().join("fixtures");
    let made = tls::self_cert(&dir, &["localhost:2379".into(), "127.0.0.1:1".into()], 1).unwrap();
    assert!(made.made.is_some());
    let trusting = TlsInfo { trusted_ca_file: made.info.cert_file.clone(), ..TlsInfo::default() };
    assert_eq!(meets(&made.info, &trusting).await.1, Ok(()));
    // As members do among themselves.
    assert_eq!(meets(&made.info, &made.info).await.1, Ok(()));
    let again = tls::self_cert(&dir, &["elsewhere:1".into()], 1).unwrap();
    assert_eq!((again.info, again.made), (made.info, None));
}

#[tokio::test]
async fn clients_are_let_in_as_go_lets_them_in() {
    let world = World::new();
    let asking = world.asking();
    let (served, dialed) = meets(&asking, &world.trusting()).await;
    assert_eq!(served, Err("tls: client didn't provide a certificate".to_owned()));
    assert_eq!(dialed, Err("remote error: tls: certificate required".to_owned()));

    let good = world.pair("good", Wish::new("ann", &[]));
    let (served, dialed) = meets(&asking, &world.showing(&good)).await;
    assert_eq!(dialed, Ok(()));
    assert_eq!(served.unwrap().common_name.as_deref(), Some("ann"));

    let stranger = Wish::new("ann", &[]).by(&Authority::root("x"), world.path(), "stranger");
    let (served, dialed) = meets(&asking, &world.showing(&stranger)).await;
    assert_eq!(
        served.unwrap_err(),
        "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    assert_eq!(dialed.unwrap_err(), "remote error: tls: unknown certificate authority");

    let expired = world.pair("expired", Wish::new("ann", &[]).expired());
    let (served, dialed) = meets(&asking, &world.showing(&expired)).await;
    assert!(served.unwrap_err().contains("x509: certificate has expired or is not yet valid: "));
    assert_eq!(dialed.unwrap_err(), "remote error: tls: expired certificate");

    let unfit = world.pair("unfit", Wish::new("ann", &[]).only_for(ServerAuth));
    let (served, dialed) = meets(&asking, &world.showing(&unfit)).await;
    assert_eq!(
        served.unwrap_err(),
        "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage"
    );
    assert_eq!(dialed.unwrap_err(), "remote error: tls: bad certificate");
}

#[tokio::test]
async fn the_last_common_name_counts() {
    let world = World::new();
    let wish = Wish::new("first", &[]).with(|params| {
        let name = rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]);
        params.distinguished_name.push(name, "last");
    });
    let pair = world.pair("two", wish);
    let (served, _) = meets(&world.asking(), &world.showing(&pair)).await;
    assert_eq!(served.unwrap().common_name.as_deref(), Some("last"));
}

#[tokio::test]
async fn names_that_are_allowed_are_let_in() {
    let world = World::new();
    let ann = world.pair("ann", Wish::new("ann", &["ann.example.com"]));
    let by_name = |names: &[&str]| TlsInfo {
        allowed_cns: names.iter().map(|&n| n.to_owned()).collect(),
        ..world.asking()
    };
    let by_host = |names: &[&str]| TlsInfo {
        allowed_hostnames: names.iter().map(|&n| n.to_owned()).collect(),
        ..world.asking()
    };
    for (info, expected) in [
        (by_name(&["bob", "ann"]), true),
        (by_name(&["bob"]), false),
        (by_host(&["bob", "ann.example.com"]), true),
        (by_host(&["ann"]), false),
    ] {
        let (served, dialed) = meets(&info, &world.showing(&ann)).await;
        assert_eq!(dialed.is_ok(), expected, "{info:?}");
        if !expected {
            assert_eq!(served.unwrap_err(), "client certificate authentication failed");
            assert_eq!(dialed.unwrap_err(), "remote error: tls: bad certificate");
        }
    }
}

#[tokio::test]
async fn addresses_of_clients_are_compared_where_that_is_asked_for() {
    let world = World::new();
    let checked = ServerTls::new(&world.asking(), ClientAddress::Checked, Notify::none()).unwrap();
    for (hosts, expected) in [
        (&["127.0.0.1"][..], Ok(())),
        (&["localhost"], Ok(())),
        (&[], Ok(())),
        (&["10.1.1.1"], Err("x509: certificate is valid for 10.1.1.1, not 127.0.0.1")),
    ] {
        let pair = world.pair("from", Wish::new("", hosts));
        let client = client(&world.showing(&pair), Spoken::Unsaid);
        let served = meet(&checked, &client, "localhost").await.0.map(|_| ());
        assert_eq!(served, expected.map_err(str::to_owned), "{hosts:?}");
    }
}

/// A client that takes up sessions, which ours does not.
fn resuming(world: &World, pair: &Pair) -> tokio_rustls::TlsConnector {
    use pki_types::pem::PemObject;
    use pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&world.ca).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(&pair.cert).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    std::sync::Arc::new(config).into()
}

/// What the server says of a connection of such a client.
async fn served_to(
    server: &ServerTls,
    client: &tokio_rustls::TlsConnector,
) -> Result<Session, String> {
    let (one, other) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let (mut stream, session) = server.accept(one, None).await.map_err(|r| r.text)?;
        stream.write_all(b"x").await.map_err(|e| error_text(&e))?;
        stream.flush().await.map_err(|e| error_text(&e))?;
        let _ = stream.read(&mut [0]).await;
        Ok(session)
    };
    let dial = async {
        let mut stream = client.connect("localhost".try_into().unwrap(), other).await?;
        stream.read_exact(&mut [0]).await
    };
    tokio::join!(serve, dial).0
}

#[tokio::test]
async fn what_was_taken_back_is_refused_also_when_a_session_is_taken_up() {
    let world = World::new();
    let crl = world.path().join("crl");
    std::fs::write(&crl, world.root.revokes(&[7])).unwrap();
    let info = TlsInfo { crl_file: text(&crl), ..world.asking() };
    let server = server(&info);
    let revoked =
        client(&world.showing(&world.pair("7", Wish::new("", &[]).serial(7))), Spoken::Http2);
    let (served, _) = meet(&server, &revoked, "localhost").await;
    assert_eq!(served.unwrap_err(), "transport: certificate serial 07 revoked");
    let good = resuming(&world, &world.pair("8", Wish::new("", &[]).serial(8)));
    assert!(!served_to(&server, &good).await.unwrap().resumed);
    assert!(served_to(&server, &good).await.unwrap().resumed);
    std::fs::write(&crl, world.root.revokes(&[7, 8])).unwrap();
    loop {
        if let Err(text) = served_to(&server, &good).await {
            assert_eq!(text, "transport: certificate serial 08 revoked");
            return;
        }
    }
}

#[tokio::test]
async fn lists_of_others_and_broken_ones_are_refused() {
    let world = World::new();
    let crl = world.path().join("crl");
    let info = TlsInfo { crl_file: text(&crl), ..world.asking() };
    let load = || ServerTls::new(&info, ClientAddress::Any, Notify::none()).map(|_| ());
    std::fs::write(&crl, Authority::root("other").revokes(&[1])).unwrap();
    assert!(load().unwrap_err().0.contains("crl of an issuer that is not trusted: CN=other"));
    // Another with the same name.
    std::fs::write(&crl, Authority::root("root").revokes(&[1])).unwrap();
    assert!(load().unwrap_err().0.contains("crl whose signature is not its issuer's"));
    std::fs::write(&crl, b"no list").unwrap();
    assert!(load().unwrap_err().0.contains("x509: malformed crl"));
    let der = world.root.revokes(&[1]);
    let base64 = data_encoding::BASE64.encode(&der);
    std::fs::write(&crl, format!("-----BEGIN X509 CRL-----\n{base64}\n-----END X509 CRL-----\n"))
        .unwrap();
    assert_eq!(load(), Ok(()));
}

#[tokio::test]
async fn files_that_change_count_at_once_unless_they_are_broken() {
    let world = World::new();
    let (told, heard) = std::sync::mpsc::channel();
    let pair = world.pair("changing", Wish::new("", &["first"]));
    let told = std::sync::Mutex::new(told);
    let notify = Notify::new(move |reload| {
        let kept = matches!(reload, Reload::Kept { .. });
        told.lock().unwrap().send(kept).unwrap();
    });
    let server = ServerTls::new(&serves(&pair), ClientAddress::Any, notify).unwrap();
    let client = client(&world.trusting(), Spoken::Http2);
    assert_eq!(meet(&server, &client, "first").await.1, Ok(()));
    std::fs::write(&pair.key, "nothing").unwrap();
    let kept = loop {
        assert_eq!(meet(&server, &client, "first").await.1, Ok(()));
        if let Ok(kept) = heard.try_recv() {
            break kept;
        }
    };
    assert!(kept, "the broken key was taken");
    world.pair("changing", Wish::new("", &["second"]));
    while meet(&server, &client, "second").await.1.is_err() {}
    assert!(meet(&server, &client, "first").await.1.is_err());
}

#[tokio::test]
async fn protocols_are_agreed_on_as_by_go() {
    let world = World::new();
    let pair = world.pair("good", Wish::new("", &["localhost"]));
    let server = server(&serves(&pair));
    let http2 = client(&world.trusting(), Spoken::Http2);
    let (served, _) = meet(&server, &http2, "localhost").await;
    assert!(served.unwrap().http2);
    let unsaid = client(&world.trusting(), Spoken::Unsaid);
    let (served, _) = meet(&server, &unsaid, "localhost").await;
    assert!(!served.unwrap().agreed);
}

#[tokio::test]
async fn versions_are_bounded_on_both_sides() {
    let world = World::new();
    let pair = world.pair("good", Wish::new("", &["localhost"]));
    let only = |version: &str, info: TlsInfo| TlsInfo {
        min_version: version.to_owned(),
        max_version: version.to_owned(),
        ..info
    };
    for (of_server, of_client, expected) in [
        ("TLS1.2", "TLS1.2", true),
        ("TLS1.3", "TLS1.3", true),
        ("TLS1.3", "TLS1.2", false),
        ("TLS1.2", "TLS1.3", false),
    ] {
        let (served, dialed) =
            meets(&only(of_server, serves(&pair)), &only(of_client, world.trusting())).await;
        assert_eq!(
            (served.is_ok(), dialed.is_ok()),
            (expected, expected),
            "{of_server} {of_client}"
        );
        if !expected {
            assert_eq!(served.unwrap_err(), "tls: client offered only unsupported versions");
            assert_eq!(dialed.unwrap_err(), "remote error: tls: protocol version not supported");
        }
    }
}

#[tokio::test]
async fn what_is_not_tls_is_called_so() {
    let world = World::new();
    let server = server(&serves(&world.pair("good", Wish::new("", &["localhost"]))));
    let (one, mut other) = tokio::io::duplex(1024);
    other.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let rejected = server.accept(one, None).await.unwrap_err();
    assert_eq!(rejected.text, "tls: first record does not look like a TLS handshake");
    let (one, other) = tokio::io::duplex(1024);
    drop(other);
    let rejected = server.accept(one, None).await.unwrap_err();
    assert_eq!((rejected.text.as_str(), rejected.is_eof), ("EOF", true));
}

#[tokio::test]
async fn wrong_files_are_refused_in_gos_words() {
    let world = World::new();
    let (one, two) =
        (world.pair("1", Wish::new("", &["a"])), world.pair("2", Wish::new("", &["a"])));
    let rsa_like = world.pair("3", Wish::new("", &["a"]).keyed(&rcgen::PKCS_ED25519));
    let load = |cert: &Path, key: &Path| {
        let info = TlsInfo { cert_file: text(cert), key_file: text(key), ..TlsInfo::default() };
        ServerTls::new(&info, ClientAddress::Any, Notify::none()).map(|_| ()).map_err(|e| e.0)
    };
    let missing = world.path().join("missing");
    let empty = world.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let no_file = format!("open {}: no such file or directory", missing.display());
    for (cert, key, expected) in [
        (&one.cert, &one.key, Ok(())),
        (&one.cert, &two.key, Err("tls: private key does not match public key")),
        (&one.cert, &rsa_like.key, Err("tls: private key type does not match public key type")),
        (&missing, &one.key, Err(no_file.as_str())),
        (&one.cert, &missing, Err(no_file.as_str())),
        (&empty, &one.key, Err("tls: failed to find any PEM data in certificate input")),
        (&one.cert, &empty, Err("tls: failed to find any PEM data in key input")),
        (
            &one.key,
            &one.cert,
            Err("tls: failed to find certificate PEM data in certificate input, but did find a \
                 private key; PEM inputs may have been switched"),
        ),
        (
            &one.cert,
            &one.cert,
            Err("tls: found a certificate rather than a key in the PEM for the private key"),
        ),
    ] {
        assert_eq!(load(cert, key), expected.map_err(str::to_owned));
    }
    let half = TlsInfo { cert_file: "c".into(), ..TlsInfo::default() };
    assert_eq!(
        ServerTls::new(&half, ClientAddress::Any, Notify::none()).unwrap_err().0,
        "KeyFile and CertFile must both be present[key: , cert: c]"
    );
    let half = TlsInfo { client_cert_file: "c".into(), ..serves(&one) };
    assert_eq!(
        ServerTls::new(&half, ClientAddress::Any, Notify::none()).unwrap_err().0,
        "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: c]"
    );
}
