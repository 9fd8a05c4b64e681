//! Every key of the configuration: one table drives the reader, the JSON schema and the suggestions.

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A name: see [`NAME_RULE`].
    Name,
    /// Any text that is not empty.
    Text,
    /// An absolute path.
    Path,
    /// `true` or `false`.
    Flag,
    /// A whole number in this range.
    Count(u64, u64),
    /// Text such as `64MiB`, at least and at most that many bytes.
    Bytes(u64, u64),
    /// Text such as `60s`, at least and at most that many milliseconds.
    Time(u64, u64),
    /// An IPv4 or IPv6 address.
    Address,
    /// A list of addresses, not empty.
    Addresses,
    /// A list of texts, the first of them a program.
    Command,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A path, or a table of node name to path.
    PathPerNode,
    /// One table.
    Table(&'static [Field]),
    /// A list of tables.
    Tables(&'static [Field]),
    /// A list of tables whose keys depend on their `kind`.
    Kinds(&'static [Kind]),
}

/// Whether a key must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It must be there.
    Required,
    /// It may be missing and means nothing then.
    Optional,
    /// It may be missing and is this then, written as in the file.
    Default(&'static str),
}

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) shape: Shape,
    pub(super) need: Need,
    pub(super) doc: &'static str,
}

/// One kind of a resource.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) kind: &'static str,
    pub(super) doc: &'static str,
    pub(super) fields: &'static [Field],
}

/// How names may look. Node names are DNS labels in certificates; names are parts of socket paths.
pub(super) const NAME_RULE: &str =
    "lower-case letters, digits and hyphens, beginning with a letter, at most 32 characters";
/// Longest name, in bytes.
pub(super) const NAME_MAX: usize = 32;

const fn required(key: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field {
        key,
        shape,
        need: Need::Required,
        doc,
    }
}

const fn optional(key: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field {
        key,
        shape,
        need: Need::Optional,
        doc,
    }
}

const fn default(key: &'static str, shape: Shape, value: &'static str, doc: &'static str) -> Field {
    Field {
        key,
        shape,
        need: Need::Default(value),
        doc,
    }
}

pub(super) const PROFILES: &[&str] = &["lan", "fast", "cloud"];
pub(super) const ROLES: &[&str] = &["data", "witness"];
/// When a synchronous mirror acknowledges.
pub(super) const ACKS: &[&str] = &["write", "flush"];
pub(super) const MODES: &[&str] = &["sync", "async"];
pub(super) const FRONT_ENDS: &[&str] = &["auto", "ublk", "nbd", "fuse-loop", "nbd-socket"];
pub(super) const COMPRESSIONS: &[&str] = &["none", "lz4"];
pub(super) const FILE_SYSTEMS: &[&str] = &["ext4", "xfs"];

/// Words that are planned, so that they are not called unknown.
pub(super) const LATER_REGISTERS: &[&str] = &["s3", "etcd"];
pub(super) const LATER_DRIVERS: &[&str] = &["aws-route", "bgp", "nlb", "route53", "exec"];
pub(super) const LATER_KINDS: &[&str] = &[
    "systemd",
    "ocf",
    "overlay-ip",
    "tcp",
    "http",
    "command",
    "disk",
    "network",
    "system",
];
pub(super) const LATER_ACKS: &[&str] = &["flush"];
pub(super) const LATER_KEYS: &[&str] = &["after", "vpn", "alert", "bucket", "endpoints"];

const PORT: Shape = Shape::Count(1, 65_535);
const DAY_MS: u64 = 86_400_000;

const PORTS: &[Field] = &[
    default(
        "heartbeat",
        PORT,
        "9944",
        "UDP: heartbeats, leases and register messages.",
    ),
    default(
        "control",
        PORT,
        "9945",
        "TCP: session handshakes between nodes.",
    ),
    default("mirror", PORT, "9946", "TCP: mirrored writes."),
    default(
        "api",
        PORT,
        "9947",
        "TCP on 127.0.0.1: metrics and health checks.",
    ),
];

