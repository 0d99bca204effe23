//! What happened in a trace: a comparison of groups in which nothing happens is worth nothing.

use std::collections::BTreeSet;

/// Counts over traces.
#[derive(Debug, Default)]
pub struct Figures {
    pub commands: u64,
    pub messages: u64,
    pub delivered: u64,
    pub duplicated: u64,
    pub lost: u64,
    /// Terms that had a leader.
    pub elections: u64,
    pub written: u64,
    pub commits: u64,
    pub memberships: u64,
    /// Among `memberships`, those of two configurations at once that are left automatically.
    pub joint: u64,
    pub learners: u64,
    pub snapshots: u64,
    pub reads: u64,
    pub transfers: u64,
    pub forwarded: u64,
    pub restarts: u64,
    pub crashes: u64,
    pub compactions: u64,
    pub reports: u64,
}

impl Figures {
    /// Adds one trace.
    pub fn count(&mut self, trace: &str) {
        let mut terms = BTreeSet::new();
        for line in trace.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            if words[0] == ">" {
                self.commands += 1;
            }
            match (words[0], words.get(1).copied().unwrap_or_default()) {
                (">", "deliver") => self.delivered += 1,
                (">", "dup") => self.duplicated += 1,
                (">", "drop") => self.lost += 1,
                (">", "restart") => self.restarts += 1,
                (">", "crash") => self.crashes += 1,
                (">", "compact") => self.compactions += 1,
                (">", "unreachable" | "snapstatus") => self.reports += 1,
                ("MSG", _) => {
                    self.messages += 1;
                    self.transfers += u64::from(words[3] == "MsgTimeoutNow");
                    self.forwarded += u64::from(words[3] == "MsgProp");
                }
                ("ENT", _) => self.written += 1,
                ("COMMIT", _) => self.commits += 1,
                ("CONF", _) => {
                    self.memberships += 1;
                    self.joint += u64::from(line.ends_with("2801"));
                }
                ("PROGRESS", _) => self.learners += u64::from(line.contains("learner=true")),
                ("SNAP", _) => self.snapshots += 1,
                ("READ", _) => self.reads += 1,
                ("STATUS", _) if line.contains("StateLeader") => {
                    terms.insert(words[2].to_owned());
                }
                _ => {}
            }
        }
        self.elections += terms.len() as u64;
    }
}
