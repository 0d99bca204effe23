//! Small inputs with which people run servers, and on which ours once failed: each starts the
//! program as a user does, ours and etcd's, and both must do the same.

#[path = "common/trial.rs"]
mod trial;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use conform::{Cluster, Kind};
use trial::{Trial, exists, http};

#[test]
fn a_log_directory_may_be_a_relative_name_alone() {
    for trial in Trial::both() {
        let mut server = trial.start(&["--wal-dir", "logs"]);
        assert!(server.serves(), "{}", server.log());
        assert!(exists(&trial.path("logs")));
    }
}

#[test]
fn variables_that_are_no_text_are_nobodys_business() {
    for trial in Trial::both() {
        let mut command = trial.command(&trial.flags());
        command.env("FIELD_TRIAL_LATIN1", OsStr::from_bytes(b"Stra\xdfe"));
        let mut server = trial.spawn(command);
        assert!(server.serves(), "{}", server.log());
    }
    let trial = Trial::of(Kind::Quorate).expect("our own binary is built");
    let mut command = trial.command(&trial.flags());
    command.env("ETCD_SNAPSHOT_COUNT", OsStr::from_bytes(b"\xdf"));
    let mut server = trial.spawn(command);
    assert!(server.says("which is not UTF-8"), "{}", server.log());
}

#[test]
fn two_members_at_one_url_are_refused() {
    for trial in Trial::both() {
        let url = trial.peer_url();
        let cluster = format!("m={url},n={url}");
        let mut server = trial.start(&["--initial-cluster", &cluster]);
        let expected = format!("initial cluster m={url},n={url} has duplicate url");
        assert!(server.says(&expected), "{}", server.log());
        assert_eq!(server.end().and_then(|status| status.code()), Some(1));
    }
}

fn file_of(trial: &Trial, more: &str) -> String {
    let (client, peer, data) = (trial.client_url(), trial.peer_url(), trial.path("d"));
    format!(
        "name: m\ndata-dir: {}\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n\
         listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\n\
         initial-cluster: m={peer}\n{more}\n",
        data.display()
    )
}

#[test]
fn a_file_is_read_as_yaml_1_1() {
    for (more, is_taken) in [
        ("strict-reconfig-check: yes", true),
        ("strict-reconfig-check: off", true),
        ("quota-backend-bytes: 8_589_934_592", true),
        ("quota-backend-bytes: 010000000", true),
        ("quota-backend-bytes: 1e9", true),
        ("quota-backend-bytes: 2147483648.0", true),
        ("---\nname: second", true),
        ("initial-cluster-token: yes", false),
        ("initial-cluster-token: 0123", false),
        ("initial-cluster-token: '0123'", true),
    ] {
        for trial in Trial::both() {
            let path = trial.path("etcd.yml");
            std::fs::write(&path, format!("\u{feff}{}", file_of(&trial, more))).expect("it writes");
            let flags = ["--config-file".to_owned(), path.display().to_string()];
            let mut server = trial.spawn(trial.command(&flags));
            assert_eq!(server.serves(), is_taken, "{:?} {more}: {}", trial.kind, server.log());
        }
    }
}

#[test]
fn levels_have_the_names_of_zap() {
    for level in ["INFO", "WARN", "warning", "dpanic", "ERROR"] {
        for trial in Trial::both() {
            let mut command = trial.command(&trial.flags());
            command.env("ETCD_LOG_LEVEL", level);
            let _server = trial.spawn(command);
            // It may say nothing.
            let serves = (0..500).any(|_| {
                std::thread::sleep(Duration::from_millis(20));
                std::net::TcpStream::connect(("127.0.0.1", trial.client)).is_ok()
            });
            assert!(serves, "{:?} {level}", trial.kind);
        }
    }
}

