//! What a call does: validated, authorized, proposed, read, pinned and rendered.
//!
//! Owns each service of the client port, the questions that members ask each other, and what a
//! member does by itself through the same door: decides the cluster's version, compares hashes,
//! compacts. Runs over one handle to the member ([`Member`]), whose host drains an outbox and hands
//! replies in; the server does that with threads and sockets, the simulator under a seed, and the
//! code in between cannot tell. Never holds a socket, a thread or a clock, and knows neither HTTP/2
//! nor HTTP nor JSON.
//!
//! A unary call is answered in one of three ways ([`Answer`]): now, later by a token, or by a
//! future that waits. Read next: [`dispatch`], [`kv`] (the way of a write and of a read),
//! [`member`](mod@member), [`host`], [`caller`].

pub mod answer;
pub mod audit;
mod auth;
pub mod caller;
mod cluster;
mod compaction;
mod contest;
pub mod corruption;
pub mod credential;
mod decode;
pub mod dispatch;
mod downgrade;
mod election;
mod feed;
mod health;
pub mod host;
pub mod identity;
mod inner;
mod jobs;
pub mod kv;
mod leaderless;
mod lease;
mod list;
mod lock;
mod logins;
mod maintenance;
pub mod member;
pub mod peers;
mod pin;
mod probes;
pub mod published;
mod range_stream;
mod read_txn;
mod render;
mod replies;
mod shared;
pub mod stream;
mod timers;
pub mod validate;
pub mod versions;
mod warm;
mod watch;

pub use self::member::{Member, Outbox};
pub use answer::{Answer, Body, ENVELOPE_BYTES, Encoded, Finish, Local, Pieces, envelope};
pub use audit::{Changes, Ended, Record};
pub use caller::{Caller, Identity, authorize};
pub use compaction::compact_by_itself;
pub use credential::{Credential, Provider, Signer, Verified};
pub use dispatch::{Call, Calls};
pub use feed::Responses;
pub use host::{CompactionHash, Event, HashDiffers, Host, MaintenanceEvent, Measure, Read};
pub use jobs::{Job, JobDropped, LargeResults};
pub use logins::Logins;
pub use probes::PROBES;
pub use published::{PublishedView, ViewSlot};
pub use replies::Recipient;
pub use shared::{ConnectedFor, Limits, Pins, Shared};
pub use stream::{Gone, Sink, Source};
pub use timers::Sleep;
