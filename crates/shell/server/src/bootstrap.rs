//! Who this member is, before it has a log: a founder, or one that joins.
//!
//! A member with a log is who its log says; nothing here is asked then.
//= etcd 3.7.1: server/etcdserver/bootstrap.go#bootstrapCluster

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use calls::identity::{cluster_id, member_id};
use discovery::Resolver;
use env::{Disk, MayBlock};
use machine::Member;
use observe::{Log, log_line};
use peer::{Client, RemoteCluster, RemoteMember};
use tls::ClientTls;
use tokio::sync::watch;
use types::{CLUSTER_VERSION, ClusterId, MemberId, Url, Version};

use crate::config::words::ClusterState;
use crate::discovered::{Named, by_dns, by_registry};
use crate::error::RunError;
use crate::options::Options;

/// How long one peer may take to say who the members are.
//= etcd 3.7.1: server/etcdserver/cluster_util.go#GetClusterFromRemotePeers
const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// Who this member is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) member: MemberId,
    pub(crate) cluster: ClusterId,
    /// The founding members; none if this one joins.
    pub(crate) founders: Vec<Member>,
    /// Members of the cluster that this one joins.
    pub(crate) remotes: Vec<RemoteMember>,
}

/// Finds out who this member is.
///
/// # Errors
/// [`RunError`]: it is in nobody's list, or the cluster to join cannot be asked or refuses it.
pub(crate) fn identify(
    disk: &Arc<dyn Disk>,
    may: &MayBlock,
    options: &Options,
    dialing: &Option<ClientTls>,
    (log, stop): (&Arc<Log>, &watch::Sender<bool>),
) -> Result<Identity, RunError> {
    if has_log(&**disk, may, &options.wal_dir)? {
        if options.discovery.is_some() {
            let text = "discovery token is ignored since cluster already initialized; valid logs \
                        are found";
            log_line!(log, Warn, text, "wal-dir" = options.wal_dir.display().to_string());
        }
        // The log names the member and its cluster; the list of founders has had its time.
        return Ok(founded(options).unwrap_or_else(|_| unlisted(options)));
    }
    let founded = founded(options)?;
    advertises_what_is_listed(options)?;
    let own = &options.name;
    let others = options.initial_cluster.iter().filter(|(name, _)| name != own);
    let mut urls: Vec<String> = others.flat_map(|(_, urls)| urls.clone()).collect();
    urls.sort_unstable();
    let timeout = Duration::from_secs(1) + options.election;
    let client = Client::new(timeout, options.local_address, dialing.clone());
    if options.state == ClusterState::Existing {
        if options.discovery.is_some() {
            let why = "discovery URL should not be set when joining existing initial cluster";
            return Err(RunError::Bootstrap(why.to_owned()));
        }
        return block_on(join(&client, options, &urls, founded));
    }
    if !urls.is_empty() && block_on(is_bootstrapped(&client, &urls, founded.member))? {
        let id = founded.member;
        return Err(RunError::Bootstrap(format!("member {id} has already been bootstrapped")));
    }
    if options.discovery.is_none() {
        return Ok(founded);
    }
    let member = founded.member;
    let joined = by_registry(options, member, log, stop.subscribe());
    let cluster = block_on(joined)?.ok_or(RunError::Stopped)?;
    refuse_shared_urls(&cluster).map_err(|_| shared_by_registry(&cluster))?;
    let (founders, cluster) = members_of(&cluster, &options.initial_cluster_token);
    Ok(Identity { member, cluster, founders, remotes: Vec::new() })
}

/// The options with the founding members that DNS names, if it is to be asked and the member has no
/// log yet.
///
/// # Errors
/// [`RunError`]: DNS names nobody, or not this member.
pub(crate) fn named_by_dns(
    disk: &Arc<dyn Disk>,
    may: &MayBlock,
    options: &Options,
    log: &Log,
) -> Result<Option<Options>, RunError> {
    let Some(domain) = &options.srv else { return Ok(None) };
    if has_log(&**disk, may, &options.wal_dir)? {
        return Ok(None);
    }
    let Named { cluster, is_secure } =
        block_on(by_dns(&Resolver::of_system(), domain, options, log))?;
    let mut named = Options { initial_cluster: cluster, ..options.clone() };
    // Whoever vouches for the domain vouches for its members.
    //= etcd 3.7.3: server/embed/config.go#PeerURLsMapAndToken
    if is_secure && named.peer_tls.trusted_ca_file.is_empty() {
        named.peer_tls.server_name.clone_from(&domain.domain);
    }
    Ok(Some(named))
}

