//! Damaged files: an error or other content, never a panic or an endless loop.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of core, not core: it reads files, clocks and oracles"
)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bolt::{Db, Flaw, OpenError, Options};
use common::*;
use env::mem::MemDisk;
use env::{Access, Disk, Entropy, Open, SplitMix};

const PS: usize = 1024;

/// A database of some depth with long values, inline buckets and holes; no reader is left.
fn sample() -> (MemDisk, Vec<u8>) {
    let disk = MemDisk::new();
    let mut db = try_open(&disk, PS as u32).unwrap();
    for round in 0..2u64 {
        let mut tx = db.begin_write();
        for name in [&b"key"[..], b"a", b"inline"] {
            tx.create_bucket(&may(), name).unwrap();
        }
        tx.put(&may(), b"inline", b"one", b"two").unwrap();
        for i in 0..50 {
            let key = revision(100 * round + i, i % 2, i % 7 == 0);
            tx.put(&may(), b"key", &key, &[round as u8; 90]).unwrap();
            tx.put(&may(), b"a", &(i * 3 + round).to_be_bytes(), &[4; 70]).unwrap();
        }
        tx.put(&may(), b"a", b"long", &[6; 5_000]).unwrap();
        tx.put(&may(), b"key", &revision(100 * round + 61, 0, false), &[5; 3_000]).unwrap();
        tx.commit(&may()).unwrap();
    }
    let mut tx = db.begin_write();
    for i in 10..40 {
        tx.delete(&may(), b"key", &revision(i, i % 2, i % 7 == 0)).unwrap();
    }
    tx.commit(&may()).unwrap();
    let len = db.size_bytes() as usize;
    drop(db);
    let bytes = bytes_of(&disk)[..len].to_vec();
    (disk, bytes)
}

/// Does to a database whatever its users do. Errors are fine.
fn use_all(disk: &MemDisk, fenced: bool) {
    let options = Options { page_size: PS as u32, fenced_bucket: fenced.then_some(REVISIONS) };
    let path = Path::new(DB);
    if let Ok(db) = Db::open(Arc::new(disk.clone()), path, &may(), options) {
        use_open(db);
    }
}

fn use_open(mut db: Db) {
    let tx = db.begin_read();
    let _ = tx.check(&may()).unwrap();
    let may = may();
    for name in tx.buckets(&may).unwrap_or_default() {
        let pairs = tx.scan(&may, &name, everything(), Access::Scan).count();
        assert!(pairs < 100_000, "a scan ends");
    }
    for main in [0, 5, 161, 222, 1000] {
        for sub in 0..2 {
            let _ = tx.try_get(main, sub, false);
            let _ = tx.get(&may, REVISIONS, &revision(main, sub, true));
        }
        let _ = tx.get(&may, b"a", &main.to_be_bytes());
    }
    let _ = tx.get(&may, b"a", b"long");
    let revs: Vec<(u64, u64)> = (0..300).map(|i| (i, i % 2)).collect();
    let _ = tx.get_many(&may, &revs, &mut |_, _| ());
    drop(tx);
    let mut tx = db.begin_write();
    for name in [REVISIONS, b"a", b"inline"] {
        let mut n = 0;
        let _ = tx.scan(&may, name, everything(), &mut |_, _| {
            n += 1;
            if n < 100_000 { ControlFlow::Continue(()) } else { panic!("a scan ends") }
        });
    }
    for i in 0..300 {
        let _ = tx.delete(&may, REVISIONS, &revision(i, i % 2, false));
        let _ = tx.put(&may, b"a", &i.to_be_bytes(), b"x");
    }
    let _ = tx.delete_bucket(&may, b"inline");
    let _ = tx.commit(&may);
    let mut tx = db.begin_write();
    let _ = tx.delete_bucket(&may, b"a");
    let _ = tx.delete_bucket(&may, REVISIONS);
    let _ = tx.commit(&may);
}

