//! Which hosts a certificate is for.
//!
//= go 1.26: src/crypto/x509/verify.go#VerifyHostname

use std::net::IpAddr;

use crate::certificate::Certificate;

/// Names that a refusal lists; of more it says how many.
const NAMES_SHOWN: usize = 100;

/// Whether a certificate is for a host, a name or an address.
///
/// # Errors
/// It is not; says why as Go does.
pub(crate) fn check(certificate: &Certificate, host: &str) -> Result<(), String> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        if certificate.ip_addresses.contains(&address.to_canonical()) {
            return Ok(());
        }
        return Err(refusal(certificate, bare));
    }
    let name = host.to_ascii_lowercase();
    let valid = is_valid(&name, Kind::Host);
    let matches = certificate.dns_names.iter().any(|pattern| {
        if valid && is_valid(pattern, Kind::Pattern) {
            matches(pattern, &name)
        } else {
            !name.is_empty() && name != "." && pattern.eq_ignore_ascii_case(&name)
        }
    });
    if matches { Ok(()) } else { Err(refusal(certificate, host)) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Host,
    Pattern,
}

fn is_valid(name: &str, kind: Kind) -> bool {
    let name = if kind == Kind::Host { name.strip_suffix('.').unwrap_or(name) } else { name };
    if name.is_empty() || name == "*" {
        return false;
    }
    name.split('.').enumerate().all(|(place, part)| {
        if kind == Kind::Pattern && place == 0 && part == "*" {
            return true;
        }
        let allowed =
            |(at, c): (usize, char)| c.is_ascii_alphanumeric() || c == '_' || (c == '-' && at != 0);
        !part.is_empty() && part.char_indices().all(allowed)
    })
}

fn matches(pattern: &str, host: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    if pattern.is_empty() || host.is_empty() {
        return false;
    }
    let (patterns, hosts) = (pattern.split('.'), host.split('.'));
    patterns.clone().count() == hosts.clone().count()
        && patterns
            .zip(hosts)
            .enumerate()
            .all(|(place, (pattern, part))| (place == 0 && pattern == "*") || pattern == part)
}

fn refusal(certificate: &Certificate, host: &str) -> String {
    if !certificate.has_names && matches(&certificate.common_name, host) {
        return "x509: certificate relies on legacy Common Name field, use SANs instead".to_owned();
    }
    let is_address = host.parse::<IpAddr>().is_ok();
    let (names, kind) = if is_address {
        (certificate.ip_texts(), "IP SANs")
    } else {
        (certificate.dns_names.clone(), "names")
    };
    match names.len() {
        0 if is_address => format!(
            "x509: cannot validate certificate for {host} because it doesn't contain any IP SANs"
        ),
        0 => format!("x509: certificate is not valid for any names, but wanted to match {host}"),
        many if many >= NAMES_SHOWN => {
            format!("x509: certificate is valid for {many} {kind}, but none matched {host}")
        }
        _ => format!("x509: certificate is valid for {}, not {host}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dns: &[&str], ips: &[&str]) -> Certificate {
        Certificate {
            dns_names: dns.iter().map(|&name| name.to_owned()).collect(),
            ip_addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            has_names: !(dns.is_empty() && ips.is_empty()),
            common_name: "common.name".to_owned(),
            ..Certificate::default()
        }
    }

    #[test]
    fn names_match_as_in_go() {
        let cases = [
            ("a.example.com", "a.example.com", true),
            ("A.Example.com", "a.eXample.COM.", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("a*.example.com", "ab.example.com", false),
            ("*", "a", false),
            ("a.*.com", "a.b.com", false),
            ("a_b.example.com", "a_b.example.com", true),
            ("-a.example.com", "-a.example.com", true),
            ("example.com.", "example.com", false),
        ];
        for (pattern, host, expected) in cases {
            let result = check(&of(&[pattern], &[]), host);
            assert_eq!(result.is_ok(), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn addresses_match_addresses_only() {
        assert!(check(&of(&[], &["127.0.0.1"]), "127.0.0.1").is_ok());
        assert!(check(&of(&[], &["::1"]), "[::1]").is_ok());
        assert!(check(&of(&[], &["127.0.0.1"]), "::ffff:127.0.0.1").is_ok());
        assert!(check(&of(&["127.0.0.1"], &[]), "127.0.0.1").is_err());
        assert!(check(&of(&[], &["127.0.0.1"]), "localhost").is_err());
    }

    #[test]
    fn refusals_are_gos() {
        let text = |certificate: &Certificate, host| check(certificate, host).unwrap_err();
        assert_eq!(text(&of(&["a", "b"], &[]), "c"), "x509: certificate is valid for a, b, not c");
        assert_eq!(
            text(&of(&["a"], &[]), "127.0.0.1"),
            "x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"
        );
        assert_eq!(
            text(&of(&[], &["127.0.0.2"]), "127.0.0.1"),
            "x509: certificate is valid for 127.0.0.2, not 127.0.0.1"
        );
        assert_eq!(
            text(&of(&[], &[]), "common.name"),
            "x509: certificate relies on legacy Common Name field, use SANs instead"
        );
        assert_eq!(
            text(&of(&[], &[]), "other"),
            "x509: certificate is not valid for any names, but wanted to match other"
        );
    }
}
