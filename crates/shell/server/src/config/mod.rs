//! Configuration: flags, environment and YAML become [`Options`].
//!
//! Owns the table of flags ([`table`]), how their values are written ([`value`], [`urls`]), where
//! they come from ([`source`]) and what contradicts itself (here). Errors and their order are
//! etcd's; a flag whose feature comes later is refused unless it has its default.

pub mod features;
mod shown;
pub mod source;
pub mod table;
pub mod urls;
pub mod value;
mod yaml;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use member::{CommitPolicy, CompactionPace, Retention};
use rpc::{Cors, Settings};
use types::{Url, limits};

use crate::options::Options;
use crate::threads::Keep;
use calls::corruption::Checks;
use observe::logging::{Format, Level};

use features::Features;
pub use source::{Notice, Refused, Set};
use table::{FLAGS, State};

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Run a member.
    Run(Box<Configured>),
    /// Print the version and end.
    Version,
}

/// A checked configuration.
#[derive(Debug)]
pub struct Configured {
    /// For the member.
    pub options: Options,
    /// `--log-level`.
    pub log_level: String,
    /// `--log-format`.
    pub log_format: Format,
    /// `--log-outputs`.
    pub log_outputs: Vec<String>,
    /// Lines for the log about where values came from.
    pub notices: Vec<Notice>,
    /// What the start tells of itself.
    pub shown: Vec<(&'static str, serde_json::Value)>,
}

/// Makes a configuration of the command line (without the program's name), the environment, and
/// the file that either names; with a file, everything else is ignored.
///
/// # Errors
/// [`Refused`].
pub fn configure(
    args: &[String],
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Request, Refused> {
    let mut set = source::command_line(args)?;
    if value::boolean(set.text("version")) == Some(true) {
        return Ok(Request::Version);
    }
    let variables: Vec<_> = variables.collect();
    let named = variables.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE");
    let path = match set.text("config-file") {
        "" => named.map(|(_, path)| path.clone()).filter(|path| !path.is_empty()),
        path => Some(path.to_owned()),
    };
    match path {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Refused::Invalid(format!("open {path}: {}", osenv::error_text(&e))))?;
            let mut notices = std::mem::take(&mut set.notices);
            notices.push(Notice {
                level: Level::Info,
                text: "loaded server configuration, other configuration command line flags and \
                       environment variables will be ignored if provided"
                    .to_owned(),
                fields: vec![("path", path)],
            });
            set = source::file(&text)?;
            set.notices = notices;
        }
        None => source::environment(&mut set, variables.into_iter())?,
    }
    check(&set).map_err(Refused::Invalid)?;
    let options = options(&set).map_err(Refused::Invalid)?;
    let deprecations: Vec<_> = shown::deprecations(&set).map(Notice::warning).collect();
    set.notices.extend(deprecations);
    Ok(Request::Run(Box::new(Configured {
        options,
        log_level: set.text("log-level").to_owned(),
        log_format: match set.text("log-format") {
            "console" => Format::Console,
            _ => Format::Json,
        },
        log_outputs: list(set.text("log-outputs")),
        shown: shown::fields(&set),
        notices: set.notices,
    })))
}

/// What `--help` prints: every flag with its default.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Usage:\n\n  etcd [flags]\n    Start an etcd server.\n\nFlags:\n");
    for flag in FLAGS {
        let later = if flag.state == State::Later { " (not implemented yet)" } else { "" };
        text.push_str(&format!("  --{} '{}'{later}\n", flag.name, flag.default));
    }
    text
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

fn number(set: &Set, name: &str) -> u64 {
    set.text(name).parse().expect("checked when it was read")
}

fn duration(set: &Set, name: &str) -> Duration {
    value::duration(set.text(name)).expect("checked when it was read")
}

fn boolean(set: &Set, name: &str) -> bool {
    value::boolean(set.text(name)).expect("checked when it was read")
}