/// Writes into the file without the engine.
fn patch(disk: &MemDisk, at: usize, bytes: &[u8]) {
    let file = disk.open(&may(), Path::new(DB), Open::Write).unwrap();
    file.write_at(&may(), bytes, at as u64).unwrap();
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn any_flipped_bit_in_headers_and_elements_is_survived() {
    let (_, bytes) = sample();
    let mut random = SplitMix::new(8);
    for page in 0..bytes.len() / PS {
        let count = usize::from(u16::from_le_bytes([bytes[page * PS + 10], bytes[page * PS + 11]]));
        let end = (16 + 16 * count).min(PS);
        for at in 0..end {
            // One bit of each byte, another in each run of the loop.
            let bit = random.below(8);
            let mut damaged = bytes.clone();
            damaged[page * PS + at] ^= 1 << bit;
            use_all(&disk_with(&damaged), at % 2 == 0);
        }
    }
}

/// A compressed page of etcd's coming minor has the flag 0x20.
#[test]
fn a_page_with_an_unknown_flag_is_refused_by_its_name() {
    let (_, bytes) = sample();
    let mut refused = 0;
    for page in 2..bytes.len() / PS {
        let mut newer = bytes.clone();
        newer[page * PS + 8] |= 0x20;
        let disk = disk_with(&newer);
        // Free pages are nobody's, and leaves of revisions are read when they are needed.
        let found = match try_open(&disk, PS as u32) {
            Ok(db) => format!("{:?}", db.begin_read().check(&may()).unwrap()),
            Err(e) => {
                let text = format!("page {page} has the flag 0x20, which is unknown here");
                assert!(e.to_string().contains(&text), "{e}");
                refused += 1;
                continue;
            }
        };
        assert!(found == "[]" || found.contains("Flag(32)"), "page {page}: {found}");
    }
    assert!(refused > 3, "{refused} pages were looked at");
}

#[test]
fn opening_to_read_writes_nothing() {
    let open = |disk: &MemDisk| {
        let options = options(PS as u32);
        Db::open_to_read(Arc::new(disk.clone()), Path::new(DB), &may(), options)
    };
    for bytes in [&[][..], &[0; 4 * PS]] {
        let disk = disk_with(bytes);
        assert!(matches!(open(&disk), Err(OpenError::Invalid)));
        assert_eq!(bytes_of(&disk), bytes);
    }
    let (_, bytes) = sample();
    let disk = disk_with(&bytes);
    let db = open(&disk).unwrap();
    assert_eq!(
        content(&db.begin_read()),
        content(&try_open(&disk_with(&bytes), PS as u32).unwrap().begin_read())
    );
    assert!(matches!(open(&disk), Err(OpenError::Locked)));
    drop(db);
    assert_eq!(bytes_of(&disk), bytes);
}

#[test]
fn random_garbage_is_survived() {
    let (_, bytes) = sample();
    let mut random = SplitMix::new(9);
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + random.below(6) {
            let page = 2 + random.below((bytes.len() / PS) as u64 - 2) as usize;
            let at = page * PS + random.below(200) as usize;
            let wild = [0, 1, 0xff, random.next_u64() as u8][random.below(4) as usize];
            damaged[at] = wild;
        }
        use_all(&disk_with(&damaged), random.below(2) == 0);
    }
}

#[test]
fn garbage_that_appears_while_open_is_survived() {
    let (_, bytes) = sample();
    let mut random = SplitMix::new(10);
    for _ in 0..2000 {
        let disk = disk_with(&bytes);
        let db = try_open(&disk, PS as u32).unwrap();
        for _ in 0..1 + random.below(6) {
            let page = 2 + random.below((bytes.len() / PS) as u64 - 2) as usize;
            let within = [random.below(16), random.below(100), random.below(PS as u64)];
            let at = page * PS + within[random.below(3) as usize] as usize;
            let wild = [0, 1, 0xff, random.next_u64() as u8][random.below(4) as usize];
            patch(&disk, at, &[wild]);
        }
        use_open(db);
    }
}