#[test]
fn errors_of_the_system_have_gos_texts() {
    for trial in Trial::both() {
        let taken = std::net::TcpListener::bind(("127.0.0.1", trial.client)).expect("it is free");
        let mut server = trial.start(&[]);
        let port = trial.client;
        let text = format!("listen tcp 127.0.0.1:{port}: bind: address already in use");
        assert!(server.says(&text), "{}", server.log());
        drop(server);
        assert!(!exists(&trial.path("d/member/wal")), "{:?} founded nothing", trial.kind);
        drop(taken);
        let mut server = trial.start(&["--data-dir", "/proc/x"]);
        assert!(server.says("no such file or directory"), "{}", server.log());
        std::fs::write(trial.path("file"), "").expect("it writes");
        let mut server = trial.start(&["--data-dir", &trial.path("file").display().to_string()]);
        assert!(server.says("not a directory"), "{}", server.log());
        let flags = ["--config-file=nothere.yml".to_owned()];
        let mut server = trial.spawn(trial.command(&flags));
        assert!(server.says("open nothere.yml: no such file or directory"), "{}", server.log());
    }
}

#[test]
fn a_newcomer_of_another_cluster_is_refused_in_the_documented_words() {
    for trial in Trial::both() {
        let other = Trial::of(trial.kind).expect("its program is there");
        let cluster = format!("m={},n={}", trial.peer_url(), other.peer_url());
        let start = |trial: &Trial, name: &str, token: &str| {
            let more = ["--name", name, "--initial-cluster", &cluster];
            trial.start(&[&more[..], &["--initial-cluster-token", token]].concat())
        };
        let mut one = start(&trial, "m", "one");
        let _two = start(&other, "n", "two");
        assert!(one.says("request cluster ID mismatch"), "{}", one.log());
    }
}

#[test]
fn variables_are_told_used_or_not() {
    for trial in Trial::both() {
        let mut command = trial.command(&trial.flags());
        command.env("ETCD_SNAPSHOT_COUNT", "5000").env("ETCD_ON_K8S", "yes");
        let mut server = trial.spawn(command);
        assert!(server.serves());
        let log = server.log();
        for expected in [
            r#""msg":"recognized and used environment variable","variable-name":"ETCD_SNAPSHOT_COUNT","variable-value":"5000""#,
            r#""msg":"unrecognized environment variable","environment-variable":"ETCD_ON_K8S=yes""#,
        ] {
            assert!(log.contains(expected), "{:?}: {log}", trial.kind);
        }
        drop(server);
        let mut command = trial.command(&trial.flags());
        command.env("ETCD_NAME", "other");
        let mut server = trial.spawn(command);
        assert!(server.says("conflicting environment variable is shadowed"), "{}", server.log());
        assert_eq!(server.end().and_then(|status| status.code()), Some(1));
    }
}

#[test]
fn pages_of_other_origins_may_ask() {
    for trial in Trial::both() {
        let mut server = trial.start(&[]);
        assert!(server.serves());
        let origin = "Origin: http://ui.example\r\n";
        for path in ["/version", "/nowhere"] {
            let answer = http(trial.client, "GET", path, origin).to_lowercase();
            for header in [
                "access-control-allow-origin: *\r\n",
                "access-control-allow-methods: post, get, options, put, delete\r\n",
                "access-control-allow-headers: accept, content-type, authorization\r\n",
            ] {
                assert!(answer.contains(header), "{:?} {path}: {answer}", trial.kind);
            }
        }
        let preflight = http(trial.client, "OPTIONS", "/health", origin);
        assert!(preflight.starts_with("HTTP/1.1 200"), "{:?}: {preflight}", trial.kind);
        drop(server);
        let trial = Trial::of(trial.kind).expect("its program is there");
        let mut server = trial.start(&["--cors", "http://ui.example:80"]);
        assert!(server.serves());
        let named = "Origin: http://ui.example:80\r\n";
        let answer = http(trial.client, "GET", "/version", named).to_lowercase();
        assert!(answer.contains("access-control-allow-origin: http://ui.example:80"), "{answer}");
        let answer = http(trial.client, "GET", "/version", origin).to_lowercase();
        assert!(!answer.contains("access-control-allow-origin"), "{:?}: {answer}", trial.kind);
    }
}

