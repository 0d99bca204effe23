//! A server with users, roles and keys, and the tokens of everybody who calls.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use api::authpb::{Permission, UserAddOptions};
use api::etcdserverpb as pb;
use api::method::Method;
use conform::{Client, Failure};
use prost::Message;

use crate::cell::{self, Cell, Outcome};
use crate::identity::{Ending, Identity, PASSWORD, Standing};
use crate::model::Grant;
use crate::rows::{BARE_LEASE, LEASE, VICTIM, bytes};

/// Longest time that a server may take to follow.
const PATIENCE: Duration = Duration::from_secs(30);

/// A token that was never one; its end is an index as in those that are.
const FORGED: &str = "abcdefghijklmnop.12";

/// A server, and in whose name it can be called.
pub struct World {
    pub client: Client,
    identities: Vec<Identity>,
    /// One for each identity.
    tokens: Vec<Option<String>>,
    root: Option<String>,
    /// Longest time for each answer.
    pub patience: Duration,
}

impl World {
    /// Makes users, roles and keys on a server that does not ask yet who calls.
    pub async fn found(client: Client, identities: &[Identity]) -> Self {
        let tokens = vec![None; identities.len()];
        let identities = identities.to_vec();
        let world = Self { client, identities, tokens, root: None, patience: PATIENCE };
        world.user("root", UserAddOptions { no_password: false }).await;
        world.role("root", &[]).await;
        world.user(VICTIM, UserAddOptions { no_password: false }).await;
        world.role(VICTIM, &[]).await;
        world.user("without-password", UserAddOptions { no_password: true }).await;
        for identity in world.identities.iter().filter(|identity| identity.is_user()) {
            let name = &identity.name;
            if name != "root" {
                world.user(name, UserAddOptions { no_password: false }).await;
            }
            let role = match (&identity.standing, identity.grants()) {
                (Standing::Root, _) => "root",
                (_, grants) if !grants.is_empty() => {
                    world.role(name, &grants).await;
                    name
                }
                _ => continue,
            };
            let grant = pb::AuthUserGrantRoleRequest { user: name.clone(), role: role.into() };
            world.must::<pb::AuthUserGrantRoleResponse>(Method::UserGrantRole, &grant).await;
        }
        for id in [LEASE, BARE_LEASE] {
            let request = pb::LeaseGrantRequest { id, ttl: 600 };
            world.must::<pb::LeaseGrantResponse>(Method::LeaseGrant, &request).await;
        }
        for key in ["k", "kk", "p/1", "p/2", "p/5", "p/elect/1", "d", "e", "g", "m", "n", "z"] {
            let lease = if key == "k" { LEASE } else { 0 };
            let (key, value) = (bytes(key.as_bytes()), bytes(b"old"));
            let request = pb::PutRequest { key, value, lease, ..Default::default() };
            world.must::<pb::PutResponse>(Method::Put, &request).await;
        }
        world
    }

    /// Has the server ask from now on who calls; everybody logs in, and then some lose rights.
    pub async fn enable(&mut self) {
        let request = pb::AuthEnableRequest {};
        self.must::<pb::AuthEnableResponse>(Method::AuthEnable, &request).await;
        self.log_in(|_| true).await;
        for identity in self.identities.clone() {
            let name = identity.name.clone();
            match identity.standing {
                Standing::Ended(Ending::Deleted) => {
                    let request = pb::AuthUserDeleteRequest { name };
                    self.must::<pb::AuthUserDeleteResponse>(Method::UserDelete, &request).await;
                }
                Standing::Ended(Ending::PasswordChanged) => {
                    let password = "other".to_owned();
                    let request =
                        pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
                    let method = Method::UserChangePassword;
                    self.must::<pb::AuthUserChangePasswordResponse>(method, &request).await;
                }
                _ => {}
            }
            for (_, span) in identity.loses {
                let (key, range_end) = (bytes(span.key), bytes(span.end));
                let role = identity.name.clone();
                let request = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
                let method = Method::RoleRevokePermission;
                self.must::<pb::AuthRoleRevokePermissionResponse>(method, &request).await;
            }
        }
    }

