//! `cargo xtask cluster`: a few members on this machine, until ctrl-c.
//!
//! Invariant: whatever ends this program but a kill, every child is asked to stop and waited for;
//! children are known by their ids, never by their names.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::oracle;
use crate::shell::{cargo, run, target};

/// Pause between looks at signals, children and who leads.
const STEP: Duration = Duration::from_millis(200);
/// Time for a member to stop by itself.
const STOP: Duration = Duration::from_secs(15);

/// Which server a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    Reference,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    kinds: Vec<Kind>,
    /// The first client port; peers' follow behind the clients'.
    port: Option<u16>,
    dir: Option<PathBuf>,
}

fn parse(args: &[&str]) -> Result<Wanted, String> {
    let mut wanted = Wanted { kinds: vec![Kind::Ours; 3], port: None, dir: None };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} wants a value"))?;
        match *flag {
            "--members" => {
                let kind = |word| match word {
                    "ours" => Ok(Kind::Ours),
                    "reference" => Ok(Kind::Reference),
                    other => Err(format!("a member is `ours` or `reference`, not {other:?}")),
                };
                wanted.kinds = value.split(',').map(kind).collect::<Result<_, _>>()?;
            }
            "--port" => {
                wanted.port = Some(value.parse().map_err(|_| format!("{value:?} is no port"))?);
            }
            "--dir" => wanted.dir = Some(value.into()),
            other => return Err(format!("cluster does not know {other}")),
        }
    }
    Ok(wanted)
}

/// Starts the members and shows who leads until ctrl-c or until one ends by itself.
pub fn cluster(args: &[&str]) -> Result<(), String> {
    let Wanted { kinds, port, dir } = parse(args)?;
    let programs = programs(&kinds)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|e| e.to_string())?;
    }
    let ports = ports(port, kinds.len() * 2)?;
    let (clients, peers) = ports.split_at(kinds.len());
    let is_temporary = dir.is_none();
    let dir = dir.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("quorate-cluster-{}", std::process::id()))
    });
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let all: Vec<String> =
        peers.iter().enumerate().map(|(n, port)| format!("{}={}", name(n), url(*port))).collect();
    let all = all.join(",");
    let mut members = Members::default();
    for (number, program) in programs.iter().enumerate() {
        members.start(number, program, &dir, (clients[number], peers[number]), &all)?;
    }
    let endpoints: Vec<String> = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    println!("data and logs in {}", dir.display());
    for (member, kind) in members.0.iter().zip(&kinds) {
        let (name, port, pid) = (&member.name, member.port, member.child.id());
        println!("{name}  http://127.0.0.1:{port}  {kind:?}, process {pid}");
    }
    println!("export ETCDCTL_ENDPOINTS={}", endpoints.join(","));
    let result = members.watch(&stop);
    members.stop();
    if is_temporary && result.is_ok() {
        std::fs::remove_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    result
}

fn programs(kinds: &[Kind]) -> Result<Vec<PathBuf>, String> {
    if kinds.contains(&Kind::Ours) {
        run(&mut cargo(&["build", "--release", "--quiet", "--bin", "etcd"]))?;
    }
    let reference = match kinds.contains(&Kind::Reference) {
        true => oracle::program("etcd")?,
        false => PathBuf::new(),
    };
    let program = |kind: &Kind| match kind {
        Kind::Ours => target().join("release/etcd"),
        Kind::Reference => reference.clone(),
    };
    Ok(kinds.iter().map(program).collect())
}

/// Free ports, or consecutive ones from `first`.
fn ports(first: Option<u16>, count: usize) -> Result<Vec<u16>, String> {
    if let Some(first) = first {
        let count = u16::try_from(count).map_err(|e| e.to_string())?;
        let end = first.checked_add(count).ok_or("there are no ports above 65535")?;
        return Ok((first..end).collect());
    }
    // All are held until the last is found, so that none comes twice.
    let held: Result<Vec<_>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let held = held.map_err(|e| e.to_string())?;
    held.iter().map(|l| Ok(l.local_addr().map_err(|e| e.to_string())?.port())).collect()
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn name(number: usize) -> String {
    format!("m{}", number + 1)
}

struct Member {
    name: String,
    port: u16,
    child: Child,
    log: PathBuf,
}

#[derive(Default)]
struct Members(Vec<Member>);

impl Members {
    fn start(
        &mut self,
        number: usize,
        program: &Path,
        dir: &Path,
        (client, peer): (u16, u16),
        all: &str,
    ) -> Result<(), String> {
        let name = name(number);
        let log = dir.join(format!("{name}.log"));
        let file = std::fs::File::options().create(true).append(true).open(&log);
        let file = file.map_err(|e| format!("{}: {e}", log.display()))?;
        let (client_url, peer_url) = (url(client), url(peer));
        let mut command = Command::new(program);
        command
            .args(["--name", &name, "--data-dir"])
            .arg(dir.join(&name))
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", all])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            // A terminal's ctrl-c reaches this program alone, which then stops the members.
            .process_group(0);
        let child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
        self.0.push(Member { name, port: client, child, log });
        Ok(())
    }

    /// Tells whenever another member leads.
    fn watch(&mut self, stop: &AtomicBool) -> Result<(), String> {
        let mut shown = None;
        while !stop.load(Ordering::Relaxed) {
            for member in &mut self.0 {
                if let Some(status) = member.child.try_wait().map_err(|e| e.to_string())? {
                    let (name, log) = (&member.name, member.log.display());
                    return Err(format!("{name} ended: {status}; see {log}"));
                }
            }
            let leader = self.0.iter().find(|member| leads(member.port)).map(|m| m.name.clone());
            if leader != shown {
                match &leader {
                    Some(name) => println!("{name} leads; ctrl-c stops all"),
                    None => println!("nobody leads"),
                }
                shown = leader;
            }
            std::thread::sleep(STEP);
        }
        Ok(())
    }

    /// Asks all to stop, waits, and kills what is left.
    fn stop(&mut self) {
        for member in &mut self.0 {
            if matches!(member.child.try_wait(), Ok(None)) {
                let pid = member.child.id().to_string();
                let _ = Command::new("kill").args(["-TERM", &pid]).status();
            }
        }
        let until = Instant::now() + STOP;
        for member in &mut self.0 {
            while matches!(member.child.try_wait(), Ok(None)) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether the member on this port says that it leads. Any failure is a no.
fn leads(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(STEP * 5))?;
        socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().is_ok_and(|text| text.lines().any(|line| line == "etcd_server_is_leader 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_ours_are_the_default_and_every_part_can_be_said() {
        let three = Wanted { kinds: vec![Kind::Ours; 3], port: None, dir: None };
        assert_eq!(parse(&[]), Ok(three));
        let args = ["--members", "ours,reference", "--port", "2379", "--dir", "/d"];
        let said = Wanted {
            kinds: vec![Kind::Ours, Kind::Reference],
            port: Some(2379),
            dir: Some("/d".into()),
        };
        assert_eq!(parse(&args), Ok(said));
        assert!(parse(&["--members", "theirs"]).is_err());
        assert!(parse(&["--port"]).is_err());
    }

    #[test]
    fn ports_differ_or_follow_each_other() {
        assert_eq!(ports(Some(7), 3), Ok(vec![7, 8, 9]));
        assert!(ports(Some(65_535), 3).is_err());
        let mut free = ports(None, 6).unwrap();
        free.sort_unstable();
        free.dedup();
        assert_eq!(free.len(), 6);
    }
}
