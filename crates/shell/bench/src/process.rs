//! A process's CPU time and memory, from /proc.

use std::time::Duration;

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Anonymous pages (RssAnon).
    pub anonymous: u64,
    /// Pages of files (RssFile).
    pub file: u64,
}

/// CPU time used so far, user and system; `None` if there is no such process.
#[must_use]
pub fn cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // USER_HZ is 100 on every Linux that runs today.
    Some(Duration::from_millis(ticks * 10))
}

/// Resident memory now; `None` if there is no such process.
#[must_use]
pub fn memory(pid: u32) -> Option<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(Memory { anonymous: value("RssAnon:")?, file: value("RssFile:")? })
}
