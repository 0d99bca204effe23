//! What users keep secret is found nowhere but where it belongs: passwords as their hashes, tokens
//! with their owners. Searched are every log line at the finest level, metrics and other pages, errors,
//! the audit log, the log of entries, the database and its snapshot.

use std::path::{Path, PathBuf};

use api::etcdserverpb::*;
use conform::{Client, Kind, Server};

/// Passwords and a value beside them, of which only the value may be found.
const ROOT: &str = "password-of-root-5Qm2vX";
const FIRST: &str = "first-password-8fZk1w";
const SECOND: &str = "second-password-3hTn7c";
const WRONG: &str = "wrong-password-6yRb0d";
const VALUE: &str = "value-that-is-no-secret-4Gj9";

fn auth(method: &str) -> String {
    format!("/etcdserverpb.Auth/{method}")
}

/// Every way that a password or token takes through a server; the token, and the texts of errors.
async fn busy_run(client: &Client) -> (String, Vec<String>) {
    let mut told = Vec::new();
    let user = |name: &str, password: &str| AuthUserAddRequest {
        name: name.into(),
        password: password.into(),
        ..Default::default()
    };
    let login = |name: &str, password: &str| AuthenticateRequest {
        name: name.into(),
        password: password.into(),
    };
    for (name, password) in [("root", ROOT), ("alice", FIRST)] {
        client.call::<AuthUserAddResponse>(&auth("UserAdd"), &user(name, password)).await.unwrap();
    }
    let again = client.call::<AuthUserAddResponse>(&auth("UserAdd"), &user("alice", SECOND)).await;
    told.push(again.unwrap_err().message);
    let grant = AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    client.call::<AuthUserGrantRoleResponse>(&auth("UserGrantRole"), &grant).await.unwrap();
    let enable = AuthEnableRequest::default();
    client.call::<AuthEnableResponse>(&auth("AuthEnable"), &enable).await.unwrap();
    for name in ["alice", "nobody"] {
        let path = auth("Authenticate");
        let refused = client.call::<AuthenticateResponse>(&path, &login(name, WRONG)).await;
        told.push(refused.unwrap_err().message);
    }
    let path = auth("Authenticate");
    let root: AuthenticateResponse = client.call(&path, &login("root", ROOT)).await.unwrap();
    let as_root = client.with_token(Some(&root.token));
    let change = AuthUserChangePasswordRequest {
        name: "alice".into(),
        password: SECOND.into(),
        ..Default::default()
    };
    let path = auth("UserChangePassword");
    as_root.call::<AuthUserChangePasswordResponse>(&path, &change).await.unwrap();
    let path = auth("Authenticate");
    client.call::<AuthenticateResponse>(&path, &login("alice", SECOND)).await.unwrap();
    let put = PutRequest { key: "k".into(), value: VALUE.into(), ..Default::default() };
    let path = "/etcdserverpb.KV/Put";
    as_root.call::<PutResponse>(path, &put).await.unwrap();
    let spoilt = client.with_token(Some(&root.token[1..]));
    let refused = spoilt.call::<PutResponse>(path, &put).await;
    told.push(refused.unwrap_err().message);
    (root.token, told)
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn passwords_and_tokens_are_found_nowhere() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let outputs = format!("--log-outputs={}", log.display());
        let args = [outputs.as_str(), "--log-level=debug", "--bcrypt-cost=4"];
        let mut args = [&args[..], &["--warning-unary-request-duration=1us"]].concat();
        let audit = dir.path().join("audit");
        let audit_log = format!("--audit-log={}", audit.display());
        if kind == Kind::Quorate {
            args.push(&audit_log);
        }
        let Some(mut server) = Server::start_on(kind, &dir.path().join("data"), &args) else {
            continue;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (token, told) =
            runtime.block_on(async { busy_run(&Client::connect(server.port).await).await });
        let pages = ["/metrics", "/debug/vars", "/health", "/version"];
        let pages = pages.map(|page| (page.to_owned(), server.http_get(page).unwrap_or_default()));
        server.stop();
        let mut files = Vec::new();
        files_below(dir.path(), &mut files);
        let read = |path: &PathBuf| (path.display().to_string(), std::fs::read(path).unwrap());
        let mut places: Vec<(String, Vec<u8>)> = files.iter().map(read).collect();
        places.extend(pages.map(|(page, text)| (page, text.into_bytes())));
        places.extend(told.into_iter().map(|text| ("an error".to_owned(), text.into_bytes())));
        let secrets = [ROOT, FIRST, SECOND, WRONG, &token];
        for (place, bytes) in &places {
            for secret in secrets {
                assert!(!holds(bytes, secret), "{kind:?}: {secret} stands in {place}");
            }
        }
        if kind == Kind::Quorate {
            let audited = std::fs::read(&audit).expect("the audit log was searched");
            assert!(holds(&audited, "\"target_user\":\"alice\"") && !holds(&audited, VALUE));
        }
        let with_value = places.iter().filter(|(_, bytes)| holds(bytes, VALUE)).count();
        assert!(with_value >= 2, "{kind:?}: the search finds not even what must be there");
    }
}
