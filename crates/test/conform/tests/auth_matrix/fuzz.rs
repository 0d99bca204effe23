//! Random changes of users and roles and random calls in their names: equal answers, and equal
//! revisions of authentication. `QUORATE_AUTH_FUZZ_OPS` sets how many (3,000 by default; the long
//! form, `--ignored`, makes 200,000), `QUORATE_AUTH_FUZZ_SEED` where they begin.
//!
//! Data calls are those of `conform::fuzz`.

use std::collections::HashMap;

use api::authpb::{Permission, UserAddOptions};
use api::etcdserverpb as pb;
use api::etcdserverpb::request_op::Request;
use api::method::Method;
use bytes::Bytes;
use conform::fuzz::{Answer, Generator, Op, run};
use conform::{Client, Failure};
use prost::Message;

use crate::conditions::{Pair, block_on};

const USERS: [&str; 6] = ["root", "u1", "u2", "u3", "u4", ""];
const ROLES: [&str; 5] = ["root", "r1", "r2", "r3", ""];
const PASSWORDS: [&str; 2] = ["pw", "other"];

/// A change or a question, by its method.
struct Admin {
    method: Method,
    body: Vec<u8>,
}

fn admin(method: Method, request: &impl Message) -> Admin {
    Admin { method, body: request.encode_to_vec() }
}

/// One of some, most often one of the first.
fn one<'a>(draw: &mut Generator, of: &[&'a str]) -> &'a str {
    of[draw.number(of.len() as u64) as usize]
}

fn draw_user(draw: &mut Generator) -> String {
    one(draw, &USERS).to_owned()
}

fn draw_role(draw: &mut Generator) -> String {
    one(draw, &ROLES).to_owned()
}

/// What a permission is for. Each key has one end: etcd finds the first of a role's permissions with
/// a key, which of several with other ends Go's sort decides, beyond twelve at random.
fn draw_granted(draw: &mut Generator) -> (Bytes, Bytes) {
    let (key, _) = draw.span();
    let end = match key.last().map_or(0, |last| last % 5) {
        0 => Bytes::new(),
        1 => Bytes::from_static(&[0]),
        2 => Bytes::from_static(b"k05"),
        3 => Bytes::from_static(b"k25"),
        _ => Bytes::from_static(b"k40"),
    };
    (key, end)
}

fn draw_change(draw: &mut Generator) -> Admin {
    let (user, role) = (draw_user(draw), draw_role(draw));
    let password = one(draw, &PASSWORDS).to_owned();
    match draw.number(16) {
        0 | 1 => {
            let no_password = draw.chance(10);
            let password = if no_password { String::new() } else { password };
            let options = Some(UserAddOptions { no_password });
            let request =
                pb::AuthUserAddRequest { name: user, password, options, ..Default::default() };
            admin(Method::UserAdd, &request)
        }
        2 => admin(Method::UserDelete, &pb::AuthUserDeleteRequest { name: user }),
        3 => {
            let name = user;
            let request =
                pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
            admin(Method::UserChangePassword, &request)
        }
        4..=6 => admin(Method::UserGrantRole, &pb::AuthUserGrantRoleRequest { user, role }),
        7 => admin(Method::UserRevokeRole, &pb::AuthUserRevokeRoleRequest { name: user, role }),
        8 => admin(Method::RoleAdd, &pb::AuthRoleAddRequest { name: role }),
        9 if draw.chance(30) => admin(Method::RoleDelete, &pb::AuthRoleDeleteRequest { role }),
        9..=12 => {
            let (key, range_end) = draw_granted(draw);
            let perm = Permission { perm_type: draw.number(3) as i32, key, range_end };
            let perm = (!draw.chance(2)).then_some(perm);
            let request = pb::AuthRoleGrantPermissionRequest { name: role, perm };
            admin(Method::RoleGrantPermission, &request)
        }
        13 => {
            let (key, range_end) = draw_granted(draw);
            let request = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
            admin(Method::RoleRevokePermission, &request)
        }
        14 if draw.chance(15) => admin(Method::AuthDisable, &pb::AuthDisableRequest {}),
        _ => admin(Method::AuthEnable, &pb::AuthEnableRequest {}),
    }
}

