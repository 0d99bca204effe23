use super::*;

fn ids(ids: &[u64]) -> Vec<MemberId> {
    ids.iter().copied().map(MemberId).collect()
}

fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
    ConfState { voters: ids(voters), learners: ids(learners), ..ConfState::default() }
}

/// Parses `v1 l2 r3 u4`: make a voter, make a learner, remove, update.
fn changes(text: &str) -> Vec<ConfChangeSingle> {
    let one = |word: &str| {
        let kind = match &word[..1] {
            "v" => ConfChangeKind::AddNode,
            "l" => ConfChangeKind::AddLearner,
            "r" => ConfChangeKind::RemoveNode,
            "u" => ConfChangeKind::UpdateNode,
            _ => panic!("{word}"),
        };
        ConfChangeSingle { kind, node: MemberId(word[1..].parse().unwrap()) }
    };
    text.split_whitespace().map(one).collect()
}

fn apply(
    start: &ConfState,
    transition: Transition,
    text: &str,
) -> Result<ConfState, ConfChangeError> {
    let (conf, progress) = Changer::restore(start, Index(5), 8)?;
    let change = ConfChangeV2 { transition, changes: changes(text), ..ConfChangeV2::default() };
    Changer::new(&conf, &progress, Index(9), 8).apply(&change).map(|(conf, progress)| {
        let mut everybody = [&conf.voters[..], &conf.voters_outgoing, &conf.learners].concat();
        everybody.sort_unstable();
        everybody.dedup();
        assert_eq!(progress.keys().copied().collect::<Vec<_>>(), everybody);
        conf
    })
}

#[test]
fn one_member_at_a_time_changes_without_a_joint_configuration() {
    use Transition::Auto;
    let three = conf(&[1, 2, 3], &[]);
    assert_eq!(apply(&conf(&[], &[]), Auto, "v1"), Ok(conf(&[1], &[])));
    assert_eq!(apply(&three, Auto, "v4"), Ok(conf(&[1, 2, 3, 4], &[])));
    assert_eq!(apply(&three, Auto, "v2"), Ok(three.clone()));
    assert_eq!(apply(&three, Auto, "l4"), Ok(conf(&[1, 2, 3], &[4])));
    assert_eq!(apply(&three, Auto, "l2"), Ok(conf(&[1, 3], &[2])));
    assert_eq!(apply(&three, Auto, "r2"), Ok(conf(&[1, 3], &[])));
    assert_eq!(apply(&three, Auto, "r9"), Ok(three.clone()));
    assert_eq!(apply(&three, Auto, "u2"), Ok(three.clone()));
    assert_eq!(apply(&three, Auto, "v0"), Ok(three));
    assert_eq!(apply(&conf(&[1], &[2]), Auto, "v2"), Ok(conf(&[1, 2], &[])));
    assert_eq!(apply(&conf(&[1], &[]), Auto, "r1"), Err(ConfChangeError::NoVoters));
    assert_eq!(apply(&conf(&[1], &[]), Auto, "l1"), Err(ConfChangeError::NoVoters));
    assert_eq!(apply(&conf(&[1], &[]), Auto, ""), Err(ConfChangeError::NotJoint));
}

#[test]
fn several_members_change_through_a_joint_configuration() {
    let three = conf(&[1, 2, 3], &[]);
    let joint = apply(&three, Transition::Auto, "l2 v4 l5 r3").unwrap();
    let expected = ConfState {
        voters: ids(&[1, 4]),
        learners: ids(&[5]),
        voters_outgoing: ids(&[1, 2, 3]),
        learners_next: ids(&[2]),
        auto_leave: true,
    };
    assert_eq!(joint, expected);
    assert_eq!(apply(&joint, Transition::Auto, ""), Ok(conf(&[1, 4], &[2, 5])));
    assert_eq!(apply(&joint, Transition::Auto, "v6"), Err(ConfChangeError::AlreadyJoint));
    assert_eq!(apply(&joint, Transition::JointExplicit, "v6"), Err(ConfChangeError::AlreadyJoint));
    let explicit = apply(&three, Transition::JointExplicit, "v4").unwrap();
    assert!(!explicit.auto_leave);
    assert!(apply(&three, Transition::JointImplicit, "v4").unwrap().auto_leave);
    assert_eq!(apply(&conf(&[], &[]), Transition::Auto, "v1 v2"), Err(ConfChangeError::NoVoters));
}

#[test]
fn contradictory_memberships_are_not_restored() {
    let restore = |conf: &ConfState| Changer::restore(conf, Index(5), 8).map(|(conf, _)| conf);
    let joint = ConfState { voters_outgoing: ids(&[2]), ..conf(&[1], &[]) };
    assert_eq!(restore(&conf(&[3, 1], &[7, 2])), Ok(conf(&[1, 3], &[2, 7])));
    assert!(restore(&joint).is_ok());
    assert!(restore(&ConfState { learners_next: ids(&[2]), ..joint.clone() }).is_ok());
    for bad in [
        conf(&[], &[1]),
        conf(&[1, 1], &[]),
        conf(&[0], &[]),
        conf(&[1], &[1]),
        ConfState { auto_leave: true, ..conf(&[1], &[]) },
        ConfState { auto_leave: true, ..conf(&[], &[]) },
        ConfState { learners_next: ids(&[1]), ..conf(&[1], &[]) },
        ConfState { learners_next: ids(&[3]), ..joint.clone() },
        ConfState { learners_next: ids(&[1]), voters_outgoing: ids(&[1]), ..conf(&[1], &[]) },
        ConfState { learners: ids(&[2]), ..joint },
    ] {
        assert!(restore(&bad).is_err(), "{bad:?}");
    }
}
