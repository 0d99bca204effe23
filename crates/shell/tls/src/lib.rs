//! TLS for both ends: certificates from files, whom to trust, and when to read them anew.
//!
//! Owns what etcd calls its TLSInfo, how certificates are verified (as Go's crypto/x509 does where
//! users see it), the words of what is wrong, and the reading of changed files. Never knows a
//! socket: it makes any stream secure. Read next: [`TlsInfo`], [`ServerTls`], [`ClientTls`],
//! `trust.rs`.

mod address;
mod certificate;
mod client;
mod hostname;
mod info;
mod pem;
mod reload;
mod revoked;
mod self_cert;
mod server;
mod suites;
mod text;
mod trust;
mod turns;
mod verifier;

pub use client::{ClientTls, Spoken};
pub use info::{TlsError, TlsInfo};
pub use reload::{LOOK_INTERVAL, Notify, Reload};
pub use self_cert::{Made, SelfCert, self_cert};
pub use server::{
    ClientAddress, HANDSHAKE_TIMEOUT, REVOKED_WITHIN, Rejected, ServerTls, Session, Standing,
};
pub use suites::{BadSuite, check_http2, check_suites};
pub use text::error_text;
pub use tokio_rustls::TlsStream;
