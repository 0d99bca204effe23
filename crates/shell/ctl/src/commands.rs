//! The tree of commands as data.
//!
//! How many arguments each command takes is in its row ([`Takes`]), with etcd's words, and nowhere
//! else.

use cli::{Command, Exit, Flag, Program, Secrecy, Takes, ValueType, completion, help, output};

use crate::session::Context;
use crate::{
    auth, check, downgrade, endpoint, kv, lease, lock, maintenance, member, mirror, move_leader,
    role, txn, user, watch,
};

/// What runs a command.
pub type Run = fn(&Context) -> Result<(), Exit>;

use Secrecy::{Secret, SecretAfterColon};
use ValueType::{Bool, Duration, Int, String, Strings, Uint};

const GLOBAL: &[Flag] = &[
    Flag::new("endpoints", Strings, "127.0.0.1:2379", "servers, between commas"),
    Flag::switch("debug", "say more on stderr"),
    Flag::new("write-out", String, "simple", "fields, json, protobuf, simple or table")
        .short('w')
        .choices(&["fields", "json", "protobuf", "simple", "table"]),
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
    Flag::new("auth-jwt-token", String, "", "token for authentication").secret(Secret),
    Flag::new("user", String, "", "name[:password]; without, it is asked for")
        .secret(SecretAfterColon),
    Flag::new("password", String, "", "password; then all of --user is the name").secret(Secret),
    Flag::new("discovery-srv", String, "", "domain whose SRV records name the servers").short('d'),
    Flag::new("discovery-srv-name", String, "", "service name in those records"),
];

const CONSISTENCY: Flag =
    Flag::new("consistency", String, "l", "l (linearizable) or s (serializable)");

