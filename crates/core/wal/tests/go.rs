//! Our reader against Go's: for every flipped bit of a log the same verdict.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use api::raftpb;
use bytes::Bytes;
use env::mem::MemDisk;
use env::{Access, Disk, MayBlock, Open};
use types::{ClusterId, MemberId};
use wal::writer::{Beginning, metadata};
use wal::{ReadError, Wal, read_all};

const SEGMENT: &str = "0000000000000000-0000000000000000.wal";
/// Zeroes that are kept behind the records, so that a flipped length finds some.
const ROOM: usize = 1_500;

fn oracle() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/oracle");
    let dir = std::env::var_os("QUORATE_ORACLES").map_or(default, PathBuf::from);
    let path = dir.join("wal/wal");
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("QUORATE_CI").is_none(), "{} is missing", path.display());
    eprintln!("SKIPPED: {} was not built", path.display());
    None
}

/// The bytes of a small log, and where its records end.
fn small_log() -> (Vec<u8>, usize) {
    let may = MayBlock::on_this_thread();
    let disk = MemDisk::new();
    let dir = Path::new("/wal");
    let beginning = Beginning::default();
    let id = metadata(MemberId(7), ClusterId(9));
    let mut log = Wal::create(Arc::new(disk.clone()), dir, &may, id, &beginning).unwrap();
    for index in 1..=4u64 {
        let data = Bytes::from(vec![index as u8; 40 * index as usize]);
        let (term, index) = (Some(1), Some(index));
        log.append(&raftpb::Entry { r#type: None, term, index, data: Some(data) });
        let commit = index.map(|i| i - 1);
        log.append_hard_state(&raftpb::HardState { term, vote: Some(7), commit });
    }
    log.write(&may).unwrap();
    let end = log.end() as usize;
    drop(log);
    let file = disk.open(&may, &dir.join(SEGMENT), Open::Read).unwrap();
    let mut bytes = vec![0; end + ROOM];
    file.read_at(&may, &mut bytes, 0, Access::Scan).unwrap();
    (bytes, end)
}

fn verdict(bytes: &[u8]) -> String {
    let may = MayBlock::on_this_thread();
    let disk = MemDisk::new();
    let file = disk.open(&may, &Path::new("/").join(SEGMENT), Open::CreateNew).unwrap();
    file.write_at(&may, bytes, 0).unwrap();
    match read_all(&disk, Path::new("/"), &may, (0, 0)) {
        Err(ReadError::TornTail { .. }) => "torn".to_owned(),
        Err(_) => "refused".to_owned(),
        Ok(log) => {
            let mut text = String::new();
            for e in &log.entries {
                let (term, index) = (e.term.unwrap_or(0), e.index.unwrap_or(0));
                let kind = e.r#type.unwrap_or(0);
                text.push_str(&format!("{term} {index} {kind} "));
                for byte in e.data.iter().flatten() {
                    text.push_str(&format!("{byte:02x}"));
                }
                text.push(';');
            }
            let state = log.hard_state.unwrap_or_default();
            let (term, vote) = (state.term.unwrap_or(0), state.vote.unwrap_or(0));
            text.push_str(&format!("{term} {vote} {}", state.commit.unwrap_or(0)));
            format!("ok {:08x}", crc32_ieee(text.as_bytes()))
        }
    }
}

/// CRC-32 as Go's `crc32.NewIEEE`, bit by bit: a few hundred bytes per verdict.
fn crc32_ieee(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn every_flipped_bit_gets_gos_verdict() {
    let Some(program) = oracle() else { return };
    let (good, end) = small_log();
    let dir = std::env::temp_dir().join(format!("quorate-wal-flips-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(SEGMENT), &good).unwrap();
    let output =
        Command::new(program).arg("flips").arg(&dir).arg(end.to_string()).output().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<&str> = theirs.lines().collect();
    assert_eq!(theirs.len(), end * 8, "{}", String::from_utf8_lossy(&output.stderr));
    let (mut differences, mut torn, mut refused) = (Vec::new(), 0, 0);
    for at in 0..end {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let (ours, theirs) = (verdict(&bytes), theirs[at * 8 + bit]);
            torn += usize::from(ours == "torn");
            refused += usize::from(ours == "refused");
            if ours != theirs {
                differences.push(format!("byte {at} bit {bit}: ours {ours}, Go's {theirs}"));
            }
        }
    }
    let shown = &differences[..differences.len().min(20)];
    assert!(differences.is_empty(), "{} differ: {shown:#?}", differences.len());
    assert!(torn > 0 && refused > end * 6, "torn {torn}, refused {refused} of {}", end * 8);
}