fn url_list(set: &Set, name: &str) -> Result<Vec<Url>, String> {
    match set.text(name) {
        "" => Ok(Vec::new()),
        text => urls::parse_list(text),
    }
}

/// What is said to who listens somewhere and does not say where clients find it.
pub const UNADVERTISED: &str =
    "--advertise-client-urls is required when --listen-client-urls is set explicitly";

/// Checks what contradicts itself, in etcd's order.
//= etcd 3.7.1: server/embed/config.go#Validate
fn check(set: &Set) -> Result<(), String> {
    match set.text("logger") {
        "zap" => {}
        "capnslog" => return Err("--logger=capnslog is removed in v3.5".to_owned()),
        other => return Err(format!("unknown logger option {other:?}")),
    }
    if !matches!(set.text("log-format"), "json" | "console") {
        let format = set.text("log-format");
        return Err(format!("unknown log format: {format}, supported values json, console"));
    }
    let outputs = list(set.text("log-outputs"));
    if outputs.len() > 1 && outputs.iter().any(|o| o == "default") {
        return Err(format!("multi logoutput for {:?} is not supported yet", "default"));
    }
    let level = set.text("log-level");
    if Level::parse(level).is_none() {
        return Err(format!("unrecognized level: {level:?}"));
    }
    for name in ["listen-peer-urls", "listen-client-urls"] {
        for url in url_list(set, name)? {
            urls::check_bind(&url)?;
        }
    }
    for url in url_list(set, "initial-advertise-peer-urls")? {
        if url.hostname().is_empty() && !url.scheme().is_socket() {
            return Err(format!(
                r#"--initial-advertise-peer-urls {:?} must be "host:port" (unexpected empty host ({}))"#,
                set.text("initial-advertise-peer-urls"),
                url.text()
            ));
        }
    }
    let (heartbeat, election) =
        (number(set, "heartbeat-interval"), number(set, "election-timeout"));
    if heartbeat == 0 {
        return Err("--heartbeat-interval must be >0 (set to 0ms)".to_owned());
    }
    if election == 0 {
        return Err("--election-timeout must be >0 (set to 0ms)".to_owned());
    }
    if heartbeat.saturating_mul(5) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > 50_000 {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than 50000ms"
        ));
    }
    if !set.is_file && set.is_set("listen-client-urls") && !set.is_set("advertise-client-urls") {
        return Err(UNADVERTISED.to_owned());
    }
    match set.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        "" => return Err("undefined auto-compaction-mode".to_owned()),
        other => return Err(format!("unknown auto-compaction-mode {other:?}")),
    }
    if duration(set, "compact-hash-check-time").is_zero() {
        return Err("--compact-hash-check-time must be >0 (set to 0s)".to_owned());
    }
    for flag in FLAGS.iter().filter(|flag| flag.state == State::Later) {
        let text = set.text(flag.name);
        if text != flag.default && !same(flag.name, text, flag.default) {
            return Err(cli::not_implemented(&format!("--{}={text}", flag.name)));
        }
    }
    for name in ["listen-peer-urls", "listen-client-urls"] {
        if url_list(set, name)?.iter().any(|u| u.scheme().is_secure()) {
            return Err(cli::not_implemented(&format!("--{name} with TLS")));
        }
    }
    Ok(())
}

/// Whether two texts of a flag mean the same.
fn same(name: &str, a: &str, b: &str) -> bool {
    let flag = table::flag(name).expect("a name of the table");
    match flag.kind {
        table::Kind::Bool => value::boolean(a) == value::boolean(b),
        table::Kind::Duration => value::duration(a) == value::duration(b),
        _ => false,
    }
}

