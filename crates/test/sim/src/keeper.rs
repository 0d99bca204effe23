//! Who keeps users and roles: creates them, then goes on changing them under everything that goes
//! wrong, and now and then somebody tries who must not.
//!
//! Each key that a permission begins with has one end: of several etcd compares the first alone.

use std::collections::VecDeque;

use api::authpb::permission::Type;
use api::authpb::{Permission, UserAddOptions};
use api::error::{ApiError, Status};
use api::etcdserverpb as pb;
use api::method::Method;
use bytes::Bytes;
use env::{Entropy, SplitMix};
use machine::CommandKind;
use model::trail::Wish;
use prost::Message;

use crate::crowd::{PASSWORDS, ROOT};
use crate::options::UserOptions;
use crate::wire::{Ask, CallResult};
use crate::world::{MS, World};

/// The client that keeps users, and the one that tries to.
pub(crate) const KEEPER: u32 = 1_003;
pub(crate) const IMPOSTOR: u32 = 1_004;
/// Milliseconds after which a change is given up.
const PATIENCE_MS: u64 = 6_000;
/// Roles that there are at most.
const ROLES: u64 = 3;

/// A call of the Auth service.
#[derive(Clone, Debug)]
pub(crate) enum UserCall {
    Enable,
    Disable,
    Add { user: String, password: &'static str },
    Delete { user: String },
    ChangePassword { user: String, password: &'static str },
    GrantRole { user: String, role: String },
    RevokeRole { user: String, role: String },
    SeeUser { user: String },
    AddRole { role: String },
    DeleteRole { role: String },
    Grant { role: String, key: Bytes, kind: Type },
    Revoke { role: String, key: Bytes },
    SeeRole { role: String },
}

/// Where a permission that begins at a key ends.
fn end_of(key: &[u8]) -> Bytes {
    let number: u64 = std::str::from_utf8(&key[1..]).ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    match number % 4 {
        0 => Bytes::from_static(&[0]),
        1 => Bytes::new(),
        2 => Bytes::from(format!("k{:02}", number + 3)),
        _ => Bytes::from_static(b"l"),
    }
}

impl UserCall {
    /// The method, the request, and the command that carries it out.
    pub(crate) fn encode(&self) -> (Method, Vec<u8>, CommandKind) {
        macro_rules! call {
            ($method:ident, $kind:ident, $request:expr) => {
                (Method::$method, $request.encode_to_vec(), CommandKind::$kind)
            };
        }
        let text = |text: &str| text.to_owned();
        match self {
            Self::Enable => call!(AuthEnable, AuthEnable, pb::AuthEnableRequest {}),
            Self::Disable => call!(AuthDisable, AuthDisable, pb::AuthDisableRequest {}),
            Self::Add { user, password } => {
                let options = Some(UserAddOptions { no_password: false });
                let (name, password) = (user.clone(), text(password));
                let request =
                    pb::AuthUserAddRequest { name, password, options, ..Default::default() };
                call!(UserAdd, AuthUserAdd, request)
            }
            Self::Delete { user } => {
                call!(UserDelete, AuthUserDelete, pb::AuthUserDeleteRequest { name: text(user) })
            }
            Self::ChangePassword { user, password } => {
                let (name, password) = (user.clone(), text(password));
                let request =
                    pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
                call!(UserChangePassword, AuthUserChangePassword, request)
            }
            Self::GrantRole { user, role } => {
                let request = pb::AuthUserGrantRoleRequest { user: text(user), role: text(role) };
                call!(UserGrantRole, AuthUserGrantRole, request)
            }
            Self::RevokeRole { user, role } => {
                let request = pb::AuthUserRevokeRoleRequest { name: text(user), role: text(role) };
                call!(UserRevokeRole, AuthUserRevokeRole, request)
            }
            Self::SeeUser { user } => {
                call!(UserGet, AuthUserGet, pb::AuthUserGetRequest { name: text(user) })
            }
            Self::AddRole { role } => {
                call!(RoleAdd, AuthRoleAdd, pb::AuthRoleAddRequest { name: text(role) })
            }
            Self::DeleteRole { role } => {
                call!(RoleDelete, AuthRoleDelete, pb::AuthRoleDeleteRequest { role: text(role) })
            }
            Self::Grant { role, key, kind } => {
                let (key, range_end) = (key.clone(), end_of(key));
                let perm = Some(Permission { perm_type: *kind as i32, key, range_end });
                let request = pb::AuthRoleGrantPermissionRequest { name: text(role), perm };
                call!(RoleGrantPermission, AuthRoleGrantPermission, request)
            }
            Self::Revoke { role, key } => {
                let (role, key, range_end) = (text(role), key.clone(), end_of(key));
                let request = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
                call!(RoleRevokePermission, AuthRoleRevokePermission, request)
            }
            Self::SeeRole { role } => {
                call!(RoleGet, AuthRoleGet, pb::AuthRoleGetRequest { role: text(role) })
            }
        }
    }

    /// What it asks for, as the checker names it.
    pub(crate) fn wish(&self) -> Wish {
        match self {
            Self::Enable => Wish::Enable,
            Self::SeeUser { user } => Wish::SeeUser(user.clone()),
            Self::SeeRole { role } => Wish::SeeRole(role.clone()),
            Self::Add { password, .. } | Self::ChangePassword { password, .. } => {
                Wish::Change(Some((*password).to_owned()))
            }
            _ => Wish::Change(None),
        }
    }
}

/// What the keeper is at.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) next_at: u64,
    /// The call in flight, the member that was asked, by place, and until when it is waited for.
    pub(crate) busy: Option<(u64, usize, u64)>,
    /// What is to be done before anything is left to chance; the first is done again until it is.
    script: VecDeque<UserCall>,
    /// Whether authentication is on, as far as it knows.
    enabled: bool,
    /// What is asked for in the call in flight, and whether it is the script's.
    current: Option<UserCall>,
    scripted: bool,
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("k{number:02}"))
}

