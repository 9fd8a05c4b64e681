//! English.

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
        "make room under the state directory of {node} and restart its daemon; if that data is not needed, make its replica anew: \
         `backstay mirror create --empty --force`",
    ),
    (
        "about.BS-403",
        "When an asynchronous group fails over, the last writes of the old active may be missing on the new one. They are copied to \
         cut-off/ in the state directory before they are replaced. Here that failed, or there is more than max_lag can have left; \
         so nothing is replaced before a person decides.",
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
    // Obstacles: continue "NODE …".
    ("obstacle.out-of-sync", "is out of sync"),
    ("obstacle.inconsistent", "has only a part of a resync"),
    ("obstacle.disk-failed", "has a failed disk"),
    (
        "obstacle.rolled-back",
        "has an older disk than it had: it was restored from a snapshot",
    ),
    (
        "obstacle.instance-open",
        "still has the device of an earlier activation open",
    ),
    ("obstacle.failed-here", "failed to run the group before"),
    ("obstacle.not-attached", "has not attached its replica"),
    ("obstacle.silent", "is silent"),
    (
        "obstacle.async-behind",
        "is further behind than max_lag or max_lag_seconds allow, or is being brought up to date",
    ),
    ("obstacle.no-vote", "does not vote"),
    (
        "obstacle.no-register",
        "would not reach a majority of the register, because other nodes are silent",
    ),
    (
        "remedy.out-of-sync",
        "wait for the resync: `backstay mirror status`",
    ),
    (
        "remedy.inconsistent",
        "wait for the resync: `backstay mirror status`",
    ),
    ("remedy.disk-failed", "replace the disk of {node}"),
    (
        "remedy.rolled-back",
        "let {node} resynchronise in full; do not restore disks of members",
    ),
    (
        "remedy.instance-open",
        "end what still uses the device on {node}",
    ),
    (
        "remedy.failed-here",
        "repair the service on {node}, then `backstay start {group}`",
    ),
    (
        "remedy.not-attached",
        "see whether the daemon runs on {node}: `backstay status` there",
    ),
    (
        "remedy.async-behind",
        "wait until {node} has caught up: `backstay mirror status`; if it never does, the link is too slow for what is written",
    ),
    (
        "remedy.silent",
        "see whether {node} and its daemon run, and its heartbeat networks",
    ),
    ("remedy.no-vote", "let {node} rejoin"),
    ("remedy.no-register", "bring the silent nodes back"),
    // Events.
    ("event.started", "daemon started (start {starts})"),
    ("event.node-up", "{node} is heard"),
    (
        "event.node-suspect",
        "{node} is silent on every link for {silent}",
    ),
    (
        "event.link-down",
        "heartbeat link {link} to {node} went silent",
    ),
    (
        "event.link-up",
        "heartbeat link {link} to {node} is heard again",
    ),
    (
        "event.record-changed",
        "record {version}: {active} active, epoch {epoch}, may be promoted: {members}",
    ),
    ("event.role-changed", "{me} went from {from} to {to}"),
    ("event.decision", "decided to {act}: {rule}"),
    ("event.phase", "{phase} took {took}"),
    ("event.transition-done", "transition done after {took}"),
    ("event.lease-lost", "lease ran out: nothing is answered"),
    ("event.lease-gained", "lease is confirmed"),
    (
        "event.replica-lost",
        "mirror lost the replica on {node}: {why}",
    ),
    (
        "event.resync-started",
        "resync of {node} began: {dirty} may differ",
    ),
    (
        "event.unreadable-mended",
        "{range} of {mirror} could not be read here; it was written anew from another replica",
    ),
    (
        "event.unreadable",
        "{range} of {mirror} cannot be read here, and no replica could serve it: the reader got an error",
    ),
    (
        "event.verified-clean",
        "verified {mirror} against {node}: {checked} compared, all equal",
    ),
    (
        "event.verified",
        "verified {mirror} against {node}: {checked} compared, {different} different, {unreadable} unreadable, {repaired} repaired",
    ),
    ("event.resync-done", "resync of {node} done: {sent} sent"),
    (
        "event.discarded",
        "{node} discarded its unacknowledged writes, at most {at_most}",
    ),
    (
        "event.put-aside",
        "{at_most} of writes that the failover cut off were put aside, in {count} ranges: {ranges}",
    ),
    (
        "event.resource-failed",
        "{resource} failed (restart {restarts} in its window)",
    ),
    ("event.disk-failed", "local disk failed: {error}"),
    ("event.problem-began", "{code} began: {problem}"),
    ("event.problem-ended", "{code} ended: {problem}"),
    ("event.asked", "asked to {request} ({reason}): {result}"),
    (
        "event.adopted",
        "took over what the earlier daemon had left running",
    ),
    ("disk.hang", "it hangs"),
    ("disk.errno", "{error}"),
    ("reason.none", "no reason given"),
    // Roles.
    ("role.witness", "witness"),
    ("role.settling", "settling"),
    ("role.standby", "standby"),
    ("role.promoting", "promoting"),
    ("role.active", "active"),
    ("role.frozen", "frozen"),
    ("role.demoting", "demoting"),
    ("role.held", "held"),
    // Why a replica was lost.
    ("loss.closed", "the connection closed"),
    ("loss.silent", "it acknowledged nothing in time"),
    ("loss.disk-failed", "its disk failed"),
    ("loss.protocol", "it broke the protocol"),
    ("loss.refused", "it refused the session"),
    ("loss.behind", "it is as far behind as it may be"),
    // Acts: continue "decided to …".
    ("act.take-over", "take over from {node}"),
    ("act.take-handover", "take over what {node} handed over"),
    ("act.wait", "wait"),
    ("act.drop-replica", "go on without the replica on {node}"),
    ("act.add-replica", "count the replica on {node} again"),
    ("act.hand-over", "hand over to {node}"),
    ("act.restart-resource", "restart {resource}"),
    ("act.hold-stopped", "hold the group, as asked"),
    ("act.hold-failed", "hold the group and call a person"),
    ("act.freeze", "answer nothing"),
    ("act.thaw", "answer again"),
    ("act.step-down", "stop everything and step down"),
    ("act.resume", "resume serving"),
    ("act.bootstrap", "make the first record"),
    // Rules: the reason of a decision.
    (
        "rule.promote-in-sync",
        "the replica is in sync and every lease ran out (R3)",
    ),
    (
        "rule.beyond-bound",
        "the replica is at its bound, and what would exceed it is acknowledged only when nobody can be promoted without it (R11)",
    ),
    ("rule.handover", "the active handed over on purpose"),
    (
        "rule.go-solo",
        "the replica is gone, so it leaves the set before a write is acknowledged alone (R7)",
    ),
    (
        "rule.grow",
        "the replica has everything, and counts before the record says so (R5)",
    ),
    (
        "rule.disk-failed-here",
        "the own disk failed and the peer is up to date (R7)",
    ),
    (
        "rule.stuck-peer",
        "its heartbeats live, but its disk or the way to it hangs (R18)",
    ),
    (
        "rule.no-lease",
        "without a confirmed lease nothing is answered (R8)",
    ),
    ("rule.lease-back", "the lease is confirmed (R8)"),
    ("rule.deposed", "a newer record names another node"),
    ("rule.restart-budget", "restarts are left in its window"),
    ("rule.budget-spent", "its restarts here are used up"),
    (
        "rule.failed-everywhere",
        "its restarts are used up on every node",
    ),
    ("rule.asked", "a person asked"),
    (
        "rule.barrier",
        "a barrier was confirmed after the restart (R6)",
    ),
    (
        "rule.first-record",
        "there is no record, and this node holds the origin of the data",
    ),
    // What was seen.
    ("seen.silent", "{node} was silent for {time}"),
    ("seen.heard", "{node} was heard {time} ago"),
    ("seen.grants-over", "leases granted here ran out {time} ago"),
    (
        "seen.witness-lease",
        "the witness reported a lease of {node} for {time} more",
    ),
    ("seen.at-epoch", "the record was at epoch {epoch}"),
    ("seen.own-obstacle", "this node {obstacle}"),
    ("seen.replica-lost", "the replica on {node} was lost: {why}"),
    ("seen.failures", "{resource} failed {count} times"),
    // Why an alternative was rejected.
    (
        "because.no-majority",
        "no majority of the register answered",
    ),
    ("because.lease-running", "somebody might still hold a lease"),
    ("because.not-promotable", "the replica {obstacle}"),
    ("because.budget-spent", "it was tried as often as allowed"),
    (
        "because.would-block",
        "writes would wait for a replica that does not answer",
    ),
    ("because.would-lose", "acknowledged data could be lost"),
    ("because.failed-there", "the group failed there already"),
    // Phases of a transition.
    ("phase.detect", "detect"),
    ("phase.lease", "lease"),
    ("phase.decide", "decide"),
    ("phase.mirror", "mirror"),
    // Requests and what came of them.
    ("request.move", "move the group"),
    ("request.move-to", "move the group to {node}"),
    ("request.start", "start the group"),
    ("request.stop", "stop the group"),
    ("request.verify", "verify the mirror {mirror}"),
    (
        "request.verify-repair",
        "verify and repair the mirror {mirror}",
    ),
    ("result.taken", "taken"),
    ("fault.no-active", "no node is active that could do it"),
    ("fault.target", "{node} {obstacle}"),
    ("fault.no-target", "no other node could take the group over"),
    (
        "fault.busy",
        "the group is in the middle of another transition",
    ),
    ("fault.already", "it already is as asked"),
    (
        "fault.unclear",
        "the register could not be changed; whether it still will be is not known yet",
    ),
    ("hold.stopped", "a person stopped it"),
    ("hold.failed", "it failed on every node"),
    // Status.
    ("status.ready", "every group can fail over now"),
    ("status.degraded", "group {group} cannot fail over: {why}"),
    ("status.down", "group {group} is not served"),
    ("status.unknown", "the state of the cluster is not known"),
    ("status.why-unknown", "no standby is ready"),
];
