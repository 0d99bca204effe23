//! What people do with etcd's image, done with ours.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::context;
use super::daemon::{Daemon, wait_until};
use crate::shell::{output, root};

/// How long a stop may take.
const STOP: Duration = Duration::from_secs(10);

/// The guide's configuration of one node.
const CONFIGURATION: &str = "\
name: etcd-node0
data-dir: /etcd-data
listen-client-urls: http://0.0.0.0:2379
advertise-client-urls: http://0.0.0.0:2379
listen-peer-urls: http://0.0.0.0:2380
initial-advertise-peer-urls: http://0.0.0.0:2380
initial-cluster: etcd-node0=http://0.0.0.0:2380
initial-cluster-token: etcd-cluster-token
initial-cluster-state: new
log-level: info
logger: zap
log-outputs: stderr
";

fn expect(what: &str, said: &str, wanted: &str) -> Result<(), String> {
    match said == wanted {
        true => Ok(()),
        false => Err(format!("{what}: {said:?}, not {wanted:?}")),
    }
}

/// `etcdctl` on the host, to a published port.
fn etcdctl(port: u16, args: &[&str]) -> Result<String, String> {
    let endpoint = format!("--endpoints=127.0.0.1:{port}");
    output(Command::new(context().join("etcdctl")).arg(endpoint).args(args))
}

fn wait_for_health(daemon: &Daemon, container: &str) -> Result<(), String> {
    let health = ["exec", container, "etcdctl", "endpoint", "health"];
    wait_until(&format!("{container} is healthy"), || daemon.docker(&health).is_ok())
        .map_err(|e| format!("{e}\n{:?}", daemon.docker(&["logs", "--tail", "20", container])))
}

/// `docker stop`: by SIGTERM alone, in time, with exit code 0.
fn stop(daemon: &Daemon, container: &str) -> Result<(), String> {
    let began = Instant::now();
    daemon.docker(&["stop", "--time", "60", container])?;
    let took = began.elapsed();
    if took > STOP {
        return Err(format!("docker stop {container} took {took:?}"));
    }
    let code = daemon.docker(&["inspect", "--format", "{{.State.ExitCode}}", container])?;
    expect("exit code after docker stop", &code, "0")
}

/// The guide's `docker run`, word for word; then put and get from the host and by `docker exec`,
/// stop, start, and the data are still there.
pub fn one_node(daemon: &Daemon, dir: &Path) -> Result<(), String> {
    let source = dir.join("guide");
    std::fs::create_dir_all(source.join("conf")).map_err(|e| e.to_string())?;
    std::fs::write(source.join("conf/etcd.yml"), CONFIGURATION).map_err(|e| e.to_string())?;
    let mount = format!("type=bind,source={},destination=/tmp/etcd", source.display());
    let name = "etcd-node0";
    daemon.docker(&[
        "run",
        "-d",
        "-p",
        "12379:2379",
        "-p",
        "12380:2380",
        "-e",
        "ETCDCTL_API=3",
        "--mount",
        &mount,
        "--name",
        name,
        "quorate",
        "/usr/local/bin/etcd",
        "--config-file",
        "/tmp/etcd/conf/etcd.yml",
    ])?;
    wait_for_health(daemon, name)?;
    expect("put from the host", &etcdctl(12379, &["put", "greeting", "hello"])?, "OK")?;
    let get = ["exec", name, "etcdctl", "get", "greeting"];
    expect("get by docker exec", &daemon.docker(&get)?, "greeting\nhello")?;
    let put = ["exec", name, "/usr/local/bin/etcdctl", "put", "greeting", "again"];
    expect("put by docker exec", &daemon.docker(&put)?, "OK")?;
    stop(daemon, name)?;
    daemon.docker(&["start", name])?;
    wait_for_health(daemon, name)?;
    expect("get after a restart", &etcdctl(12379, &["get", "greeting"])?, "greeting\nagain")?;
    daemon.docker(&["kill", name])?;
    daemon.docker(&["start", name])?;
    wait_for_health(daemon, name)?;
    expect("get after a kill", &etcdctl(12379, &["get", "greeting"])?, "greeting\nagain")?;
    daemon.docker(&["rm", "--force", name]).map(drop)
}

