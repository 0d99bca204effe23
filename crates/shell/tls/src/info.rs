//! What one end of TLS is made from.

use std::fmt;

/// Files and rules of one end: what etcd calls its TLSInfo. Paths that are empty are not given.
//= etcd 3.7.3: client/pkg/transport/listener.go#TLSInfo
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// The certificate, and its chain, in PEM. A client without one of its own shows it, too.
    pub cert_file: String,
    /// Its key, in PEM.
    pub key_file: String,
    /// A client's certificate, if it is another.
    pub client_cert_file: String,
    /// Its key.
    pub client_key_file: String,
    /// Whom to trust: a bundle of certificates in PEM. Without one, whom the system trusts.
    pub trusted_ca_file: String,
    /// A list of revoked certificates, in DER or PEM, signed by one of those who are trusted.
    pub crl_file: String,
    /// A server wants a certificate of its clients. It does so, too, if `trusted_ca_file` is given.
    pub client_cert_auth: bool,
    /// A client believes whatever certificate it is shown.
    pub insecure_skip_verify: bool,
    /// The address of a client is not compared with its certificate.
    pub skip_client_san_verify: bool,
    /// The name that a server's certificate must have, if not that of the host that was dialed.
    pub server_name: String,
    /// Cipher suites of TLS 1.2 by the names that Go knows; empty is all there are.
    pub cipher_suites: Vec<String>,
    /// The oldest version that is spoken: `TLS1.2`, `TLS1.3`, or empty for 1.2.
    pub min_version: String,
    /// The newest: as before, empty for 1.3.
    pub max_version: String,
    /// Common names one of which a certificate of the other end must have, if any are given.
    pub allowed_cns: Vec<String>,
    /// Host names and addresses one of which it must have, if any are given.
    pub allowed_hostnames: Vec<String>,
    /// A client's certificate must have no common name.
    pub empty_cn: bool,
    /// The certificate was made by [`crate::self_cert`]: nobody else can vouch for that of others.
    pub self_made: bool,
}

impl TlsInfo {
    /// Whether there is nothing to serve with.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cert_file.is_empty() && self.key_file.is_empty()
    }

    /// Whether a server with this wants certificates of its clients.
    #[must_use]
    pub fn wants_client_certs(&self) -> bool {
        self.client_cert_auth || !self.trusted_ca_file.is_empty()
    }

    /// The pair of files that a client shows.
    pub(crate) fn client_pair(&self) -> (&str, &str) {
        if self.client_cert_file.is_empty() {
            (&self.cert_file, &self.key_file)
        } else {
            (&self.client_cert_file, &self.client_key_file)
        }
    }

    /// Refuses what contradicts itself before any file is read.
    //= etcd 3.7.3: client/pkg/transport/listener.go#baseConfig
    pub(crate) fn check_pair(&self) -> Result<(), TlsError> {
        let Self { cert_file, key_file, .. } = self;
        if cert_file.is_empty() || key_file.is_empty() {
            return Err(TlsError(format!(
                "KeyFile and CertFile must both be present[key: {key_file}, cert: {cert_file}]"
            )));
        }
        Ok(())
    }

    /// Refuses half a pair for clients.
    pub(crate) fn check_client_pair(&self) -> Result<(), TlsError> {
        let Self { client_cert_file: cert, client_key_file: key, .. } = self;
        if cert.is_empty() != key.is_empty() {
            return Err(TlsError(format!(
                "ClientKeyFile and ClientCertFile must both be present or both absent: \
                 key: {key}, cert: {cert}]"
            )));
        }
        Ok(())
    }

    /// Refuses two kinds of lists at once.
    pub(crate) fn check_allowed(&self) -> Result<(), TlsError> {
        let Self { allowed_cns: cns, allowed_hostnames: hostnames, .. } = self;
        if !cns.is_empty() && !hostnames.is_empty() {
            return Err(TlsError(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive \
                 (cns={}, hostnames={})",
                quoted(cns),
                quoted(hostnames)
            )));
        }
        Ok(())
    }
}

impl fmt::Display for TlsInfo {
    /// As the log shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, \
             client-cert-auth = {}, crl-file = {}",
            self.cert_file,
            self.key_file,
            self.client_cert_file,
            self.client_key_file,
            self.trusted_ca_file,
            self.client_cert_auth,
            self.crl_file
        )
    }
}

/// Texts as Go's `%q` shows a list of them.
pub(crate) fn quoted(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", texts.join(" "))
}

/// Files or rules from which no end can be made; says why as etcd does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(pub String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}