    /// New tokens for those who can log in and are chosen.
    pub async fn log_in(&mut self, is_chosen: impl Fn(&Identity) -> bool) {
        for (place, identity) in self.identities.clone().iter().enumerate() {
            if !identity.is_user() || !is_chosen(identity) {
                continue;
            }
            let (name, password) = (identity.name.clone(), PASSWORD.to_owned());
            let request = pb::AuthenticateRequest { name, password };
            let answer: pb::AuthenticateResponse = self
                .client
                .with_token(None)
                .call(Method::Authenticate.row().path, &request)
                .await
                .unwrap_or_else(|e| panic!("{} cannot log in: {e:?}", identity.name));
            if identity.name == "root" {
                self.root = Some(answer.token.clone());
            }
            self.tokens[place] = Some(answer.token);
        }
    }

    /// The same tokens at another member, or at the same one after its restart.
    pub fn at(&self, client: Client) -> Self {
        let (identities, tokens) = (self.identities.clone(), self.tokens.clone());
        Self { client, identities, tokens, root: self.root.clone(), patience: self.patience }
    }

    /// The server, called in root's name where it asks.
    pub fn as_root(&self) -> Client {
        self.client.with_token(self.root.as_deref())
    }

    /// The server, called by one of the identities.
    pub fn by(&self, identity: &str) -> Client {
        let place = self.identities.iter().position(|known| known.name == identity);
        self.client.with_token(self.token(place.expect("one of the identities")))
    }

    fn token(&self, place: usize) -> Option<&str> {
        match self.identities[place].standing {
            Standing::Forged => Some(FORGED),
            _ => self.tokens[place].as_deref(),
        }
    }

    /// What each identity is answered to a cell's request.
    pub async fn ask_all(&self, cell: &Cell) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(self.identities.len());
        for place in 0..self.identities.len() {
            for (method, request) in &cell.before {
                // Some of it is there already, or gone.
                let _ = self.as_root().raw(method.row().path, request).await;
            }
            outcomes.push(self.ask(cell, place).await);
        }
        outcomes
    }

    /// What one identity is answered.
    pub async fn ask(&self, cell: &Cell, place: usize) -> Outcome {
        let client = self.client.with_token(self.token(place));
        cell::run(&client, cell, self.patience).await
    }

    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }

    /// A call of root's that must succeed.
    pub async fn must<A: Message + Default>(
        &self,
        method: Method,
        request: &(impl Message + Debug),
    ) -> A {
        let answer: Result<A, Failure> = self.as_root().call(method.row().path, request).await;
        answer.unwrap_or_else(|e| panic!("{method:?} {request:?}: {e:?}"))
    }

    async fn user(&self, name: &str, options: UserAddOptions) {
        let password = if options.no_password { String::new() } else { PASSWORD.to_owned() };
        let (name, options) = (name.to_owned(), Some(options));
        let request = pb::AuthUserAddRequest { name, password, options, ..Default::default() };
        self.must::<pb::AuthUserAddResponse>(Method::UserAdd, &request).await;
    }

    async fn role(&self, name: &str, grants: &[Grant]) {
        let add = pb::AuthRoleAddRequest { name: name.to_owned() };
        self.must::<pb::AuthRoleAddResponse>(Method::RoleAdd, &add).await;
        if name == "root" {
            let (user, role) = ("root".to_owned(), "root".to_owned());
            let grant = pb::AuthUserGrantRoleRequest { user, role };
            self.must::<pb::AuthUserGrantRoleResponse>(Method::UserGrantRole, &grant).await;
        }
        for (access, span) in grants {
            let (key, range_end) = (bytes(span.key), bytes(span.end));
            let perm = Permission { perm_type: access.number(), key, range_end };
            let request =
                pb::AuthRoleGrantPermissionRequest { name: name.to_owned(), perm: Some(perm) };
            let method = Method::RoleGrantPermission;
            self.must::<pb::AuthRoleGrantPermissionResponse>(method, &request).await;
        }
    }

    /// Status, as root.
    pub async fn status(&self) -> Result<pb::StatusResponse, Failure> {
        self.as_root().call(Method::Status.row().path, &pb::StatusRequest {}).await
    }

    /// Waits until this member has applied what another one has.
    pub async fn catch_up_with(&self, other: &Self) {
        let there = other.status().await.expect("it serves").raft_applied_index;
        let until = Instant::now() + PATIENCE;
        loop {
            // Until it has applied the login, the token is none here.
            let here = self.status().await;
            if here.as_ref().is_ok_and(|here| here.raft_applied_index >= there) {
                return;
            }
            assert!(Instant::now() < until, "it does not follow: {here:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
