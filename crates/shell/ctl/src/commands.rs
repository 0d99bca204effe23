//! The tree of commands as data.
//!
//! Commands whose function is [`missing`] are listed so that prefixes of names mean what they mean
//! in etcdctl, and end with a text that says that they are not there.

use cli::{Command, Exit, Flag, Kind, Program};

use crate::session::Context;
use crate::{downgrade, endpoint, kv, lease, maintenance, member, move_leader, txn, watch};

/// What runs a command.
pub type Run = fn(&Context) -> Result<(), Exit>;

const fn leaf(
    name: &'static str,
    args: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    run: Run,
) -> Command<Run> {
    Command { name, args, about, flags, shared_flags: &[], commands: &[], run: Some(run) }
}

const fn group(
    name: &'static str,
    about: &'static str,
    commands: &'static [Command<Run>],
) -> Command<Run> {
    Command { name, args: "", about, flags: &[], shared_flags: &[], commands, run: None }
}

const fn absent(name: &'static str) -> Command<Run> {
    leaf(name, "", "(not implemented)", &[], missing)
}

fn missing(_: &Context) -> Result<(), Exit> {
    Err(Exit::new(Exit::ERROR, "this command is not implemented"))
}

use Kind::{Bool, Duration, Int, String, Strings};

const GLOBAL: &[Flag] = &[
    Flag::new("endpoints", Strings, "127.0.0.1:2379", "servers, between commas"),
    Flag::switch("debug", "say more on stderr"),
    Flag::new("write-out", String, "simple", "fields, json, protobuf, simple or table").short('w'),
    Flag::switch("hex", "print bytes as hex"),
    Flag::new("dial-timeout", Duration, "2s", "longest time to connect"),
    Flag::new("command-timeout", Duration, "5s", "longest time of most commands"),
    Flag::new("keepalive-time", Duration, "2s", "time between pings"),
    Flag::new("keepalive-timeout", Duration, "6s", "longest wait for a ping's answer"),
    Flag::new("max-request-bytes", Int, "0", "longest request; 0 means 2 MiB"),
    Flag::new("max-recv-bytes", Int, "0", "longest response; 0 means 2 GiB"),
    Flag::new("insecure-transport", Bool, "true", "no TLS"),
    Flag::new("insecure-discovery", Bool, "true", "take discovered endpoints without TLS"),
    Flag::switch("insecure-skip-tls-verify", "do not verify the server's certificate"),
    Flag::new("cert", String, "", "client certificate"),
    Flag::new("key", String, "", "client key"),
    Flag::new("cacert", String, "", "certificates of the servers' authority"),
    Flag::new("auth-jwt-token", String, "", "token for authentication"),
    Flag::new("user", String, "", "name[:password]"),
    Flag::new("password", String, "", "password; then all of --user is the name"),
    Flag::new("discovery-srv", String, "", "domain whose SRV records name the servers").short('d'),
    Flag::new("discovery-srv-name", String, "", "service name in those records"),
];

const CONSISTENCY: Flag =
    Flag::new("consistency", String, "l", "l (linearizable) or s (serializable)");

/// Flags of `get`.
pub const GET: &[Flag] = &[
    CONSISTENCY,
    Flag::new("order", String, "", "ASCEND or DESCEND"),
    Flag::new("sort-by", String, "", "CREATE, KEY, MODIFY, VALUE or VERSION"),
    Flag::new("limit", Int, "0", "most keys to return"),
    Flag::switch("prefix", "all keys that begin with the key"),
    Flag::switch("from-key", "all keys from the key on"),
    Flag::new("rev", Int, "0", "as of this revision"),
    Flag::switch("keys-only", "no values"),
    Flag::switch("count-only", "only how many"),
    Flag::switch("print-value-only", "print values without keys"),
    Flag::new("min-create-rev", Int, "0", "leave out keys created before"),
    Flag::new("max-create-rev", Int, "0", "leave out keys created after"),
    Flag::new("min-mod-rev", Int, "0", "leave out keys changed before"),
    Flag::new("max-mod-rev", Int, "0", "leave out keys changed after"),
    Flag::switch("stream", "receive the range in pieces"),
];

/// Flags of `put`.
pub const PUT: &[Flag] = &[
    Flag::new("lease", String, "0", "lease to attach, in hex"),
    Flag::switch("prev-kv", "print what was there before"),
    Flag::switch("ignore-value", "keep the value"),
    Flag::switch("ignore-lease", "keep the lease"),
];

/// Flags of `del`.
pub const DEL: &[Flag] = &[
    Flag::switch("prefix", "all keys that begin with the key"),
    Flag::switch("prev-kv", "print what was there before"),
    Flag::switch("from-key", "all keys from the key on"),
    Flag::switch("range", "delete a range without waiting"),
];

const WATCH: &[Flag] = &[
    Flag::switch("interactive", "read requests from stdin").short('i'),
    Flag::switch("prefix", "all keys that begin with the key"),
    Flag::new("rev", Int, "0", "from this revision on"),
    Flag::switch("prev-kv", "print what was there before"),
    Flag::switch("progress-notify", "print progress"),
];

