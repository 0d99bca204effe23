//! Ids of members and clusters, derived from peer URLs.
//!
//! //= etcd 3.7.1: server/etcdserver/api/membership/member.go#computeMemberID,
//! //= etcd 3.7.1: server/etcdserver/api/membership/cluster.go#genID

use ring::digest::{Context, Digest, SHA1_FOR_LEGACY_USE_ONLY};
use types::{ClusterId, MemberId};

fn first_eight(digest: &Digest) -> u64 {
    let bytes = digest.as_ref().first_chunk().expect("SHA-1 has twenty bytes");
    u64::from_be_bytes(*bytes)
}

/// The id of a founding member: SHA-1 over its sorted peer URLs and the cluster token.
#[must_use]
pub fn member_id(peer_urls: &[String], cluster_token: &str) -> MemberId {
    hash(peer_urls, cluster_token)
}

/// The id of a member that is added at this time, in seconds since 1970: so that one that was
/// removed can be added again under another id.
#[must_use]
pub fn added_member_id(peer_urls: &[String], unix_secs: u64) -> MemberId {
    hash(peer_urls, &unix_secs.to_string())
}

fn hash(peer_urls: &[String], suffix: &str) -> MemberId {
    let mut urls = peer_urls.to_vec();
    urls.sort_unstable();
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    urls.iter().for_each(|url| context.update(url.as_bytes()));
    context.update(suffix.as_bytes());
    MemberId(first_eight(&context.finish()))
}

/// The id of a cluster: SHA-1 over the ids of its founding members, ascending.
#[must_use]
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut ids = members.to_vec();
    ids.sort_unstable();
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    ids.iter().for_each(|id| context.update(&id.0.to_be_bytes()));
    ClusterId(first_eight(&context.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_flags_give_the_ids_that_etcd_gives() {
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster");
        assert_eq!(member, MemberId(10_276_657_743_932_975_437));
        assert_eq!(cluster_id(&[member]), ClusterId(14_841_639_068_965_178_418));
    }
}
