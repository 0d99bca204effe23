//! TLS, who may ask, and users.

use super::super::flag::{Flag, Group, InFile, at};
use super::of;

const ROW: Flag = of(Group::Security);

/// Rows of the part "Security".
pub(super) const SECURITY: &[Flag] = &[
    Flag {
        name: "cert-file",
        help: "File of the certificate that clients are shown.",
        place: at!(client_security.cert_file),
        file: InFile::At("client-transport-security.cert-file"),
        ..ROW
    },
    Flag {
        name: "key-file",
        help: "File of that certificate's key.",
        place: at!(client_security.key_file),
        file: InFile::At("client-transport-security.key-file"),
        ..ROW
    },
    Flag {
        name: "client-cert-auth",
        default: "false",
        help: "Ask clients for a certificate.",
        place: at!(client_security.client_cert_auth),
        file: InFile::At("client-transport-security.client-cert-auth"),
        ..ROW
    },
    Flag {
        name: "client-cert-file",
        help: "File of the certificate the member shows when it is a client itself; --cert-file if \
               empty.",
        place: at!(client_security.client_cert_file),
        file: InFile::At("client-transport-security.client-cert-file"),
        ..ROW
    },
    Flag {
        name: "client-key-file",
        help: "File of that certificate's key; --key-file if empty.",
        place: at!(client_security.client_key_file),
        file: InFile::At("client-transport-security.client-key-file"),
        ..ROW
    },
    Flag {
        name: "client-crl-file",
        help: "File of client certificates that were revoked.",
        place: at!(client_security.crl_file),
        file: InFile::Nowhere,
        ..ROW
    },
    Flag {
        name: "client-cert-allowed-hostname",
        help: "Host names of which a client's certificate must have one.",
        place: at!(client_security.allowed_hostname),
        file: InFile::At("client-transport-security.allowed-hostname"),
        ..ROW
    },
    Flag {
        name: "trusted-ca-file",
        help: "File of the authorities that clients' certificates must come from.",
        place: at!(client_security.trusted_ca_file),
        file: InFile::At("client-transport-security.trusted-ca-file"),
        ..ROW
    },
    Flag {
        name: "auto-tls",
        default: "false",
        help: "Serve clients over TLS with a certificate that the member makes.",
        place: at!(client_security.auto_tls),
        file: InFile::At("client-transport-security.auto-tls"),
        ..ROW
    },
    Flag {
        name: "peer-cert-file",
        help: "File of the certificate that peers are shown.",
        place: at!(peer_security.cert_file),
        file: InFile::At("peer-transport-security.cert-file"),
        ..ROW
    },
    Flag {
        name: "peer-key-file",
        help: "File of that certificate's key.",
        place: at!(peer_security.key_file),
        file: InFile::At("peer-transport-security.key-file"),
        ..ROW
    },
    Flag {
        name: "peer-client-cert-auth",
        default: "false",
        help: "Ask peers for a certificate.",
        place: at!(peer_security.client_cert_auth),
        file: InFile::At("peer-transport-security.client-cert-auth"),
        ..ROW
    },
    Flag {
        name: "peer-client-cert-file",
        help: "File of the certificate the member shows when it calls a peer; --peer-cert-file if \
               empty.",
        place: at!(peer_security.client_cert_file),
        file: InFile::At("peer-transport-security.client-cert-file"),
        ..ROW
    },
    Flag {
        name: "peer-client-key-file",
        help: "File of that certificate's key; --peer-key-file if empty.",
        place: at!(peer_security.client_key_file),
        file: InFile::At("peer-transport-security.client-key-file"),
        ..ROW
    },
    Flag {
        name: "peer-trusted-ca-file",
        help: "File of the authorities that peers' certificates must come from.",
        place: at!(peer_security.trusted_ca_file),
        file: InFile::At("peer-transport-security.trusted-ca-file"),
        ..ROW
    },
    Flag {
        name: "peer-cert-allowed-cn",
        help: "Common names of which a peer's certificate must have one.",
        place: at!(peer_security.allowed_cn),
        file: InFile::At("peer-transport-security.allowed-cn"),
        ..ROW
    },
    Flag {
        name: "peer-cert-allowed-hostname",
        help: "Host names of which a peer's certificate must have one.",
        place: at!(peer_security.allowed_hostname),
        file: InFile::At("peer-transport-security.allowed-hostname"),
        ..ROW
    },
    Flag {
        name: "peer-auto-tls",
        default: "false",
        help: "Speak TLS among peers with a certificate that the member makes.",
        place: at!(peer_security.auto_tls),
        file: InFile::At("peer-transport-security.auto-tls"),
        ..ROW
    },
    Flag {
        name: "self-signed-cert-validity",
        default: "1",
        help: "Years for which certificates that the member makes are valid.",
        place: at!(security.self_signed_cert_validity),
        ..ROW
    },
    Flag {
        name: "peer-crl-file",
        help: "File of peer certificates that were revoked.",
        place: at!(peer_security.crl_file),
        file: InFile::Nowhere,
        ..ROW
    },
    Flag {
        name: "cipher-suites",
        help: "Cipher suites of TLS 1.2 that are offered; the usual ones if empty.",
        place: at!(security.cipher_suites),
        ..ROW
    },
    Flag {
        name: "cors",
        default: "*",
        help: "Origins whose pages may ask, as URLs; empty or * are all.",
        place: at!(listeners.cors),
        ..ROW
    },
    Flag {
        name: "host-whitelist",
        default: "*",
        help: "Host names that HTTP requests without TLS may be for; empty or * are all.",
        place: at!(listeners.host_whitelist),
        ..ROW
    },
    Flag {
        name: "tls-min-version",
        default: "TLS1.2",
        help: "Oldest version of TLS that is spoken: TLS1.2 or TLS1.3.",
        place: at!(security.tls_min_version),
        ..ROW
    },
    Flag {
        name: "tls-max-version",
        help: "Newest version of TLS that is spoken: TLS1.2 or TLS1.3; the newest there is if empty.",
        place: at!(security.tls_max_version),
        ..ROW
    },
];

/// What only the configuration file can say: rows without a flag.
//= etcd 3.7.3: server/embed/config.go#securityConfig
pub(super) const FILE_ONLY: &[Flag] = &[
    Flag {
        place: at!(client_security.allowed_cn),
        file: InFile::At("client-transport-security.allowed-cn"),
        ..ROW
    },
    Flag {
        default: "false",
        place: at!(client_security.skip_client_san_verification),
        file: InFile::At("client-transport-security.skip-client-san-verification"),
        ..ROW
    },
];

const AUTH_ROW: Flag = of(Group::Auth);

/// Rows of the part "Auth".
pub(super) const AUTH: &[Flag] = &[
    Flag {
        name: "auth-token",
        default: "simple",
        help: "Kind of the tokens of those who logged in: simple, or jwt with its options.",
        place: at!(auth.token),
        ..AUTH_ROW
    },
    Flag {
        name: "bcrypt-cost",
        default: "10",
        help: "How dear a try at a password is, from 4 to 31.",
        place: at!(auth.bcrypt_cost),
        ..AUTH_ROW
    },
    Flag {
        name: "auth-token-ttl",
        default: "300",
        help: "Seconds for which a simple token holds after its last use.",
        place: at!(auth.token_ttl),
        ..AUTH_ROW
    },
];