#[test]
fn a_log_directory_may_hold_what_is_no_log() {
    for trial in Trial::both() {
        let logs = trial.path("w");
        std::fs::create_dir_all(logs.join("lost+found")).expect("it can be made");
        std::fs::write(logs.join("0.tmp"), "x").expect("it writes");
        let mut server = trial.start(&["--wal-dir", &logs.display().to_string()]);
        assert!(server.serves(), "{}", server.log());
        drop(server);
        // And goes on with it.
        let mut server = trial.start(&["--wal-dir", &logs.display().to_string()]);
        assert!(server.serves(), "{}", server.log());
        if trial.kind == Kind::Quorate {
            assert!(exists(&logs.join("lost+found")), "what is not ours stays");
        }
    }
}

#[test]
fn who_listens_says_where_clients_find_it() {
    for trial in Trial::both() {
        let mut server = trial.start(&["--advertise-client-urls", ""]);
        assert!(server.serves(), "{}", server.log());
        drop(server);
        let flags = ["--listen-client-urls".to_owned(), trial.client_url()];
        let mut server = trial.spawn(trial.command(&flags));
        let text =
            "--advertise-client-urls is required when --listen-client-urls is set explicitly";
        assert!(server.says(text), "{}", server.log());
        assert_eq!(server.end().and_then(|status| status.code()), Some(1));
    }
}

#[test]
fn a_server_runs_without_its_three_descriptors() {
    for trial in Trial::both() {
        let program = trial.kind.program().expect("it was found before");
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-"]).arg(program).args(trial.flags());
        let server = trial.spawn(command);
        let serves = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            std::net::TcpStream::connect(("127.0.0.1", trial.client)).is_ok()
        });
        assert!(serves, "{:?}", trial.kind);
        assert!(http(trial.client, "GET", "/version", "").contains("etcdserver"));
        drop(server);
    }
}

#[test]
fn commands_that_come_later_say_so() {
    let trial = Trial::of(Kind::Quorate).expect("our own binary is built");
    let flags = ["grpc-proxy", "start", "--endpoints=a:1"].map(str::to_owned);
    let mut server = trial.spawn(trial.command(&flags));
    let text = format!("\"etcd grpc-proxy\" is not implemented in {}", types::PRODUCT);
    assert!(server.says(&text), "{}", server.log());
    assert_eq!(server.end().and_then(|status| status.code()), Some(1));
}

#[test]
fn a_member_whose_directory_was_emptied_says_what_to_do_and_ends() {
    for kind in [Kind::Quorate, Kind::Reference] {
        let Some(mut c) = Cluster::start(&[kind; 3], &[]) else { continue };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let follower = runtime.expect("a runtime can be made").block_on(async {
            for i in 0..20 {
                c.put(0, &format!("k{i}"), "v").await.expect("three members serve");
            }
            c.follower().await
        });
        let node = &mut c.nodes[follower];
        node.stop();
        std::fs::remove_dir_all(&node.data_dir).expect("it was there");
        node.args.extend(["--initial-cluster-state".to_owned(), "existing".to_owned()]);
        c.spawn(follower);
        let node = &mut c.nodes[follower];
        let ended = node.wait_exit(Duration::from_secs(20)).expect("it ends");
        let log = node.log();
        assert!(log.contains("Was the raft log corrupted, truncated, or lost?"), "{kind:?}: {log}");
        if kind == Kind::Quorate {
            assert_eq!(ended, Some(1));
            assert!(log.contains("etcdctl member remove"), "{log}");
        }
    }
}

#[test]
fn help_ends_with_its_reader() {
    let trial = Trial::of(Kind::Quorate).expect("our own binary is built");
    let program = trial.kind.program().expect("it was found before");
    let mut command = Command::new(program);
    let (reader, writer) = std::io::pipe().expect("the system has pipes");
    drop(reader);
    let status = command.arg("--help").stdout(writer).status().expect("it runs");
    assert_eq!(status.signal(), Some(13), "{status:?}");
}
