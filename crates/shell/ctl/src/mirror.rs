//! make-mirror: copies keys to another cluster, and every change after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::error::ApiError;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::{
    DeleteRangeRequest, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
use api::method::Method;
use api::mvccpb::Event;
use bytes::Bytes;
use cli::{Exit, Values, output};
use client::{Client, Leader, Told, Watches, prefix_end, watches};

use crate::kv::first;
use crate::session::{Context, failed};

/// Keys that are read at once.
//= etcd 3.7.3: client/v3/mirror/syncer.go#batchLimit
const BATCH_KEYS: i64 = 1_000;

/// How often the number of copied changes is printed.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// What is copied, and where to.
struct Mirror<'a> {
    source: &'a Client,
    target: Client,
    prefix: Bytes,
    /// What takes the prefix's place.
    target_prefix: Bytes,
    /// Most operations of one transaction.
    max_ops: u64,
    /// Changes that were copied.
    count: Arc<AtomicU64>,
}

/// make-mirror.
///
/// # Errors
/// Always: it runs until something fails, as etcdctl's.
//= etcd 3.7.3: etcdctl/ctlv3/command/make_mirror_command.go#makeMirror
pub fn make_mirror(context: &Context) -> Result<(), Exit> {
    let values = &context.values;
    let target = context.destination(first(values))?;
    let session = context.open()?;
    if values.is_on("no-dest-prefix") && !values.text("dest-prefix").is_empty() {
        return Err(Exit::args(
            "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
        ));
    }
    let prefix = Bytes::copy_from_slice(values.text("prefix").as_bytes());
    let from = values.int("rev").saturating_sub(1).max(0);
    let mirror = Mirror {
        source: session.client(),
        target,
        target_prefix: target_prefix(values, &prefix, from),
        prefix,
        max_ops: values.uint("max-txn-ops"),
        count: Arc::default(),
    };
    session.wait(async {
        let count = Arc::clone(&mirror.count);
        let counting = tokio::spawn(async move {
            loop {
                tokio::time::sleep(COUNT_EVERY).await;
                output::out(format!("{}\n", count.load(Ordering::Relaxed)));
            }
        });
        let ended = mirror.run(from).await;
        counting.abort();
        Err(ended)
    })
}

/// Where nothing is said, keys keep their names; unless a revision is given, for then etcdctl takes
/// the prefix off.
fn target_prefix(values: &Values, prefix: &Bytes, from: i64) -> Bytes {
    let given = values.text("dest-prefix");
    if given.is_empty() && !values.is_on("no-dest-prefix") && from == 0 {
        return prefix.clone();
    }
    Bytes::copy_from_slice(given.as_bytes())
}

impl Mirror<'_> {
    /// Copies what is there, unless a revision is given, and then each change. Gives why it ended.
    async fn run(&self, from: i64) -> Exit {
        let from = if from == 0 { self.copy_all().await } else { Ok(from) };
        match from {
            Ok(from) => self.follow(from.saturating_add(1)).await,
            Err(exit) => exit,
        }
    }

    /// Copies all keys as of one revision, and gives that.
    //= etcd 3.7.3: client/v3/mirror/syncer.go#SyncBase
    async fn copy_all(&self) -> Result<i64, Exit> {
        // Any key tells the revision; with authentication the prefix is what may be read.
        let any =
            if self.prefix.is_empty() { Bytes::from_static(b"foo") } else { self.prefix.clone() };
        let asked = RangeRequest { key: any, ..RangeRequest::default() };
        let answer: RangeResponse =
            self.source.call(Method::Range, &asked, None).await.map_err(failed)?;
        let revision = answer.header.unwrap_or_default().revision;
        let (mut key, range_end) = self.range();
        loop {
            let request = RangeRequest {
                key,
                range_end: range_end.clone(),
                limit: BATCH_KEYS,
                revision,
                ..RangeRequest::default()
            };
            let found: RangeResponse =
                self.source.call(Method::Range, &request, None).await.map_err(failed)?;
            let last = found.kvs.last().map(|kv| kv.key.clone());
            for kv in found.kvs {
                let (key, value) = (self.renamed(&kv.key), kv.value);
                let put = PutRequest { key, value, ..PutRequest::default() };
                let _: PutResponse =
                    self.target.call(Method::Put, &put, None).await.map_err(failed)?;
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            match last {
                Some(last) if found.more => key = Bytes::from([&last[..], b"\0"].concat()),
                _ => return Ok(revision),
            }
        }
    }

    /// All keys with the prefix.
    fn range(&self) -> (Bytes, Bytes) {
        if self.prefix.is_empty() {
            return (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        }
        (self.prefix.clone(), prefix_end(&self.prefix))
    }

    async fn follow(&self, start_revision: i64) -> Exit {
        let (key, range_end) = self.range();
        let mut watches = Watches::new(self.source, Leader::Awaited);
        watches.add(WatchCreateRequest {
            key,
            range_end,
            start_revision,
            ..WatchCreateRequest::default()
        });
        loop {
            let response = match watches.next().await {
                Told::Response(_, response) => response,
                Told::Ended(_, error) => return failed(error),
            };
            if response.compact_revision != 0 {
                return Exit::new(Exit::ERROR, ApiError::Compacted.text());
            }
            if let Err(exit) = self.copy_changes(&response).await {
                return exit;
            }
            if response.canceled {
                return Exit::new(Exit::ERROR, watches::why_canceled(&response));
            }
        }
    }

    /// Copies changes: those of one revision in one transaction, if it holds as many.
    async fn copy_changes(&self, response: &WatchResponse) -> Result<(), Exit> {
        let mut ops: Vec<RequestOp> = Vec::new();
        let mut last = 0;
        for event in &response.events {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            let is_next = last != 0 && revision > last;
            if is_next || ops.len() as u64 == self.max_ops && !ops.is_empty() {
                self.commit(std::mem::take(&mut ops)).await?;
            }
            last = revision;
            ops.push(self.op(event));
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        if ops.is_empty() { Ok(()) } else { self.commit(ops).await }
    }

    fn op(&self, event: &Event) -> RequestOp {
        let kv = event.kv.clone().unwrap_or_default();
        let key = self.renamed(&kv.key);
        let request = if watches::is_delete(event) {
            Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
        } else {
            Request::RequestPut(PutRequest { key, value: kv.value, ..PutRequest::default() })
        };
        RequestOp { request: Some(request) }
    }

    async fn commit(&self, ops: Vec<RequestOp>) -> Result<(), Exit> {
        let request = TxnRequest { success: ops, ..TxnRequest::default() };
        let _: TxnResponse = self.target.call(Method::Txn, &request, None).await.map_err(failed)?;
        Ok(())
    }

    /// A key's name at the target.
    fn renamed(&self, key: &Bytes) -> Bytes {
        let rest = key.strip_prefix(&self.prefix[..]).unwrap_or(key);
        if self.prefix == self.target_prefix {
            return key.clone();
        }
        Bytes::from([&self.target_prefix[..], rest].concat())
    }
}
