//! English: problems.

pub(super) const TEXTS: &[(&str, &str)] = &[
    // Problems: what is wrong, what to do, and what it means.
    ("problem.BS-001", "the daemon of this node does not answer"),
    (
        "action.BS-001",
        "start it with `systemctl start backstay` or `backstay run`",
    ),
    (
        "about.BS-001",
        "The command talks to the daemon on this node through a socket in the state directory, and nobody answered there. \
         The state of the cluster is not known from here; the other nodes may be well. Look there with `backstay status`.",
    ),
    (
        "problem.BS-101",
        "node {node} is not heard on any heartbeat link",
    ),
    (
        "action.BS-101",
        "see whether {node} runs, and whether its heartbeat networks are up",
    ),
    (
        "about.BS-101",
        "No heartbeat of the node has arrived on any link for the suspicion time of the profile. It may be off, hang, or be \
         cut off. A standby or witness that is silent takes part in no decision; as long as it is, the cluster may be unable to fail over.",
    ),
    (
        "problem.BS-102",
        "node {node} is not heard on heartbeat link {link}",
    ),
    (
        "action.BS-102",
        "check the network of heartbeat link {link} between this node and {node}",
    ),
    (
        "about.BS-102",
        "The node is heard, but not on this link. Nothing fails over because of it. Repair it all the same: when the last link \
         goes too, the node counts as silent.",
    ),
    (
        "problem.BS-201",
        "the register of group {group} has no majority here",
    ),
    (
        "action.BS-201",
        "bring the silent nodes back; see which they are in the list of nodes",
    ),
    (
        "about.BS-201",
        "Who may be active is kept in a register among the nodes, and changing it needs more than half of them. A healthy active \
         goes on while its standby confirms it; nothing can be moved or taken over until a majority answers.",
    ),
    (
        "problem.BS-202",
        "node {node} does not vote: its member file is lost or older than it was",
    ),
    (
        "action.BS-202",
        "do not restore old files of the state directory; let {node} rejoin",
    ),
    (
        "about.BS-202",
        "A member that forgot a vote could give it twice, so a node whose member file is gone, or came back from a snapshot or a \
         backup, does not vote. The others decide without it.",
    ),
    (
        "problem.BS-301",
        "group {group} cannot fail over: {node} {obstacle}",
    ),
    ("action.BS-301", "{remedy}"),
    (
        "about.BS-301",
        "The group is served, but no other node could take it over now. `backstay status` names the closest candidate and what \
         stands against it; `backstay mirror status` shows how far a resync is.",
    ),
    (
        "problem.BS-302",
        "group {group} answers nothing: nobody confirms that this node may serve",
    ),
    (
        "action.BS-302",
        "bring back the standby or the witness; service resumes by itself",
    ),
    (
        "about.BS-302",
        "The active serves only while another member confirms its lease. It has heard none of them for too long, so one of them may \
         have taken over without it: it withholds all answers and writes. This protects the data; nothing that was acknowledged is lost.",
    ),
    ("problem.BS-303", "group {group} is held: {why}"),
    (
        "action.BS-303",
        "when the cause is gone: `backstay start {group}`",
    ),
    (
        "about.BS-303",
        "The group's resources are stopped and stay so until a person starts the group: either a person stopped it, or it failed on \
         every node as often as its restart limit allows. `backstay why` tells which resource failed and how.",
    ),
    ("problem.BS-304", "no node serves group {group}"),
    ("action.BS-304", "see `backstay why` and the other problems"),
    (
        "about.BS-304",
        "No node is known to serve the group, and nobody asked for that. A failover may be under way; if it lasts, the other problems say \
         what stands against it.",
    ),
    ("problem.BS-305", "{resource} of group {group} failed"),
    (
        "action.BS-305",
        "see `backstay events` and the log of the service",
    ),
    (
        "about.BS-305",
        "A resource ended or did not answer its monitor. It is restarted on the same node up to its limit, then the group moves to the \
         other node, and when it fails there too, the group is held.",
    ),
    (
        "problem.BS-401",
        "the disk of node {node} for group {group} failed",
    ),
    (
        "action.BS-401",
        "replace the disk, then let the mirror resynchronise",
    ),
    (
        "about.BS-401",
        "A write or a flush on the disk failed, or the disk hangs. The replica on it is out of use for good, because a disk that failed a \
         flush may have dropped data silently. The group is served from the other replica.",
    ),
    (
        "problem.BS-403",
        "{node} holds acknowledged writes of group {group} that a failover cut off, and does not follow",
    ),
    (
        "action.BS-403",
        "make room under the state directory of {node} and restart its daemon; if that data is not needed, on {node}: \
         `backstay mirror demote MIRROR`",
    ),
    (
        "about.BS-403",
        "When an asynchronous group fails over, the last writes of the old active may be missing on the new one. They are copied to \
         cut-off/ in the state directory before they are replaced. Here that failed, or there is more than max_lag can have left; \
         so nothing is replaced before a person decides. `backstay mirror demote MIRROR` on that node shows where these writes are, and \
         lets them go: the replica follows, and what it had is replaced. To save them first, stop the daemon there, run `backstay mirror \
         export DEVICE FILE`, and start it again. If only room was missing, make room and restart the daemon: it tries again.",
    ),
    (
        "problem.BS-404",
        "{node} {obstacle}, so it cannot hold group {group}",
    ),
    ("action.BS-404", "{remedy}"),
    (
        "about.BS-404",
        "The disk at the configured path works, but is not a replica of this mirror: a foreign disk in its place, one that was never made a \
         replica, one of another size, one with damaged metadata, or beside a metadata device that is of another disk. Nothing on it is overwritten. The group is served from the other \
         replica, and cannot fail over until this is put right.",
    ),
    ("problem.BS-501", "the configuration cannot be read"),
    (
        "action.BS-501",
        "see the cause; the file is given with --config",
    ),
    (
        "about.BS-501",
        "The configuration file, or one in conf.d beside it, is missing, not readable, too large or not text.",
    ),
    ("problem.BS-502", "the configuration is not TOML"),
    ("action.BS-502", "correct the line"),
    (
        "about.BS-502",
        "The text breaks a rule of TOML, such as a missing quote. Keys are checked only when the whole text can be read.",
    ),
    ("problem.BS-503", "the configuration has an unknown key"),
    ("action.BS-503", "correct its spelling, or leave it out"),
    (
        "about.BS-503",
        "A key that nobody reads is an error, not a warning: a misspelt key would otherwise be a setting that silently does not hold. \
         `backstay config schema` lists all keys.",
    ),
    ("problem.BS-504", "a value in the configuration is wrong"),
    ("action.BS-504", "correct the value"),
    (
        "about.BS-504",
        "The value has the wrong type, lacks its unit, or is out of range.",
    ),
    (
        "problem.BS-505",
        "something is missing in the configuration",
    ),
    ("action.BS-505", "add it"),
    ("about.BS-505", "A key without a default is not given."),
    (
        "problem.BS-506",
        "two parts of the configuration exclude each other",
    ),
    ("action.BS-506", "change one of them"),
    (
        "about.BS-506",
        "For example two nodes with one name or one address, or a file system that stands before its mirror.",
    ),
    (
        "problem.BS-507",
        "the configuration names something that does not exist",
    ),
    ("action.BS-507", "correct the name"),
    (
        "about.BS-507",
        "For example a disk for a node that is not in the list of nodes, or a file system on an unknown mirror.",
    ),
    ("problem.BS-508", "the configuration is unsafe"),
    ("action.BS-508", "change it as the hint says"),
    (
        "about.BS-508",
        "It could be used, but a promise would not hold. For example a witness in the zone of a data node: when that zone fails, the \
         other node has no majority.",
    ),
    (
        "problem.BS-509",
        "the configuration asks for something that is not in this release",
    ),
    ("action.BS-509", "leave it out"),
    (
        "about.BS-509",
        "The key or value is planned. It is refused, because ignoring it would promise what does not happen.",
    ),
    ("problem.BS-601", "the request is malformed"),
    ("action.BS-601", "see /api/v1/openapi.json"),
    (
        "about.BS-601",
        "The body or a parameter of an API request cannot be read.",
    ),
    ("problem.BS-602", "there is no such thing"),
    ("action.BS-602", "see `backstay status` for the names"),
    (
        "about.BS-602",
        "The request names a path, a group, a node or an event that does not exist.",
    ),
    ("problem.BS-603", "not allowed"),
    (
        "action.BS-603",
        "run the command as root, or as the user of the daemon",
    ),
    (
        "about.BS-603",
        "The API's socket answers only root and the user that the daemon runs as.",
    ),
    ("problem.BS-604", "the request was refused"),
    ("action.BS-604", "see the cause"),
    (
        "about.BS-604",
        "The daemon understood the request, but the state of the cluster stands against it. Nothing was changed.",
    ),
    ("problem.BS-605", "the daemon did not answer in time"),
    (
        "action.BS-605",
        "look with `backstay status`, then try again",
    ),
    ("about.BS-605", "The request may still take effect."),
];