const GET: &[Flag] = &[
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

const PUT: &[Flag] = &[
    Flag::new("lease", String, "0", "lease to attach, in hex"),
    Flag::switch("prev-kv", "print what was there before"),
    Flag::switch("ignore-value", "keep the value"),
    Flag::switch("ignore-lease", "keep the lease"),
];

const DEL: &[Flag] = &[
    Flag::switch("prefix", "all keys that begin with the key"),
    Flag::switch("prev-kv", "print what was there before"),
    Flag::switch("from-key", "all keys from the key on"),
    Flag::switch("range", "delete a range without waiting"),
];

/// The flags of `watch`, also of a line of its stdin.
pub const WATCH: &[Flag] = &[
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

const GET_TAKES: Takes = Takes::at_least(
    1,
    "get command needs one argument as key and an optional argument as range_end",
);
const DEL_TAKES: Takes = Takes::between(
    1,
    2,
    "del command needs one argument as key and an optional argument as range_end",
);
const PUT_TAKES: Takes =
    Takes::at_least(1, "put command needs 1 argument and input from stdin or 2 arguments");
const MEMBER_ID: Takes = Takes::exactly(1, "member ID is not provided");
const TARGET_VERSION: Takes =
    Takes::exactly(1, "TARGET_VERSION not provided").or_too_many("too many arguments");

const ALARM: &[Command<Run>] = &[
    Command::leaf(
        ("disarm", "", "Ends all alarms"),
        Takes::none("alarm disarm command accepts no arguments"),
        &[],
        maintenance::alarm_disarm,
    ),
    Command::leaf(
        ("list", "", "Lists alarms"),
        Takes::none("alarm list command accepts no arguments"),
        &[],
        maintenance::alarm_list,
    ),
];

const DOWNGRADE: &[Command<Run>] = &[
    Command::leaf(("cancel", "", "Ends a downgrade"), Takes::ANY, &[], downgrade::cancel),
    Command::leaf(
        ("enable", "<version>", "Begins a downgrade"),
        TARGET_VERSION,
        &[],
        downgrade::enable,
    ),
    Command::leaf(
        ("validate", "<version>", "Asks whether one may begin"),
        TARGET_VERSION,
        &[],
        downgrade::validate,
    ),
];

const ENDPOINT: &[Command<Run>] = &[
    Command::leaf(
        ("hashkv", "", "Hash of the history"),
        Takes::ANY,
        &[Flag::new("rev", Int, "0", "up to this revision")],
        endpoint::hashkv,
    ),
    Command::leaf(("health", "", "Whether they serve"), Takes::ANY, &[], endpoint::health),
    Command::leaf(("status", "", "How they are"), Takes::ANY, &[], endpoint::status),
];

const LEASE: &[Command<Run>] = &[
    Command::leaf(
        ("grant", "<ttl>", "Makes a lease"),
        Takes::exactly(1, "lease grant command needs TTL argument"),
        &[],
        lease::grant,
    ),
    Command::leaf(
        ("keep-alive", "<lease>", "Keeps a lease alive"),
        Takes::exactly(1, "lease keep-alive command needs lease ID as argument"),
        &[Flag::switch("once", "once only")],
        lease::keep_alive,
    ),
    Command::leaf(("list", "", "Lists leases"), Takes::ANY, &[], lease::list),
    Command::leaf(
        ("revoke", "<lease>", "Ends a lease"),
        Takes::exactly(1, "lease revoke command needs 1 argument"),
        &[],
        lease::revoke,
    ),
    Command::leaf(
        ("timetolive", "<lease>", "Remaining time of a lease"),
        Takes::exactly(1, "lease timetolive command needs lease ID as argument"),
        &[Flag::switch("keys", "list attached keys")],
        lease::time_to_live,
    ),
];

const MEMBER: &[Command<Run>] = &[
    Command::leaf(
        ("add", "<name>", "Adds a member"),
        Takes::exactly(1, "member name not provided").or_too_many_as(member::too_many_names),
        MEMBER_ADD,
        member::add,
    ),
    Command::leaf(("list", "", "Lists members"), Takes::ANY, &[CONSISTENCY], member::list),
    Command::leaf(("promote", "<member>", "Lets a learner vote"), MEMBER_ID, &[], member::promote),
    Command::leaf(("remove", "<member>", "Removes a member"), MEMBER_ID, &[], member::remove),
    Command::leaf(
        ("update", "<member>", "Moves a member"),
        MEMBER_ID,
        &[PEER_URLS],
        member::update,
    ),
];

const PERMISSION: &[Flag] = &[
    Flag::switch("prefix", "all keys that begin with the key"),
    Flag::switch("from-key", "all keys from the key on"),
];

const ROLE: &[Command<Run>] = &[
    Command::leaf(
        ("add", "<role>", "Makes a role"),
        Takes::exactly(1, "role add command requires role name as its argument"),
        &[],
        role::add,
    ),
    Command::leaf(
        ("delete", "<role>", "Removes a role"),
        Takes::exactly(1, "role delete command requires role name as its argument"),
        &[],
        role::delete,
    ),
    Command::leaf(
        ("get", "<role>", "Shows what a role permits"),
        Takes::exactly(1, "role get command requires role name as its argument"),
        &[],
        role::get,
    ),
    Command::leaf(
        ("grant-permission", "<role> <permission> <key> [endkey]", "Lets a role read or write"),
        Takes::at_least(
            3,
            "role grant command requires role name, permission type, and key [endkey] as its argument",
        ),
        PERMISSION,
        role::grant_permission,
    ),
    Command::leaf(
        ("list", "", "Lists roles"),
        Takes::none("role list command requires no arguments"),
        &[],
        role::list,
    ),
    Command::leaf(
        ("revoke-permission", "<role> <key> [endkey]", "Takes a permission from a role"),
        Takes::at_least(
            2,
            "role revoke-permission command requires role name and key [endkey] as its argument",
        ),
        PERMISSION,
        role::revoke_permission,
    ),
];

const SNAPSHOT: &[Command<Run>] = &[Command::leaf(
    ("save", "<filename>", "Saves a snapshot"),
    Takes::exactly(1, "snapshot save expects one argument <filename>"),
    &[],
    maintenance::snapshot_save,
)];

const INTERACTIVE: Flag =
    Flag::new("interactive", Bool, "true", "ask at the terminal; otherwise a word from stdin");

const USER_ADD: &[Flag] = &[
    INTERACTIVE,
    Flag::new("new-user-password", String, "", "the new user's password").secret(Secret),
    Flag::switch("no-password", "a user that a certificate alone makes known"),
];

const USER: &[Command<Run>] = &[
    Command::leaf(
        ("add", "<user or user:password>", "Makes a user"),
        Takes::exactly(1, "user add command requires user name as its argument"),
        USER_ADD,
        user::add,
    ),
    Command::leaf(
        ("delete", "<user>", "Removes a user"),
        Takes::exactly(1, "user delete command requires user name as its argument"),
        &[],
        user::delete,
    ),
    Command::leaf(
        ("get", "<user>", "Shows the roles of a user"),
        Takes::exactly(1, "user get command requires user name as its argument"),
        &[Flag::switch("detail", "with what the roles permit")],
        user::get,
    ),
    Command::leaf(
        ("grant-role", "<user> <role>", "Gives a user a role"),
        Takes::exactly(2, "user grant command requires user name and role name as its argument"),
        &[],
        user::grant_role,
    ),
    Command::leaf(
        ("list", "", "Lists users"),
        Takes::none("user list command requires no arguments"),
        &[],
        user::list,
    ),
    Command::leaf(
        ("passwd", "<user>", "Changes the password of a user"),
        Takes::exactly(1, "user passwd command requires user name as its argument"),
        &[INTERACTIVE],
        user::passwd,
    ),
    Command::leaf(
        ("revoke-role", "<user> <role>", "Takes a role from a user"),
        Takes::exactly(2, "user revoke-role requires user name and role name as its argument"),
        &[],
        user::revoke_role,
    ),
];

const AUTH: &[Command<Run>] = &[
    Command::leaf(
        ("disable", "", "Lets everybody do everything"),
        Takes::none("auth disable command does not accept any arguments"),
        &[],
        auth::disable,
    ),
    Command::leaf(
        ("enable", "", "Lets users do what their roles permit"),
        Takes::none("auth enable command does not accept any arguments"),
        &[],
        auth::enable,
    ),
    Command::leaf(
        ("status", "", "Whether authentication is enabled"),
        Takes::none("auth status command does not accept any arguments"),
        &[],
        auth::status,
    ),
];

const COMPACTION: Command<Run> = Command::leaf(
    ("compaction", "<revision>", "Forgets history before a revision"),
    Takes::exactly(1, "compaction command needs 1 argument"),
    &[Flag::switch("physical", "wait until it is gone from disk")],
    kv::compaction,
);

/// `del`, also within a transaction.
pub const DEL_COMMAND: Command<Run> =
    Command::leaf(("del", "<key> [range_end]", "Deletes keys"), DEL_TAKES, DEL, kv::del);
/// `get`, also within a transaction.
pub const GET_COMMAND: Command<Run> =
    Command::leaf(("get", "<key> [range_end]", "Reads keys"), GET_TAKES, GET, kv::get);
/// `put`, also within a transaction.
pub const PUT_COMMAND: Command<Run> = Command::leaf(
    ("put", "<key> [value]", "Writes a key; the value may come from stdin"),
    PUT_TAKES,
    PUT,
    kv::put,
);

const TXN: Command<Run> = Command::leaf(
    ("txn", "", "Runs a transaction from stdin"),
    Takes::none("txn command does not accept argument"),
    &[Flag::switch("interactive", "show prompts").short('i')],
    txn::txn,
);

// It counts by itself: what may stand before `--` depends on the environment.
const WATCH_COMMAND: Command<Run> = Command::leaf(
    ("watch", "[key [range_end]] [-- command]", "Prints changes as they happen"),
    Takes::ANY,
    WATCH,
    watch::watch,
);

/// Loads of `check`.
const LOADS: &[&str] = &["small", "medium", "large", "xLarge"];

const LOAD: Flag =
    Flag::new("load", String, "s", "s (small), m (medium), l (large) or xl (xLarge)")
        .choices(LOADS);
const AUTO_COMPACT: Flag = Flag::switch("auto-compact", "compact in the end");
const AUTO_DEFRAG: Flag = Flag::switch("auto-defrag", "defragment in the end");

const CHECK: &[Command<Run>] = &[
    Command::leaf(
        ("datascale", "", "How much memory a server needs for data"),
        Takes::ANY,
        &[
            LOAD,
            Flag::new("prefix", String, "/etcdctl-check-datascale/", "of the keys it writes"),
            AUTO_COMPACT,
            AUTO_DEFRAG,
        ],
        check::datascale,
    ),
    Command::leaf(
        ("perf", "", "Whether the cluster bears a load for 60 seconds"),
        Takes::ANY,
        &[
            LOAD,
            Flag::new("prefix", String, "/etcdctl-check-perf/", "of the keys it writes"),
            AUTO_COMPACT,
            AUTO_DEFRAG,
        ],
        check::perf,
    ),
];

const MIRROR: &[Flag] = &[
    Flag::new("prefix", String, "", "of the keys that are copied"),
    Flag::new("rev", Int, "0", "only changes from this revision on"),
    Flag::new("max-txn-ops", Uint, "128", "most changes of one transaction"),
    Flag::new("dest-prefix", String, "", "what takes the prefix's place"),
    Flag::switch("no-dest-prefix", "take the prefix off"),
    Flag::new("dest-cert", String, "", "client certificate for the destination"),
    Flag::new("dest-key", String, "", "client key for the destination"),
    Flag::new("dest-cacert", String, "", "certificates of the destination's authority"),
    Flag::new("dest-insecure-transport", Bool, "true", "no TLS to the destination"),
    Flag::new("dest-user", String, "", "name[:password] at the destination")
        .secret(SecretAfterColon),
    Flag::new("dest-password", String, "", "password; then all of --dest-user is the name")
        .secret(Secret),
];

fn options(_: &Context) -> Result<(), Exit> {
    let flags = help::flag_table(ETCDCTL.flags);
    output::out(format!("The following options can be passed to any command:\n\n{flags}"));
    Ok(())
}

/// etcdctl.
pub static ETCDCTL: Program<Run> = Program {
    name: "etcdctl",
    about: "A command line client of etcd.",
    flags: GLOBAL,
    commands: &[
        Command::group("alarm", "Alarms of members", ALARM),
        Command::group("auth", "Authentication", AUTH),
        Command::group("check", "Checks of a cluster", CHECK),
        COMPACTION,
        Command::leaf(
            ("completion", completion::ARGS, "Prints a script by which a shell completes"),
            completion::TAKES,
            &[],
            |context| completion::run(&ETCDCTL, &context.values),
        ),
        Command::leaf(
            ("defrag", "", "Returns free space to the file system"),
            Takes::ANY,
            CLUSTER,
            maintenance::defrag,
        ),
        DEL_COMMAND,
        Command::group("downgrade", "Downgrades of a cluster", DOWNGRADE),
        Command::leaf(
            ("elect", "<election> [proposal]", "Stands for election, or tells who leads (-l)"),
            Takes::between(
                1,
                2,
                "elect takes one election name argument and an optional proposal argument",
            ),
            &[Flag::switch("listen", "tell who leads").short('l')],
            lock::elect,
        ),
        Command {
            shared_flags: CLUSTER,
            ..Command::group("endpoint", "Questions to single servers", ENDPOINT)
        },
        GET_COMMAND,
        Command::group("lease", "Leases", LEASE),
        Command::leaf(
            ("lock", "<lock> [command arg...]", "Holds a lock, while a command runs"),
            Takes::at_least(
                1,
                "lock takes a lock name argument and an optional command to execute",
            ),
            &[Flag::new("ttl", Int, "10", "seconds that it stays without this tool")],
            lock::lock,
        ),
        Command::leaf(
            ("make-mirror", "<destination>", "Copies keys, and their changes, to another cluster"),
            Takes::exactly(1, "make-mirror takes one destination argument"),
            MIRROR,
            mirror::make_mirror,
        ),
        Command::group("member", "Members of the cluster", MEMBER),
        Command::leaf(
            ("move-leader", "<member>", "Makes another member lead"),
            Takes::exactly(1, "move-leader command needs 1 argument"),
            &[],
            move_leader::move_leader,
        ),
        Command::leaf(("options", "", "Shows the flags of all commands"), Takes::ANY, &[], options),
        PUT_COMMAND,
        Command::group("role", "Roles", ROLE),
        Command::group("snapshot", "Snapshots of a member", SNAPSHOT),
        TXN,
        Command::group("user", "Users", USER),
        Command::leaf(("version", "", "Prints versions"), Takes::ANY, &[], maintenance::version),
        WATCH_COMMAND,
    ],
};
