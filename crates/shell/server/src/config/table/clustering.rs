//! How a member finds its cluster, and what holds in it.

use super::super::flag::{Flag, Group, InFile, State, at};
use super::of;

const ROW: Flag = of(Group::Clustering);

/// Rows of the part "Clustering".
pub(super) const CLUSTERING: &[Flag] = &[
    Flag {
        name: "initial-advertise-peer-urls",
        default: "http://localhost:2380",
        help: "Where the other members are told to reach this one.",
        place: at!(clustering.advertise_peer_urls),
        ..ROW
    },
    Flag {
        name: "initial-cluster",
        default: "default=http://localhost:2380",
        help: "The founding members as name=URL,name=URL; a name with several URLs is repeated.",
        place: at!(clustering.initial_cluster),
        ..ROW
    },
    Flag {
        name: "initial-cluster-state",
        default: "new",
        help: "Whether the member founds a cluster or joins one; it counts at the first start only.",
        place: at!(clustering.state),
        ..ROW
    },
    Flag {
        name: "initial-cluster-token",
        default: "etcd-cluster",
        help: "A text that goes into the cluster's ID, so that clusters with the same URLs are not \
               taken for each other.",
        place: at!(clustering.token),
        ..ROW
    },
    Flag {
        name: "advertise-client-urls",
        default: "http://localhost:2379",
        help: "Where clients are told to reach this member. Needed if --listen-client-urls is set.",
        place: at!(clustering.advertise_client_urls),
        ..ROW
    },
    Flag {
        name: "discovery-token",
        help: "Which cluster of the discovery service this member belongs to.",
        place: at!(discovery.token),
        file: InFile::At("discovery-config.token"),
        ..ROW
    },
    Flag {
        name: "discovery-endpoints",
        help: "Addresses of the etcd that serves discovery.",
        place: at!(discovery.endpoints),
        file: InFile::At("discovery-config.client.endpoints"),
        ..ROW
    },
    Flag {
        name: "discovery-dial-timeout",
        default: "2s",
        help: "How long connecting to the discovery service may take.",
        place: at!(discovery.dial_timeout),
        file: InFile::At("discovery-config.client.dial-timeout"),
        ..ROW
    },
    Flag {
        name: "discovery-request-timeout",
        default: "5s",
        help: "How long a request to the discovery service may take once it is connected.",
        place: at!(discovery.request_timeout),
        file: InFile::At("discovery-config.client.request-timeout"),
        ..ROW
    },
    Flag {
        name: "discovery-keepalive-time",
        default: "2s",
        help: "Silence after which the discovery service is pinged.",
        place: at!(discovery.keepalive_time),
        file: InFile::At("discovery-config.client.keepalive-time"),
        ..ROW
    },
    Flag {
        name: "discovery-keepalive-timeout",
        default: "6s",
        help: "How long the discovery service may leave a ping unanswered.",
        place: at!(discovery.keepalive_timeout),
        file: InFile::At("discovery-config.client.keepalive-timeout"),
        ..ROW
    },
    Flag {
        name: "discovery-insecure-transport",
        default: "true",
        help: "Speak to the discovery service without TLS.",
        place: at!(discovery.insecure_transport),
        file: InFile::At("discovery-config.client.secure.insecure-transport"),
        ..ROW
    },
    Flag {
        name: "discovery-insecure-skip-tls-verify",
        default: "false",
        help: "Trust any certificate of the discovery service; for tests only.",
        place: at!(discovery.insecure_skip_tls_verify),
        file: InFile::At("discovery-config.client.secure.insecure-skip-tls-verify"),
        ..ROW
    },
    Flag {
        name: "discovery-cert",
        help: "File of the certificate that the discovery service is shown.",
        place: at!(discovery.cert),
        file: InFile::At("discovery-config.client.secure.cert"),
        ..ROW
    },
    Flag {
        name: "discovery-key",
        help: "File of that certificate's key.",
        place: at!(discovery.key),
        file: InFile::At("discovery-config.client.secure.key"),
        ..ROW
    },
    Flag {
        name: "discovery-cacert",
        help: "File of the authorities that the discovery service's certificate must come from.",
        place: at!(discovery.cacert),
        file: InFile::At("discovery-config.client.secure.cacert"),
        ..ROW
    },
    Flag {
        name: "discovery-user",
        help: "User of the discovery service, as name or name:password.",
        place: at!(discovery.user),
        file: InFile::At("discovery-config.client.auth.username"),
        ..ROW
    },
    Flag {
        name: "discovery-password",
        help: "That user's password, if --discovery-user has none.",
        place: at!(discovery.password),
        file: InFile::At("discovery-config.client.auth.password"),
        ..ROW
    },
    Flag {
        name: "discovery-fallback",
        default: "exit",
        help: "What to do if discovery fails; proxy is refused, because there is none any more.",
        place: at!(discovery.fallback),
        file: InFile::Nowhere,
        ..ROW
    },
    Flag {
        name: "discovery-srv",
        help: "DNS domain whose SRV records name the founding members.",
        place: at!(discovery.srv),
        ..ROW
    },
    Flag {
        name: "discovery-srv-name",
        help: "Suffix of the service names asked for in that domain.",
        place: at!(discovery.srv_name),
        ..ROW
    },
    Flag {
        name: "strict-reconfig-check",
        default: "true",
        help: "Refuse changes of the membership that could cost the quorum.",
        place: at!(clustering.strict_reconfig_check),
        ..ROW
    },
    Flag {
        name: "pre-vote",
        default: "true",
        help: "Ask whether a vote could be won before raising the term, so that a member that was \
               cut off disturbs nobody when it returns.",
        place: at!(raft.pre_vote),
        ..ROW
    },
    Flag {
        name: "auto-compaction-retention",
        default: "0",
        help: "How much history is kept: a duration or a number of hours, or a number of revisions; \
               0 keeps all.",
        place: at!(compaction.retention),
        ..ROW
    },
    Flag {
        name: "auto-compaction-mode",
        default: "periodic",
        help: "What --auto-compaction-retention counts: time (periodic) or revisions (revision).",
        place: at!(compaction.mode),
        ..ROW
    },
    Flag {
        name: "v2-deprecation",
        default: "write-only",
        help: "A phase of the end of the v2 store. Deprecated: whatever is given, write-only holds.",
        place: at!(clustering.v2_deprecation),
        state: State::Deprecated(
            "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value \
             is enforced, ignoring user input.",
        ),
        ..ROW
    },
];
