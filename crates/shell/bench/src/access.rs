//! Whom a generator is to the servers: in the clear or over TLS, nobody or a user.
//!
//! Never shows a password or a token.

use std::fmt;

use api::etcdserverpb::{AuthenticateRequest, AuthenticateResponse};
use net::{Dialer, Remote};
use tls::{ClientTls, Notify, Spoken, TlsInfo};

use crate::client::Connection;

/// A user's name and password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for User {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)
    }
}

impl User {
    /// Reads `name:password`.
    ///
    /// # Errors
    /// One of them is missing.
    pub fn read(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((name, password)) if !name.is_empty() && !password.is_empty() => {
                Ok(Self { name: name.to_owned(), password: password.to_owned() })
            }
            _ => Err("it must be name:password".to_owned()),
        }
    }
}

/// How connections are made, and in whose name calls.
#[derive(Clone, Debug, Default)]
pub struct Access {
    tls: Option<ClientTls>,
    user: Option<User>,
}

/// The host that servers' certificates must be for.
pub const HOST: &str = "127.0.0.1";

impl Access {
    /// TLS by the files that the info names, if it is given; a user, if one is.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn new(tls: Option<&TlsInfo>, user: Option<User>) -> Result<Self, String> {
        let tls = tls.map(|info| ClientTls::new(info, Spoken::Http2, Notify::none()));
        Ok(Self { tls: tls.transpose().map_err(|e| e.to_string())?, user })
    }

    /// How TLS is spoken, if it is.
    #[must_use]
    pub fn tls(&self) -> Option<&ClientTls> {
        self.tls.as_ref()
    }

    pub(crate) async fn dial(&self, port: u16) -> std::io::Result<net::Stream> {
        let host = format!("{HOST}:{port}");
        let remote = if self.tls.is_some() { Remote::Tls(host) } else { Remote::Tcp(host) };
        net::dial(&Dialer { tls: self.tls.clone(), ..Dialer::default() }, &remote).await
    }

    /// A token of the user, `None` if there is no user.
    ///
    /// # Errors
    /// The server is not there, or refuses name or password.
    pub async fn token(&self, port: u16) -> std::io::Result<Option<String>> {
        let Some(User { name, password }) = self.user.clone() else { return Ok(None) };
        let mut connection = Connection::nameless(port, self).await?;
        let request = AuthenticateRequest { name, password };
        let path = "/etcdserverpb.Auth/Authenticate";
        let answer: AuthenticateResponse = connection.unary(path, &request).await?;
        Ok(Some(answer.token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_and_a_password_that_is_not_shown() {
        let user = User::read("me:hush:hush").unwrap();
        assert_eq!((user.name.as_str(), user.password.as_str()), ("me", "hush:hush"));
        let access = Access::new(None, Some(user)).unwrap();
        assert!(!format!("{access:?}").contains("hush"));
        for bad in ["me", ":x", "me:", ""] {
            assert!(User::read(bad).is_err(), "{bad:?}");
        }
    }
}
