//! Names of segments and which of them a reading starts from.

use std::fmt;
use std::path::Path;

use env::{Disk, MayBlock};

use crate::error::ReadError;

/// The name of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The segment's number, from 0.
    pub sequence: u64,
    /// Index of the first entry that it may hold.
    pub index: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.sequence, self.index)
    }
}

impl Name {
    /// Parses a file name; other files in the directory are none of ours.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (sequence, index) = name.strip_suffix(".wal")?.split_once('-')?;
        let number = |s: &str| {
            let plain = s.len() == 16 && s.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(s, 16).ok()).flatten()
        };
        Some(Self { sequence: number(sequence)?, index: number(index)? })
    }
}

/// All segments of a directory, ascending.
///
/// # Errors
/// The disk's.
pub fn list(disk: &dyn Disk, dir: &Path, may: &MayBlock) -> Result<Vec<Name>, ReadError> {
    let entries = disk.read_dir(may, dir)?;
    Ok(entries.iter().filter_map(|e| Name::parse(&e.name)).collect())
}

/// The segments to read for a log that starts after `index`: the last one that begins at or below
/// it, and all that follow.
///
/// # Errors
/// [`ReadError::FileNotFound`] or [`ReadError::SequenceGap`].
//= etcd 3.7.1: server/storage/wal/wal.go#selectWALFiles
pub fn select(names: &[Name], index: u64) -> Result<&[Name], ReadError> {
    let start = names
        .iter()
        .rposition(|name| name.index <= index)
        .ok_or(ReadError::FileNotFound { index })?;
    let selected = &names[start..];
    check_sequence(selected, selected[0].sequence)?;
    Ok(selected)
}

/// Whether no segment is missing between the first and the last.
///
/// # Errors
/// [`ReadError::SequenceGap`] naming `from`.
pub fn check_sequence(names: &[Name], from: u64) -> Result<(), ReadError> {
    let contiguous =
        names.windows(2).all(|pair| pair[0].sequence.checked_add(1) == Some(pair[1].sequence));
    if contiguous { Ok(()) } else { Err(ReadError::SequenceGap { from }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_strangers_are_ignored() {
        let name = Name { sequence: 0x1f, index: 0xabc };
        assert_eq!(name.to_string(), "000000000000001f-0000000000000abc.wal");
        assert_eq!(Name::parse(&name.to_string()), Some(name));
        for other in ["0.tmp", "1-2.wal", "000000000000001f-0000000000000abc.wal.broken", "x.wal"] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn reading_starts_at_the_last_segment_below_the_snapshot() {
        let names: Vec<_> =
            [(0, 0), (1, 10), (2, 20)].map(|(sequence, index)| Name { sequence, index }).into();
        assert_eq!(select(&names, 15).unwrap().len(), 2);
        assert_eq!(select(&names, 20).unwrap().len(), 1);
        assert_eq!(select(&names[1..], 5), Err(ReadError::FileNotFound { index: 5 }));
        let gap = [names[0], names[2]];
        assert_eq!(select(&gap, 0), Err(ReadError::SequenceGap { from: 0 }));
    }
}
