//! What members tell about themselves with each request, and whom they refuse for it.
//!
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/http.go#checkClusterCompatibilityFromHeader
//! //= etcd 3.7.1: server/etcdserver/api/rafthttp/util.go#checkVersionCompatibility

use http::{HeaderMap, HeaderValue};
use types::{ClusterId, MemberId};

pub(crate) const CLUSTER_ID: &str = "x-etcd-cluster-id";
pub(crate) const SERVER_FROM: &str = "x-server-from";
pub(crate) const SERVER_VERSION: &str = "x-server-version";
pub(crate) const MIN_CLUSTER_VERSION: &str = "x-min-cluster-version";
pub(crate) const RAFT_TO: &str = "x-raft-to";
pub(crate) const PEER_URLS: &str = "x-peerurls";

/// The oldest cluster that etcd 3.7 works in.
const OLDEST_CLUSTER: &str = "3.0.0";
/// What a member is that does not tell its version.
const UNTOLD: &str = "2.0.0";

pub(crate) const INCOMPATIBLE_VERSION: &str = "incompatible version";
pub(crate) const CLUSTER_ID_MISMATCH: &str = "cluster ID mismatch";

/// A version's first two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Minor(u64, u64);

impl Minor {
    /// The oldest version with the two streams of today.
    pub(crate) const STREAMS: Self = Self(2, 1);

    /// Reads `major.minor.patch`, with anything after it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next()?);
        let digits = patch.split(['-', '+']).next()?;
        digits.parse::<u64>().ok()?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }

    /// The version in a header.
    pub(crate) fn of(headers: &HeaderMap, name: &str) -> Option<Self> {
        match headers.get(name).map(HeaderValue::to_str) {
            None => Self::parse(UNTOLD),
            Some(Ok("")) => Self::parse(UNTOLD),
            Some(Ok(text)) => Self::parse(text),
            Some(Err(_)) => None,
        }
    }
}

/// An id as etcd writes it.
pub(crate) fn parse_id(text: &str) -> Option<u64> {
    // A sign is no digit.
    (!text.starts_with('+')).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// This member, as it tells others with each request.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster: ClusterId,
    pub(crate) version: String,
    minor: Minor,
    headers: HeaderMap,
}

impl Identity {
    /// # Errors
    /// If the version is none, or a URL cannot stand in a header.
    pub(crate) fn new(
        id: MemberId,
        cluster: ClusterId,
        version: &str,
        own_urls: &[String],
    ) -> Result<Self, String> {
        let minor = Minor::parse(version).ok_or_else(|| format!("not a version: {version}"))?;
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| format!("cannot stand in a header: {text}"))
        };
        let mut headers = HeaderMap::new();
        headers.insert(SERVER_FROM, value(&id.to_string())?);
        headers.insert(SERVER_VERSION, value(version)?);
        headers.insert(MIN_CLUSTER_VERSION, value(OLDEST_CLUSTER)?);
        headers.insert(CLUSTER_ID, value(&cluster.to_string())?);
        if !own_urls.is_empty() {
            headers.insert(PEER_URLS, value(&own_urls.join(","))?);
        }
        Ok(Self { cluster, version: version.to_owned(), minor, headers })
    }

    /// Adds what every request to another member's raft carries.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap) {
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    }

    /// The text with which a request is refused that comes from another cluster or from a version
    /// that does not get on with ours.
    pub(crate) fn refuse(&self, headers: &HeaderMap) -> Option<&'static str> {
        let oldest = Minor::parse(OLDEST_CLUSTER).expect("a version");
        let server = Minor::of(headers, SERVER_VERSION);
        let cluster = Minor::of(headers, MIN_CLUSTER_VERSION);
        let (Some(server), Some(cluster)) = (server, cluster) else {
            // Go's handler panics here, which ends the connection.
            return Some(INCOMPATIBLE_VERSION);
        };
        if server < oldest || cluster > self.minor {
            return Some(INCOMPATIBLE_VERSION);
        }
        let told = headers.get(CLUSTER_ID).and_then(|value| value.to_str().ok()).unwrap_or("");
        (told != self.cluster.to_string()).then_some(CLUSTER_ID_MISMATCH)
    }

    /// Whether a member that answers like this has our streams.
    pub(crate) fn has_streams(&self, headers: &HeaderMap) -> bool {
        Minor::of(headers, SERVER_VERSION).is_some_and(|v| v >= self.minor || v >= Minor::STREAMS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(changes: &[(&'static str, &str)]) -> Option<&'static str> {
        let us = Identity::new(MemberId(1), ClusterId(0xab), "3.7.1", &[]).unwrap();
        let mut headers = HeaderMap::new();
        us.stamp(&mut headers);
        for (name, value) in changes {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        us.refuse(&headers)
    }

    #[test]
    fn members_of_other_clusters_and_too_old_or_new_ones_are_refused() {
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&[(SERVER_VERSION, "3.6.16")]), None);
        assert_eq!(refused(&[(MIN_CLUSTER_VERSION, "3.7.9-rc.1")]), None);
        assert_eq!(refused(&[(SERVER_VERSION, "2.3.8")]), Some(INCOMPATIBLE_VERSION));
        assert_eq!(refused(&[(MIN_CLUSTER_VERSION, "3.8.0")]), Some(INCOMPATIBLE_VERSION));
        assert_eq!(refused(&[(SERVER_VERSION, "new")]), Some(INCOMPATIBLE_VERSION));
        assert_eq!(refused(&[(CLUSTER_ID, "ac")]), Some(CLUSTER_ID_MISMATCH));
        assert_eq!(refused(&[(CLUSTER_ID, "0ab")]), Some(CLUSTER_ID_MISMATCH));
    }

    #[test]
    fn ids_are_hex_without_a_sign() {
        assert_eq!(parse_id("8e9e05c52164694d"), Some(0x8e9e_05c5_2164_694d));
        assert_eq!(parse_id("00A"), Some(10));
        for bad in ["", "+a", "-1", "0x1", "10000000000000000", "g"] {
            assert_eq!(parse_id(bad), None, "{bad}");
        }
    }
}
