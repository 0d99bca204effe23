//! Ranges of the model, as etcd's does them: fetch, filter, sort, cut.
//!
//! //= etcd 3.7.1: server/etcdserver/txn/range.go#executeRange

use api::error::ApiError;
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::{RangeRequest, RangeResponse};
use api::mvccpb::KeyValue;
use bytes::Bytes;

use crate::answer::{RangeAnswer, SortKey, header};
use crate::state::State;

/// Whether `key` lies in the interval that (low, end) mean (semantics A11).
pub(crate) fn inside(key: &[u8], low: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == low,
        [0] => key >= low,
        _ => key >= low && key < end,
    }
}

impl State {
    /// The live keys of an interval at a revision, in key order.
    #[must_use]
    pub fn live(&self, low: &[u8], end: &[u8], at: i64) -> Vec<KeyValue> {
        let from = Bytes::copy_from_slice(low);
        self.keys
            .range(from..)
            .take_while(|(key, _)| inside(key, low, end))
            .filter_map(|(key, _)| self.kv(key, at))
            .collect()
    }

    /// The answer to a range by a store whose newest revision is `current` and that has compacted
    /// nothing that is asked for.
    ///
    /// # Errors
    /// The revision is in the future.
    pub fn range_as_of(&self, r: &RangeRequest, current: i64) -> Result<RangeAnswer, ApiError> {
        if r.revision > current {
            return Err(ApiError::FutureRevision);
        }
        let at = if r.revision > 0 { r.revision } else { current };
        let mut kvs = self.live(&r.key, &r.range_end, at);
        let count = kvs.len() as i64;
        let mut response =
            RangeResponse { header: header(current), count, ..RangeResponse::default() };
        if r.count_only {
            return Ok(RangeAnswer { response, sorted: None });
        }
        let (order, target) = (r.sort_order(), r.sort_target());
        let limit = usize::try_from(r.limit).unwrap_or(0);
        let filters =
            (r.max_mod_revision, r.min_mod_revision, r.max_create_revision, r.min_create_revision);
        let default_order =
            order == SortOrder::None || (target == SortTarget::Key && order == SortOrder::Ascend);
        if default_order && filters == (0, 0, 0, 0) && limit > 0 {
            kvs.truncate(limit + 1);
        }
        let at_most = |n: i64, bound: i64| bound == 0 || n <= bound;
        let at_least = |n: i64, bound: i64| bound == 0 || n >= bound;
        kvs.retain(|kv| {
            at_most(kv.mod_revision, filters.0)
                && at_least(kv.mod_revision, filters.1)
                && at_most(kv.create_revision, filters.2)
                && at_least(kv.create_revision, filters.3)
        });
        let mut sorted: Vec<(SortKey, KeyValue)> =
            kvs.into_iter().map(|kv| (sort_key(&kv, target), kv)).collect();
        // Stable, from key order: ties come in that order.
        if order == SortOrder::Descend {
            sorted.sort_by(|a, b| b.0.cmp(&a.0));
        } else {
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
        }
        if r.keys_only {
            for (_, kv) in &mut sorted {
                kv.value = Bytes::new();
                // Answered from the index alone, which knows no leases (semantics B11).
                if target != SortTarget::Value {
                    kv.lease = 0;
                }
            }
        }
        response.more = limit > 0 && sorted.len() > limit;
        let cut = if limit > 0 { limit } else { usize::MAX };
        response.kvs = sorted.iter().take(cut).map(|(_, kv)| kv.clone()).collect();
        let sorted = (target != SortTarget::Key).then_some(sorted);
        Ok(RangeAnswer { response, sorted })
    }

    /// The answer to a range now.
    ///
    /// # Errors
    /// The revision is compacted or in the future.
    pub fn range(&self, r: &RangeRequest) -> Result<RangeAnswer, ApiError> {
        if r.revision > 0 && r.revision <= self.revision && r.revision < self.compact {
            return Err(ApiError::Compacted);
        }
        self.range_as_of(r, self.revision)
    }
}

fn sort_key(kv: &KeyValue, target: SortTarget) -> SortKey {
    match target {
        SortTarget::Key => SortKey::Bytes(kv.key.clone()),
        SortTarget::Version => SortKey::Number(kv.version),
        SortTarget::Create => SortKey::Number(kv.create_revision),
        SortTarget::Mod => SortKey::Number(kv.mod_revision),
        SortTarget::Value => SortKey::Bytes(kv.value.clone()),
    }
}