const CLUSTER: &[Flag] = &[Flag::switch("cluster", "all members instead of --endpoints")];

const PEER_URLS: Flag =
    Flag::new("peer-urls", String, "", "where its peers reach it, between commas");

const MEMBER_ADD: &[Flag] = &[PEER_URLS, Flag::switch("learner", "it does not vote yet")];

/// etcdctl.
pub static ETCDCTL: Program<Run> = Program {
    name: "etcdctl",
    about: "A command line client of etcd.",
    flags: GLOBAL,
    commands: &[
        group(
            "alarm",
            "Alarms of members",
            &[
                leaf("disarm", "", "Ends all alarms", &[], maintenance::alarm_disarm),
                leaf("list", "", "Lists alarms", &[], maintenance::alarm_list),
            ],
        ),
        group("auth", "Authentication", &[absent("disable"), absent("enable"), absent("status")]),
        group("check", "Checks of a cluster", &[absent("datascale"), absent("perf")]),
        leaf(
            "compaction",
            "<revision>",
            "Forgets history before a revision",
            &[Flag::switch("physical", "wait until it is gone from disk")],
            kv::compaction,
        ),
        absent("completion"),
        leaf("defrag", "", "Returns free space to the file system", CLUSTER, maintenance::defrag),
        leaf("del", "<key> [range_end]", "Deletes keys", DEL, kv::del),
        group(
            "downgrade",
            "Downgrades of a cluster",
            &[
                leaf("cancel", "", "Ends a downgrade", &[], downgrade::cancel),
                leaf("enable", "<version>", "Begins a downgrade", &[], downgrade::enable),
                leaf(
                    "validate",
                    "<version>",
                    "Asks whether one may begin",
                    &[],
                    downgrade::validate,
                ),
            ],
        ),
        absent("elect"),
        Command {
            shared_flags: CLUSTER,
            ..group(
                "endpoint",
                "Questions to single servers",
                &[
                    leaf(
                        "hashkv",
                        "",
                        "Hash of the history",
                        &[Flag::new("rev", Int, "0", "up to this revision")],
                        endpoint::hashkv,
                    ),
                    leaf("health", "", "Whether they serve", &[], endpoint::health),
                    leaf("status", "", "How they are", &[], endpoint::status),
                ],
            )
        },
        leaf("get", "<key> [range_end]", "Reads keys", GET, kv::get),
        group(
            "lease",
            "Leases",
            &[
                leaf("grant", "<ttl>", "Makes a lease", &[], lease::grant),
                leaf(
                    "keep-alive",
                    "<lease>",
                    "Keeps a lease alive",
                    &[Flag::switch("once", "once only")],
                    lease::keep_alive,
                ),
                leaf("list", "", "Lists leases", &[], lease::list),
                leaf("revoke", "<lease>", "Ends a lease", &[], lease::revoke),
                leaf(
                    "timetolive",
                    "<lease>",
                    "Remaining time of a lease",
                    &[Flag::switch("keys", "list attached keys")],
                    lease::time_to_live,
                ),
            ],
        ),
        absent("lock"),
        absent("make-mirror"),
        group(
            "member",
            "Members of the cluster",
            &[
                leaf("add", "<name>", "Adds a member", MEMBER_ADD, member::add),
                leaf("list", "", "Lists members", &[CONSISTENCY], member::list),
                leaf("promote", "<member>", "Lets a learner vote", &[], member::promote),
                leaf("remove", "<member>", "Removes a member", &[], member::remove),
                leaf("update", "<member>", "Moves a member", &[PEER_URLS], member::update),
            ],
        ),
        leaf("move-leader", "<member>", "Makes another member lead", &[], move_leader::move_leader),
        absent("options"),
        leaf("put", "<key> [value]", "Writes a key; the value may come from stdin", PUT, kv::put),
        group(
            "role",
            "Roles",
            &[
                absent("add"),
                absent("delete"),
                absent("get"),
                absent("grant-permission"),
                absent("list"),
                absent("revoke-permission"),
            ],
        ),
        group(
            "snapshot",
            "Snapshots of a member",
            &[leaf("save", "<filename>", "Saves a snapshot", &[], maintenance::snapshot_save)],
        ),
        leaf(
            "txn",
            "",
            "Runs a transaction from stdin",
            &[Flag::switch("interactive", "show prompts").short('i')],
            txn::txn,
        ),
        group(
            "user",
            "Users",
            &[
                absent("add"),
                absent("delete"),
                absent("get"),
                absent("grant-role"),
                absent("list"),
                absent("passwd"),
                absent("revoke-role"),
            ],
        ),
        leaf("version", "", "Prints versions", &[], maintenance::version),
        leaf(
            "watch",
            "[key [range_end]] [-- command]",
            "Prints changes as they happen",
            WATCH,
            watch::watch,
        ),
    ],
};
