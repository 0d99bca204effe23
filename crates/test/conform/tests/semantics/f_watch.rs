//! F: watches.

use std::time::{Duration, Instant};

use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use api::mvccpb::Event;
use api::mvccpb::event::EventType;
use conform::{Masked, Session, Stream, on_fresh_pair, on_shared_pair};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing must come.
const SILENCE: Duration = Duration::from_millis(300);
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// A watch stream.
struct Watching(Stream);

impl Watching {
    async fn open(s: &Session) -> Self {
        Self(s.client().open(WATCH, None, false).await)
    }

    fn send(&mut self, union: RequestUnion) {
        self.0.send(&WatchRequest { request_union: Some(union) });
    }

    fn create(&mut self, request: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(request));
    }

    fn cancel(&mut self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }

    fn progress(&mut self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    }

    async fn take(&mut self, patience: Duration) -> Option<WatchResponse> {
        let next = self.0.next::<WatchResponse>(patience).await.expect("the stream goes on");
        next.map(|mut response| {
            response.mask();
            response
        })
    }

    /// The next response, which goes into the transcript.
    async fn next(&mut self, s: &mut Session) -> WatchResponse {
        let response = self.take(PATIENCE).await.expect("a response in time");
        s.note(format!("{response:?}"));
        response
    }

    /// Creates a watch that must be accepted; returns its id.
    async fn begin(&mut self, s: &mut Session, request: WatchCreateRequest) -> i64 {
        self.create(request);
        let response = self.next(s).await;
        assert!(response.created && !response.canceled, "{response:?}");
        response.watch_id
    }

    /// So many events, however they are spread over responses.
    async fn events(&mut self, s: &mut Session, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.take(PATIENCE).await.expect("events in time");
            assert!(!response.canceled && !response.events.is_empty(), "{response:?}");
            events.extend(response.events);
        }
        assert_eq!(events.len(), count);
        s.note(format!("{events:?}"));
        events
    }

    async fn silence(&mut self) {
        let response = self.take(SILENCE).await;
        assert!(response.is_none(), "{response:?}");
    }
}