const NODE: &[Field] = &[
    required(
        "name",
        Shape::Name,
        "Name of the node; part of its certificate.",
    ),
    default(
        "role",
        Shape::Choice(ROLES),
        "\"data\"",
        "`data` holds a replica, `witness` only votes.",
    ),
    optional(
        "zone",
        Shape::Text,
        "What fails together, such as a rack or an availability zone.",
    ),
    optional(
        "service",
        Shape::Address,
        "Address on the service network; data nodes need it.",
    ),
    required(
        "heartbeat",
        Shape::Addresses,
        "One address per heartbeat link, in the same order on every node.",
    ),
    optional(
        "mirror",
        Shape::Address,
        "Address on the mirror network; data nodes need it.",
    ),
];

const REGISTER: &[Field] = &[required(
    "kind",
    Shape::Choice(&["embedded"]),
    "Where the record of who is active is kept: `embedded` among the nodes.",
)];

const LAB: &[Field] = &[default(
    "fault_shim",
    Shape::Flag,
    "false",
    "Lets a lab break the disk below the engine.",
)];

const MIRROR: &[Field] = &[
    required(
        "name",
        Shape::Name,
        "Name of the mirror, unique in the cluster.",
    ),
    required(
        "disk",
        Shape::PathPerNode,
        "The disk, or a table of node name to disk.",
    ),
    optional(
        "metadata",
        Shape::PathPerNode,
        "A small device for the mirror's metadata, or a table of node name to device; the disk is all data then. Default: the end \
         of the disk.",
    ),
    optional(
        "undo",
        Shape::PathPerNode,
        "A file or device for the undo log of resyncs, best on another disk, or a table of node name to path: `mirror rollback` then leads an unfinished \
         resync back. Default: none.",
    ),
    default(
        "undo_bound",
        Shape::Bytes(wire::undo::LOG_BYTES_MIN, 1 << 50),
        "\"4GiB\"",
        "Most bytes of the undo log; a resync that overwrites more goes on without a way back.",
    ),
    default(
        "mode",
        Shape::Choice(MODES),
        "\"sync\"",
        "When a write is acknowledged.",
    ),
    default(
        "ack",
        Shape::Choice(ACKS),
        "\"write\"",
        "Only sync. `write`: a write is acknowledged when both nodes have it; `flush`: when it is local and sent, and a flush \
         when everything before it is durable on both.",
    ),
    optional(
        "async_node",
        Shape::Name,
        "Only sync, with three data nodes: the one whose replica nobody waits for, as with mode = \"async\".",
    ),
    default(
        "max_lag",
        Shape::Bytes(1 << 20, 1 << 40),
        "\"64MiB\"",
        "Only async: most bytes that the standby may lack before it is brought back by resync.",
    ),
    default(
        "max_lag_seconds",
        Shape::Count(1, 86_400),
        "5",
        "Only async: longest time that the standby may lack a write.",
    ),
    optional(
        "size",
        Shape::Bytes(1 << 20, 1 << 50),
        "Size of the volume; default: what fits.",
    ),
    default(
        "front_end",
        Shape::Choice(FRONT_ENDS),
        "\"auto\"",
        "How programs reach the volume: the best block device that this kernel has, one kind of it, or no block device.",
    ),
    default(
        "intent_bound",
        Shape::Bytes(1 << 20, 64 << 30),
        "\"64MiB\"",
        "Most bytes that are resynchronised after a crash of the active.",
    ),
    default(
        "compress",
        Shape::Choice(COMPRESSIONS),
        "\"none\"",
        "Pack what is sent to the other replicas: saves bytes on slow links, costs processor time.",
    ),
];

