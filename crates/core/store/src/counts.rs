//! What was done to the store since the process started, for metrics. No state: it is not stored,
//! and nothing depends on it.

/// Operations by kind, as etcd's `etcd_mvcc_*_total` count them.
///
/// //= etcd 3.7.1: server/storage/mvcc/metrics_txn.go
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ranges within transactions that write.
    pub ranges: u64,
    /// Puts.
    pub puts: u64,
    /// Bytes of keys and values put.
    pub put_bytes: u64,
    /// Deletes, whatever they covered.
    pub deletes: u64,
    /// Transactions of more than one operation.
    pub txns: u64,
    /// Dead versions that compactions removed.
    pub compacted: u64,
}
