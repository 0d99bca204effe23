//! The tree of commands as data, and what they print.

use cli::{Command, Exit, Flag, Kind, Program, Values, text};

use crate::restore;
use crate::snapshot;

/// What runs a command.
pub type Run = fn(&Values) -> Result<(), Exit>;

const fn leaf(
    name: &'static str,
    args: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    run: Run,
) -> Command<Run> {
    Command { name, args, about, flags, shared_flags: &[], commands: &[], run: Some(run) }
}

fn missing(_: &Values) -> Result<(), Exit> {
    Err(Exit::new(Exit::ERROR, "this command is not implemented"))
}

const DEFAULT_URL: &str = "http://localhost:2380";

const RESTORE: &[Flag] = &[
    Flag::new("data-dir", Kind::String, "", "data directory to make; <name>.etcd by default"),
    Flag::new("wal-dir", Kind::String, "", "directory of the log, if apart"),
    Flag::new("initial-cluster", Kind::String, "default=http://localhost:2380", "name=url,…"),
    Flag::new("initial-cluster-token", Kind::String, "etcd-cluster", "token of the new cluster"),
    Flag::new("initial-advertise-peer-urls", Kind::String, DEFAULT_URL, "URLs of this member"),
    Flag::new("name", Kind::String, "default", "name of this member"),
    Flag::switch("skip-hash-check", "take a snapshot without a hash"),
    Flag::new("initial-memory-map-size", Kind::Uint, "10737418240", "accepted, of no effect"),
    Flag::new("bump-revision", Kind::Uint, "0", "how far to raise the revision"),
    Flag::switch("mark-compacted", "compact at the raised revision"),
];

/// etcdutl.
pub static ETCDUTL: Program<Run> = Program {
    name: "etcdutl",
    about: "Offline tools of etcd.",
    flags: &[
        Flag::new("write-out", Kind::String, "simple", "fields, json, simple or table").short('w'),
        Flag::new("timeout", Kind::Duration, "10s", "longest wait for the database; 0: forever"),
    ],
    commands: &[
        leaf("completion", "", "(not implemented)", &[], missing),
        leaf("defrag", "", "(not implemented)", &[], missing),
        leaf(
            "hashkv",
            "<filename>",
            "Hash of the history in a database",
            &[Flag::new("rev", Kind::Int, "0", "up to this revision")],
            hashkv,
        ),
        leaf("migrate", "", "(not implemented)", &[], missing),
        Command {
            commands: &[
                leaf("restore", "<filename>", "Makes a data directory", RESTORE, restore::restore),
                leaf("status", "<filename>", "What is in a snapshot", &[], status),
            ],
            run: None,
            ..leaf("snapshot", "", "Snapshots", &[], missing)
        },
        leaf("version", "", "Prints versions", &[], version),
    ],
};

fn version(_: &Values) -> Result<(), Exit> {
    println!("etcdutl version: 3.7.1\nAPI version: 3.7");
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
            println!("{}", row.join(", "));
        }
        "fields" => columns.iter().for_each(|c| println!("\"{}\" : {}", c.field, c.raw)),
        "json" => {
            let pair = |c: &Column| {
                let is_number = c.raw.bytes().all(|b| b.is_ascii_digit() || b == b'-');
                let is_number = is_number && !c.raw.is_empty();
                let value = if is_number { c.raw.clone() } else { text::quote(c.raw.as_bytes()) };
                format!("\"{}\":{value}", c.json)
            };
            println!("{{{}}}", columns.iter().map(pair).collect::<Vec<_>>().join(","));
        }
        "table" => {
            let header: Vec<_> = columns.iter().map(|c| c.head).collect();
            let row = columns.iter().map(|c| c.shown.clone()).collect();
            print!("{}", text::table(&header, &[row]));
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
    let [path] = values.args.as_slice() else {
        return Err(Exit::args("snapshot status requires exactly one argument"));
    };
    let status = snapshot::status(path.as_ref(), values.duration("timeout"))?;
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
    let [path] = values.args.as_slice() else {
        let count = values.args.len();
        return Err(Exit::new(Exit::ERROR, format!("accepts 1 arg(s), received {count}")));
    };
    let revision = values.int("rev");
    let hash = snapshot::hash_kv(path.as_ref(), revision, values.duration("timeout"))?;
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
