//! The flags of TLS and of users, which all loads share.

use bench::{Access, User};
use tls::TlsInfo;

#[derive(Debug, clap::Args)]
pub struct AccessArgs {
    /// Certificates of the authority of the servers' certificates, which must be for 127.0.0.1:
    /// speaks TLS.
    #[arg(long, default_value = "")]
    cacert: String,
    /// A certificate to show: speaks TLS.
    #[arg(long, default_value = "", requires = "key")]
    cert: String,
    /// Its key.
    #[arg(long, default_value = "", requires = "cert")]
    key: String,
    /// Speaks TLS with whoever answers.
    #[arg(long)]
    insecure_skip_tls_verify: bool,
    /// In whose name calls are made: name:password.
    #[arg(long, value_parser = User::read)]
    user: Option<User>,
}

impl AccessArgs {
    /// What the flags ask for.
    pub fn read(&self) -> Result<Access, String> {
        let info = TlsInfo {
            trusted_ca_file: self.cacert.clone(),
            cert_file: self.cert.clone(),
            key_file: self.key.clone(),
            insecure_skip_verify: self.insecure_skip_tls_verify,
            ..TlsInfo::default()
        };
        let tls = (info != TlsInfo::default()).then_some(&info);
        Access::new(tls, self.user.clone())
    }
}
