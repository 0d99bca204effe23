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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    prost_build::Config::new().bytes(["."]).enable_type_names().compile_fds(descriptors)?;
    Ok(())
}