/// Parses `name=url,name=url`; a name may repeat.
//= etcd 3.7.1: client/pkg/types/urlsmap.go#NewURLsMap
fn initial_cluster(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut members: Vec<(String, Vec<String>)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, url)) = part.split_once('=') else {
            return Err(format!("error setting up initial cluster: empty URL given for {part:?}"));
        };
        if url.is_empty() {
            return Err(format!("error setting up initial cluster: empty URL given for {name:?}"));
        }
        let url = Url::parse(url).map_err(|e| format!("error setting up initial cluster: {e}"))?;
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url.text().to_owned()),
            None => members.push((name.to_owned(), vec![url.text().to_owned()])),
        }
    }
    if members.is_empty() {
        return Err("initial cluster unset and no discovery endpoints found".to_owned());
    }
    for (_, urls) in &mut members {
        urls.sort_unstable();
    }
    Ok(members)
}

/// A whole number is hours or revisions, by the mode; anything else is a Go duration.
//= etcd 3.7.1: server/embed/etcd.go#parseCompactionRetention
fn retention(set: &Set) -> Result<Option<Retention>, String> {
    let text = set.text("auto-compaction-retention");
    let periodic = set.text("auto-compaction-mode") == "periodic";
    let duration = match text.parse::<u64>() {
        Ok(0) => return Ok(None),
        Ok(number) if !periodic => {
            let revisions = i64::try_from(number).unwrap_or(i64::MAX);
            return Ok(Some(Retention::Revisions(revisions)));
        }
        Ok(hours) => Duration::from_secs(hours.saturating_mul(3_600)),
        Err(_) => value::duration(text).ok_or_else(|| {
            format!("error parsing CompactionRetention: time: invalid duration {text:?}")
        })?,
    };
    if duration.is_zero() {
        return Ok(None);
    }
    let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let by_mode =
        if periodic { Retention::Periodic(duration) } else { Retention::Revisions(nanos) };
    Ok(Some(by_mode))
}

/// 0 is the default; so is a negative batch, of which etcd makes an endless one.
//= etcd 3.7.1: server/storage/mvcc/kvstore.go#NewStore
fn compaction_pace(set: &Set) -> CompactionPace {
    let default = CompactionPace::default();
    let batch: i64 = set.text("compaction-batch-limit").parse().expect("checked when it was read");
    let batch = usize::try_from(batch).unwrap_or(0);
    let sleep = duration(set, "compaction-sleep-interval");
    CompactionPace {
        batch: if batch == 0 { default.batch } else { batch },
        sleep: if sleep.is_zero() { default.sleep } else { sleep },
    }
}

/// The address from which peers are dialled, if a gate says that it matters: the first of the
/// advertised ones that is an address of this machine alone.
//= etcd 3.7.1: server/embed/config.go#InferLocalAddr
fn local_address(features: &Features, advertised: &[String]) -> Option<IpAddr> {
    if !features.is_open("SetMemberLocalAddr") {
        return None;
    }
    let host = |text: &String| Some(Url::parse(text).ok()?.hostname().to_owned());
    let addresses = advertised.iter().filter_map(host).filter_map(|host| host.parse().ok());
    addresses.into_iter().find(|ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified())
}

/// Origins are URLs, or `*` for all.
//= etcd 3.7.3: pkg/flags/unique_urls.go#Set
fn cors(text: &str) -> Result<Cors, String> {
    if matches!(text, "" | "*") {
        return Ok(Cors::Any);
    }
    let origins = urls::parse_list(text)
        .map_err(|e| format!("invalid value {text:?} for flag -cors: {e}"))?;
    Ok(Cors::Only(origins.iter().map(|url| url.text().to_owned()).collect()))
}

