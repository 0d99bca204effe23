use std::path::PathBuf;

use env::mem::MemDisk;

use super::*;

fn may() -> MayBlock {
    MayBlock::on_this_thread()
}

fn lossy(root: &Path) -> LossyDisk {
    LossyDisk::new(root, Faults::default()).unwrap()
}

/// Everything under a directory that another process would find.
fn tree(disk: &dyn Disk, dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in disk.read_dir(&may(), dir).unwrap() {
        let path = dir.join(&entry.name);
        match entry.kind {
            FileKind::Directory => {
                let below = tree(disk, &path);
                found.push((path, None));
                found.extend(below);
            }
            FileKind::File => {
                let file = disk.open(&may(), &path, Open::Read).unwrap();
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_at(&may(), &mut bytes, 0, Access::Scan).unwrap();
                found.push((path, Some(bytes)));
            }
        }
    }
    found
}

/// One random operation, the same on both disks.
fn operate(disk: &dyn Disk, root: &Path, entropy: &mut SplitMix) {
    let may = may();
    let path = |n: u64| root.join(["a", "b", "d/a", "d/b"][(n % 4) as usize]);
    let (one, other) = (path(entropy.below(4)), path(entropy.below(4)));
    let (at, len) = (entropy.below(20_000), entropy.below(9_000));
    let byte = entropy.below(250) as u8 + 1;
    // Both disks refuse the same: names that are not there.
    match entropy.below(12) {
        0..=4 => {
            if let Ok(file) = disk.open(&may, &one, Open::CreateOrWrite) {
                file.write_at(&may, &vec![byte; len as usize], at).unwrap();
            }
        }
        5 => {
            if let Ok(file) = disk.open(&may, &one, Open::Write) {
                file.set_len(&may, at).unwrap();
            }
        }
        6..=7 => {
            if let Ok(file) = disk.open(&may, &one, Open::Write) {
                file.sync_data(&may).unwrap();
            }
        }
        8 => drop(disk.rename(&may, &one, &other)),
        9 => drop(disk.remove_file(&may, &one)),
        10 => disk.create_dir_all(&may, &root.join("d")).unwrap(),
        _ => {
            let dir = if entropy.below(2) == 0 { root.to_path_buf() } else { root.join("d") };
            disk.sync_dir(&may, &dir).unwrap();
        }
    }
}

#[test]
fn a_kill_leaves_what_the_disk_in_memory_keeps_of_a_power_cut() {
    for seed in 0..300 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let model = MemDisk::new();
        for disk in [&lossy(&root) as &dyn Disk, &model] {
            disk.create_dir_all(&may(), &root.join("d")).unwrap();
            disk.sync_dir(&may(), &root).unwrap();
            disk.sync_dir(&may(), dir.path()).unwrap();
            // MemDisk orders directories above the root too.
            for above in dir.path().ancestors().skip(1) {
                disk.sync_dir(&may(), above).unwrap();
            }
        }
        let mut disk = lossy(&root);
        let (mut left, mut right) = (SplitMix::new(seed), SplitMix::new(seed));
        for step in 0..60 {
            operate(&disk, &root, &mut left);
            operate(&model, &root, &mut right);
            if step % 20 == 19 {
                assert_eq!(tree(&disk, &root), tree(&model, &root), "seed {seed}, step {step}");
                disk = lossy(&root);
                model.crash(None);
                let (ours, models) = (tree(&disk, &root), tree(&model, &root));
                assert_eq!(ours, models, "seed {seed}, kill after step {step}");
            }
        }
    }
}

#[test]
fn early_writeback_keeps_what_was_synced() {
    for seed in 0..100 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let disk = lossy(&root);
        disk.create_dir_all(&may(), &root).unwrap();
        let file = disk.open(&may(), &root.join("f"), Open::CreateNew).unwrap();
        file.write_at(&may(), &[1; 10_000], 0).unwrap();
        file.sync_data(&may()).unwrap();
        disk.sync_dir(&may(), &root).unwrap();
        file.write_at(&may(), &[2; 9_000], 4_096).unwrap();
        let mut entropy = SplitMix::new(seed);
        (0..3).for_each(|_| disk.write_back(&mut entropy));
        let now = tree(&disk, &root);
        assert_eq!(now[0].1.as_ref().unwrap()[4_096..], [2; 9_000], "reading sees what is newest");
        let left = tree(&lossy(&root), &root);
        let bytes = left[0].1.as_ref().unwrap();
        assert_eq!(bytes[..4_096], [1; 4_096]);
        for sector in bytes[4_096..9_728].chunks(512) {
            assert!(sector.iter().all(|b| *b == sector[0] && [1, 2].contains(b)), "seed {seed}");
        }
        file.sync_data(&may()).unwrap();
        assert_eq!(tree(&lossy(&root), &root), now);
    }
}

#[test]
fn bytes_of_a_failed_sync_are_gone_even_if_the_next_one_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("data");
    let disk = LossyDisk::new(&root, Faults::parse("Sync,f,0,1,eio", None).unwrap()).unwrap();
    disk.create_dir_all(&may(), &root).unwrap();
    let file = disk.open(&may(), &root.join("f"), Open::CreateNew).unwrap();
    disk.sync_dir(&may(), &root).unwrap();
    file.write_at(&may(), b"gone", 0).unwrap();
    assert!(file.sync_data(&may()).is_err());
    file.write_at(&may(), b"kept", 4_096).unwrap();
    file.sync_data(&may()).unwrap();
    let mut seen = [0; 4];
    file.read_at(&may(), &mut seen, 0, Access::Point).unwrap();
    assert_eq!(&seen, b"gone", "the cache still shows them");
    let left = tree(&lossy(&root), &root);
    let bytes = left[0].1.as_ref().unwrap();
    assert_eq!((&bytes[..4], &bytes[4_096..]), (&[0; 4][..], &b"kept"[..]));
}