//= etcd 3.7.3: server/etcdserver/bootstrap.go#bootstrapNewClusterNoWAL
fn shared_by_registry(cluster: &[(String, Vec<String>)]) -> RunError {
    RunError::Bootstrap(format!("discovery cluster {} has duplicate url", shown(cluster)))
}

fn block_on<T>(work: impl Future<Output = Result<T, RunError>>) -> Result<T, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| RunError::Io("start a runtime".to_owned(), e))?;
    runtime.block_on(work)
}

fn has_log(disk: &dyn Disk, may: &MayBlock, dir: &Path) -> Result<bool, RunError> {
    match disk.read_dir(may, dir) {
        Ok(entries) => Ok(entries.iter().any(|entry| entry.name.ends_with(".wal"))),
        Err(e) if e.kind == env::IoErrorKind::NotFound => Ok(false),
        Err(e) => Err(RunError::Start(e.into())),
    }
}

/// The identity of a founding member, from the list of founders.
fn founded(options: &Options) -> Result<Identity, RunError> {
    refuse_shared_urls(&options.initial_cluster).map_err(RunError::Bootstrap)?;
    let (founders, cluster) = members_of(&options.initial_cluster, &options.initial_cluster_token);
    let own = founders.iter().find(|member| member.name == options.name);
    let member = own.map(|member| MemberId(member.id));
    let member = member.ok_or_else(|| RunError::UnknownName(options.name.clone()))?;
    Ok(Identity { member, cluster, founders, remotes: Vec::new() })
}

/// The founding members of a list, and the cluster that they are.
fn members_of(cluster: &[(String, Vec<String>)], token: &str) -> (Vec<Member>, ClusterId) {
    let mut founders = Vec::new();
    for (name, urls) in cluster {
        let id = member_id(urls, token);
        let peer_urls = Some(urls.clone());
        founders.push(Member { id: id.0, peer_urls, name: name.clone(), ..Member::default() });
    }
    // Bootstrap entries are in the order of the ids, the same on all members.
    founders.sort_unstable_by_key(|member| member.id);
    let ids: Vec<_> = founders.iter().map(|member| MemberId(member.id)).collect();
    (founders, cluster_id(&ids))
}

/// No two members are reached at one URL: each would be told what is meant for the other.
///
/// # Errors
/// etcd's text.
//= etcd 3.7.3: server/config/config.go#CheckDuplicateURL
pub fn refuse_shared_urls(cluster: &[(String, Vec<String>)]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    if cluster.iter().flat_map(|(_, urls)| urls).all(|url| seen.insert(url)) {
        return Ok(());
    }
    Err(format!("initial cluster {} has duplicate url", shown(cluster)))
}

/// A cluster as etcd shows it: `name=URL` for each URL, sorted.
fn shown(cluster: &[(String, Vec<String>)]) -> String {
    let named = |(name, urls): &(String, Vec<String>)| {
        urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
    };
    let mut all: Vec<String> = cluster.iter().flat_map(named).collect();
    all.sort_unstable();
    all.join(",")
}

/// What is made up for a member whose log names it.
fn unlisted(options: &Options) -> Identity {
    let member = member_id(&options.advertise_peer_urls, &options.initial_cluster_token);
    Identity { member, cluster: cluster_id(&[member]), founders: Vec::new(), remotes: Vec::new() }
}

/// Founders and others must agree on where this member is reached.
//= etcd 3.7.1: server/config/config.go#advertiseMatchesCluster
fn advertises_what_is_listed(options: &Options) -> Result<(), RunError> {
    let own = options.initial_cluster.iter().find(|(name, _)| *name == options.name);
    let listed = own.map(|(_, urls)| urls.as_slice()).unwrap_or_default();
    let advertised = &options.advertise_peer_urls;
    if same_urls(listed, advertised) {
        return Ok(());
    }
    let (name, sorted) = (&options.name, |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort_unstable();
        urls
    });
    let (listed, advertised) = (sorted(listed), sorted(advertised));
    let without = |urls: &[String], others: &[String]| {
        let missing = urls.iter().filter(|url| !others.contains(url));
        missing.cloned().collect::<Vec<_>>()
    };
    let named = |urls: &[String]| {
        let named: Vec<_> = urls.iter().map(|url| format!("{name}={url}")).collect();
        named.join(",")
    };
    let missing = without(&listed, &advertised);
    Err(RunError::Bootstrap(if missing.is_empty() {
        let missing = without(&advertised, &listed).join(",");
        let named = named(&advertised);
        format!(
            "--initial-advertise-peer-urls has {missing} but missing from --initial-cluster={named}"
        )
    } else {
        let (missing, advertised) = (named(&missing), advertised.join(","));
        format!(
            "--initial-cluster has {missing} but missing from \
             --initial-advertise-peer-urls={advertised} (resolved urls: {advertised:?} != \
             {listed:?})",
            listed = listed.join(","),
        )
    }))
}