impl Keeper {
    pub(crate) fn new(options: &UserOptions, entropy: &mut SplitMix) -> Self {
        let role = |n: u64| format!("r{n}");
        let root = || ROOT.to_owned();
        let mut script = VecDeque::from([
            UserCall::Add { user: root(), password: PASSWORDS[0] },
            UserCall::GrantRole { user: root(), role: root() },
        ]);
        for n in 0..ROLES {
            script.push_back(UserCall::AddRole { role: role(n) });
            let (key, kind) = (key(entropy.below(8)), kind(entropy));
            script.push_back(UserCall::Grant { role: role(n), key, kind });
        }
        for n in 1..=options.users {
            let user = format!("u{n}");
            let password = PASSWORDS[entropy.below(2) as usize];
            script.push_back(UserCall::Add { user: user.clone(), password });
            script.push_back(UserCall::GrantRole { user, role: role(entropy.below(ROLES)) });
        }
        script.push_back(UserCall::Enable);
        Self { next_at: 0, busy: None, script, enabled: false, current: None, scripted: false }
    }

    /// The next thing to do.
    fn next(&mut self, options: &UserOptions, entropy: &mut SplitMix) -> UserCall {
        self.scripted = !self.script.is_empty();
        if let Some(first) = self.script.front() {
            return first.clone();
        }
        if !self.enabled && entropy.below(3) > 0 {
            return UserCall::Enable;
        }
        let user = format!("u{}", 1 + entropy.below(u64::from(options.users)));
        let role = format!("r{}", entropy.below(ROLES));
        let password = PASSWORDS[entropy.below(2) as usize];
        match entropy.below(32) {
            0..=6 => UserCall::Grant { role, key: key(entropy.below(12)), kind: kind(entropy) },
            7..=9 => UserCall::Revoke { role, key: key(entropy.below(12)) },
            10..=15 => UserCall::GrantRole { user, role },
            16..=18 => UserCall::RevokeRole { user, role },
            19..=21 => UserCall::Add { user, password },
            22 => UserCall::Delete { user },
            23 | 24 => UserCall::ChangePassword { user, password },
            25 => UserCall::AddRole { role },
            26 => UserCall::DeleteRole { role },
            27 => UserCall::SeeUser { user },
            28 => UserCall::SeeRole { role },
            29 => UserCall::Disable,
            30 => UserCall::GrantRole { user, role: ROOT.to_owned() },
            _ => UserCall::RevokeRole { user, role: ROOT.to_owned() },
        }
    }

