//! H5 to H9, H19, H20, H25 to H31: passwords and tokens.

use std::time::Duration;

use conform::on_fresh_pair;

use super::*;

const NO_PASSWORD: &str = "auth: authentication failed, password was given for no password user";
const UNKNOWN: u16 = 2;
const OLD: &str = "etcdserver: revision of auth store is old";

async fn refuses(s: &mut Session, name: &str, password: &str, (code, text): (u16, &str)) {
    fails(token(s, name, password).await, code, text);
    s.note(format!("{name} is refused: {text}"));
}

fn changed(name: &str, password: &str) -> AuthUserChangePasswordRequest {
    let (name, password) = (name.into(), password.into());
    AuthUserChangePasswordRequest { name, password, ..Default::default() }
}

async fn change(s: &mut Session, name: &str, password: &str) {
    let request = changed(name, password);
    auth!(s, "UserChangePassword", request => AuthUserChangePasswordResponse).unwrap();
}

#[test]
fn h8_nobody_is_authenticated_while_that_is_off() {
    on_fresh_pair(&[], async |s| {
        for (name, password) in [("root", "pw"), ("", "")] {
            let off = "etcdserver: authentication is not enabled";
            refuses(s, name, password, (FAILED_PRECONDITION, off)).await;
        }
        // A token is not looked at either.
        let client = s.connect(1 << 24).await.with("token", "nonsense");
        s.act_as(client);
        s.set("a", "1").await;
    });
}

#[test]
fn h5_h6_h7_h9_passwords_are_what_they_were_set_to_last() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        log_in(s, "root", "rpw").await;
        refuses(s, "alice", "wrong", (INVALID, BAD_PASSWORD)).await;
        refuses(s, "nobody", "apw", (INVALID, BAD_PASSWORD)).await;
        refuses(s, "", "", (INVALID, BAD_PASSWORD)).await;
        // Twice, so that what is remembered of the first is used.
        for _ in 0..2 {
            token(s, "alice", "apw").await.unwrap();
        }
        change(s, "alice", "new").await;
        refuses(s, "alice", "apw", (INVALID, BAD_PASSWORD)).await;
        token(s, "alice", "new").await.unwrap();
        change(s, "alice", "").await;
        refuses(s, "alice", "new", (INVALID, BAD_PASSWORD)).await;
        refuses(s, "alice", "", (INVALID, BAD_PASSWORD)).await;
        let longest = "p".repeat(72);
        change(s, "alice", &longest).await;
        token(s, "alice", &longest).await.unwrap();
        let request = changed("alice", &"p".repeat(73));
        let answer = auth!(s, "UserChangePassword", request => AuthUserChangePasswordResponse);
        fails(answer, UNKNOWN, "bcrypt: password length exceeds 72 bytes");
        let answer = auth!(s, "UserAdd", named("bob", &"p".repeat(73)) => AuthUserAddResponse);
        fails(answer, UNKNOWN, "bcrypt: password length exceeds 72 bytes");
        auth!(s, "UserAdd", without_password("carol") => AuthUserAddResponse).unwrap();
        refuses(s, "carol", "", (UNKNOWN, NO_PASSWORD)).await;
        change(s, "carol", "given").await;
        refuses(s, "carol", "given", (UNKNOWN, NO_PASSWORD)).await;
        // A hash may be given; one that is none locks the user out, or is refused.
        for hashed in ["bm90IGEgaGFzaA==", "not base64"] {
            let hashed_password = hashed.to_owned();
            let request = AuthUserChangePasswordRequest { hashed_password, ..changed("alice", "") };
            let _ = auth!(s, "UserChangePassword", request => AuthUserChangePasswordResponse);
        }
        refuses(s, "alice", "not a hash", (INVALID, BAD_PASSWORD)).await;
    });
}

#[test]
fn h19_h20_h31_a_token_comes_in_either_field() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        let good = token(s, "alice", "apw").await.unwrap();
        let bearer = format!("Bearer {good}");
        let cases: [&[(&str, &str)]; 9] = [
            &[("token", &good)],
            &[("authorization", &good)],
            &[("token", &bearer)],
            &[("authorization", &bearer)],
            &[("authorization", "nonsense"), ("token", &good)],
            &[("authorization", &good), ("token", "nonsense")],
            &[("token", &good), ("token", "nonsense")],
            &[("token", "nonsense"), ("token", &good)],
            &[("authorization", "bearer x")],
        ];
        for fields in cases {
            let mut client = s.connect(1 << 24).await;
            for (name, value) in fields {
                client = client.with(name, value);
            }
            s.act_as(client);
            let answer = s.range(&range("b", "")).await;
            // The text alone: what comes twice is known by its place in the list.
            s.note(format!("{}: {}", fields.len(), answer.is_ok()));
        }
        for wrong in ["", "x", "x.1", "x.y", ".", "a.1.2"] {
            let client = s.connect(1 << 24).await.with("token", wrong);
            s.act_as(client);
            fails(s.range(&range("b", "")).await, UNAUTHENTICATED, BAD_TOKEN);
            let status = auth!(s, "AuthStatus", AuthStatusRequest {} => AuthStatusResponse);
            fails(status, UNAUTHENTICATED, BAD_TOKEN);
        }
        log_out(s).await;
        fails(s.range(&range("b", "")).await, INVALID, NOBODY);
        fails(s.put(&put("a/1", "x")).await, INVALID, NOBODY);
    });
}