/// Whether the others know this member as one that has served clients already.
//= etcd 3.7.1: server/etcdserver/cluster_util.go#isMemberBootstrapped
async fn is_bootstrapped(
    client: &Client,
    urls: &[String],
    own: MemberId,
) -> Result<bool, RunError> {
    for url in urls {
        // Founders that are not up yet are the usual case.
        let answer = client.members(std::slice::from_ref(url), Duration::from_secs(1)).await;
        if let Ok(cluster) = answer {
            let known = cluster.members.iter().find(|member| member.id == own.0);
            return Ok(known.is_some_and(|member| !member.client_urls.is_empty()));
        }
    }
    Ok(false)
}

//= etcd 3.7.1: server/etcdserver/bootstrap.go#bootstrapExistingClusterNoWAL
async fn join(
    client: &Client,
    options: &Options,
    urls: &[String],
    founded: Identity,
) -> Result<Identity, RunError> {
    let existing = client.members(urls, PEER_TIMEOUT).await.map_err(|_| {
        let why = "cannot fetch cluster info from peer urls: could not retrieve cluster \
                   information from the given URLs";
        RunError::Bootstrap(why.to_owned())
    })?;
    let own = assign(&founded.founders, &existing, &options.name)
        .map_err(|why| RunError::Bootstrap(format!("error validating peerURLs {why}")))?;
    if !is_compatible(client, &existing, own).await {
        let why = "incompatible with current running cluster";
        return Err(RunError::Bootstrap(why.to_owned()));
    }
    let RemoteCluster { id, members } = existing;
    Ok(Identity { member: own, cluster: id, founders: Vec::new(), remotes: members })
}

/// Finds the member of the running cluster that this one is: the lists must have the same peer
/// URLs.
//= etcd 3.7.1: server/etcdserver/api/membership/cluster.go#ValidateClusterAndAssignIDs
fn assign(configured: &[Member], existing: &RemoteCluster, name: &str) -> Result<MemberId, String> {
    let show = || {
        let member =
            |m: &RemoteMember| format!("{{ID:{} PeerURLs:{:?}}}", MemberId(m.id), m.peer_urls);
        existing.members.iter().map(member).collect::<Vec<_>>().join(" ")
    };
    if configured.len() != existing.members.len() {
        return Err(format!("{}: member count is unequal", show()));
    }
    let mut own = None;
    for member in &existing.members {
        let is_it =
            |c: &&Member| same_urls(c.peer_urls.as_deref().unwrap_or_default(), &member.peer_urls);
        match configured.iter().find(is_it) {
            Some(found) if found.name == name => own = Some(MemberId(member.id)),
            Some(_) => {}
            None => {
                return Err(format!(
                    "{}: PeerURLs: no match found for existing member ({}, [{}]), last resolver \
                     error (<nil>)",
                    show(),
                    MemberId(member.id),
                    member.peer_urls.join(" ")
                ));
            }
        }
    }
    own.ok_or_else(|| format!("{}: the local member is not among them", show()))
}

