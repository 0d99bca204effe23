//! What the log tells of TLS.

use std::sync::Arc;

use net::Refused;
use tls::{Notify, Reload};

use crate::logging::Level;
use crate::{Log, log_line};

/// On which side of a member something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Where clients come.
    Client,
    /// Where peers come.
    Peer,
}

/// Tells of a connection that is not served. One that ended without a word, as probes do, is told
/// to who looks for it only.
//= etcd 3.7.3: server/embed/config_logging.go#setupLogging (logTLSHandshakeFailureFunc)
pub fn tell_refused(log: &Log, endpoint: Endpoint, refused: &Refused) {
    let Refused { why, from } = refused;
    let level = if why.is_eof { Level::Debug } else { Level::Warn };
    let message = match endpoint {
        Endpoint::Client => "rejected connection on client endpoint",
        Endpoint::Peer => "rejected connection on peer endpoint",
    };
    let from = from.map_or_else(|| "@".to_owned(), |address| address.to_string());
    let mut fields: Vec<(&str, serde_json::Value)> =
        vec![("remote-addr", from.into()), ("server-name", why.server_name.as_str().into())];
    if let Some((addresses, names)) = &why.names {
        fields.push(("ip-addresses", addresses.clone().into()));
        fields.push(("dns-names", names.clone().into()));
    }
    fields.push(("error", why.text.as_str().into()));
    let caller = concat!(file!(), ":", line!()).trim_start_matches("crates/");
    log.line(level, caller, message, &fields);
}

/// Tells of files of certificates that have changed.
#[must_use]
pub fn tell_reloads(log: &Arc<Log>) -> Notify {
    let log = Arc::clone(log);
    Notify::new(move |reload| match reload {
        Reload::Taken { files } => {
            log_line!(log, Info, "loaded changed TLS files", "files" = files.to_vec());
        }
        Reload::Kept { files, error } => log_line!(
            log,
            Warn,
            "failed to load changed TLS files; those from before are kept",
            "files" = files.to_vec(),
            "error" = error.to_string(),
        ),
    })
}