#[test]
fn h25_a_simple_token_is_letters_and_an_index_and_ends_with_its_member() {
    let args = [CHEAP, &["--auth-token-ttl", "2"]].concat();
    on_fresh_pair(&args, async |s| {
        set_up(s).await;
        let alice = token(s, "alice", "apw").await.unwrap();
        let (letters, index) = alice.split_once('.').unwrap();
        assert!(letters.len() == 16 && letters.bytes().all(|b| b.is_ascii_alphabetic()));
        assert!(index.parse::<u64>().is_ok());
        let client = s.connect(1 << 24).await.with("token", &alice);
        s.act_as(client.clone());
        // It lasts as long as it is used, and some time more.
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            s.range(&range("b", "")).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        fails(s.range(&range("b", "")).await, UNAUTHENTICATED, BAD_TOKEN);
        let again = token(s, "alice", "apw").await.unwrap();
        s.restart().await;
        let client = s.connect(1 << 24).await.with("token", &again);
        s.act_as(client);
        fails(s.range(&range("b", "")).await, UNAUTHENTICATED, BAD_TOKEN);
    });
}

#[test]
fn h26_tokens_end_with_the_password_and_with_the_user() {
    on_fresh_pair(CHEAP, async |s| {
        set_up(s).await;
        let alice = log_in(s, "alice", "apw").await;
        s.range(&range("b", "")).await.unwrap();
        let root = log_in(s, "root", "rpw").await;
        change(s, "alice", "new").await;
        s.act_as(alice);
        fails(s.range(&range("b", "")).await, UNAUTHENTICATED, BAD_TOKEN);
        let alice = log_in(s, "alice", "new").await;
        s.act_as(root);
        // Other changes end no token: it is of the newest revision each time.
        auth!(s, "UserAdd", named("bob", "bpw") => AuthUserAddResponse).unwrap();
        s.act_as(alice.clone());
        s.range(&range("b", "")).await.unwrap();
        log_in(s, "root", "rpw").await;
        let request = AuthUserDeleteRequest { name: "alice".into() };
        auth!(s, "UserDelete", request => AuthUserDeleteResponse).unwrap();
        s.act_as(alice);
        fails(s.range(&range("b", "")).await, UNAUTHENTICATED, BAD_TOKEN);
        fails(s.put(&put("a/1", "x")).await, UNAUTHENTICATED, BAD_TOKEN);
    });
}

#[test]
fn h27_h28_h33_a_signed_token_is_of_one_revision_and_of_any_member() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "a secret that both know").unwrap();
    let kind = format!("jwt,sign-method=HS256,priv-key={},ttl=1h", key.display());
    let args = [CHEAP, &["--auth-token", &kind]].concat();
    // The reference runs first: its token is good here, for the key and the users are the same.
    let foreign = std::cell::RefCell::new(Vec::new());
    on_fresh_pair(&args, async |s| {
        set_up(s).await;
        let own = token(s, "alice", "apw").await.unwrap();
        assert_eq!(own.split('.').count(), 3);
        foreign.borrow_mut().push(own.clone());
        // The other's, if there is another.
        for _ in 0..50 {
            if foreign.borrow().len() == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let all = foreign.borrow().clone();
        for token in &all {
            let client = s.connect(1 << 24).await.with("token", token);
            let answer: Result<RangeResponse, _> =
                client.call("/etcdserverpb.KV/Range", &range("b", "")).await;
            answer.unwrap();
        }
        let client = s.connect(1 << 24).await.with("token", &format!("{own}x"));
        s.act_as(client);
        fails(s.range(&range("b", "")).await, UNAUTHENTICATED, BAD_TOKEN);
        s.restart().await;
        let alice = s.connect(1 << 24).await.with("token", &own);
        s.act_as(alice.clone());
        s.set("a/1", "x").await;
        log_in(s, "root", "rpw").await;
        auth!(s, "UserAdd", named("bob", "bpw") => AuthUserAddResponse).unwrap();
        s.act_as(alice);
        fails(s.range(&range("b", "")).await, INVALID, OLD);
        let serializable = RangeRequest { serializable: true, ..range("b", "") };
        fails(s.range(&serializable).await, INVALID, OLD);
        fails(s.put(&put("a/1", "x")).await, INVALID, OLD);
    });
}

#[test]
fn h29_without_a_kind_of_token_nobody_logs_in() {
    on_fresh_pair(&[CHEAP, &["--auth-token="]].concat(), async |s| {
        set_up(s).await;
        refuses(s, "root", "rpw", (INVALID, BAD_PASSWORD)).await;
        let client = s.connect(1 << 24).await.with("token", "x.1");
        s.act_as(client);
        fails(s.range(&range("b", "")).await, UNAUTHENTICATED, BAD_TOKEN);
    });
}
