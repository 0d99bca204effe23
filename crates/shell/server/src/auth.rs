//! The kind of tokens, from `--auth-token`.
//!
//! //= etcd 3.7.3: server/auth/store.go#NewTokenProvider

use std::collections::BTreeMap;
use std::sync::Arc;

use calls::{Logins, Provider};
use member::Tokens;
use observe::{Log, log_line};

use crate::jwt::Jwt;
use crate::options::AuthOptions;

const INVALID: &str = "auth: invalid auth options";

/// Bytes of the key under which passwords are remembered.
const KEY_BYTES: usize = 32;

/// How users log in, and the table of their simple tokens.
///
/// # Errors
/// etcd's text: the option or a key is not usable.
pub(crate) fn logins(
    log: &Arc<Log>,
    options: &AuthOptions,
) -> Result<(Logins, Arc<Tokens>), String> {
    let (provider, tokens) = provider(log, options)?;
    let mut key = [0; KEY_BYTES];
    osenv::secret(&mut key);
    let mut logins = Logins::new(provider, options.client_cert_auth, options.bcrypt_cost, &key);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    logins.hashes_at_once = (cores / 2).max(1);
    Ok((logins, tokens))
}

fn provider(log: &Arc<Log>, options: &AuthOptions) -> Result<(Provider, Arc<Tokens>), String> {
    let (kind, rest) = parts(&options.token).ok_or(INVALID)?;
    match kind {
        "simple" => {
            log_line!(log, Warn, "simple token is not cryptographically signed");
            let tokens = Arc::new(Tokens::new(options.token_ttl));
            Ok((Provider::Simple(Arc::clone(&tokens)), tokens))
        }
        "jwt" => Ok((Provider::Signed(Jwt::new(log, &rest)?), Arc::default())),
        "" => Ok((Provider::Nobody, Arc::default())),
        other => {
            log_line!(log, Warn, "unknown token type", "type" = other, "error" = INVALID);
            Err(INVALID.to_owned())
        }
    }
}

/// The kind and its options, each once.
fn parts(text: &str) -> Option<(&str, BTreeMap<&str, &str>)> {
    let mut parts = text.split(',');
    let kind = parts.next()?;
    let mut options = BTreeMap::new();
    for part in parts {
        let (name, value) = part.split_once('=').filter(|(_, value)| !value.contains('='))?;
        if options.insert(name, value).is_some() {
            return None;
        }
    }
    Some((kind, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_pairs_that_come_once() {
        let (kind, options) = parts("jwt,sign-method=RS256,ttl=5m").unwrap();
        assert_eq!((kind, options["sign-method"], options["ttl"]), ("jwt", "RS256", "5m"));
        assert_eq!(parts("simple").unwrap().1.len(), 0);
        for wrong in ["jwt,a", "jwt,a=b=c", "jwt,a=b,a=c", "jwt,"] {
            assert!(parts(wrong).is_none(), "{wrong}");
        }
    }
}
