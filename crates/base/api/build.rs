//! Compiles the .proto files with protox, so that no protoc is needed.

use std::path::PathBuf;

const FILES: [&str; 13] = [
    "auth.proto",
    "etcdserver.proto",
    "health.proto",
    "kv.proto",
    "lease.proto",
    "membership.proto",
    "raft.proto",
    "raft_internal.proto",
    "record.proto",
    "rpc.proto",
    "snap.proto",
    "v3election.proto",
    "v3lock.proto",
];

/// Messages with passwords, their hashes or tokens: `src/redacted.rs` says what is shown of them.
const SECRETS: [&str; 6] = [
    ".authpb.User",
    ".etcdserverpb.AuthUserAddRequest",
    ".etcdserverpb.AuthUserChangePasswordRequest",
    ".etcdserverpb.AuthenticateRequest",
    ".etcdserverpb.AuthenticateResponse",
    ".etcdserverpb.InternalAuthenticateRequest",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]).enable_type_names().skip_debug(SECRETS);
    config.compile_fds(descriptors)?;
    Ok(())
}