/// Whether two lists of URLs lead to the same places, by text or else by address.
//= etcd 3.7.1: pkg/netutil/netutil.go#URLStringsEqual
fn same_urls(a: &[String], b: &[String]) -> bool {
    let texts = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort_unstable();
        urls
    };
    if texts(a) == texts(b) {
        return true;
    }
    match (places(a), places(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn places(urls: &[String]) -> Option<Vec<(String, Vec<SocketAddr>)>> {
    let mut places = Vec::new();
    for url in urls {
        let parsed = Url::parse(url).ok()?;
        let mut addresses: Vec<_> = parsed.host().to_socket_addrs().ok()?.collect();
        addresses.sort_unstable();
        addresses.dedup();
        places.push((url.split("://").next().unwrap_or_default().to_owned(), addresses));
    }
    places.sort_unstable();
    Some(places)
}

/// Whether the cluster's version lets this binary join. Members that do not answer are skipped; one
/// must.
//= etcd 3.7.1: server/etcdserver/cluster_util.go#isCompatibleWithCluster
async fn is_compatible(client: &Client, existing: &RemoteCluster, own: MemberId) -> bool {
    let lowest = Version { major: 3, minor: 0 };
    let highest = Version::parse(CLUSTER_VERSION).unwrap_or(lowest);
    let mut found = false;
    let mut downgrading = false;
    for member in existing.members.iter().filter(|member| member.id != own.0) {
        let Ok(versions) = client.version(&member.peer_urls, PEER_TIMEOUT).await else { continue };
        let Some(version) = Version::parse(&versions.cluster) else { continue };
        downgrading = downgrading
            || client.downgrade_enabled(&member.peer_urls, PEER_TIMEOUT).await.unwrap_or(false);
        if version < lowest {
            return false;
        }
        // While a downgrade goes on, only the version that it leads to may join.
        let fits = if downgrading { version.before() == Some(highest) } else { version <= highest };
        if !fits {
            return false;
        }
        found = true;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, url: &str) -> Member {
        let peer_urls = Some(vec![url.to_owned()]);
        Member { id, peer_urls, name: name.to_owned(), ..Member::default() }
    }

    fn remote(id: u64, url: &str) -> RemoteMember {
        RemoteMember { id, peer_urls: vec![url.to_owned()], ..RemoteMember::default() }
    }

    #[test]
    fn a_founder_advertises_what_its_list_says() {
        let with = |name: &str, listed: &str, advertised: &str| Options {
            name: name.to_owned(),
            initial_cluster: vec![("a".to_owned(), vec![listed.to_owned()])],
            advertise_peer_urls: vec![advertised.to_owned()],
            ..Options::default()
        };
        let here = "http://127.0.0.1:2380";
        assert!(advertises_what_is_listed(&with("a", here, here)).is_ok());
        assert!(
            advertises_what_is_listed(&with("a", "http://localhost:1", "http://127.0.0.1:1"))
                .is_ok()
        );
        let why = advertises_what_is_listed(&with("a", here, "http://127.0.0.1:1")).unwrap_err();
        assert_eq!(
            why.to_string(),
            "--initial-cluster has a=http://127.0.0.1:2380 but missing from \
             --initial-advertise-peer-urls=http://127.0.0.1:1 (resolved urls: \
             \"http://127.0.0.1:1\" != \"http://127.0.0.1:2380\")"
        );
        assert_eq!(
            founded(&with("b", here, here)).unwrap_err().to_string(),
            "couldn't find local name \"b\" in the initial cluster configuration"
        );
    }

    #[test]
    fn two_members_at_one_url_are_refused() {
        let options = Options {
            name: "m".to_owned(),
            initial_cluster: ["n", "m"]
                .map(|name| (name.to_owned(), vec!["http://127.0.0.1:1".to_owned()]))
                .to_vec(),
            ..Options::default()
        };
        let why = "initial cluster m=http://127.0.0.1:1,n=http://127.0.0.1:1 has duplicate url";
        assert_eq!(founded(&options).unwrap_err().to_string(), why);
        let mut once = options.initial_cluster;
        once[0].1 = vec!["http://127.0.0.1:2".to_owned()];
        assert_eq!(refuse_shared_urls(&once), Ok(()));
    }

    #[test]
    fn a_joining_member_is_the_one_with_its_urls() {
        let configured =
            [member(1, "a", "http://127.0.0.1:1"), member(2, "b", "http://localhost:2")];
        let members = vec![remote(7, "http://127.0.0.1:1"), remote(9, "http://localhost:2")];
        let existing = RemoteCluster { id: ClusterId(5), members };
        assert_eq!(assign(&configured, &existing, "b"), Ok(MemberId(9)));
        assert!(assign(&configured, &existing, "c").is_err());
        let why = assign(&configured[..1], &existing, "a").unwrap_err();
        assert!(why.ends_with("member count is unequal"), "{why}");
        let members = vec![remote(7, "http://127.0.0.1:1"), remote(9, "http://127.0.0.1:3")];
        let other = RemoteCluster { id: ClusterId(5), members };
        assert!(assign(&configured, &other, "a").unwrap_err().contains("no match found"));
    }
}