fn draw_question(draw: &mut Generator) -> Admin {
    let (name, role) = (draw_user(draw), draw_role(draw));
    match draw.number(4) {
        0 => admin(Method::UserGet, &pb::AuthUserGetRequest { name }),
        1 => admin(Method::RoleGet, &pb::AuthRoleGetRequest { role }),
        2 => admin(Method::UserList, &pb::AuthUserListRequest {}),
        _ => admin(Method::RoleList, &pb::AuthRoleListRequest {}),
    }
}

/// Brings the store back from a state in which nobody may do anything: all of it is root's, and
/// some of it is refused, for it is there.
fn repairs() -> Vec<Admin> {
    let (name, password) = ("root".to_owned(), PASSWORDS[0].to_owned());
    let options = Some(UserAddOptions { no_password: false });
    let add = pb::AuthUserAddRequest { name, password, options, ..Default::default() };
    let grant = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    vec![
        admin(Method::UserAdd, &add),
        admin(Method::UserGrantRole, &grant),
        admin(Method::AuthEnable, &pb::AuthEnableRequest {}),
    ]
}

/// Whether a range ends before it begins. Whose permissions such a one is within depends at etcd on
/// the shape that its tree of intervals happens to have; it holds no key.
fn is_inverted(key: &[u8], end: &[u8]) -> bool {
    !end.is_empty() && end != [0] && end < key
}

/// A data call whose ranges are none of those.
fn draw_data(draw: &mut Generator) -> Op {
    fn is_odd(txn: &pb::TxnRequest) -> bool {
        let ops = txn.success.iter().chain(&txn.failure);
        txn.compare.iter().any(|c| is_inverted(&c.key, &c.range_end))
            || ops.into_iter().any(|op| match &op.request {
                Some(Request::RequestRange(q)) => is_inverted(&q.key, &q.range_end),
                Some(Request::RequestDeleteRange(q)) => is_inverted(&q.key, &q.range_end),
                Some(Request::RequestTxn(q)) => is_odd(q),
                Some(Request::RequestPut(_)) | None => false,
            })
    }
    loop {
        let op = draw.draw();
        let is_odd = match &op {
            Op::Range(q) => is_inverted(&q.key, &q.range_end),
            Op::Delete(q) => is_inverted(&q.key, &q.range_end),
            Op::Txn(q) => is_odd(q),
            _ => false,
        };
        if !is_odd {
            return op;
        }
    }
}

/// The two servers, and everybody's tokens on each.
struct Sides {
    left: Client,
    right: Client,
    /// Of each user, the token got last; it may have ended.
    tokens: HashMap<&'static str, (String, String)>,
}

/// An answer without the ids of its header, as bytes.
fn masked(answer: Result<Bytes, Failure>) -> Result<Vec<u8>, Failure> {
    #[derive(Clone, PartialEq, Message)]
    struct Headed {
        #[prost(message, optional, tag = "1")]
        header: Option<pb::ResponseHeader>,
    }
    let message = answer?;
    let header = Headed::decode(&message[..]).expect("a message of the API").header;
    let headed = header.map_or(0, |header| {
        let len = header.encoded_len();
        1 + prost::length_delimiter_len(len) + len
    });
    let mut bytes = header.map_or(0, |h| h.revision).to_be_bytes().to_vec();
    bytes.extend_from_slice(&message[headed..]);
    Ok(bytes)
}

impl Sides {
    fn by(&self, who: Option<&str>) -> (Client, Client) {
        let tokens = who.and_then(|who| self.tokens.get(who));
        let (left, right) = tokens.map_or((None, None), |(l, r)| (Some(&l[..]), Some(&r[..])));
        (self.left.with_token(left), self.right.with_token(right))
    }

    /// The same call of both; equal answers.
    async fn same(&self, who: Option<&str>, call: &Admin, at: &str) -> Result<Vec<u8>, Failure> {
        let (left, right) = self.by(who);
        let path = call.method.row().path;
        let (left, right) = tokio::join!(left.raw(path, &call.body), right.raw(path, &call.body));
        let (left, right) = (masked(left), masked(right));
        assert_eq!(left, right, "{at}: {:?} {} by {who:?}", call.method, call.body.escape_ascii());
        left
    }