fn watch(key: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

fn from(key: &str, end: &str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { start_revision, ..watch(key, end) }
}

fn key_of(event: &Event) -> String {
    let kv = event.kv.as_ref().expect("every event has a key-value");
    String::from_utf8_lossy(&kv.key).into_owned()
}

fn mod_of(event: &Event) -> i64 {
    event.kv.as_ref().expect("every event has a key-value").mod_revision
}

#[test]
fn f1_a_watch_is_created_at_the_current_revision() {
    on_shared_pair(async |s| {
        let revision = s.set("a", "1").await;
        let mut w = Watching::open(s).await;
        w.create(watch("a", ""));
        let created = w.next(s).await;
        assert!(created.created && !created.canceled && created.events.is_empty());
        assert_eq!((created.watch_id, revision_of(created.header)), (0, revision));
    });
}

#[test]
fn f2_f18_a_watch_begins_where_it_is_told() {
    on_shared_pair(async |s| {
        let first = s.set("a", "1").await;
        let second = s.set("a", "2").await;
        let mut w = Watching::open(s).await;
        w.begin(s, watch("a", "")).await;
        w.begin(s, from("a", "", first)).await;
        // History follows its `created` at once.
        let events = w.events(s, 2).await;
        assert_eq!(events.iter().map(mod_of).collect::<Vec<_>>(), [first, second]);
        w.cancel(1);
        w.next(s).await;
        w.begin(s, from("a", "", second + 2)).await;
        s.set("a", "3").await;
        let response = w.next(s).await;
        assert_eq!((response.watch_id, response.events.len()), (0, 1), "not the one of the future");
        s.set("a", "4").await;
        let mut ids = [w.take(PATIENCE).await.unwrap(), w.take(PATIENCE).await.unwrap()]
            .map(|response| (response.watch_id, mod_of(&response.events[0])));
        ids.sort_unstable();
        assert_eq!(ids, [(0, second + 2), (2, second + 2)]);
    });
}

#[test]
fn f3_a_negative_start_is_refused_as_compacted() {
    on_shared_pair(async |s| {
        let mut w = Watching::open(s).await;
        w.create(from("a", "", -1));
        let refused = w.next(s).await;
        assert!(refused.created && refused.canceled);
        assert_eq!((refused.watch_id, refused.compact_revision), (-1, 0));
        assert_eq!(refused.cancel_reason, COMPACTED);
        w.begin(s, watch("a", "")).await;
    });
}

#[test]
fn f4_a_compacted_start_cancels_after_created() {
    on_shared_pair(async |s| {
        let first = s.set("a", "1").await;
        s.set("a", "2").await;
        let last = s.set("a", "3").await;
        s.compact(last, true).await.unwrap();
        let mut w = Watching::open(s).await;
        w.begin(s, from("a", "", first)).await;
        let cancelled = w.next(s).await;
        assert!(cancelled.canceled && cancelled.cancel_reason.is_empty());
        assert_eq!(cancelled.compact_revision, last);
        assert_eq!(revision_of(cancelled.header), 0);
    });
}

/// A put that is not written down.
async fn quiet_put(s: &Session, key: &str, value: &str) -> i64 {
    let (path, request) = ("/etcdserverpb.KV/Put", put(key, value));
    let answer: api::etcdserverpb::PutResponse = s.client().call(path, &request).await.unwrap();
    revision_of(answer.header)
}

/// A client that does not read while so many values of 100 kB are put.
async fn stall(s: &mut Session, puts: i64) -> (Watching, i64) {
    let client = s.connect(65_535).await;
    let mut w = Watching(client.open(WATCH, None, false).await);
    w.begin(s, watch("slow", "")).await;
    let value = "v".repeat(100_000);
    let mut last = 0;
    for _ in 0..puts {
        last = quiet_put(s, "slow", &value).await;
    }
    (w, last)
}

#[test]
fn f5_a_slow_watch_that_falls_behind_a_compaction_is_cancelled() {
    on_shared_pair(async |s| {
        let (mut w, last) = stall(s, 400).await;
        s.compact(last, true).await.unwrap();
        let mut next = last - 399;
        loop {
            let response = w.take(PATIENCE).await.expect("events, then the end");
            if response.canceled {
                assert!(response.cancel_reason.is_empty(), "{response:?}");
                assert_eq!(response.compact_revision, last);
                break;
            }
            for event in &response.events {
                assert_eq!(mod_of(event), next, "nothing is left out before the end");
                next += 1;
            }
        }
        assert!(next <= last, "it was behind");
    });
}

#[test]
fn f26_a_slow_watch_loses_nothing() {
    on_shared_pair(async |s| {
        let (mut w, last) = stall(s, 300).await;
        let mut next = last - 299;
        while next <= last {
            let response = w.take(PATIENCE).await.expect("events in time");
            for event in &response.events {
                assert_eq!(mod_of(event), next);
                next += 1;
            }
        }
    });
}

#[test]
fn f6_ids_are_chosen_upwards_or_given_once() {
    on_shared_pair(async |s| {
        let mut w = Watching::open(s).await;
        let with = |watch_id| WatchCreateRequest { watch_id, ..watch("a", "") };
        assert_eq!(w.begin(s, with(0)).await, 0);
        assert_eq!(w.begin(s, with(2)).await, 2);
        assert_eq!(w.begin(s, with(0)).await, 1);
        assert_eq!(w.begin(s, with(0)).await, 3);
        w.create(with(2));
        let refused = w.next(s).await;
        assert!(refused.created && refused.canceled && refused.watch_id == -1);
        assert!(refused.cancel_reason.contains("duplicate watch ID"), "{refused:?}");
        w.cancel(3);
        w.next(s).await;
        assert_eq!(w.begin(s, with(0)).await, 4, "a chosen id is not chosen again");
        assert_eq!(w.begin(s, with(-1)).await, -1);
        assert_eq!(w.begin(s, with(i64::MIN)).await, i64::MIN);
    });
}

#[test]
fn f7_an_empty_range_is_refused_before_the_id_is_looked_at() {
    on_shared_pair(async |s| {
        let mut w = Watching::open(s).await;
        w.begin(s, WatchCreateRequest { watch_id: 5, ..watch("a", "") }).await;
        for (key, end) in [("b", "a"), ("b", "b")] {
            w.create(WatchCreateRequest { watch_id: 5, ..watch(key, end) });
            let refused = w.next(s).await;
            assert!(refused.created && refused.canceled && refused.watch_id == -1);
            assert!(refused.cancel_reason.contains("range is empty"), "{refused:?}");
        }
        w.cancel(5);
        w.next(s).await;
        let all = w.begin(s, watch("", "\0")).await;
        s.set("zz", "1").await;
        assert_eq!(w.next(s).await.watch_id, all);
        w.cancel(all);
        w.next(s).await;
        w.begin(s, watch("m", "\0")).await;
        s.set("a", "1").await;
        s.set("z", "1").await;
        assert_eq!(key_of(&w.events(s, 1).await[0]), "z");
    });
}

#[test]
fn f8_a_cancel_is_answered_if_there_was_a_watch() {
    on_shared_pair(async |s| {
        let mut w = Watching::open(s).await;
        w.begin(s, watch("a", "")).await;
        w.cancel(9);
        w.cancel(0);
        let cancelled = w.next(s).await;
        assert!(cancelled.canceled && !cancelled.created && cancelled.cancel_reason.is_empty());
        assert_eq!(cancelled.watch_id, 0);
        w.cancel(0);
        s.set("a", "1").await;
        w.silence().await;
    });
}

#[test]
fn f9_a_cancelled_id_is_free_but_a_compacted_watch_keeps_its_own() {
    on_shared_pair(async |s| {
        let with = |watch_id| WatchCreateRequest { watch_id, ..watch("a", "") };
        let mut w = Watching::open(s).await;
        w.begin(s, with(4)).await;
        w.cancel(4);
        w.next(s).await;
        w.begin(s, with(4)).await;
        let first = s.set("b", "1").await;
        let last = s.set("b", "2").await;
        s.compact(last, true).await.unwrap();
        let behind = WatchCreateRequest { watch_id: 6, ..from("b", "", first) };
        w.begin(s, behind.clone()).await;
        assert_eq!(w.next(s).await.compact_revision, last);
        w.create(with(6));
        let refused = w.next(s).await;
        assert!(refused.canceled && refused.cancel_reason.contains("duplicate"), "{refused:?}");
        w.cancel(6);
        let second = w.next(s).await;
        assert!(second.canceled && second.compact_revision == 0);
        w.begin(s, with(6)).await;
    });
}

#[test]
fn f10_a_revision_comes_whole_and_history_in_pieces_of_a_thousand() {
    on_shared_pair(async |s| {
        let mut w = Watching::open(s).await;
        w.begin(s, watch("a", "b")).await;
        let puts = ["a1", "a2", "a3"].map(|key| op_put(put(key, "1")));
        s.txn(&then(puts.to_vec())).await.unwrap();
        assert_eq!(w.next(s).await.events.len(), 3);
        let first = s.revision().await + 1;
        for n in 0..1_050 {
            let puts = [format!("x{n}"), format!("y{n}")].map(|key| op_put(put(&key, "")));
            let (path, request) = ("/etcdserverpb.KV/Txn", then(puts.to_vec()));
            s.client().call::<TxnResponse>(path, &request).await.unwrap();
        }
        let mut w = Watching::open(s).await;
        w.begin(s, from("x", "z", first)).await;
        let (mut count, mut responses) = (0, 0);
        while count < 2_100 {
            let response = w.take(PATIENCE).await.expect("events in time");
            let mut revisions: Vec<_> = response.events.iter().map(mod_of).collect();
            for pair in revisions.chunks(2) {
                assert_eq!(pair.first(), pair.last(), "a transaction is never split");
            }
            revisions.dedup();
            assert!(revisions.len() <= 1_000);
            count += response.events.len();
            responses += 1;
        }
        assert!(responses > 1);
    });
}

#[test]
fn f11_events_come_in_the_order_of_their_changes() {
    on_shared_pair(async |s| {
        let mut w = Watching::open(s).await;
        w.begin(s, watch("a", "b")).await;
        let puts = ["a3", "a1", "a2"].map(|key| op_put(put(key, "1")));
        s.txn(&then(puts.to_vec())).await.unwrap();
        let live = w.next(s).await;
        let keys: Vec<_> = live.events.iter().map(key_of).collect();
        assert_eq!(keys, ["a3", "a1", "a2"]);
        let revision = revision_of(live.header);
        assert_eq!(mod_of(&live.events[0]), revision);
        let later = s.set("z", "1").await;
        w.begin(s, from("a", "b", revision)).await;
        let history = w.next(s).await;
        assert_eq!(revision_of(history.header), later, "history comes at the current revision");
        assert_eq!(history.events, live.events);
    });
}

#[test]
fn f12_f13_a_delete_tells_its_key_and_what_was_before() {
    on_shared_pair(async |s| {
        let mut w = Watching::open(s).await;
        let first = s.revision().await + 1;
        w.begin(s, WatchCreateRequest { prev_kv: true, ..watch("a", "") }).await;
        s.set("a", "1").await;
        s.set("a", "2").await;
        let deleted = s.unset("a").await;
        s.set("a", "3").await;
        let events = w.events(s, 4).await;
        let before: Vec<_> =
            events.iter().map(|e| e.prev_kv.as_ref().map(|kv| kv.value.clone())).collect();
        assert_eq!(before, [None, Some(bytes("1")), Some(bytes("2")), None]);
        let gone = events[2].kv.as_ref().unwrap();
        assert_eq!(events[2].r#type(), EventType::Delete);
        assert_eq!((gone.mod_revision, gone.create_revision, gone.version), (deleted, 0, 0));
        assert!(gone.value.is_empty());
        // What was before is told as long as it is there.
        s.compact(first + 1, true).await.unwrap();
        w.begin(s, WatchCreateRequest { prev_kv: true, ..from("a", "", first + 1) }).await;
        let events = w.events(s, 3).await;
        assert!(events[0].prev_kv.is_none() && events[1].prev_kv.is_some());
    });
}

#[test]
fn f14_filters_leave_puts_or_deletes_out() {
    on_shared_pair(async |s| {
        let filtered =
            |filters: &[i32]| WatchCreateRequest { filters: filters.to_vec(), ..watch("a", "") };
        let mut puts = Watching::open(s).await;
        let mut deletes = Watching::open(s).await;
        let mut neither = Watching::open(s).await;
        puts.begin(s, filtered(&[1])).await;
        deletes.begin(s, filtered(&[0])).await;
        neither.begin(s, filtered(&[0, 1])).await;
        s.set("a", "1").await;
        s.unset("a").await;
        s.set("a", "2").await;
        s.unset("a").await;
        assert!(puts.events(s, 2).await.iter().all(|e| e.r#type() == EventType::Put));
        assert!(deletes.events(s, 2).await.iter().all(|e| e.r#type() == EventType::Delete));
        neither.silence().await;
    });
}

#[test]
fn f15_an_idle_watch_is_told_the_revision() {
    on_fresh_pair(&["--watch-progress-notify-interval", "300ms"], async |s| {
        let mut w = Watching::open(s).await;
        let told = WatchCreateRequest { progress_notify: true, ..watch("a", "") };
        let id = w.begin(s, told).await;
        w.begin(s, watch("b", "")).await;
        for _ in 0..2 {
            let revision = s.set("other", "1").await;
            let began = Instant::now();
            let mut newest = 0;
            // The first may have been on its way with the revision before.
            while newest < revision {
                let response = w.take(PATIENCE).await.expect("a notification");
                assert!(response.events.is_empty() && !response.created && !response.canceled);
                assert_eq!(response.watch_id, id, "only who asked for it");
                newest = revision_of(response.header);
            }
            assert_eq!(newest, revision);
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
        // Whoever gets events needs none.
        let began = Instant::now();
        let (mut events, mut notes) = (0, 0);
        while began.elapsed() < Duration::from_millis(1_500) {
            quiet_put(s, "a", "1").await;
            let response = w.take(PATIENCE).await.expect("an event");
            events += response.events.len();
            notes += usize::from(response.events.is_empty());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(events > 10 && notes <= 1, "{notes} notifications beside {events} events");
    });
}

#[test]
fn f16_progress_is_told_when_all_watches_of_the_stream_are_synced() {
    on_shared_pair(async |s| {
        let mut w = Watching::open(s).await;
        w.progress();
        w.silence().await;
        w.begin(s, watch("a", "")).await;
        let revision = s.set("b", "1").await;
        w.progress();
        let told = w.next(s).await;
        assert_eq!((told.watch_id, revision_of(told.header)), (-1, revision));
        // A watch of the future is behind nobody, but nothing is told until it has begun.
        let future = w.begin(s, from("a", "", revision + 2)).await;
        w.progress();
        w.silence().await;
        w.cancel(future);
        w.next(s).await;
        s.set("b", "2").await;
        let last = s.set("b", "3").await;
        s.compact(last, true).await.unwrap();
        let behind = w.begin(s, from("b", "", revision)).await;
        assert!(w.next(s).await.canceled);
        w.progress();
        w.silence().await;
        w.cancel(behind);
        w.next(s).await;
        w.progress();
        assert_eq!(revision_of(w.next(s).await.header), last);
    });
}

#[test]
fn f17_large_responses_are_split_only_for_those_who_ask() {
    on_fresh_pair(&["--max-request-bytes", "65536"], async |s| {
        for n in 0..24 {
            s.set(&format!("a{n:02}"), &"v".repeat(60_000)).await;
        }
        // One revision: where history is cut into responses is each server's own business.
        let first = s.revision().await + 1;
        s.delete(&delete("a", "b")).await.unwrap();
        for fragment in [true, false] {
            let mut w = Watching::open(s).await;
            let create = WatchCreateRequest { fragment, prev_kv: true, ..from("a", "b", first) };
            w.begin(s, create).await;
            let (mut events, mut shape) = (Vec::new(), Vec::new());
            while events.len() < 24 {
                let response = w.take(PATIENCE).await.expect("events in time");
                shape.push((response.events.len(), response.fragment));
                events.extend(response.events);
            }
            assert_eq!(shape.iter().any(|(_, more)| *more), fragment);
            assert!(!shape.last().unwrap().1, "the last one is no fragment");
            s.note(format!("{events:?}"));
        }
    });
}

#[test]
fn f22_a_half_close_ends_nothing() {
    on_shared_pair(async |s| {
        let mut w = Watching::open(s).await;
        w.begin(s, watch("a", "")).await;
        w.0.half_close();
        w.silence().await;
        s.set("a", "1").await;
        assert_eq!(w.next(s).await.events.len(), 1);
    });
}

#[test]
fn f25_what_is_unknown_is_ignored() {
    on_shared_pair(async |s| {
        let mut w = Watching::open(s).await;
        w.0.send(&WatchRequest { request_union: None });
        w.begin(s, WatchCreateRequest { filters: vec![7, -3], ..watch("a", "") }).await;
        s.set("a", "1").await;
        assert_eq!(w.next(s).await.events.len(), 1);
    });
}

#[test]
fn f27_a_key_put_and_deleted_in_one_transaction_gives_both_events() {
    on_shared_pair(async |s| {
        let mut w = Watching::open(s).await;
        w.begin(s, watch("y", "z")).await;
        let both = vec![op_put(put("y", "1")), op_delete(delete("y", "\0"))];
        s.txn(&then(both)).await.unwrap();
        let response = w.next(s).await;
        let types: Vec<_> = response.events.iter().map(Event::r#type).collect();
        assert_eq!(types, [EventType::Put, EventType::Delete]);
        assert_eq!(mod_of(&response.events[0]), mod_of(&response.events[1]));
    });
}