fn options(set: &Set) -> Result<Options, String> {
    let name = set.text("name").to_owned();
    let data_dir = match set.text("data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        dir => PathBuf::from(dir),
    };
    let wal_dir = match set.text("wal-dir") {
        "" => data_dir.join("member/wal"),
        dir => PathBuf::from(dir),
    };
    let texts = |name| -> Result<Vec<String>, String> {
        Ok(url_list(set, name)?.into_iter().map(|url| url.text().to_owned()).collect())
    };
    let advertised_peers = texts("initial-advertise-peer-urls")?;
    // Only a name was given: it is the whole cluster.
    let cluster = if set.is_set("initial-cluster") {
        initial_cluster(set.text("initial-cluster"))?
    } else {
        vec![(name.clone(), advertised_peers.clone())]
    };
    let features = Features::parse(set.text("feature-gates"))?;
    let client_urls = url_list(set, "listen-client-urls")?;
    let client_addresses: Result<Vec<_>, _> = client_urls.iter().map(net::Address::of).collect();
    let peer_urls = url_list(set, "listen-peer-urls")?;
    let peer_addresses: Result<Vec<_>, _> = peer_urls.iter().map(net::Address::of).collect();
    let max_request_bytes = number(set, "max-request-bytes");
    let or = |n: u64, default: u64| if n == 0 { default } else { n };
    let interval = match duration(set, "backend-batch-interval") {
        Duration::ZERO => Duration::from_millis(limits::BACKEND_BATCH_INTERVAL_MS),
        interval => interval,
    };
    let quota: i64 = set.text("quota-backend-bytes").parse().expect("checked when it was read");
    Ok(Options {
        failpoints: env::Failpoints::default(),
        name,
        data_dir,
        wal_dir,
        client_addresses: client_addresses.map_err(|e| e.to_string())?,
        advertise_client_urls: texts("advertise-client-urls")?,
        peer_addresses: peer_addresses.map_err(|e| e.to_string())?,
        local_address: local_address(&features, &advertised_peers),
        advertise_peer_urls: advertised_peers,
        checks: Checks {
            initial: features.is_open("InitialCorruptCheck"),
            periodic: duration(set, "corrupt-check-time"),
            compaction: match features.is_open("CompactHashCheck") {
                true => duration(set, "compact-hash-check-time"),
                false => Duration::ZERO,
            },
        },
        lease_checkpoints: (
            features.is_open("LeaseCheckpoint"),
            features.is_open("LeaseCheckpointPersist"),
        ),
        raft_timeouts: (duration(set, "raft-read-timeout"), duration(set, "raft-write-timeout")),
        joins: set.text("initial-cluster-state") == "existing",
        strict_reconfig: boolean(set, "strict-reconfig-check"),
        downgrade_check: duration(set, "downgrade-check-time"),
        initial_cluster: cluster,
        initial_cluster_token: set.text("initial-cluster-token").to_owned(),
        heartbeat: Duration::from_millis(number(set, "heartbeat-interval")),
        election: Duration::from_millis(number(set, "election-timeout")),
        election_tick_advance: boolean(set, "initial-election-tick-advance"),
        pre_vote: boolean(set, "pre-vote"),
        snapshot_count: or(number(set, "snapshot-count"), limits::SNAPSHOT_COUNT),
        catchup_entries: number(set, "snapshot-catchup-entries"),
        keep: Keep {
            wals: u32::try_from(number(set, "max-wals")).unwrap_or(u32::MAX),
            snapshots: u32::try_from(number(set, "max-snapshots")).unwrap_or(u32::MAX),
        },
        commit: CommitPolicy {
            interval,
            operations: match set.text("backend-batch-limit").parse::<usize>() {
                Ok(0) | Err(_) => limits::BACKEND_BATCH_OPS,
                Ok(operations) => operations,
            },
        },
        auto_compaction: retention(set)?,
        quota_bytes: match quota {
            0 => limits::DEFAULT_QUOTA_BYTES,
            quota => quota,
        },
        max_request_bytes: usize::try_from(max_request_bytes).unwrap_or(usize::MAX),
        max_txn_ops: usize::try_from(number(set, "max-txn-ops")).unwrap_or(usize::MAX),
        max_learners: number(set, "max-learners") as usize,
        unsafe_no_fsync: boolean(set, "unsafe-no-fsync"),
        force_new_cluster: boolean(set, "force-new-cluster"),
        watch_progress: match duration(set, "watch-progress-notify-interval") {
            Duration::ZERO => Duration::from_millis(limits::WATCH_PROGRESS_MS),
            interval => interval,
        },
        cors: cors(set.text("cors"))?,
        reuse: net::Reuse {
            port: boolean(set, "socket-reuse-port"),
            address: boolean(set, "socket-reuse-address"),
        },
        connections: Settings {
            max_message_bytes: usize::try_from(
                max_request_bytes.saturating_add(limits::GRPC_OVERHEAD_BYTES),
            )
            .unwrap_or(usize::MAX),
            max_concurrent_streams: u32::try_from(number(set, "max-concurrent-streams"))
                .unwrap_or(u32::MAX),
            keepalive_min_time: duration(set, "grpc-keepalive-min-time"),
            keepalive_interval: duration(set, "grpc-keepalive-interval"),
            keepalive_timeout: duration(set, "grpc-keepalive-timeout"),
            ..Settings::default()
        },
        compaction: compaction_pace(set),
        slow_apply: duration(set, "warning-apply-duration"),
        features,
        list_pin: Duration::from_millis(limits::LIST_PIN_MS),
        runtimes: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Options, Refused> {
        let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
        match configure(&args, std::iter::empty())? {
            Request::Run(configured) => Ok(configured.options),
            Request::Version => panic!("nobody asked for the version"),
        }
    }

    fn refusal(args: &[&str]) -> String {
        match run(args) {
            Err(Refused::Invalid(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_flags_give_etcds_defaults() {
        let options = run(&[]).unwrap();
        assert_eq!(options.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(options.wal_dir, PathBuf::from("default.etcd/member/wal"));
        assert_eq!(options.initial_cluster[0].1, ["http://localhost:2380"]);
        assert_eq!(options.quota_bytes, 2_147_483_648);
        assert_eq!(run(&["--quota-backend-bytes=-1"]).unwrap().quota_bytes, -1);
    }

    #[test]
    fn e12_a_bare_retention_is_hours_or_revisions_and_0_is_none() {
        let kept = |mode: &str, text: &str| {
            let mode = format!("--auto-compaction-mode={mode}");
            run(&[&mode, &format!("--auto-compaction-retention={text}")]).unwrap().auto_compaction
        };
        let secs = |secs| Some(Retention::Periodic(Duration::from_secs(secs)));
        assert_eq!(kept("periodic", "1"), secs(3_600));
        assert_eq!(kept("periodic", "72"), secs(72 * 3_600));
        assert_eq!(kept("periodic", "90s"), secs(90));
        assert_eq!(kept("revision", "1000"), Some(Retention::Revisions(1_000)));
        for mode in ["periodic", "revision"] {
            assert_eq!((kept(mode, "0"), kept(mode, "0s")), (None, None));
        }
    }

    #[test]
    fn contradictions_get_etcds_texts() {
        assert_eq!(
            refusal(&["--heartbeat-interval=100", "--election-timeout=400"]),
            "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]"
        );
        assert_eq!(
            refusal(&["--listen-client-urls=http://example.com:1"]),
            "expected IP in URL for binding (http://example.com:1)"
        );
        assert_eq!(refusal(&["--logger=x"]), "unknown logger option \"x\"");
        let text = "unknown log format: x, supported values json, console";
        assert_eq!(refusal(&["--log-format=x"]), text);
    }

    #[test]
    fn flags_that_do_nothing_any_more_are_told() {
        let told = |flags: &[&str]| {
            let args: Vec<String> = flags.iter().map(|&f| f.to_owned()).collect();
            match configure(&args, std::iter::empty()) {
                Ok(Request::Run(configured)) => (configured.notices, configured.shown),
                other => panic!("{flags:?}: {other:?}"),
            }
        };
        let (notices, shown) = told(&["--max-snapshots=10", "--v2-deprecation=gone"]);
        let texts = ["--max-snapshots is deprecated", "--v2-deprecation is deprecated"];
        assert_eq!(notices.len(), 2);
        assert!(notices.iter().zip(texts).all(|(told, text)| told.text.starts_with(text)));
        assert!(shown.contains(&("max-snapshots", 10.into())));
        assert!(shown.contains(&("v2-deprecation", "write-only".into())));
        let (notices, shown) = told(&[]);
        assert!(notices.is_empty());
        assert!(shown.contains(&("listen-peer-urls", vec!["http://localhost:2380"].into())));
        assert!(shown.contains(&("pre-vote", true.into())));
    }

    #[test]
    fn a_compactions_pace_is_set_and_0_is_the_default() {
        let pace = |flags: &[&str]| run(flags).unwrap().compaction;
        let set = ["--compaction-batch-limit=1", "--compaction-sleep-interval=1h"];
        let slow = CompactionPace { batch: 1, sleep: Duration::from_secs(3_600) };
        assert_eq!(pace(&set), slow);
        let none = ["--compaction-batch-limit=0", "--compaction-sleep-interval=0s"];
        assert_eq!(pace(&none), CompactionPace::default());
        assert_eq!(pace(&["--compaction-batch-limit=-1"]), CompactionPace::default());
    }

    #[test]
    fn who_listens_says_where_clients_find_it() {
        let listens = "--listen-client-urls=http://127.0.0.1:2379";
        assert_eq!(refusal(&[listens]), UNADVERTISED);
        assert!(
            run(&[listens, "--advertise-client-urls="]).unwrap().advertise_client_urls.is_empty()
        );
        assert!(run(&["--advertise-client-urls=http://a:1"]).is_ok());
    }

    #[test]
    fn origins_are_urls_or_all() {
        assert_eq!(run(&[]).unwrap().cors, Cors::Any);
        let one = Cors::Only(["http://a.example:80".to_owned()].into());
        assert_eq!(run(&["--cors=http://a.example:80"]).unwrap().cors, one);
        assert!(refusal(&["--cors=nowhere"]).contains("for flag -cors"));
    }

    #[test]
    fn levels_have_all_their_names() {
        for name in ["INFO", "", "Warn", "warning", "DPANIC", "dpanic", "panic", "Fatal", "debug"] {
            assert!(run(&[&format!("--log-level={name}")]).is_ok(), "{name}");
        }
        assert_eq!(refusal(&["--log-level=loud"]), "unrecognized level: \"loud\"");
    }

    #[test]
    fn what_comes_later_is_refused_unless_it_is_the_default() {
        assert!(refusal(&["--auto-tls"]).contains("--auto-tls=true is not implemented"));
        assert!(run(&["--auto-tls=f", "--listen-metrics-urls="]).is_ok());
    }

    #[test]
    fn the_guides_file_starts_a_member() {
        let dir = std::env::temp_dir().join(format!("quorate-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("etcd.yaml");
        let yaml = "name: etcd-node0\ndata-dir: /var/lib/etcd\n\
            listen-client-urls: http://0.0.0.0:2379\nadvertise-client-urls: http://0.0.0.0:2379\n\
            listen-peer-urls: http://0.0.0.0:2380\n\
            initial-advertise-peer-urls: http://0.0.0.0:2380\n\
            initial-cluster: etcd-node0=http://0.0.0.0:2380\n\
            initial-cluster-token: etcd-cluster-token\ninitial-cluster-state: new\n\
            log-level: info\nlogger: zap\nlog-outputs: stderr\n";
        std::fs::write(&path, yaml).unwrap();
        let options = run(&["--config-file", path.to_str().unwrap()]).unwrap();
        assert_eq!(options.name, "etcd-node0");
        assert_eq!(options.initial_cluster_token, "etcd-cluster-token");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
