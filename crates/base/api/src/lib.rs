//! etcd's outside as data: messages, errors and methods.
//!
//! Owns the protobuf messages (own .proto files with etcd's names and numbers), the table of
//! errors that clients see ([`error`]), the table of methods ([`method`]) and decoding as lenient
//! as Go's ([`odd`]) over the wire format ([`wire`]). Never knows a transport. Read next: [`method`], [`error`], the .proto files.

pub mod error;
pub mod method;
pub mod odd;
mod redacted;
pub mod wire;

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod generated {
    pub mod authpb {
        include!(concat!(env!("OUT_DIR"), "/authpb.rs"));
    }
    pub mod etcdserverpb {
        include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
    }
    pub mod grpc_health {
        include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
    }
    pub mod leasepb {
        include!(concat!(env!("OUT_DIR"), "/leasepb.rs"));
    }
    pub mod membershippb {
        include!(concat!(env!("OUT_DIR"), "/membershippb.rs"));
    }
    pub mod mvccpb {
        include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
    }
    pub mod raftpb {
        include!(concat!(env!("OUT_DIR"), "/raftpb.rs"));
    }
    pub mod snappb {
        include!(concat!(env!("OUT_DIR"), "/snappb.rs"));
    }
    pub mod v3electionpb {
        include!(concat!(env!("OUT_DIR"), "/v3electionpb.rs"));
    }
    pub mod v3lockpb {
        include!(concat!(env!("OUT_DIR"), "/v3lockpb.rs"));
    }
    pub mod walpb {
        include!(concat!(env!("OUT_DIR"), "/walpb.rs"));
    }
}

pub use generated::{
    authpb, etcdserverpb, grpc_health, leasepb, membershippb, mvccpb, raftpb, snappb, v3electionpb,
    v3lockpb, walpb,
};

/// The serialised `FileDescriptorSet` of all messages, for tools that reflect.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
