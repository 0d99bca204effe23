//! Everything that reads bytes from outside, as fuzz targets.
//!
//! Owns the table [`TARGETS`]: a plain function of bytes each, with seeds to start from. None may
//! panic, whatever the bytes (invariant 11). `cargo test` runs the seeds, the corpus and some
//! thousands of mutations of both; `cargo xtask fuzz` runs libFuzzer on the same functions.
//! Read next: [`disk`], [`wire`], [`peers`], [`text`], [`recordings`].

pub mod disk;
pub mod http2_seeds;
pub mod peers;
pub mod recordings;
pub mod text;
pub mod wire;

/// One decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line and in the corpus.
    pub name: &'static str,
    /// Reads the bytes; panics if an invariant breaks.
    pub run: fn(&[u8]),
    /// Well-formed inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every decoder.
pub const TARGETS: &[Target] = &[
    Target { name: "wal-record", run: wal::record::fuzz, seeds: disk::records },
    Target { name: "wal-segment", run: disk::segment, seeds: disk::segments },
    Target { name: "snap-file", run: disk::snap_file, seeds: disk::snap_files },
    Target { name: "bolt-page", run: bolt::fuzz_page, seeds: disk::pages },
    Target { name: "database", run: disk::database, seeds: disk::databases },
    Target { name: "key-value", run: store::fuzz_key_value, seeds: wire::key_values },
    Target { name: "raft-message", run: raft::fuzz_message, seeds: wire::raft_messages },
    Target { name: "peer-streams", run: peer::codec::fuzz_streams, seeds: peers::streams },
    Target {
        name: "peer-snapshot-head",
        run: peer::codec::fuzz_snapshot_head,
        seeds: peers::snapshot_heads,
    },
    Target { name: "peer-text", run: peer::fuzz_text, seeds: peers::texts },
    Target { name: "request", run: wire::requests, seeds: wire::request_seeds },
    Target { name: "envelope", run: grpc::messages::fuzz, seeds: wire::envelopes },
    Target { name: "http2-hpack", run: http2::fuzz::hpack, seeds: http2_seeds::header_blocks },
    Target { name: "http2-frames", run: http2::fuzz::frames, seeds: http2_seeds::frames },
    Target { name: "http2-connection", run: http2::fuzz::connection, seeds: http2_seeds::choices },
    Target { name: "answers", run: bench::light::fuzz_answers, seeds: wire::answers },
    Target { name: "gateway-body", run: text::gateway_body, seeds: text::gateway_bodies },
    Target { name: "http-target", run: rpc::fuzz_targets, seeds: text::targets },
    Target { name: "metadata", run: text::metadata, seeds: text::metadata_seeds },
    Target { name: "configuration", run: text::configuration, seeds: text::configurations },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