    /// A login of both: a token of each, or the same refusal.
    async fn log_in(&mut self, user: &'static str, password: &str, at: &str) {
        let request =
            pb::AuthenticateRequest { name: user.to_owned(), password: password.to_owned() };
        let path = Method::Authenticate.row().path;
        let (left, right) = tokio::join!(
            self.left.call::<pb::AuthenticateResponse>(path, &request),
            self.right.call::<pb::AuthenticateResponse>(path, &request)
        );
        match (left, right) {
            (Ok(left), Ok(right)) => {
                self.tokens.insert(user, (left.token, right.token));
            }
            (left, right) => assert_eq!(
                left.map(|_| "a token"),
                right.map(|_| "a token"),
                "{at}: login of {user:?} with {password:?}"
            ),
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    let of = |value: String| value.parse().unwrap_or_else(|_| panic!("{name} is a number"));
    std::env::var(name).map_or(default, of)
}

/// What was seen, so that a run in which nothing happened fails.
#[derive(Default, Debug)]
struct Seen {
    let_in: u64,
    denied: u64,
    logins: u64,
    changes: u64,
    enabled: u64,
}

async fn fuzz(sides: &mut Sides, seed: u64, operations: u64) -> Seen {
    let mut draw = Generator::new(seed);
    let mut seen = Seen::default();
    for n in 0..operations {
        let at = format!("seed {seed}, operation {n} (left is the subject, right etcd)");
        let who: Option<&str> = match draw.number(10) {
            0 => None,
            1..=3 => Some("root"),
            _ => Some(one(&mut draw, &USERS)),
        };
        match draw.number(100) {
            0..=9 => {
                let user = USERS[draw.number(USERS.len() as u64) as usize];
                let password = one(&mut draw, &PASSWORDS);
                sides.log_in(user, password, &at).await;
                seen.logins += 1;
            }
            10..=29 => {
                let change = draw_change(&mut draw);
                seen.changes += u64::from(sides.same(who, &change, &at).await.is_ok());
                let status = admin(Method::AuthStatus, &pb::AuthStatusRequest {});
                let status = sides.same(None, &status, &at).await.expect("anybody may ask");
                let status = pb::AuthStatusResponse::decode(&status[8..]).expect("as it was sent");
                seen.enabled += u64::from(status.enabled);
                if !status.enabled && draw.chance(50) {
                    for repair in repairs() {
                        let _ = sides.same(None, &repair, &at).await;
                    }
                }
                if draw.chance(30) {
                    for password in PASSWORDS {
                        sides.log_in("root", password, &at).await;
                    }
                }
            }
            30..=39 => {
                let question = draw_question(&mut draw);
                let _ = sides.same(who, &question, &at).await;
            }
            _ => {
                let op = draw_data(&mut draw);
                let (left, right) = sides.by(who);
                let (left, right) = tokio::join!(run(&left, &op), run(&right, &op));
                assert_eq!(left, right, "{at}: {op:#?} by {who:?}");
                let is_denied =
                    |f: &Failure| f.message.contains("denied") || f.message.contains("token");
                match &left {
                    Answer::Failed(failure) => seen.denied += u64::from(is_denied(failure)),
                    _ => seen.let_in += 1,
                }
                draw.saw(&left);
            }
        }
    }
    seen
}

fn fuzz_pair(operations: u64) {
    let seed = number("QUORATE_AUTH_FUZZ_SEED", 1);
    let Some(pair) = Pair::start(&[]) else { return };
    let seen = block_on(async {
        let left = Client::connect(pair.left.port).await;
        let right = Client::connect(pair.right.port).await;
        let mut sides = Sides { left, right, tokens: HashMap::new() };
        fuzz(&mut sides, seed, operations).await
    });
    eprintln!("seed {seed}, {operations} operations: {seen:?}");
    let many = operations / 50;
    assert!(seen.let_in > many && seen.denied > many, "{seen:?}");
    assert!(seen.changes > many / 4 && seen.logins > many && seen.enabled > many / 4, "{seen:?}");
}

#[test]
fn random_users_are_answered_as_etcd_answers_them() {
    fuzz_pair(number("QUORATE_AUTH_FUZZ_OPS", 3_000));
}

#[test]
#[ignore = "takes a quarter of an hour"]
fn two_hundred_thousand_calls_of_random_users() {
    fuzz_pair(number("QUORATE_AUTH_FUZZ_OPS", 200_000));
}