const FILESYSTEM: &[Field] = &[
    required("mirror", Shape::Name, "The mirror that it is on."),
    required("mount", Shape::Path, "Where it is mounted."),
    default(
        "fstype",
        Shape::Choice(FILE_SYSTEMS),
        "\"ext4\"",
        "Type of the file system.",
    ),
    optional(
        "options",
        Shape::Text,
        "Mount options, as in fstab; not those that mount something else: loop, bind, rbind, move, remount, nofail.",
    ),
];

const EXEC: &[Field] = &[
    required(
        "name",
        Shape::Name,
        "Name of the service, unique in the group.",
    ),
    required(
        "start",
        Shape::Command,
        "Program and arguments; it stays in the foreground.",
    ),
    optional(
        "stop",
        Shape::Command,
        "Program that asks it to stop; default: SIGTERM.",
    ),
    optional(
        "monitor",
        Shape::Command,
        "Program that ends with 0 while the service is healthy.",
    ),
    optional(
        "user",
        Shape::Text,
        "User to run as; default: the daemon's.",
    ),
    default(
        "monitor_interval",
        Shape::Time(50, DAY_MS),
        "\"1s\"",
        "Between two monitor runs.",
    ),
    default(
        "restart",
        Shape::Count(0, 1_000),
        "3",
        "Restarts here before failing over.",
    ),
    default(
        "restart_window",
        Shape::Time(1_000, DAY_MS),
        "\"60s\"",
        "Restarts are counted in it.",
    ),
    default(
        "start_timeout",
        Shape::Time(100, DAY_MS),
        "\"60s\"",
        "Longest start.",
    ),
    default(
        "stop_timeout",
        Shape::Time(100, DAY_MS),
        "\"30s\"",
        "Longest stop before SIGKILL.",
    ),
];

const ADDRESS: &[Field] = &[
    required("ip", Shape::Address, "The address that clients use."),
    optional(
        "prefix",
        Shape::Count(0, 128),
        "Length of its prefix; driver `l2` needs it.",
    ),
    default(
        "driver",
        Shape::Choice(&["l2"]),
        "\"l2\"",
        "How the network learns where it is.",
    ),
    optional(
        "interface",
        Shape::Text,
        "Interface; default: the one with the service address.",
    ),
];

pub(super) const RESOURCE_KINDS: &[Kind] = &[
    Kind {
        kind: "mirror",
        doc: "A replicated volume.",
        fields: MIRROR,
    },
    Kind {
        kind: "filesystem",
        doc: "A file system on a mirror.",
        fields: FILESYSTEM,
    },
    Kind {
        kind: "exec",
        doc: "A program that is started, watched and stopped.",
        fields: EXEC,
    },
    Kind {
        kind: "address",
        doc: "An address that follows the active node.",
        fields: ADDRESS,
    },
];

const GROUP: &[Field] = &[
    required(
        "name",
        Shape::Name,
        "Name of the group, the unit of failover.",
    ),
    required(
        "resource",
        Shape::Kinds(RESOURCE_KINDS),
        "Resources, started in this order and stopped in reverse.",
    ),
];

pub(super) const ROOT: &[Field] = &[
    required(
        "cluster",
        Shape::Name,
        "Name of the cluster; part of every certificate.",
    ),
    default(
        "profile",
        Shape::Choice(PROFILES),
        "\"lan\"",
        "How fast failures are detected.",
    ),
    default(
        "tls",
        Shape::Flag,
        "true",
        "TLS on the mirror link. Off only on a trusted network.",
    ),
    optional(
        "ports",
        Shape::Table(PORTS),
        "Ports, the same on every node.",
    ),
    required(
        "node",
        Shape::Tables(NODE),
        "The nodes: two with data, one witness.",
    ),
    required(
        "register",
        Shape::Table(REGISTER),
        "Who decides which node is active.",
    ),
    required("group", Shape::Tables(GROUP), "What fails over together."),
    optional("lab", Shape::Table(LAB), "Only for labs on one machine."),
];

/// Keys that are left out of the published schema.
pub(super) const HIDDEN: &[&str] = &["lab"];
