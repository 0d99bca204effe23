//! The tree of commands as data, and what they print.

use cli::{Command, Exit, Flag, Program, Takes, ValueType, Values, completion, output, text};

use crate::defrag;
use crate::migrate;
use crate::restore;
use crate::snapshot;

/// What runs a command.
pub type Run = fn(&Values) -> Result<(), Exit>;

const DEFAULT_URL: &str = "http://localhost:2380";

const RESTORE: &[Flag] = &[
    Flag::new("data-dir", ValueType::String, "", "data directory to make; <name>.etcd by default"),
    Flag::new("wal-dir", ValueType::String, "", "directory of the log, if apart"),
    Flag::new("initial-cluster", ValueType::String, "default=http://localhost:2380", "name=url,…"),
    Flag::new(
        "initial-cluster-token",
        ValueType::String,
        "etcd-cluster",
        "token of the new cluster",
    ),
    Flag::new("initial-advertise-peer-urls", ValueType::String, DEFAULT_URL, "URLs of this member"),
    Flag::new("name", ValueType::String, "default", "name of this member"),
    Flag::switch("skip-hash-check", "take a snapshot without a hash"),
    Flag::new("initial-memory-map-size", ValueType::Uint, "10737418240", "accepted, of no effect"),
    Flag::new("bump-revision", ValueType::Uint, "0", "how far to raise the revision"),
    Flag::switch("mark-compacted", "compact at the raised revision"),
];

const DATA_DIR: Flag =
    Flag::new("data-dir", ValueType::String, "", "data directory, of no server that runs")
        .required();

const MIGRATE: &[Flag] = &[
    DATA_DIR,
    Flag::new("target-version", ValueType::String, "", "X.Y, 3.5 or later").required(),
    Flag::switch("force", "write the version whatever the log holds"),
];

/// etcdutl.
pub static ETCDUTL: Program<Run> = Program {
    name: "etcdutl",
    about: "Offline tools of etcd.",
    flags: &[
        Flag::new("write-out", ValueType::String, "simple", "fields, json, simple or table")
            .short('w')
            .choices(&["fields", "json", "simple", "table"]),
        Flag::new(
            "timeout",
            ValueType::Duration,
            "10s",
            "longest wait for the database; 0: forever",
        ),
    ],
    commands: &[
        Command::leaf(
            ("completion", completion::ARGS, "Prints a script by which a shell completes"),
            completion::TAKES,
            &[],
            |values| completion::run(&ETCDUTL, values),
        ),
        Command::leaf(
            ("defrag", "", "Returns free space of a database that is not in use"),
            Takes::ANY,
            &[DATA_DIR],
            defrag::defrag,
        ),
        Command::leaf(
            ("hashkv", "<filename>", "Hash of the history in a database"),
            Takes::exactly(1, "accepts 1 arg(s), received 0")
                .or_too_many_as(|args| format!("accepts 1 arg(s), received {}", args.len()))
                .with_code(Exit::ERROR),
            &[Flag::new("rev", ValueType::Int, "0", "up to this revision")],
            hashkv,
        ),
        Command::leaf(
            ("migrate", "", "Makes a data directory one of another version of etcd"),
            Takes::ANY,
            MIGRATE,
            migrate::migrate,
        ),
        Command::group("snapshot", "Snapshots", SNAPSHOT),
        Command::leaf(("version", "", "Prints versions"), Takes::ANY, &[], version),
    ],
};

const SNAPSHOT: &[Command<Run>] = &[
    Command::leaf(
        ("restore", "<filename>", "Makes a data directory"),
        Takes::exactly(1, "snapshot restore requires exactly one argument"),
        RESTORE,
        restore::restore,
    ),
    Command::leaf(
        ("status", "<filename>", "What is in a snapshot"),
        Takes::exactly(1, "snapshot status requires exactly one argument"),
        &[],
        status,
    ),
];

/// The file that a command is about.
pub(crate) fn file(values: &Values) -> &str {
    values.args.first().expect("arguments are counted before a command runs")
}

fn version(_: &Values) -> Result<(), Exit> {
    let (version, api) = (types::SERVER_VERSION, types::API_VERSION);
    output::out(format!("etcdutl version: {version}\nAPI version: {api}\n"));
    Ok(())
}

/// Names and values of an answer: for tables, for fields, for JSON.
struct Column {
    head: &'static str,
    field: &'static str,
    json: &'static str,
    shown: String,
    raw: String,
}

fn show(values: &Values, columns: &[Column]) -> Result<(), Exit> {
    match values.text("write-out") {
        "simple" => {
            let row: Vec<_> = columns.iter().map(|c| c.shown.as_str()).collect();
            output::out(row.join(", ") + "\n");
        }
        "fields" => {
            let line = |c: &Column| format!("\"{}\" : {}\n", c.field, c.raw);
            output::out(columns.iter().map(line).collect::<String>());
        }
        "json" => {
            let pair = |c: &Column| {
                let is_number = c.raw.bytes().all(|b| b.is_ascii_digit() || b == b'-');
                let is_number = is_number && !c.raw.is_empty();
                let value = if is_number { c.raw.clone() } else { text::quote(c.raw.as_bytes()) };
                format!("\"{}\":{value}", c.json)
            };
            let pairs: Vec<_> = columns.iter().map(pair).collect();
            output::out(format!("{{{}}}\n", pairs.join(",")));
        }
        "table" => {
            let header: Vec<_> = columns.iter().map(|c| c.head).collect();
            let row = columns.iter().map(|c| c.shown.clone()).collect();
            output::out(text::table(&header, &[row]));
        }
        "protobuf" => {
            let text = "protobuf not supported as output format";
            return Err(Exit::new(Exit::BAD_FEATURE, text));
        }
        _ => return Err(Exit::new(Exit::BAD_FEATURE, "unsupported output format")),
    }
    Ok(())
}

fn status(values: &Values) -> Result<(), Exit> {
    let status = snapshot::status(file(values).as_ref(), values.duration("timeout"))?;
    let column =
        |head, field, json, shown: String, raw: String| Column { head, field, json, shown, raw };
    let number = |n: u64| (n.to_string(), n.to_string());
    let (revision, keys) = (number(status.revision), number(status.keys));
    show(
        values,
        &[
            column("hash", "Hash", "hash", format!("{:x}", status.hash), status.hash.to_string()),
            column("revision", "Revision", "revision", revision.0, revision.1),
            column("total keys", "Keys", "totalKey", keys.0, keys.1),
            column(
                "total size",
                "Size",
                "totalSize",
                text::size(status.size_bytes),
                status.size_bytes.to_string(),
            ),
            column("version", "Version", "version", status.version.clone(), status.version),
        ],
    )
}

fn hashkv(values: &Values) -> Result<(), Exit> {
    let revision = values.int("rev");
    let hash = snapshot::hash_kv(file(values).as_ref(), revision, values.duration("timeout"))?;
    let column = |head, field, json, value: String| Column {
        head,
        field,
        json,
        shown: value.clone(),
        raw: value,
    };
    show(
        values,
        &[
            column("hash", "Hash", "hash", hash.hash.to_string()),
            column("hash revision", "Hash revision", "hashRevision", hash.revision.0.to_string()),
            column(
                "compact revision",
                "Compact revision",
                "compactRevision",
                hash.compact_revision.0.to_string(),
            ),
        ],
    )
}
