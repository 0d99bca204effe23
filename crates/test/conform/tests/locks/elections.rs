//! Elections.

use api::v3electionpb::{
    LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse, ResignRequest, ResignResponse,
};
use conform::{Masked, on_shared_pair};

use super::*;

const NOT_LEADER: &str = "election: not leader";

async fn leader(s: &mut Session, name: &str) -> Result<LeaderResponse, Failure> {
    s.call(LEADER, &LeaderRequest { name: bytes(name) }).await
}

async fn proclaim(
    s: &mut Session,
    leader: Option<LeaderKey>,
    value: &str,
) -> Result<ProclaimResponse, Failure> {
    s.call(PROCLAIM, &ProclaimRequest { leader, value: bytes(value) }).await
}

async fn resign(s: &mut Session, leader: Option<LeaderKey>) -> Result<ResignResponse, Failure> {
    s.call(RESIGN, &ResignRequest { leader }).await
}

/// What an observer is told next, written down.
async fn told(s: &mut Session, observer: &mut Stream) -> String {
    let answer = observer.next::<LeaderResponse>(PATIENCE).await;
    let mut answer = answer.expect("the stream goes on").expect("in time");
    answer.mask();
    s.note(format!("{answer:?}"));
    String::from_utf8_lossy(&answer.kv.expect("it names a key").value).into_owned()
}

#[test]
fn a_leader_is_elected_proclaims_and_resigns() {
    on_shared_pair(async |s| {
        s.grant(0x1a, 100).await.unwrap();
        fails(leader(s, "e").await, UNKNOWN, "election: no leader");
        let answer = campaign(s, "e", 0x1a, "v").await.unwrap();
        let key = answer.leader.unwrap();
        assert_eq!((&key.name[..], &key.key[..], key.lease), (&b"e"[..], &b"e/1a"[..], 0x1a));
        assert_eq!(leader(s, "e").await.unwrap().kv.unwrap().value, "v");
        proclaim(s, Some(key.clone()), "w").await.unwrap();
        let kv = leader(s, "e").await.unwrap().kv.unwrap();
        assert_eq!((&kv.value[..], kv.create_revision), (&b"w"[..], key.rev));
        // A second campaign of the same session proclaims.
        let again = campaign(s, "e", 0x1a, "x").await.unwrap();
        assert_eq!(again.leader.unwrap().rev, key.rev);
        assert_eq!(leader(s, "e").await.unwrap().kv.unwrap().value, "x");
        campaign(s, "e", 0x1a, "x").await.unwrap();
        resign(s, Some(key.clone())).await.unwrap();
        fails(leader(s, "e").await, UNKNOWN, "election: no leader");
        // Resigning twice is well; proclaiming is not.
        resign(s, Some(key.clone())).await.unwrap();
        fails(proclaim(s, Some(key), "y").await, UNKNOWN, NOT_LEADER);
        s.revoke(0x1a).await.unwrap();
    });
}

#[test]
fn refusals_are_etcds() {
    on_shared_pair(async |s| {
        let missing = "\"leader\" field must be provided";
        fails(proclaim(s, None, "v").await, UNKNOWN, missing);
        fails(resign(s, None).await, UNKNOWN, missing);
        let no_lease = "etcdserver: requested lease not found";
        fails(campaign(s, "e", 99, "v").await, UNKNOWN, no_lease);
        fails(proclaim(s, leader_key("e", "e/none", 1, 99), "v").await, UNKNOWN, NOT_LEADER);
        fails(proclaim(s, leader_key("e", "e/none", 0, 99), "v").await, UNKNOWN, no_lease);
        let empty = "etcdserver: key is not provided";
        fails(proclaim(s, leader_key("e", "", 0, 99), "v").await, UNKNOWN, empty);
        fails(resign(s, leader_key("e", "", 0, 99)).await, UNKNOWN, empty);
        resign(s, leader_key("e", "e/none", 7, 99)).await.unwrap();
        // Without a lease one is granted, whatever becomes of it.
        resign(s, leader_key("e", "e/none", 7, 0)).await.unwrap();
        fails(proclaim(s, leader_key("e", "e/none", 7, 0), "v").await, UNKNOWN, NOT_LEADER);
        assert!(s.client().raw(CAMPAIGN, b"\xff").await.is_err());
    });
}

#[test]
fn candidates_lead_one_after_another() {
    on_shared_pair(async |s| {
        for lease in [0x21, 0x22, 0x23] {
            s.grant(lease, 100).await.unwrap();
        }
        let first = campaign(s, "e", 0x21, "one").await.unwrap().leader;
        let request =
            |lease, value| CampaignRequest { name: bytes("e"), lease, value: bytes(value) };
        let mut second = begin(s, CAMPAIGN, &request(0x22, "two")).await;
        until_keys(s, "e/", &["e/21", "e/22"]).await;
        let third = begin(s, CAMPAIGN, &request(0x23, "three")).await;
        until_keys(s, "e/", &["e/21", "e/22", "e/23"]).await;
        assert_eq!(leader(s, "e").await.unwrap().kv.unwrap().value, "one");
        drop(third);
        until_keys(s, "e/", &["e/21", "e/22"]).await;
        resign(s, first).await.unwrap();
        let answer = second.next::<CampaignResponse>(PATIENCE).await;
        let mut answer = answer.expect("elected").expect("in time");
        answer.mask();
        s.note(format!("{answer:?}"));
        assert_eq!(leader(s, "e").await.unwrap().kv.unwrap().value, "two");
        for lease in [0x21, 0x22, 0x23] {
            s.revoke(lease).await.unwrap();
        }
    });
}

#[test]
fn an_observer_sees_leaders_and_what_they_proclaim() {
    on_shared_pair(async |s| {
        for lease in [0x31, 0x32] {
            s.grant(lease, 100).await.unwrap();
        }
        let mut early = begin(s, OBSERVE, &LeaderRequest { name: bytes("e") }).await;
        let first = campaign(s, "e", 0x31, "one").await.unwrap().leader;
        assert_eq!(told(s, &mut early).await, "one");
        // Not before it listens would it see each.
        proclaim(s, first.clone(), "uno").await.unwrap();
        assert_eq!(told(s, &mut early).await, "uno");
        s.put(&put("elsewhere", "v")).await.unwrap();
        let mut late = begin(s, OBSERVE, &LeaderRequest { name: bytes("e") }).await;
        assert_eq!(told(s, &mut late).await, "uno");
        let request = CampaignRequest { name: bytes("e"), lease: 0x32, value: bytes("two") };
        let mut second = begin(s, CAMPAIGN, &request).await;
        until_keys(s, "e/", &["e/31", "e/32"]).await;
        resign(s, first).await.unwrap();
        let second = second.next::<CampaignResponse>(PATIENCE).await.unwrap().unwrap().leader;
        for observer in [&mut early, &mut late] {
            assert_eq!(told(s, observer).await, "two");
        }
        proclaim(s, second, "due").await.unwrap();
        for observer in [&mut early, &mut late] {
            assert_eq!(told(s, observer).await, "due");
        }
        for lease in [0x31, 0x32] {
            s.revoke(lease).await.unwrap();
        }
    });
}
