//! The alarms that are set, by member and kind.

use std::collections::BTreeSet;

use api::etcdserverpb::{AlarmMember, AlarmType};
use bytes::Bytes;
use prost::Message;
use store::{Bucket, Op};

/// The alarms that are set. The kind is kept as its number: one from a newer version is stored
/// and listed like any other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms(BTreeSet<(i32, u64)>);

fn op(kind: i32, member: u64, set: bool) -> Op {
    let alarm = AlarmMember { member_id: member, alarm: kind };
    let value = set.then(Bytes::new);
    Op { bucket: Bucket::Alarm, key: alarm.encode_to_vec().into(), value }
}

impl Alarms {
    /// Restores an alarm that was read from the backend.
    pub fn insert_stored(&mut self, alarm: AlarmMember) {
        self.0.insert((alarm.alarm, alarm.member_id));
    }

    /// Whether any member raised this alarm.
    #[must_use]
    pub fn is_set(&self, kind: AlarmType) -> bool {
        self.0.range((kind as i32, 0)..=(kind as i32, u64::MAX)).next().is_some()
    }

    /// Sets an alarm. Returns it, and the write that stores it if it was not set before. NONE is
    /// never set.
    //= etcd 3.7.1: server/etcdserver/api/v3alarm/alarms.go#Activate
    pub fn set(&mut self, kind: i32, member: u64) -> (Vec<AlarmMember>, Option<Op>) {
        if kind == AlarmType::None as i32 {
            return (Vec::new(), None);
        }
        let new = self.0.insert((kind, member));
        let alarm = AlarmMember { member_id: member, alarm: kind };
        (vec![alarm], new.then(|| op(kind, member, true)))
    }

    /// Clears an alarm. Returns it, and the write that deletes it, if it was set.
    pub fn clear(&mut self, kind: i32, member: u64) -> (Vec<AlarmMember>, Option<Op>) {
        if !self.0.remove(&(kind, member)) {
            return (Vec::new(), None);
        }
        let alarm = AlarmMember { member_id: member, alarm: kind };
        (vec![alarm], Some(op(kind, member, false)))
    }

    /// The alarms of a kind; NONE lists all.
    #[must_use]
    pub fn list(&self, kind: i32) -> Vec<AlarmMember> {
        self.0
            .iter()
            .filter(|(k, _)| kind == AlarmType::None as i32 || *k == kind)
            .map(|(k, member)| AlarmMember { member_id: *member, alarm: *k })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_twice_stores_once_and_clearing_what_is_not_set_is_no_error() {
        let mut alarms = Alarms::default();
        let nospace = AlarmType::Nospace as i32;
        assert!(alarms.set(nospace, 7).1.is_some());
        let (again, stored) = alarms.set(nospace, 7);
        assert_eq!((again.len(), stored), (1, None));
        assert!(alarms.is_set(AlarmType::Nospace) && !alarms.is_set(AlarmType::Corrupt));
        assert_eq!(alarms.clear(nospace, 8), (vec![], None));
        assert!(alarms.clear(nospace, 7).1.is_some());
        assert_eq!(alarms, Alarms::default());
        assert_eq!(alarms.set(0, 7), (vec![], None));
    }
}
