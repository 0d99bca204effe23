//! SRV records of a domain, asked of the system's name servers, in the order to use them.
//!
//! Limits: the time of `/etc/resolv.conf` for each attempt, [`MAX_ATTEMPTS`] of them, and a DNS
//! message of 64 KiB.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Name, ToName};
use domain::rdata::Srv;
use domain::resolv::StubResolver;
use domain::resolv::stub::Answer;
use domain::resolv::stub::conf::{ResolvConf, ServerConf, Transport};

/// Attempts at most, whatever `/etc/resolv.conf` says; glibc's limit.
const MAX_ATTEMPTS: usize = 5;

/// An SRV record (RFC 2782), or an address that stands for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// A name, which ends with a dot if DNS gave it, or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Only those of the lowest priority that can be reached are used.
    pub priority: u16,
    /// Its share among those of its priority; those of 0 have hardly any beside others.
    pub weight: u16,
}

impl Record {
    /// `host:port`, with brackets around a host with colons.
    //= go 1.26: src/net/ipsock.go#JoinHostPort
    #[must_use]
    pub fn address(&self) -> String {
        let Self { host, port, .. } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Resolver {
    configuration: ResolvConf,
}

impl Resolver {
    /// The name servers of `/etc/resolv.conf`; without that, one on this machine. A line of it that
    /// makes no sense is passed over.
    #[must_use]
    pub fn of_system() -> Self {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Self::of_text(&text)
    }

    fn of_text(text: &str) -> Self {
        let mut configuration = ResolvConf::new();
        for line in text.lines() {
            let _ = configuration.parse(&mut line.as_bytes());
        }
        configuration.finalize();
        Self { configuration }
    }

    /// One name server, which is asked once and has `patience` to answer.
    #[must_use]
    pub fn at(server: SocketAddr, patience: Duration) -> Self {
        let mut configuration = ResolvConf::new();
        configuration.servers.push(ServerConf::new(server, Transport::UdpTcp));
        configuration.options.timeout = patience;
        configuration.options.attempts = 1;
        configuration.finalize();
        Self { configuration }
    }

    /// The records of `_service._tcp.domain`, best first: by priority, and within one in an order
    /// that is drawn by weight. A record that says there is no such service is none.
    ///
    /// # Errors
    /// Go's text: no such name, nobody answers, or what comes back is no answer.
    //= go 1.26: src/net/lookup.go#LookupSRV
    pub async fn lookup_srv(&self, service: &str, domain: &str) -> Result<Vec<Record>, String> {
        let name = format!("_{service}._tcp.{domain}");
        let server = self.configuration.servers.first();
        let server = server.map(|server| server.addr.to_string()).unwrap_or_default();
        let failed = |why: &str| format!("lookup {name} on {server}: {why}");
        let mut last = failed("no such host");
        for candidate in self.candidates(&name) {
            let Ok(question) = Name::<Vec<u8>>::from_str(&candidate) else { continue };
            let answer = self.ask(&question).await.map_err(|e| {
                failed(&match e.kind() {
                    std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
                    _ => osenv::error_text(&e),
                })
            })?;
            match answer.header().rcode() {
                Rcode::NOERROR => {}
                Rcode::NXDOMAIN => continue,
                _ => {
                    last = failed("server misbehaving");
                    continue;
                }
            }
            let found = records(&answer).ok_or_else(|| failed("cannot unmarshal DNS message"))?;
            if !found.is_empty() {
                let seed = osenv::seed();
                return Ok(in_order(found, seed));
            }
        }
        Err(last)
    }

    /// A name as it is, and below the domains of the search list; one with a dot at its end only as
    /// it is.
    fn candidates(&self, name: &str) -> Vec<String> {
        let mut all = vec![name.to_owned()];
        if !name.ends_with('.') {
            let suffixes = self.configuration.options.search.as_slice().iter();
            let suffixes = suffixes.map(|suffix| suffix.to_string()).filter(|suffix| suffix != ".");
            all.extend(suffixes.map(|suffix| format!("{name}.{suffix}")));
        }
        all
    }

    async fn ask(&self, name: &Name<Vec<u8>>) -> std::io::Result<Answer> {
        let attempts = self.configuration.options.attempts.clamp(1, MAX_ATTEMPTS);
        let resolver = StubResolver::from_conf(self.configuration.clone());
        let mut attempt = 1;
        loop {
            match resolver.query((name, Rtype::SRV)).await {
                Err(_) if attempt < attempts => attempt += 1,
                ended => return ended,
            }
        }
    }
}

/// The SRV records of an answer, whatever aliases led to them; `None` if it is malformed.
fn records(answer: &Answer) -> Option<Vec<Record>> {
    let mut found = Vec::new();
    for record in answer.answer().ok()?.limit_to_in::<Srv<_>>() {
        let record = record.ok()?;
        let srv = record.data();
        let host = srv.target().fmt_with_dot().to_string();
        let (priority, weight) = (srv.priority(), srv.weight());
        if host != "." {
            found.push(Record { host, port: srv.port(), priority, weight });
        }
    }
    Some(found)
}

/// RFC 2782: lowest priority first; within one, each place is drawn by weight among the rest.
//= go 1.26: src/net/dnsclient.go#sort
fn in_order(mut records: Vec<Record>, seed: u64) -> Vec<Record> {
    let mut random = seed | 1;
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut ordered: Vec<Record> = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let priority = first.priority;
        let group = records.iter().take_while(|record| record.priority == priority).count();
        let sum: u64 = records[..group].iter().map(|record| u64::from(record.weight)).sum();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let drawn = random % sum.max(1);
        let mut passed = 0;
        let place = records[..group].iter().position(|record| {
            passed += u64::from(record.weight);
            passed > drawn
        });
        ordered.push(records.remove(place.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
pub(crate) mod tests;