#[test]
fn a_page_that_is_its_own_ancestor_is_refused() {
    let (_, bytes) = sample();
    let mut found = 0;
    for page in 2..bytes.len() / PS {
        let at = page * PS;
        if bytes[at + 8] != 1 {
            continue;
        }
        found += 1;
        for target in [page as u64, 2, bytes.len() as u64 / PS as u64, u64::MAX] {
            let mut damaged = bytes.clone();
            put_u64(&mut damaged, at + 16 + 8, target);
            let disk = disk_with(&damaged);
            match try_open(&disk, PS as u32) {
                Err(OpenError::Corrupt(_)) => {}
                Ok(db) => {
                    // Only a free branch page may lie about its children.
                    assert_eq!(db.check(&may()).unwrap(), []);
                    let tx = db.begin_read();
                    assert_same(&tx, &content(&try_open_copy(&bytes)), "free page");
                    found -= usize::from(target == u64::MAX);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(found >= 2, "the sample has branch pages in use");
}

fn try_open_copy(bytes: &[u8]) -> bolt::ReadTx {
    try_open(&disk_with(bytes), PS as u32).unwrap().begin_read()
}

#[test]
fn a_cycle_that_appears_while_open_ends_in_an_error() {
    let (disk, bytes) = sample();
    let mut db = try_open(&disk, PS as u32).unwrap();
    // Behind the engine's back every branch gets its own id as every child.
    for page in 2..bytes.len() / PS {
        let at = page * PS;
        let count = usize::from(u16::from_le_bytes([bytes[at + 10], bytes[at + 11]]));
        for i in (0..count).filter(|_| bytes[at + 8] == 1) {
            patch(&disk, at + 16 + 16 * i + 8, &(page as u64).to_le_bytes());
        }
    }
    let may = may();
    let tx = db.begin_read();
    assert!(tx.scan(&may, b"a", everything(), Access::Scan).any(|pair| pair.is_err()));
    assert!(tx.get(&may, b"a", b"k").is_err());
    assert!(tx.check(&may).unwrap().iter().any(|e| e.flaw == Flaw::Twice));
    let mut tx = db.begin_write();
    assert!(tx.put(&may, b"a", b"k", b"v").is_err());
    assert!(tx.delete_bucket(&may, b"a").is_err());
    assert!(tx.scan(&may, b"a", everything(), &mut |_, _| ControlFlow::Continue(())).is_err());
}

#[test]
fn the_older_meta_serves_if_the_newer_is_torn() {
    let (_, bytes) = sample();
    let txid = |page: usize| u64::from_le_bytes(bytes[page * PS + 64..][..8].try_into().unwrap());
    let newer = usize::from(txid(1) > txid(0));
    let mut torn = bytes.clone();
    torn[newer * PS + 70] ^= 1;
    let db = try_open(&disk_with(&torn), PS as u32).unwrap();
    assert_eq!(db.txid(), txid(1 - newer));
    assert_eq!(db.check(&may()).unwrap(), []);
    torn[(1 - newer) * PS + 70] ^= 1;
    assert_eq!(try_open(&disk_with(&torn), PS as u32).unwrap_err(), OpenError::Invalid);
}

#[test]
fn the_page_size_is_found_through_the_second_meta() {
    let (_, bytes) = sample();
    for wrong in [1024, 4096, 65_536] {
        let mut damaged = bytes.clone();
        damaged[..200].fill(0xee);
        let db = try_open(&disk_with(&damaged), wrong).unwrap();
        assert_eq!(db.page_size(), PS as u32);
    }
}

#[test]
fn files_that_are_no_database_are_told_apart() {
    let refused = |bytes: &[u8]| try_open(&disk_with(bytes), 4096).unwrap_err();
    assert_eq!(refused(b"hello"), OpenError::Invalid);
    assert_eq!(refused(&[7; 40_000]), OpenError::Invalid);
    assert_eq!(refused(&[0; 400_000]), OpenError::Invalid, "zeroes of that length are no new file");
    let (_, bytes) = sample();
    assert!(
        matches!(refused(&bytes[..bytes.len() - PS]), OpenError::Corrupt(c) if c.flaw == Flaw::Meta)
    );
    let mut other = bytes.clone();
    for page in 0..2 {
        other[page * PS + 20..page * PS + 24].copy_from_slice(&3u32.to_le_bytes());
        let sum =
            other[page * PS + 16..page * PS + 72].iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
                (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3u64)
            });
        put_u64(&mut other, page * PS + 72, sum);
    }
    assert_eq!(refused(&other), OpenError::Version(3));
    let odd = Options { page_size: 5_000, fenced_bucket: None };
    let disk = Arc::new(MemDisk::new());
    let error = Db::open(disk, Path::new(DB), &may(), odd).unwrap_err();
    assert_eq!(error, OpenError::PageSize(5_000));
}

/// The corpus of the page decoder's fuzz target: every page of two files, whole, cut and bent.
#[test]
fn the_page_decoder_survives_its_corpus() {
    let (_, bytes) = sample();
    let mut seen = BTreeMap::new();
    for page in bytes.chunks(PS) {
        *seen.entry(page[8]).or_insert(0) += 1;
        bolt::fuzz_page(page);
        for len in (0..PS).step_by(7) {
            bolt::fuzz_page(&page[..len]);
        }
        let mut bent = page.to_vec();
        for at in 8..200 {
            for value in [0, 1, 0x7f, 0xff] {
                let old = std::mem::replace(&mut bent[at], value);
                bolt::fuzz_page(&bent);
                bent[at] = old;
            }
        }
    }
    assert!(seen[&1] > 1 && seen[&2] > 10, "branches and leaves are in the corpus: {seen:?}");
}
