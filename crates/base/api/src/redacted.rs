//! How messages with secrets are shown: by the names in them, never by a password, a hash or a token.

use std::fmt;

use crate::authpb::User;
use crate::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthenticateRequest, AuthenticateResponse,
    InternalAuthenticateRequest,
};

macro_rules! shown_without_secrets {
    ($($message:ident { $($field:ident),* },)*) => {
        $(impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($field), &self.$field))*
                    .finish_non_exhaustive()
            }
        })*
    };
}

shown_without_secrets! {
    User { name, roles, options },
    AuthUserAddRequest { name, options },
    AuthUserChangePasswordRequest { name },
    AuthenticateRequest { name },
    AuthenticateResponse { header },
    InternalAuthenticateRequest { name },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let text = || "hunter2".to_owned();
        let shown = [
            format!("{:?}", User { password: text().into(), ..User::default() }),
            format!(
                "{:?}",
                AuthUserAddRequest {
                    password: text(),
                    hashed_password: text(),
                    ..AuthUserAddRequest::default()
                }
            ),
            format!(
                "{:?}",
                AuthUserChangePasswordRequest {
                    password: text(),
                    hashed_password: text(),
                    ..AuthUserChangePasswordRequest::default()
                }
            ),
            format!(
                "{:?}",
                AuthenticateRequest { password: text(), ..AuthenticateRequest::default() }
            ),
            format!(
                "{:?}",
                AuthenticateResponse { token: text(), ..AuthenticateResponse::default() }
            ),
            format!(
                "{:?}",
                InternalAuthenticateRequest {
                    password: text(),
                    simple_token: text(),
                    ..InternalAuthenticateRequest::default()
                }
            ),
        ];
        assert!(shown.iter().all(|shown| !shown.contains("hunter2")), "{shown:?}");
    }
}
