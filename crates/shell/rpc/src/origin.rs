//! What is known of a connection before its first byte.

use std::sync::Arc;

use calls::{Caller, Identity};

/// What a listener's connections may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// Calls and HTTP.
    #[default]
    All,
    /// Calls alone (`--listen-client-urls` beside `--listen-client-http-urls`).
    Calls,
    /// HTTP alone (`--listen-client-http-urls`).
    Http,
    /// What `--listen-metrics-urls` serve over HTTP.
    Metrics,
}

/// What both ends of a connection over TLS agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreed {
    /// HTTP/2.
    Http2,
    /// Nothing, which leaves HTTP/1.1.
    Nothing,
}

/// What is known of a connection before its first byte.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// What it may ask.
    pub serves: Serves,
    /// What it agreed on; `None` without TLS.
    pub tls: Option<Agreed>,
    /// Names in the client's certificate that may stand for a user, its common name first; empty
    /// without one, or where certificates stand for nobody.
    pub certificate: Vec<String>,
    /// Where it comes from, as a text for people.
    pub remote: Option<Arc<str>>,
}

/// How a request over HTTP came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// By a listener for clients, without TLS.
    Plain,
    /// By a listener for clients, over TLS.
    Secured,
    /// By a listener for metrics.
    Metrics,
}

impl Origin {
    /// How requests over HTTP come in.
    pub(crate) fn door(&self) -> Door {
        match (self.serves, self.tls) {
            (Serves::Metrics, _) => Door::Metrics,
            (_, Some(_)) => Door::Secured,
            (_, None) => Door::Plain,
        }
    }

    /// Whether calls are answered.
    pub(crate) fn takes_calls(&self) -> bool {
        matches!(self.serves, Serves::All | Serves::Calls)
    }

    /// Whether requests over HTTP are answered.
    pub(crate) fn takes_http(&self) -> bool {
        self.serves != Serves::Calls
    }

    /// Whether the client's certificate names a user.
    pub(crate) fn names_user(&self) -> bool {
        self.certificate.first().is_some_and(|name| !name.is_empty())
    }

    /// Who calls, as far as the connection tells.
    pub(crate) fn caller(&self) -> Caller {
        if self.certificate.is_empty() && self.remote.is_none() {
            return Caller::default();
        }
        let (certificate, remote) = (self.certificate.clone(), self.remote.clone());
        Caller::known(Identity { certificate, remote })
    }
}
