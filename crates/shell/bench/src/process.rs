//! A process's CPU time and memory, from /proc.

use std::cell::Cell;
use std::rc::Rc;
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
///
/// The scheduler's nanoseconds per thread where the kernel tells them, less those of threads that
/// have ended; else the process's ticks of 10 ms.
#[must_use]
pub fn cpu(pid: u32) -> Option<Duration> {
    threads_cpu(pid).or_else(|| ticks_cpu(pid))
}

fn threads_cpu(pid: u32) -> Option<Duration> {
    let mut nanos = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let Ok(text) = std::fs::read_to_string(task.ok()?.path().join("schedstat")) else {
            continue;
        };
        nanos += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    (nanos > 0).then(|| Duration::from_nanos(nanos))
}

fn ticks_cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // USER_HZ is 100 on every Linux that runs today.
    Some(Duration::from_millis(ticks * 10))
}

/// CPU time that several processes used so far; `None` if one is gone.
#[must_use]
pub fn cpu_of(pids: &[u32]) -> Option<Duration> {
    pids.iter().map(|pid| cpu(*pid)).sum()
}

/// Anonymous memory of several processes in bytes; those that are gone have none.
#[must_use]
pub fn anonymous_of(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|pid| memory(*pid)).map(|m| m.anonymous).sum()
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

/// Watches the anonymous memory of processes together; must be made on a `LocalSet`.
pub struct PeakMemory {
    peak: Rc<Cell<u64>>,
    task: tokio::task::JoinHandle<()>,
    pids: Vec<u32>,
}

impl PeakMemory {
    /// Looks every 10 ms from now on.
    #[must_use]
    pub fn watch(pids: &[u32]) -> Self {
        let pids = pids.to_vec();
        let peak = Rc::new(Cell::new(anonymous_of(&pids)));
        let (seen, watched) = (Rc::clone(&peak), pids.clone());
        let task = tokio::task::spawn_local(async move {
            loop {
                seen.set(seen.get().max(anonymous_of(&watched)));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { peak, task, pids }
    }

    /// The most that was seen, in bytes, now included.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.peak.get().max(anonymous_of(&self.pids))
    }
}

impl Drop for PeakMemory {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pid = std::process::id();
        let before = cpu(pid).unwrap();
        let mut sum = 0u64;
        while cpu(pid).unwrap() < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(memory(pid).unwrap().anonymous > 0);
        assert!(ticks_cpu(pid).unwrap() + Duration::from_secs(1) > before);
    }
}
