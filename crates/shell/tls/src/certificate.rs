//! What is read of a certificate beside its chain: names, validity, what it may be used for.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a certificate is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// A server shows it.
    Server,
    /// A client shows it.
    Client,
}

impl Usage {
    /// The usage's number below id-kp, 1.3.6.1.5.5.7.3.
    pub(crate) fn number(self) -> usize {
        match self {
            Self::Server => 1,
            Self::Client => 2,
        }
    }
}

/// What is read of a certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Certificate {
    /// The last of its subject's common names; empty without one.
    pub common_name: String,
    /// Names of hosts.
    pub dns_names: Vec<String>,
    /// Addresses of hosts.
    pub ip_addresses: Vec<IpAddr>,
    /// Whether it has the extension in which names are.
    pub has_names: bool,
    /// The first second of its validity, since 1970.
    pub not_before: i64,
    /// The last.
    pub not_after: i64,
    /// Whether it may be used as a server's.
    pub for_servers: bool,
    /// Whether it may be used as a client's.
    pub for_clients: bool,
    /// Its number, without leading zeros.
    pub serial: Vec<u8>,
    /// Its issuer's name as it is encoded.
    pub issuer: Vec<u8>,
    /// Its subject's name as it is encoded.
    pub subject: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate; `None` if it is none.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut certificate = Self {
            // Go's last one counts, as each overwrites those before.
            common_name: last_common_name(&parsed),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            for_servers: true,
            for_clients: true,
            serial: without_zeros(parsed.raw_serial()).to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            subject: parsed.subject().as_raw().to_vec(),
            ..Self::default()
        };
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    certificate.has_names = true;
                    for name in &names.general_names {
                        certificate.name(name)?;
                    }
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    certificate.for_servers = usage.any || usage.server_auth;
                    certificate.for_clients = usage.any || usage.client_auth;
                }
                ParsedExtension::ParseError { .. } => return None,
                _ => {}
            }
        }
        Some(certificate)
    }

    fn name(&mut self, name: &GeneralName<'_>) -> Option<()> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => self.ip_addresses.push(address(bytes)?),
            GeneralName::Invalid(..) => return None,
            _ => {}
        }
        Some(())
    }

    /// Whether it may be used so. What says nothing of usages may be used for all.
    pub(crate) fn is_for(&self, usage: Usage) -> bool {
        match usage {
            Usage::Server => self.for_servers,
            Usage::Client => self.for_clients,
        }
    }

    /// Why it is not valid now, in Go's words.
    //= go 1.26: src/crypto/x509/verify.go#isValid
    pub(crate) fn check_time(&self, now: i64) -> Result<(), String> {
        let side = if now < self.not_before {
            ("before", self.not_before)
        } else if now > self.not_after {
            ("after", self.not_after)
        } else {
            return Ok(());
        };
        Err(format!(
            "x509: certificate has expired or is not yet valid: current time {} is {} {}",
            rfc3339(now),
            side.0,
            rfc3339(side.1)
        ))
    }

    /// Its addresses as texts.
    pub(crate) fn ip_texts(&self) -> Vec<String> {
        self.ip_addresses.iter().map(ToString::to_string).collect()
    }
}

fn last_common_name(certificate: &X509Certificate<'_>) -> String {
    let names = certificate.subject().iter_common_name();
    let last = names.filter_map(|name| name.as_str().ok()).last();
    last.unwrap_or_default().to_owned()
}

/// An address as certificates carry it; `None` if it has neither 4 nor 16 bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
        _ => return None,
    };
    Some(address)
}

pub(crate) fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

pub(crate) fn rfc3339(seconds: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(seconds) else { return seconds.to_string() };
    let (date, clock) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}