/// The image without a command serves, and is laid out as etcd's.
pub fn plain_image(daemon: &Daemon) -> Result<(), String> {
    let inspect = |what: &str| daemon.docker(&["image", "inspect", "--format", what, "quorate"]);
    expect("command", &inspect("{{json .Config.Cmd}}")?, r#"["/usr/local/bin/etcd"]"#)?;
    expect("entry point", &inspect("{{json .Config.Entrypoint}}")?, "null")?;
    expect("user", &inspect("{{.Config.User}}")?, "")?;
    let work_dir = inspect("{{.Config.WorkingDir}}")?;
    expect("work directory", work_dir.trim_end_matches('/'), "/var/lib/etcd")?;
    for program in ["etcd", "etcdctl", "etcdutl"] {
        let word = if program == "etcd" { "--version" } else { "version" };
        let said = daemon.docker(&["run", "--rm", "quorate", program, word])?;
        if !said.to_lowercase().contains("version: 3.7") {
            return Err(format!("{program} {word}: {said:?}"));
        }
    }
    daemon.docker(&["run", "-d", "--name", "plain", "quorate"])?;
    wait_for_health(daemon, "plain")?;
    stop(daemon, "plain")?;
    daemon.docker(&["rm", "--force", "plain"]).map(drop)
}

/// The variant without root writes to its volume.
pub fn hardened(daemon: &Daemon) -> Result<(), String> {
    let name = "hardened";
    daemon.docker(&[
        "run",
        "-d",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--name",
        name,
        "quorate-hardened",
    ])?;
    wait_for_health(daemon, name)?;
    expect("put", &daemon.docker(&["exec", name, "etcdctl", "put", "a", "b"])?, "OK")?;
    stop(daemon, name)?;
    daemon.docker(&["rm", "--force", "--volumes", name]).map(drop)
}

/// The cluster of `compose.yml`: a member is killed and comes back, all are stopped and started on
/// their volumes.
pub fn cluster(daemon: &Daemon) -> Result<(), String> {
    let file = root().join("compose.yml");
    let compose = |args: &[&str]| daemon.compose(&file, args);
    let healthy = || {
        let members = ["quorate_m1_1", "quorate_m2_1", "quorate_m3_1"];
        members.into_iter().try_for_each(|member| wait_for_health(daemon, member))
    };
    let up = ["up", "--detach", "--no-build"];
    compose(&up)?;
    healthy()?;
    expect("put", &etcdctl(2379, &["put", "k", "1"])?, "OK")?;
    etcdctl(22379, &["endpoint", "health", "--cluster"])?;
    daemon.docker(&["exec", "quorate_m2_1", "etcdctl", "endpoint", "status", "--cluster"])?;
    compose(&["kill", "m1"])?;
    wait_until("two members take a put", || etcdctl(22379, &["put", "k", "2"]).is_ok())?;
    compose(&["start", "m1"])?;
    wait_for_health(daemon, "quorate_m1_1")?;
    expect("the killed member's answer", &etcdctl(2379, &["get", "k"])?, "k\n2")?;
    for member in ["quorate_m1_1", "quorate_m2_1", "quorate_m3_1"] {
        stop(daemon, member)?;
    }
    compose(&["down"])?;
    compose(&up)?;
    healthy()?;
    expect("get on the same volumes", &etcdctl(32379, &["get", "k"])?, "k\n2")?;
    let state = ["inspect", "--format", "{{.State.Health.Status}}", "quorate_m3_1"];
    wait_until("compose sees a healthy member", || daemon.docker(&state) == Ok("healthy".into()))?;
    compose(&["down", "--volumes"]).map(drop)
}
