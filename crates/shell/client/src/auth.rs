//! Who calls: a name and a password that become a token, or a token as it is.
//!
//! Invariant: a password goes out in `Authenticate` alone. A cluster that does not ask who calls is
//! no failure: calls go on without a token.

use api::error::ApiError;
use api::etcdserverpb::{AuthenticateRequest, AuthenticateResponse};
use api::method::Method;
use tokio::time::Instant;

use crate::call::Client;
use crate::error::Error;

/// Who calls.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody.
    #[default]
    None,
    /// The bearer of this token.
    Token(String),
    /// A user, by a name and a password that are not empty.
    Password {
        /// Its name.
        user: String,
        /// Its password.
        password: String,
    },
}

impl std::fmt::Debug for Credentials {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::None => write!(f, "None"),
            Credentials::Token(_) => write!(f, "Token"),
            Credentials::Password { user, .. } => write!(f, "Password of {user:?}"),
        }
    }
}

impl Client {
    /// Gets a token for the user, if one is configured with a password.
    ///
    /// # Errors
    /// [`Error`]: name or password are wrong, or nobody answers.
    //= etcd 3.7.3: client/v3/client.go#getToken
    pub async fn authenticate(&self, deadline: Option<Instant>) -> Result<(), Error> {
        let Credentials::Password { user, password } = self.credentials() else { return Ok(()) };
        let request = AuthenticateRequest { name: user.clone(), password: password.clone() };
        let answer: Result<AuthenticateResponse, _> =
            self.call(Method::Authenticate, &request, deadline).await;
        match answer {
            Ok(answer) => self.set_token(Some(answer.token)),
            Err(error) if error.is(ApiError::AuthNotEnabled) => self.set_token(None),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether the call may succeed with another token: this one has ended, the server has forgotten
/// it, or users and roles have changed since. Who is known by a certificate has none, and is taken
/// when the call is made again.
//= etcd 3.7.3: client/v3/retry_interceptor.go#shouldRefreshToken
pub(crate) fn needs_new_token(credentials: &Credentials, error: &Error) -> bool {
    let is_stale = error.is(ApiError::InvalidAuthToken) || error.is(ApiError::AuthOldRevision);
    match credentials {
        Credentials::Token(_) => false,
        Credentials::Password { .. } => is_stale || error.is(ApiError::UserEmpty),
        Credentials::None => is_stale,
    }
}

/// Whether a call is made in somebody's name.
pub(crate) fn carries_token(method: Method) -> bool {
    method != Method::Authenticate
}
