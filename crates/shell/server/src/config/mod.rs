//! Configuration: flags, environment and YAML become [`Options`].
//!
//! Owns the table of flags ([`table`]), how their values are written ([`value`], [`words`],
//! [`deferred`], [`urls`]), where they come from ([`source`], [`file`]), what contradicts itself
//! (`check`) and what a member is run with (`resolve`). Errors and their order are etcd's; a flag
//! whose feature comes later is refused unless it has its default.

mod check;
pub mod configuration;
pub mod deferred;
pub mod features;
pub mod file;
pub mod flag;
mod help;
mod resolve;
mod shown;
pub mod source;
pub mod table;
pub mod urls;
pub mod value;
pub mod words;
mod yaml;

use crate::options::Options;
use observe::logging::{Format, Level};

pub use check::UNADVERTISED;
pub use help::help;
pub use source::{ConfigError, Given, Notice};

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
    pub log_level: Level,
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
/// [`ConfigError`].
pub fn configure(
    args: &[String],
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Request, ConfigError> {
    let given = source::command_line(args)?;
    if given.configuration.version {
        return Ok(Request::Version);
    }
    let given = complete(given, variables.collect())?;
    checked(given)
        .map(|configured| Request::Run(Box::new(configured)))
        .map_err(ConfigError::Invalid)
}

/// Adds the environment, or reads the file instead.
fn complete(mut given: Given, variables: Vec<(String, String)>) -> Result<Given, ConfigError> {
    let named = variables.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE");
    let path = match given.configuration.config_file.as_str() {
        "" => named.map(|(_, path)| path.clone()).filter(|path| !path.is_empty()),
        path => Some(path.to_owned()),
    };
    let Some(path) = path else {
        source::environment(&mut given, variables.into_iter())?;
        return Ok(given);
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|e| ConfigError::Invalid(format!("open {path}: {}", osenv::error_text(&e))))?;
    let mut notices = given.notices;
    notices.push(Notice {
        level: Level::Info,
        text: "loaded server configuration, other configuration command line flags and \
               environment variables will be ignored if provided"
            .to_owned(),
        fields: vec![("path", path)],
    });
    let mut given = file::read(&text)?;
    given.notices = notices;
    Ok(given)
}

fn checked(given: Given) -> Result<Configured, String> {
    check::check(&given)?;
    let logging = &given.configuration.logging;
    let (log_level, log_format) = (*logging.level.get()?, *logging.format.get()?);
    let options = resolve::options(&given)?;
    Ok(Configured {
        log_level,
        log_format,
        log_outputs: logging.outputs.0.clone(),
        shown: shown::fields(&given, &options),
        notices: given.notices.iter().cloned().chain(shown::deprecations(&given)).collect(),
        options,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use member::{CompactionPace, Retention};
    use rpc::Cors;

    use super::words::{ClusterState, Quota};
    use super::*;

    fn run(args: &[&str]) -> Result<Options, ConfigError> {
        let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
        match configure(&args, std::iter::empty())? {
            Request::Run(configured) => Ok(configured.options),
            Request::Version => panic!("nobody asked for the version"),
        }
    }

    fn refusal(args: &[&str]) -> String {
        match run(args) {
            Err(ConfigError::Invalid(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_flags_give_etcds_defaults() {
        let options = run(&[]).unwrap();
        assert_eq!(options.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(options.wal_dir, PathBuf::from("default.etcd/member/wal"));
        assert_eq!(options.initial_cluster[0].1, ["http://localhost:2380"]);
        assert_eq!((options.quota, options.quota.limit()), (Quota::Default, Some(1 << 31)));
        let quota = |flag: &str| run(&[flag]).unwrap().quota;
        let none = quota("--quota-backend-bytes=-1");
        assert_eq!((none.limit(), none.number()), (None, -1));
        assert_eq!(quota("--quota-backend-bytes=7").limit(), Some(7));
        assert_eq!(run(&["--max-learners=-1"]).unwrap().max_learners, 0);
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
        assert!(shown.contains(&("initial-cluster", "default=http://localhost:2380".into())));
        assert!(shown.contains(&("auto-compaction-retention", "0s".into())));
        assert!(shown.contains(&("quota-backend-bytes", 2_147_483_648_u64.into())));
        let (_, shown) = told(&["--name=m", "--auto-compaction-retention=1"]);
        assert!(shown.contains(&("initial-cluster", "m=http://localhost:2380".into())));
        assert!(shown.contains(&("auto-compaction-retention", "1h0m0s".into())));
        let gates = "--feature-gates=LeaseCheckpoint=true, CompactHashCheck=1";
        let (_, shown) = told(&[gates]);
        let sorted = "CompactHashCheck=true,LeaseCheckpoint=true";
        assert!(shown.contains(&("feature-gates", sorted.into())));
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
        let text = "invalid value \"nowhere\" for flag -cors: URL scheme must be http, https, unix, \
                    or unixs: nowhere";
        assert_eq!(run(&["--cors=nowhere"]).unwrap_err(), ConfigError::Usage(text.to_owned()));
        assert!(matches!(run(&["--cors="]), Err(ConfigError::Usage(_))));
        assert_eq!(file::read("cors: ''").unwrap().configuration.listeners.cors, Cors::Any);
    }

    #[test]
    fn defaults_of_a_member_within_a_program_are_those_of_the_flags() {
        let (ours, flags) = (format!("{:?}", Options::default()), run(&[]).unwrap());
        // Names are resolved only where somebody asked for them.
        let resolved = Options {
            client_urls: Options::default().client_urls,
            peer_urls: Options::default().peer_urls,
            ..flags
        };
        assert_eq!(format!("{resolved:?}"), ours);
    }

    #[test]
    fn what_a_word_means_is_checked_in_etcds_order() {
        let fallback = "v2 proxy is deprecated, and --discovery-fallback can't be configured as \
                        \"proxy\"";
        assert_eq!(refusal(&["--discovery-fallback=proxy", "--logger=x"]), fallback);
        let level = "unrecognized level: \"loud\"";
        assert_eq!(refusal(&["--log-level=loud", "--heartbeat-interval=0"]), level);
        let heartbeat = "--heartbeat-interval must be >0 (set to 0ms)";
        assert_eq!(refusal(&["--auto-compaction-mode=x", "--heartbeat-interval=0"]), heartbeat);
        assert_eq!(refusal(&["--auto-compaction-mode=x"]), "unknown auto-compaction-mode \"x\"");
        assert!(refusal(&["--feature-gates=AllAlpha=true"]).contains("AllAlpha=true is not impl"));
        let existing = run(&["--initial-cluster-state=existing"]).unwrap();
        assert_eq!(existing.state, ClusterState::Existing);
        let state = file::read("initial-cluster-state: foo").unwrap();
        assert_eq!(check::check(&state).unwrap_err(), "unexpected clusterState \"foo\"");
        let state = file::read("initial-cluster-state: ''").unwrap();
        assert_eq!(check::check(&state), Ok(()));
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
        let text = "--enable-pprof=true is not implemented";
        assert!(refusal(&["--enable-pprof"]).contains(text));
        assert!(run(&["--enable-pprof=f", "--listen-metrics-urls="]).is_ok());
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
