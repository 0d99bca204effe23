//! The compactions that a member makes by itself.

use std::rc::Rc;
use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::CompactionRequest;
use env::buggify;
use machine::CommandKind;
use member::{AutoCompaction, Retention};
use prost::Message;

use crate::member::Member;

/// The pause of a simulation that is in a hurry.
const ODD_INTERVAL: Duration = Duration::from_secs(1);

/// Compacts as `retention` says. Never returns.
pub async fn compact_by_itself(member: Rc<Member>, retention: Retention) {
    let mut auto = AutoCompaction::new(retention, member.now());
    loop {
        let revision = member.view().revision();
        if let Some(target) = auto.step(member.now(), revision, member.status().is_leader) {
            let request = CompactionRequest { revision: target.0, physical: false };
            let outcome =
                member.propose_own(CommandKind::Compaction, &request.encode_to_vec()).await;
            let done = match outcome {
                Ok(outcome) => matches!(outcome.reply, Ok(_) | Err(ApiError::Compacted)),
                Err(_) => false,
            };
            if done {
                auto.succeeded(member.now(), target);
            }
        }
        // By revisions it looks only every five minutes.
        let is_odd = buggify!(member.shared.hooks, "calls: compaction looks again soon");
        member.sleep(if is_odd { ODD_INTERVAL } else { auto.interval() }).await;
    }
}
