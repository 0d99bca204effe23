//! How a measured server is guarded: open to all, within TLS, or for users only.

use std::path::Path;

use api::authpb::Permission;
use api::authpb::permission::Type;
use api::etcdserverpb::{
    AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest, AuthRoleAddResponse,
    AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse, AuthUserAddRequest,
    AuthUserAddResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tls::TlsInfo;

use crate::access::{Access, HOST, User};
use crate::client::Connection;
use crate::server;

/// Whom a server lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Everybody, in the clear.
    None,
    /// Everybody, over TLS: a certificate with an ECDSA key on P-256, as most have today.
    Tls,
    /// Users, in the clear. The generator is one who may read and write all keys.
    Users,
}

/// The user in whose name the generator calls. Such a server lives on 127.0.0.1 for seconds.
const USER: &str = "bench";
const PASSWORD: &str = "bench-password";

impl Guard {
    pub(crate) fn url(self, port: u16) -> String {
        match self {
            Guard::None | Guard::Users => server::url(port),
            Guard::Tls => server::url(port).replacen("http", "https", 1),
        }
    }

    /// Arguments of the server; what they name is made in `dir`, which exists.
    pub(crate) fn args(self, dir: &Path) -> std::io::Result<Vec<String>> {
        if self != Guard::Tls {
            return Ok(Vec::new());
        }
        let (cert, key) = (dir.join("server.crt"), dir.join("server.key"));
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let pair = pair.map_err(std::io::Error::other)?;
        let params = CertificateParams::new([HOST.to_owned()]).map_err(std::io::Error::other)?;
        let made = params.self_signed(&pair).map_err(std::io::Error::other)?;
        std::fs::write(&cert, made.pem())?;
        std::fs::write(&key, pair.serialize_pem())?;
        let file = |path: &Path| path.display().to_string();
        Ok(vec!["--cert-file".to_owned(), file(&cert), "--key-file".to_owned(), file(&key)])
    }

    /// How such a server is reached before it is set up.
    pub(crate) fn access(self) -> std::io::Result<Access> {
        // Verifying is the client's work, and not what is measured.
        let info = TlsInfo { insecure_skip_verify: true, ..TlsInfo::default() };
        let info = (self == Guard::Tls).then_some(&info);
        Access::new(info, None).map_err(std::io::Error::other)
    }

    /// Does what needs a running server, and says how it is reached from then on.
    pub(crate) async fn set_up(self, port: u16, access: Access) -> std::io::Result<Access> {
        if self != Guard::Users {
            return Ok(access);
        }
        let mut root = Connection::nameless(port, &access).await?;
        for (name, password, role) in [("root", PASSWORD, "root"), (USER, PASSWORD, USER)] {
            let (name, role) = (name.to_owned(), role.to_owned());
            let user = AuthUserAddRequest {
                name: name.clone(),
                password: password.to_owned(),
                ..AuthUserAddRequest::default()
            };
            let _: AuthUserAddResponse = call(&mut root, "UserAdd", &user).await?;
            if role != "root" {
                let add = AuthRoleAddRequest { name: role.clone() };
                let _: AuthRoleAddResponse = call(&mut root, "RoleAdd", &add).await?;
                let grant = AuthRoleGrantPermissionRequest {
                    name: role.clone(),
                    perm: Some(Permission {
                        perm_type: Type::Readwrite.into(),
                        key: b"\0".to_vec().into(),
                        range_end: b"\0".to_vec().into(),
                    }),
                };
                let _: AuthRoleGrantPermissionResponse =
                    call(&mut root, "RoleGrantPermission", &grant).await?;
            }
            let grant = AuthUserGrantRoleRequest { user: name, role };
            let _: AuthUserGrantRoleResponse = call(&mut root, "UserGrantRole", &grant).await?;
        }
        let _: AuthEnableResponse = call(&mut root, "AuthEnable", &AuthEnableRequest {}).await?;
        let user = User { name: USER.to_owned(), password: PASSWORD.to_owned() };
        Access::new(None, Some(user)).map_err(std::io::Error::other)
    }
}

async fn call<R: prost::Message + Default>(
    root: &mut Connection,
    method: &str,
    request: &impl prost::Message,
) -> std::io::Result<R> {
    root.unary(&format!("/etcdserverpb.Auth/{method}"), request).await
}