    /// A change was answered.
    fn done(&mut self, result: &Result<CallResult, Status>) {
        const THERE: [ApiError; 2] = [ApiError::UserAlreadyExist, ApiError::RoleAlreadyExist];
        let is_there = |status: &Status| THERE.iter().any(|e| status.message == e.text());
        let is_done = result.is_ok() || result.as_ref().is_err_and(is_there);
        if is_done && self.scripted {
            self.script.pop_front();
        }
        match self.current.take() {
            Some(UserCall::Enable) if result.is_ok() => self.enabled = true,
            Some(UserCall::Disable) if result.is_ok() => self.enabled = false,
            _ => {}
        }
    }
}

fn kind(entropy: &mut SplitMix) -> Type {
    match entropy.below(4) {
        0 => Type::Read,
        1 => Type::Write,
        _ => Type::Readwrite,
    }
}

impl World {
    /// Changes something of users and roles.
    pub(crate) fn step_keeper(&mut self) {
        let (now, again) = (self.now, self.look_again());
        let Some(crowd) = &mut self.crowd else { return };
        crowd.keeper.next_at = again;
        if crowd.keeper.busy.is_some_and(|(.., until)| now < until) {
            return;
        }
        crowd.keeper.busy = None;
        let is_impostor = crowd.keeper.script.is_empty() && crowd.entropy.below(8) == 0;
        let client = if is_impostor { IMPOSTOR } else { KEEPER };
        let Some(m) = self.some_server() else { return };
        if !self.is_known(m, client) {
            return;
        }
        let Some(crowd) = &mut self.crowd else { return };
        let mut change = crowd.keeper.next(&crowd.options, &mut crowd.entropy);
        if is_impostor {
            crowd.keeper.scripted = false;
            if crowd.entropy.below(3) == 0 {
                change = UserCall::SeeUser { user: "u1".to_owned() };
            }
        }
        let pause = match crowd.keeper.script.is_empty() {
            true => crowd.options.change_ms,
            false => 50,
        };
        crowd.keeper.next_at = now + (pause / 2 + crowd.entropy.below(pause)) * MS;
        crowd.keeper.current = Some(change.clone());
        let (call, _) = self.call(m, client, Ask::Users(change));
        if let Some(crowd) = &mut self.crowd {
            crowd.keeper.busy = Some((call, m, now + PATIENCE_MS * MS));
        }
        self.collect(m);
    }

    /// How a call went, if it is the keeper's.
    pub(crate) fn keeper_done(&mut self, call: u64, result: &Result<CallResult, Status>) -> bool {
        let Some(crowd) = &mut self.crowd else { return false };
        if crowd.keeper.busy.take_if(|(own, ..)| *own == call).is_none() {
            return false;
        }
        let revoked = match &crowd.keeper.current {
            Some(UserCall::RevokeRole { user, .. }) if result.is_ok() => Some(user.clone()),
            _ => None,
        };
        crowd.keeper.done(result);
        if let Some(user) = revoked {
            self.note_revoked(&user);
        }
        self.counts.user_changes += u64::from(result.is_ok());
        self.trace.event(self.now, format_args!("keeper told {result:?}"));
        true
    }
}
